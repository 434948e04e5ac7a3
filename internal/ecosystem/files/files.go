// Package files serves released plain files, each under its name.
package files

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"path"
	"strings"
	"time"

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

// Handler serves /NAME of every file artifact of the release; one with several
// files serves /NAME/FILE.
func (Ecosystem) Handler(rel ecosystem.Release) (http.Handler, error) {
	names := map[string]artifact.File{}
	for _, a := range rel.Artifacts(Kind) {
		for _, f := range a.Files {
			name := a.Ref.Name
			if len(a.Files) > 1 {
				name += "/" + f.Path
			}
			names[name] = f
		}
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "this mirror is read only", http.StatusMethodNotAllowed)
			return
		}
		f, ok := names[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		b, err := rel.Open(f.Digest)
		if err != nil {
			http.Error(w, "not held", http.StatusInternalServerError)
			return
		}
		// A stranger's file is never rendered by a browser.
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("Content-Disposition", fmt.Sprintf("attachment; filename=%q", path.Base(f.Path)))
		w.Header().Set("X-Content-Type-Options", "nosniff")
		w.Header().Set("ETag", `"`+f.Digest.Hex()+`"`)
		http.ServeContent(w, r, "", time.Time{}, b)
		_ = b.Close() // only read from
	}), nil
}
