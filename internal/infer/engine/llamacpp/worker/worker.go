//go:build !noengine

// Package worker is the confined child of package llamacpp: it loads
// llama.cpp and a model, and answers requests on the connections it is handed.
//
// It is the only package that links the binding of llama.cpp. It opens nothing
// but what its order names, and seals itself (sandbox.Seal) before it looks at
// the first byte of a model or a request.
package worker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/hybridgroup/yzma/pkg/llama"

	"enisle/internal/infer/engine/llamacpp"
	"enisle/internal/infer/openai"
	"enisle/internal/sandbox"
)

// maxBody is the longest request taken, in bytes; the gateway's limit is the same.
const maxBody = 4 << 20

// Run is what the hidden verb llamacpp.Verb calls with the arguments that
// follow it: the order as JSON. It returns when the parent is gone or ctx ends.
// It refuses to run where a network can be reached.
func Run(ctx context.Context, args []string) error {
	if len(args) != 1 {
		return fmt.Errorf("%s: want one argument", llamacpp.Verb)
	}
	var o llamacpp.Order
	if err := json.Unmarshal([]byte(args[0]), &o); err != nil {
		return fmt.Errorf("%s: order: %w", llamacpp.Verb, err)
	}
	level, err := sandbox.Unreachable()
	if err != nil {
		return fmt.Errorf("%s: %w", llamacpp.Verb, err)
	}
	listener, err := llamacpp.Listen(o.Control)
	if err != nil {
		return fmt.Errorf("%s: %w", llamacpp.Verb, err)
	}
	if err := loadLibraries(o.Dir); err != nil {
		return fmt.Errorf("%s: %w", llamacpp.Verb, err)
	}
	if err := sandbox.Seal(); err != nil {
		return fmt.Errorf("%s: %w", llamacpp.Verb, err)
	}
	m, err := loadModel(o)
	if err != nil {
		return fmt.Errorf("%s: %w", llamacpp.Verb, err)
	}
	defer m.close()
	h := newHandler(m, o, llamacpp.Report{Status: "ok", Context: m.context, Chat: m.template != "", Network: level})
	server := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, MaxHeaderBytes: 64 << 10}
	stop := context.AfterFunc(ctx, func() { _ = server.Close() }) // ends Serve below, which reports it
	defer stop()
	if err := server.Serve(listener); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("%s: %w", llamacpp.Verb, err)
	}
	return ctx.Err()
}

// handler answers requests, one at a time.
type handler struct {
	mux     *http.ServeMux
	model   *model
	name    string
	release string
	report  llamacpp.Report
	seats   chan struct{} // one for the running request and each that may wait
	turn    chan struct{} // held by the running request
}

func newHandler(m *model, o llamacpp.Order, report llamacpp.Report) *handler {
	h := &handler{
		mux: http.NewServeMux(), model: m, name: o.Name, release: o.Release, report: report,
		seats: make(chan struct{}, 1+o.Queue), turn: make(chan struct{}, 1),
	}
	h.mux.HandleFunc("GET /health", h.health)
	h.mux.HandleFunc("POST /v1/chat/completions", h.answers(true))
	h.mux.HandleFunc("POST /v1/completions", h.answers(false))
	h.mux.HandleFunc("POST /tokenize", h.tokenize)
	h.mux.HandleFunc("POST /detokenize", h.detokenize)
	return h
}

func (h *handler) ServeHTTP(w http.ResponseWriter, r *http.Request) { h.mux.ServeHTTP(w, r) }

func (h *handler) health(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(h.report) // whoever asked may have gone
}

// seated waits for the turn of a request and has it done. Without a seat for it, it is
// refused.
func (h *handler) seated(w http.ResponseWriter, r *http.Request, do func()) {
	select {
	case h.seats <- struct{}{}:
		defer func() { <-h.seats }()
	default:
		openai.WriteError(w, openai.Errorf(http.StatusTooManyRequests, "engine_overloaded",
			"the model is busy and %d requests wait already", cap(h.seats)-1).Retry(2*time.Second))
		return
	}
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
		if r.Context().Err() == nil { // both may have come at once
			do()
		}
	case <-r.Context().Done():
	}
}

// answers answers conversations, or continues texts.
func (h *handler) answers(chat bool) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		req, err := readRequest(http.MaxBytesReader(w, r.Body, maxBody), chat)
		if err != nil {
			openai.WriteError(w, err)
			return
		}
		h.seated(w, r, func() {
			a := &answer{w: w, req: req, id: newID(req), created: time.Now().Unix(), model: h.name, fingerprint: "llama.cpp-" + h.release}
			if err := h.generate(r.Context(), a); err != nil {
				a.fail(err)
			}
		})
	}
}

// generate runs the model for one request and answers it.
func (h *handler) generate(ctx context.Context, a *answer) error {
	prompts, param, err := h.prompts(a.req)
	if err != nil {
		return err
	}
	for _, p := range prompts { // before the first is answered
		if len(p) >= h.model.context {
			return openai.Errorf(http.StatusBadRequest, "context_length_exceeded",
				"the prompt has %d tokens and the model takes %d, prompt and answer together", len(p), h.model.context).On(param)
		}
	}
	var used openai.Usage
	for _, p := range prompts {
		room := h.model.context - len(p)
		if limit := a.req.limit(); limit > 0 {
			room = min(room, limit)
		}
		out := newText(a.req.Stop, a.add)
		n, ended, err := h.model.generate(ctx, p, room, a.req.sampling(), out.token)
		if err != nil {
			return err
		}
		stopped, err := out.flush()
		if err != nil {
			return err
		}
		reason := openai.FinishLength
		if ended || stopped {
			reason = openai.FinishStop
		}
		used.Prompt, used.Completion = used.Prompt+len(p), used.Completion+n
		if err := a.ended(reason); err != nil {
			return err
		}
	}
	used.Total = used.Prompt + used.Completion
	return a.finish(used)
}

// prompts returns the tokens of each, and the field that they come from.
func (h *handler) prompts(r *request) (all [][]llama.Token, param string, err error) {
	if r.chat() {
		p, err := h.model.prompt(r.Messages)
		return [][]llama.Token{p}, "messages", err
	}
	for _, text := range r.Prompts {
		if err := h.model.fits(len(text), "prompt"); err != nil {
			return nil, "prompt", err
		}
		p := h.model.tokens(text, true)
		if len(p) == 0 {
			return nil, "prompt", bad("prompt", "a prompt is empty")
		}
		all = append(all, p)
	}
	return all, "prompt", nil
}
