package ecosystemtest

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
)

// Mirror is a handler to be checked, and what is known of its release.
type Mirror struct {
	Handler http.Handler
	// Files are paths of released contents, with the content.
	Files map[string][]byte
	// Pages are paths that are answered, whatever with.
	Pages []string
	// Absent are paths that must not be found: names, versions and digests
	// that are not in the release, of other kinds above all.
	Absent []string
}

// Check runs the suite: contents with HEAD, ranges and entity tags; nothing
// that is not released; nothing but reading; no way out of the release.
func Check(t *testing.T, m Mirror) {
	t.Helper()
	for path, content := range m.Files {
		t.Run("content "+path, func(t *testing.T) { checkFile(t, m.Handler, path, content) })
	}
	for _, path := range m.Pages {
		t.Run("page "+path, func(t *testing.T) {
			if res, body := do(t, m.Handler, http.MethodGet, path, nil); res.StatusCode != http.StatusOK || len(body) == 0 {
				t.Errorf("status %d with %d bytes, want 200", res.StatusCode, len(body))
			}
			// The server drops what a handler writes in answer to HEAD.
			if res, _ := do(t, m.Handler, http.MethodHead, path, nil); res.StatusCode != http.StatusOK {
				t.Errorf("HEAD: status %d", res.StatusCode)
			}
		})
	}
	for _, path := range m.Absent {
		t.Run("absent "+path, func(t *testing.T) {
			if res, _ := do(t, m.Handler, http.MethodGet, path, nil); res.StatusCode != http.StatusNotFound {
				t.Errorf("status %d, want 404", res.StatusCode)
			}
		})
	}
	t.Run("it only reads", func(t *testing.T) { checkReadOnly(t, m) })
	t.Run("no path leads out", func(t *testing.T) { checkTraversal(t, m) })
}

func checkFile(t *testing.T, h http.Handler, path string, content []byte) {
	t.Helper()
	res, body := do(t, h, http.MethodGet, path, nil)
	if res.StatusCode != http.StatusOK || !bytes.Equal(body, content) {
		t.Fatalf("status %d with %d bytes, want 200 with %d", res.StatusCode, len(body), len(content))
	}
	etag := res.Header.Get("ETag")
	if !strings.HasPrefix(etag, `"`) {
		t.Errorf("entity tag %q, want a strong one", etag)
	}
	if head, body := do(t, h, http.MethodHead, path, nil); head.StatusCode != http.StatusOK || len(body) != 0 || head.ContentLength != int64(len(content)) {
		t.Errorf("HEAD: status %d, length %d with %d bytes", head.StatusCode, head.ContentLength, len(body))
	}
	half := len(content) / 2
	for rng, want := range map[string][]byte{
		"bytes=" + strconv.Itoa(half) + "-": content[half:], "bytes=0-0": content[:1], "bytes=-1": content[len(content)-1:],
	} {
		if part, body := do(t, h, http.MethodGet, path, http.Header{"Range": {rng}}); part.StatusCode != http.StatusPartialContent || !bytes.Equal(body, want) {
			t.Errorf("%s: status %d with %d bytes, want 206 with %d", rng, part.StatusCode, len(body), len(want))
		}
	}
	if part, _ := do(t, h, http.MethodGet, path, http.Header{"Range": {"bytes=" + strconv.Itoa(len(content)) + "-"}}); part.StatusCode != http.StatusRequestedRangeNotSatisfiable {
		t.Errorf("range past the end: status %d, want 416", part.StatusCode)
	}
	if again, body := do(t, h, http.MethodGet, path, http.Header{"If-None-Match": {etag}}); again.StatusCode != http.StatusNotModified || len(body) != 0 {
		t.Errorf("with its entity tag: status %d with %d bytes, want 304", again.StatusCode, len(body))
	}
	if other, _ := do(t, h, http.MethodGet, path, http.Header{"If-Range": {`"other"`}, "Range": {"bytes=0-0"}}); other.StatusCode != http.StatusOK {
		t.Errorf("a range of another content: status %d, want 200", other.StatusCode)
	}
	if kind := res.Header.Get("Content-Type"); strings.HasPrefix(kind, "text/html") || res.Header.Get("X-Content-Type-Options") != "nosniff" {
		t.Errorf("served as %q, a browser may render it", kind)
	}
}

func checkReadOnly(t *testing.T, m Mirror) {
	t.Helper()
	paths := append([]string{"/", "/nothing/here"}, m.Pages...)
	for path := range m.Files {
		paths = append(paths, path)
	}
	for _, path := range paths {
		for _, method := range []string{http.MethodPut, http.MethodDelete, http.MethodPatch} {
			res, _ := do(t, m.Handler, method, path, nil)
			if res.StatusCode != http.StatusMethodNotAllowed || !strings.Contains(res.Header.Get("Allow"), "GET") {
				t.Errorf("%s %s: status %d, Allow %q", method, path, res.StatusCode, res.Header.Get("Allow"))
			}
		}
	}
}

func checkTraversal(t *testing.T, m Mirror) {
	t.Helper()
	bases := []string{"/"}
	for path := range m.Files {
		bases = append(bases, path[:strings.LastIndexByte(path, '/')+1])
	}
	for _, base := range bases {
		for _, tail := range []string{
			"../../../../../../etc/passwd", "..%2f..%2f..%2f..%2fetc%2fpasswd", "%2e%2e/%2e%2e/etc/passwd", "..%5c..%5cetc%5cpasswd",
			"%00", "%2f%2fother.example/", "%2fetc%2fpasswd",
		} {
			res, body := do(t, m.Handler, http.MethodGet, base+tail, nil)
			if res.StatusCode == http.StatusOK && bytes.Contains(body, []byte("root:")) || res.StatusCode >= 500 {
				t.Errorf("%s: status %d", base+tail, res.StatusCode)
			}
			if to := res.Header.Get("Location"); strings.HasPrefix(to, "//") || strings.Contains(to, "://") || strings.Contains(to, `\`) {
				t.Errorf("%s: redirects to %q", base+tail, to)
			}
		}
	}
}

func do(t *testing.T, h http.Handler, method, path string, header http.Header) (*http.Response, []byte) {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), method, path, nil)
	for k, v := range header {
		req.Header[k] = v
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	res := w.Result()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return res, body
}
