// Package remote is an engine that somebody else runs: vLLM, Ollama, TGI or
// llama.cpp's server, over connections that it is handed. One file of quirks has
// what is particular to each (quirks.go).
package remote

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"enisle/internal/infer/engine"
	"enisle/internal/socket"
)

const (
	pollEvery = 2 * time.Second
	pollTime  = 5 * time.Second // for one question
	maxReply  = 4 << 20         // bytes of an answer to it
	// idleTime is shorter than any of these servers keeps a connection open, so that
	// a call does not meet one that is being closed.
	idleTime = 4 * time.Second
)

// Options say which engine it is.
type Options struct {
	Name     string // for the log and the metrics
	Kind     string // one of Kinds
	Dial     func(ctx context.Context) (net.Conn, error)
	TLS      *tls.Config // nil: none
	Parallel int         // calls at a time; 0: as usual for the kind
	For      string      // tenant, see engine.Traits
	Models   []engine.Model
	Log      *slog.Logger
}

// Engine is one such engine.
type Engine struct {
	opt       Options
	quirks    quirks
	transport *transport
	end       context.CancelFunc
	ended     chan struct{}

	mu    sync.Mutex
	there []engine.Model // of Models, those that it has; guarded by mu
	why   error          // why it does not work; nil: it does
	load  engine.Load
}

var _ engine.Engine = (*Engine)(nil)

// New returns the engine and begins to watch it. It does not wait for it.
func New(ctx context.Context, opt Options) (*Engine, error) {
	q, ok := kinds()[opt.Kind]
	if !ok {
		return nil, fmt.Errorf("engine %s: there is no kind %q", opt.Name, opt.Kind)
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Parallel > 0 {
		q.traits.Parallel = opt.Parallel
	}
	q.traits.Name, q.traits.Kind, q.traits.For = opt.Name, opt.Kind, opt.For
	e := &Engine{opt: opt, quirks: q, ended: make(chan struct{}), why: errors.New("it was not asked yet")}
	dial := func(ctx context.Context) (net.Conn, error) {
		c, err := opt.Dial(ctx)
		if err != nil {
			return nil, errors.Join(engine.ErrDown, err)
		}
		c = socket.Of(c)
		if opt.TLS == nil {
			return c, nil
		}
		t := tls.Client(c, opt.TLS)
		if err := t.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(engine.ErrDown, err, c.Close())
		}
		return t, nil
	}
	e.transport = newTransport(dial)
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	e.end = end
	e.poll(ctx)
	go e.watch(life)
	return e, nil
}

func (e *Engine) watch(ctx context.Context) {
	defer close(e.ended)
	t := time.NewTicker(pollEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
			e.poll(ctx)
		}
	}
}

// poll asks the engine how it is, what it has, and how much it has to do.
func (e *Engine) poll(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, pollTime)
	defer cancel()
	has, load, err := e.quirks.state(ctx, e)
	var there []engine.Model
	if err == nil {
		for _, m := range e.opt.Models {
			context, ok := has[upstream(m)]
			if m.Context == 0 && context > 0 {
				m.Context = context
			}
			if ok {
				there = append(there, m)
			}
		}
		if len(there) == 0 {
			err = fmt.Errorf("it has none of its models, but %.200q", slices.Sorted(maps.Keys(has)))
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if (err == nil) != (e.why == nil) {
		e.opt.Log.InfoContext(ctx, "engine", "name", e.opt.Name, "up", err == nil, "err", err)
	}
	e.there, e.why, e.load = there, err, load
}

func upstream(m engine.Model) string {
	if m.Upstream != "" {
		return m.Upstream
	}
	return m.ID
}

// Models returns what it should serve and does.
func (e *Engine) Models() []engine.Model {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.there
}

// Traits returns those of its kind.
func (e *Engine) Traits() engine.Traits { return e.quirks.traits }

// Transport returns the way to it.
func (e *Engine) Transport() http.RoundTripper { return quirky{e} }

// Load returns what it said of its queue, and when.
func (e *Engine) Load() engine.Load {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.load
}

// Health returns what was found when it was last asked.
func (e *Engine) Health(context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.why != nil {
		return errors.Join(engine.ErrDown, e.why)
	}
	return nil
}

// Poll asks it now, and returns what was found.
func (e *Engine) Poll(ctx context.Context) error {
	e.poll(ctx)
	return e.Health(ctx)
}

// Close stops watching it and ends the answers that have begun; the engine itself goes
// on.
func (e *Engine) Close() error {
	e.end()
	<-e.ended
	e.transport.Close()
	return nil
}

// quirky makes an engine's refusals those of the API.
type quirky struct{ *Engine }

// RoundTrip carries a request, until the engine's life ends.
func (q quirky) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := q.transport.RoundTrip(r)
	if err != nil || resp.StatusCode < 400 {
		return resp, err
	}
	return q.quirks.refusal(resp)
}

// ask gets a small document.
func (e *Engine) ask(ctx context.Context, path string, into any) error {
	b, err := e.get(ctx, path)
	if err == nil && into != nil {
		err = json.Unmarshal(b, into)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func (e *Engine) get(ctx context.Context, path string) (b []byte, err error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := e.transport.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if b, err = io.ReadAll(io.LimitReader(resp.Body, maxReply)); err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("it answers %d: %.200s", resp.StatusCode, b)
	}
	return b, err
}
