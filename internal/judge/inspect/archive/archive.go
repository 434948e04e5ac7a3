// Package archive inspects zip and tar containers: names that leave their
// directory, links and devices, bombs, and the tricks by which two readers see
// two different contents.
//
// Every member goes back to the runner, whatever its name, so that a pickle in
// a zip in a wheel is judged as a pickle. It writes nothing but unnamed
// temporary files.
package archive

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
)

// Scanner inspects archives; the zero value works.
type Scanner struct{}

var _ inspect.Scanner = Scanner{}

// New returns the scanner.
func New() Scanner { return Scanner{} }

// Name returns "archive".
func (Scanner) Name() string { return "archive" }

// Version changes when verdicts may.
func (Scanner) Version() string { return "4" }

// closed are containers that are recognised and not read; constant.
var closed = []struct{ name, magic string }{
	{"7z", "7z\xbc\xaf\x27\x1c"},
	{"rar", "Rar!\x1a\x07"},
	{"lz4", "\x02\x21\x4c\x18"}, // its older frame
	{"cab", "MSCF"},
}

func isZip(s inspect.Subject) bool {
	return bytes.HasPrefix(s.Head, []byte("PK\x03\x04")) || bytes.HasPrefix(s.Head, []byte("PK\x05\x06")) ||
		slices.Contains([]string{".whl", ".zip", ".npz", ".keras", ".jar"}, path.Ext(s.Path)) || (s.Ref.Kind == "model" || s.Ref.Kind == "hf") && zipBehind(s)
}

// installs reports whether a subject becomes the root of a system.
func installs(s inspect.Subject) bool { return s.Ref.Kind == "debian" || s.Ref.Kind == "oci" }

func isTar(s inspect.Subject) bool {
	return len(s.Head) > 262 && string(s.Head[257:262]) == "ustar" || path.Ext(s.Path) == ".tar"
}

func closedKind(s inspect.Subject) string {
	for _, c := range closed {
		if bytes.HasPrefix(s.Head, []byte(c.magic)) {
			return c.name
		}
	}
	return ""
}

// Wants takes containers by their bytes, and files whose name says that they
// should be one.
func (Scanner) Wants(s inspect.Subject) bool {
	if s.HashTile() {
		return false
	}
	return isZip(s) || packedAs(s) != nil || isTar(s) || isAr(s) || closedKind(s) != ""
}

// Scan reads the container.
func (Scanner) Scan(ctx context.Context, s inspect.Subject, run inspect.Run) error {
	run = s.Milder(run, "bomb", "overlap")
	switch {
	case isZip(s):
		return scanZip(ctx, s, run)
	case packedAs(s) != nil:
		return scanPacked(ctx, s, packedAs(s), run)
	case isTar(s):
		return scanTar(ctx, s, io.NewSectionReader(s, 0, s.Size), run)
	case isAr(s):
		return scanAr(ctx, s, run)
	}
	run.Report("closed-container", s.Data(), "a "+closedKind(s)+" container, which is not read")
	return nil
}

// names checks the names of one archive's members.
type names struct {
	run   inspect.Run
	exact map[string]bool
	fold  map[string]string
	below int // directories that a reader takes off every name
	sev   inspect.Severity
}

// below returns how many directories a reader takes off the names of an archive: npm
// drops the first, whatever it is called.
func below(s inspect.Subject) int {
	if s.Ref.Kind == "npm" && s.Depth == 0 {
		return 1
	}
	return 0
}

func newNames(s inspect.Subject, run inspect.Run) *names {
	return &names{run: run, sev: s.Data(), exact: map[string]bool{}, fold: map[string]string{}}
}

func (n *names) check(name string) {
	clean := strings.TrimPrefix(strings.TrimSuffix(name, "/"), "./")
	if err := artifact.CheckPath(clean); err != nil && clean != "." && clean != "" {
		n.run.Report("name", n.sev, err.Error())
	}
	for range n.below {
		if _, rest, ok := strings.Cut(clean, "/"); ok {
			clean = rest
		}
	}
	fold := strings.ToLower(clean)
	switch other, ok := n.fold[fold]; {
	case n.exact[clean] && !strings.HasSuffix(name, "/"):
		n.run.Report("duplicate", n.sev, fmt.Sprintf("member %q stands twice", clean))
	case ok && other != clean:
		n.run.Report("case", n.sev, fmt.Sprintf("members %q and %q differ only in case", other, clean))
	}
	n.exact[clean], n.fold[fold] = true, clean
}
