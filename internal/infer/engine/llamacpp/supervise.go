package llamacpp

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/exec"
	"sync"
	"time"

	"enisle/internal/infer/engine"
	"enisle/internal/sandbox"
)

// Verb is the hidden first argument under which the program must call
// worker.Run.
const Verb = "engine-worker"

const (
	controlFile = 3 // descriptor of the control socket in the child
	firstFile   = 4 // descriptor of the first library

	maxRestarts  = 5                // in a row, before giving up
	firstBackoff = time.Second      // doubled each time
	steady       = 10 * time.Minute // a worker that lived so long starts the count again
)

// process is one worker.
type process struct {
	cmd     *exec.Cmd
	control *net.UnixConn
	began   time.Time
	tail    *tail
	done    chan struct{} // closed when it has ended
	err     error         // set before done is closed
}

// launch starts a worker and waits until it has loaded the model. ctx bounds
// the waiting, life the worker.
func (e *Engine) launch(ctx, life context.Context) (*process, error) {
	p, err := e.start(life)
	if err != nil {
		return nil, err
	}
	e.mu.Lock()
	e.proc, e.why = p, nil
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, e.opt.StartTime)
	defer cancel()
	go func() {
		select {
		case <-p.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	report, err := e.health(ctx)
	if err == nil {
		e.mu.Lock()
		e.context = report.Context
		e.mu.Unlock()
		e.opt.Log.InfoContext(ctx, "engine ready", "model", e.opt.Name, "pid", p.cmd.Process.Pid, "context", report.Context,
			"network", string(report.Network), "took", time.Since(p.began))
		return p, nil
	}
	err = errors.Join(err, p.kill())
	<-p.done
	e.lost(p.err)
	return nil, fmt.Errorf("worker: %w: %w%s", p.err, err, p.tail.last())
}

func (e *Engine) start(life context.Context) (*process, error) {
	order, err := json.Marshal(Order{
		Name: e.opt.Name, Control: controlFile, Dir: e.dir, Models: e.files.models,
		Threads: e.opt.Threads, Context: e.opt.Context, Queue: e.opt.Queue, Release: release,
	})
	if err != nil {
		return nil, fmt.Errorf("order: %w", err)
	}
	spec := sandbox.Spec{
		Read: append(sandbox.SystemLibraries(), e.dir),
		Net:  sandbox.NetNone, NoConnect: true, NoBind: true, NoUnix: true, NoExec: true,
		MaxMemory: e.opt.MaxMemory, MaxFiles: 1024, Nice: 5, Strict: e.opt.Strict,
	}
	for i := range e.files.list {
		spec.ReadFiles = append(spec.ReadFiles, firstFile+i)
	}
	cmd, err := sandbox.Command(life, spec, sandbox.Self, Verb, string(order))
	if err != nil {
		return nil, err
	}
	control, theirs, err := newControl()
	if err != nil {
		return nil, err
	}
	cmd.Dir = "/"
	cmd.Env = []string{"HOME=/", "LC_ALL=C.UTF-8", "GOTRACEBACK=single"}
	cmd.ExtraFiles = []*os.File{theirs}
	for _, f := range e.files.list {
		cmd.ExtraFiles = append(cmd.ExtraFiles, f.File)
	}
	p := &process{cmd: cmd, control: control, began: time.Now(), tail: &tail{log: e.opt.Log}, done: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = p.tail, p.tail
	if err := errors.Join(cmd.Start(), theirs.Close()); err != nil {
		return nil, errors.Join(err, control.Close())
	}
	go p.wait()
	return p, nil
}

func (p *process) wait() {
	err := p.cmd.Wait()
	if err == nil {
		err = errors.New("it ended")
	}
	p.err = errors.Join(err, p.control.Close())
	close(p.done)
}

func (p *process) kill() error { return sandbox.KillGroup(p.cmd) }

// supervise replaces the worker when it dies, until life ends or it has died
// too often in a row.
func (e *Engine) supervise(life context.Context, p *process) {
	defer close(e.ended)
	for failed := 0; ; {
		<-p.done
		e.lost(p.err)
		if life.Err() != nil {
			return
		}
		if time.Since(p.began) > steady {
			failed = 0
		}
		e.opt.Log.WarnContext(life, "engine died", "model", e.opt.Name, "error", p.err, "last", p.tail.last())
		for p = nil; p == nil; {
			if failed++; failed > maxRestarts {
				e.opt.Log.ErrorContext(life, "engine given up", "model", e.opt.Name, "restarts", maxRestarts)
				return
			}
			select {
			case <-life.Done():
				return
			case <-time.After(firstBackoff << (failed - 1)):
			}
			var err error
			if p, err = e.launch(life, life); err != nil {
				e.opt.Log.WarnContext(life, "engine did not start again", "model", e.opt.Name, "error", err)
			}
		}
	}
}

// lost notes that there is no worker.
func (e *Engine) lost(why error) {
	e.mu.Lock()
	e.proc, e.why = nil, why
	e.mu.Unlock()
	e.transport.CloseIdleConnections()
}

// dial makes a connection to the worker, whatever the address.
func (e *Engine) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	e.mu.Lock()
	p, why := e.proc, e.why
	e.mu.Unlock()
	if p == nil {
		return nil, fmt.Errorf("%w: %w", engine.ErrDown, why)
	}
	conn, err := handOver(ctx, p.control)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", engine.ErrDown, err)
	}
	return conn, nil
}

// Report is what a worker answers when asked for its health.
type Report struct {
	Status  string        `json:"status"` // "ok"
	Context int           `json:"context"`
	Network sandbox.Level `json:"network"` // how it is without network, as found from inside
}

func (e *Engine) health(ctx context.Context) (r Report, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://engine/health", nil)
	if err != nil {
		return r, err
	}
	resp, err := e.transport.RoundTrip(req)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, resp.Body.Close()) }()
	if resp.StatusCode != http.StatusOK {
		return r, fmt.Errorf("health: %s", resp.Status)
	}
	return r, json.NewDecoder(io.LimitReader(resp.Body, 4096)).Decode(&r)
}

// tail writes what a worker prints to the log, line by line, and keeps the end
// of it for the error that explains why the worker died.
type tail struct {
	log *slog.Logger

	mu   sync.Mutex
	line []byte // guarded by mu; not yet ended
	kept []byte // guarded by mu; at most keptBytes
}

const (
	maxLine   = 1024 // bytes of a line that are logged
	keptBytes = 800
)

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.kept = append(t.kept, p...)
	t.kept = t.kept[max(0, len(t.kept)-keptBytes):]
	t.line = append(t.line, p...)
	for {
		n, line, err := bufio.ScanLines(t.line, false)
		if err != nil || n == 0 {
			break
		}
		t.log.Debug("engine says", "line", string(bytes.ToValidUTF8(line[:min(len(line), maxLine)], []byte("?"))))
		t.line = t.line[n:]
	}
	if len(t.line) > maxLine { // without an end: keep what would be logged
		t.line = t.line[:maxLine]
	}
	t.line = bytes.Clone(t.line)
	return len(p), nil
}

// last returns what was printed last, as the end of an error message.
func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if text := bytes.TrimSpace(t.kept); len(text) > 0 {
		return ": " + string(bytes.ToValidUTF8(text, []byte("?")))
	}
	return ""
}
