package sandbox

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Enter is what the hidden verb calls with the arguments that follow it. It
// applies the order to the calling thread and becomes the program by execve;
// it returns only if it could not, and then the process must end, since it may
// have lost rights already.
func Enter(args []string) error {
	runtime.LockOSThread() // restrictions are the thread's; execve keeps those of the calling thread
	o, argv, err := parseOrder(args)
	if err != nil {
		return err
	}
	program := argv[0]
	if program != Self {
		if program, err = exec.LookPath(program); err != nil {
			return fmt.Errorf("%s: %w", Verb, err)
		}
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"parent", func() error { return tieToParent(o.Parent) }},
		{"network", func() error { return enterNet(o) }},
		{"limits", func() error { return setLimits(o.Spec) }},
		{"rights", func() error { return confine(o, program) }},
	} {
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %s: %w", Verb, step.name, err)
		}
	}
	return fmt.Errorf("%s: %s: %w", Verb, program, syscall.Exec(program, argv, os.Environ()))
}

// confine takes rights away in the one order that works: rules are opened
// while everything may be read, and seccomp comes last since it refuses calls
// that the other steps make.
func confine(o order, program string) error {
	rules, err := openRules(o.Spec, program)
	if err != nil {
		return err
	}
	defer rules.close()
	if !o.Spec.KeepCapabilities {
		if err := dropCapabilities(); err != nil {
			return fmt.Errorf("capabilities: %w", err)
		}
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no_new_privs: %w", err)
	}
	if err := rules.enforce(o.Spec, o.Level); err != nil {
		return fmt.Errorf("landlock: %w", err)
	}
	if !hasSeccomp() && !o.Spec.Strict && !o.Spec.NoConnect && o.Level != LevelSeccomp {
		return nil
	}
	if err := loadFilter(baseFilter(o.Spec, o.Level), 0); err != nil {
		return fmt.Errorf("seccomp: %w", err)
	}
	return nil
}

// tieToParent asks the kernel to kill this process with its parent, and fails
// if the parent is gone already. A clone into a user namespace may have lost
// what os/exec asked for.
func tieToParent(parent int) error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	if pid := os.Getppid(); pid != parent {
		return fmt.Errorf("is process %d, not %d: it has ended", pid, parent)
	}
	return nil
}

// enterNet checks that the namespace the parent promised is there.
func enterNet(o order) error {
	if o.Level != LevelNamespace && o.Level != LevelUserNamespace {
		return nil
	}
	ns, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		return err
	}
	if ns == o.NetNS {
		return errors.New("the namespace is still the parent's")
	}
	if o.Spec.Loopback {
		return loopbackUp()
	}
	return nil
}

func setLimits(s Spec) error {
	for _, l := range []struct {
		name     string
		resource int
		value    int64
		always   bool
	}{
		{"core", unix.RLIMIT_CORE, 0, true},
		{"memory", unix.RLIMIT_DATA, s.MaxMemory, false},
		{"cpu", unix.RLIMIT_CPU, s.MaxCPUSeconds, false},
		{"files", unix.RLIMIT_NOFILE, s.MaxFiles, false},
		{"file size", unix.RLIMIT_FSIZE, s.MaxFileSize, false},
	} {
		if l.value <= 0 && !l.always {
			continue
		}
		var old unix.Rlimit
		if err := unix.Prlimit(0, l.resource, nil, &old); err != nil {
			return fmt.Errorf("%s: %w", l.name, err)
		}
		v := min(uint64(max(l.value, 0)), old.Max) // never more than was allowed
		if err := unix.Prlimit(0, l.resource, &unix.Rlimit{Cur: v, Max: v}, nil); err != nil {
			return fmt.Errorf("%s to %d: %w", l.name, v, err)
		}
	}
	if s.Nice > 0 {
		old, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
		if err != nil {
			return fmt.Errorf("priority: %w", err)
		}
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, min(19, 20-old+s.Nice)); err != nil { // the call answers 20 minus the value
			return fmt.Errorf("priority: %w", err)
		}
	}
	return nil
}

// dropCapabilities empties every capability set of the thread, so that not
// even a program run by root can get one back.
func dropCapabilities() error {
	for c := uintptr(0); c < 64; c++ {
		err := unix.Prctl(unix.PR_CAPBSET_DROP, c, 0, 0, 0)
		if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EPERM) {
			break // past the last one, or nothing to drop with: there is nothing to gain either
		}
		if err != nil {
			return err
		}
	}
	if err := unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0); err != nil && !errors.Is(err, unix.EINVAL) {
		return err
	}
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return unix.Capset(&header, &none[0])
}
