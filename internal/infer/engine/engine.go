// Package engine says what a gateway needs of whatever runs models.
//
// An engine is reached over HTTP, in the shape of the OpenAI API, through a
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
	ID       string    // the name clients ask for
	Context  int       // tokens, prompt and answer together; 0: unknown
	Since    time.Time // when it was made available
	Upstream string    // the name that the engine knows it by; empty: the same
	Weights  string    // digest of what is served, "sha256:…"; empty: nobody here could check it
	Size     int64     // bytes of the artifact that Weights names; 0: unknown
}

// Engine runs models. It is safe for concurrent use.
type Engine interface {
	// Models returns what it serves now.
	Models() []Model
	// Traits returns what it can do; they do not change.
	Traits() Traits
	// Transport carries requests for the paths of Traits to the engine, whatever
	// their host. Its errors wrap ErrDown when the engine is not running.
	// Cancelling a request frees the engine.
	Transport() http.RoundTripper
	// Health returns nil when a request sent now would be taken up.
	Health(ctx context.Context) error
	// Close ends the engine and returns when nothing of it is left.
	Close() error
}

// Traits are what a gateway must know of a kind of engine.
type Traits struct {
	Name     string   // that operators know it by; empty: it has none
	Kind     string   // vllm, ollama, tgi, llama-server, llama.cpp
	Paths    []string // of the API that it answers, such as /v1/chat/completions
	Parallel int      // requests that it works on at a time; 0 means 1
	// Separate says how what one tenant's prompts left behind is kept from another.
	Separate Separation
	// Owned are top-level fields of a request that belong to the site: what clients
	// send there is taken out.
	Owned []string
	// For is the tenant that an engine of Shared is for; "*": it is accepted that tenants
	// are not kept apart.
	For string
	// Local engines work on the processors of this machine, which they share.
	Local bool
}

// Load is what an engine said of itself.
type Load struct {
	Running, Waiting int
	At               time.Time // when; the zero time: it says nothing
}

// Loaded is an Engine that says how much it has to do, counting what others sent it.
type Loaded interface {
	Load() Load
}

// Separation is how an engine keeps the prefix caches of tenants apart.
type Separation int

// The ways.
const (
	// Shared engines keep a cache and cannot: they are not shared by tenants.
	Shared Separation = iota
	// Stateless engines keep nothing from one request to the next.
	Stateless
	// Salted engines (vLLM) mix the field cache_salt into the keys of their cache.
	Salted
	// Uncached engines (llama.cpp's server) keep nothing of a request with the field
	// cache_prompt set to false.
	Uncached
)
