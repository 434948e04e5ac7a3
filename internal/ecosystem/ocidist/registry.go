package ocidist

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
)

// Registry is a read-only registry of one release.
type Registry struct {
	rel   ecosystem.Release
	kinds []string // of artifacts that are asked for here
	names []string // of all repositories, sorted
	exact map[string]*Repository
	short map[string]*Repository // nil where a name means several
}

// New returns the registry of repositories, which are made of artifacts of these kinds;
// of two with one name, the first is shown.
func New(rel ecosystem.Release, kinds []string, repositories []*Repository) *Registry {
	g := &Registry{rel: rel, kinds: kinds, exact: map[string]*Repository{}, short: map[string]*Repository{}}
	for _, r := range repositories {
		if g.exact[r.Name] != nil {
			continue
		}
		r.refer()
		g.exact[r.Name] = r
		for _, s := range shorter(r.Name) {
			if _, taken := g.short[s]; taken {
				r = nil
			}
			g.short[s] = r
		}
	}
	g.names = slices.Sorted(maps.Keys(g.exact))
	return g
}

// find returns the repository that a client means: by its whole name, below the
// host that the client names as ns, or by a shorter name that means one only.
func (g *Registry) find(name, ns string) *Repository {
	if r := g.exact[name]; r != nil {
		return r
	}
	if ns != "" {
		ns = hostElement(ns) + "/"
		if r := g.exact[ns+name]; r != nil {
			return r
		}
		return g.exact[ns+library+name]
	}
	return g.short[name]
}

// ServeHTTP answers the reading half of distribution-spec 1.1. Paths arrive with
// /v2 removed.
func (g *Registry) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Docker-Distribution-Api-Version", "registry/2.0")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		refuse(w, http.StatusMethodNotAllowed, "UNSUPPORTED", "this mirror is read only")
		return
	}
	path := strings.TrimPrefix(r.URL.Path, "/")
	switch path {
	case "":
		document(w, "application/json", struct{}{})
		return
	case "_catalog":
		g.page(w, r, "repositories", "", g.names)
		return
	}
	parts := strings.Split(path, "/")
	if len(parts) < 3 {
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "this mirror has no such address")
		return
	}
	name, what, which := strings.Join(parts[:len(parts)-2], "/"), parts[len(parts)-2], parts[len(parts)-1]
	repo := g.find(name, r.URL.Query().Get("ns"))
	if repo == nil {
		version := ""
		if what == "manifests" {
			version = which
		}
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN", g.why(r, name, version))
		return
	}
	switch {
	case what == "manifests":
		g.manifest(w, r, repo, which)
	case what == "blobs":
		g.blob(w, r, repo, which)
	case what == "tags" && which == "list":
		g.page(w, r, "tags", name, slices.Sorted(maps.Keys(repo.Tags)))
	case what == "referrers":
		repo.list(w, r, which)
	default:
		refuse(w, http.StatusNotFound, "NAME_UNKNOWN", "this mirror has no such address")
	}
}

// why says why a repository, or a version of it, is not here. Clients may leave out the
// registry's host, which is in front of every name.
func (g *Registry) why(r *http.Request, name, version string) string {
	names := []string{name}
	if g.exact[name] == nil {
		if ns := r.URL.Query().Get("ns"); ns != "" {
			names = append(names, hostElement(ns)+"/"+name)
		}
		names = append(names, "*/"+name)
	}
	why := ecosystem.NotHeld
	for _, kind := range g.kinds {
		for _, n := range names {
			// What is known of is called by its name.
			if why = ecosystem.Why(r, g.rel, artifact.Ref{Kind: kind, Name: n, Version: version}); strings.Contains(why, name) {
				return why
			}
		}
	}
	return why
}

// manifest answers with the bytes as they were, whatever types a client accepts.
func (g *Registry) manifest(w http.ResponseWriter, r *http.Request, p *Repository, reference string) {
	d, ok := p.Tags[reference]
	if strings.Contains(reference, ":") {
		d, ok = artifact.Digest(reference), true
	}
	b, held := p.Manifests[d]
	if !ok || !held {
		refuse(w, http.StatusNotFound, "MANIFEST_UNKNOWN", g.why(r, p.Name, reference))
		return
	}
	h := w.Header()
	h.Set("Content-Type", p.Types[d])
	h.Set("Docker-Content-Digest", string(d))
	h.Set("ETag", `"`+d.Hex()+`"`)
	h.Set("Cache-Control", "no-cache")
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
}

