package app

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"syscall"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/crossing"
	"enisle/internal/infer/guard"
	"enisle/internal/judge/inspect"
	"enisle/internal/judge/inspect/archive"
	"enisle/internal/judge/inspect/asset"
	"enisle/internal/judge/inspect/gguf"
	"enisle/internal/judge/inspect/guardrules"
	"enisle/internal/judge/inspect/keras"
	"enisle/internal/judge/inspect/onnx"
	"enisle/internal/judge/inspect/packages"
	"enisle/internal/judge/inspect/pickle"
	"enisle/internal/judge/inspect/repo"
	"enisle/internal/judge/inspect/safetensors"
	"enisle/internal/judge/inspect/secrets"
	"enisle/internal/judge/inspect/skops"
	"enisle/internal/judge/inspect/template"
	"enisle/internal/judge/inspect/tensorflow"
	"enisle/internal/judge/inspect/vsa"
	"enisle/internal/judge/inspect/vulndb"
	"enisle/internal/judge/inspect/wheel"
	"enisle/internal/judge/vuln"
	"enisle/internal/sandbox"
	"enisle/internal/site"
)

// Scanners run in a child that has no network, no file but the one it was handed
// and a directory for what it unpacks, and little memory. Each file is handed over
// as a descriptor, with an order of one line; the answer is one line. A child that
// dies or takes too long costs the file that it was reading, which is refused.

// inspectVerb is the hidden verb of that child.
const inspectVerb = "inspect-confined"

const (
	inspectMemory  = 4 << 30 // bytes of a child
	inspectSpool   = 64 << 30
	inspectPatient = time.Minute // beyond the time that the scanners give themselves
	maxAnswer      = 256 << 20   // bytes
)

// Scanners are all of them, in the order in which findings are made.
func Scanners() []inspect.Scanner {
	return []inspect.Scanner{
		archive.New(), wheel.New(), pickle.New(), gguf.New(), safetensors.New(), onnx.New(), keras.New(), skops.New(), tensorflow.New(), asset.New(),
		template.New(), repo.New(), packages.New(), secrets.New(), vulndb.New(), guardrules.New(guard.Check),
		vsa.New(),
		vsa.Signatures{},
	}
}

// inspector builds what inspects: the scanners, in a child. done ends the child.
func (a *App) inspector(ctx context.Context, s *site.Site) (_ crossing.Inspector, done func() error, err error) {
	c := &confined{limits: inspect.Limits{Time: 10 * time.Minute}}
	m, err := crossing.Malware(ctx, s)
	return inspector{&inspect.Runner{Scanners: Scanners(), Limits: c.limits, Elsewhere: c.file}, c, m}, c.end, err
}

// inspector is the scanners, and what looks things up for them.
type inspector struct {
	*inspect.Runner
	child   *confined
	malware crossing.MalwareSettings
}

// inspectOrder is handed over with one file. Of its parts, exactly one is set.
type inspectOrder struct {
	Inspect *inspectFile     `json:"inspect,omitempty"` // judge the file
	Lookup  []vuln.Component `json:"lookup,omitempty"`  // in the file, which is vulnerability data
	Build   string           `json:"build,omitempty"`   // make vulnerability data of this ecosystem out of the file, an export
}

type inspectFile struct {
	Ref    artifact.Ref   `json:"ref"`
	File   artifact.File  `json:"file"`
	Limits inspect.Limits `json:"limits"`
}

type inspectAnswer struct {
	Part  inspect.Part `json:"part,omitzero"`
	Head  vuln.Head    `json:"head,omitzero"`
	Found []vuln.Found `json:"found,omitempty"`
	Error string       `json:"error,omitempty"`
}

// built is the name of what a child makes, in its directory.
const built = "built"

// confined is the child, started when it is needed.
type confined struct {
	limits inspect.Limits

	mu      sync.Mutex
	cmd     *exec.Cmd
	stop    context.CancelFunc
	control sandbox.Control // orders, each with a file
	answers *bufio.Reader   // a line each
	spool   string
	said    *tail
}

// file has one file judged.
func (c *confined) file(ctx context.Context, ref artifact.Ref, f artifact.File, b inspect.Blob) (p inspect.Part, err error) {
	handle, ok := b.(syscall.Conn)
	if !ok {
		return p, errors.New("it is no file that can be handed over")
	}
	answer, err := c.ask(ctx, inspectOrder{Inspect: &inspectFile{ref, f, c.limits}}, handle)
	return answer.Part, err
}

// ask hands a file over and waits for the answer.
func (c *confined) ask(ctx context.Context, what inspectOrder, handle syscall.Conn) (answer inspectAnswer, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cmd == nil {
		if err := c.start(); err != nil {
			return answer, err
		}
	}
	order, err := json.Marshal(what)
	if err != nil {
		return answer, err
	}
	if err := ctx.Err(); err != nil {
		return answer, err
	}
	stop := context.AfterFunc(ctx, c.stop)
	late := time.AfterFunc(c.limits.Time+inspectPatient, c.stop)
	defer func() { stop(); late.Stop() }()
	if err := c.control.Send(order, handle); err != nil {
		return answer, c.died(err)
	}
	line, err := readAnswer(c.answers)
	if err != nil {
		return answer, c.died(err)
	}
	if err := json.Unmarshal(line, &answer); err != nil {
		return answer, errors.Join(errors.New("the answer cannot be read"), err, c.bury())
	}
	if ctx.Err() != nil {
		return answer, errors.Join(ctx.Err(), c.bury()) // it was stopped, or is being
	}
	if answer.Error != "" {
		err = errors.New(answer.Error)
	}
	return answer, err
}

