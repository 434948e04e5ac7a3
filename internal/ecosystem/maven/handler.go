package maven

import (
	"archive/zip"
	"crypto/md5"  //nolint:gosec // the protocol's; clients compare what they got with what was sent
	"crypto/sha1" //nolint:gosec // as above
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"encoding/xml"
	"errors"
	"hash"
	"io"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/google/osv-scalibr/semantic"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
)

// checksums are the files that clients ask for beside each; constant.
var checksums = map[string]func() hash.Hash{"md5": md5.New, "sha1": sha1.New, "sha256": sha256.New, "sha512": sha512.New}

// maxPlugin is the largest description of a plugin that is read, in bytes.
const maxPlugin = 16 << 20

// Handler returns the read-only repository of one release:
//
//	/GROUP/GROUP/NAME/VERSION/FILE      also with .md5 .sha1 .sha256 .sha512
//	/GROUP/GROUP/NAME/maven-metadata.xml
//	/GROUP/GROUP/maven-metadata.xml     the plugins of a group by their prefix
func (*Ecosystem) Handler(rel ecosystem.Release) (http.Handler, error) {
	rep := &repository{rel: rel, files: map[string]artifact.File{}, things: map[string]*thing{}, groups: map[string]*group{}}
	for _, a := range rel.Artifacts(Kind) {
		g, name, _ := strings.Cut(a.Ref.Name, "/")
		c := coordinate{g, name, a.Ref.Version}
		if !c.ok() {
			continue // no client could ask for it
		}
		any := false
		for _, f := range a.Files {
			if fileOf(c, f.Path) {
				rep.files["/"+c.dir()+"/"+f.Path], any = f, true
			}
		}
		if !any {
			continue
		}
		at, above := "/"+path.Dir(c.dir()), "/"+path.Dir(path.Dir(c.dir()))
		if rep.things[at] == nil {
			rep.things[at] = &thing{coordinate: c}
		}
		rep.things[at].versions = append(rep.things[at].versions, c.version)
		if rep.groups[above] == nil {
			rep.groups[above] = &group{}
		}
		rep.groups[above].members = append(rep.groups[above].members, c)
	}
	for _, t := range rep.things {
		slices.SortFunc(t.versions, compareVersions)
	}
	return ecosystem.ReadOnly(rep), nil
}

// Clients lists mvn.
func (*Ecosystem) Clients() []string { return []string{"mvn"} }

// Config returns settings.xml.
func (*Ecosystem) Config(_, base string) string {
	var url strings.Builder
	_ = xml.EscapeText(&url, []byte(base+"/maven/")) // a Builder does not fail
	return "<settings>\n  <mirrors>\n    <mirror>\n      <id>enisle</id>\n      <mirrorOf>*</mirrorOf>\n      <url>" + url.String() + "</url>\n    </mirror>\n  </mirrors>\n</settings>\n"
}

// Origins returns the repositories that the files of an artifact came from.
func (*Ecosystem) Origins(a artifact.Artifact) map[string]string {
	out := map[string]string{}
	group, name, _ := strings.Cut(a.Ref.Name, "/")
	c := coordinate{group, name, a.Ref.Version}
	for _, f := range a.Files {
		if at, ok := strings.CutSuffix(f.Origin, "/"+c.dir()+"/"+f.Path); ok && c.ok() {
			out[at] = ""
		}
	}
	return out
}

// Wanted names the version of which a file was asked for.
func (*Ecosystem) Wanted(p string) (item string, ok bool) {
	c, ok := parseDir(strings.TrimPrefix(path.Dir(p), "/"))
	if !ok || path.Clean(p) != p || !fileOf(c, path.Base(p)) || strings.HasSuffix(c.version, "-SNAPSHOT") {
		return "", false
	}
	return c.group + ":" + c.name + ":" + c.version, true
}

// compareVersions orders as Maven does; what it cannot order by their letters.
func compareVersions(a, b string) int {
	v, err := semantic.Parse(a, "Maven")
	if err == nil {
		if n, err := v.CompareStr(b); err == nil {
			return n
		}
	}
	return strings.Compare(a, b)
}

// repository is what one release offers; it does not change but for what it
// computes.
type repository struct {
	rel    ecosystem.Release
	files  map[string]artifact.File // by path
	things map[string]*thing        // by path
	groups map[string]*group        // by path
	sums   sync.Map                 // digest and algorithm → hex
}

type thing struct {
	coordinate
	versions []string // oldest first
}

// group is the things of one group, each as often as it has versions.
type group struct {
	members []coordinate

	once sync.Once
	text []byte // its metadata; nil if it has no plugin
}

func (rep *repository) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	p := r.URL.Path
	if f, ok := rep.files[p]; ok {
		ecosystem.ServeFile(w, r, rep.rel, f, mediaType(f.Path))
		return
	}
	algorithm := strings.TrimPrefix(path.Ext(p), ".")
	of := p
	if checksums[algorithm] != nil {
		of = strings.TrimSuffix(p, "."+algorithm)
	} else {
		algorithm = ""
	}
	if f, ok := rep.files[of]; ok {
		sum, err := rep.sum(f, algorithm)
		if err != nil {
			http.Error(w, "not held", http.StatusInternalServerError)
			return
		}
		ecosystem.ServeText(w, "text/plain; charset=utf-8", []byte(sum))
		return
	}
	text := rep.metadata(of)
	switch {
	case text == nil:
		ecosystem.NotFound(w, rep.why(r, of))
	case algorithm != "":
		h := checksums[algorithm]()
		_, _ = h.Write(text) // a hash does not fail
		ecosystem.ServeText(w, "text/plain; charset=utf-8", []byte(hex.EncodeToString(h.Sum(nil))))
	default:
		ecosystem.ServeText(w, "application/xml", text)
	}
}

