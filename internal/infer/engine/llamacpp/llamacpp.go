// Package llamacpp runs a GGUF model with llama.cpp in a confined child.
//
// The child runs this very executable with the hidden verb "engine-worker"
// (package worker), inside package sandbox: it has no network, sees the
// system's libraries, its own libraries and weights and nothing else, can start
// no program, and is limited in memory. It inherits libraries and weights as
// open descriptors which the parent has hashed, so that nothing can be put in
// their place between check and use; whoever may write to the very files can
// still change them, and the caller must see to that. Requests travel over
// socket pairs that the parent hands over, so that neither side listens
// anywhere or dials. A crash of the C++ code ends the child only.
//
// This package does not link llama.cpp's binding; package worker does.
package llamacpp

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"time"

	"enisle/internal/fail"
	"enisle/internal/infer/engine"
	"enisle/internal/infer/engine/child"
)

// Options say what to run. Library, Model and Name are needed; for the others
// the zero value works.
type Options struct {
	Name    string            // what clients call the model
	Library []child.NamedFile // the files of the engine's artifact, with its build metadata
	Model   []child.NamedFile // the files of the model's artifact; those named .gguf are used
	Weights string            // digest of the model's artifact, as clients are told it
	Size    int64             // bytes of that artifact, likewise; 0: unknown
	Since   time.Time         // when the model was made available; zero means now

	Threads   int           // 0 means one less than there are processors, at least 1
	Context   int           // tokens; 0 means 4096; never more than the model was trained for
	Queue     int           // requests that may wait for the running one; 0 means 8
	MaxMemory int64         // bytes beside the weights, which are mapped from their file; 0 means 2 GiB and as much as the weights
	StartTime time.Duration // until the model must be loaded; 0 means two minutes
	TempDir   string        // where the directory of links is made; "" means the system's
	Strict    bool          // refuse to run less confined than described
	Log       *slog.Logger  // nil means discard; what the worker prints comes at debug level
	Record    func(string)  // events of the worker, see child.Options; may be nil
}

func (o Options) withDefaults() Options {
	if o.Threads <= 0 {
		o.Threads = max(1, runtime.NumCPU()-1) // one more than there are idle ones and ggml spins itself to a halt
	}
	if o.Context <= 0 {
		o.Context = 4096
	}
	if o.Queue <= 0 {
		o.Queue = 8
	}
	if o.Since.IsZero() {
		o.Since = time.Now()
	}
	return o
}

// Order is what the worker is told, as its one argument.
type Order struct {
	Name    string   `json:"name"`
	Control int      `json:"control"` // descriptor of the control socket
	Dir     string   `json:"dir"`     // the directory of links
	Models  []string `json:"models"`  // names in it
	Threads int      `json:"threads"`
	Context int      `json:"context"`
	Queue   int      `json:"queue"`
	Release string   `json:"release"` // of llama.cpp, as checked
}

// Engine is a running child, replaced when it dies.
type Engine struct {
	opt       Options
	files     files
	dir       string
	transport *http.Transport
	child     *child.Child

	mu      sync.Mutex
	control *net.UnixConn // guarded by mu; to the last worker
	context int           // guarded by mu; tokens, as the worker reported
	chat    bool          // guarded by mu; whether it answers conversations, likewise
}

var _ engine.Engine = (*Engine)(nil)

// Start verifies the files, starts the worker and returns when it has loaded
// the model. ctx bounds the start only; Close ends the engine. It refuses
// (fail.Refused) files that are not what their digests say and libraries of
// another llama.cpp than the one that fits.
func Start(ctx context.Context, opt Options) (*Engine, error) {
	opt = opt.withDefaults()
	if opt.Name == "" {
		return nil, fail.As(fail.Usage, "", errors.New("engine: the model has no name"))
	}
	fs, err := check(ctx, opt.Library, opt.Model)
	if err != nil {
		return nil, fmt.Errorf("engine for %s: %w", opt.Name, err)
	}
	if opt.MaxMemory <= 0 {
		opt.MaxMemory = 2<<30 + fs.bytes
	}
	e := &Engine{opt: opt, files: fs}
	e.transport = &http.Transport{DialContext: e.dial, DisableCompression: true, MaxIdleConns: 4, IdleConnTimeout: time.Minute}
	if e.dir, err = child.Links(opt.TempDir, firstFile, fs.list, names); err != nil {
		return nil, err
	}
	e.child = child.New(child.Options{
		Name: opt.Name, Spawn: e.spawn, Ready: e.ready, StartTime: opt.StartTime, MaxMemory: opt.MaxMemory, Record: opt.Record, Log: opt.Log,
	})
	if err := e.child.Start(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("engine for %s: %w", opt.Name, err), os.RemoveAll(e.dir))
	}
	return e, nil
}

// Models returns the one model.
func (e *Engine) Models() []engine.Model {
	e.mu.Lock()
	defer e.mu.Unlock()
	return []engine.Model{{ID: e.opt.Name, Context: e.context, Since: e.opt.Since, Weights: e.opt.Weights, Size: e.opt.Size}}
}

// Traits say that the worker does one thing at a time and keeps nothing of it.
func (e *Engine) Traits() engine.Traits {
	e.mu.Lock()
	defer e.mu.Unlock()
	paths := []string{"/v1/completions", "/tokenize", "/detokenize"}
	if e.chat {
		paths = append(paths, "/v1/chat/completions")
	}
	return engine.Traits{Name: e.opt.Name, Kind: "llama.cpp", Paths: paths, Parallel: 1, Separate: engine.Stateless, Local: true}
}

// Transport returns the way to the worker while it takes requests.
func (e *Engine) Transport() http.RoundTripper { return e.child.Transport(e.transport) }

// Health asks the worker.
func (e *Engine) Health(ctx context.Context) error {
	if err := e.child.Down(); err != nil {
		return err
	}
	_, err := e.health(ctx)
	return err
}

// Close kills the worker and removes what was made for it. The caller may
// close the files afterwards.
func (e *Engine) Close() error {
	err := e.child.Close()
	e.transport.CloseIdleConnections()
	return errors.Join(err, os.RemoveAll(e.dir))
}
