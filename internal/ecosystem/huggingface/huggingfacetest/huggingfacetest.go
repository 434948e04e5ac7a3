// Package huggingfacetest is a small hub: one repository that a test made, listed
// in pages, with large files elsewhere and everything that points to Xet. It is for
// tests only.
package huggingfacetest

import (
	"bytes"
	"crypto/sha1" //nolint:gosec // git's
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Hub is a hub with one repository.
type Hub struct {
	*httptest.Server
	// Repository is its name, with "datasets/" before that of a dataset.
	Repository string
	Commit     string
	Files      map[string][]byte
	// Large are the paths in LFS.
	Large []string
	// Token is asked for, if it is not empty.
	Token string
	// Change may spoil what is listed.
	Change func(entry map[string]any)
}

// Git is git's name of a content.
func Git(b []byte) string {
	sum := sha1.Sum(append(fmt.Appendf(nil, "blob %d\x00", len(b)), b...)) //nolint:gosec // git's
	return hex.EncodeToString(sum[:])
}

// Start starts the hub, and another server that has the large files.
func (h *Hub) Start(t *testing.T) {
	t.Helper()
	files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("Signature") != "s" || r.Header.Get("Authorization") != "" {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(h.Files[strings.TrimPrefix(r.URL.Path, "/")]))
	}))
	t.Cleanup(files.Close)
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if h.Token != "" && r.Header.Get("Authorization") != "Bearer "+h.Token {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		api := "/api/models/" + h.Repository
		if strings.HasPrefix(h.Repository, "datasets/") {
			api = "/api/" + h.Repository
		}
		if rest, ok := strings.CutPrefix(r.URL.Path, api); ok {
			h.api(w, r, rest)
			return
		}
		name, ok := strings.CutPrefix(r.URL.Path, "/"+h.Repository+"/resolve/"+h.Commit+"/")
		b, held := h.Files[name]
		if !ok || !held {
			http.NotFound(w, r)
			return
		}
		if slices.Contains(h.Large, name) {
			w.Header().Set("X-Xet-Hash", strings.Repeat("e", 64))
			http.Redirect(w, r, files.URL+"/"+name+"?Signature=s", http.StatusFound)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
	}))
	t.Cleanup(h.Close)
}

func (h *Hub) api(w http.ResponseWriter, r *http.Request, rest string) {
	switch {
	case rest == "/revision/main" || rest == "/revision/"+h.Commit:
		_ = json.NewEncoder(w).Encode(map[string]any{
			"id": strings.TrimPrefix(h.Repository, "datasets/"), "sha": h.Commit, "tags": []string{"made", "by-hand"},
			"pipeline_tag": "text-generation", "library_name": "transformers", "lastModified": "2024-01-02T03:04:05.000Z",
		})
	case rest == "/tree/"+h.Commit && r.URL.Query().Get("recursive") == "true":
		all := h.entries()
		from, _ := strconv.Atoi(r.URL.Query().Get("cursor"))
		to := min(from+2, len(all))
		if to < len(all) {
			w.Header().Set("Link", fmt.Sprintf(`<%s%s?recursive=true&cursor=%d>; rel="next"`, h.URL, r.URL.Path, to))
		}
		_ = json.NewEncoder(w).Encode(all[from:to])
	default:
		http.NotFound(w, r)
	}
}

func (h *Hub) entries() (out []map[string]any) {
	dirs := map[string]bool{}
	for _, path := range slices.Sorted(maps.Keys(h.Files)) {
		b := h.Files[path]
		if i := strings.LastIndexByte(path, '/'); i > 0 && !dirs[path[:i]] {
			dirs[path[:i]] = true
			out = append(out, map[string]any{"type": "directory", "path": path[:i], "size": 0, "oid": strings.Repeat("d", 40)})
		}
		e := map[string]any{"type": "file", "path": path, "size": len(b), "oid": Git(b)}
		if slices.Contains(h.Large, path) {
			sum := sha256.Sum256(b)
			e["oid"], e["xetHash"] = strings.Repeat("a", 40), strings.Repeat("e", 64)
			e["lfs"] = map[string]any{"oid": hex.EncodeToString(sum[:]), "size": len(b), "pointerSize": 130}
		}
		if h.Change != nil {
			h.Change(e)
		}
		out = append(out, e)
	}
	return out
}
