package guard

import (
	"bytes"
	"strings"
)

// lane reads one text of an answer as it grows. Each byte is looked at once; a pattern
// runs only where a word that begins it was seen, when as much of the text is there as
// it can be long or the word that it stands in has ended.
type lane struct {
	rules *Rules
	only  *answerRule                                // in tests of rules: no other
	acts  func(a *answerRule) Action                 // nil: as the rules say
	known func(value []byte) bool                    // what the person wrote; nil: nothing
	link  func(url []byte, image bool) (rule string) // rules on a link; nil: none are looked for
	// What may be held back: words, since something that ends in them may be blocked,
	// and numbers.
	holdWords, holdNumbers bool

	buf     []byte // the end of the text
	base    int    // where buf begins in the text
	state   int32  // of the words that begin patterns
	wait    []waiting
	word    int // where the word that is being written begins
	num     number
	letters []byte // the last ones, for the canary
	url     int    // where the address that is being written begins; -1: nowhere
	markup  markup // that addresses stand in
	hits    []*answerRule
	bad     []string // names of rules on links that matched

	of      string  // the answer that it belongs to, where there are several
	head    []byte  // what the text begins with, when buf has it no more
	call    bool    // it is made of arguments of a call
	seams   []*seam // with the lanes before
	joining bool    // more of its beginning may come
}

// waiting is a pattern that more of the text is needed for.
type waiting struct {
	rule  *answerRule
	start int
	until int
}

// number is a sequence of groups of digits.
type number struct {
	open    bool
	start   int
	digits  int
	gap     int  // bytes since the last digit or letter
	letters bool // it began with letters, as account numbers do
}

const (
	maxWaiting = 64      // patterns of a lane that wait
	maxNumber  = 64      // bytes of a number with its gaps
	keepNumber = 44      // of a longer one that stay
	maxURL     = 2 << 10 // bytes of an address that is waited for
	maxTail    = 4 << 10 // bytes of a text that are kept though nobody waits for them
)

// ends are the bytes that end a word. Constant.
var ends = func() (t [256]bool) {
	for _, c := range []byte(" \t\n\r\"'`<>()[]{},;|\\^") {
		t[c] = true
	}
	return t
}()

// add reads more of the text.
func (l *lane) add(text []byte) {
	if l.base+len(l.buf) == 0 {
		l.url = -1
	}
	for len(text) > 0 {
		if n := l.calm(text); n > 0 {
			text = text[n:]
			continue
		}
		l.byte(text[0])
		text = text[1:]
	}
	l.forget()
}

// stirs are the bytes that begin numbers, addresses, and what they stand in. Constant.
var stirs = func() (t [256]bool) {
	for _, c := range []byte("0123456789+/\\:<(") {
		t[c] = true
	}
	return t
}()

// calm takes the bytes at which nothing happens but that words begin and end, and
// returns how many there were: most of most texts.
func (l *lane) calm(text []byte) (n int) {
	if len(l.wait) > 0 || l.num.open || l.url >= 0 || l.markup.state != outside {
		return 0
	}
	m, state, at := l.rules.leads, l.state, l.base+len(l.buf)
	for i, b := range text {
		if stirs[b] {
			break
		}
		next := m.step(state, b)
		if m.final[next] {
			break
		}
		if ends[b] {
			l.word = at + i + 1
		}
		state, n = next, i+1
	}
	l.state, l.buf = state, append(l.buf, text[:n]...)
	return n
}

// byte takes one byte.
func (l *lane) byte(b byte) {
	at := l.base + len(l.buf)
	l.buf = append(l.buf, b)
	if ends[b] && (b != '\\' || l.url < 0) { // which is a slash in an address
		l.wordEnds(at)
	}
	l.state = l.rules.leads.step(l.state, b)
	if l.rules.leads.final[l.state] {
		l.leads(at + 1)
	}
	if l.link != nil && (stirs[b] || l.markup.state != outside) {
		l.addresses(b, at)
	}
	l.digit(b, at)
	if len(l.wait) > 0 {
		l.due(at + 1)
	}
	if l.url >= 0 && at-l.url > maxURL {
		l.urlEnds(at + 1)
	}
}

