//go:build !noengine

package worker

import (
	"cmp"
	"encoding/json"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net/http"
	"strings"

	"enisle/internal/infer/openai"
)

// request is what this engine understands of a request to answer a conversation, or to
// continue texts. What would change the answer and is not understood is refused, not
// ignored.
type request struct {
	Messages      []openai.Message `json:"messages"`
	Prompts       openai.Texts     `json:"prompt"` // they are continued, where there are no messages
	Stream        bool             `json:"stream"`
	StreamOptions *struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	Temperature   *float64     `json:"temperature"`
	TopP          *float64     `json:"top_p"`
	Seed          *int64       `json:"seed"`
	MaxTokens     bound        `json:"max_tokens"`
	MaxCompletion *int         `json:"max_completion_tokens"`
	Stop          openai.Texts `json:"stop"`
	Presence      float64      `json:"presence_penalty"`
	Frequency     float64      `json:"frequency_penalty"`
	TopK          int          `json:"top_k"` // this and the next five are of llama.cpp's server; 0, -1: all
	MinP          float64      `json:"min_p"`
	TypicalP      *float64     `json:"typical_p"`
	Repeat        *float64     `json:"repeat_penalty"`
	Repetition    *float64     `json:"repetition_penalty"` // as vLLM calls it
	RepeatLast    *int         `json:"repeat_last_n"`      // tokens; -1: all

	N              *int              `json:"n"`
	BestOf         *int              `json:"best_of"`
	Echo           bool              `json:"echo"`
	Suffix         string            `json:"suffix"`
	Logprobs       json.RawMessage   `json:"logprobs"` // of two types
	Tools          []json.RawMessage `json:"tools"`
	LogitBias      map[string]int    `json:"logit_bias"`
	Template       map[string]any    `json:"chat_template_kwargs"`
	Effort         *string           `json:"reasoning_effort"`
	ResponseFormat *struct {
		Type string `json:"type"`
	} `json:"response_format"`
	Structured *struct {
		Choice []string `json:"choice"`
	} `json:"structured_outputs"` // of vLLM; of its ways this one
}

const (
	jsonObject = "json_object" // a way of response_format

	maxStops   = 4 // API reference, "stop"
	maxPrompts = 16
	fewTokens  = 16 // of a text that is continued and no bound is named; API reference, "max_tokens"
	lastTokens = 64 // that may not be repeated; of llama.cpp
	maxChoices = 32
	maxChoice  = 64 // bytes
)

// bound is a number of tokens. To name null says that there is none, as to vLLM; to name
// nothing leaves it to the API's default.
type bound struct {
	named  bool
	tokens *int
}

// UnmarshalJSON reads a number, or null.
func (b *bound) UnmarshalJSON(v []byte) error {
	b.named = true
	return json.Unmarshal(v, &b.tokens)
}

// chat reports whether it is about a conversation.
func (r *request) chat() bool { return len(r.Messages) > 0 }

// decode reads a body; its errors are *openai.Error.
func decode(body io.Reader, into any) error {
	err := json.NewDecoder(body).Decode(into)
	var tooLong *http.MaxBytesError
	var other *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &other) && other.Field != "":
		return openai.Errorf(http.StatusBadRequest, "invalid_json", "%s cannot be a JSON %s", other.Field, other.Value).On(other.Field)
	case errors.As(err, &tooLong):
		return openai.Errorf(http.StatusRequestEntityTooLarge, "request_too_large", "the request is longer than %d bytes", tooLong.Limit)
	}
	return openai.Errorf(http.StatusBadRequest, "invalid_json", "the request can not be read: %v", err)
}

