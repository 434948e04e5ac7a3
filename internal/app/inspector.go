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
	"enisle/internal/judge/inspect"
	"enisle/internal/judge/inspect/archive"
	"enisle/internal/judge/inspect/gguf"
	"enisle/internal/judge/inspect/keras"
	"enisle/internal/judge/inspect/onnx"
	"enisle/internal/judge/inspect/pickle"
	"enisle/internal/judge/inspect/repo"
	"enisle/internal/judge/inspect/safetensors"
	"enisle/internal/judge/inspect/skops"
	"enisle/internal/judge/inspect/template"
	"enisle/internal/judge/inspect/tensorflow"
	"enisle/internal/judge/inspect/wheel"
	"enisle/internal/sandbox"
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

// scanners are all of them, in the order in which findings are made.
func scanners() []inspect.Scanner {
	return []inspect.Scanner{archive.New(), wheel.New(), pickle.New(), gguf.New(), safetensors.New(), onnx.New(), keras.New(), skops.New(), tensorflow.New(), template.New(), repo.New()}
}

// inspector builds what inspects: the scanners, in a child. done ends the child.
func (a *App) inspector() (_ crossing.Inspector, done func() error) {
	c := &confined{limits: inspect.Limits{Time: 10 * time.Minute}}
	return &inspect.Runner{Scanners: scanners(), Limits: c.limits, Elsewhere: c.file}, c.end
}

type inspectOrder struct {
	Ref    artifact.Ref   `json:"ref"`
	File   artifact.File  `json:"file"`
	Limits inspect.Limits `json:"limits"`
}

type inspectAnswer struct {
	Part  inspect.Part `json:"part"`
	Error string       `json:"error,omitempty"`
}

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
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cmd == nil {
		if err := c.start(); err != nil {
			return p, err
		}
	}
	order, err := json.Marshal(inspectOrder{ref, f, c.limits})
	if err != nil {
		return p, err
	}
	stop := context.AfterFunc(ctx, c.stop)
	late := time.AfterFunc(c.limits.Time+inspectPatient, c.stop)
	defer func() { stop(); late.Stop() }()
	if err := c.control.Send(order, handle); err != nil {
		return p, c.died(err)
	}
	line, err := readAnswer(c.answers)
	if err != nil {
		return p, c.died(err)
	}
	var answer inspectAnswer
	if err := json.Unmarshal(line, &answer); err != nil {
		return p, errors.Join(errors.New("the answer cannot be read"), err, c.bury())
	}
	if answer.Error != "" {
		err = errors.New(answer.Error)
	}
	return answer.Part, err
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
	runner := inspect.Runner{Scanners: scanners()}
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
	if err == nil {
		runner.Limits = o.Limits
		out.Part, err = runner.File(ctx, o.Ref, o.File, handed{f, st.Size()}, func(int64) {})
	}
	if err != nil {
		out.Error = err.Error()
	}
	return out
}
