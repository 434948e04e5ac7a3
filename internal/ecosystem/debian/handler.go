package debian

import (
	"bytes"
	"cmp"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
)

// component is the one component of what is served.
const component = "main"

// maxStanza is the largest paragraph that is read, in bytes.
const maxStanza = 4 << 20

// suite is what is served of one release of Debian.
type suite struct {
	name    string
	indexes map[string][]byte // Packages by architecture, without all
	packed  map[string][]byte // the same, by gzip
}

// entry is one package of a suite.
type entry struct {
	name, version, arch, text string
}

// suites makes the indexes of a release; they depend on nothing else.
func suites(rel ecosystem.Release) (out []suite, debs map[string]artifact.File, err error) {
	entries := map[string][]entry{}
	debs = map[string]artifact.File{}
	for _, a := range rel.Artifacts(Kind) {
		release, _, ok := strings.Cut(a.Ref.Name, "/")
		if !ok || !releaseForm.MatchString(release) {
			continue
		}
		e, at, f, err := describe(rel, a)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", a.Ref, err)
		}
		debs[at] = f
		entries[release] = append(entries[release], e)
	}
	for _, release := range slices.Sorted(maps.Keys(entries)) {
		all := entries[release]
		slices.SortFunc(all, func(a, b entry) int {
			return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.version, b.version), cmp.Compare(a.arch, b.arch))
		})
		s := suite{release, map[string][]byte{}, map[string][]byte{}}
		for _, e := range all {
			if e.arch != "all" {
				s.indexes[e.arch] = nil
			}
		}
		if len(s.indexes) == 0 {
			s.indexes["amd64"] = nil
		}
		for arch := range s.indexes {
			var b bytes.Buffer
			for _, e := range all {
				if e.arch == arch || e.arch == "all" {
					b.WriteString(e.text)
					b.WriteByte('\n')
				}
			}
			s.indexes[arch] = b.Bytes()
			if s.packed[arch], err = pack(b.Bytes()); err != nil {
				return nil, nil, err
			}
		}
		out = append(out, s)
	}
	return out, debs, nil
}

func pack(b []byte) ([]byte, error) {
	var out bytes.Buffer
	z := gzip.NewWriter(&out)
	_, err := z.Write(b)
	err = errors.Join(err, z.Close())
	return out.Bytes(), err
}

// own are the fields that this index states by itself; constant.
var own = []string{"Filename", "Size", "MD5sum", "MD5Sum", "SHA1", "SHA256", "SHA512"}

// describe makes the paragraph of a package, out of what the archive said of it, with
// place, size and hash of the file that is here.
func describe(rel ecosystem.Release, a artifact.Artifact) (e entry, at string, deb artifact.File, err error) {
	var text []byte
	for _, f := range a.Files {
		switch path.Ext(f.Path) {
		case ".deb":
			deb = f
		case stanzaSuffix:
			if text, err = readAll(rel.Open, f); err != nil {
				return e, "", deb, err
			}
		}
	}
	found, err := parseStanzas(text)
	if err != nil || len(found) != 1 || deb.Path == "" {
		return e, "", deb, errors.Join(errors.New("it has no paragraph or no package"), err)
	}
	f := found[0].fields
	if f["Package"] != path.Base(a.Ref.Name) || f["Version"] != a.Ref.Version || !archForm.MatchString(f["Architecture"]) {
		return e, "", deb, errors.New("its paragraph is about another package")
	}
	at = "pool/" + deb.Digest.Hex()[:2] + "/" + deb.Digest.Hex() + "/" + strings.ReplaceAll(deb.Path, "%3a", ".")
	var b strings.Builder
	skip := false
	for l := range strings.Lines(found[0].text) {
		if l[0] != ' ' && l[0] != '\t' {
			key, _, _ := strings.Cut(l, ":")
			skip = slices.ContainsFunc(own, func(o string) bool { return strings.EqualFold(o, key) })
		}
		if !skip {
			b.WriteString(l)
		}
	}
	fmt.Fprintf(&b, "Filename: %s\nSize: %d\nSHA256: %s\n", at, deb.Size, deb.Digest.Hex())
	return entry{f["Package"], f["Version"], f["Architecture"], b.String()}, at, deb, nil
}

// archForm is the name of an architecture; constant.
var archForm = regexp.MustCompile(`^[a-z0-9]{2,20}$`)

func readAll(open func(artifact.Digest) (ecosystem.Blob, error), f artifact.File) (_ []byte, err error) {
	b, err := open(f.Digest)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if b.Size() > maxStanza {
		return nil, errors.New("a paragraph larger than it may be")
	}
	out := make([]byte, b.Size())
	_, err = io.ReadFull(b, out)
	return out, err
}

