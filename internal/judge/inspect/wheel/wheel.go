// Package wheel inspects Python distributions: that a wheel is what its name
// says, that its RECORD tells the truth about every member, and what it would
// run at installation or at start-up.
//
// It judges structure; what the members themselves are is for other scanners.
package wheel

import (
	"archive/zip"
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/base64"
	"encoding/csv"
	"errors"
	"fmt"
	"hash"
	"io"
	"regexp"
	"strconv"
	"strings"

	"enisle/internal/judge/inspect"
)

// Scanner inspects wheels and sdists; the zero value works.
type Scanner struct{}

var _ inspect.Scanner = Scanner{}

// New returns the scanner.
func New() Scanner { return Scanner{} }

// Name returns "wheel".
func (Scanner) Name() string { return "wheel" }

// Version changes when verdicts may.
func (Scanner) Version() string { return "2" }

// Limits of what is read into memory, in bytes.
const (
	maxRecord   = 64 << 20
	maxMetadata = 4 << 20
	maxMember   = 1 << 40
)

// Wants takes files of the kind pypi.
func (Scanner) Wants(s inspect.Subject) bool {
	return s.Depth == 0 && s.Ref.Kind == "pypi" && (strings.HasSuffix(s.Path, ".whl") || strings.HasSuffix(s.Path, ".tar.gz"))
}

// Scan judges one distribution.
func (Scanner) Scan(ctx context.Context, s inspect.Subject, run inspect.Run) error {
	if strings.HasSuffix(s.Path, ".tar.gz") {
		run.Report("install-code", inspect.Warn, "a source distribution: it runs its own code when it is installed")
		return nil
	}
	z, err := zip.NewReader(s, s.Size)
	if err != nil {
		return err
	}
	w := &wheel{subject: s, run: run, members: map[string]*zip.File{}}
	for _, f := range z.File {
		if !strings.HasSuffix(f.Name, "/") {
			w.members[f.Name] = f
		}
	}
	dir, err := w.distInfo()
	if err != nil {
		run.Report("structure", inspect.Refuse, err.Error())
		return nil
	}
	if err := w.identity(dir); err != nil {
		run.Report("identity", inspect.Refuse, err.Error())
	}
	if err := w.record(ctx, dir); err != nil {
		return err
	}
	w.startup()
	return nil
}

type wheel struct {
	subject inspect.Subject
	run     inspect.Run
	members map[string]*zip.File
}

// distInfo finds the one directory that describes the wheel.
func (w *wheel) distInfo() (string, error) {
	found := ""
	for name := range w.members {
		dir, _, ok := strings.Cut(name, "/")
		if !ok || !strings.HasSuffix(dir, ".dist-info") || dir == found {
			continue
		}
		if found != "" {
			return "", fmt.Errorf("it has two descriptions: %s and %s", found, dir)
		}
		found = dir
	}
	if found == "" {
		return "", errors.New("it has no .dist-info")
	}
	for _, f := range []string{"METADATA", "WHEEL", "RECORD"} {
		if w.members[found+"/"+f] == nil {
			return "", fmt.Errorf("it has no %s", f)
		}
	}
	return found, nil
}

var separators = regexp.MustCompile(`[-_.]+`)

func normal(s string) string { return strings.ToLower(separators.ReplaceAllString(s, "-")) }

// identity compares file name, .dist-info, METADATA and reference.
func (w *wheel) identity(dir string) error {
	base := w.subject.Path[strings.LastIndex(w.subject.Path, "/")+1:]
	parts := strings.Split(strings.TrimSuffix(base, ".whl"), "-")
	if len(parts) != 5 && len(parts) != 6 {
		return errors.New("its file name is not that of a wheel")
	}
	name, version, err := w.metadata(dir)
	if err != nil {
		return err
	}
	ref := w.subject.Ref
	if normal(parts[0]) != ref.Name || normal(name) != ref.Name {
		return fmt.Errorf("it is called %q inside and %q by its file, want %s", name, parts[0], ref.Name)
	}
	if !sameVersion(version, ref.Version) || !sameVersion(parts[1], ref.Version) {
		return fmt.Errorf("it is version %q inside and %q by its file, want %s", version, parts[1], ref.Version)
	}
	return nil
}

// sameVersion compares versions as files and metadata spell them: a local part
// is joined by +, _ or - (PEP 440, PEP 427).
func sameVersion(a, b string) bool {
	n := func(s string) string {
		return strings.NewReplacer("+", ".", "_", ".", "-", ".").Replace(strings.ToLower(s))
	}
	return n(a) == n(b)
}

