package pypi

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem/ecosystemtest"
)

// BenchmarkIndexOf200000Files asks an index of 4,000 projects with 50 wheels each for a
// page that nobody asked for before, and for one that is known.
func BenchmarkIndexOf200000Files(b *testing.B) {
	const projects, each = 4000, 50
	rel := &ecosystemtest.Release{}
	for p := range projects {
		for v := range each {
			name, version := fmt.Sprintf("project_%d", p), fmt.Sprintf("1.%d", v)
			file, content, err := ecosystemtest.Wheel(name, version, "Requires-Python: >=3.9\n")
			if err != nil {
				b.Fatal(err)
			}
			rel.Add(artifact.Ref{Kind: Kind, Name: Normalise(name), Version: version}, artifact.File{Path: file}, content)
		}
	}
	began := time.Now()
	h, err := New(Options{}).Handler(rel)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(time.Since(began).Milliseconds()), "ms/start")
	ask := func(path string) time.Duration {
		began := time.Now()
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, path, nil)
		r.Header.Set("Accept", jsonType)
		h.ServeHTTP(w, r)
		if w.Code != http.StatusOK {
			b.Fatalf("%s: %d", path, w.Code)
		}
		return time.Since(began)
	}
	var first, again, list time.Duration
	n := 0
	for b.Loop() {
		page := fmt.Sprintf("/simple/project-%d/", n%projects)
		first += ask(page)
		again += ask(page)
		list += ask("/simple/")
		n++
	}
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 / float64(n) }
	b.ReportMetric(ms(first), "ms/first")
	b.ReportMetric(ms(again), "ms/again")
	b.ReportMetric(ms(list), "ms/list")
}
