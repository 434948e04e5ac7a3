package inspect

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"enisle/internal/artifact"
	"enisle/internal/plain"
)

// Limits bound what one file of an artifact may come to.
type Limits struct {
	Depth   int           // containers inside containers; 0 means 8
	Members int           // of one file, at all depths; 0 means 200,000
	Ratio   int64         // bytes looked at may be so many times the file, beyond MinTotal; 0 means 200
	Total   int64         // bytes always allowed; 0 means 2 GiB
	Time    time.Duration // for one file; 0 means ten minutes
}

func (l Limits) filled() Limits {
	set := func(n *int, to int) {
		if *n == 0 {
			*n = to
		}
	}
	set(&l.Depth, 8)
	set(&l.Members, 200_000)
	if l.Ratio == 0 {
		l.Ratio = 200
	}
	if l.Total == 0 {
		l.Total = 2 << 30
	}
	if l.Time == 0 {
		l.Time = 10 * time.Minute
	}
	return l
}

// Runner runs every scanner over every file, and over the members that scanners
// hand back.
type Runner struct {
	Scanners []Scanner
	Limits   Limits
	// Elsewhere judges one file in the place of File, such as in a process that
	// can do nothing else; nil means here. An error of it counts as a refusal of
	// the file, unless ctx has ended.
	Elsewhere func(ctx context.Context, ref artifact.Ref, f artifact.File, b Blob) (Part, error)
}

// Part is what the scanners say of one file.
type Part struct {
	Findings []Finding `json:"findings"`
	Facts    []Fact    `json:"facts"`
	Members  int       `json:"members"`
	Bytes    int64     `json:"bytes"`
}

// headSize is how much of a file's beginning a scanner is shown, in bytes.
const headSize = 4096

// Inspect reads every file of the artifacts once to compare it with its digest
// and runs the scanners. done is told of every n bytes. It returns findings in
// a fixed order; a scanner that fails, panics or runs out of time becomes a
// finding that refuses. An error means that nothing could be inspected.
func (r *Runner) Inspect(ctx context.Context, artifacts []artifact.Artifact, open Open, done func(n int64)) (Report, error) {
	rep := Report{Findings: []Finding{}, Facts: []Fact{}, Databases: []Database{}, Contents: []Content{}, Artifacts: len(artifacts), Scanners: []ScannerInfo{{"digest", "1"}, {"kind", "1"}}}
	if len(r.Scanners) == 0 {
		return rep, errors.New("inspect: no scanner is installed")
	}
	for _, s := range r.Scanners {
		rep.Scanners = append(rep.Scanners, ScannerInfo{s.Name(), s.Version()})
	}
	for _, a := range artifacts {
		rep.Contents = append(rep.Contents, contentOf(a))
		for _, f := range a.Files {
			if err := r.file(ctx, &rep, a, f, open, done); err != nil {
				return rep, fmt.Errorf("inspect %s: %s: %w", a.Ref, f.Path, err)
			}
		}
	}
	slices.SortStableFunc(rep.Findings, func(a, b Finding) int {
		return cmp.Or(cmp.Compare(a.Artifact, b.Artifact), cmp.Compare(a.File, b.File), cmp.Compare(a.Scanner, b.Scanner), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Detail, b.Detail))
	})
	slices.SortStableFunc(rep.Facts, func(a, b Fact) int {
		return cmp.Or(cmp.Compare(a.Artifact, b.Artifact), cmp.Compare(a.File, b.File), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Value, b.Value))
	})
	rep.Facts = slices.Compact(rep.Facts)
	return rep, nil
}

func contentOf(a artifact.Artifact) Content {
	c := Content{Ref: a.Ref.String(), Manifest: a.Manifest, Size: a.Size()}
	for _, f := range a.Files {
		if f.Published.After(c.Published) {
			c.Published = f.Published
		}
		c.from(f.Origin)
	}
	c.from(a.Index)
	return c
}

// from notes the host of an address, if it has one.
func (c *Content) from(address string) {
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" {
		return
	}
	if host := strings.ToLower(u.Hostname()); !slices.Contains(c.Hosts, host) {
		c.Hosts = append(c.Hosts, host)
	}
}

