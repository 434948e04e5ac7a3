package llamacpp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"

	"enisle/internal/infer/engine"
	"enisle/internal/infer/engine/child"
	"enisle/internal/sandbox"
)

// Verb is the hidden first argument under which the program must call
// worker.Run.
const Verb = "engine-worker"

const (
	controlFile = 3 // descriptor of the control socket in the child
	firstFile   = 4 // descriptor of the first library
)

// ready waits until the worker has loaded the model.
func (e *Engine) ready(ctx context.Context) ([]any, error) {
	report, err := e.health(ctx)
	if err != nil {
		return nil, fmt.Errorf("worker: %w", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.context, e.chat = report.Context, report.Chat
	return []any{"context", report.Context, "network", string(report.Network)}, nil
}

// spawn makes the next worker.
func (e *Engine) spawn(life context.Context) (p child.Process, err error) {
	order, err := json.Marshal(Order{
		Name: e.opt.Name, Control: controlFile, Dir: e.dir, Models: e.files.models,
		Threads: e.opt.Threads, Context: e.opt.Context, Queue: e.opt.Queue, Release: release,
	})
	if err != nil {
		return p, fmt.Errorf("order: %w", err)
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
		return p, err
	}
	control, theirs, err := newControl()
	if err != nil {
		return p, err
	}
	cmd.Dir = "/"
	cmd.Env = []string{"HOME=/", "LC_ALL=C.UTF-8", "GOTRACEBACK=single"}
	cmd.ExtraFiles = []*os.File{theirs}
	for _, f := range e.files.list {
		cmd.ExtraFiles = append(cmd.ExtraFiles, f.File)
	}
	e.mu.Lock()
	e.control = control
	e.mu.Unlock()
	e.transport.CloseIdleConnections() // to the one before
	return child.Process{Cmd: cmd, Theirs: []io.Closer{theirs}, Ours: []io.Closer{control}}, nil
}

// dial makes a connection to the worker, whatever the address.
func (e *Engine) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	e.mu.Lock()
	control := e.control
	e.mu.Unlock()
	conn, err := handOver(ctx, control)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", engine.ErrDown, err)
	}
	return conn, nil
}

// Report is what a worker answers when asked for its health.
type Report struct {
	Status  string        `json:"status"` // "ok"
	Context int           `json:"context"`
	Chat    bool          `json:"chat"`    // it has a chat template
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
