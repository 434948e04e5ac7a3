package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// maxOutput is how much a client may print on either stream, in bytes.
const maxOutput = 16 << 20

// Exec runs the clients of other people (pip, npm, cargo …) with the network
// of this process, without sight of what is hidden, and without any place to
// write but their directory, a temporary one of their own and their caches.
// The zero value works.
type Exec struct {
	// Cache lists directories that clients may write besides; those that do
	// not exist are made. Nil means Caches of the client.
	Cache []string
	// Env is the environment; nil means that of this process, without the
	// variables whose names begin with ENISLE_.
	Env []string
	// Spec is where limits and Strict are set; Write and Hidden are added to.
	Spec Spec
}

// Caches returns where a client keeps what it downloaded, as far as that can
// be known from its name and from this process's environment: the user's cache
// directory, and for npm, cargo and go their own.
func Caches(program string) []string {
	var dirs []string
	if d, err := os.UserCacheDir(); err == nil {
		dirs = append(dirs, d)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return dirs
	}
	named := func(variable, standard string) string {
		if d := os.Getenv(variable); filepath.IsAbs(d) {
			return d
		}
		return filepath.Join(home, standard)
	}
	switch filepath.Base(program) {
	case "npm", "npx", "node":
		dirs = append(dirs, named("npm_config_cache", ".npm"))
	case "cargo":
		dirs = append(dirs, named("CARGO_HOME", ".cargo")) // its lock files are beside its caches
	case "go":
		dirs = append(dirs, filepath.Join(named("GOPATH", "go"), "pkg"))
	}
	return dirs
}

// Run runs argv in dir and returns what it printed, at most 16 MiB on either
// stream; a client that prints more is killed. The temporary directory is
// TMPDIR to the client and is removed afterwards, and whatever the client left
// running is killed. The error wraps *exec.ExitError when the client ran and
// failed, and ends in the last line it wrote on stderr.
func (e Exec) Run(ctx context.Context, dir string, hidden []string, argv []string) (stdout, stderr []byte, err error) {
	if len(argv) == 0 {
		return nil, nil, errors.New("sandbox: no program to run")
	}
	tmp, err := os.MkdirTemp("", "enisle-run-")
	if err != nil {
		return nil, nil, fmt.Errorf("temporary directory: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()

	spec := e.Spec
	spec.Hidden = append(append([]string{}, spec.Hidden...), hidden...)
	spec.Write = append(append([]string{}, spec.Write...), dir, tmp)
	spec.NoUnix = true
	caches := e.Cache
	if caches == nil {
		caches = Caches(argv[0])
	}
	for _, c := range caches {
		if err := os.MkdirAll(c, 0o755); err != nil {
			return nil, nil, fmt.Errorf("cache: %w", err)
		}
		spec.Write = append(spec.Write, c)
	}
	cmd, err := Command(ctx, spec, argv...)
	if err != nil {
		return nil, nil, err
	}
	cmd.Dir = dir
	cmd.Env = append(e.environment(), "TMPDIR="+tmp, "TMP="+tmp, "TEMP="+tmp)
	out, errs := &bounded{name: "stdout"}, &bounded{name: "stderr"}
	cmd.Stdout, cmd.Stderr = out, errs
	err = run(ctx, cmd)
	err = errors.Join(out.over, errs.over, err)
	if err != nil {
		err = fmt.Errorf("%s: %w%s", filepath.Base(argv[0]), err, lastLine(errs.buf.Bytes()))
	}
	return out.buf.Bytes(), errs.buf.Bytes(), err
}

func (e Exec) environment() (env []string) {
	if e.Env != nil {
		return append(env, e.Env...)
	}
	for _, v := range os.Environ() {
		if !strings.HasPrefix(v, "ENISLE_") {
			env = append(env, v)
		}
	}
	return env
}

// run waits for the program and then for nothing: what it left behind in its
// process group is killed.
func run(ctx context.Context, cmd *exec.Cmd) error {
	if err := cmd.Start(); err != nil {
		return err
	}
	err := cmd.Wait()
	if cause := context.Cause(ctx); cause != nil {
		err = cause
	}
	return errors.Join(err, KillGroup(cmd))
}

// bounded keeps what is written to it and fails when that becomes too much.
type bounded struct {
	name string
	buf  bytes.Buffer
	over error // set once it was too much
}

func (b *bounded) Write(p []byte) (int, error) {
	if b.buf.Len()+len(p) > maxOutput {
		b.over = fmt.Errorf("%s is longer than %d bytes", b.name, maxOutput)
		return 0, b.over
	}
	return b.buf.Write(p)
}

func lastLine(b []byte) string {
	b = bytes.TrimSpace(b)
	if i := bytes.LastIndexByte(b, '\n'); i >= 0 {
		b = b[i+1:]
	}
	if len(b) == 0 {
		return ""
	}
	return ": " + strings.ToValidUTF8(string(b[:min(len(b), 400)]), "?")
}