func (w *wheel) metadata(dir string) (name, version string, err error) {
	r, err := w.open(dir+"/METADATA", maxMetadata)
	if err != nil {
		return "", "", err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	s := bufio.NewScanner(io.LimitReader(r, maxMetadata))
	s.Buffer(nil, maxMetadata)
	for s.Scan() && s.Text() != "" {
		if v, ok := strings.CutPrefix(s.Text(), "Name:"); ok && name == "" {
			name = strings.TrimSpace(v)
		}
		if v, ok := strings.CutPrefix(s.Text(), "Version:"); ok && version == "" {
			version = strings.TrimSpace(v)
		}
	}
	return name, version, s.Err()
}

func (w *wheel) open(name string, limit uint64) (io.ReadCloser, error) {
	f := w.members[name]
	if f.UncompressedSize64 > limit {
		return nil, fmt.Errorf("%s: larger than %d bytes", name, limit)
	}
	return f.Open()
}

// record proves RECORD against every member, both ways.
func (w *wheel) record(ctx context.Context, dir string) (err error) {
	r, err := w.open(dir+"/RECORD", maxRecord)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	rows := csv.NewReader(io.LimitReader(r, maxRecord))
	rows.FieldsPerRecord = 3
	seen := map[string]bool{}
	for {
		row, err := rows.Read()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			w.run.Report("record", inspect.Refuse, "RECORD cannot be read: "+err.Error())
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if seen[row[0]] {
			w.run.Report("record", inspect.Refuse, fmt.Sprintf("RECORD lists %q twice", row[0]))
		}
		seen[row[0]] = true
		w.row(dir, row)
	}
	for name := range w.members {
		if !seen[name] && !unlisted(dir, name) {
			w.run.Report("record", inspect.Refuse, fmt.Sprintf("RECORD does not list %q", name))
		}
	}
	return nil
}

// unlisted are the members that RECORD need not list (PEP 427, PEP 376).
func unlisted(dir, name string) bool {
	return name == dir+"/RECORD" || name == dir+"/RECORD.jws" || name == dir+"/RECORD.p7s"
}

func (w *wheel) row(dir string, row []string) {
	f, ok := w.members[row[0]]
	if !ok {
		if !strings.HasSuffix(row[0], "/") {
			w.run.Report("record", inspect.Refuse, fmt.Sprintf("RECORD lists %q, which is not there", row[0]))
		}
		return
	}
	if unlisted(dir, row[0]) {
		return
	}
	if err := check(f, row[1], row[2]); err != nil {
		w.run.Report("record", inspect.Refuse, fmt.Sprintf("RECORD lies about %q: %v", row[0], err))
	}
}

func check(f *zip.File, want, size string) (err error) {
	alg, sum, ok := strings.Cut(want, "=")
	var h hash.Hash
	switch {
	case !ok:
		return errors.New("it states no hash")
	case alg == "sha256":
		h = sha256.New()
	case alg == "sha384":
		h = sha512.New384()
	case alg == "sha512":
		h = sha512.New()
	default:
		return fmt.Errorf("hash %q is not accepted", alg)
	}
	r, err := f.Open()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	n, err := io.Copy(h, io.LimitReader(r, maxMember))
	if err != nil {
		return err
	}
	if got := base64.RawURLEncoding.EncodeToString(h.Sum(nil)); got != strings.TrimRight(sum, "=") {
		return errors.New("the hash is another")
	}
	if size != "" && size != strconv.FormatInt(n, 10) {
		return fmt.Errorf("it has %d bytes, not %s", n, size)
	}
	return nil
}

// startsWithPython reports whether Python runs a member by itself whenever it
// starts (CPython, Lib/site.py): path files and the modules for customising, at
// the top of site-packages or anywhere that .data may put them.
func startsWithPython(member string) bool {
	dir, rest, _ := strings.Cut(member, "/")
	if strings.HasSuffix(dir, ".data") {
		scheme, below, _ := strings.Cut(rest, "/")
		if member = below; scheme == "data" {
			// Below the prefix of the installation: lib/python3.11/site-packages/…
			if _, in, ok := strings.Cut(below, "-packages/"); ok {
				member = in
			}
		}
	}
	top, _, isDir := strings.Cut(member, "/")
	if !isDir && strings.HasSuffix(top, ".pth") {
		return true
	}
	module, _, _ := strings.Cut(top, ".")
	return module == "sitecustomize" || module == "usercustomize"
}

// startup reports what would run without being imported, and native code.
func (w *wheel) startup() {
	native := 0
	for name := range w.members {
		if why := w.takesOver(name); why != "" {
			w.run.Report("startup-code", inspect.Refuse, fmt.Sprintf("%q %s", name, why))
			continue
		}
		switch {
		case startsWithPython(name):
			w.run.Report("startup-code", inspect.Warn, fmt.Sprintf("%q runs whenever Python starts", name))
		case strings.HasSuffix(name, ".so"), strings.Contains(name, ".so."), strings.HasSuffix(name, ".pyd"), strings.HasSuffix(name, ".dll"):
			native++
		case strings.Contains(name, ".data/scripts/"):
			w.run.Report("script", inspect.Info, fmt.Sprintf("%q is put where programs are", name))
		}
	}
	if native > 0 {
		w.run.Report("native-code", inspect.Info, fmt.Sprintf("compiled libraries: %d", native))
	}
}
