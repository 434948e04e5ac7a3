package gateway

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"enisle/internal/infer/openai"
)

// Clients of Ollama speak a protocol of their own (its docs/api.md). What they ask is put
// into the shape of the OpenAI API, goes the way of every call, and its answer is put
// back, line by line. What creates, pulls or removes models has no place here.

// ollamaAnswer is one line of an answer.
type ollamaAnswer struct {
	Model    string         `json:"model"`
	Created  time.Time      `json:"created_at"`
	Message  *ollamaMessage `json:"message,omitempty"`
	Response *string        `json:"response,omitempty"` // of generate
	Thought  string         `json:"thinking,omitempty"` // of generate
	Logprobs []any          `json:"logprobs,omitempty"` // as in the OpenAI API
	Done     bool           `json:"done"`
	Reason   string         `json:"done_reason,omitempty"`
	Total    time.Duration  `json:"total_duration,omitempty"` // nanoseconds
	Prompt   int            `json:"prompt_eval_count,omitempty"`
	Count    int            `json:"eval_count,omitempty"`
}

func (g *gateway) ollama(mux *http.ServeMux, api http.Handler) {
	get := func(path string, do func(r *http.Request) any) {
		mux.HandleFunc("GET "+path, func(w http.ResponseWriter, r *http.Request) { writeJSON(w, do(r)) })
	}
	get("/api/version", func(*http.Request) any { return map[string]string{"version": "0.17.4"} })
	get("/api/tags", func(r *http.Request) any { return map[string]any{"models": g.ollamaModels(r)} })
	get("/api/ps", func(r *http.Request) any { return map[string]any{"models": g.ollamaModels(r)} })
	for _, path := range unreleased() {
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
			ollamaError(w, http.StatusNotImplemented, "models come here by a release, and end by a recall: nothing is pulled, made or removed by clients")
		})
	}
	mux.HandleFunc("POST /api/show", func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Model string `json:"model"`
			Name  string `json:"name"` // as older clients call it
		}
		part := share{of: &g.room}
		defer part.free()
		b, err := g.upload(w, r, &part)
		if err != nil || json.Unmarshal(b, &q) != nil {
			ollamaError(w, http.StatusBadRequest, "the request cannot be read")
			return
		}
		for _, m := range g.ollamaModels(r) {
			if name := strings.TrimSuffix(q.Model+q.Name, ":latest"); m["name"] == name {
				writeJSON(w, map[string]any{"details": m["details"], "model_info": map[string]any{"general.name": name, "general.context_length": m["context_length"]}, "capabilities": []string{"completion"}, "modified_at": m["modified_at"]})
				return
			}
		}
		ollamaError(w, http.StatusNotFound, "model '"+q.Model+q.Name+"' not found")
	})
	for path, to := range map[string]string{
		"/api/chat": "/v1/chat/completions", "/api/generate": "/v1/chat/completions", "/api/embed": "/v1/embeddings", "/api/embeddings": "/v1/embeddings",
	} {
		mux.HandleFunc("POST "+path, func(w http.ResponseWriter, r *http.Request) { g.ollamaCall(w, r, api, to) })
	}
}

func ollamaError(w http.ResponseWriter, status int, message string) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(map[string]string{"error": message}) // the client may have gone
}

func (g *gateway) ollamaModels(r *http.Request) []map[string]any {
	out := []map[string]any{}
	for _, m := range g.list(g.opt.Who(r)) {
		digest := strings.TrimPrefix(m.Weights, "sha256:")
		out = append(out, map[string]any{
			"name": m.ID, "model": m.ID, "modified_at": time.Unix(m.Created, 0).UTC(), "digest": digest, "size": m.Size, "context_length": m.Context,
			"details": map[string]any{"format": "", "family": "", "families": []string{}, "parameter_size": "", "quantization_level": ""},
		})
	}
	return out
}

