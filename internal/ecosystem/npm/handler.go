package npm

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha1" //nolint:gosec // the protocol's shasum; clients verify integrity (sha512)
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
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

// Limits of one tarball, in bytes.
const (
	maxManifest = 4 << 20 // of the package.json that is served
	maxTarball  = 4 << 30 // unpacked, up to package.json
)

// Handler returns the read-only registry of one release: package documents and
// tarballs.
func (e *Ecosystem) Handler(rel ecosystem.Release) (http.Handler, error) {
	reg := &registry{rel: rel, audit: e.Audit, packages: map[string][]*version{}}
	for _, a := range rel.Artifacts(Kind) {
		for _, f := range a.Files {
			reg.packages[a.Ref.Name] = append(reg.packages[a.Ref.Name], &version{number: a.Ref.Version, file: f})
		}
	}
	for _, versions := range reg.packages {
		slices.SortFunc(versions, func(a, b *version) int { return semver.Compare("v"+a.number, "v"+b.number) })
	}
	return reg, nil
}

// Clients lists npm, pnpm and yarn.
func (*Ecosystem) Clients() []string { return []string{"npm", "pnpm", "yarn"} }

// Config returns the lines of .npmrc or .yarnrc. A lockfile names addresses of its
// own: npm and pnpm take them from here whatever they are.
func (*Ecosystem) Config(client, base string) string {
	if client == "yarn" {
		return "registry \"" + base + "/npm/\"\n"
	}
	return "registry=" + base + "/npm/\nreplace-registry-host=always\n"
}

// Origins returns the registry that a tarball came from.
func (*Ecosystem) Origins(a artifact.Artifact) map[string]string {
	out := map[string]string{}
	for _, f := range a.Files {
		if registry, _, ok := strings.Cut(f.Origin, "/"+a.Ref.Name+"/-/"); ok {
			out[registry] = ""
		}
	}
	return out
}

// wantedForm is the document of a package; constant.
var wantedForm = regexp.MustCompile(`^/((@[a-z0-9][a-z0-9._-]{0,100}/)?[a-z0-9][a-z0-9._-]{0,200})$`)

// Wanted names the package that a document was asked for; npm itself asks for the
// package called npm, which nobody wants.
func (*Ecosystem) Wanted(path string) (item string, ok bool) {
	m := wantedForm.FindStringSubmatch(path)
	if m == nil || m[1] == "npm" {
		return "", false
	}
	return m[1] + "@latest", true
}

type registry struct {
	rel      ecosystem.Release
	audit    func(ecosystem.Release, map[string][]string) (map[string][]Advisory, error)
	packages map[string][]*version // oldest first
}

type version struct {
	number string
	file   artifact.File

	once     sync.Once
	manifest map[string]any    // of package.json
	dist     map[string]string // but for the tarball, which depends on the request
	err      error
}

// Paths of npm's own API that are answered besides packages.
const (
	bulkAudit = "/-/npm/v1/security/advisories/bulk"
	ping      = "/-/ping"
	maxAudit  = 16 << 20 // bytes of what is asked
)

// ServeHTTP answers /NAME, /@SCOPE/NAME (also with %2f), /NAME/VERSION or TAG,
// /-/package/NAME/dist-tags, NAME/-/FILE.tgz, and npm audit.
func (reg *registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == bulkAudit && r.Method == http.MethodPost {
		reg.answerAudit(w, r)
		return
	}
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "this mirror is read only", http.StatusMethodNotAllowed)
		return
	}
	if r.URL.Path == ping {
		writeJSON(w, struct{}{})
		return
	}
	if name, ok := strings.CutPrefix(r.URL.Path, "/-/package/"); ok {
		reg.tags(w, r, strings.TrimSuffix(name, "/dist-tags"))
		return
	}
	name, file, isFile := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/-/")
	if isFile {
		reg.tarball(w, r, name, file)
		return
	}
	name = strings.TrimSuffix(name, "/")
	doc := reg.document(name, ecosystem.Base(r))
	if i := strings.LastIndex(name, "/"); doc == nil && i > 0 {
		// One version, by its number or its tag.
		if whole := reg.document(name[:i], ecosystem.Base(r)); whole != nil {
			version := name[i+1:]
			if version == "latest" {
				version, _ = whole["dist-tags"].(map[string]string)["latest"]
			}
			doc, _ = whole["versions"].(map[string]any)[version].(map[string]any)
		}
	}
	if doc == nil {
		reg.absent(w, r, name, "")
		return
	}
	writeJSON(w, doc)
}

// refuse answers as registries of npm do.
func refuse(w http.ResponseWriter, why string) {
	ecosystem.NotFoundJSON(w, map[string]string{"error": why})
}

// absent says why a package, or a version of it, is not here.
func (reg *registry) absent(w http.ResponseWriter, r *http.Request, name, version string) {
	if i := strings.LastIndex(name, "/"); version == "" && i > 0 && (name[0] != '@' || strings.Count(name, "/") > 1) {
		name, version = name[:i], name[i+1:]
	}
	refuse(w, "not found: "+ecosystem.Why(r, reg.rel, artifact.Ref{Kind: Kind, Name: name, Version: version}))
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	// The client may be gone; there is nobody left to tell.
	_ = json.NewEncoder(w).Encode(v)
}

