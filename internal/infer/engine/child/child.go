// Package child keeps one engine running as a confined process: it starts it from
// verified files, waits until it takes requests, starts it again after growing pauses
// when it dies, and ends it so that nothing of it is left.
//
// It knows neither what the process runs nor how it is spoken to: packages llamacpp and
// local do.
package child

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os/exec"
	"sync"
	"time"

	"enisle/internal/fail"
	"enisle/internal/infer/engine"
	"enisle/internal/sandbox"
)

const (
	firstPause = time.Second      // before it is started again; doubled each time
	maxPause   = time.Minute      // at most
	steady     = 10 * time.Minute // a process that lived so long starts the count again
)

// Process is one that is ready to be started.
type Process struct {
	Cmd    *exec.Cmd   // confined; made by package sandbox, ended by its context
	Theirs []io.Closer // closed once it was started: it has its own
	Ours   []io.Closer // closed when it has ended
}

// Options say what to keep running. Spawn and Ready are needed.
type Options struct {
	Name string // for the log
	// Spawn returns the next process; life ends it.
	Spawn func(life context.Context) (Process, error)
	// Ready returns when the process takes requests, with what is to be logged of it. It
	// is called once a start; ctx ends when the process does, or the time for it.
	Ready     func(ctx context.Context) (facts []any, err error)
	StartTime time.Duration     // until it must be ready; 0 means two minutes
	MaxMemory int64             // bytes that the process was limited to, for the message
	Record    func(text string) // events, and what the process prints until it is ready: later that may quote requests; may be nil
	Log       *slog.Logger      // nil means discard; what the process prints comes at debug level
}

// Child is a process that is replaced when it dies.
type Child struct {
	opt   Options
	end   context.CancelFunc
	ended chan struct{} // closed when supervise returns

	mu   sync.Mutex
	why  error // guarded by mu; why no process is ready; nil: one is
	next time.Time
}

// New returns a child that was not started.
func New(opt Options) *Child {
	if opt.StartTime <= 0 {
		opt.StartTime = 2 * time.Minute
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Record == nil {
		opt.Record = func(string) {}
	}
	return &Child{opt: opt, ended: make(chan struct{}), why: errors.New("it was not started")}
}

// Start starts the process and returns when it is ready. ctx bounds the start only;
// Close ends the child. On error nothing is left of it.
func (c *Child) Start(ctx context.Context) error {
	life, end := context.WithCancel(context.WithoutCancel(ctx))
	p, err := c.launch(ctx, life)
	if err != nil {
		end()
		return err
	}
	c.end = end
	go c.supervise(life, p)
	return nil
}

// Down returns nil while a process is ready, and else why not (engine.ErrDown).
func (c *Child) Down() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.why == nil {
		return nil
	}
	if wait := time.Until(c.next); wait > 0 {
		return fmt.Errorf("%w: %w; it is started again in %v", engine.ErrDown, c.why, wait.Round(time.Second))
	}
	return fmt.Errorf("%w: %w", engine.ErrDown, c.why)
}

// Transport returns one that hands nothing to rt while the child is down.
func (c *Child) Transport(rt http.RoundTripper) http.RoundTripper { return transport{c, rt} }

type transport struct {
	child *Child
	http.RoundTripper
}

// RoundTrip carries a request to a process that is ready.
func (t transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if err := t.child.Down(); err != nil {
		if r.Body != nil {
			err = errors.Join(err, r.Body.Close())
		}
		return nil, err
	}
	return t.RoundTripper.RoundTrip(r)
}

// Close ends the process and returns when it is gone. It may be called once, after Start.
func (c *Child) Close() error {
	c.end()
	<-c.ended
	c.opt.Record("ended, as it was to")
	return nil
}

// process is one that was started.
type process struct {
	Process
	began time.Time
	tail  *tail
	done  chan struct{} // closed when it has ended
	err   error         // set before done is closed
}

