// Package guardrules inspects the rules and the classifier of the gateway's guard:
// docs/spec/guard.md.
//
// It does not know their formats: whoever uses them says whether they can be.
package guardrules

import (
	"context"
	"errors"
	"io"

	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
)

// Ref is the artifact that has them.
func Ref() artifact.Ref { return artifact.Ref{Kind: "rules", Name: "guard"} }

const maxSize = 16 << 20 // bytes of a file

// Scanner inspects them.
type Scanner struct {
	check func(name string, b []byte) error
}

var _ inspect.Scanner = Scanner{}

// New returns the scanner; check reads a file to its end.
func New(check func(name string, b []byte) error) Scanner { return Scanner{check} }

// Name returns "guard".
func (Scanner) Name() string { return "guard" }

// Version changes when verdicts may.
func (Scanner) Version() string { return "1" }

// Wants takes all files of the artifact.
func (Scanner) Wants(s inspect.Subject) bool {
	return s.Depth == 0 && s.Ref.Kind == Ref().Kind && s.Ref.Name == Ref().Name
}

// Scan refuses what the guard would refuse.
func (c Scanner) Scan(ctx context.Context, s inspect.Subject, run inspect.Run) error {
	if s.Size > maxSize {
		return errors.New("it is larger than it may be")
	}
	b := make([]byte, s.Size)
	if _, err := s.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if err := c.check(s.Path, b); err != nil {
		run.Report("guard-file", inspect.Refuse, err.Error())
	}
	return ctx.Err()
}