func (reg *registry) tags(w http.ResponseWriter, r *http.Request, name string) {
	doc := reg.document(name, ecosystem.Base(r))
	if doc == nil {
		reg.absent(w, r, name, "")
		return
	}
	writeJSON(w, doc["dist-tags"])
}

// answerAudit answers which of the installed versions are known to be vulnerable.
// Where there is no data it says so: nobody is told that all is well.
func (reg *registry) answerAudit(w http.ResponseWriter, r *http.Request) {
	body := io.Reader(http.MaxBytesReader(w, r.Body, maxAudit))
	if r.Header.Get("Content-Encoding") == "gzip" {
		z, err := gzip.NewReader(body)
		if err != nil {
			http.Error(w, "no gzip", http.StatusBadRequest)
			return
		}
		body = io.LimitReader(z, maxAudit)
	}
	asked := map[string][]string{}
	if err := json.NewDecoder(body).Decode(&asked); err != nil {
		http.Error(w, "no list of packages", http.StatusBadRequest)
		return
	}
	if reg.audit == nil {
		refuse(w, "no vulnerability data is released here")
		return
	}
	found, err := reg.audit(reg.rel, asked)
	if err != nil {
		refuse(w, "vulnerabilities cannot be looked up: "+err.Error())
		return
	}
	writeJSON(w, found)
}

// document describes a package, nil if none of its versions is here and
// readable. at is where the registry is for the client.
func (reg *registry) document(name, at string) map[string]any {
	all, published, latest, newest := map[string]any{}, map[string]string{}, "", time.Time{}
	for _, v := range reg.packages[name] {
		v.once.Do(func() { v.manifest, v.dist, v.err = describe(reg.rel, v.file) })
		if v.err != nil {
			continue // what cannot be described is not offered
		}
		m, dist := maps.Clone(v.manifest), maps.Clone(v.dist)
		dist["tarball"] = at + name + "/-/" + v.file.Path
		m["dist"], m["name"], m["version"], m["_id"] = dist, name, v.number, name+"@"+v.number
		all[v.number] = m
		if semver.Prerelease("v"+latest) != "" || latest == "" || semver.Prerelease("v"+v.number) == "" {
			latest = v.number
		}
		if t := v.file.Published; !t.IsZero() {
			published[v.number] = t.UTC().Format("2006-01-02T15:04:05.000Z")
			if t.After(newest) {
				newest = t
			}
		}
	}
	if latest == "" {
		return nil
	}
	doc := map[string]any{"_id": name, "name": name, "dist-tags": map[string]string{"latest": latest}, "versions": all}
	if len(published) > 0 {
		published["modified"] = newest.UTC().Format("2006-01-02T15:04:05.000Z")
		doc["time"], doc["modified"] = published, published["modified"]
	}
	return doc
}

func (reg *registry) tarball(w http.ResponseWriter, r *http.Request, name, file string) {
	for _, v := range reg.packages[name] {
		if v.file.Path != file {
			continue
		}
		ecosystem.ServeFile(w, r, reg.rel, v.file, "application/octet-stream")
		return
	}
	version, _ := strings.CutPrefix(strings.TrimSuffix(file, ".tgz"), path.Base(name)+"-")
	reg.absent(w, r, name, version)
}

// describe reads package.json and computes the hashes of a tarball.
func describe(rel ecosystem.Release, f artifact.File) (m map[string]any, dist map[string]string, err error) {
	b, err := rel.Open(f.Digest)
	if err != nil {
		return nil, nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	long, short := sha512.New(), sha1.New() //nolint:gosec // see the import
	if _, err := io.Copy(io.MultiWriter(long, short), io.NewSectionReader(b, 0, b.Size())); err != nil {
		return nil, nil, err
	}
	m, err = manifest(io.NewSectionReader(b, 0, b.Size()))
	return m, map[string]string{
		"integrity": "sha512-" + base64.StdEncoding.EncodeToString(long.Sum(nil)),
		"shasum":    hex.EncodeToString(short.Sum(nil)),
	}, err
}

// manifest reads package.json, which lies in the one directory that every
// tarball has, whatever its name. Keys that only registries may set are left
// out.
func manifest(r io.Reader) (map[string]any, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	t := tar.NewReader(io.LimitReader(z, maxTarball))
	for {
		h, err := t.Next()
		if err != nil {
			return nil, fmt.Errorf("package.json: %w", err)
		}
		if _, rest, _ := strings.Cut(path.Clean(h.Name), "/"); rest != "package.json" {
			continue
		}
		b, err := io.ReadAll(io.LimitReader(t, maxManifest+1))
		if err == nil && len(b) > maxManifest {
			err = fmt.Errorf("package.json: larger than %d bytes", maxManifest)
		}
		if err != nil {
			return nil, err
		}
		m := map[string]any{}
		if err := json.Unmarshal(b, &m); err != nil || m == nil {
			return nil, errors.Join(errors.New("package.json: no object"), err)
		}
		maps.DeleteFunc(m, func(k string, _ any) bool { return strings.HasPrefix(k, "_") || k == "dist" || k == "deprecated" })
		return m, nil
	}
}
