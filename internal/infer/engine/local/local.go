// Package local runs an engine's own server as a confined child: that of llama.cpp.
//
// The program comes from a released artifact and is executed from a copy in memory that
// was hashed and sealed; its libraries and the weights are inherited as open descriptors
// which were hashed (package child). The process has no network, can connect to nothing,
// make no other process, and write nothing; it may make one Unix socket in a directory of
// its own, where the caller connects to it. How it is spoken to is package remote.
package local

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"enisle/internal/fail"
	"enisle/internal/infer/engine"
	"enisle/internal/infer/engine/child"
	"enisle/internal/infer/engine/remote"
	"enisle/internal/sandbox"
)

// SocketName is the name of the socket in the directory of an engine.
const SocketName = "engine.sock"

// maxSocket is how long the path of a Unix socket may be, in bytes; unix(7).
const maxSocket = 107

// Options say what to run. Name, Kind, Program, Model, Serves.ID, Dir and Dial are
// needed; for the others the zero value works.
type Options struct {
	Name    string            // of the engine, for the log
	Kind    string            // one of Kinds
	Program []child.NamedFile // files of the engine's artifact: its program, and libraries
	Model   []child.NamedFile // files of the model's artifact
	Serves  engine.Model      // the model; Context is tokens of one call, 0 means 4096
	Task    string            // one of Tasks
	Dir     string            // of the socket, made if need be; nobody else writes to it
	// Dial connects to the socket, which not everybody may who starts children.
	Dial func(ctx context.Context) (net.Conn, error)

	Parallel  int           // calls that it works on at a time; 0 means 1
	Threads   int           // 0 means one less than there are processors, at least 1
	MaxMemory int64         // bytes beside the weights, which are mapped; 0 means 2 GiB and as much as the weights
	StartTime time.Duration // until the model must be loaded; 0 means ten minutes
	TempDir   string        // where the directory of links is made; "" means the system's
	Strict    bool          // refuse to run less confined than described
	Log       *slog.Logger  // nil means discard
	Record    func(string)  // see child.Options; may be nil
}

func (o Options) withDefaults() Options {
	if o.Serves.Context <= 0 {
		o.Serves.Context = 4096
	}
	o.Parallel = max(1, o.Parallel)
	if o.Threads <= 0 {
		o.Threads = max(1, runtime.NumCPU()-1)
	}
	if o.StartTime <= 0 {
		o.StartTime = 10 * time.Minute
	}
	if o.Serves.Since.IsZero() {
		o.Serves.Since = time.Now()
	}
	return o
}

// Descriptors of the child.
const (
	programFile = 3
	firstFile   = 4 // of the libraries and the weights
)

// Engine is a running server, replaced when it dies.
type Engine struct {
	*remote.Engine
	opt     Options
	kind    kind
	program *os.File
	linked  []child.NamedFile
	weights []string // names in dir
	dir     string
	child   *child.Child
}

var (
	_ engine.Engine = (*Engine)(nil)
	_ engine.Loaded = (*Engine)(nil)
)

// Start verifies the files, starts the server and returns when it has loaded the model.
// ctx bounds the start only; Close ends the engine. It refuses (fail.Refused) files that
// are not what their digests say, and artifacts that are no program or no single model.
func Start(ctx context.Context, opt Options) (_ *Engine, err error) {
	e := &Engine{opt: opt.withDefaults()}
	defer func() {
		if err != nil {
			err = fmt.Errorf("engine %s: %w", opt.Name, err)
			if e.Engine != nil {
				err = errors.Join(err, e.Engine.Close())
			}
			err = errors.Join(err, e.clean())
		}
	}()
	var ok bool
	if e.kind, ok = kinds()[opt.Kind]; !ok {
		return nil, fail.As(fail.Usage, "kinds are "+strings.Join(Kinds(), ", "), fmt.Errorf("no engine of kind %q is started here", opt.Kind))
	}
	if err := e.check(ctx); err != nil {
		return nil, err
	}
	if e.dir, err = child.Links(opt.TempDir, firstFile, e.linked, names(e.linked)); err != nil {
		return nil, err
	}
	if len(e.socket()) > maxSocket {
		return nil, fail.As(fail.Failed, "set TMPDIR to a shorter path", fmt.Errorf("the path of its socket has %d bytes: %s", len(e.socket()), e.socket()))
	}
	if err := os.MkdirAll(e.opt.Dir, 0o700); err != nil {
		return nil, err
	}
	if e.Engine, err = remote.New(ctx, remote.Options{
		Name: opt.Name, Kind: opt.Kind, Dial: opt.Dial, Parallel: e.opt.Parallel, Models: []engine.Model{e.opt.Serves}, Log: opt.Log,
	}); err != nil {
		return nil, err
	}
	return e, e.child.Start(ctx)
}