// died says how the child ended, and makes room for the next.
func (c *confined) died(err error) error {
	said := c.said
	if how := c.bury(); how != nil {
		err = how
	}
	return fmt.Errorf("what reads it has died, or took too long: %w%s", err, said.last())
}

// readAnswer reads one line of at most maxAnswer bytes.
func readAnswer(r *bufio.Reader) (line []byte, err error) {
	for {
		part, err := r.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return line, nil
		case len(line) > maxAnswer:
			return nil, errors.New("its answer does not end")
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		}
	}
}

// start starts the child.
func (c *confined) start() (err error) {
	if c.spool, err = os.MkdirTemp("", "enisle-inspect-"); err != nil {
		return err
	}
	control, theirs, err := sandbox.NewControl()
	if err != nil {
		return errors.Join(err, os.RemoveAll(c.spool))
	}
	c.control = control
	life, stop := context.WithCancel(context.Background())
	c.stop = stop
	cmd, err := sandbox.Command(life, sandbox.Spec{
		Read: sandbox.SystemLibraries(), Write: []string{c.spool}, Net: sandbox.NetNone, NoConnect: true, NoBind: true, NoUnix: true, NoExec: true,
		MaxMemory: inspectMemory, MaxFiles: 256, MaxFileSize: inspectSpool, Nice: 5,
	}, sandbox.Self, inspectVerb)
	if err == nil {
		c.said = &tail{}
		cmd.Dir, cmd.ExtraFiles, cmd.Stderr = c.spool, []*os.File{theirs}, c.said
		cmd.Env = []string{"HOME=/", "TMPDIR=" + c.spool, "LC_ALL=C.UTF-8", "GOTRACEBACK=single", "GOMEMLIMIT=2GiB"}
		var pipe io.ReadCloser
		if pipe, err = cmd.StdoutPipe(); err == nil {
			c.answers = bufio.NewReaderSize(pipe, 64<<10)
			err = cmd.Start()
		}
	}
	err = errors.Join(err, theirs.Close())
	if err != nil {
		stop()
		return errors.Join(err, c.control.Close(), os.RemoveAll(c.spool))
	}
	c.cmd = cmd
	return nil
}

// bury ends the child, so that the next file begins with a new one. It returns how
// the child ended, if not well.
func (c *confined) bury() error {
	if c.cmd == nil {
		return nil
	}
	err := c.control.Close()
	c.stop()
	werr := c.cmd.Wait()
	c.cmd = nil
	return errors.Join(werr, err, os.RemoveAll(c.spool))
}

// end ends the child when there is nothing left to read.
func (c *confined) end() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cmd == nil {
		return nil
	}
	err := c.control.Close() // it reads the end, and goes
	late := time.AfterFunc(5*time.Second, c.stop)
	werr := c.cmd.Wait()
	late.Stop()
	c.stop()
	c.cmd = nil
	return errors.Join(err, werr, os.RemoveAll(c.spool))
}

// tail keeps the last words of a child.
type tail struct {
	mu  sync.Mutex
	buf []byte // under mu
}

func (t *tail) Write(b []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.buf = append(t.buf, b...)
	if len(t.buf) > 2000 {
		t.buf = t.buf[:2000] // the first words say why
	}
	return len(b), nil
}

func (t *tail) last() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.buf) == 0 {
		return ""
	}
	return ": " + string(t.buf[:min(len(t.buf), 200)])
}

// inspectConfined is the child: it judges what it is handed until there is no more.
func inspectConfined(ctx context.Context) error {
	if _, err := sandbox.Unreachable(); err != nil {
		return err
	}
	if err := sandbox.Seal(); err != nil {
		return err
	}
	const control = 3 // the first file it inherits
	runner := inspect.Runner{Scanners: Scanners()}
	buf := make([]byte, 1<<20)
	out := json.NewEncoder(os.Stdout)
	for {
		order, f, err := sandbox.Receive(control, buf)
		if err != nil || f == nil {
			return err
		}
		if err := out.Encode(judgeHanded(ctx, runner, order, f)); err != nil {
			return err
		}
	}
}

// handed is a file that came as a descriptor.
type handed struct {
	*os.File
	size int64
}

func (h handed) Size() int64 { return h.size }

func judgeHanded(ctx context.Context, runner inspect.Runner, order []byte, f *os.File) (out inspectAnswer) {
	defer func() {
		if err := f.Close(); err != nil && out.Error == "" {
			out.Error = err.Error()
		}
	}()
	var o inspectOrder
	st, err := f.Stat()
	if err == nil {
		err = json.Unmarshal(order, &o)
	}
	switch {
	case err != nil:
	case o.Inspect != nil:
		runner.Limits = o.Inspect.Limits
		out.Part, err = runner.File(ctx, o.Inspect.Ref, o.Inspect.File, handed{f, st.Size()}, func(int64) {})
	case o.Build != "":
		out.Head, err = buildData(ctx, o.Build, handed{f, st.Size()})
	default:
		out.Head, out.Found, err = lookup(o.Lookup, handed{f, st.Size()})
	}
	if err != nil {
		out.Error = err.Error()
	}
	return out
}
