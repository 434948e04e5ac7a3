package remote

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"enisle/internal/infer/engine"
	"enisle/internal/infer/openai"
)

// The servers below answer as the sources of each engine say; real ones are tried by
// 'make soak'.

// What an engine says of the length of a call is passed on, unless two admins said it.
func TestContextOfEngines(t *testing.T) {
	list := `{"data":[{"id":"m","max_model_len":2048},{"id":"n"}]}`
	v := begin(t, "vllm", said(map[string]string{"/health": "", "/v1/models": list}), engine.Model{ID: "m"}, engine.Model{ID: "n"}, engine.Model{ID: "o", Upstream: "m", Context: 512})
	if got := v.Models(); len(got) != 3 || got[0].Context != 2048 || got[1].Context != 0 || got[2].Context != 512 {
		t.Errorf("%+v", got)
	}
	e := begin(t, "tgi", said(map[string]string{"/info": `{"model_id":"m","max_total_tokens":4096}`}), engine.Model{ID: "m"})
	if got := e.Models(); len(got) != 1 || got[0].Context != 4096 {
		t.Errorf("%+v", got)
	}
}

// said is what a server answers on paths that are asked with GET.
func said(answers map[string]string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		a, ok := answers[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if status, body, ok := strings.Cut(a, "|"); ok {
			w.WriteHeader(map[string]int{"500": 500, "503": 503, "429": 429}[status])
			a = body
		}
		_, _ = io.WriteString(w, a)
	}
}

func begin(t *testing.T, kind string, h http.Handler, models ...engine.Model) *Engine {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	e, err := New(t.Context(), Options{Name: "x", Kind: kind, Models: models, Dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", s.Listener.Addr().String())
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	return e
}

func TestEachKindIsUnderstood(t *testing.T) {
	list := `{"object":"list","data":[{"id":"m","object":"model"},{"id":"other","object":"model"}]}`
	for name, tc := range map[string]struct {
		kind    string
		answers map[string]string
		model   engine.Model
		up      bool
		load    engine.Load
	}{
		"vllm": {
			"vllm",
			map[string]string{"/health": "", "/v1/models": list, "/metrics": "# HELP x\nvllm:num_requests_running{model_name=\"m\"} 3.0\nvllm:num_requests_waiting{model_name=\"m\"} 7.0\nvllm:num_requests_waiting_total 99\n"},
			engine.Model{ID: "m"},
			true,
			engine.Load{Running: 3, Waiting: 7},
		},
		"vllm under another name":     {"vllm", map[string]string{"/health": "", "/v1/models": list}, engine.Model{ID: "mine", Upstream: "other"}, true, engine.Load{}},
		"vllm without the model":      {"vllm", map[string]string{"/health": "", "/v1/models": list}, engine.Model{ID: "gone"}, false, engine.Load{}},
		"vllm that is not well":       {"vllm", map[string]string{"/health": "500|", "/v1/models": list}, engine.Model{ID: "m"}, false, engine.Load{}},
		"ollama":                      {"ollama", map[string]string{"/api/version": `{"version":"0.17.4"}`, "/api/tags": `{"models":[{"name":"m:latest","digest":"ab"}]}`}, engine.Model{ID: "m"}, true, engine.Load{}},
		"ollama, with its tag":        {"ollama", map[string]string{"/api/version": `{}`, "/api/tags": `{"models":[{"name":"m:135m"}]}`}, engine.Model{ID: "m", Upstream: "m:135m"}, true, engine.Load{}},
		"tgi whose queue is full":     {"tgi", map[string]string{"/health": "503|unhealthy", "/info": `{"model_id":"org/m"}`, "/metrics": "tgi_queue_size 12\ntgi_batch_current_size 4\n"}, engine.Model{ID: "m", Upstream: "org/m"}, true, engine.Load{Running: 4, Waiting: 12}},
		"llama.cpp's server":          {"llama-server", map[string]string{"/health": `{"status":"ok"}`, "/v1/models": list}, engine.Model{ID: "m"}, true, engine.Load{}},
		"llama.cpp's server, loading": {"llama-server", map[string]string{"/health": `503|{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}`, "/v1/models": list}, engine.Model{ID: "m"}, false, engine.Load{}},
		"no JSON":                     {"ollama", map[string]string{"/api/version": "<html>", "/api/tags": "<html>"}, engine.Model{ID: "m"}, false, engine.Load{}},
		"without end":                 {"ollama", map[string]string{"/api/version": "{}", "/api/tags": strings.Repeat("[", 5<<20)}, engine.Model{ID: "m"}, false, engine.Load{}},
	} {
		t.Run(name, func(t *testing.T) {
			e := begin(t, tc.kind, said(tc.answers), tc.model)
			if err := e.Health(t.Context()); (err == nil) != tc.up || err != nil && !errors.Is(err, engine.ErrDown) {
				t.Errorf("health: %v", err)
			}
			if got := e.Models(); (len(got) == 1 && got[0] == tc.model) != tc.up {
				t.Errorf("models: %v", got)
			}
			if l := e.Load(); l.Running != tc.load.Running || l.Waiting != tc.load.Waiting {
				t.Errorf("load: %+v, want %+v", l, tc.load)
			}
		})
	}
	for _, k := range Kinds() {
		if _, ok := kinds()[k]; !ok {
			t.Errorf("%s is listed and not known", k)
		}
	}
}

// An engine that goes and comes is noticed.
func TestEnginesComeAndGo(t *testing.T) {
	var sick atomic.Bool
	well := said(map[string]string{"/health": "", "/v1/models": `{"data":[{"id":"m"}]}`})
	e := begin(t, "vllm", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if sick.Load() {
			w.WriteHeader(500)
			return
		}
		well(w, r)
	}), engine.Model{ID: "m"})
	for _, is := range []bool{true, false, true} {
		sick.Store(!is)
		for end := time.Now().Add(3 * pollEvery); len(e.Models()) > 0 != is; time.Sleep(50 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("well is %v and was not noticed", is)
			}
		}
	}
}

