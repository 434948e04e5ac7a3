package pypi

import (
	"archive/zip"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
)

// The media types of the simple API (PEP 691).
const (
	jsonType = "application/vnd.pypi.simple.v1+json"
	htmlType = "application/vnd.pypi.simple.v1+html"
)

// maxMetadata is the largest METADATA that is served, in bytes.
const maxMetadata = 4 << 20

// Handler returns the read-only index of one release:
//
//	/simple/                    all projects
//	/simple/NAME/               the files of a project
//	/files/SHA256/FILE          a file; FILE.metadata is its METADATA
//	/integrity/NAME/VERSION/FILE/provenance
func (*Ecosystem) Handler(rel ecosystem.Release) (http.Handler, error) {
	ix := &index{rel: rel, projects: map[string][]*dist{}, files: map[string]*dist{}}
	for _, a := range rel.Artifacts(Kind) {
		proofs := map[string]*artifact.File{}
		for i, f := range a.Files {
			if isProvenance(f) {
				proofs[f.Path] = &a.Files[i]
			}
		}
		for _, f := range a.Files {
			if isProvenance(f) {
				continue
			}
			d := &dist{file: f, version: a.Ref.Version, provenance: proofs[f.Path+provenanceEnd]}
			ix.projects[a.Ref.Name] = append(ix.projects[a.Ref.Name], d)
			ix.files[f.Digest.Hex()+"/"+f.Path] = d
		}
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/simple/{$}", ix.list)
	mux.HandleFunc("/simple/{name}/{$}", ix.project)
	mux.HandleFunc("/simple/{name}", func(w http.ResponseWriter, r *http.Request) { ix.point(w, r, "") })
	mux.HandleFunc("/simple", func(w http.ResponseWriter, _ *http.Request) { redirect(w, "simple/") })
	mux.HandleFunc("/files/{sum}/{file}", ix.download)
	mux.HandleFunc("/integrity/{name}/{version}/{file}/provenance", ix.integrity)
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) { redirect(w, "simple/") })
	return ecosystem.ReadOnly(mux), nil
}

// Clients lists pip, uv and poetry.
func (*Ecosystem) Clients() []string { return []string{"pip", "uv", "poetry"} }

// Config returns the settings of a client: pip.conf, uv.toml, or lines of a project's
// pyproject.toml.
func (*Ecosystem) Config(client, base string) string {
	switch client {
	case "uv":
		return "[[index]]\nurl = \"" + base + "/pypi/simple/\"\ndefault = true\n"
	case "poetry":
		return "[[tool.poetry.source]]\nname = \"island\"\nurl = \"" + base + "/pypi/simple/\"\npriority = \"primary\"\n"
	}
	return "[global]\nindex-url = " + base + "/pypi/simple/\n"
}

// Origins returns the index that an artifact was resolved with. Its pages link to files
// beside the index.
func (*Ecosystem) Origins(a artifact.Artifact) map[string]string {
	at := strings.TrimSuffix(a.Index, "/")
	i := strings.LastIndex(at, "/")
	if i < len("https://x") {
		return nil
	}
	return map[string]string{at: "/simple", at[:i] + "/files": "/files", at[:i] + "/integrity": "/integrity"}
}

// wantedForm is the page of a project; constant.
var wantedForm = regexp.MustCompile(`^/simple/([A-Za-z0-9][A-Za-z0-9._-]{0,200})/?$`)

// Wanted names the project that a page was asked for.
func (*Ecosystem) Wanted(path string) (item string, ok bool) {
	m := wantedForm.FindStringSubmatch(path)
	if m == nil {
		return "", false
	}
	return Normalise(m[1]), true
}

// redirect sends a relative location: the handler does not know its prefix.
func redirect(w http.ResponseWriter, to string) {
	w.Header().Set("Location", to)
	w.WriteHeader(http.StatusMovedPermanently)
}

// index is what one release offers; it does not change but for what it learns
// from the wheels themselves.
type index struct {
	rel      ecosystem.Release
	projects map[string][]*dist
	files    map[string]*dist // by SHA256/FILE
	pages    sync.Map         // type and name of the page → page
	kept     atomic.Int64     // bytes in pages
}

type dist struct {
	file       artifact.File
	version    string
	provenance *artifact.File // nil: none was there

	once     sync.Once
	metadata []byte // of a wheel; nil if it has none that can be served
	python   string // Requires-Python
}

// learn reads METADATA out of the wheel, once.
func (d *dist) learn(rel ecosystem.Release) {
	d.once.Do(func() {
		if !strings.HasSuffix(d.file.Path, ".whl") {
			return
		}
		b, err := readMetadata(rel, d.file.Digest)
		if err != nil {
			return // served without; clients then read the wheel
		}
		d.metadata = b
		for line := range strings.Lines(string(b)) {
			if strings.TrimSpace(line) == "" {
				break
			}
			if k, v, _ := strings.Cut(line, ":"); strings.EqualFold(k, "Requires-Python") {
				d.python = strings.TrimSpace(v)
			}
		}
	})
}