// check verifies the files and finds out what is what.
func (e *Engine) check(ctx context.Context) error {
	o := &e.opt
	if err := child.Verify(ctx, append(slices.Clone(o.Program), o.Model...)...); err != nil {
		return err
	}
	i := slices.IndexFunc(o.Program, func(f child.NamedFile) bool { return f.Base() == e.kind.program })
	if i < 0 {
		return fail.Refuse("release an engine with that file", fmt.Errorf("its artifact has no program %s", e.kind.program))
	}
	for _, f := range o.Program {
		if base := f.Base(); strings.HasSuffix(base, ".so") || strings.Contains(base, ".so.") {
			e.linked = append(e.linked, f)
		}
	}
	bytes, err := e.findWeights()
	if err != nil {
		return err
	}
	if o.MaxMemory <= 0 {
		o.MaxMemory = 2<<30 + bytes
	}
	e.child = child.New(child.Options{
		Name: o.Name, Spawn: e.spawn, Ready: e.ready, StartTime: o.StartTime, MaxMemory: o.MaxMemory, Record: o.Record, Log: o.Log,
	})
	e.program, err = o.Program[i].Program(ctx)
	return err
}

// findWeights returns the bytes of the weights: one GGUF file, or all parts of one.
func (e *Engine) findWeights() (bytes int64, err error) {
	for _, f := range e.opt.Model {
		if !strings.HasSuffix(f.Base(), ".gguf") {
			continue
		}
		st, err := f.File.Stat()
		if err != nil {
			return 0, fmt.Errorf("%s: %w", f.Name, err)
		}
		e.linked, e.weights, bytes = append(e.linked, f), append(e.weights, f.Base()), bytes+st.Size()
	}
	slices.Sort(e.weights)
	n := len(e.weights)
	if n == 0 {
		return 0, fail.Refuse("name a model that comes as GGUF", errors.New("no .gguf file in the model"))
	}
	if n > 1 && !strings.HasSuffix(e.weights[0], fmt.Sprintf("-00001-of-%05d.gguf", n)) {
		return 0, fail.Refuse("bring one GGUF, with all of its parts, as a model", fmt.Errorf("the model has %d .gguf files that are not the parts of one", n))
	}
	return bytes, nil
}

// names gives those under which a file is linked: a library is looked for by another name
// than the file may have. The first that has that name is it.
func names(all []child.NamedFile) func(child.NamedFile) []string {
	taken := map[string]bool{}
	for _, f := range all {
		taken[f.Base()] = true
	}
	return func(f child.NamedFile) []string {
		names := []string{f.Base()}
		if s := f.Soname(); s != "" && !taken[s] {
			taken[s] = true
			names = append(names, s)
		}
		return names
	}
}

func (e *Engine) socket() string { return filepath.Join(e.opt.Dir, SocketName) }

// spawn makes the next process.
func (e *Engine) spawn(life context.Context) (p child.Process, err error) {
	if err := os.Remove(e.socket()); err != nil && !errors.Is(err, os.ErrNotExist) { // of the one before
		return p, err
	}
	spec := sandbox.Spec{
		Read: append(sandbox.SystemLibraries(), e.dir), Sockets: []string{e.opt.Dir},
		Net: sandbox.NetNone, NoConnect: true, NoBind: true, NoExec: true, NoFork: true,
		MaxMemory: e.opt.MaxMemory, MaxFiles: 4096, Nice: 5, Strict: e.opt.Strict,
	}
	for i := range e.linked {
		spec.ReadFiles = append(spec.ReadFiles, firstFile+i)
	}
	argv := append([]string{sandbox.ProgramFile(programFile)}, e.kind.args(e)...)
	if p.Cmd, err = sandbox.Command(life, spec, argv...); err != nil {
		return p, err
	}
	p.Cmd.Cancel = func() error { return sandbox.EndGroup(p.Cmd) }
	p.Cmd.Dir = e.dir // where ggml looks for its variants for each processor
	p.Cmd.Env = append([]string{"HOME=/", "LC_ALL=C.UTF-8", "LD_LIBRARY_PATH=" + e.dir}, e.kind.env...)
	p.Cmd.ExtraFiles = []*os.File{e.program}
	for _, f := range e.linked {
		p.Cmd.ExtraFiles = append(p.Cmd.ExtraFiles, f.File)
	}
	return p, nil
}

// ready waits until the server says that it takes requests.
func (e *Engine) ready(ctx context.Context) ([]any, error) {
	for {
		err := e.Poll(ctx)
		if err == nil {
			return []any{"kind", e.opt.Kind, "socket", e.socket()}, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(200 * time.Millisecond):
		}
	}
}

// Transport returns the way to the server while it takes requests.
func (e *Engine) Transport() http.RoundTripper { return e.child.Transport(e.Engine.Transport()) }

// Traits are those of the kind, on this machine.
func (e *Engine) Traits() engine.Traits {
	t := e.Engine.Traits()
	t.Local = true
	return t
}

// Models returns the one model, which is there, or will be again.
func (e *Engine) Models() []engine.Model { return []engine.Model{e.opt.Serves} }

// Health returns what was found when it was last asked, or why it is not there.
func (e *Engine) Health(ctx context.Context) error {
	if err := e.child.Down(); err != nil {
		return err
	}
	return e.Engine.Health(ctx)
}

// Close ends the answers that have begun, asks the server to end and kills it if it does
// not within five seconds. The caller may close the files afterwards.
func (e *Engine) Close() error {
	err := e.Engine.Close()
	return errors.Join(err, e.child.Close(), e.clean())
}

// clean removes what was made for the process.
func (e *Engine) clean() (err error) {
	if e.program != nil {
		err = e.program.Close()
	}
	if e.dir != "" {
		err = errors.Join(err, os.RemoveAll(e.dir), os.RemoveAll(e.opt.Dir))
	}
	return err
}
