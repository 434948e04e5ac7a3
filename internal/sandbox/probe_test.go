package sandbox

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// errSaid ends a probe that has printed its answer itself.
var errSaid = errors.New("said")

// probes are what the test binary tries inside the sandbox.
var probes = map[string]func(args []string) error{
	"read":  func(args []string) error { _, err := os.ReadFile(args[0]); return err },
	"list":  func(args []string) error { _, err := os.ReadDir(args[0]); return err },
	"write": func(args []string) error { return os.WriteFile(args[0], []byte("x"), 0o600) },
	"exec":  func(args []string) error { return exec.Command(args[0]).Run() },
	"dial": func(args []string) error {
		c, err := net.DialTimeout(args[0], args[1], 2*time.Second)
		if err != nil {
			return err
		}
		return c.Close()
	},
	"relisten": func([]string) error { // make a client of an inherited listening socket
		return unix.Connect(3, &unix.SockaddrInet4{Port: 1, Addr: [4]byte{127, 0, 0, 1}})
	},
	"listen": func(args []string) error {
		l, err := net.Listen("unix", args[0])
		if err != nil {
			return err
		}
		return l.Close()
	},
	"link": func(args []string) error { return os.Symlink("/dev/null", args[0]) },
	"datagram": func([]string) error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	},
	"mptcp": func([]string) error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, protoMPTCP)
		if err != nil {
			return err
		}
		return unix.Close(fd)
	},
	"sealed-exec": func(args []string) error {
		if err := Seal(); err != nil {
			return nil // which the test takes for a program that ran
		}
		done := make(chan error)
		go func() { done <- exec.Command(args[0]).Run() }()
		return <-done
	},
	"unreachable": func([]string) error {
		level, err := Unreachable()
		if err != nil {
			return err
		}
		fmt.Println(level)
		return errSaid
	},
	"memory": probeMemory,
	"nice": func([]string) error {
		v, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
		fmt.Println(20 - v)
		return errors.Join(err, errSaid)
	},
	"spin": func([]string) error {
		for n := uint64(1); n > 0; n += 2 { // odd for ever: uses up its CPU time
		}
		return nil
	},
	"caps": probeCaps,
	"fork": probeFork,
	"flood": func([]string) (err error) {
		for b := bytes.Repeat([]byte("x"), 1<<20); err == nil; {
			_, err = os.Stdout.Write(b)
		}
		return err
	},
	"env": func([]string) error {
		fmt.Println(strings.Join(os.Environ(), "\n"))
		return errSaid
	},
	"as-nobody": asNobody,
}

func probe(what string, args []string) int {
	err := probes[what](args)
	switch {
	case errors.Is(err, errSaid):
		return 0
	case err != nil:
		fmt.Println("refused:", err)
		return 1
	}
	fmt.Println("done")
	return 0
}

func probeMemory([]string) error {
	b := make([]byte, 1<<30)
	for i := 0; i < len(b); i += 4096 {
		b[i] = 1
	}
	fmt.Println(b[len(b)-1])
	return nil
}

func probeCaps([]string) error {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return err
	}
	for l := range strings.Lines(string(status)) {
		if strings.HasPrefix(l, "Cap") || strings.HasPrefix(l, "NoNewPrivs") || strings.HasPrefix(l, "Seccomp:") {
			fmt.Print(l)
		}
	}
	return errSaid
}

// probeFork leaves a child behind and says who it is.
func probeFork(args []string) error {
	c := exec.Command("sleep", "600")
	if err := c.Start(); err != nil {
		return err
	}
	fmt.Println(c.Process.Pid)
	if len(args) > 0 {
		time.Sleep(10 * time.Minute)
	}
	return errSaid
}

// asNobody runs inside a child without any privilege and starts confined
// programs of its own.
func asNobody(args []string) error {
	fmt.Println("level:", ProbeNet())
	out, err := confined(context.Background(), Spec{Net: NetNone, Hidden: []string{args[1]}}, args[0], "dial", "tcp", args[2])
	fmt.Printf("dial: %v %s\n", err != nil, out)
	out, err = confined(context.Background(), Spec{Net: NetNone, NoConnect: true}, args[0], "unreachable")
	fmt.Printf("unreachable: %v %s\n", err == nil, out)
	return errSaid
}