// ollamaCall has a request answered by the API.
func (g *gateway) ollamaCall(w http.ResponseWriter, r *http.Request, api http.Handler, to string) {
	if m := g.opt.Shape.Mode; (m == Pad || m == Constant) && to != "/v1/embeddings" {
		ollamaError(w, http.StatusNotImplemented, "this site hides how long answers are, which this protocol cannot: ask "+to)
		return
	}
	part := share{of: &g.room}
	defer part.free()
	b, err := g.upload(w, r, &part)
	var tooLong *http.MaxBytesError
	switch {
	case errors.Is(err, errNoRoom):
		ollamaError(w, http.StatusServiceUnavailable, "the gateway holds as many requests as it may")
		return
	case errors.As(err, &tooLong):
		ollamaError(w, http.StatusRequestEntityTooLarge, "the request is too long")
		return
	}
	var q ollamaRequest
	if err == nil {
		err = json.Unmarshal(b, &q)
	}
	if err != nil {
		ollamaError(w, http.StatusBadRequest, "the request cannot be read")
		return
	}
	q.Model = strings.TrimSuffix(q.Model, ":latest")
	if q.asksNothing(r.URL.Path) {
		g.ollamaLoad(w, r, q)
		return
	}
	if q.Raw && r.URL.Path == "/api/generate" {
		to = "/v1/completions"
	}
	if err := q.refused(r.URL.Path); err != nil {
		ollamaError(w, http.StatusBadRequest, err.Error())
		return
	}
	body, err := q.translated(r.URL.Path)
	if err != nil {
		ollamaError(w, http.StatusBadRequest, "the request cannot be read")
		return
	}
	in := r.Clone(r.Context())
	in.URL.Path, in.RequestURI = to, to
	in.Body, in.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	in.Header.Set("Content-Type", "application/json")
	out := &ollamaWriter{w: w, q: q, path: r.URL.Path, began: time.Now(), header: http.Header{}, part: &part}
	api.ServeHTTP(out, in)
	if out.streams() {
		return
	}
	// As everywhere, a client is given time to take the answer, and no more.
	rc := http.NewResponseController(w)
	if supported(rc.SetWriteDeadline(time.Now().Add(g.opt.MaxStall))) != nil {
		return // it has gone
	}
	out.end()
	if rc.Flush() == nil {
		_ = rc.SetWriteDeadline(time.Time{}) // a connection that is gone has no next
	}
}

// ollamaWriter turns an answer of the API into one of Ollama while it comes.
type ollamaWriter struct {
	w      http.ResponseWriter
	q      ollamaRequest
	path   string
	began  time.Time
	header http.Header
	status int
	rest   []byte // of a stream: what is no whole line yet; else all of the answer
	part   *share // of the memory of all calls, for rest
	full   bool   // there was no more of it
	calls  map[int]*ollamaTool
	usage  openai.Usage
	reason string
}

type ollamaTool struct {
	name      string
	arguments []byte
}

func (o *ollamaWriter) Header() http.Header { return o.header }

func (o *ollamaWriter) WriteHeader(status int) {
	if o.status != 0 {
		return
	}
	o.status = status
	if o.streams() {
		o.w.Header().Set("Content-Type", "application/x-ndjson")
		o.w.WriteHeader(status)
	}
}

func (o *ollamaWriter) streams() bool {
	return o.status == http.StatusOK && strings.HasPrefix(o.header.Get("Content-Type"), "text/event-stream")
}

// Unwrap lets http.ResponseController reach the real writer.
func (o *ollamaWriter) Unwrap() http.ResponseWriter { return o.w }

// FlushError sends what was written of a stream; any other answer is written at its end.
func (o *ollamaWriter) FlushError() error {
	if !o.streams() {
		return nil
	}
	return http.NewResponseController(o.w).Flush()
}

func (o *ollamaWriter) Write(b []byte) (int, error) {
	if o.WriteHeader(http.StatusOK); !o.streams() {
		if o.full = o.full || o.part.take(len(b)) != nil; o.full {
			return 0, errNoRoom
		}
		o.rest = append(o.rest, b...)
		return len(b), nil
	}
	o.rest = append(o.rest, b...)
	rest := o.rest
	for {
		line, more, ok := bytes.Cut(rest, []byte("\n"))
		if !ok {
			o.rest = append(o.rest[:0], rest...)
			return len(b), nil
		}
		if data, ok := bytes.CutPrefix(bytes.TrimRight(line, "\r"), []byte("data: ")); ok {
			if err := o.event(data); err != nil {
				return len(b), err
			}
		}
		rest = more
	}
}

// chunk is what is read of an event or an answer.
type chunk struct {
	Choices []struct {
		Message piecesOf `json:"message"`
		Delta   piecesOf `json:"delta"`
		Text    string   `json:"text"` // of a prompt that is continued
		Finish  string   `json:"finish_reason"`
		Probs   struct {
			Content []any `json:"content"`
		} `json:"logprobs"`
	} `json:"choices"`
	Usage *openai.Usage `json:"usage"`
	Error *openai.Error `json:"error"`
	Data  []struct {
		Embedding json.RawMessage `json:"embedding"`
	} `json:"data"`
}

type piecesOf struct {
	Content string `json:"content"`
	Thought string `json:"reasoning_content"` // of llama.cpp's server
	Reason  string `json:"reasoning"`         // of vLLM and Ollama
	Calls   []struct {
		Index    int `json:"index"`
		Function struct {
			Name      string `json:"name"`
			Arguments string `json:"arguments"`
		} `json:"function"`
	} `json:"tool_calls"`
}

