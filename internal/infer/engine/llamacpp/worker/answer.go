//go:build !noengine

package worker

import (
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"enisle/internal/infer/openai"
)

// answer writes one answer, whole or as a stream of events: to a conversation, or to
// texts that are continued.
type answer struct {
	w           http.ResponseWriter
	req         *request
	id          string
	created     int64
	model       string
	fingerprint string

	at      int             // the prompt whose answer is being written
	text    strings.Builder // when not streaming
	choices []openai.Choice // those that are finished, when not streaming
	started bool            // the first event was written
}

func newID(r *request) string {
	if r.chat() {
		return "chatcmpl-" + strings.ToLower(rand.Text())
	}
	return "cmpl-" + strings.ToLower(rand.Text())
}

func (a *answer) completion(c ...openai.Choice) openai.Completion {
	object := "text_completion"
	if a.req.chat() {
		object = "chat.completion"
		if a.req.Stream {
			object += ".chunk"
		}
	}
	if c == nil {
		c = []openai.Choice{} // clients want a list, not null
	}
	return openai.Completion{ID: a.id, Object: object, Created: a.created, Model: a.model, Fingerprint: a.fingerprint, Choices: c}
}

// add takes the next piece of text. An error means that the client is gone.
func (a *answer) add(piece string) error {
	if !a.req.Stream {
		a.text.WriteString(piece)
		return nil
	}
	if err := a.begin(); err != nil {
		return err
	}
	if a.req.chat() {
		return a.event(a.completion(openai.Choice{Delta: &openai.Delta{Content: &piece}}))
	}
	return a.event(a.completion(openai.Choice{Index: a.at, Text: &piece}))
}

// begin begins a stream; the first event of a conversation's names the role.
func (a *answer) begin() error {
	if a.started {
		return nil
	}
	a.started = true
	a.w.Header().Set("Content-Type", "text/event-stream")
	a.w.Header().Set("Cache-Control", "no-store")
	if !a.req.chat() {
		return nil
	}
	empty := ""
	return a.event(a.completion(openai.Choice{Delta: &openai.Delta{Role: "assistant", Content: &empty}}))
}

func (a *answer) event(c openai.Completion) error {
	b, err := json.Marshal(c)
	if err != nil {
		return fmt.Errorf("event: %w", err)
	}
	return a.data(b)
}

func (a *answer) data(b []byte) error {
	if _, err := fmt.Fprintf(a.w, "data: %s\n\n", b); err != nil {
		return err
	}
	return http.NewResponseController(a.w).Flush()
}

// ended says why the answer to one prompt ended; the next is that to the next prompt.
func (a *answer) ended(reason string) error {
	text := a.text.String()
	a.text.Reset()
	c := openai.Choice{Index: a.at, Finish: &reason}
	switch {
	case a.req.chat() && a.req.Stream:
		c.Delta = &openai.Delta{}
	case a.req.chat():
		c.Message = &openai.Message{Role: "assistant", Content: openai.Content(text)}
	default:
		c.Text = &text // empty in a stream
	}
	a.at++
	if a.req.Stream {
		return errors.Join(a.begin(), a.event(a.completion(c)))
	}
	a.choices = append(a.choices, c)
	return nil
}

// finish writes what comes after the text.
func (a *answer) finish(usage openai.Usage) error {
	if !a.req.Stream {
		c := a.completion(a.choices...)
		c.Usage = &usage
		a.w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(a.w).Encode(c)
	}
	var err error
	if a.req.StreamOptions != nil && a.req.StreamOptions.IncludeUsage {
		c := a.completion()
		c.Usage = &usage
		err = a.event(c)
	}
	return errors.Join(err, a.data([]byte("[DONE]")))
}

// fail says what went wrong, inside the stream if it has begun.
func (a *answer) fail(err error) {
	if !a.started {
		openai.WriteError(a.w, err)
		return
	}
	var e *openai.Error
	if !errors.As(err, &e) {
		e = openai.Errorf(http.StatusInternalServerError, "engine_error", "the engine stopped in the middle of the answer")
	}
	_ = a.data(e.MarshalBody()) // the client may be what is gone
}