// readMetadata returns the one METADATA of a wheel. A wheel with two is one that
// clients may read differently: it is served without.
func readMetadata(rel ecosystem.Release, sum artifact.Digest) (_ []byte, err error) {
	b, err := rel.Open(sum)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	z, err := zip.NewReader(b, b.Size())
	if err != nil {
		return nil, err
	}
	var found *zip.File
	for _, f := range z.File {
		dir, base, ok := strings.Cut(f.Name, "/")
		if !ok || base != "METADATA" || !strings.HasSuffix(dir, ".dist-info") {
			continue
		}
		if found != nil {
			return nil, errors.New("more than one METADATA")
		}
		found = f
	}
	if found == nil {
		return nil, errors.New("no METADATA")
	}
	r, err := found.Open()
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(r, maxMetadata+1))
	if err == nil && len(out) > maxMetadata {
		err = fmt.Errorf("METADATA is larger than %d bytes", maxMetadata)
	}
	return out, errors.Join(err, r.Close())
}

// accept chooses what a client gets: the best of the three types it takes, HTML
// if it does not say. ok is false when it takes none.
func accept(r *http.Request) (string, bool) {
	header := strings.Join(r.Header.Values("Accept"), ",")
	if header == "" {
		return "text/html", true
	}
	best, bestQ := "", 0.0
	for part := range strings.SplitSeq(header, ",") {
		kind, params, _ := strings.Cut(strings.TrimSpace(part), ";")
		q := 1.0
		for p := range strings.SplitSeq(params, ";") {
			if v, ok := strings.CutPrefix(strings.TrimSpace(p), "q="); ok {
				if f, err := strconv.ParseFloat(v, 64); err == nil && f >= 0 && f <= 1 {
					q = f
				}
			}
		}
		offered := map[string]string{
			jsonType: jsonType, "application/vnd.pypi.simple.latest+json": jsonType, htmlType: htmlType,
			"application/vnd.pypi.simple.latest+html": htmlType, "text/html": "text/html", "text/*": "text/html", "application/*": jsonType, "*/*": "text/html",
		}[strings.TrimSpace(strings.ToLower(kind))]
		if offered != "" && q > bestQ {
			best, bestQ = offered, q
		}
	}
	return best, best != ""
}

// jsonFile has core-metadata and not its older name: pip before 23.2 breaks on
// the older one in JSON (PEP 714); in HTML both are understood.
type jsonFile struct {
	Filename string            `json:"filename"`
	URL      string            `json:"url"`
	Hashes   map[string]string `json:"hashes"`
	Python   string            `json:"requires-python,omitempty"`
	Size     int64             `json:"size"`
	Uploaded string            `json:"upload-time,omitempty"`
	Yanked   bool              `json:"yanked"`
	Core     any               `json:"core-metadata"`
	Proof    string            `json:"provenance,omitempty"`
}

type jsonMeta struct {
	Version string `json:"api-version"`
}

func (ix *index) list(w http.ResponseWriter, r *http.Request) {
	ix.answer(w, r, "", ix.listDoc)
}

// listDoc is the list of all projects.
func (ix *index) listDoc() (doc any, page string, data any) {
	names := make([]string, 0, len(ix.projects))
	for n := range ix.projects {
		names = append(names, n)
	}
	slices.Sort(names)
	type project struct {
		Name string `json:"name"`
	}
	all := struct {
		Meta     jsonMeta  `json:"meta"`
		Projects []project `json:"projects"`
	}{jsonMeta{"1.1"}, []project{}}
	for _, n := range names {
		all.Projects = append(all.Projects, project{n})
	}
	return all, listPage, all.Projects
}

// point redirects to the project that the path names in another form, and to
// no other place: what is not a project is not found.
func (ix *index) point(w http.ResponseWriter, r *http.Request, up string) {
	name := Normalise(r.PathValue("name"))
	if _, ok := ix.projects[name]; !ok {
		ix.absent(w, r, name, "")
		return
	}
	redirect(w, up+name+"/")
}

// absent says why a project, or a version of it, is not here.
func (ix *index) absent(w http.ResponseWriter, r *http.Request, name, version string) {
	ecosystem.NotFound(w, ecosystem.Why(r, ix.rel, artifact.Ref{Kind: Kind, Name: name, Version: version}))
}

func (ix *index) project(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("name")
	if Normalise(name) != name {
		ix.point(w, r, "../")
		return
	}
	dists, ok := ix.projects[name]
	if !ok {
		ix.absent(w, r, name, "")
		return
	}
	ix.answer(w, r, name, func() (any, string, any) { return ix.projectDoc(name, dists) })
}

