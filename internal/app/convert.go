package app

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"enisle/internal/artifact"
	"enisle/internal/crossing"
	"enisle/internal/fail"
	"enisle/internal/judge/inspect"
	"enisle/internal/sandbox"
)

// ConvertOptions say what is converted.
type ConvertOptions struct {
	In     string // a checkpoint of torch
	Out    string // the safetensors file to write
	Key    string // take only what stands below it; empty: everything
	DryRun bool   // say what would be written
	Force  bool   // Out may exist, and is replaced
}

// Conversion says what was converted, or would be.
type Conversion struct {
	Input        string            `json:"input"`
	InputDigest  artifact.Digest   `json:"inputDigest"`
	Output       string            `json:"output,omitempty"` // empty: nothing was written
	OutputDigest artifact.Digest   `json:"outputDigest,omitempty"`
	Format       string            `json:"format"` // of the input: zip or legacy
	Size         int64             `json:"size"`   // bytes of the output
	Tensors      []ConvertedTensor `json:"tensors"`
	LeftOut      []LeftOut         `json:"leftOut"`
	// Elsewhere is how many tensors stood outside of the key.
	Elsewhere int `json:"elsewhere"`
}

// ConvertedTensor is one tensor of the output.
type ConvertedTensor struct {
	Name  string   `json:"name"`
	Type  string   `json:"type"`
	Shape []uint64 `json:"shape"`
	Bytes int64    `json:"bytes"`
	// SharesWith is the first tensor that looks at the same storage; both are
	// written out in full.
	SharesWith string `json:"sharesWith,omitempty"`
}

// LeftOut is a value of the input that is no tensor.
type LeftOut struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"`
	Value string `json:"value"` // at most 1 KiB of it
	// Metadata says that the value is kept as text in the metadata of the output.
	Metadata bool `json:"metadata"`
}

const convertHint = "nothing was written; make a safetensors file where the checkpoint was made, or bring a checkpoint of plain tensors (state_dict)"

// Convert writes the tensors of a checkpoint as safetensors, bit by bit. The
// scanners judge the file first; both they and what reads it afterwards run in
// confined children, and nothing of it is executed.
func (a *App) Convert(ctx context.Context, o ConvertOptions) (out Conversion, err error) {
	in, before, err := openCheckpoint(o)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	digest, err := a.judgeCheckpoint(ctx, in, before.Size())
	if err != nil {
		return out, err
	}
	var tmp *os.File
	if !o.DryRun {
		name := filepath.Join(filepath.Dir(o.Out), "."+filepath.Base(o.Out)+"."+rand.Text()[:12])
		if tmp, err = os.OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644); err != nil {
			return out, err
		}
		defer func() {
			err = errors.Join(err, tmp.Close())
			if rerr := os.Remove(name); !errors.Is(rerr, fs.ErrNotExist) {
				err = errors.Join(err, rerr)
			}
		}()
	}
	out, err = a.convertElsewhere(ctx, convertOrder{Key: o.Key, Write: tmp != nil}, in, tmp)
	if err != nil {
		return out, err
	}
	after, err := in.Stat()
	if err != nil {
		return out, err
	}
	if after.Size() != before.Size() || !after.ModTime().Equal(before.ModTime()) {
		return out, fail.Refuse("convert a file that nothing else writes", fmt.Errorf("%s changed while it was read", o.In))
	}
	out.Input, out.InputDigest = o.In, digest
	if tmp != nil {
		err = publish(tmp, o.Out, o.Force)
		out.Output = o.Out
	}
	return out, err
}

// openCheckpoint opens the input and looks whether the output may be written.
func openCheckpoint(o ConvertOptions) (in *os.File, st fs.FileInfo, err error) {
	if o.Out == "" && !o.DryRun {
		return nil, nil, fail.As(fail.Usage, "name the file to write with --to, or give --dry-run", errors.New("where is the result written to?"))
	}
	if st, err = os.Stat(o.In); err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is no regular file", o.In)
	}
	if err != nil {
		return nil, nil, fail.As(fail.Usage, "name a checkpoint of torch", err)
	}
	if old, err := os.Lstat(o.Out); err == nil && !o.DryRun {
		if os.SameFile(old, st) {
			return nil, nil, fail.As(fail.Usage, "name another file with --to", errors.New("the checkpoint would be replaced by what it is read for"))
		}
		if !o.Force {
			return nil, nil, fail.Refuse("name another file with --to, or give --force", fmt.Errorf("%s exists", o.Out))
		}
	}
	if in, err = os.Open(o.In); err != nil {
		return nil, nil, err
	}
	if st, err = in.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, nil, errors.Join(errors.New("the checkpoint is no regular file any more"), err, in.Close())
	}
	return in, st, nil
}

