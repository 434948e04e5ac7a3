// Package engine says what a gateway needs of whatever runs models.
//
// An engine is reached over HTTP, in the shape of package openai, through a
// transport of its own: the gateway never learns where the engine is and never
// dials. One folder an engine.
package engine

import (
	"context"
	"errors"
	"net/http"
	"time"
)

// ErrDown says that the engine is not running, or not yet again.
var ErrDown = errors.New("the engine is not running")

// Model is a model that an engine serves.
type Model struct {
	ID      string    // the name clients ask for
	Context int       // tokens, prompt and answer together
	Since   time.Time // when it was made available
}

// Engine runs models. It is safe for concurrent use.
type Engine interface {
	// Models returns what it serves; the list does not change.
	Models() []Model
	// Transport carries requests for /v1/chat/completions to the engine,
	// whatever their host. Its errors wrap ErrDown when the engine is not
	// running. Cancelling a request frees the engine.
	Transport() http.RoundTripper
	// Health returns nil when a request sent now would be taken up.
	Health(ctx context.Context) error
	// Close ends the engine and returns when nothing of it is left.
	Close() error
}
