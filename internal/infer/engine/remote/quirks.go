package remote

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"enisle/internal/infer/engine"
	"enisle/internal/infer/openai"
)

// quirks are what is particular to one kind of engine.
type quirks struct {
	traits engine.Traits
	// state asks what models it has, with the tokens that a call may have (0: it does not
	// say), and how much it has to do; an error means that a request sent now would fail.
	state func(ctx context.Context, e *Engine) (has map[string]int, load engine.Load, err error)
	// message reads its own shape of errors; empty: it is not that.
	message func(body []byte) string
}

const (
	chatPath        = "/v1/chat/completions"
	completionsPath = "/v1/completions"
	embeddingsPath  = "/v1/embeddings"
	maxRefusal      = 64 << 10 // bytes
)

// Kinds lists the kinds that are known.
func Kinds() []string { return []string{"vllm", "ollama", "tgi", "llama-server"} }

func kinds() map[string]quirks {
	return map[string]quirks{
		// vLLM: cache_salt is mixed into the keys of the prefix cache; without it tenants
		// can tell by timing what others asked (CVE-2025-46570). priority, the
		// transfer of caches and the template that puts prompts together are for the
		// site to say.
		"vllm": {
			traits: engine.Traits{
				Paths:    []string{chatPath, completionsPath, embeddingsPath, "/v1/responses", "/v1/messages", "/v1/rerank", "/rerank", "/tokenize", "/detokenize"},
				Parallel: 64, Separate: engine.Salted, Owned: []string{"priority", "kv_transfer_params", "ec_transfer_params", "request_id", "session_id", "vllm_xargs", "chat_template", "mm_processor_kwargs", "media_io_kwargs"},
			},
			state: func(ctx context.Context, e *Engine) (map[string]int, engine.Load, error) {
				if err := e.ask(ctx, "/health", nil); err != nil {
					return nil, engine.Load{}, err
				}
				models, err := e.listed(ctx)
				return models, e.scraped(ctx, "vllm:num_requests_running", "vllm:num_requests_waiting"), err
			},
			message: flat("message"),
		},
		// Ollama: /api/tags has what is there and /api/ps what is loaded. It works on one
		// call at a time unless it is told otherwise, says 503 when its queue is full, and
		// has no field that keeps its cache from being shared.
		"ollama": {
			traits: engine.Traits{
				Paths:    []string{chatPath, completionsPath, embeddingsPath, "/v1/responses", "/v1/messages"},
				Parallel: 1, Separate: engine.Shared, Owned: []string{"keep_alive"},
			},
			state: func(ctx context.Context, e *Engine) (map[string]int, engine.Load, error) {
				var tags struct {
					Models []struct {
						Name string `json:"name"`
					} `json:"models"`
				}
				if err := e.ask(ctx, "/api/version", nil); err != nil {
					return nil, engine.Load{}, err
				}
				err := e.ask(ctx, "/api/tags", &tags)
				has := map[string]int{}
				for _, m := range tags.Models {
					has[m.Name] = 0
					if short, ok := strings.CutSuffix(m.Name, ":latest"); ok {
						has[short] = 0
					}
				}
				return has, engine.Load{}, err
			},
			message: flat("error"),
		},
		// TGI: /health fails when its queue is full, so it says nothing of its life;
		// /info does.
		"tgi": {
			traits: engine.Traits{
				Paths:    []string{chatPath, completionsPath},
				Parallel: 32, Separate: engine.Shared,
			},
			state: func(ctx context.Context, e *Engine) (map[string]int, engine.Load, error) {
				var info struct {
					Model   string `json:"model_id"`
					Context int    `json:"max_total_tokens"`
				}
				err := e.ask(ctx, "/info", &info)
				return map[string]int{info.Model: info.Context, "tgi": info.Context}, e.scraped(ctx, "tgi_batch_current_size", "tgi_queue_size"), err
			},
			message: flat("error"),
		},
		// llama.cpp's server: /health is 503 while a model loads; with cache_prompt false
		// it compares a prompt with no other's; id_slot would let a client choose one, and
		// lora other weights than those that are on record.
		"llama-server": {
			traits: engine.Traits{
				Paths:    []string{chatPath, completionsPath, embeddingsPath, "/v1/responses", "/v1/messages", "/v1/rerank", "/rerank", "/tokenize", "/detokenize"},
				Parallel: 1, Separate: engine.Uncached, Owned: []string{"id_slot", "slot_id", "save_slot", "lora"},
			},
			state: func(ctx context.Context, e *Engine) (map[string]int, engine.Load, error) {
				if err := e.ask(ctx, "/health", nil); err != nil {
					return nil, engine.Load{}, err
				}
				models, err := e.listed(ctx)
				return models, e.scraped(ctx, "llamacpp:requests_processing", "llamacpp:requests_deferred"), err
			},
			message: flat("message"),
		},
	}
}

// flat reads errors of one level, as all of these servers have had them at some time.
func flat(field string) func([]byte) string {
	return func(b []byte) string {
		var m map[string]json.RawMessage
		var s string
		if json.Unmarshal(b, &m) == nil {
			_ = json.Unmarshal(m[field], &s) // of another type: not that shape
		}
		return s
	}
}

// listed asks for the list of models; vLLM says how long a call may be.
func (e *Engine) listed(ctx context.Context) (has map[string]int, err error) {
	var list struct {
		Data []struct {
			ID      string `json:"id"`
			Context int    `json:"max_model_len"`
		} `json:"data"`
	}
	err = e.ask(ctx, "/v1/models", &list)
	has = map[string]int{}
	for _, m := range list.Data {
		has[m.ID] = m.Context
	}
	return has, err
}

// scraped reads two numbers of the engine's metrics, which it need not have.
func (e *Engine) scraped(ctx context.Context, running, waiting string) (l engine.Load) {
	b, err := e.get(ctx, "/metrics")
	if err != nil {
		return l
	}
	read := func(line, name string, into *int) {
		rest, ok := strings.CutPrefix(line, name)
		if !ok || rest == "" || rest[0] != '{' && rest[0] != ' ' {
			return
		}
		if v, err := strconv.ParseFloat(rest[strings.LastIndexByte(rest, ' ')+1:], 64); err == nil && v >= 0 && v < 1e9 {
			*into += int(v)
			l.At = time.Now()
		}
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		read(s.Text(), running, &l.Running)
		read(s.Text(), waiting, &l.Waiting)
	}
	return l
}

// refusal gives an error the shape of the API, and the status that clients act on:
// what is busy is 429, whatever this engine says for it, and what it does not offer is
// 404, since it will never be there and says nothing of the engine's health.
func (q quirks) refusal(resp *http.Response) (*http.Response, error) {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	if err = errors.Join(err, resp.Body.Close()); err != nil {
		return nil, err
	}
	e := openai.ParseError(resp.StatusCode, b)
	if e == nil || e.Message == "" {
		if m := q.message(b); m != "" {
			e = openai.Errorf(resp.StatusCode, "engine_refused", "%s", m)
		}
	}
	if e == nil {
		e = openai.Errorf(resp.StatusCode, "engine_refused", "the engine refused the request")
	}
	text := strings.ToLower(e.Message)
	if resp.StatusCode == http.StatusServiceUnavailable && (strings.Contains(text, "busy") || strings.Contains(text, "overloaded") || strings.Contains(text, "pending requests")) {
		resp.StatusCode = http.StatusTooManyRequests
	}
	if resp.StatusCode == http.StatusNotImplemented {
		resp.StatusCode = http.StatusNotFound
	}
	body := e.MarshalBody()
	resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return resp, nil
}
