package vuln

import (
	"archive/zip"
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// Format is the format of a sorted file.
//
// It is lines of UTF-8. The first is a Head as JSON. Each other line is a name, a
// tab, an ecosystem, a tab, an advisory's id, a tab and a Record as JSON; lines are
// sorted by name, ecosystem and id as bytes, and end in a newline. docs/spec/osv.md
// has all of it.
const Format = "enisle-osv/1"

// Suffix ends the name of a sorted file: PyPI.osv.
const Suffix = ".osv"

// Limits of what is read, in bytes unless said otherwise.
const (
	maxAdvisory   = 16 << 20 // of one file of OSV
	maxAdvisories = 5_000_000
	maxExport     = 16 << 30 // of all files of an export together
	maxLine       = 17 << 20
	maxSummary    = 300
	headLine      = 1024
)

// Head is the first line of a sorted file.
type Head struct {
	Format     string    `json:"format"`
	Ecosystem  string    `json:"ecosystem"` // without a release
	Advisories int       `json:"advisories"`
	Entries    int       `json:"entries"` // lines: an advisory about two packages has two
	Newest     time.Time `json:"newest"`  // modification of an advisory
}

type line struct {
	name, ecosystem, id string
	record              []byte
}

func (l line) compare(m line) int {
	return cmp.Or(strings.Compare(l.name, m.name), strings.Compare(l.ecosystem, m.ecosystem), strings.Compare(l.id, m.id))
}

// Build reads the export of one ecosystem, a zip with a JSON file for each
// advisory, and writes the sorted file. A file that is no advisory refuses the
// whole: what is left out would count as harmless. It holds the output in memory.
func Build(ctx context.Context, ecosystem string, export io.ReaderAt, size int64, to io.Writer) (Head, error) {
	head := Head{Format: Format, Ecosystem: ecosystem}
	z, err := zip.NewReader(export, size)
	if err != nil {
		return head, fmt.Errorf("not an export of OSV: %w", err)
	}
	var lines []line
	var total uint64
	for _, f := range z.File {
		if err := ctx.Err(); err != nil {
			return head, err
		}
		if strings.HasSuffix(f.Name, "/") {
			continue
		}
		total += f.UncompressedSize64
		if !strings.HasSuffix(f.Name, ".json") || f.UncompressedSize64 > maxAdvisory || total > maxExport || head.Advisories > maxAdvisories {
			return head, fmt.Errorf("%.100q: no advisory, or larger than it may be", f.Name)
		}
		got, modified, err := readAdvisory(f, ecosystem)
		if err != nil {
			return head, fmt.Errorf("%.100q: %w", f.Name, err)
		}
		if len(got) == 0 {
			continue
		}
		head.Advisories++
		lines = append(lines, got...)
		if modified.After(head.Newest) {
			head.Newest = modified
		}
	}
	if head.Entries = len(lines); head.Entries == 0 {
		return head, fmt.Errorf("the export has no advisory about %s", ecosystem)
	}
	return head, writeLines(head, lines, to)
}

func writeLines(head Head, lines []line, to io.Writer) error {
	slices.SortFunc(lines, line.compare)
	for i := 1; i < len(lines); i++ {
		if lines[i].compare(lines[i-1]) == 0 {
			return fmt.Errorf("advisory %s stands twice", lines[i].id)
		}
	}
	w := bufio.NewWriterSize(to, 1<<20)
	b, err := json.Marshal(head)
	if err != nil {
		return err
	}
	if _, err := w.Write(append(b, '\n')); err != nil {
		return err
	}
	for _, l := range lines {
		if _, err := fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", l.name, l.ecosystem, l.id, l.record); err != nil {
			return err
		}
	}
	return w.Flush()
}

