package app

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/ecosystemtest"
)

// Where files came from is what the low site says: it does not make a plain file a page
// of a registry, and takes nothing away from the mirror.
func TestOriginsThatLieImpersonateNothing(t *testing.T) {
	var rel ecosystemtest.Release
	add := func(kind, name, version, origin, content string) {
		rel.Add(artifact.Ref{Kind: kind, Name: name, Version: version}, artifact.File{Path: "f.tgz", Origin: origin}, []byte(content))
	}
	add("npm", "left-pad", "1.3.0", "https://registry.example/left-pad/-/left-pad-1.3.0.tgz", "package")
	add("npm", "x", "1.0.0", "https://mirror.example/x/-/x-1.0.0.tgz", "package that lies about the mirror")
	add("files", "page", "", "https://registry.example/evil", "a page")
	add("files", "own", "", "https://mirror.example/npm/evil", "a page")
	add("files", "plain", "", "https://files.example/a/b.txt", "plain")
	add("files", "pattern", "", "https://*.example/c.txt", "pattern")
	a := &App{}
	ecosystems := a.ecosystems(nil, nil)
	mux := http.NewServeMux()
	handlers := map[string]http.Handler{}
	for _, e := range ecosystems {
		h, err := e.Handler(&rel)
		if err != nil {
			t.Fatal(err)
		}
		if h == nil {
			continue // another one shows it
		}
		handlers[e.Name()] = h
		prefix := "/" + ecosystem.PrefixOf(e)
		mux.Handle(prefix+"/", http.StripPrefix(prefix, h))
	}
	h := impersonate(mux, &rel, ecosystems, handlers)
	for url, want := range map[string]int{
		"https://registry.example/left-pad/-/left-pad-1.3.0.tgz": 200,
		"https://registry.example/evil":                          404,
		"https://mirror.example/npm/evil":                        404,
		"https://mirror.example/npm/left-pad/-/f.tgz":            200, // the mirror itself, whatever the origins say
		"https://mirror.example/nothing/here":                    404,
		"https://files.example/a/b.txt":                          200,
		"https://files.example/a/c.txt":                          404,
		"https://other.example/npm/left-pad/-/f.tgz":             200,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, url, nil))
		if b, _ := io.ReadAll(w.Body); w.Code != want {
			t.Errorf("%s: %d, want %d: %.80s", url, w.Code, want, b)
		}
	}
	for host := range h.(impersonation).hosts {
		if host == "*.example" {
			t.Error("a pattern is taken for a host")
		}
	}
}
