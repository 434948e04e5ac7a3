package guardrules

import (
	"bytes"
	"context"
	"errors"
	"io"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
)

// A file that the guard cannot use is a finding that refuses; what is not of its
// artifact is not looked at.
func TestFilesOfTheGuard(t *testing.T) {
	c := New(func(name string, b []byte) error {
		if name != "rules.yaml" || string(b) != "good" {
			return errors.New("not to be used")
		}
		return nil
	})
	for name, tc := range map[string]struct {
		path, text string
		refused    bool
	}{
		"good":            {"rules.yaml", "good", false},
		"another content": {"rules.yaml", "bad", true},
		"another file":    {"more.yaml", "good", true},
		"nothing":         {"rules.yaml", "", true},
	} {
		s := inspect.Subject{Ref: Ref(), Path: tc.path, Size: int64(len(tc.text)), ReaderAt: bytes.NewReader([]byte(tc.text))}
		if !c.Wants(s) {
			t.Errorf("%s: it is not wanted", name)
		}
		var run reports
		if err := c.Scan(t.Context(), s, &run); err != nil || (len(run.rules) == 1 && run.rules[0] == "guard-file") != tc.refused {
			t.Errorf("%s: %v, %v", name, run.rules, err)
		}
	}
	for _, ref := range []artifact.Ref{{Kind: "model", Name: "guard"}, {Kind: "rules", Name: "other"}} {
		if c.Wants(inspect.Subject{Ref: ref}) {
			t.Errorf("%s is wanted", ref)
		}
	}
	if c.Wants(inspect.Subject{Ref: Ref(), Depth: 1}) {
		t.Error("a member of an archive is wanted")
	}
	if err := c.Scan(t.Context(), inspect.Subject{Ref: Ref(), Size: maxSize + 1}, &reports{}); err == nil {
		t.Error("a file of any size is read")
	}
}

// reports keeps the rules of what is reported.
type reports struct{ rules []string }

func (r *reports) Report(rule string, _ inspect.Severity, _ string) { r.rules = append(r.rules, rule) }
func (r *reports) Note(string, string)                              {}

func (r *reports) Descend(context.Context, string, io.ReaderAt, int64) error {
	return errors.New("the files of the guard hold no others")
}