// What an engine refuses has the shape and the status that clients of the API act on.
func TestRefusalsHaveOneShape(t *testing.T) {
	for name, tc := range map[string]struct {
		kind, body   string
		status, want int
		message      string
	}{
		"vllm":                {"vllm", `{"error":{"message":"too long","type":"BadRequestError","param":null,"code":400}}`, 400, 400, "too long"},
		"vllm of old":         {"vllm", `{"object":"error","message":"too long","type":"BadRequestError","code":400}`, 400, 400, "too long"},
		"ollama":              {"ollama", `{"error":"model not found"}`, 404, 404, "model not found"},
		"ollama that is busy": {"ollama", `{"error":"server busy, please try again.  maximum pending requests exceeded"}`, 503, 429, "server busy"},
		"tgi":                 {"tgi", `{"error":"Model is overloaded","error_type":"overloaded"}`, 429, 429, "overloaded"},
		"llama.cpp's server":  {"llama-server", `{"error":{"code":400,"message":"bad grammar","type":"invalid_request_error"}}`, 400, 400, "bad grammar"},
		"what it has not":     {"llama-server", `{"error":{"code":501,"message":"This server does not support embeddings.","type":"not_supported_error"}}`, 501, 404, "does not support"},
		"a page":              {"vllm", `<html>`, 502, 502, "refused"},
	} {
		t.Run(name, func(t *testing.T) {
			e := begin(t, tc.kind, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tc.status)
				_, _ = io.WriteString(w, tc.body)
			}))
			r, err := http.NewRequestWithContext(t.Context(), "POST", "http://engine/v1/chat/completions", strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			resp, err := e.Transport().RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			got := openai.ParseError(resp.StatusCode, b)
			if got == nil || resp.StatusCode != tc.want || !strings.Contains(got.Message, tc.message) || !json.Valid(b) {
				t.Errorf("%d %s, want %d with %q", resp.StatusCode, b, tc.want, tc.message)
			}
		})
	}
}

// An engine that is closed, since its model was recalled, says no more in answers that
// have begun.
func TestClosingEndsAnswers(t *testing.T) {
	h := func(w http.ResponseWriter, r *http.Request) {
		for r.Context().Err() == nil {
			_, _ = io.WriteString(w, "data: {}\n\n")
			_ = http.NewResponseController(w).Flush()
			time.Sleep(10 * time.Millisecond)
		}
	}
	e := begin(t, "vllm", http.HandlerFunc(h))
	r, err := http.NewRequestWithContext(t.Context(), "POST", "http://engine/v1/chat/completions", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := e.Transport().RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(io.Discard, resp.Body)
		ended <- err
	}()
	_ = e.Close()
	select {
	case err := <-ended:
		if err == nil {
			t.Error("the answer looks whole")
		}
	case <-time.After(5 * time.Second):
		t.Error("it goes on")
	}
	if _, err := e.Transport().RoundTrip(r); err == nil {
		t.Error("it is asked again")
	}
}

// Tenants are kept apart by what each engine has for it, and by nothing where it has
// nothing.
func TestTraits(t *testing.T) {
	for kind, want := range map[string]engine.Separation{"vllm": engine.Salted, "ollama": engine.Shared, "tgi": engine.Shared, "llama-server": engine.Uncached} {
		if got := kinds()[kind].traits; got.Separate != want || !slices.Contains(got.Paths, chatPath) || got.Parallel < 1 {
			t.Errorf("%s: %+v", kind, got)
		}
	}
}