// readAdvisory returns a line for each package of the ecosystem that it is about;
// none if it was withdrawn.
func readAdvisory(f *zip.File, ecosystem string) (lines []line, modified time.Time, err error) {
	r, err := f.Open()
	if err != nil {
		return nil, modified, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var a advisory
	b, err := io.ReadAll(io.LimitReader(r, maxAdvisory))
	if err == nil {
		err = json.Unmarshal(b, &a)
	}
	if err != nil {
		return nil, modified, err
	}
	if a.ID == "" || a.Modified.IsZero() || unclean(a.ID) {
		return nil, modified, errors.New("no advisory: id or time is missing")
	}
	if a.Withdrawn != nil {
		return nil, a.Modified, nil
	}
	merged := map[[2]string]*Record{}
	for _, p := range a.Affected {
		eco, name := p.Package.Ecosystem, normal(Base(p.Package.Ecosystem), p.Package.Name)
		if Base(eco) != ecosystem {
			continue
		}
		if name == "" || unclean(name) || unclean(eco) {
			return nil, modified, fmt.Errorf("%s: package %.60q cannot be kept", a.ID, name)
		}
		rec := merged[[2]string{name, eco}]
		if rec == nil {
			rec = &Record{ID: a.ID, Aliases: a.Aliases, Modified: a.Modified, Summary: brief(cmp.Or(a.Summary, a.Details)), Severity: a.Severity, Level: string(a.Database)}
			merged[[2]string{name, eco}] = rec
		}
		rec.Severity = append(rec.Severity[:len(rec.Severity):len(rec.Severity)], p.Severity...)
		rec.Level = cmp.Or(rec.Level, string(p.Database), string(p.Specific))
		rec.Ranges = append(rec.Ranges, p.Ranges...)
		rec.Versions = append(rec.Versions, p.Versions...)
		if len(p.Ranges)+len(p.Versions) == 0 {
			// All versions: a second entry about the same package must not narrow it.
			rec.Ranges = append(rec.Ranges, Range{Type: "ECOSYSTEM", Events: []Event{{Introduced: "0"}}})
		}
	}
	for key, rec := range merged {
		b, err := json.Marshal(rec)
		if err != nil {
			return nil, modified, err
		}
		lines = append(lines, line{key[0], key[1], a.ID, b})
	}
	return lines, a.Modified, nil
}

func unclean(s string) bool { return len(s) > 500 || strings.ContainsAny(s, "\t\n\r\x00") }

func brief(s string) string {
	s = strings.Join(strings.Fields(s), " ")
	if len(s) > maxSummary {
		s = strings.ToValidUTF8(s[:maxSummary], "")
	}
	return s
}

// Data is a sorted file that is open for looking up.
type Data struct {
	Head  Head
	at    io.ReaderAt
	start int64 // of the first line with a name
	size  int64
	known map[string]bool // ecosystems with a release, once they were asked for
}

// Open reads the head of a sorted file.
func Open(at io.ReaderAt, size int64) (Data, error) {
	d := Data{at: at, size: size, known: map[string]bool{}}
	b := make([]byte, min(headLine, size))
	if _, err := at.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return d, err
	}
	first, _, ok := bytes.Cut(b, []byte("\n"))
	if !ok {
		return d, errors.New("vulnerability data: no head")
	}
	dec := json.NewDecoder(bytes.NewReader(first))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&d.Head); err != nil {
		return d, fmt.Errorf("vulnerability data: %w", err)
	}
	if d.Head.Format != Format {
		return d, fmt.Errorf("vulnerability data: format %.40q is not known", d.Head.Format)
	}
	if d.Head.Advisories < 1 || d.Head.Entries < d.Head.Advisories || d.Head.Newest.IsZero() {
		return d, errors.New("vulnerability data: it is empty")
	}
	d.start = int64(len(first)) + 1
	return d, nil
}

// lineAt returns the first line that begins at an offset or behind it, and where it
// begins and ends; an empty line is the end.
func (d Data) lineAt(off int64) (text []byte, begins, ends int64, err error) {
	if begins = off; off > d.start {
		// Unless the byte before ends a line, off stands within one.
		_, begins, err = d.until(off - 1)
		if err != nil {
			return nil, 0, 0, err
		}
	}
	if begins >= d.size {
		return nil, d.size, d.size, nil
	}
	text, ends, err = d.until(begins)
	return text, begins, ends, err
}

// until reads from an offset to the end of a line, and returns where the next begins.
func (d Data) until(off int64) ([]byte, int64, error) {
	var text []byte
	for n := 4096; ; n = min(2*n, 1<<20) {
		b := make([]byte, min(int64(n), d.size-off-int64(len(text))))
		if len(b) == 0 || len(text) > maxLine {
			return nil, 0, errors.New("vulnerability data: a line does not end")
		}
		if got, err := d.at.ReadAt(b, off+int64(len(text))); got < len(b) {
			return nil, 0, errors.Join(errors.New("vulnerability data: it cannot be read"), err)
		}
		if i := bytes.IndexByte(b, '\n'); i >= 0 {
			text = append(text, b[:i]...)
			return text, off + int64(len(text)) + 1, nil
		}
		text = append(text, b...)
	}
}

// knows reports whether any advisory is about an ecosystem with a release, as it is
// written. A release that nobody knows would otherwise have no flaws. Those that are
// known are found at once; for others all of the file is read, once.
func (d Data) knows(ecosystem string) (known bool, err error) {
	known, asked := d.known[ecosystem]
	if asked || ecosystem == Base(ecosystem) {
		return known || !asked, nil
	}
	r := bufio.NewReaderSize(io.NewSectionReader(d.at, d.start, d.size-d.start), 1<<20)
	for !known {
		text, err := readLine(r)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return false, fmt.Errorf("vulnerability data: %w", err)
		}
		_, text, _ = bytes.Cut(text, []byte("\t"))
		of, _, _ := bytes.Cut(text, []byte("\t"))
		known = len(of) > len(Base(ecosystem)) && covers(string(of), ecosystem)
	}
	d.known[ecosystem] = known
	return known, nil
}

