package gomod

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/semver"
	"golang.org/x/mod/sumdb/tlog"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
)

// Handler returns the read-only proxy of one release:
//
//	/MODULE/@v/list, /MODULE/@v/VERSION.{info,mod,zip}, /MODULE/@latest
//	/sumdb/NAME/{supported,latest,lookup/MODULE@VERSION,tile/…}
func (*Ecosystem) Handler(rel ecosystem.Release) (http.Handler, error) {
	p := &proxy{rel: rel, files: map[string]artifact.File{}, versions: map[string][]artifact.File{}, databases: map[string]*database{}}
	for _, a := range rel.Artifacts(Kind) {
		if strings.HasPrefix(a.Ref.Name, databaseName) {
			p.addDatabase(a)
			continue
		}
		m := module.Version{Path: a.Ref.Name, Version: a.Ref.Version}
		at := escaped(m)
		if at == "" {
			continue // no client could ask for it
		}
		whole := 0
		for _, f := range a.Files {
			p.files["/"+path.Dir(at)+"/"+f.Path] = f
			if name := path.Base(at); f.Path == name+".zip" || f.Path == name+".info" || f.Path == name+".mod" {
				whole++
			}
		}
		if whole == 3 {
			dir := "/" + path.Dir(path.Dir(at))
			p.versions[dir] = append(p.versions[dir], artifact.File{Path: m.Version, Published: a.Files[0].Published})
		}
	}
	for _, all := range p.versions {
		slices.SortFunc(all, func(a, b artifact.File) int { return semver.Compare(a.Path, b.Path) })
	}
	return ecosystem.ReadOnly(p), nil
}

// Clients lists go.
func (*Ecosystem) Clients() []string { return []string{"go"} }

// Config returns the settings of go, as 'go env -w' takes them.
func (*Ecosystem) Config(_, base string) string {
	return "GOPROXY=" + base + "/go\nGOTOOLCHAIN=local\n"
}

// Origins returns the proxy that a module came from; go asks it for checksum databases
// as well.
func (*Ecosystem) Origins(a artifact.Artifact) map[string]string {
	out := map[string]string{}
	at := escaped(module.Version{Path: a.Ref.Name, Version: a.Ref.Version})
	for _, f := range a.Files {
		if proxy, _, ok := strings.Cut(f.Origin, "/"+at+"."); ok && at != "" {
			out[proxy] = ""
		}
	}
	return out
}

// wantedForm is what go asks for first of a module; constant.
var wantedForm = regexp.MustCompile(`^/(.+)/(?:@v/(list|[^/]+\.(?:info|mod|zip))|@latest)$`)

// Wanted names the module that was asked for, with the version if there was one.
// go asks for every parent of a package's path, too; a host alone is none.
func (*Ecosystem) Wanted(p string) (item string, ok bool) {
	g := wantedForm.FindStringSubmatch(p)
	if g == nil {
		return "", false
	}
	if m, _, ok := parseFile(p); ok && strings.Contains(m.Path, "/") {
		return m.Path + "@" + m.Version, true
	}
	name, err := module.UnescapePath(g[1])
	if err != nil || g[2] != "list" && g[2] != "" || !strings.Contains(name, "/") || strings.HasPrefix(name, "sumdb/") {
		return "", false
	}
	return name + "@latest", true
}

// proxy is what one release offers; it does not change.
type proxy struct {
	rel       ecosystem.Release
	files     map[string]artifact.File   // by path
	versions  map[string][]artifact.File // of /MODULE: Path is the version, oldest first
	databases map[string]*database
}

// database is what is held of one checksum database.
type database struct {
	lookups map[string]record // by MODULE@VERSION, escaped
	tiles   map[string][]tile // by path without a width, widest last
	heads   []artifact.File
}

// record is one answer of a database, and the head that it is proven under: the
// newest of those that it was collected with.
type record struct{ file, head artifact.File }

// tile is one file of hashes; a full one is 256 wide.
type tile struct {
	width int
	file  artifact.File
}

func (p *proxy) addDatabase(a artifact.Artifact) {
	heads := map[string]artifact.File{}
	for _, f := range a.Files {
		if name, rest, _ := strings.Cut(f.Path, "/"); rest == "latest" {
			heads[name] = f
		}
	}
	for _, f := range a.Files {
		name, rest, _ := strings.Cut(f.Path, "/")
		db := p.databases[name]
		if db == nil {
			db = &database{map[string]record{}, map[string][]tile{}, nil}
			p.databases[name] = db
		}
		if key, ok := strings.CutPrefix(rest, "lookup/"); ok {
			db.lookups[key] = record{f, heads[name]}
			continue
		}
		if rest == "latest" {
			db.heads = append(db.heads, f)
			continue
		}
		at, width := partial(rest)
		db.tiles[at] = append(db.tiles[at], tile{width, f})
		slices.SortFunc(db.tiles[at], func(a, b tile) int { return a.width - b.width })
	}
}

