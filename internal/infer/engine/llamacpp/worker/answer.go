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

// answer writes one completion, whole or as a stream of events.
type answer struct {
	w           http.ResponseWriter
	req         *request
	id          string
	created     int64
	model       string
	fingerprint string

	text    strings.Builder // when not streaming
	started bool            // the first event was written
}

func newID() string { return "chatcmpl-" + strings.ToLower(rand.Text()) }

func (a *answer) completion(object string, c ...openai.Choice) openai.Completion {
	if c == nil {
		c = []openai.Choice{} // clients want a list, not null
	}
	return openai.Completion{ID: a.id, Object: object, Created: a.created, Model: a.model, Fingerprint: a.fingerprint, Choices: c}
}

const chunk = "chat.completion.chunk"

// add takes the next piece of text. An error means that the client is gone.
func (a *answer) add(piece string) error {
	if !a.req.Stream {
		a.text.WriteString(piece)
		return nil
	}
	if err := a.begin(); err != nil {
		return err
	}
	return a.event(a.completion(chunk, openai.Choice{Delta: &openai.Delta{Content: &piece}}))
}

// begin writes the first event, which names the role.
func (a *answer) begin() error {
	if a.started {
		return nil
	}
	a.started = true
	a.w.Header().Set("Content-Type", "text/event-stream")
	a.w.Header().Set("Cache-Control", "no-store")
	empty := ""
	return a.event(a.completion(chunk, openai.Choice{Delta: &openai.Delta{Role: "assistant", Content: &empty}}))
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

// finish writes what comes after the text.
func (a *answer) finish(reason string, usage openai.Usage) error {
	if !a.req.Stream {
		c := a.completion("chat.completion", openai.Choice{
			Finish:  &reason,
			Message: &openai.Message{Role: "assistant", Content: openai.Content(a.text.String())},
		})
		c.Usage = &usage
		a.w.Header().Set("Content-Type", "application/json")
		return json.NewEncoder(a.w).Encode(c)
	}
	err := errors.Join(a.begin(), a.event(a.completion(chunk, openai.Choice{Delta: &openai.Delta{}, Finish: &reason})))
	if a.req.StreamOptions != nil && a.req.StreamOptions.IncludeUsage {
		c := a.completion(chunk)
		c.Usage = &usage
		err = errors.Join(err, a.event(c))
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