// end says that the text is whole.
func (l *lane) end() {
	at := l.base + len(l.buf)
	l.wordEnds(at)
	l.numberEnds(at)
	for len(l.wait) > 0 {
		l.resolve(0, at)
	}
	if m := &l.markup; l.link != nil && m.odd && (m.state == inValue || m.state == destination) {
		l.again(at, m.state == destination)
		m.state = outside
	}
}

// safe is how much of the text may be shown.
func (l *lane) safe() int {
	end := l.base + len(l.buf)
	n := end - l.leading()
	for _, w := range l.wait {
		if l.act(w.rule) == ActionBlock {
			n = min(n, w.start)
		}
	}
	if l.num.open && l.holdNumbers {
		n = min(n, l.num.start)
	}
	if l.holdWords && l.word >= end-maxBefore {
		n = min(n, l.word)
	}
	if l.url >= 0 {
		n = min(n, l.url)
	}
	if m := &l.markup; m.odd && (m.state == inValue || m.state == destination) {
		n = min(n, m.value)
	}
	return n
}

// maxBefore is the most that a rule can reach back.
const maxBefore = 128

// leading is how many bytes at the end may begin a word that is looked for.
func (l *lane) leading() int { return int(l.rules.leads.depth[l.state]) }

func (l *lane) act(a *answerRule) Action {
	if l.acts == nil {
		return a.Action
	}
	return l.acts(a)
}

// leads notes the patterns that begin with a word that ends at end.
func (l *lane) leads(end int) {
	for _, id := range l.rules.leads.out[l.state] {
		a := l.rules.leadOf[id]
		if l.only != nil && l.only != a || l.act(a) == ActionOff || l.has(a) {
			continue
		}
		start := end - int(l.rules.leads.depth[l.state])
		if a.Before > 0 {
			start = max(min(l.word, start), end-a.Before-8, 0)
		}
		if len(l.wait) >= maxWaiting {
			l.resolve(0, end)
		}
		l.wait = append(l.wait, waiting{a, start, end + a.Hold})
	}
}

// due resolves what waited for this much of the text.
func (l *lane) due(end int) {
	for i := 0; i < len(l.wait); {
		if l.wait[i].until <= end {
			l.resolve(i, end)
		} else {
			i++
		}
	}
}

// wordEnds resolves what waited for the end of a word. The byte at at ended it.
func (l *lane) wordEnds(at int) {
	if l.url >= 0 {
		l.urlEnds(at)
	}
	l.word = at + 1
	for i := 0; i < len(l.wait); {
		if !l.wait[i].rule.Lines {
			l.resolve(i, min(at+1, l.base+len(l.buf)))
		} else {
			i++
		}
	}
}

// resolve runs the pattern of what waits, and takes it off the list.
func (l *lane) resolve(i, end int) {
	w := l.wait[i]
	l.wait = append(l.wait[:i], l.wait[i+1:]...)
	l.try(w.rule, w.start, end)
}

// try runs a pattern over part of the text, with a byte before it.
func (l *lane) try(a *answerRule, start, end int) {
	if l.has(a) {
		return
	}
	part := l.buf[max(start-1-l.base, 0):min(end-l.base, len(l.buf))]
	if v := a.found(part); v != nil && (l.known == nil || !l.known(v)) {
		l.hits = append(l.hits, a)
	}
}

func (l *lane) has(a *answerRule) bool {
	for _, h := range l.hits {
		if h == a {
			return true
		}
	}
	return false
}

// digit follows groups of digits.
func (l *lane) digit(b byte, at int) {
	n := &l.num
	isDigit, isUpper := b >= '0' && b <= '9', b >= 'A' && b <= 'Z'
	if !n.open {
		if isDigit || b == '+' {
			*n = number{open: true, start: at}
			if k := at - l.word; isDigit && k > 0 && k <= 4 && upper(l.buf[l.word-l.base:at-l.base]) {
				n.start, n.letters = l.word, true
			}
			n.digits += one(isDigit)
		}
		return
	}
	switch {
	case isDigit:
		n.digits++
		n.gap = 0
	case isUpper && n.letters && n.gap <= 1:
		n.gap = 0
	case (b == ' ' || b == '-' || b == '.' || b == '/' || b == '(' || b == ')' || b == 0xC2 || b == 0xA0) && n.gap < 2:
		n.gap++
	default:
		l.numberEnds(at + 1)
		return
	}
	if at-n.start >= maxNumber {
		l.numbers(at + 1)
		n.start = at + 1 - keepNumber
	}
}

