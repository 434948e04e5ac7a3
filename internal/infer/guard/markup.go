package guard

import (
	"bytes"
	"html"
	"strings"
)

// markup follows where addresses stand in a text that is shown as Markdown or HTML: the
// values of attributes (WHATWG HTML, 13.2.5) and the destinations of links (CommonMark,
// 6.3). What is written there so that only a browser reads it as an address is read again
// as the browser does.
type markup struct {
	state markupState
	tag   [16]byte // its name, in lower case
	attr  [16]byte // the name of the attribute
	n     int      // letters of the name that is being written
	quote byte     // that ends the value; 0: white space does
	open  int      // where the tag begins, or its last value ended
	value int      // where the value, or the destination, begins
	depth int      // of parentheses in a destination
	loads bool     // what is there is loaded when the answer is shown
	meta  bool     // if it begins with a number of seconds
	seen  bool     // it has an address
	odd   bool     // it may be read in another way
}

type markupState uint8

const (
	outside     markupState = iota
	opened                  // after <
	tagName                 // after < and a letter
	inTag                   // between attributes
	attrName                // of an attribute
	afterName               // white space after it
	equals                  // after =
	inValue                 // of an attribute
	beforeURL               // of a link in Markdown
	destination             // of it
	decoded                 // all of the text is a value, and read as a browser does
)

// quiet are attributes whose addresses nobody goes to. Constant.
var quiet = map[string]bool{"alt": true, "title": true, "placeholder": true, "class": true, "id": true, "lang": true, "rel": true, "cite": true, "itemtype": true, "xmlns": true}

// holds reports whether an address here is one that a renderer takes as such.
func (m *markup) holds() bool { return m.state >= inValue }

// loaded reports whether an address in a value is loaded when the answer is shown. Of what
// is said of a page, another page after so many seconds is.
func (m *markup) loaded(value []byte) bool {
	value = bytes.TrimLeft(value, spaces)
	return m.loads && (!m.meta || len(value) > 0 && (value[0] == '.' || value[0] >= '0' && value[0] <= '9'))
}

// step takes the byte at the end of a lane, and reports whether a value ended before it.
func (m *markup) step(l *lane, b byte, at int) (ended bool) {
	space := b == ' ' || b == '\t' || b == '\n' || b == '\r' || b == '\f'
	switch m.state {
	case inValue, destination:
		return m.inside(b, space, at)
	case decoded:
		return false
	case beforeURL:
		if space && at-m.value > maxURL {
			m.state = outside
		}
		if !space {
			m.state, m.value, m.quote = destination, at, 0
			if b == '<' {
				m.value, m.quote = at+1, '>'
			}
			m.inside(b, false, at)
		}
		return false
	case outside:
		m.text(l, b, at)
		return false
	case opened:
		m.state, m.n, m.tag = outside, 0, [16]byte{}
		if plainLetter[b] > '9' {
			m.state = tagName
			m.name(&m.tag, b)
		}
		return false
	case tagName, inTag, attrName, afterName, equals:
	}
	switch {
	case b == '>' || at-m.open > maxTail: // or it is none
		m.state = outside
	case m.state == equals && space:
	case m.state == equals:
		m.begin(b, at)
	case m.state == tagName && (space || b == '/'):
		m.state = inTag
	case m.state == tagName && plainLetter[b] == 0 && b != '-': // as in <https://
		m.state = outside
	case m.state == tagName:
		m.name(&m.tag, b)
	case b == '=' && m.state != inTag:
		m.state = equals
	case space && m.state == attrName:
		m.state = afterName
	case space:
	case b == '/':
		m.state = inTag
	case m.state == attrName:
		m.name(&m.attr, b)
	default:
		m.state, m.n, m.attr = attrName, 0, [16]byte{}
		m.name(&m.attr, b)
	}
	return false
}

// text takes a byte outside of tags.
func (m *markup) text(l *lane, b byte, at int) {
	before := l.buf[:len(l.buf)-1]
	switch {
	case b == '<':
		m.state, m.open = opened, at
		return
	case (b != '(' && b != ':') || !bytes.HasSuffix(before, []byte("]")):
		return
	case b == '(':
		m.depth, m.loads = 1, isImage(before)
	default: // images may name it
		m.depth, m.loads = 0, true
	}
	m.state, m.value, m.seen, m.odd, m.meta = beforeURL, at, false, false, false
}

// name takes a letter of a name.
func (m *markup) name(into *[16]byte, b byte) {
	if c := plainLetter[b]; c != 0 {
		b = c
	}
	if m.n < len(into) {
		into[m.n] = b
	}
	m.n++
}