// partial splits tile/8/L/K.p/W; what has no such end is a full tile.
func partial(p string) (at string, width int) {
	at, w, ok := strings.Cut(p, ".p/")
	if !ok {
		return p, 256
	}
	n, err := strconv.Atoi(w)
	if err != nil || n < 1 || n > 255 || strconv.Itoa(n) != w {
		return "", 0
	}
	return at, n
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if rest, ok := strings.CutPrefix(r.URL.Path, "/sumdb/"); ok {
		name, what, _ := strings.Cut(rest, "/")
		if db := p.databases[name]; db != nil {
			p.database(w, r, db, what)
			return
		}
		ecosystem.NotFound(w, "this checksum database is not carried")
		return
	}
	if f, ok := p.files[r.URL.Path]; ok {
		ecosystem.ServeFile(w, r, p.rel, f, mediaType(f.Path))
		return
	}
	if name, ok := strings.CutSuffix(r.URL.Path, "/@v/list"); ok && len(p.versions[name]) > 0 {
		var b bytes.Buffer
		for _, v := range p.versions[name] {
			// Neither pseudo-versions: they are of no series.
			if !module.IsPseudoVersion(v.Path) {
				b.WriteString(v.Path + "\n")
			}
		}
		ecosystem.ServeText(w, "text/plain; charset=utf-8", b.Bytes())
		return
	}
	if name, ok := strings.CutSuffix(r.URL.Path, "/@latest"); ok && len(p.versions[name]) > 0 {
		latest(w, p.versions[name])
		return
	}
	p.absent(w, r)
}

// absent says why a module, or a version of it, is not here.
func (p *proxy) absent(w http.ResponseWriter, r *http.Request) {
	m, _, ok := parseFile(r.URL.Path)
	if g := wantedForm.FindStringSubmatch(r.URL.Path); !ok && g != nil {
		m.Path, _ = module.UnescapePath(g[1])
	}
	ecosystem.NotFound(w, ecosystem.Why(r, p.rel, artifact.Ref{Kind: Kind, Name: m.Path, Version: m.Version}))
}

func mediaType(name string) string {
	switch path.Ext(name) {
	case ".info":
		return "application/json"
	case ".mod":
		return "text/plain; charset=utf-8"
	}
	return "application/zip"
}

// latest answers with the newest version, one that is released before others.
func latest(w http.ResponseWriter, all []artifact.File) {
	best := all[0]
	for _, v := range all[1:] {
		if semver.Prerelease(v.Path) == "" || semver.Prerelease(best.Path) != "" {
			best = v
		}
	}
	info := struct {
		Version string
		Time    time.Time
	}{best.Path, best.Published}
	b, err := json.Marshal(info)
	if err != nil {
		http.Error(w, "not readable", http.StatusInternalServerError)
		return
	}
	ecosystem.ServeText(w, "application/json", b)
}

func (p *proxy) database(w http.ResponseWriter, r *http.Request, db *database, what string) {
	switch kind, rest, _ := strings.Cut(what, "/"); {
	case what == "supported":
		ecosystem.ServeText(w, "text/plain; charset=utf-8", []byte("this mirror holds a part of it\n"))
	case what == "latest" && len(db.heads) > 0:
		p.newest(w, r, db)
	case kind == "lookup":
		p.lookup(w, r, db, rest)
	case kind == "tile":
		p.tile(w, r, db, what)
	default:
		ecosystem.NotFound(w, "the release carries no such part of this checksum database")
	}
}

// newest answers with the head of the largest tree.
func (p *proxy) newest(w http.ResponseWriter, r *http.Request, db *database) {
	var best []byte
	var size int64 = -1
	for _, f := range db.heads {
		b, err := p.small(f)
		if err != nil {
			continue
		}
		if t, err := tlog.ParseTree(b); err == nil && t.N > size {
			best, size = b, t.N
		}
	}
	if best == nil {
		ecosystem.NotFound(w, "the release carries no such part of this checksum database")
		return
	}
	ecosystem.ServeText(w, "text/plain; charset=utf-8", best)
}

// lookup answers with a record under the newest head that its proof is held for, in
// place of the head it came with: so clients need the same tiles in whatever order
// they ask.
func (p *proxy) lookup(w http.ResponseWriter, r *http.Request, db *database, key string) {
	rec, ok := db.lookups[key]
	if !ok {
		ecosystem.NotFound(w, "the release carries no such part of this checksum database")
		return
	}
	b, err := p.small(rec.file)
	if err != nil {
		http.Error(w, "not held", http.StatusInternalServerError)
		return
	}
	if _, _, rest, err := tlog.ParseRecord(b); err == nil && rec.head.Digest != "" {
		if head, err := p.small(rec.head); err == nil {
			b = append(b[:len(b)-len(rest):len(b)-len(rest)], head...)
		}
	}
	ecosystem.ServeText(w, "text/plain; charset=utf-8", b)
}

// tile answers with a tile, cut from a wider one where that is what is held.
func (p *proxy) tile(w http.ResponseWriter, r *http.Request, db *database, what string) {
	at, width := partial(what)
	for _, t := range db.tiles[at] {
		if t.width == width {
			ecosystem.ServeFile(w, r, p.rel, t.file, "application/octet-stream")
			return
		}
		if t.width > width && !strings.HasPrefix(at, "tile/8/data/") {
			b, err := p.small(t.file)
			if err != nil || len(b) < width*tlog.HashSize {
				http.Error(w, "not held", http.StatusInternalServerError)
				return
			}
			ecosystem.ServeText(w, "application/octet-stream", b[:width*tlog.HashSize])
			return
		}
	}
	ecosystem.NotFound(w, "the release carries no such part of this checksum database")
}

// small reads a file of a checksum database; none is larger than 1 MiB.
func (p *proxy) small(f artifact.File) ([]byte, error) {
	b, err := p.rel.Open(f.Digest)
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.NewSectionReader(b, 0, min(b.Size(), 1<<20)))
	_ = b.Close() // only read from
	return out, err
}