func (r *Runner) file(ctx context.Context, rep *Report, a artifact.Artifact, f artifact.File, open Open, done func(int64)) (err error) {
	b, err := open(f.Digest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	var p Part
	if r.Elsewhere == nil {
		p, err = r.File(ctx, a.Ref, f, b, done)
	} else if p, err = r.Elsewhere(ctx, a.Ref, f, b); err != nil && ctx.Err() == nil {
		w := walk{report: &p, ref: a.Ref}
		w.add("confined", "unread", Refuse, f.Path, "could not be judged: "+err.Error())
		err = nil
	} else {
		done(f.Size)
	}
	if err != nil {
		return errors.Join(ctx.Err(), err)
	}
	rep.Files++
	rep.Members += p.Members
	rep.Bytes += p.Bytes
	rep.Findings = append(rep.Findings, p.Findings...)
	rep.Facts = append(rep.Facts, p.Facts...)
	return ctx.Err()
}

// File reads one file of an artifact and runs the scanners over it.
func (r *Runner) File(ctx context.Context, ref artifact.Ref, f artifact.File, b Blob, done func(int64)) (p Part, err error) {
	w := &walk{runner: r, report: &p, ref: ref, limits: r.Limits.filled()}
	w.budget = max(w.limits.Total, f.Size*w.limits.Ratio)
	s := Subject{Ref: ref, Path: f.Path, Size: b.Size(), ReaderAt: b}
	if err := w.digest(ctx, s, f, done); err != nil {
		return p, err
	}
	limited, cancel := context.WithTimeout(ctx, w.limits.Time)
	defer cancel()
	wanted := w.scan(limited, s)
	w.expected(s, wanted)
	return p, ctx.Err()
}

// walk is the inspection of one file and of all its members.
type walk struct {
	runner  *Runner
	report  *Part
	ref     artifact.Ref
	limits  Limits
	budget  int64 // bytes of members that may still be looked at
	members int
}

func (w *walk) add(scanner, rule string, sev Severity, file, detail string) {
	if len(detail) > 300 {
		detail = detail[:300] + "…"
	}
	w.report.Findings = append(w.report.Findings, Finding{
		Scanner: scanner, Rule: rule, Severity: sev, Artifact: w.ref.String(), File: plain.Line(file), Detail: plain.Line(detail),
	})
}

// digest reads the whole file and compares it with its name.
func (w *walk) digest(ctx context.Context, s Subject, f artifact.File, done func(int64)) error {
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for at := int64(0); at < s.Size; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := s.ReadAt(buf[:min(int64(len(buf)), s.Size-at)], at)
		if err != nil && !errors.Is(err, io.EOF) || n == 0 {
			return fmt.Errorf("read at %d: %w", at, err)
		}
		h.Write(buf[:n])
		at += int64(n)
		done(int64(n))
	}
	w.report.Bytes += s.Size
	if got := artifact.FromSum([32]byte(h.Sum(nil))); got != f.Digest || s.Size != f.Size {
		w.add("digest", "digest", Refuse, s.Path, "the content is not what its digest says")
	}
	return nil
}

// scan runs every scanner that wants the subject and reports how many know it.
func (w *walk) scan(ctx context.Context, s Subject) (wanted int) {
	if s.Head == nil {
		head := make([]byte, min(headSize, s.Size))
		n, err := s.ReadAt(head, 0)
		if err != nil && !errors.Is(err, io.EOF) {
			w.add("digest", "unread", Refuse, s.Path, "could not be read: "+err.Error())
			return 0
		}
		s.Head = head[:n]
	}
	for _, sc := range w.runner.Scanners {
		if !sc.Wants(s) {
			continue
		}
		if _, beside := sc.(Beside); !beside {
			wanted++
		}
		if err := w.one(ctx, sc, s); err != nil {
			w.add(sc.Name(), "unread", Refuse, s.Path, "could not be judged: "+err.Error())
		}
	}
	return wanted
}

// one runs one scanner; a panic is an error like any other.
func (w *walk) one(ctx context.Context, sc Scanner, s Subject) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("the scanner broke: %v", p)
		}
	}()
	if err := sc.Scan(ctx, s, &run{w, sc, s}); err != nil {
		return err
	}
	return ctx.Err()
}

// storage is a member of an archive of torch that holds bare numbers, which the pickle
// beside it describes.
var storage = regexp.MustCompile(`![^!]*(?:/|!)(?:\.?data|constants|tensors)/(?:weights/|constants/)?[A-Za-z_]*[0-9]+(?:\.storage)?$|![^!/]*(?:tensors|storages)$`)

// expected refuses what nobody could read in a place where a package or a model
// is expected.
func (w *walk) expected(s Subject, wanted int) {
	if wanted > 0 {
		return
	}
	switch w.ref.Kind {
	case "pypi", "npm", "vulndb", "vsa":
		// Where a file was built is written beside it (PEP 740).
		if text, ok := plainText(s); ok && w.ref.Kind == "pypi" && strings.HasSuffix(s.Path, ".provenance") && json.Valid(text) {
			return
		}
		w.add("kind", "unknown-package", Refuse, s.Path, "no scanner knows this kind of package")
	case "gomod", "cargo", "maven", "debian", "oci", "helm", "ollama":
		// What registries say of a package stands beside it as text.
		if _, ok := plainText(s); !ok && !s.HashTile() {
			w.add("kind", "unknown-package", Refuse, s.Path, "no scanner knows this kind of package")
		}
	case "model", "hf":
		if !storage.MatchString(s.Path) && !written(s) {
			w.add("kind", "unknown-model", Refuse, s.Path, "no scanner knows this kind of model file")
		}
	case "engine":
		w.add("kind", "executable", Info, s.Path, "runs as a confined engine; its code is not judged")
	}
}