// files of a suite that its Release lists, by path below the suite.
func (s suite) files() map[string][]byte {
	out := map[string][]byte{}
	for arch := range s.indexes {
		at := component + "/binary-" + arch + "/Packages"
		out[at], out[at+".gz"] = s.indexes[arch], s.packed[arch]
	}
	return out
}

// Index returns, for each release of Debian that there are packages of, the text of
// Release, which is to be signed.
func (*Ecosystem) Index(rel ecosystem.Release, at time.Time) (map[string][]byte, error) {
	all, _, err := suites(rel)
	if err != nil {
		return nil, err
	}
	out := map[string][]byte{}
	for _, s := range all {
		var b strings.Builder
		fmt.Fprintf(&b, "Origin: enisle\nLabel: enisle\nSuite: %s\nCodename: %s\nDate: %s\nArchitectures: %s\nComponents: %s\nAcquire-By-Hash: yes\nSHA256:\n",
			s.name, s.name, at.UTC().Format("Mon, 02 Jan 2006 15:04:05 UTC"), strings.Join(slices.Sorted(maps.Keys(s.indexes)), " "), component)
		files := s.files()
		for _, name := range slices.Sorted(maps.Keys(files)) {
			sum := sha256.Sum256(files[name])
			fmt.Fprintf(&b, " %x %d %s\n", sum, len(files[name]), name)
		}
		out[s.name] = []byte(b.String())
	}
	return out, nil
}

// Handler serves the archive of a release: dists/RELEASE/InRelease, Packages with their
// copies by hash, and pool. Without the site's signature there is no InRelease, and apt
// refuses all of it.
func (*Ecosystem) Handler(rel ecosystem.Release) (http.Handler, error) {
	all, debs, err := suites(rel)
	if err != nil {
		return nil, err
	}
	m := mirror{rel: rel, pages: map[string][]byte{}, debs: debs}
	signed, _ := rel.(ecosystem.Signed)
	for _, s := range all {
		below := "dists/" + s.name + "/"
		for name, b := range s.files() {
			sum := sha256.Sum256(b)
			m.pages[below+name] = b
			m.pages[below+path.Dir(name)+"/by-hash/SHA256/"+hex.EncodeToString(sum[:])] = b
		}
		if signed != nil {
			if text, ok := signed.SignedIndex(Kind, s.name); ok {
				m.pages[below+"InRelease"] = text
			}
		}
	}
	if signed != nil {
		if key, ok := signed.SigningKey(); ok {
			m.pages["enisle.asc"] = key
		}
	}
	return ecosystem.ReadOnly(m), nil
}

type mirror struct {
	rel   ecosystem.Release
	pages map[string][]byte
	debs  map[string]artifact.File
}

// ServeHTTP answers the paths of the archive.
func (m mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	if b, ok := m.pages[name]; ok {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-cache")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
		return
	}
	f, ok := m.debs[name]
	if !ok {
		ecosystem.NotFound(w, m.why(r, name))
		return
	}
	ecosystem.ServeFile(w, r, m.rel, f, "application/vnd.debian.binary-package")
}

// why says why a package, or all of a release of Debian, is not here.
func (m mirror) why(r *http.Request, at string) string {
	if suite, _, ok := strings.Cut(strings.TrimPrefix(at, "dists/"), "/"); ok && strings.HasPrefix(at, "dists/") && m.pages["dists/"+suite+"/InRelease"] == nil {
		return "nothing signed for this suite is in this release"
	}
	name, rest, ok := strings.Cut(path.Base(at), "_")
	version, _, whole := strings.Cut(rest, "_")
	if !ok || !whole {
		return ecosystem.NotHeld
	}
	return ecosystem.Why(r, m.rel, artifact.Ref{Kind: Kind, Name: "*/" + name, Version: strings.ReplaceAll(version, "%3a", ":")})
}

// Origins returns the archive that a package came from. Its clients take the answers only
// where they trust the site's key.
func (*Ecosystem) Origins(a artifact.Artifact) map[string]string {
	out := map[string]string{}
	for _, f := range a.Files {
		if at, _, ok := strings.Cut(f.Origin, "/pool/"); ok {
			out[at] = ""
		}
	}
	return out
}

// Clients lists apt.
func (*Ecosystem) Clients() []string { return []string{"apt"} }

// Config returns a sources file. The key is at /debian/enisle.asc of the mirror; it is to
// be put where Signed-By says, after it was compared.
func (*Ecosystem) Config(_, base string) string {
	return "Types: deb\nURIs: " + base + "/debian\nSuites: bookworm\nComponents: " + component + "\nSigned-By: /etc/apt/keyrings/enisle.asc\n"
}
