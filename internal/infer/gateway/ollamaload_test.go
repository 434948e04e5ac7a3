package gateway_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"enisle/internal/infer/gateway"
)

// Clients of Ollama ask nothing to have a model loaded or unloaded: no engine is asked.
// What changes models is answered in their shape, raw prompts are continued, and the older
// way to ask for embeddings is known.
func TestOllamaBesideChat(t *testing.T) {
	seen := ""
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		seen = r.URL.Path + " " + string(b)
		answer := `{"model":"m","choices":[{"index":0,"text":" of land","finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}`
		if r.URL.Path == "/v1/embeddings" {
			answer = `{"object":"list","model":"m","data":[{"index":0,"embedding":[0.5,1]}],"usage":{"prompt_tokens":1,"total_tokens":1}}`
		}
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, answer)
	}, "m")
	f.traits.Paths = []string{"/v1/completions", "/v1/embeddings"}
	s := serve(t, gateway.Options{}, f)
	for name, tc := range map[string]struct {
		path, body string
		status     int
		want, asks string // asks: what the engine sees, "" if nothing
	}{
		"an empty prompt loads":         {"/api/generate", `{"model":"m"}`, 200, `"response":"","done":true,"done_reason":"load"`, ""},
		"no message loads":              {"/api/chat", `{"model":"m:latest","messages":[]}`, 200, `"done_reason":"load"`, ""},
		"to keep it no time unloads":    {"/api/generate", `{"model":"m","prompt":"","keep_alive":0}`, 200, `"done_reason":"unload"`, ""},
		"the same as a duration":        {"/api/chat", `{"model":"m","keep_alive":"0s"}`, 200, `"done_reason":"unload"`, ""},
		"a model that is not here":      {"/api/generate", `{"model":"gpt-4o"}`, 404, `{"error":"the model \"gpt-4o\" is not on this island`, ""},
		"pulling is for releases":       {"/api/pull", `{"model":"m"}`, 501, `{"error":"models come here by a release`, ""},
		"a raw prompt is continued":     {"/api/generate", `{"model":"m","prompt":"A piece","raw":true,"stream":false}`, 200, `"response":" of land"`, `/v1/completions {"max_tokens":null,"model":"m","prompt":"A piece"`},
		"the older way of embeddings":   {"/api/embeddings", `{"model":"m","prompt":"x"}`, 200, `{"embedding":[0.5,1]}`, `/v1/embeddings {"input":"x"`},
		"what a model can take is told": {"/api/show", `{"model":"m"}`, 200, `"general.context_length":`, ""},
	} {
		t.Run(name, func(t *testing.T) {
			seen = ""
			status, got := postTo(t, s.URL+tc.path, tc.body)
			if status != tc.status || !strings.Contains(got, tc.want) {
				t.Errorf("%d %s, want %d %s", status, got, tc.status, tc.want)
			}
			if tc.asks == "" && seen != "" || !strings.HasPrefix(seen, tc.asks) {
				t.Errorf("the engine saw %q, want %q", seen, tc.asks)
			}
		})
	}
}

// That a prompt was too long is said in the code that clients know, whichever engine says it.
func TestTooLongIsToldInOneWay(t *testing.T) {
	s := serve(t, gateway.Options{}, newFake(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"error":{"code":400,"message":"request (15 tokens) exceeds the available context size (8 tokens)","type":"exceed_context_size_error"}}`)
	}, "m"))
	if status, got := postTo(t, s.URL+"/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"hello"}]}`); status != 400 || !strings.Contains(got, `"code":"context_length_exceeded"`) {
		t.Errorf("%d %s", status, got)
	}
}

// A model that is being loaded is not said to be missing: clients ask again. Who may not
// ask it learns nothing.
func TestModelsThatAreBeingLoaded(t *testing.T) {
	user := gateway.User{}
	s := serve(t, gateway.Options{Coming: func() []string { return []string{"big"} }, Who: func(*http.Request) gateway.User { return user }}, newFake(t, whole, "m"))
	const ask = `{"model":"big","messages":[{"role":"user","content":"hello"}]}`
	resp, got := post(t, s, ask)
	if resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || !strings.Contains(got, `"code":"engine_loading"`) {
		t.Errorf("%d %v %s", resp.StatusCode, resp.Header, got)
	}
	if status, got := postTo(t, s.URL+"/api/chat", `{"model":"big"}`); status != 503 || !strings.Contains(got, "is being loaded") {
		t.Errorf("%d %s", status, got)
	}
	user = gateway.User{Name: "ada", Models: []string{"m"}}
	if resp, got := post(t, s, ask); resp.StatusCode != 404 {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
}

// An engine that cannot read pictures is not asked again for them.
func TestModelsThatReadNoPictures(t *testing.T) {
	s := serve(t, gateway.Options{}, newFake(t, func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.WriteHeader(http.StatusInternalServerError)
		_, _ = io.WriteString(w, `{"error":{"code":500,"message":"image input is not supported - hint: if this is unexpected, you may need to provide the mmproj","type":"server_error"}}`)
	}, "m"))
	if status, got := postTo(t, s.URL+"/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"hello"}]}`); status != 400 || !strings.Contains(got, "the model m reads no pictures") {
		t.Errorf("%d %s", status, got)
	}
}

// What is told of an engine is told by its name, which stays when others come and go.
func TestMetricsNameEngines(t *testing.T) {
	reg := prometheus.NewRegistry()
	named, other := newFake(t, whole, "m"), newFake(t, whole, "o")
	named.traits.Name = "gpu1"
	serve(t, gateway.Options{Metrics: reg}, other, named)
	w := httptest.NewRecorder()
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest("GET", "/metrics", nil))
	for _, want := range []string{`enisle_engine_calls{engine="gpu1",kind="",model="m"} 0`, `enisle_engine_calls{engine="0",kind="",model="o"} 0`} {
		if !strings.Contains(w.Body.String(), want) {
			t.Errorf("%s is missing: %s", want, w.Body)
		}
	}
}