// plainText returns a small file that is text, such as a model's card.
func plainText(s Subject) (text []byte, ok bool) {
	if s.Size > 16<<20 {
		return nil, false
	}
	text = make([]byte, s.Size)
	if _, err := s.ReadAt(text, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, false
	}
	return text, !bytes.ContainsRune(text, 0)
}

// prose are the endings of texts whose encoding may be any; constant.
var prose = []string{".txt", ".md", ".rst", ".csv", ".tsv", ".vocab", ".json", ".jsonl", ".yaml", ".yml", ".html", ".xml", ".tex", ".bib", ".log", ".license"}

// written reports whether a file is a text that people or programs write: no other format
// begins so, and what is not called a text is UTF-8 without control characters. Bytes
// that are packed some other way often hold no zero.
func written(s Subject) bool {
	text, ok := plainText(s)
	for _, magic := range []string{"!<arch>\n", "%PDF-", "PK", "070701", "070702", "070707", "#!AMR", "ID3", "Obj\x01", "RIFF", "FORM"} {
		ok = ok && !bytes.HasPrefix(text, []byte(magic))
	}
	if !ok || slices.Contains(prose, strings.ToLower(path.Ext(s.Path))) {
		return ok
	}
	return utf8.Valid(text) && !bytes.ContainsFunc(text, func(r rune) bool { return r < ' ' && !strings.ContainsRune("\t\n\r\f", r) || r == 0x7f })
}

// run is what one scanner answers with about one subject.
type run struct {
	w       *walk
	scanner Scanner
	subject Subject
}

func (r *run) Report(rule string, sev Severity, detail string) {
	r.w.add(r.scanner.Name(), rule, sev, r.subject.Path, detail)
}

func (r *run) Note(kind, value string) {
	if len(value) > MaxFact {
		sum := artifact.Sum([]byte(value))
		value = strings.ToValidUTF8(value[:MaxFact-len(sum)-1], "") + "\n" + string(sum)
	}
	if len(r.w.report.Facts) == maxFacts {
		r.Report("limit", Refuse, fmt.Sprintf("more than %d facts", maxFacts))
	}
	if len(r.w.report.Facts) <= maxFacts {
		r.w.report.Facts = append(r.w.report.Facts, Fact{kind, r.subject.Ref.String(), plain.Line(r.subject.Path), strings.ToValidUTF8(value, "\uFFFD")})
	}
}

// maxFacts is how many facts one report holds.
const maxFacts = 1_000_000

var errLimit = errors.New("a limit was reached")

func (r *run) Descend(ctx context.Context, name string, content io.ReaderAt, size int64) error {
	w, s := r.w, r.subject
	over := func(what string) error {
		r.Report("limit", Refuse, what)
		return errLimit
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.Depth+1 > w.limits.Depth {
		return over(fmt.Sprintf("containers nest deeper than %d", w.limits.Depth))
	}
	if w.members++; w.members > w.limits.Members {
		return over(fmt.Sprintf("more than %d members", w.limits.Members))
	}
	if w.budget -= size; w.budget < 0 {
		return over("the members come to too many bytes: an archive bomb")
	}
	w.report.Members++
	w.report.Bytes += size
	member := Subject{Ref: s.Ref, Path: s.Path + "!" + name, Size: size, ReaderAt: content, Depth: s.Depth + 1}
	if wanted := w.scan(ctx, member); w.ref.Kind == "model" || w.ref.Kind == "hf" {
		w.expected(member, wanted)
	}
	return nil
}

// spoolLimit is how much of a member is kept in memory, in bytes; more goes to
// a file that has no name.
const spoolLimit = 8 << 20

// Spool reads exactly size bytes of a member and makes them readable at any
// offset. More or fewer bytes are an error. The caller calls release.
func Spool(r io.Reader, size int64) (at io.ReaderAt, release func() error, err error) {
	none := func() error { return nil }
	limited := io.LimitReader(r, size+1)
	if size <= spoolLimit {
		buf := make([]byte, size+1)
		n, err := io.ReadFull(limited, buf)
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && !errors.Is(err, io.EOF) {
			return nil, none, err
		}
		if int64(n) != size {
			return nil, none, fmt.Errorf("%d bytes where %d were promised", n, size)
		}
		return readerAt(buf[:n]), none, nil
	}
	f, err := os.CreateTemp("", "enisle-inspect-")
	if err != nil {
		return nil, none, err
	}
	release = f.Close
	if err := os.Remove(f.Name()); err != nil {
		return nil, none, errors.Join(err, f.Close())
	}
	n, err := io.Copy(f, limited)
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes or more where %d were promised", n, size)
	}
	if err != nil {
		return nil, none, errors.Join(err, f.Close())
	}
	return f, release, nil
}

// readerAt reads from memory.
type readerAt []byte

func (b readerAt) ReadAt(p []byte, off int64) (int, error) {
	if off < 0 || off >= int64(len(b)) {
		return 0, io.EOF
	}
	n := copy(p, b[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}