// why says why a version, or all of a thing, is not here.
func (rep *repository) why(r *http.Request, p string) string {
	dir := strings.TrimPrefix(path.Dir(p), "/")
	c, ok := parseDir(dir)
	if path.Base(p) == "maven-metadata.xml" {
		c, ok = parseDir(dir + "/any")
		c.version = ""
	}
	if !ok {
		return ecosystem.NotHeld
	}
	return ecosystem.Why(r, rep.rel, artifact.Ref{Kind: Kind, Name: c.group + "/" + c.name, Version: c.version})
}

func mediaType(name string) string {
	switch path.Ext(name) {
	case ".pom", ".xml":
		return "application/xml"
	case ".jar", ".war", ".aar":
		return "application/java-archive"
	}
	return "application/octet-stream"
}

// sum computes a checksum of a file, once.
func (rep *repository) sum(f artifact.File, algorithm string) (string, error) {
	key := algorithm + " " + string(f.Digest)
	if algorithm == "sha256" {
		return f.Digest.Hex(), nil
	}
	if s, ok := rep.sums.Load(key); ok {
		return s.(string), nil
	}
	b, err := rep.rel.Open(f.Digest)
	if err != nil {
		return "", err
	}
	h := checksums[algorithm]()
	_, err = io.Copy(h, io.NewSectionReader(b, 0, b.Size()))
	if err = errors.Join(err, b.Close()); err != nil {
		return "", err
	}
	s := hex.EncodeToString(h.Sum(nil))
	rep.sums.Store(key, s)
	return s, nil
}

// metadata is the document of a thing or of a group; nil if there is none.
func (rep *repository) metadata(p string) []byte {
	dir, ok := strings.CutSuffix(p, "/maven-metadata.xml")
	if !ok {
		return nil
	}
	t, g := rep.things[dir], rep.groups[dir]
	var doc document
	if t != nil {
		doc.Group, doc.Name = t.group, t.name
		doc.Versioning = &versioning{Latest: t.versions[len(t.versions)-1], Release: release(t.versions), Versions: t.versions}
	}
	if g != nil {
		g.once.Do(func() { doc.Plugins = rep.plugins(g); g.text = encode(doc) })
		if t == nil {
			return g.text
		}
	}
	return encode(doc)
}

// document is maven-metadata.xml.
type document struct {
	XMLName    xml.Name    `xml:"metadata"`
	Group      string      `xml:"groupId,omitempty"`
	Name       string      `xml:"artifactId,omitempty"`
	Versioning *versioning `xml:"versioning,omitempty"`
	Plugins    []plugin    `xml:"plugins>plugin,omitempty"`
}

type versioning struct {
	Latest   string   `xml:"latest"`
	Release  string   `xml:"release"`
	Versions []string `xml:"versions>version"`
}

type plugin struct {
	Title  string `xml:"name"`
	Prefix string `xml:"prefix"`
	Name   string `xml:"artifactId"`
}

func encode(doc document) []byte {
	if doc.Versioning == nil && doc.Plugins == nil {
		return nil
	}
	b, err := xml.MarshalIndent(doc, "", "  ")
	if err != nil {
		return nil
	}
	return append([]byte(xml.Header), append(b, '\n')...)
}

// release is the newest version that is no preview by its words; the newest if all are.
func release(versions []string) string {
	for _, v := range slices.Backward(versions) {
		low := strings.ToLower(v)
		if !slices.ContainsFunc([]string{"alpha", "beta", "-rc", ".rc", "-cr", "-m", "preview", "snapshot"}, func(s string) bool { return strings.Contains(low, s) }) {
			return v
		}
	}
	return versions[len(versions)-1]
}

// plugins finds those of a group by what their archives say, the newest of each.
func (rep *repository) plugins(g *group) (out []plugin) {
	seen := map[string]bool{}
	for _, c := range slices.Backward(g.members) {
		f, ok := rep.files["/"+c.dir()+"/"+c.name+"-"+c.version+".jar"]
		if !ok || seen[c.name] {
			continue
		}
		if p, err := rep.plugin(f); err == nil && p.Prefix != "" {
			seen[c.name] = true
			p.Name = c.name
			out = append(out, p)
		}
	}
	slices.SortFunc(out, func(a, b plugin) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// plugin reads what a plugin says of itself.
func (rep *repository) plugin(f artifact.File) (p plugin, err error) {
	b, err := rep.rel.Open(f.Digest)
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	z, err := zip.NewReader(b, b.Size())
	if err != nil {
		return p, err
	}
	r, err := z.Open("META-INF/maven/plugin.xml")
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	var said struct {
		Title  string `xml:"name"`
		Prefix string `xml:"goalPrefix"`
	}
	if err := xml.NewDecoder(io.LimitReader(r, maxPlugin)).Decode(&said); err != nil {
		return p, err
	}
	if !wordForm.MatchString(said.Prefix) {
		return p, errors.New("no prefix")
	}
	return plugin{Title: said.Title[:min(len(said.Title), 200)], Prefix: said.Prefix}, nil
}