// begin begins the value of an attribute.
func (m *markup) begin(b byte, at int) {
	m.state, m.value, m.quote, m.seen, m.odd = inValue, at, 0, false, false
	tag, attr := string(bytes.TrimRight(m.tag[:], "\x00")), string(bytes.TrimRight(m.attr[:], "\x00"))
	leads := (tag == "a" || tag == "area") && (attr == "href" || attr == "xlink:href")
	m.loads = !leads && !quiet[attr] && !strings.HasPrefix(attr, "xmlns:")
	m.meta = tag == "meta" && attr == "content"
	if b == '"' || b == '\'' {
		m.value, m.quote = at+1, b
		return
	}
	m.odd = b == '&' || b < ' '
}

// inside takes a byte of a value, or of a destination.
func (m *markup) inside(b byte, space bool, at int) (ended bool) {
	ends := at-m.value > maxURL
	switch {
	case m.quote != 0:
		ends = ends || b == m.quote || m.state == destination && b == '\n'
	case m.state == destination:
		m.depth += one(b == '(') - one(b == ')')
		ends = ends || space || b == ')' && m.depth == 0
	default:
		ends = ends || space || b == '>'
	}
	if !ends {
		m.odd = m.odd || b == '&' || b < ' ' || b == '\\' && m.state == destination || m.seen && b != '\\' && endsWord(b)
		return false
	}
	switch {
	case m.state == destination || m.quote == 0 && b == '>':
		m.state = outside
	default:
		m.state, m.open = inTag, at
	}
	return true
}

func endsWord(b byte) bool { return ends[b] }

// isImage reports whether the text in brackets at the end is that of an image.
func isImage(text []byte) bool {
	text = text[max(0, len(text)-maxURL):]
	depth := 0
	for i := len(text) - 1; i >= 0; i-- {
		if depth += one(text[i] == ']') - one(text[i] == '['); depth == 0 {
			return i > 0 && text[i-1] == '!'
		}
	}
	return bytes.Contains(text, []byte("!["))
}

// isStyle reports whether the address after this text is loaded by a style sheet.
func isStyle(before []byte) bool {
	before = bytes.ToLower(before[max(0, len(before)-seamSize):])
	set := bytes.LastIndex(before, []byte("image-set("))
	before = bytes.TrimRight(before, " \t\n\"'")
	name, url := bytes.CutSuffix(before, []byte("url("))
	if n := len(name); url && n > 0 && (isScheme(name[n-1]) || name[n-1] == '_') {
		return false // the end of another name, in a program
	}
	return url || bytes.HasSuffix(before, []byte("@import")) || set > bytes.LastIndexByte(before, ';') && set > bytes.LastIndexByte(before, '}')
}

// again reads a value that just ended as a browser does: with its references replaced,
// without what is left out of addresses, and as one address whatever is in it.
func (l *lane) again(end int, wasDestination bool) {
	m := &l.markup
	text := html.UnescapeString(string(l.buf[max(0, m.value-l.base) : end-l.base]))
	if wasDestination {
		text = unpunctuate(text)
	}
	text = strings.Trim(strings.NewReplacer("\t", "", "\n", "", "\r", "").Replace(text), spaces)
	sub := &lane{rules: l.rules, known: l.known, link: l.link, acts: l.acts, url: -1}
	sub.markup = markup{state: decoded, loads: m.loaded([]byte(text))}
	sub.add([]byte(text))
	sub.end()
	l.bad = append(l.bad, sub.bad...)
	for _, h := range sub.hits {
		if !l.has(h) {
			l.hits = append(l.hits, h)
		}
	}
	if s := asBrowsers(text); strings.HasPrefix(s, "//") || isWeb(s[:max(0, strings.Index(s, "://"))]) {
		if rule := l.link([]byte(text), sub.markup.loads); rule != "" {
			l.bad = append(l.bad, rule)
		}
	}
}

// spaces are what browsers leave out at both ends of an address. Constant.
var spaces = func() (s string) {
	for c := range ' ' + 1 {
		s += string(c)
	}
	return s
}()

// unpunctuate takes off the backslashes that Markdown takes off.
func unpunctuate(s string) string {
	if !strings.Contains(s, `\`) {
		return s
	}
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+1 < len(s) && s[i+1] > ' ' && s[i+1] < 0x7F && plainLetter[s[i+1]] == 0 {
			i++
		}
		b = append(b, s[i])
	}
	return string(b)
}
