package sandbox

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"enisle/internal/fail"
)

// Protection is what this kernel, and this process's own rights, allow.
type Protection struct {
	Landlock int   // version; 0 if there is none
	Seccomp  bool  // filters of system calls
	Net      Level // how a program can be without network
}

// Probe finds out what can be had here. It takes a few milliseconds and leaves
// nothing behind.
func Probe() Protection {
	return Protection{Landlock: landlockABI(), Seccomp: hasSeccomp(), Net: ProbeNet()}
}

// missing names what spec needs and this kernel has not.
func (p Protection) missing(s Spec, level Level) (names []string) {
	if p.Landlock < abiTruncate {
		names = append(names, fmt.Sprintf("Landlock of version %d (it has %d)", abiTruncate, p.Landlock))
	} else if (s.NoConnect || s.NoBind) && p.Landlock < abiNet {
		names = append(names, fmt.Sprintf("Landlock of version %d for TCP (it has %d)", abiNet, p.Landlock))
	}
	if !p.Seccomp {
		names = append(names, "seccomp")
	}
	if s.Net == NetNone && level == LevelSeccomp {
		names = append(names, "network namespace")
	}
	return names
}

// ProbeNet returns the strongest level at which this process can start a
// program without network.
func ProbeNet() Level {
	switch {
	case canClone(LevelNamespace):
		return LevelNamespace
	case canClone(LevelUserNamespace):
		return LevelUserNamespace
	case onlyLoopback() == nil:
		return LevelInherited
	}
	return LevelSeccomp
}

// canClone starts a program that can not exist in new namespaces. When that is
// all that fails, the namespaces were made. It is not tried on a thread that is
// then thrown away: children die with the thread that started them (Pdeathsig),
// and that thread may be any.
func canClone(level Level) bool {
	_, err := syscall.ForkExec("/dev/null/none", []string{"none"}, &syscall.ProcAttr{Sys: attributes(level)})
	return errors.Is(err, syscall.ENOTDIR)
}

func loopbackUp() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	defer func() { _ = unix.Close(fd) }() // carries no data
	req, err := unix.NewIfreq("lo")
	if err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	req.SetUint16(unix.IFF_UP)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		return fmt.Errorf("loopback: %w", err)
	}
	return nil
}

// onlyLoopback returns nil if the network namespace has no other interface.
func onlyLoopback() error {
	all, err := net.Interfaces()
	if err != nil {
		return fmt.Errorf("interfaces: %w", err)
	}
	for _, i := range all {
		if i.Flags&net.FlagLoopback == 0 {
			return fmt.Errorf("interface %s is here", i.Name)
		}
	}
	return nil
}

// Unreachable proves, inside a confined program, that nothing outside can be
// reached: there is no interface but loopback, or every kind of internet socket
// is refused. It sends nothing and connects nowhere; that connecting really
// fails is what this package's tests try. It returns the level found, or
// refuses (fail.Refused).
func Unreachable() (Level, error) {
	if alone := onlyLoopback(); alone != nil {
		if err := noInternetSocket(); err != nil {
			return "", fail.Refuse("do not serve here: run as root, or allow user namespaces",
				fmt.Errorf("the network is not empty: %w", errors.Join(alone, err)))
		}
		return LevelSeccomp, nil
	}
	users, err := os.ReadFile("/proc/self/uid_map")
	if err != nil {
		return LevelInherited, nil //nolint:nilerr // may not be readable in here
	}
	if f := strings.Fields(string(users)); len(f) == 3 && f[0] == "0" && f[2] == "4294967295" {
		return LevelNamespace, nil
	}
	return LevelUserNamespace, nil
}

// noInternetSocket returns nil if sockets of the internet families are refused.
func noInternetSocket() error {
	for _, family := range []int{unix.AF_INET, unix.AF_INET6} {
		for _, kind := range []int{unix.SOCK_STREAM, unix.SOCK_DGRAM, unix.SOCK_RAW} {
			fd, err := unix.Socket(family, kind|unix.SOCK_CLOEXEC, 0)
			if err == nil {
				return errors.Join(fmt.Errorf("a socket of family %d, kind %d can be opened", family, kind), unix.Close(fd))
			}
		}
	}
	return nil
}