func (g *Registry) blob(w http.ResponseWriter, r *http.Request, p *Repository, digest string) {
	d, err := artifact.ParseDigest(digest)
	if err != nil {
		refuse(w, http.StatusNotFound, "DIGEST_INVALID", "blobs are named by sha256")
		return
	}
	h := w.Header()
	var content io.ReadSeeker
	if b, ok := p.Made[d]; ok {
		content = bytes.NewReader(b)
	} else {
		if _, ok := p.Blobs[d]; !ok {
			refuse(w, http.StatusNotFound, "BLOB_UNKNOWN", "not held here: it belongs to no image of this name, or to one for another platform")
			return
		}
		b, err := g.rel.Open(d)
		if err != nil {
			refuse(w, http.StatusInternalServerError, "UNKNOWN", "it cannot be read; have the operator run 'enisle check'")
			return
		}
		defer func() { _ = b.Close() }() // only read from
		content = b
	}
	h.Set("Content-Type", "application/octet-stream")
	h.Set("Docker-Content-Digest", string(d))
	h.Set("ETag", `"`+d.Hex()+`"`)
	h.Set("Cache-Control", "public, max-age=31536000, immutable")
	if strings.HasPrefix(r.UserAgent(), "ollama/") && r.Header.Get("Range") == "" {
		// Its downloader takes the address for its ranges from here, also from a 200.
		h.Set("Location", asked(r))
	}
	http.ServeContent(w, r, "", time.Time{}, content)
}

// list answers which manifests refer to one, with an empty list where none do.
func (p *Repository) list(w http.ResponseWriter, r *http.Request, digest string) {
	d, err := artifact.ParseDigest(digest)
	if err != nil {
		refuse(w, http.StatusBadRequest, "DIGEST_INVALID", "manifests are named by sha256")
		return
	}
	found := p.referrers[d]
	if kind := r.URL.Query().Get("artifactType"); kind != "" {
		w.Header().Set("OCI-Filters-Applied", "artifactType")
		found = slices.DeleteFunc(slices.Clone(found), func(d Descriptor) bool { return d.ArtifactType != kind })
	}
	if found == nil {
		found = []Descriptor{}
	}
	document(w, typeIndex, struct {
		Schema    int          `json:"schemaVersion"`
		MediaType string       `json:"mediaType"`
		Manifests []Descriptor `json:"manifests"`
	}{2, typeIndex, found})
}

// page answers with a part of a sorted list: n entries after last.
func (g *Registry) page(w http.ResponseWriter, r *http.Request, key, name string, all []string) {
	q := r.URL.Query()
	if last := q.Get("last"); last != "" {
		i, found := slices.BinarySearch(all, last)
		if found {
			i++
		}
		all = all[i:]
	}
	if s := q.Get("n"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 0 {
			refuse(w, http.StatusBadRequest, "PAGINATION_NUMBER_INVALID", "n is the number of entries wanted")
			return
		}
		if n < len(all) {
			if all = all[:n]; n > 0 {
				next := url.Values{"n": {s}, "last": {all[n-1]}}
				w.Header().Set("Link", fmt.Sprintf(`<%s?%s>; rel="next"`, asked(r), next.Encode()))
			}
		}
	}
	if all == nil {
		all = []string{}
	}
	answer := map[string]any{key: all}
	if name != "" {
		answer["name"] = name
	}
	document(w, "application/json", answer)
}

// asked is the path that the client used, which is not what arrives here.
func asked(r *http.Request) string {
	u, err := url.ParseRequestURI(r.RequestURI)
	if err != nil || strings.HasPrefix(u.EscapedPath(), "//") {
		return r.URL.EscapedPath()
	}
	return u.EscapedPath()
}

// document answers with JSON of a known length.
func document(w http.ResponseWriter, kind string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		refuse(w, http.StatusInternalServerError, "UNKNOWN", "the answer cannot be written")
		return
	}
	w.Header().Set("Content-Type", kind)
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	// The client may be gone; there is nobody left to tell.
	_, _ = w.Write(b)
}

// refuse answers with an error as registries write it.
func refuse(w http.ResponseWriter, status int, code, message string) {
	type one struct {
		Code    string `json:"code"`
		Message string `json:"message"`
	}
	b, _ := json.Marshal(map[string][]one{"errors": {{code, message}}}) // strings only; cannot fail
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(status)
	// The client may be gone; there is nobody left to tell.
	_, _ = w.Write(b)
}
