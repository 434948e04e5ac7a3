package gateway

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/go-json-experiment/json/jsontext"

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
	// Judge records what became of the judgement of a call that was closed as judged
	// later. An error is logged.
	Judge(ctx context.Context, j Judgement) error
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
	Judged   bool            `json:"judged,omitempty"`   // a Judgement follows
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

// AppendJSON appends it as encoding/json writes it.
func (o *Opening) AppendJSON(b []byte) ([]byte, error) {
	m := members{b: b, before: '{'}
	m.text("id", o.ID)
	m.name("at")
	m.b = append(o.At.AppendFormat(append(m.b, '"'), time.RFC3339Nano), '"')
	m.some("user", o.User)
	m.some("project", o.Project)
	m.text("from", o.From)
	m.text("route", o.Route)
	m.text("model", o.Model)
	m.some("weights", o.Weights)
	m.yes("streamed", o.Streamed)
	m.text("input", o.Input)
	m.number("bytes", int64(o.Bytes))
	m.number("reserved", o.Reserved)
	m.findings(o.Findings)
	return append(m.b, '}'), m.err
}

// AppendJSON appends it as encoding/json writes it.
func (c *Closing) AppendJSON(b []byte) ([]byte, error) {
	m := members{b: b, before: '{'}
	m.text("id", c.ID)
	m.text("outcome", string(c.Outcome))
	m.number("status", int64(c.Status))
	m.some("code", c.Code)
	m.some("engine", c.Engine)
	m.name("usage")
	m.before = '{'
	m.number("prompt_tokens", int64(c.Usage.Prompt))
	m.number("completion_tokens", int64(c.Usage.Completion))
	m.number("total_tokens", int64(c.Usage.Total))
	m.b = append(m.b, '}')
	m.yes("guessed", c.Guessed)
	m.number("queued", int64(c.Queued))
	m.number("first", int64(c.First))
	m.number("duration", int64(c.Duration))
	m.some("output", c.Output)
	m.findings(c.Findings)
	m.yes("judged", c.Judged)
	return append(m.b, '}'), m.err
}

// members appends the members of an object.
type members struct {
	b      []byte
	before byte // what stands before the next: the bracket, or a comma
	err    error
}

func (m *members) name(name string) {
	m.b = append(append(append(m.b, m.before, '"'), name...), '"', ':')
	m.before = ','
}

func (m *members) text(name, v string) {
	m.name(name)
	b, err := jsontext.AppendQuote(m.b, v)
	m.b, m.err = b, errors.Join(m.err, err)
}

func (m *members) some(name, v string) {
	if v != "" {
		m.text(name, v)
	}
}

func (m *members) number(name string, v int64) {
	m.name(name)
	m.b = strconv.AppendInt(m.b, v, 10)
}

func (m *members) yes(name string, v bool) {
	if v {
		m.name(name)
		m.b = append(m.b, "true"...)
	}
}

func (m *members) findings(all []guard.Finding) {
	if len(all) == 0 {
		return
	}
	m.name("findings")
	b, err := json.Marshal(all)
	m.b, m.err = append(m.b, b...), errors.Join(m.err, err)
}
