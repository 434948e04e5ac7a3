package ecosystem

import (
	"encoding/json"
	"net/http"
	"net/url"
	"strings"
	"time"

	"enisle/internal/artifact"
)

// ReadOnly answers everything but GET and HEAD with 405.
func ReadOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "this mirror is read only", http.StatusMethodNotAllowed)
			return
		}
		w.Header().Set("X-Content-Type-Options", "nosniff")
		next.ServeHTTP(w, r)
	})
}

// ServeFile answers with one released file: ranges, and its digest as the entity
// tag. It may be asked for again at any time, because another release may have
// another file in its place.
func ServeFile(w http.ResponseWriter, r *http.Request, rel Release, f artifact.File, contentType string) {
	b, err := rel.Open(f.Digest)
	if err != nil {
		http.Error(w, "not held", http.StatusInternalServerError)
		return
	}
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("ETag", `"`+f.Digest.Hex()+`"`)
	h.Set("Cache-Control", "no-cache")
	http.ServeContent(w, r, "", time.Time{}, b)
	_ = b.Close() // only read from
}

// Why says in one line of ASCII why a release has nothing under a reference.
func Why(r *http.Request, rel Release, ref artifact.Ref) string {
	if e, ok := rel.(Explainer); ok && len(ref.Name) <= maxAskedName && len(ref.Version) <= maxAskedName {
		return e.Why(r.Context(), ref)
	}
	return NotHeld
}

// NotHeld is all that is said of what no name is known for.
const NotHeld = "it is not in this release"

// maxAskedName is the longest name or version that is looked up, in bytes.
const maxAskedName = 500

// NotFound answers that something is not here, and why, where a protocol has no form
// of its own for it.
func NotFound(w http.ResponseWriter, why string) {
	http.Error(w, "not found: "+why, http.StatusNotFound)
}

// NotFoundJSON answers that something is not here with a document that says why.
func NotFoundJSON(w http.ResponseWriter, doc any) {
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(http.StatusNotFound)
	// The client may be gone; there is nobody left to tell.
	_ = json.NewEncoder(w).Encode(doc)
}

// ServeText answers with text that the mirror made.
func ServeText(w http.ResponseWriter, contentType string, body []byte) {
	h := w.Header()
	h.Set("Content-Type", contentType)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Cache-Control", "no-cache")
	// The client may be gone; there is nobody left to tell.
	_, _ = w.Write(body)
}

// Base is the address that the client used for this mirror: its host, and what was
// taken off the path before the request came here. It ends in a slash.
func Base(r *http.Request) string {
	scheme := "http"
	if r.TLS != nil {
		scheme = "https"
	}
	prefix := ""
	if asked, err := url.ParseRequestURI(r.RequestURI); err == nil {
		prefix = strings.TrimSuffix(asked.EscapedPath(), r.URL.EscapedPath())
	}
	return scheme + "://" + r.Host + prefix + "/"
}
