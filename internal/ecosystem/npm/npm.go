// Package npm brings npm packages: resolved by npm itself outside, served to
// unmodified clients inside.
//
// It takes single packages by exact version, without what they depend on:
// enough for an engine that arrives as a package. It knows nothing of sites or
// shipments.
package npm

import (
	"archive/tar"
	"compress/gzip"
	"context"
	"crypto/sha1" //nolint:gosec // the protocol's shasum; clients verify integrity (sha512)
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/fail"
)

// Kind is the kind of npm packages.
const Kind = "npm"

// maxManifest is the largest package.json that is served, in bytes.
const maxManifest = 4 << 20

// Ecosystem is npm. The zero value serves.
type Ecosystem struct {
	Runner ecosystem.Runner // runs npm; needed for collecting
}

var _ ecosystem.Ecosystem = (*Ecosystem)(nil)

// Name returns "npm".
func (*Ecosystem) Name() string { return Kind }

// Resolve asks npm what NAME@VERSION is: address and sha512.
func (e *Ecosystem) Resolve(ctx context.Context, want ecosystem.Want) ([]artifact.Artifact, error) {
	by, stderr, err := e.Runner.Run(ctx, want.Work, want.Hidden, []string{"npm", "--version"})
	if err != nil {
		return nil, fail.As(fail.Failed, "install npm", fmt.Errorf("npm: %w: %s", err, tail(stderr)))
	}
	var out []artifact.Artifact
	items := slices.Clone(want.Items)
	for _, ref := range want.Alone {
		items = append(items, ref.Name+"@"+ref.Version)
	}
	for _, it := range items {
		spec, ok := it.(string)
		if !ok {
			return nil, fail.Refuse(`write "NAME@VERSION"; dependency closures of npm are not resolved yet`, fmt.Errorf("unknown entry %v", it))
		}
		i := strings.LastIndex(spec, "@")
		if i < 1 || strings.HasPrefix(spec, "-") || strings.ContainsAny(spec, " \\\n") || strings.Count(spec, "/") > 1 || strings.Contains(spec, "/") && spec[0] != '@' {
			return nil, fail.As(fail.Usage, `write "NAME@VERSION"`, fmt.Errorf("%.80q names no version of a package", spec))
		}
		a, err := e.view(ctx, want, spec)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", spec, err)
		}
		a.By = "npm " + strings.TrimSpace(string(by))
		out = append(out, a)
	}
	return out, nil
}

func (e *Ecosystem) view(ctx context.Context, want ecosystem.Want, spec string) (artifact.Artifact, error) {
	var a artifact.Artifact
	stdout, stderr, err := e.Runner.Run(ctx, want.Work, want.Hidden, []string{"npm", "view", spec, "name", "version", "dist", "time", "--json"})
	if err != nil {
		return a, fail.As(fail.Failed, "try 'npm view' with it", fmt.Errorf("npm: %w: %s", err, tail(stderr)))
	}
	var v struct {
		Name    string `json:"name"`
		Version string `json:"version"`
		Dist    struct {
			Tarball   string `json:"tarball"`
			Integrity string `json:"integrity"`
		} `json:"dist"`
		Time map[string]string `json:"time"`
	}
	if err := json.Unmarshal(stdout, &v); err != nil {
		return a, fail.As(fail.Usage, "name one exact version", fmt.Errorf("npm answered with something else than one version: %w", err))
	}
	b64, ok := strings.CutPrefix(v.Dist.Integrity, "sha512-")
	sum, err := base64.StdEncoding.DecodeString(b64)
	if !ok || err != nil || len(sum) != sha512.Size {
		return a, fail.Refuse("bring it from a registry that states sha512", fmt.Errorf("its integrity is %.80q", v.Dist.Integrity))
	}
	if u, err := url.Parse(v.Dist.Tarball); err != nil || u.Path == "" {
		return a, errors.New("the registry names no tarball")
	}
	published, err := time.Parse(time.RFC3339, v.Time[v.Version])
	if err != nil {
		published = time.Time{} // provenance only
	}
	a.Ref = artifact.Ref{Kind: Kind, Name: v.Name, Version: v.Version}
	a.Files = []artifact.File{{Path: path.Base(v.Name) + "-" + v.Version + ".tgz", Size: -1, Origin: fetch.Clean(v.Dist.Tarball),
		Hashes: map[string]string{"sha512": hex.EncodeToString(sum)}, Published: published.UTC().Truncate(time.Second)}}
	return a, a.Ref.Check()
}

