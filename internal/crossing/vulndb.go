package crossing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/fail"
	"enisle/internal/judge/inspect"
	"enisle/internal/site"
	"enisle/internal/site/state"
)

// vulndbKind is the kind of artifacts that vulnerability data is.
const vulndbKind = "vulndb"

// Advisories makes vulnerability data out of an export: a zip of advisories of one
// ecosystem.
type Advisories interface {
	Build(ctx context.Context, ecosystem string, export *os.File, take func(name string, size int64, newest time.Time, r io.Reader) error) error
}

// Where an export is looked for when the request does not say: ours, and where
// osv-scanner keeps what it downloaded.
const (
	envOSV        = "ENISLE_OSV"
	envOSVScanner = "OSV_SCANNER_LOCAL_DB_CACHE_DIRECTORY"
)

const vulndbHint = "an entry is osv, or {name: osv, from: DIRECTORY or URL, ecosystems: [PyPI, npm]}; 'osv' alone takes them from where " + envOSV + " says. There, each export is ECOSYSTEM/all.zip"

// defaultEcosystems are asked for at a URL when the request does not say; constant.
var defaultEcosystems = []string{"PyPI", "npm", "Go", "Debian", "Maven", "crates" + ".io"}

// vulndbItem is one entry of 'vulndb'.
type vulndbItem struct {
	from       string
	ecosystems []string
}

func parseVulndbItem(v any) (it vulndbItem, err error) {
	bad := func(what string) error { return fail.As(fail.Usage, vulndbHint, fmt.Errorf("vulndb: %s", what)) }
	name := ""
	switch v := v.(type) {
	case string:
		name = v
	case map[string]any:
		for k, e := range v {
			text, isText := e.(string)
			list, isList := e.([]any)
			switch {
			case k == "name" && isText:
				name = text
			case k == "from" && isText:
				it.from = text
			case k == "ecosystems" && isList:
				for _, eco := range list {
					it.ecosystems = append(it.ecosystems, fmt.Sprint(eco))
				}
			default:
				return it, bad("unknown key or value " + k)
			}
		}
	default:
		return it, bad("an entry is not an object")
	}
	if name != "osv" {
		return it, bad(fmt.Sprintf("no database is called %.40q", name))
	}
	if it.from == "" {
		it.from = os.Getenv(envOSV)
	}
	if dir := os.Getenv(envOSVScanner); it.from == "" && dir != "" {
		it.from = filepath.Join(dir, "osv-scanner")
	}
	if it.from == "" {
		return it, bad("nothing says where the exports of OSV are")
	}
	return it, nil
}

func isURL(s string) bool { return strings.HasPrefix(s, "https://") || strings.HasPrefix(s, "http://") }

// vulndb adds the vulnerability data that the request asks for. What the lock names
// and is held is taken from there.
func (c *collecting) vulndb(ctx context.Context, artifacts []artifact.Artifact) ([]artifact.Artifact, error) {
	ref := artifact.Ref{Kind: vulndbKind, Name: "osv"}
	items := c.req.Bring[vulndbKind]
	if len(items) == 0 {
		return artifacts, nil
	}
	if i := find(artifacts, ref); i >= 0 && !slices.ContainsFunc(artifacts[i].Files, func(f artifact.File) bool { return !c.held(f) }) {
		return artifacts, nil
	}
	if len(items) > 1 {
		return nil, fail.As(fail.Usage, vulndbHint, errors.New("vulndb: more than one entry"))
	}
	it, err := parseVulndbItem(items[0])
	if err != nil {
		return nil, err
	}
	if !isURL(it.from) && !filepath.IsAbs(it.from) {
		it.from = filepath.Join(c.req.dir(), it.from)
	}
	if len(it.ecosystems) == 0 {
		if it.ecosystems, err = it.exports(); err != nil {
			return nil, err
		}
	}
	a := artifact.Artifact{Ref: ref, Name: ref.String()}
	for _, eco := range it.ecosystems {
		if err := artifact.CheckPath(eco); err != nil || strings.Contains(eco, "/") {
			return nil, fail.As(fail.Usage, vulndbHint, fmt.Errorf("vulndb: ecosystem %.60q", eco))
		}
		if err := c.export(ctx, it.from, eco, &a); err != nil {
			return nil, fmt.Errorf("vulndb: %s: %w", eco, err)
		}
	}
	slices.SortFunc(a.Files, func(x, y artifact.File) int { return compare(x.Path, y.Path) })
	artifacts = slices.DeleteFunc(artifacts, func(old artifact.Artifact) bool { return old.Ref == ref })
	return append(artifacts, a), nil
}