// projectDoc is the page of a project.
func (ix *index) projectDoc(name string, dists []*dist) (any, string, any) {
	doc := struct {
		Meta     jsonMeta   `json:"meta"`
		Name     string     `json:"name"`
		Versions []string   `json:"versions"`
		Files    []jsonFile `json:"files"`
	}{Meta: jsonMeta{"1.1"}, Name: name, Versions: []string{}, Files: []jsonFile{}}
	for _, d := range dists {
		d.learn(ix.rel)
		f := jsonFile{
			Filename: d.file.Path, URL: "../../files/" + d.file.Digest.Hex() + "/" + d.file.Path,
			Hashes: map[string]string{"sha256": d.file.Digest.Hex()}, Python: d.python, Size: d.file.Size, Core: false, Proof: d.provenanceURL(name),
		}
		if d.metadata != nil {
			f.Core = map[string]string{"sha256": artifact.Sum(d.metadata).Hex()}
		}
		if !d.file.Published.IsZero() {
			f.Uploaded = d.file.Published.UTC().Format(time.RFC3339)
		}
		if !slices.Contains(doc.Versions, d.version) {
			doc.Versions = append(doc.Versions, d.version)
		}
		doc.Files = append(doc.Files, f)
	}
	return doc, projectPage, doc
}

// maxKept is how many bytes of pages are kept to be answered again.
const maxKept = 256 << 20

// page is an answer that was made once: a release does not change.
type page struct {
	body []byte
	tag  string
}

// answer gives the page of a name in the form that the client takes; it is made once.
func (ix *index) answer(w http.ResponseWriter, r *http.Request, name string, content func() (doc any, page string, data any)) {
	kind, ok := accept(r)
	w.Header().Set("Vary", "Accept")
	w.Header().Set("Cache-Control", "no-cache") // a release may be followed by another at any time
	if !ok {
		http.Error(w, "offered: "+jsonType+", "+htmlType+", text/html", http.StatusNotAcceptable)
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Security-Policy", "default-src 'none'")
	key := kind + " " + name
	kept, ok := ix.pages.Load(key)
	if !ok {
		p, err := render(kind, content)
		if err != nil {
			http.Error(w, "the page cannot be made", http.StatusInternalServerError)
			return
		}
		if kept = p; ix.kept.Add(int64(len(p.body))) <= maxKept {
			ix.pages.Store(key, p)
		}
	}
	p, _ := kept.(page)
	w.Header().Set("ETag", p.tag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(p.body))
}

func render(kind string, content func() (doc any, page string, data any)) (page, error) {
	doc, text, data := content()
	var b bytes.Buffer
	var err error
	if kind == jsonType {
		err = json.NewEncoder(&b).Encode(doc)
	} else {
		err = template.Must(template.New("").Funcs(template.FuncMap{"sum": func(v any) string {
			if m, ok := v.(map[string]string); ok {
				return "sha256=" + m["sha256"]
			}
			return ""
		}}).Parse(text)).Execute(&b, data)
	}
	return page{b.Bytes(), `"page-` + artifact.Sum(b.Bytes()).Short() + `"`}, err
}

const listPage = `<!DOCTYPE html>
<html><head><meta name="pypi:repository-version" content="1.1"><title>index</title></head><body>
{{range .}}<a href="{{.Name}}/">{{.Name}}</a><br>
{{end}}</body></html>
`

const projectPage = `<!DOCTYPE html>
<html><head><meta name="pypi:repository-version" content="1.1"><title>{{.Name}}</title></head><body>
{{range .Files}}<a href="{{.URL}}#sha256={{index .Hashes "sha256"}}"{{if .Python}} data-requires-python="{{.Python}}"{{end}}{{with sum .Core}} data-core-metadata="{{.}}" data-dist-info-metadata="{{.}}"{{end}}{{with .Proof}} data-provenance="{{.}}"{{end}}>{{.Filename}}</a><br>
{{end}}</body></html>
`

func (ix *index) download(w http.ResponseWriter, r *http.Request) {
	key := r.PathValue("sum") + "/" + r.PathValue("file")
	if wheel, ok := strings.CutSuffix(key, ".metadata"); ok {
		if d, ok := ix.files[wheel]; ok {
			if d.learn(ix.rel); d.metadata != nil {
				content(w, r, artifact.Sum(d.metadata), "text/plain; charset=utf-8", strings.NewReader(string(d.metadata)))
				return
			}
		}
	}
	d, ok := ix.files[key]
	if !ok {
		name, version, _ := parseFileName(strings.TrimSuffix(r.PathValue("file"), ".metadata"))
		ix.absent(w, r, Normalise(name), version)
		return
	}
	b, err := ix.rel.Open(d.file.Digest)
	if err != nil {
		http.Error(w, "not held", http.StatusInternalServerError)
		return
	}
	content(w, r, d.file.Digest, "application/octet-stream", b)
	_ = b.Close() // only read from
}

// content serves immutable bytes with ranges and an entity tag.
func content(w http.ResponseWriter, r *http.Request, sum artifact.Digest, kind string, body io.ReadSeeker) {
	w.Header().Set("Content-Type", kind)
	w.Header().Set("ETag", `"`+sum.Hex()+`"`)
	w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "", time.Time{}, body)
}