func tail(b []byte) string {
	s := strings.TrimSpace(string(b))
	if len(s) > 300 {
		s = s[len(s)-300:]
	}
	return strings.ReplaceAll(s, "\n", "; ")
}

// Handler returns the read-only registry of one release: package documents and
// tarballs.
func (*Ecosystem) Handler(rel ecosystem.Release) (http.Handler, error) {
	reg := &registry{rel: rel, packages: map[string][]*version{}}
	for _, a := range rel.Artifacts(Kind) {
		for _, f := range a.Files {
			reg.packages[a.Ref.Name] = append(reg.packages[a.Ref.Name], &version{number: a.Ref.Version, file: f})
		}
	}
	return reg, nil
}

type registry struct {
	rel      ecosystem.Release
	packages map[string][]*version // in order of references
}

type version struct {
	number string
	file   artifact.File

	once     sync.Once
	manifest map[string]any // of package.json, with dist but for its tarball
	err      error
}

// ServeHTTP answers /NAME, /@SCOPE/NAME (also with %2f) and NAME/-/FILE.tgz.
func (reg *registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "this mirror is read only", http.StatusMethodNotAllowed)
		return
	}
	name, file, isFile := strings.Cut(strings.Trim(r.URL.Path, "/"), "/-/")
	if isFile {
		reg.tarball(w, r, name, file)
		return
	}
	versions, ok := reg.packages[name]
	if !ok {
		http.NotFound(w, r)
		return
	}
	doc := map[string]any{"name": name, "dist-tags": map[string]string{"latest": versions[len(versions)-1].number}}
	all := map[string]any{}
	for _, v := range versions {
		v.once.Do(func() { v.manifest, v.err = describe(reg.rel, v.file) })
		if v.err != nil {
			continue // what cannot be described is not offered
		}
		m := map[string]any{}
		for k, val := range v.manifest {
			m[k] = val
		}
		dist := map[string]any{"tarball": base(r) + name + "/-/" + v.file.Path}
		for k, val := range m["dist"].(map[string]string) { //nolint:forcetypeassert // describe made it
			dist[k] = val
		}
		m["dist"], m["name"], m["version"] = dist, name, v.number
		all[v.number] = m
	}
	doc["versions"] = all
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-cache")
	// The client may be gone; there is nobody left to tell.
	_ = json.NewEncoder(w).Encode(doc)
}

// base is the address the client used for this registry, with its prefix.
func base(r *http.Request) string {
	scheme := "http://"
	if r.TLS != nil {
		scheme = "https://"
	}
	raw, _, _ := strings.Cut(r.RequestURI, "?")
	prefix := "/"
	if i := strings.Index(raw, "/"+Kind+"/"); i >= 0 {
		prefix = raw[:i+len(Kind)+2]
	}
	return scheme + r.Host + prefix
}

func (reg *registry) tarball(w http.ResponseWriter, r *http.Request, name, file string) {
	for _, v := range reg.packages[name] {
		if v.file.Path != file {
			continue
		}
		b, err := reg.rel.Open(v.file.Digest)
		if err != nil {
			http.Error(w, "not held", http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("ETag", `"`+v.file.Digest.Hex()+`"`)
		w.Header().Set("Cache-Control", "public, max-age=31536000, immutable")
		http.ServeContent(w, r, "", time.Time{}, b)
		_ = b.Close() // only read from
		return
	}
	http.NotFound(w, r)
}

// describe reads package.json and computes the hashes of a tarball.
func describe(rel ecosystem.Release, f artifact.File) (_ map[string]any, err error) {
	b, err := rel.Open(f.Digest)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	long, short := sha512.New(), sha1.New() //nolint:gosec // see the import
	if _, err := io.Copy(io.MultiWriter(long, short), io.NewSectionReader(b, 0, b.Size())); err != nil {
		return nil, err
	}
	m, err := manifest(io.NewSectionReader(b, 0, b.Size()))
	if err != nil {
		return nil, err
	}
	m["dist"] = map[string]string{"integrity": "sha512-" + base64.StdEncoding.EncodeToString(long.Sum(nil)), "shasum": hex.EncodeToString(short.Sum(nil))}
	return m, nil
}

func manifest(r io.Reader) (map[string]any, error) {
	z, err := gzip.NewReader(r)
	if err != nil {
		return nil, err
	}
	t := tar.NewReader(z)
	for n := 0; n < 100_000; n++ {
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
		var m map[string]any
		err = json.Unmarshal(b, &m)
		return m, err
	}
	return nil, errors.New("no package.json")
}
