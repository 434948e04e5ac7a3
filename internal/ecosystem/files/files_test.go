package files

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem/ecosystemtest"
)

func TestTheMirrorConforms(t *testing.T) {
	rel, content := &ecosystemtest.Release{}, []byte("<script>alert(1)</script>")
	add := func(kind, name, file string) {
		rel.Add(artifact.Ref{Kind: kind, Name: name}, artifact.File{Path: file}, content)
	}
	add(Kind, "page.html", "page.html")
	add(Kind, "Übersicht.pdf", "Übersicht.pdf")
	add("kb", "handbook", "handbook.pdf")
	h, err := Ecosystem{}.Handler(rel)
	if err != nil {
		t.Fatal(err)
	}
	ecosystemtest.Check(t, ecosystemtest.Mirror{
		Handler: h, Files: map[string][]byte{"/page.html": content, "/%C3%9Cbersicht.pdf": content}, Pages: []string{"/"},
		Absent: []string{"/handbook", "/handbook.pdf", "/page", "/page.html/", "//page.html"},
	})
	for path, want := range map[string]string{
		"/page.html": "attachment; filename=page.html", "/%C3%9Cbersicht.pdf": "attachment; filename*=utf-8''%C3%9Cbersicht.pdf",
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
		if got := w.Header().Get("Content-Disposition"); got != want {
			t.Errorf("%s: disposition %q, want %q", path, got, want)
		}
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
	if got := w.Body.String(); strings.Count(got, "\n") != 2 || !strings.Contains(got, "  page.html\n") || strings.Contains(got, "handbook") {
		t.Errorf("the listing says\n%s", got)
	}
}