// ollamaPiece is what a chunk says.
type ollamaPiece struct {
	text, thought string
	probs         []any
}

// take reads counts, calls and the reason to end, and returns the rest.
func (o *ollamaWriter) take(c chunk) (p ollamaPiece) {
	if c.Usage != nil {
		o.usage = *c.Usage
	}
	for _, choice := range c.Choices {
		p.text += choice.Message.Content + choice.Delta.Content + choice.Text
		for _, m := range []piecesOf{choice.Message, choice.Delta} {
			p.thought += cmp.Or(m.Thought, m.Reason)
		}
		p.probs = append(p.probs, choice.Probs.Content...)
		if choice.Finish != "" {
			o.reason = choice.Finish
		}
		for n, call := range append(choice.Message.Calls, choice.Delta.Calls...) {
			if o.calls == nil {
				o.calls = map[int]*ollamaTool{}
			}
			at := max(call.Index, n)
			if o.calls[at] == nil {
				o.calls[at] = &ollamaTool{}
			}
			o.calls[at].name += call.Function.Name
			o.calls[at].arguments = append(o.calls[at].arguments, call.Function.Arguments...)
		}
	}
	return p
}

func (o *ollamaWriter) event(data []byte) error {
	if string(data) == "[DONE]" {
		return o.line(o.answer(ollamaPiece{}, true))
	}
	var c chunk
	if json.Unmarshal(data, &c) != nil {
		return nil // a comment in another shape
	}
	if c.Error != nil {
		return o.line(map[string]string{"error": c.Error.Message})
	}
	if p := o.take(c); p.text != "" || p.thought != "" {
		return o.line(o.answer(p, false))
	}
	return nil
}

func (o *ollamaWriter) answer(p ollamaPiece, done bool) ollamaAnswer {
	a := ollamaAnswer{Model: o.q.Model, Created: time.Now().UTC(), Done: done, Logprobs: p.probs}
	if o.path == "/api/generate" {
		a.Response, a.Thought = &p.text, p.thought
	} else {
		a.Message = &ollamaMessage{Role: "assistant", Content: p.text, Thought: p.thought}
	}
	if !done {
		return a
	}
	if a.Reason = o.reason; a.Reason == "" || a.Reason == "tool_calls" {
		a.Reason = "stop"
	}
	a.Total, a.Prompt, a.Count = time.Since(o.began), o.usage.Prompt, o.usage.Completion
	if a.Message != nil && len(o.calls) > 0 {
		var calls []any
		for _, i := range slices.Sorted(maps.Keys(o.calls)) {
			c := o.calls[i]
			arguments := json.RawMessage(c.arguments)
			if !json.Valid(arguments) {
				arguments = json.RawMessage("{}")
			}
			calls = append(calls, map[string]any{"function": map[string]any{"name": c.name, "arguments": arguments}})
		}
		a.Message.Calls, _ = json.Marshal(calls) // valid JSON was put in
	}
	return a
}

func (o *ollamaWriter) line(v any) error {
	b, err := json.Marshal(v)
	if err == nil {
		_, err = o.w.Write(append(b, '\n'))
	}
	return err
}

// end writes an answer that did not stream.
func (o *ollamaWriter) end() {
	for _, name := range []string{"Retry-After", "X-Request-Id"} {
		if v := o.header.Get(name); v != "" {
			o.w.Header().Set(name, v)
		}
	}
	if o.full {
		ollamaError(o.w, http.StatusServiceUnavailable, "the gateway holds as many requests and answers as it may")
		return
	}
	var c chunk
	if o.status != http.StatusOK {
		message := "the model cannot be asked"
		if e := openai.ParseError(o.status, o.rest); e != nil {
			message = e.Message
		}
		ollamaError(o.w, max(o.status, http.StatusBadRequest), message)
		return
	}
	if json.Unmarshal(o.rest, &c) != nil {
		ollamaError(o.w, http.StatusBadGateway, "the engine's answer cannot be read")
		return
	}
	if o.path == "/api/embed" {
		all := []json.RawMessage{}
		for _, d := range c.Data {
			all = append(all, d.Embedding)
		}
		writeJSON(o.w, map[string]any{"model": o.q.Model, "embeddings": all})
		return
	}
	if o.path == "/api/embeddings" && len(c.Data) > 0 {
		writeJSON(o.w, map[string]any{"embedding": c.Data[0].Embedding})
		return
	}
	writeJSON(o.w, o.answer(o.take(c), true))
}
