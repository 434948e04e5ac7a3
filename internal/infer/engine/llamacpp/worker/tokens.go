//go:build !noengine

package worker

import (
	"encoding/json"
	"net/http"
	"slices"

	"github.com/hybridgroup/yzma/pkg/llama"

	"enisle/internal/infer/openai"
)

// tokenizing is a request for the tokens of a text, as vLLM's clients ask (prompt or
// messages) or as llama.cpp's own do (content).
type tokenizing struct {
	Prompt   string           `json:"prompt"`
	Content  string           `json:"content"`
	Messages []openai.Message `json:"messages"`
	Special  *bool            `json:"add_special_tokens"` // vLLM; true if it is not said
	Own      bool             `json:"add_special"`        // llama.cpp; false if it is not said
}

// tokenized is the answer, for both.
type tokenized struct {
	Count   int           `json:"count"`
	Context int           `json:"max_model_len"`
	Tokens  []llama.Token `json:"tokens"`
}

func (h *handler) tokenize(w http.ResponseWriter, r *http.Request) {
	var q tokenizing
	if err := decode(http.MaxBytesReader(w, r.Body, maxBody), &q); err != nil {
		openai.WriteError(w, err)
		return
	}
	h.seated(w, r, func() {
		tokens, err := h.tokensOf(&q)
		if err != nil {
			openai.WriteError(w, err)
			return
		}
		h.says(w, tokenized{len(tokens), h.model.context, append([]llama.Token{}, tokens...)})
	})
}

// tokensOf returns the tokens as the model reads them when it is asked to answer.
func (h *handler) tokensOf(q *tokenizing) ([]llama.Token, error) {
	texts := request{Messages: q.Messages, Prompts: openai.Texts{q.Prompt + q.Content}}
	if err := texts.checkTexts(); err != nil {
		return nil, err
	}
	switch {
	case len(q.Messages) > 0:
		return h.model.prompt(texts.Messages)
	case q.Content != "":
		return h.model.tokens(q.Content, q.Own), nil
	}
	return h.model.tokens(q.Prompt, q.Special == nil || *q.Special), nil
}

func (h *handler) detokenize(w http.ResponseWriter, r *http.Request) {
	var q struct {
		Tokens []llama.Token `json:"tokens"`
	}
	if err := decode(http.MaxBytesReader(w, r.Body, maxBody), &q); err != nil {
		openai.WriteError(w, err)
		return
	}
	last := llama.Token(llama.VocabNTokens(h.model.vocab))
	if slices.ContainsFunc(q.Tokens, func(t llama.Token) bool { return t < 0 || t >= last }) {
		openai.WriteError(w, bad("tokens", "the model has the tokens 0 to %d", last-1))
		return
	}
	h.seated(w, r, func() {
		text := llama.Detokenize(h.model.vocab, q.Tokens, false, true)
		h.says(w, map[string]string{"prompt": text, "content": text}) // vLLM's name for it, and llama.cpp's
	})
}

func (h *handler) says(w http.ResponseWriter, what any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(what) // whoever asked may have gone
}
