package gateway

import (
	"context"
	"time"

	"enisle/internal/infer/guard"
	"enisle/internal/infer/openai"
)

// Recorder keeps on record who asked what and what became of it. What it cannot record
// is not served.
type Recorder interface {
	// Open records a call before an engine sees it. It returns when a crash of this
	// process, or of the machine where that is wanted, does not lose the record.
	Open(ctx context.Context, o Opening) error
	// Close records how a call ended. An error is logged; it can not undo the call.
	Close(ctx context.Context, c Closing) error
}

// Opening is what is known before an engine is asked.
type Opening struct {
	ID       string          `json:"id"` // as in the answer's X-Request-Id
	At       time.Time       `json:"at"`
	User     string          `json:"user,omitempty"`
	Project  string          `json:"project,omitempty"`
	From     string          `json:"from"` // address
	Route    string          `json:"route"`
	Model    string          `json:"model"`
	Weights  string          `json:"weights,omitempty"` // digest of what is served
	Streamed bool            `json:"streamed,omitempty"`
	Input    string          `json:"input"` // "sha256:…" of the request as it came
	Bytes    int             `json:"bytes"` // of it
	Reserved int64           `json:"reserved"`
	Findings []guard.Finding `json:"findings,omitempty"` // in the prompt
	// Content is the request itself, for recorders that seal it; it is never written
	// in the clear.
	Content []byte `json:"-"`
}

// Closing is how a call ended.
type Closing struct {
	ID       string          `json:"id"`
	Outcome  Outcome         `json:"outcome"`
	Status   int             `json:"status"`            // of the answer
	Code     string          `json:"code,omitempty"`    // of the error
	Engine   string          `json:"engine,omitempty"`  // kind of the one that answered
	Usage    openai.Usage    `json:"usage"`             // as far as the engine told
	Guessed  bool            `json:"guessed,omitempty"` // usage is an estimate: the engine did not tell
	Queued   time.Duration   `json:"queued"`            // nanoseconds, until it was its turn
	First    time.Duration   `json:"first"`             // until the first byte of the answer
	Duration time.Duration   `json:"duration"`
	Output   string          `json:"output,omitempty"`   // "sha256:…" of the answer as the engine gave it
	Findings []guard.Finding `json:"findings,omitempty"` // in the answer
	// Content is the answer, as Content of Opening.
	Content []byte `json:"-"`
}

// Outcome says how a call ended.
type Outcome string

// The outcomes.
const (
	Answered Outcome = "answered"
	Refused  Outcome = "refused" // by the gateway or the engine, before an answer began
	Blocked  Outcome = "blocked" // by the guard
	Broken   Outcome = "broken"  // the engine stopped in the middle
	Left     Outcome = "left"    // the client did
)