// Lookup returns what is known of a component's package and reports whether its
// version is affected.
func (d Data) Lookup(c Component) (found []Found, err error) {
	if Base(c.Ecosystem) != d.Head.Ecosystem {
		return nil, fmt.Errorf("vulnerability data of %s has nothing about %s", d.Head.Ecosystem, c.Ecosystem)
	}
	if known, err := d.knows(c.Ecosystem); err != nil {
		return nil, err
	} else if !known {
		c.Ecosystem = Base(c.Ecosystem) // nothing is said of its release: it may be any
	}
	key := []byte(c.Name + "\t")
	low, high := d.start, d.size
	for low < high {
		mid := low + (high-low)/2
		text, _, ends, err := d.lineAt(mid)
		if err != nil {
			return nil, err
		}
		if text == nil || bytes.Compare(text, key) >= 0 {
			high = mid
		} else {
			low = ends
		}
	}
	for at := low; ; {
		text, _, ends, err := d.lineAt(at)
		if err != nil {
			return nil, err
		}
		if !bytes.HasPrefix(text, key) {
			return found, nil
		}
		l, rec, err := parseLine(text)
		if err != nil {
			return nil, err
		}
		if covers(l.ecosystem, c.Ecosystem) {
			if a := rec.Affects(c); a.Is {
				found = append(found, Found{c, rec, a})
			}
		}
		at = ends
	}
}

func parseLine(text []byte) (l line, rec Record, err error) {
	parts := bytes.SplitN(text, []byte("\t"), 4)
	if len(parts) != 4 {
		return l, rec, errors.New("vulnerability data: a line is no record")
	}
	l = line{string(parts[0]), string(parts[1]), string(parts[2]), parts[3]}
	dec := json.NewDecoder(bytes.NewReader(l.record))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&rec); err != nil {
		return l, rec, fmt.Errorf("vulnerability data: %w", err)
	}
	if rec.ID != l.id || l.name == "" {
		return l, rec, errors.New("vulnerability data: a record has another id than its line")
	}
	return l, rec, nil
}

// Verify reads the whole file and holds every line against the rules of the format.
func (d Data) Verify(ctx context.Context) error {
	r := bufio.NewReaderSize(io.NewSectionReader(d.at, d.start, d.size-d.start), 1<<20)
	var last line
	var newest time.Time
	n := 0
	for ; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		text, err := readLine(r)
		if errors.Is(err, io.EOF) && len(text) == 0 {
			break
		}
		if err != nil {
			return fmt.Errorf("vulnerability data: line %d: %w", n+2, err)
		}
		l, rec, err := parseLine(text)
		if err != nil {
			return err
		}
		if n > 0 && last.compare(l) >= 0 {
			return fmt.Errorf("vulnerability data: line %d stands out of order", n+2)
		}
		if Base(l.ecosystem) != d.Head.Ecosystem || l.name != normal(d.Head.Ecosystem, l.name) {
			return fmt.Errorf("vulnerability data: line %d is about another ecosystem, or its name is not normal", n+2)
		}
		if last = l; rec.Modified.After(newest) {
			newest = rec.Modified
		}
	}
	if n != d.Head.Entries || !newest.Equal(d.Head.Newest) {
		return errors.New("vulnerability data: its head says something else than its lines")
	}
	return nil
}

func readLine(r *bufio.Reader) (text []byte, err error) {
	for {
		part, err := r.ReadSlice('\n')
		text = append(text, part...)
		switch {
		case err == nil:
			return text[:len(text)-1], nil
		case len(text) > maxLine:
			return nil, errors.New("it does not end")
		case !errors.Is(err, bufio.ErrBufferFull):
			return text, err
		}
	}
}

// Found is one advisory that a component is affected by.
type Found struct {
	Component Component
	Record    Record
	Affected  Affected
}

// Group joins advisories about the same flaw of a component: they name each other.
// The worst stands for all; the others become its aliases.
func Group(found []Found) (out []Found) {
	slices.SortStableFunc(found, func(a, b Found) int {
		as, _ := a.Record.Score()
		bs, _ := b.Record.Score()
		return cmp.Or(strings.Compare(a.Component.PURL, b.Component.PURL), cmp.Compare(bs, as), strings.Compare(a.Record.ID, b.Record.ID))
	})
	names := func(r Record) []string { return append([]string{r.ID}, r.Aliases...) }
	start := 0 // of those about the same component
	for _, f := range found {
		if len(out) > 0 && out[len(out)-1].Component.PURL != f.Component.PURL {
			start = len(out)
		}
		i := slices.IndexFunc(out[start:], func(o Found) bool {
			return slices.ContainsFunc(names(f.Record), func(n string) bool { return slices.Contains(names(o.Record), n) })
		})
		if i += start; i < start || out[i].Record.Malicious() != f.Record.Malicious() {
			out = append(out, f)
			continue
		}
		for _, n := range names(f.Record) {
			if !slices.Contains(names(out[i].Record), n) {
				out[i].Record.Aliases = append(slices.Clone(out[i].Record.Aliases), n)
			}
		}
	}
	return out
}
