// Package gateway offers the chat API of package openai in front of engines.
//
// It reads requests strictly, forwards only fields it knows, counts tokens,
// bounds how much may be under way, and tells clients what went wrong in the
// shape their libraries understand. It never dials: an engine brings its own
// transport. It writes no prompt and no answer anywhere.
package gateway

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"enisle/internal/infer/engine"
	"enisle/internal/infer/openai"
)

// Call is one chat request as it is recorded: who and what is not in it.
type Call struct {
	ID       string // as in the answer's X-Request-Id
	Model    string
	Status   int // of the answer
	Outcome  Outcome
	Streamed bool
	Usage    openai.Usage // as far as the engine told
	Began    time.Time
	Duration time.Duration
}

// Outcome says how a call ended.
type Outcome string

// The outcomes.
const (
	Answered Outcome = "answered"
	Refused  Outcome = "refused" // by the gateway or the engine, before an answer began
	Broken   Outcome = "broken"  // the engine stopped in the middle
	Left     Outcome = "left"    // the client did
)

// Recorder is told of every call that named a model, after it ended. An error
// is logged; it can not undo the call.
type Recorder interface {
	Record(ctx context.Context, call Call) error
}

// Options say what is behind the gateway. Engines is needed; for the others
// the zero value works.
type Options struct {
	Engines    func() []engine.Engine // asked at every request; the first that serves a model gets it
	Recorder   Recorder
	Metrics    prometheus.Registerer
	MaxBody    int64         // bytes of a request; 0 means 4 MiB
	MaxCalls   int           // under way at a time, for each model; 0 means 64
	MaxTime    time.Duration // of one call; 0 means ten minutes
	Forward    []string      // further top-level fields that engines are given
	RetryAfter time.Duration // told to clients when no engine is up; 0 means five seconds
	Log        *slog.Logger
}

// forwarded are the top-level fields that engines are given. The rest of what
// clients send (user names, metadata, cache keys) stays here. Constant.
var forwarded = [...]string{
	"messages", "temperature", "top_p", "seed", "max_tokens", "max_completion_tokens", "stop", "n",
	"presence_penalty", "frequency_penalty", "logprobs", "top_logprobs", "logit_bias", "response_format",
	"tools", "tool_choice", "parallel_tool_calls",
}

type gateway struct {
	opt     Options
	forward map[string]bool
	metrics metrics

	mu       sync.Mutex
	underWay map[string]int // guarded by mu; calls by model
}

// New returns the handler of /v1/models, /v1/models/{id} and
// /v1/chat/completions. Other paths get an error in the same shape.
func New(opt Options) http.Handler {
	if opt.MaxBody <= 0 {
		opt.MaxBody = 4 << 20
	}
	if opt.MaxCalls <= 0 {
		opt.MaxCalls = 64
	}
	if opt.MaxTime <= 0 {
		opt.MaxTime = 10 * time.Minute
	}
	if opt.RetryAfter <= 0 {
		opt.RetryAfter = 5 * time.Second
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	g := &gateway{opt: opt, forward: map[string]bool{}, underWay: map[string]int{}, metrics: newMetrics(opt.Metrics, opt.Log)}
	for _, f := range append(forwarded[:], opt.Forward...) {
		g.forward[f] = true
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/models", only(http.MethodGet, g.models))
	mux.HandleFunc("/v1/models/{id...}", only(http.MethodGet, g.model))
	mux.HandleFunc("/v1/chat/completions", only(http.MethodPost, g.chat))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		openai.WriteError(w, openai.Errorf(http.StatusNotFound, "unknown_url", "there is nothing at this address"))
	})
	return mux
}

// only refuses other methods and names every request.
func only(method string, next func(http.ResponseWriter, *http.Request, string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id := "req_" + strings.ToLower(rand.Text())
		w.Header().Set("X-Request-Id", id)
		if r.Method != method && (method != http.MethodGet || r.Method != http.MethodHead) {
			w.Header().Set("Allow", method)
			openai.WriteError(w, openai.Errorf(http.StatusMethodNotAllowed, "method_not_allowed", "use %s here", method))
			return
		}
		next(w, r, id)
	}
}

func (g *gateway) models(w http.ResponseWriter, _ *http.Request, _ string) {
	list := openai.Models{Object: "list", Data: []openai.Model{}}
	seen := map[string]bool{}
	for _, e := range g.opt.Engines() {
		for _, m := range e.Models() {
			if !seen[m.ID] {
				seen[m.ID] = true
				list.Data = append(list.Data, shown(m))
			}
		}
	}
	writeJSON(w, list)
}

func (g *gateway) model(w http.ResponseWriter, r *http.Request, _ string) {
	id := r.PathValue("id")
	for _, e := range g.opt.Engines() {
		for _, m := range e.Models() {
			if m.ID == id {
				writeJSON(w, shown(m))
				return
			}
		}
	}
	openai.WriteError(w, unknownModel(id))
}

func shown(m engine.Model) openai.Model {
	return openai.Model{ID: m.ID, Object: "model", Created: m.Since.Unix(), OwnedBy: "enisle"}
}

func unknownModel(id string) *openai.Error {
	return openai.Errorf(http.StatusNotFound, "model_not_found", "the model %.100q does not exist here", id).On("model")
}

// serving returns the engines that serve a model.
func (g *gateway) serving(model string) (list []engine.Engine) {
	for _, e := range g.opt.Engines() {
		for _, m := range e.Models() {
			if m.ID == model {
				list = append(list, e)
				break
			}
		}
	}
	return list
}

// enter takes one of the places of a model; leave gives it back.
func (g *gateway) enter(model string) (leave func(), ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.underWay[model] >= g.opt.MaxCalls {
		return nil, false
	}
	g.underWay[model]++
	g.metrics.underWay.WithLabelValues(model).Inc()
	return func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if g.underWay[model]--; g.underWay[model] == 0 {
			delete(g.underWay, model)
		}
		g.metrics.underWay.WithLabelValues(model).Dec()
	}, true
}

// ended records and counts a call.
func (g *gateway) ended(ctx context.Context, c Call) {
	c.Duration = time.Since(c.Began)
	g.metrics.observe(c)
	g.opt.Log.InfoContext(ctx, "chat", "id", c.ID, "model", c.Model, "status", c.Status, "outcome", string(c.Outcome),
		"prompt_tokens", c.Usage.Prompt, "completion_tokens", c.Usage.Completion, "took", c.Duration)
	if g.opt.Recorder == nil {
		return
	}
	if err := g.opt.Recorder.Record(context.WithoutCancel(ctx), c); err != nil {
		g.opt.Log.ErrorContext(ctx, "call not recorded", "id", c.ID, "error", err)
	}
}

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		openai.WriteError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // the client may have gone
}
