package script_test

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// outside matches a connect or a send that names an address which is neither
// loopback nor a Unix or netlink socket.
var (
	names    = regexp.MustCompile(`(connect|sendto|sendmsg|sendmmsg)\(.*sa_family=AF_(\w+)`)
	loopback = regexp.MustCompile(`inet_addr\("127\.|inet_pton\(AF_INET6, "::1"`)
)

// TestTheHighSideConnectsNowhere traces every high-side verb, serving included,
// and finds no connect or send to anything but loopback, Unix and netlink
// sockets, and so no DNS.
func TestTheHighSideConnectsNowhere(t *testing.T) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("strace is not installed")
	}
	dir, bin := shortest(t)
	traced := func(args ...string) *exec.Cmd {
		all := append([]string{"-f", "-qq", "-e", "trace=network", "-A", "-o", filepath.Join(dir, "trace"), bin}, args...)
		cmd := exec.Command(strace, all...)
		cmd.Dir = dir
		return cmd
	}
	id := strings.TrimSpace(string(output(t, dir, bin, "-C", "low", "pack", "--to", "media2", "-q")))
	for _, args := range [][]string{
		{"verify", "media2", "--site", "high"},
		{"-C", "high", "import", "media2"},
		{"-C", "high", "inspect", id},
		{"-C", "high", "review", id},
		{"-C", "high", "approve", id, "--as", "alice", "--key", "alice.key"},
		{"-C", "high", "approve", id, "--as", "bob", "--key", "bob.key"},
		{"-C", "high", "release", id, "--channel", "stable"},
		{"-C", "high", "ledger", "verify"},
		{"-C", "high", "rollback", "--channel", "stable", "--to", "1"},
	} {
		if out, err := traced(args...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", args, err, out)
		}
	}
	url, stop := traceServe(t, traced("-C", "high", "serve", "--listen", "127.0.0.1:0", "-q"))
	if got := get(t, url+"/files/hello.txt"); !strings.Contains(got, "hello") {
		t.Errorf("served %q", got)
	}
	get(t, url+"/healthz")
	stop()
	checkTrace(t, filepath.Join(dir, "trace"))
}

func checkTrace(t *testing.T, file string) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(b, []byte("listen(")) || !bytes.Contains(b, []byte("accept4(")) {
		t.Fatal("the trace does not even show the listening socket: it was not taken")
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		m := names.FindStringSubmatch(s.Text())
		if m == nil || m[2] == "UNIX" || m[2] == "LOCAL" || m[2] == "NETLINK" || loopback.MatchString(s.Text()) {
			continue
		}
		t.Errorf("reaches outside: %s", s.Text())
	}
}

// traceServe starts serve under strace and returns its address and what stops
// it.
func traceServe(t *testing.T, cmd *exec.Cmd) (url string, stop func()) {
	t.Helper()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscanln(out, &url); err != nil {
		t.Fatalf("no address: %v: %s", err, stderr.String())
	}
	return url, func() {
		// The group holds strace and the program; strace passes the end on.
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGINT)
		done := make(chan error, 1)
		go func() { done <- cmd.Wait() }()
		select {
		case <-done:
		case <-time.After(20 * time.Second):
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
			t.Error("serve did not stop")
		}
	}
}

func output(t *testing.T, dir, bin string, args ...string) []byte {
	t.Helper()
	cmd := exec.Command(bin, args...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %v: %s", args, err, stderr.String())
	}
	return out
}

// TestFromInsideServeNothingIsReachable enters the network namespace of the
// serving process and tries to get out.
func TestFromInsideServeNothingIsReachable(t *testing.T) {
	if _, err := exec.LookPath("nsenter"); err != nil || os.Getuid() != 0 {
		t.Skip("entering a namespace needs root and nsenter")
	}
	dir, bin := shortest(t)
	url := serve(t, dir, bin)
	if got := get(t, url+"/healthz"); !strings.Contains(got, `"isolation":"namespace"`) {
		t.Fatalf("healthz says %s", got)
	}
	pid := insidePID(t, dir)
	for _, to := range []string{"198.51.100.1", "127.0.0.1"} {
		// Port 9 on a documentation address and on the host's own loopback,
		// where the site itself listens: neither is there.
		host := strings.TrimPrefix(url, "http://127.0.0.1:")
		script := fmt.Sprintf("import socket; s=socket.socket(); s.settimeout(2); s.connect((%q, %s))", to, host)
		out, err := exec.Command("nsenter", "-t", pid, "-n", "python3", "-c", script).CombinedOutput()
		if err == nil || !strings.Contains(string(out), "Network is unreachable") {
			t.Errorf("%s from inside: %v: %s", to, err, out)
		}
	}
}

// insidePID finds the isolated half of the serve that runs on dir.
func insidePID(t *testing.T, dir string) string {
	t.Helper()
	all, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range all {
		b, err := os.ReadFile(f)
		if err == nil && bytes.Contains(b, []byte("serve-inside")) && bytes.Contains(b, []byte(dir)) && !bytes.Contains(b, []byte("sandbox-exec")) {
			return strings.Split(f, "/")[2]
		}
	}
	t.Fatal("the isolated half was not found")
	return ""
}
