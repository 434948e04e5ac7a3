//go:build !noengine

package worker

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// errStopped ends the generation at a stop sequence.
var errStopped = errors.New("stop sequence")

// text turns the bytes of tokens into pieces that are whole characters and
// hold no stop sequence. What might be the beginning of either is held back.
type text struct {
	stops   []string
	emit    func(string) error
	held    string
	stopped bool
}

func newText(stops []string, emit func(string) error) *text { return &text{stops: stops, emit: emit} }

// token takes the bytes of the next token; errStopped means that enough has
// been said.
func (t *text) token(b []byte) error {
	t.held += string(b)
	if at := t.stopAt(); at >= 0 {
		t.stopped = true
		head := t.held[:at]
		t.held = ""
		if err := t.send(head); err != nil {
			return err
		}
		return errStopped
	}
	keep := len(t.held) - max(t.openStop(), openRune(t.held))
	head := t.held[:keep]
	t.held = t.held[keep:]
	return t.send(head)
}

// flush sends what is held back at the end of the answer, and reports whether
// a stop sequence ended it. Bytes that never became a character are replaced.
func (t *text) flush() (stopped bool, err error) {
	err = t.send(t.held)
	t.held = ""
	return t.stopped, err
}

func (t *text) send(s string) error {
	if s == "" {
		return nil
	}
	return t.emit(strings.ToValidUTF8(s, "\uFFFD"))
}

// stopAt returns where the first stop sequence begins, -1 if none is there.
func (t *text) stopAt() int {
	first := -1
	for _, s := range t.stops {
		if i := strings.Index(t.held, s); i >= 0 && (first < 0 || i < first) {
			first = i
		}
	}
	return first
}

// openStop returns how many bytes at the end may begin a stop sequence.
func (t *text) openStop() (n int) {
	for _, s := range t.stops {
		for k := min(len(s)-1, len(t.held)); k > n; k-- {
			if strings.HasSuffix(t.held, s[:k]) {
				n = k
				break
			}
		}
	}
	return n
}

// openRune returns how many bytes at the end are the beginning of a character
// whose rest is missing, at most 3.
func openRune(s string) int {
	for n := 1; n <= min(utf8.UTFMax-1, len(s)); n++ {
		if b := s[len(s)-n]; utf8.RuneStart(b) {
			if b >= utf8.RuneSelf && !utf8.FullRuneInString(s[len(s)-n:]) {
				return n
			}
			return 0
		}
	}
	return 0
}