// exports lists the ecosystems that lie in a directory.
func (it vulndbItem) exports() (all []string, err error) {
	if isURL(it.from) {
		return defaultEcosystems, nil
	}
	found, err := filepath.Glob(filepath.Join(it.from, "*", "all.zip"))
	for _, name := range found {
		all = append(all, filepath.Base(filepath.Dir(name)))
	}
	if err == nil && len(all) == 0 {
		err = fail.As(fail.Usage, vulndbHint, fmt.Errorf("vulndb: no export lies in %s", it.from))
	}
	return all, err
}

// export brings one ecosystem.
func (c *collecting) export(ctx context.Context, from, eco string, a *artifact.Artifact) (err error) {
	origin := localOrigin + eco + "/all.zip"
	var f *os.File
	if isURL(from) {
		origin = strings.TrimSuffix(from, "/") + "/" + eco + "/all.zip"
		f, err = c.downloadExport(ctx, origin, filepath.Join(c.work, "export.zip"))
	} else {
		f, _, err = openLocal(filepath.Join(from, eco, "all.zip"))
	}
	if err != nil {
		return fail.As(fail.Failed, vulndbHint, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	show := c.Progress.start("reading advisories of "+eco, -1)
	err = c.Advisories.Build(ctx, eco, f, func(name string, size int64, newest time.Time, r io.Reader) error {
		got, err := c.ingest(ctx, r, size, show)
		got.Path, got.Origin, got.Published = name, origin, newest
		a.Files = append(a.Files, got)
		return err
	})
	if err != nil {
		return fail.Refuse("have the export made again; what is left out of it would count as harmless", err)
	}
	return nil
}

// maxExport is the largest export that is downloaded, in bytes.
const maxExport = 8 << 30

// downloadExport keeps a file that is read once.
func (c *collecting) downloadExport(ctx context.Context, url, name string) (_ *os.File, err error) {
	body, start, _, err := c.Fetch.Get(ctx, url, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = body.Close() }() // only read from
	if start != 0 {
		return nil, errors.New("the origin began in the middle")
	}
	f, err := os.Create(name)
	if err != nil {
		return nil, err
	}
	n, err := io.Copy(f, io.LimitReader(&counting{body, c.Progress.start("fetching "+url, -1)}, maxExport+1))
	if err == nil && n > maxExport {
		err = errors.New("larger than an export may be")
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// openBlob opens a blob wherever it lies, for inspecting.
func openBlob(s *site.Site) inspect.Open {
	open := openAny(s)
	return func(d artifact.Digest) (inspect.Blob, error) { return open(d) }
}

// vulnData is one set of vulnerability data, and since when it is there.
type vulnData struct {
	artifact artifact.Artifact
	sealed   time.Time // of the shipment that brought it: its content is not younger
	released bool
}

// lookUp matches a report against all vulnerability data there is: what is
// released, and what the shipment itself brings. What either knows counts, so that
// new data can add and never hide. New data that is older than what is released, or
// much smaller, refuses itself.
func lookUp(ctx context.Context, s *site.Site, in Inspector, row arrived, got set, r *inspect.Report) error {
	all, err := vulnerabilityData(ctx, s, row, got)
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return missed(ctx, s, r)
	}
	seen := map[string]bool{}
	missing := map[string]int{}
	var last map[string]inspect.Finding
	var had []Looked // what is released, by channel
	for _, d := range all {
		looked, err := in.Lookup(ctx, *r, d.artifact, openBlob(s))
		if err != nil {
			return fmt.Errorf("%s: %w", d.artifact.Ref, err)
		}
		if looked.Database.Dated.After(d.sealed) {
			looked.Database.Dated = d.sealed
		}
		r.Databases = append(r.Databases, looked.Database)
		for _, f := range looked.Findings {
			what, _, _ := strings.Cut(f.Detail, " (")
			if key := f.Artifact + "\n" + f.File + "\n" + f.Rule + "\n" + what; !seen[key] {
				seen[key] = true
				r.Findings = append(r.Findings, f)
			}
		}
		last = looked.Missing
		for eco := range last {
			missing[eco]++
		}
		if d.released {
			had = append(had, looked)
			continue
		}
		for _, old := range had {
			for _, f := range worse(old, looked, d.artifact) {
				if !slices.Contains(r.Findings, f) {
					r.Findings = append(r.Findings, f)
				}
			}
		}
	}
	for eco, n := range missing {
		if n == len(all) {
			r.Findings = append(r.Findings, last[eco])
		}
	}
	slices.SortStableFunc(r.Findings, func(a, b inspect.Finding) int {
		return cmp.Or(cmp.Compare(a.Artifact, b.Artifact), cmp.Compare(a.File, b.File), cmp.Compare(a.Scanner, b.Scanner), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Detail, b.Detail))
	})
	return nil
}

// missed refuses components that there is no data for, where there was some once: what
// was taken away, by rolling back or a recall, must not make anything look clean.
func missed(ctx context.Context, s *site.Site, r *inspect.Report) error {
	i := slices.IndexFunc(r.Facts, func(f inspect.Fact) bool { return f.Kind == inspect.Component })
	if i < 0 {
		return nil
	}
	var last int64
	if err := s.State.View(ctx, func(tx *state.Tx) (err error) { last, err = tx.LastRelease(); return err }); err != nil {
		return err
	}
	for n := last; n > 0; n-- {
		v, err := servedNumber(ctx, s, n)
		if err != nil {
			return err
		}
		if len(v.Artifacts(vulndbKind)) > 0 {
			r.Findings = append(r.Findings, inspect.Finding{
				Scanner: vulnScanner, Rule: "no-data", Severity: inspect.Refuse, Artifact: r.Facts[i].Artifact, File: r.Facts[i].File,
				Detail: fmt.Sprintf("no channel serves vulnerability data any more, which release %d had; nothing was held against it", n),
			})
			return nil
		}
	}
	return nil
}

// worse says in which ways new data knows less than what is released.
func worse(old, now Looked, a artifact.Artifact) (out []inspect.Finding) {
	add := func(rule, detail string) {
		out = append(out, inspect.Finding{Scanner: vulndbKind, Rule: rule, Severity: inspect.Refuse, Artifact: a.Ref.String(), Detail: detail})
	}
	if now.Database.Dated.Before(old.Database.Dated) {
		add("older", fmt.Sprintf("it is of %s, and what is released of %s", now.Database.Dated.Format(time.DateOnly), old.Database.Dated.Format(time.DateOnly)))
	}
	for eco, n := range old.Advisories {
		if m := now.Advisories[eco]; m < n-n/10 {
			add("shrunk", fmt.Sprintf("it has %d advisories about %s, and what is released %d", m, eco, n))
		}
	}
	slices.SortFunc(out, func(a, b inspect.Finding) int { return cmp.Compare(a.Detail, b.Detail) })
	return out
}

// vulnerabilityData returns what is released, newest channel last, and then what the
// shipment brings.
func vulnerabilityData(ctx context.Context, s *site.Site, row arrived, got set) (all []vulnData, err error) {
	for _, channel := range Channels() {
		v, err := ServedBy(ctx, s, channel)
		if errors.Is(err, ErrNoRelease) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, q := range v.release.Requests {
			for _, a := range v.byRequest[q.Name] {
				if a.Ref.Kind != vulndbKind || slices.ContainsFunc(all, func(d vulnData) bool { return d.artifact.Manifest == a.Manifest }) {
					continue
				}
				brought, err := findShipment(ctx, s, q.Shipment)
				if err != nil {
					return nil, err
				}
				h, err := headerOf(brought.Envelope)
				if err != nil {
					return nil, err
				}
				all = append(all, vulnData{a, h.Created, true})
			}
		}
	}
	h, err := headerOf(row.Envelope)
	if err != nil {
		return nil, err
	}
	for _, a := range got.artifacts {
		if a.Ref.Kind == vulndbKind && !slices.ContainsFunc(all, func(d vulnData) bool { return d.artifact.Manifest == a.Manifest }) {
			all = append(all, vulnData{a, h.Created, false})
		}
	}
	return all, nil
}
