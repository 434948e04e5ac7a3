// Package openai holds the shapes of the chat API that clients speak, as far
// as the gateway and the engines of this program need them.
//
// It is plain data; it knows neither engines nor the network. The shapes are
// those of the public API reference (chat completions, models, errors).
package openai

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Error is what a client is told. The fields Status and After are the answer's
// status and its Retry-After header; the others are the body.
type Error struct {
	Status  int           `json:"-"`
	After   time.Duration `json:"-"` // 0 means no Retry-After
	Message string        `json:"message"`
	Type    string        `json:"type"`
	Param   *string       `json:"param"`
	Code    *string       `json:"code"`
}

func (e *Error) Error() string { return e.Message }

// Kinds of error that clients tell apart by their type.
const (
	TypeInvalid  = "invalid_request_error"
	TypeServer   = "server_error"
	TypeOverload = "rate_limit_error"
)

// Errorf returns an error with a status, a code and a message; its type follows
// from the status.
func Errorf(status int, code, format string, args ...any) *Error {
	e := &Error{Status: status, Message: fmt.Sprintf(format, args...), Type: TypeInvalid, Code: &code}
	switch {
	case status == http.StatusTooManyRequests:
		e.Type = TypeOverload
	case status >= http.StatusInternalServerError:
		e.Type = TypeServer
	}
	return e
}

// On returns the error with the parameter it is about.
func (e *Error) On(param string) *Error {
	e.Param = &param
	return e
}

// Retry returns the error with a time after which to try again.
func (e *Error) Retry(after time.Duration) *Error {
	e.After = after
	return e
}

type envelope struct {
	Error *Error `json:"error"`
}

// MarshalBody returns the error as a body.
func (e *Error) MarshalBody() []byte {
	b, err := json.Marshal(envelope{e})
	if err != nil {
		return []byte(`{"error":{"message":"internal error","type":"server_error","param":null,"code":null}}`)
	}
	return b
}

// ParseError reads an error out of a body, nil if there is none in it. Servers differ
// in whether its code is a word or a number.
func ParseError(status int, body []byte) *Error {
	var env struct {
		Error *struct {
			Message string  `json:"message"`
			Type    string  `json:"type"`
			Param   *string `json:"param"`
			Code    any     `json:"code"`
		} `json:"error"`
	}
	if err := json.Unmarshal(body, &env); err != nil || env.Error == nil {
		return nil
	}
	e := &Error{Status: status, Message: env.Error.Message, Type: env.Error.Type, Param: env.Error.Param}
	if env.Error.Code != nil {
		code := fmt.Sprint(env.Error.Code)
		e.Code = &code
	}
	if e.Type == "exceed_context_size_error" { // of llama.cpp's server; clients shorten what they send by OpenAI's code
		code := "context_length_exceeded"
		e.Code = &code
	}
	return e
}

// WriteError answers with err; an error that is no *Error becomes a 500 whose
// message says nothing of it.
func WriteError(w http.ResponseWriter, err error) {
	var e *Error
	if !errors.As(err, &e) {
		e = Errorf(http.StatusInternalServerError, "internal_error", "internal error")
	}
	if e.After > 0 {
		w.Header().Set("Retry-After", strconv.Itoa(max(1, int(e.After.Round(time.Second)/time.Second))))
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(e.Status)
	_, _ = w.Write(e.MarshalBody()) // the client may have gone
}

// Usage counts tokens.
type Usage struct {
	Prompt     int `json:"prompt_tokens"`
	Completion int `json:"completion_tokens"`
	Total      int `json:"total_tokens"`
}

// Model is one entry of the list of models.
type Model struct {
	ID      string `json:"id"`
	Object  string `json:"object"`  // "model"
	Created int64  `json:"created"` // seconds since 1970
	OwnedBy string `json:"owned_by"`
}

// Message is one turn of a conversation.
type Message struct {
	Role    string  `json:"role"`
	Content Content `json:"content"`
}

// Content is text: a string, or a list of parts of type "text" that are joined.
type Content string

// UnmarshalJSON reads both forms; a part of another type is an error, null is
// the empty text.
func (c *Content) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] != '[' {
		return json.Unmarshal(b, (*string)(c))
	}
	var parts []struct {
		Type string `json:"type"`
		Text string `json:"text"`
	}
	if err := json.Unmarshal(b, &parts); err != nil {
		return err
	}
	*c = ""
	for _, p := range parts {
		if p.Type != "text" {
			return fmt.Errorf("content of type %q is not understood, only text is", p.Type)
		}
		*c += Content(p.Text)
	}
	return nil
}

// Texts is a string or a list of strings.
type Texts []string

// UnmarshalJSON reads both forms, and null as none.
func (s *Texts) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '"' {
		*s = Texts{""}
		return json.Unmarshal(b, &(*s)[0])
	}
	return json.Unmarshal(b, (*[]string)(s))
}

// Completion is an answer, and with another Object one chunk of it.
type Completion struct {
	ID          string   `json:"id"`
	Object      string   `json:"object"`  // "chat.completion", "chat.completion.chunk" or "text_completion"
	Created     int64    `json:"created"` // seconds since 1970
	Model       string   `json:"model"`
	Fingerprint string   `json:"system_fingerprint,omitempty"`
	Choices     []Choice `json:"choices"`
	Usage       *Usage   `json:"usage,omitempty"`
}

// Choice is the answer, or in a chunk what was added to it.
type Choice struct {
	Index    int      `json:"index"`
	Message  *Message `json:"message,omitempty"`
	Delta    *Delta   `json:"delta,omitempty"`
	Text     *string  `json:"text,omitempty"` // where texts are continued
	Logprobs *string  `json:"logprobs"`       // always null
	Finish   *string  `json:"finish_reason"`
}

// Delta is what a chunk adds.
type Delta struct {
	Role    string  `json:"role,omitempty"`
	Content *string `json:"content,omitempty"`
}

// Reasons for an answer to end.
const (
	FinishStop   = "stop"
	FinishLength = "length"
)
