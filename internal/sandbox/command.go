package sandbox

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"enisle/internal/fail"
)

// killDelay is how long a confined program has between being asked to end and
// being killed, and how long its pipes are waited for after it is gone.
const killDelay = 5 * time.Second

// Command returns a command that runs argv confined by spec. argv[0] is looked
// up in PATH by the child, or is Self. The caller may set Dir, Env, the
// standard streams and ExtraFiles before starting it. The program is the
// leader of its own process group; it is killed with its group when ctx ends,
// and by the kernel when this process dies. A program that leaves children
// behind must have its group killed: see KillGroup.
//
// It refuses (fail.Refused) if spec is strict and this kernel can not do it.
func Command(ctx context.Context, spec Spec, argv ...string) (*exec.Cmd, error) {
	if len(argv) == 0 || argv[0] == "" {
		return nil, errors.New("sandbox: no program to run")
	}
	spec, err := spec.absolute()
	if err != nil {
		return nil, err
	}
	o := order{Spec: spec, Parent: os.Getpid()}
	if spec.Net == NetNone {
		o.Level = ProbeNet()
		if o.NetNS, err = os.Readlink("/proc/self/ns/net"); err != nil {
			return nil, fmt.Errorf("sandbox: network namespace: %w", err)
		}
	}
	if missing := Probe().missing(spec, o.Level); spec.Strict && len(missing) > 0 {
		return nil, fail.Refuse("use a newer kernel, or a policy that is not strict",
			fmt.Errorf("sandbox: this kernel can not confine %s as asked: no %s", argv[0], strings.Join(missing, ", no ")))
	}
	text, err := json.Marshal(o)
	if err != nil {
		return nil, fmt.Errorf("sandbox: order: %w", err)
	}
	cmd := exec.CommandContext(ctx, Self, append([]string{Verb, string(text), "--"}, argv...)...)
	cmd.SysProcAttr = attributes(o.Level)
	if spec.Loopback && o.Level == LevelUserNamespace {
		cmd.SysProcAttr.AmbientCaps = []uintptr{unix.CAP_NET_ADMIN} // else lost at the first exec
	}
	cmd.Cancel = func() error { return KillGroup(cmd) }
	cmd.WaitDelay = killDelay
	return cmd, nil
}

// Reexec returns a command that runs this executable again with args, confined
// by spec, with the standard streams of this process and with files as
// descriptors 3, 4, … A server opens its listening socket (a TCP one with MPTCP
// off), hands it over here with NetNone and NoConnect, and the new process can
// accept and not dial; it should begin with Unreachable. When ctx ends the
// process group is asked to end by SIGTERM and killed after five seconds.
func Reexec(ctx context.Context, spec Spec, files []*os.File, args ...string) (*exec.Cmd, error) {
	cmd, err := Command(ctx, spec, append([]string{Self}, args...)...)
	if err != nil {
		return nil, err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.ExtraFiles = files
	cmd.Cancel = func() error { return EndGroup(cmd) }
	return cmd, nil
}

// Isolated returns a command that runs this executable again with args in an empty
// network namespace of its own, and otherwise as free as this process: it is for our own
// code, which begins with Loopback and starts confined programs that are to be in the
// same namespace. It fails where no namespace can be made.
func Isolated(ctx context.Context, args ...string) (*exec.Cmd, error) {
	level := ProbeNet()
	if level != LevelNamespace && level != LevelUserNamespace {
		return nil, errors.New("sandbox: no empty network namespace can be made here")
	}
	cmd := exec.CommandContext(ctx, Self, args...)
	cmd.SysProcAttr = attributes(level)
	cmd.Cancel = func() error { return EndGroup(cmd) }
	cmd.WaitDelay = killDelay
	return cmd, nil
}

// Loopback brings the loopback interface up, in a process that Isolated started; it
// refuses where there is any other.
func Loopback() error {
	if err := onlyLoopback(); err != nil {
		return fmt.Errorf("sandbox: %w", err)
	}
	return loopbackUp()
}

// KillGroup kills the process group of a command made by this package. It is
// no error if nothing of it is left.
func KillGroup(cmd *exec.Cmd) error { return signalGroup(cmd, syscall.SIGKILL) }

// EndGroup asks the process group of such a command to end. As its Cancel it leaves
// the program five seconds until it is killed.
func EndGroup(cmd *exec.Cmd) error { return signalGroup(cmd, syscall.SIGTERM) }

func signalGroup(cmd *exec.Cmd, sig syscall.Signal) error {
	if cmd.Process == nil || cmd.Process.Pid <= 1 {
		return nil
	}
	if err := syscall.Kill(-cmd.Process.Pid, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("sandbox: signal group %d: %w", cmd.Process.Pid, err)
	}
	return nil
}

func attributes(level Level) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	switch level {
	case LevelNamespace:
		attr.Cloneflags = syscall.CLONE_NEWNET
	case LevelUserNamespace:
		attr.Cloneflags = syscall.CLONE_NEWUSER | syscall.CLONE_NEWNET
		attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
		attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
	}
	return attr
}
