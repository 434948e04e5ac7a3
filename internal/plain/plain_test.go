package plain

import (
	"errors"
	"fmt"
	"testing"
)

type name string

func TestNothingReachesTheTerminalThatIsNotPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"requests==2.32 – ok":     "requests==2.32 – ok",
		"a\x1b[2Kb":               `a\x1b[2Kb`,
		"safe\rrefused":           `safe\rrefused`,
		"two\nlines\tand a tab":   `two\nlines\tand a tab`,
		"a\u202egnp.exe":          `a\u202egnp.exe`,
		"zero\u200bwidth":         `zero\u200bwidth`,
		"\xff\xfe not text":       `\xff\xfe not text`,
		"c1 \u009b31m":            `c1 \u009b31m`,
		"a replacement \ufffd is": "a replacement \ufffd is",
	} {
		if got := Line(in); got != want {
			t.Errorf("Line(%q) = %q, want %q", in, got, want)
		}
	}
	if got := Text("a\n\tb\x1b"); got != "a\n\tb\\x1b" {
		t.Errorf("Text: %q", got)
	}
	got := fmt.Sprintf("%s|%s|%v|%d", Args([]any{name("a\x1b"), errors.New("b\n"), []int{1}, 7})...)
	if got != `a\x1b|b\n|[1]|7` {
		t.Errorf("Args: %q", got)
	}
}
