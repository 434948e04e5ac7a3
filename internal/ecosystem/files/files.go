// Package files serves released plain files, each under its name.
package files

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"mime"
	"net/http"
	"path"
	"slices"
	"strings"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
)

// Kind is the kind of plain files.
const Kind = "files"

// Ecosystem serves files. Collecting them needs no client: the request names
// them by path, or as members of what another ecosystem brought.
type Ecosystem struct{}

var _ ecosystem.Ecosystem = Ecosystem{}

// Name returns "files".
func (Ecosystem) Name() string { return Kind }

// Resolve finds nothing: there is no client to ask.
func (Ecosystem) Resolve(context.Context, ecosystem.Want) ([]artifact.Artifact, error) {
	return nil, errors.New("files are collected by path or from other packages")
}

// Handler serves /NAME of every file artifact of the release, and a listing at
// /; an artifact with several files serves /NAME/FILE.
func (Ecosystem) Handler(rel ecosystem.Release) (http.Handler, error) {
	m := mirror{rel, map[string]artifact.File{}}
	for _, a := range rel.Artifacts(Kind) {
		for _, f := range a.Files {
			name := a.Ref.Name
			if len(a.Files) > 1 {
				name += "/" + f.Path
			}
			m.files[name] = f
		}
	}
	return ecosystem.ReadOnly(m), nil
}

type mirror struct {
	rel   ecosystem.Release
	files map[string]artifact.File // by path
}

// ServeHTTP answers / and the paths of the release.
func (m mirror) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Cache-Control", "no-cache") // another release may have another file of this name
	name := strings.TrimPrefix(r.URL.Path, "/")
	if name == "" {
		m.list(w)
		return
	}
	f, ok := m.files[name]
	if !ok {
		ecosystem.NotFound(w, ecosystem.Why(r, m.rel, artifact.Ref{Kind: Kind, Name: name}))
		return
	}
	// A stranger's file is never rendered by a browser.
	w.Header().Set("Content-Disposition", attachment(path.Base(f.Path)))
	ecosystem.ServeFile(w, r, m.rel, f, "application/octet-stream")
}

// attachment names the file to be saved, also when it is not ASCII.
func attachment(name string) string {
	if v := mime.FormatMediaType("attachment", map[string]string{"filename": name}); v != "" {
		return v
	}
	return "attachment"
}

// list writes one line a file: SHA-256, size in bytes, name. sha256sum -c reads
// what is left without the second column.
func (m mirror) list(w http.ResponseWriter) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	for _, name := range slices.Sorted(maps.Keys(m.files)) {
		f := m.files[name]
		// The client may be gone; there is nobody left to tell.
		_, _ = fmt.Fprintf(w, "%s %12d  %s\n", f.Digest.Hex(), f.Size, name)
	}
}
