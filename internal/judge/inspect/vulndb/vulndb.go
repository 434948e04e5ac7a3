// Package vulndb inspects vulnerability data: whoever looks things up in it must be
// able to trust that every line is where it belongs.
package vulndb

import (
	"context"
	"fmt"
	"strings"

	"enisle/internal/judge/inspect"
	"enisle/internal/judge/vuln"
)

// Scanner inspects vulnerability data; the zero value works.
type Scanner struct{}

var _ inspect.Scanner = Scanner{}

// New returns the scanner.
func New() Scanner { return Scanner{} }

// Name returns "vulndb".
func (Scanner) Name() string { return "vulndb" }

// Version changes when verdicts may.
func (Scanner) Version() string { return "1" }

// Wants takes sorted files of artifacts of the kind vulndb.
func (Scanner) Wants(s inspect.Subject) bool {
	return s.Depth == 0 && s.Ref.Kind == "vulndb" && strings.HasSuffix(s.Path, vuln.Suffix)
}

// Scan reads the whole file.
func (Scanner) Scan(ctx context.Context, s inspect.Subject, run inspect.Run) error {
	d, err := vuln.Open(s, s.Size)
	if err == nil {
		err = d.Verify(ctx)
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		run.Report("data", inspect.Refuse, err.Error())
	case s.Path != d.Head.Ecosystem+vuln.Suffix:
		run.Report("data", inspect.Refuse, "it is about "+d.Head.Ecosystem+", which its name does not say")
	default:
		run.Report("data", inspect.Info, fmt.Sprintf("%s: %d advisories, the newest of %s", d.Head.Ecosystem, d.Head.Advisories, d.Head.Newest.UTC().Format("2006-01-02")))
	}
	return nil
}