// readRequest decodes and checks a request about a conversation, or about texts; its
// errors are *openai.Error.
func readRequest(body io.Reader, chat bool) (*request, error) {
	var r request
	if err := decode(body, &r); err != nil {
		return nil, err
	}
	switch {
	case chat && len(r.Messages) == 0:
		return nil, bad("messages", "there is no message")
	case !chat && len(r.Prompts) == 0:
		return nil, bad("prompt", "there is no prompt")
	case chat && len(r.Prompts) > 0 || !chat && len(r.Messages) > 0:
		return nil, bad("prompt", "messages are answered, or prompts continued, not both")
	}
	if err := r.check(); err != nil {
		return nil, err
	}
	return &r, r.checkTexts()
}

func bad(param, format string, args ...any) error {
	return openai.Errorf(http.StatusBadRequest, "invalid_value", format, args...).On(param)
}

func (r *request) check() error {
	logprobs := len(r.Logprobs) > 0 && string(r.Logprobs) != "false" && string(r.Logprobs) != "null"
	for param, is := range map[string]bool{
		"n": r.N != nil && *r.N != 1, "best_of": r.BestOf != nil && *r.BestOf != 1, "echo": r.Echo, "suffix": r.Suffix != "", "logprobs": logprobs, "tools": len(r.Tools) > 0, "logit_bias": len(r.LogitBias) > 0,
		"chat_template_kwargs": len(r.Template) > 0 && r.Structured == nil, // a choice has no thoughts
		"reasoning_effort":     r.Effort != nil && *r.Effort != "none",
		"response_format":      r.ResponseFormat != nil && r.ResponseFormat.Type != "text" && r.ResponseFormat.Type != jsonObject, "structured_outputs": r.Structured != nil && r.Structured.Choice == nil,
	} {
		if is {
			return openai.Errorf(http.StatusBadRequest, "unsupported_parameter", "this engine does not support %s", param).On(param)
		}
	}
	switch {
	case r.Temperature != nil && (*r.Temperature < 0 || *r.Temperature > 2):
		return bad("temperature", "temperature must be from 0 to 2")
	case r.TopP != nil && (*r.TopP <= 0 || *r.TopP > 1):
		return bad("top_p", "top_p must be above 0 and at most 1")
	case r.MaxTokens.tokens != nil && *r.MaxTokens.tokens < 1 || r.MaxCompletion != nil && *r.MaxCompletion < 1:
		return bad("max_tokens", "the limit must be at least one token")
	case r.Presence < -2 || r.Presence > 2 || r.Frequency < -2 || r.Frequency > 2:
		return bad("presence_penalty", "penalties must be from -2 to 2")
	case r.TopK < -1 || r.TopK > math.MaxInt32:
		return bad("top_k", "top_k must be -1 or more")
	case r.MinP < 0 || r.MinP > 1:
		return bad("min_p", "min_p must be from 0 to 1")
	case r.TypicalP != nil && (*r.TypicalP <= 0 || *r.TypicalP > 1):
		return bad("typical_p", "typical_p must be above 0 and at most 1")
	case r.RepeatLast != nil && (*r.RepeatLast < -1 || *r.RepeatLast > math.MaxInt32):
		return bad("repeat_last_n", "repeat_last_n must be -1 or more")
	case r.repeat() <= 0 || r.repeat() > 10:
		return bad("repeat_penalty", "repeat_penalty must be above 0 and at most 10")
	case len(r.Stop) > maxStops:
		return bad("stop", "there may be at most %d stop sequences", maxStops)
	}
	for _, s := range r.Stop {
		if s == "" {
			return bad("stop", "a stop sequence is empty")
		}
	}
	if r.Structured != nil && !plainChoice(r.Structured.Choice) {
		return bad("structured_outputs", "a choice is of 1 to %d texts of 1 to %d letters, digits, spaces, points, underscores and hyphens", maxChoices, maxChoice)
	}
	return nil
}

// repeat is how much less likely tokens are that came before; 1: not at all.
func (r *request) repeat() float64 {
	return *cmp.Or(r.Repeat, r.Repetition, new(1.0))
}

