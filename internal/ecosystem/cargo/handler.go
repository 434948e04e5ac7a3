package cargo

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/semver"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
)

// Handler returns the read-only sparse registry of one release:
//
//	/config.json
//	/PREFIX/NAME                        the index of a crate: what is released of it
//	/crates/NAME/NAME-VERSION.crate
func (*Ecosystem) Handler(rel ecosystem.Release) (http.Handler, error) {
	reg := &registry{rel: rel, index: map[string]*crate{}, files: map[string]artifact.File{}}
	for _, a := range rel.Artifacts(Kind) {
		name := a.Ref.Name + "-" + a.Ref.Version + ".crate"
		var v version
		for _, f := range a.Files {
			switch f.Path {
			case name:
				v.crate = f
			case indexFile:
				v.line = f
			}
		}
		if !nameForm.MatchString(a.Ref.Name) || !versionForm.MatchString(a.Ref.Version) || v.crate.Digest == "" || v.line.Digest == "" {
			continue // no client could use it
		}
		v.number = a.Ref.Version
		reg.files["/crates/"+a.Ref.Name+"/"+name] = v.crate
		at := "/" + indexPath(a.Ref.Name)
		c := reg.index[at]
		if c == nil {
			c = &crate{name: a.Ref.Name}
			reg.index[at] = c
		}
		if c.name == a.Ref.Name { // else it differs in case only: the first one has the place
			c.versions = append(c.versions, v)
		}
	}
	for _, c := range reg.index {
		slices.SortFunc(c.versions, func(a, b version) int { return semver.Compare("v"+a.number, "v"+b.number) })
	}
	return ecosystem.ReadOnly(reg), nil
}

// Clients lists cargo.
func (*Ecosystem) Clients() []string { return []string{"cargo"} }

// Config returns the lines of config.toml. The registry that lock files name is
// replaced, so that they stay as they are.
func (*Ecosystem) Config(_, base string) string {
	return "[source.crates-io]\nreplace-with = \"enisle\"\n\n[source.enisle]\nregistry = \"sparse+" + base + "/cargo/\"\n"
}

// Origins returns the registry whose index a crate was found in.
func (*Ecosystem) Origins(a artifact.Artifact) map[string]string {
	if a.Index == "" {
		return nil
	}
	return map[string]string{a.Index: ""}
}

// wantedForm is the index of a crate; constant.
var wantedForm = regexp.MustCompile(`^/(?:[123]|[a-z0-9_-]{2})/(?:[a-z0-9_-]{1,2}/)?([a-z][a-z0-9_-]{0,63})$`)

// Wanted names the crate whose index was asked for.
func (*Ecosystem) Wanted(p string) (item string, ok bool) {
	m := wantedForm.FindStringSubmatch(p)
	if m == nil || p != "/"+indexPath(m[1]) {
		return "", false
	}
	return m[1], true
}

// indexPrefix is the directory of a crate in an index (Cargo book, "Index Files").
func indexPrefix(name string) string {
	switch len(name) {
	case 1:
		return "1"
	case 2:
		return "2"
	case 3:
		return "3/" + name[:1]
	}
	return name[:2] + "/" + name[2:4]
}

func indexPath(name string) string {
	name = strings.ToLower(name)
	return path.Join(indexPrefix(name), name)
}

// registry is what one release offers; it does not change but for what it reads of
// the index.
type registry struct {
	rel   ecosystem.Release
	index map[string]*crate        // by path
	files map[string]artifact.File // by path
}

type crate struct {
	name     string
	versions []version // oldest first

	once sync.Once
	text []byte // of the index; nil if nothing of it can be used
}

type version struct {
	number      string
	crate, line artifact.File
}

func (reg *registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if f, ok := reg.files[r.URL.Path]; ok {
		ecosystem.ServeFile(w, r, reg.rel, f, "application/gzip")
		return
	}
	if r.URL.Path == "/config.json" {
		b, err := json.Marshal(struct {
			Download string `json:"dl"`
			Auth     bool   `json:"auth-required,omitempty"`
		}{
			ecosystem.Base(r) + "crates/{crate}/{crate}-{version}.crate",
			r.Header.Get("Authorization") != "", // who needed a key for this page needs it for all of them
		})
		if err != nil {
			http.Error(w, "not readable", http.StatusInternalServerError)
			return
		}
		ecosystem.ServeText(w, "application/json", b)
		return
	}
	c := reg.index[r.URL.Path]
	if c != nil {
		c.once.Do(func() { c.text = reg.read(c) })
	}
	if c == nil || c.text == nil {
		reg.absent(w, r)
		return
	}
	sum := sha256.Sum256(c.text)
	w.Header().Set("ETag", `"`+hex.EncodeToString(sum[:16])+`"`)
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("Cache-Control", "no-cache")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(c.text))
}

// absent says why a crate, or a version of it, is not here, as registries do (Cargo book,
// "Web API").
func (reg *registry) absent(w http.ResponseWriter, r *http.Request) {
	ref := artifact.Ref{Kind: Kind, Name: path.Base(r.URL.Path)}
	if rest, ok := strings.CutPrefix(r.URL.Path, "/crates/"); ok {
		name, file, _ := strings.Cut(rest, "/")
		version, _ := strings.CutPrefix(strings.TrimSuffix(file, ".crate"), name+"-")
		ref.Name, ref.Version = name, version
	}
	type detail struct {
		Detail string `json:"detail"`
	}
	ecosystem.NotFoundJSON(w, map[string][]detail{"errors": {{"not found: " + ecosystem.Why(r, reg.rel, ref)}}})
}

// read joins the lines of what is released of a crate, as they came. A line that
// speaks of something else than its crate is left out.
func (reg *registry) read(c *crate) (out []byte) {
	for _, v := range c.versions {
		b, err := reg.rel.Open(v.line.Digest)
		if err != nil {
			continue
		}
		text, err := io.ReadAll(io.NewSectionReader(b, 0, min(b.Size(), maxLine+1)))
		_ = b.Close() // only read from
		if err != nil {
			continue
		}
		l, err := parseLine(text)
		if err != nil || l.Name != c.name || l.Version != v.number || l.Checksum != v.crate.Digest.Hex() {
			continue
		}
		out = append(append(out, text...), '\n')
	}
	return out
}
