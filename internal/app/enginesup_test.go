package app

import (
	"io"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"enisle/internal/infer/engine"
	"enisle/internal/site/trust"
)

// Until an engine is up, its models are being loaded, by the names that clients know.
func TestModelsAreComingUntilTheirEngineIsUp(t *testing.T) {
	small := pair{name: "small"}
	big := pair{name: "gpu1", at: &trust.EngineAddress{Name: "gpu1"}, models: []engine.Model{{ID: "big", Upstream: "Org/Big"}}}
	e := &engines{wanted: map[string][]string{"a": small.serves(), "b": big.serves()}, running: map[string]*runningEngine{"a": {}}}
	if got := e.coming(); !slices.Equal(got, []string{"big"}) {
		t.Errorf("coming are %v", got)
	}
}

// Answers are counted by the number of their status, as calls are.
func TestAnswersAreCountedByNumber(t *testing.T) {
	m := newMetrics(nil)
	m.count("api", 404)
	w := httptest.NewRecorder()
	m.handler().ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	if b, err := io.ReadAll(w.Body); err != nil || !strings.Contains(string(b), `enisle_http_answers_total{path="api",status="404"} 1`) {
		t.Errorf("%v: %s", err, b)
	}
}