// launch starts a process and waits until it is ready. ctx bounds the waiting, life the
// process.
func (c *Child) launch(ctx, life context.Context) (*process, error) {
	p, err := c.start(life)
	if err != nil {
		return nil, err
	}
	c.set(errors.New("it is starting"), 0)
	ctx, cancel := context.WithTimeout(ctx, c.opt.StartTime)
	defer cancel()
	go func() {
		select {
		case <-p.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	facts, err := c.opt.Ready(ctx)
	if err == nil {
		p.tail.quiet()
		c.set(nil, 0)
		took := time.Since(p.began)
		c.opt.Log.InfoContext(ctx, "engine ready", append(append([]any{"model", c.opt.Name, "pid", p.Cmd.Process.Pid}, facts...), "took", took)...)
		c.opt.Record(fmt.Sprintf("ready after %v, process %d", took.Round(time.Millisecond), p.Cmd.Process.Pid))
		return p, nil
	}
	select {
	case <-p.done:
		err = nil // that it cannot be reached is no news
	default:
		if ctx.Err() != nil && time.Since(p.began) >= c.opt.StartTime {
			err = fmt.Errorf("it was not ready after %v: %w", c.opt.StartTime, err)
		}
		err = errors.Join(err, sandbox.KillGroup(p.Cmd))
		<-p.done
	}
	err = c.explain(p, err, p.tail.last())
	c.set(err, 0)
	c.opt.Record("did not start: " + err.Error())
	return nil, err
}

func (c *Child) start(life context.Context) (*process, error) {
	spawned, err := c.opt.Spawn(life)
	if err != nil {
		return nil, err
	}
	p := &process{Process: spawned, began: time.Now(), tail: &tail{log: c.opt.Log, record: c.opt.Record}, done: make(chan struct{})}
	p.Cmd.Stdout, p.Cmd.Stderr = p.tail, p.tail
	if err := errors.Join(p.Cmd.Start(), closeAll(p.Theirs)); err != nil {
		return nil, errors.Join(err, closeAll(p.Ours))
	}
	go p.wait()
	return p, nil
}

func closeAll(all []io.Closer) (err error) {
	for _, c := range all {
		err = errors.Join(err, c.Close())
	}
	return err
}

func (p *process) wait() {
	err := p.Cmd.Wait()
	if err == nil {
		err = errors.New("it ended")
	}
	p.err = errors.Join(err, sandbox.KillGroup(p.Cmd), closeAll(p.Ours))
	close(p.done)
}

// explain says why a process ended, or did not start because of err.
func (c *Child) explain(p *process, err error, said string) error {
	why := p.err
	if err != nil {
		why = fmt.Errorf("%w: %w", why, err)
	}
	why = fmt.Errorf("process: %w%s", why, said)
	if c.opt.MaxMemory > 0 && p.tail.starved() {
		why = fail.As(fail.Failed, "give it more memory, or less context or fewer calls at a time",
			fmt.Errorf("it needs more than the %d MiB of memory that it may have: %w", c.opt.MaxMemory>>20, why))
	}
	return why
}

// supervise replaces the process when it dies, until life ends.
func (c *Child) supervise(life context.Context, p *process) {
	defer close(c.ended)
	for failed := 0; ; {
		<-p.done
		why := c.explain(p, nil, "")
		c.set(why, 0)
		if life.Err() != nil {
			return
		}
		if time.Since(p.began) > steady {
			failed = 0
		}
		c.opt.Log.WarnContext(life, "engine died", "model", c.opt.Name, "error", why, "last", p.tail.last())
		c.opt.Record("died: " + why.Error())
		for p = nil; p == nil; failed++ {
			pause := min(firstPause<<min(failed, 10), maxPause)
			c.set(why, pause)
			select {
			case <-life.Done():
				return
			case <-time.After(pause):
			}
			if p, why = c.launch(life, life); why != nil {
				if life.Err() != nil {
					return
				}
				c.opt.Log.WarnContext(life, "engine did not start again", "model", c.opt.Name, "error", why)
			}
		}
	}
}

// set notes why there is no process, and in how long there will be another.
func (c *Child) set(why error, pause time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.why, c.next = why, time.Now().Add(pause)
}
