package helm

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"path"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/mod/semver"
	"gopkg.in/yaml.v3"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/ocidist"
)

// Bounds of one archive, in bytes.
const (
	maxChart   = 1 << 20 // of the Chart.yaml that is served
	maxArchive = 1 << 30 // unpacked, up to Chart.yaml
)

// Media types of charts at registries.
const (
	typeConfig = "application/vnd.cncf.helm.config.v1+json"
	typeChart  = "application/vnd.cncf.helm.chart.content.v1.tar+gzip"
)

// Handler returns the repository of one release: an index of its charts, also of
// those that came from registries, and their archives.
func (*Ecosystem) Handler(rel ecosystem.Release) (http.Handler, error) {
	m := &mirror{rel: rel, files: map[string]artifact.File{}}
	for _, a := range rel.Artifacts(Kind) {
		for _, f := range a.Files {
			m.files[f.Path] = f
			if f.Path == a.Ref.Name+"-"+a.Ref.Version+".tgz" {
				m.charts = append(m.charts, chart{a.Ref.Name, a.Ref.Version, f})
			}
		}
	}
	for _, r := range ocidist.Repositories(rel, imageKind) {
		for tag, d := range r.Tags {
			f, ok := archive(r, d)
			if !ok {
				continue
			}
			name, version := path.Base(r.Name), strings.ReplaceAll(tag, "_", "+") // as Helm writes it
			f.Path = name + "-" + version + ".tgz"
			if _, taken := m.files[f.Path]; !taken && nameForm.MatchString(name) && versionForm.MatchString(version) {
				m.files[f.Path] = f
				m.charts = append(m.charts, chart{name, version, f})
			}
		}
	}
	slices.SortFunc(m.charts, func(a, b chart) int {
		if c := strings.Compare(a.name, b.name); c != 0 {
			return c
		}
		return semver.Compare(canonical(b.version), canonical(a.version)) // newest first
	})
	return ecosystem.ReadOnly(m), nil
}

// archive is the chart that a manifest of a registry names, if it is one of a chart.
func archive(r *ocidist.Repository, d artifact.Digest) (f artifact.File, ok bool) {
	var m struct {
		Config ocidist.Descriptor   `json:"config"`
		Layers []ocidist.Descriptor `json:"layers"`
	}
	if json.Unmarshal(r.Manifests[d], &m) != nil || m.Config.MediaType != typeConfig {
		return f, false
	}
	for _, l := range m.Layers {
		if size, held := r.Blobs[l.Digest]; held && l.MediaType == typeChart {
			return artifact.File{Digest: l.Digest, Size: size}, true
		}
	}
	return f, false
}

type mirror struct {
	rel    ecosystem.Release
	files  map[string]artifact.File // by path
	charts []chart                  // by name, newest first

	once  sync.Once
	index []byte
	err   error
}

type chart struct {
	name, version string
	file          artifact.File
}

// ServeHTTP answers /index.yaml and the archives.
func (m *mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := strings.TrimPrefix(r.URL.Path, "/")
	if name == "index.yaml" {
		if m.once.Do(func() { m.index, m.err = m.describe() }); m.err != nil {
			http.Error(w, "the index cannot be made", http.StatusInternalServerError)
			return
		}
		h := w.Header()
		h.Set("Content-Type", "application/yaml")
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", `"`+artifact.Sum(m.index).Hex()+`"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(m.index))
		return
	}
	f, ok := m.files[name]
	if !ok {
		ecosystem.NotFound(w, m.why(r, name))
		return
	}
	ecosystem.ServeFile(w, r, m.rel, f, "application/octet-stream")
}

// why says why a chart is not here. Names and versions may have dashes: of the ways to
// read the name of an archive, the one that something is known of counts.
func (m *mirror) why(r *http.Request, file string) string {
	base, ok := strings.CutSuffix(file, ".tgz")
	why := ecosystem.NotHeld
	for i, c := range base {
		if !ok || c != '-' || i > maxDashes || !nameForm.MatchString(base[:i]) || !versionForm.MatchString(base[i+1:]) {
			continue
		}
		if why = ecosystem.Why(r, m.rel, artifact.Ref{Kind: Kind, Name: base[:i], Version: base[i+1:]}); strings.Contains(why, base[:i]) {
			break
		}
	}
	return why
}

// maxDashes is how far into a name a version is looked for, in bytes.
const maxDashes = 200

// describe makes the index. A chart that cannot be read, or calls itself otherwise,
// is left out of it.
func (m *mirror) describe() ([]byte, error) {
	entries := map[string][]map[string]any{}
	var newest time.Time
	for _, c := range m.charts {
		said, err := read(m.rel, c.file)
		if err != nil || said["name"] != c.name || fmt.Sprint(said["version"]) != c.version {
			continue // what cannot be described is not offered
		}
		said["urls"], said["digest"] = []string{c.file.Path}, c.file.Digest.Hex()
		if t := c.file.Published; !t.IsZero() {
			said["created"] = t.UTC().Format(time.RFC3339)
			if t.After(newest) {
				newest = t
			}
		}
		entries[c.name] = append(entries[c.name], said)
	}
	return yaml.Marshal(map[string]any{"apiVersion": "v1", "entries": entries, "generated": newest.UTC().Format(time.RFC3339)})
}

// read returns what the Chart.yaml of a released archive says.
func read(rel ecosystem.Release, f artifact.File) (said map[string]any, err error) {
	b, err := rel.Open(f.Digest)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	return about(io.NewSectionReader(b, 0, b.Size()))
}

// about returns what Chart.yaml says; it lies in the one directory that every archive
// has. Keys that only repositories may set are left out.
func about(archive io.Reader) (said map[string]any, err error) {
	z, err := gzip.NewReader(archive)
	if err != nil {
		return nil, err
	}
	t := tar.NewReader(io.LimitReader(z, maxArchive))
	for {
		h, err := t.Next()
		if err != nil {
			return nil, fmt.Errorf("the Chart.yaml: %w", err)
		}
		if _, rest, _ := strings.Cut(path.Clean(h.Name), "/"); rest != "Chart.yaml" {
			continue
		}
		text, err := io.ReadAll(io.LimitReader(t, maxChart+1))
		if err == nil && len(text) > maxChart {
			err = fmt.Errorf("the Chart.yaml: longer than %d bytes", maxChart)
		}
		if err != nil {
			return nil, err
		}
		if err := yaml.Unmarshal(text, &said); err != nil || said == nil {
			return nil, errors.Join(errors.New("the Chart.yaml: no object"), err)
		}
		maps.DeleteFunc(said, func(k string, _ any) bool {
			return slices.Contains([]string{"urls", "digest", "created", "removed", "tillerVersion", "checksum"}, k)
		})
		return said, nil
	}
}