// checkTexts checks what the model is to read.
func (r *request) checkTexts() error {
	if len(r.Prompts) > maxPrompts {
		return bad("prompt", "there may be at most %d prompts", maxPrompts)
	}
	for i, p := range r.Prompts {
		if strings.ContainsRune(p, 0) {
			return bad("prompt", "prompt %d holds a NUL character", i)
		}
	}
	for i, m := range r.Messages {
		if strings.ContainsRune(m.Role+string(m.Content), 0) {
			return bad("messages", "message %d holds a NUL character", i)
		}
		switch m.Role {
		case "system", "user", "assistant":
		case "developer":
			r.Messages[i].Role = "system"
		default:
			return bad("messages", "message %d: this engine knows the roles system, user and assistant", i)
		}
	}
	return nil
}

// plainChoice reports whether texts can be put into a grammar as they are.
func plainChoice(texts []string) bool {
	for _, c := range texts {
		plain := strings.Trim(c, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789 ._-") == ""
		if !plain || c == "" || len(c) > maxChoice {
			return false
		}
	}
	return len(texts) > 0 && len(texts) <= maxChoices
}

// limit returns the most tokens to answer with, 0 for as many as fit.
func (r *request) limit() int {
	switch {
	case r.MaxCompletion != nil:
		return *r.MaxCompletion
	case r.MaxTokens.tokens != nil:
		return *r.MaxTokens.tokens
	case !r.chat() && !r.MaxTokens.named:
		return fewTokens
	}
	return 0
}

// objects is the grammar of a JSON object (RFC 8259), with little space between its parts:
// a model that may write as much of it as it likes does so until its bound.
const objects = `root   ::= object
object ::= "{" ws ( member ( "," ws member )* )? "}"
member ::= string ":" ws value
array  ::= "[" ws ( value ( "," ws value )* )? "]"
value  ::= ( object | array | string | number | "true" | "false" | "null" ) ws
string ::= "\"" ( [^"\\\x00-\x1F\x7F] | "\\" ( ["\\/bfnrt] | "u" [0-9a-fA-F]{4} ) )* "\""
number ::= "-"? ( "0" | [1-9] [0-9]{0,15} ) ( "." [0-9]{1,15} )? ( [eE] [-+]? [0-9]{1,3} )?
ws     ::= " "? | "\n" [ \t]{0,16}
`

// sampling is how the next token is chosen.
type sampling struct {
	temperature, topP   float32 // 0 means greedy; 1 means all
	topK                int32   // 0 and less mean all
	minP, typicalP      float32 // 0, and 1, mean all
	repeat              float32 // 1 means that it may
	repeatLast          int32   // tokens that are looked at; -1: all
	presence, frequency float32
	seed                uint32
	grammar             string // of llama.cpp, that the answer keeps to; empty: it is free
}

// sampling returns the choices with the API's defaults; without a seed, a
// random one.
func (r *request) sampling() sampling {
	s := sampling{temperature: 1, topP: 1, topK: int32(r.TopK), minP: float32(r.MinP), typicalP: 1, repeat: float32(r.repeat()), repeatLast: lastTokens, presence: float32(r.Presence), frequency: float32(r.Frequency), seed: rand.Uint32()}
	if r.Temperature != nil {
		s.temperature = float32(*r.Temperature)
	}
	if r.TopP != nil {
		s.topP = float32(*r.TopP)
	}
	if r.TypicalP != nil {
		s.typicalP = float32(*r.TypicalP)
	}
	if r.RepeatLast != nil {
		s.repeatLast = int32(*r.RepeatLast)
	}
	switch {
	case r.Structured != nil: // the texts have no quotes and no backslashes
		s.grammar = `root ::= "` + strings.Join(r.Structured.Choice, `" | "`) + `"`
	case r.ResponseFormat != nil && r.ResponseFormat.Type == jsonObject:
		s.grammar = objects
	}
	if r.Seed != nil {
		s.seed = uint32(*r.Seed) ^ uint32(*r.Seed>>32)
	}
	return s
}