func one(b bool) int {
	if b {
		return 1
	}
	return 0
}

func upper(b []byte) bool {
	for _, c := range b {
		if c < 'A' || c > 'Z' {
			return false
		}
	}
	return true
}

func (l *lane) numberEnds(end int) {
	if l.num.open {
		l.numbers(end)
		l.num = number{}
	}
}

const minDigits = 8 // of a number that is looked at

func (l *lane) numbers(end int) {
	if l.num.digits < minDigits {
		return
	}
	for _, a := range l.rules.numbers {
		if l.only == nil || l.only == a {
			if l.act(a) != ActionOff {
				l.try(a, l.num.start, end)
			}
		}
	}
}

// addresses follows what addresses stand in, and notes where one begins.
func (l *lane) addresses(b byte, at int) {
	m := &l.markup
	was, odd := m.state, m.odd
	if ended := m.step(l, b, at); ended && odd {
		l.again(at, was == destination)
	}
	switch {
	case l.url >= 0:
	case b == ':':
		l.schemeEnds()
	case isSlash(b):
		l.hostBegins()
	}
	m.seen = m.seen || l.url >= 0 && m.holds()
}

// schemeEnds looks whether the colon that was just added ends a scheme of the web: for
// browsers any number of slashes may follow, or none, or ones that lean to the left.
func (l *lane) schemeEnds() {
	colon := len(l.buf) - 1
	i := colon
	for i > 0 && isScheme(l.buf[i-1]) {
		i--
	}
	if isWeb(string(l.buf[i:colon])) {
		l.url = l.base + i
	}
}

// hostBegins looks whether the slash that was just added is the second before a host.
// Where addresses stand, slashes may lean.
func (l *lane) hostBegins() {
	b := l.buf
	first := len(b) - 2
	if first < 0 || !isSlash(b[first]) || first > 0 && isSlash(b[first-1]) {
		return
	}
	i := first
	if i > 0 && b[i-1] == ':' {
		for i--; i > 0 && isScheme(b[i-1]); i-- {
		}
	}
	switch {
	case string(b[first:]) != "//" && !l.markup.holds():
		return
	case i == first && i > 0 && !ends[b[i-1]] && b[i-1] != '=' && !(l.markup.holds() && b[i-1] < ' '):
		return // two slashes in the middle of a word
	}
	l.url = l.base + i
}

func isSlash(c byte) bool { return c == '/' || c == '\\' }

// isWeb reports whether browsers take a scheme for one with a host, however many slashes
// follow.
func isWeb(scheme string) bool {
	return strings.EqualFold(scheme, "http") || strings.EqualFold(scheme, "https")
}

func isScheme(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '+' || c == '-' || c == '.'
}

// urlEnds has an address ruled on that ends before end.
func (l *lane) urlEnds(end int) {
	start := l.url - l.base
	l.url = -1
	address := l.buf[start:min(end-l.base, len(l.buf))]
	if !l.markup.holds() && !bytes.ContainsAny(address, `/\`) {
		return // a scheme and a colon, in prose
	}
	loads := isStyle(l.buf[:start])
	if m := &l.markup; m.holds() {
		loads = loads || m.loaded(l.buf[max(0, m.value-l.base):])
	}
	if rule := l.link(address, loads); rule != "" {
		l.bad = append(l.bad, rule)
	}
}

// forget drops the beginning of the text that nobody will look at again.
func (l *lane) forget() {
	if len(l.buf) < 2*maxTail {
		return
	}
	keep := l.base + len(l.buf) - maxTail
	for _, w := range l.wait {
		keep = min(keep, w.start-1)
	}
	if l.url >= 0 {
		keep = min(keep, l.url-maxTail/2)
	}
	if l.markup.holds() {
		keep = min(keep, l.markup.value)
	}
	if n := keep - l.base; n > 0 {
		if l.base == 0 {
			b, _ := l.beginning()
			l.head = bytes.Clone(b)
		}
		l.buf = append(l.buf[:0], l.buf[n:]...)
		l.base = keep
	}
}