// judgeCheckpoint has the scanners judge the file as a model, and refuses what
// they would refuse.
func (a *App) judgeCheckpoint(ctx context.Context, in *os.File, size int64) (digest artifact.Digest, err error) {
	done := a.progress()("hash", size)
	h := sha256.New()
	buf := make([]byte, 1<<20)
	for at := int64(0); at < size; {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		n, err := in.ReadAt(buf[:min(int64(len(buf)), size-at)], at)
		if err != nil && !errors.Is(err, io.EOF) || n == 0 {
			return "", fmt.Errorf("read at %d: %w", at, errors.Join(err, io.ErrUnexpectedEOF))
		}
		h.Write(buf[:n])
		at += int64(n)
		done(int64(n))
	}
	digest = artifact.FromSum([32]byte(h.Sum(nil)))
	name := filepath.Base(in.Name())
	scan := &confined{limits: inspect.Limits{Time: 10 * time.Minute}}
	defer func() { err = errors.Join(err, scan.end()) }()
	part, err := scan.file(ctx, artifact.Ref{Kind: "model", Name: name}, artifact.File{Path: name, Size: size, Digest: digest}, handed{in, size})
	if err != nil {
		return "", errors.Join(ctx.Err(), fail.Refuse("nothing was written; the file is no honest checkpoint, or memory is short", fmt.Errorf("the file could not be judged: %w", err)))
	}
	refusals := 0
	first := ""
	for _, f := range part.Findings {
		if f.Severity == inspect.Refuse {
			if refusals++; refusals == 1 {
				first = fmt.Sprintf("%s: %s", f.File, f.Detail)
			}
		}
	}
	if refusals > 0 {
		return "", fail.Refuse(convertHint, fmt.Errorf("the scanners refuse it, %d times; first %s", refusals, first))
	}
	return digest, nil
}

func (a *App) progress() crossing.Progress {
	if a.Progress != nil {
		return a.Progress
	}
	return func(string, int64) func(int64) { return func(int64) {} }
}

// publish makes the finished file visible under its name, all or nothing.
func publish(tmp *os.File, name string, force bool) error {
	if err := tmp.Sync(); err != nil {
		return err
	}
	var err error
	if force {
		err = os.Rename(tmp.Name(), name)
	} else {
		err = unix.Renameat2(unix.AT_FDCWD, tmp.Name(), unix.AT_FDCWD, name, unix.RENAME_NOREPLACE)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // not every file system can
			if _, serr := os.Lstat(name); serr == nil {
				err = unix.EEXIST
			} else {
				err = os.Rename(tmp.Name(), name)
			}
		}
	}
	if errors.Is(err, unix.EEXIST) {
		return fail.Refuse("name another file with --to, or give --force", fmt.Errorf("%s exists", name))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// convertElsewhere has a confined child read the checkpoint and write the output,
// and passes on what it says.
func (a *App) convertElsewhere(ctx context.Context, o convertOrder, in, tmp *os.File) (out Conversion, err error) {
	order, err := json.Marshal(o)
	if err != nil {
		return out, err
	}
	life, stop := context.WithCancel(ctx)
	defer stop()
	cmd, err := sandbox.Command(life, sandbox.Spec{
		Read: sandbox.SystemLibraries(), Net: sandbox.NetNone, NoConnect: true, NoBind: true, NoUnix: true, NoExec: true,
		MaxMemory: inspectMemory, MaxFiles: 64, Nice: 5,
	}, sandbox.Self, convertVerb)
	if err != nil {
		return out, err
	}
	said := &tail{}
	cmd.Dir, cmd.Stderr, cmd.Stdin, cmd.ExtraFiles = "/", said, bytes.NewReader(order), []*os.File{in}
	if tmp != nil {
		cmd.ExtraFiles = append(cmd.ExtraFiles, tmp)
	}
	cmd.Env = []string{"HOME=/", "LC_ALL=C.UTF-8", "GOTRACEBACK=single", "GOMEMLIMIT=2GiB"}
	pipe, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return out, err
	}
	answer, err := a.follow(bufio.NewReaderSize(pipe, 64<<10))
	if err != nil {
		stop()
	}
	werr := cmd.Wait()
	if ctx.Err() != nil {
		return out, ctx.Err()
	}
	if err = errors.Join(err, werr); err != nil {
		return out, fail.Refuse("nothing was written; the file is no honest checkpoint, or memory is short", fmt.Errorf("what reads it has died: %w%s", err, said.last()))
	}
	if answer.Error == "" {
		return answer.Conversion, nil
	}
	err = fmt.Errorf("%s: %s", filepath.Base(in.Name()), answer.Error)
	if answer.Refused {
		hint := answer.Hint
		if hint == "" {
			hint = convertHint
		}
		return out, fail.Refuse(hint, err)
	}
	return out, err
}

// follow reads what the child says until it is done.
func (a *App) follow(r *bufio.Reader) (*convertAnswer, error) {
	done := func(int64) {}
	for {
		line, err := readAnswer(r)
		if err != nil {
			return nil, err
		}
		var word convertWord
		if err := json.Unmarshal(line, &word); err != nil {
			return nil, fmt.Errorf("its answer cannot be read: %w", err)
		}
		switch {
		case word.Answer != nil:
			return word.Answer, nil
		case word.Total > 0:
			done = a.progress()("convert", word.Total)
		default:
			done(max(0, word.Done))
		}
	}
}
