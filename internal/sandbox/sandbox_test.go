package sandbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// probeVerb makes the test binary try one thing and print how that went.
const probeVerb = "sandbox-test-probe"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 {
		switch os.Args[1] {
		case Verb:
			fmt.Fprintln(os.Stderr, Enter(os.Args[2:]))
			os.Exit(125)
		case probeVerb:
			os.Exit(probe(os.Args[2], os.Args[3:]))
		}
	}
	os.Exit(m.Run())
}

func confined(ctx context.Context, spec Spec, self string, args ...string) (string, error) {
	cmd, err := Command(ctx, spec, append([]string{self, probeVerb}, args...)...)
	if err != nil {
		return "", err
	}
	out, err := cmd.CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func try(t *testing.T, spec Spec, args ...string) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	out, err := confined(ctx, spec, Self, args...)
	if strings.Contains(out, Verb+":") {
		t.Fatalf("the sandbox itself failed: %s", out)
	}
	return out, err
}

func needLandlock(t *testing.T, abi int) {
	t.Helper()
	if landlockABI() < abi {
		t.Skipf("needs Landlock of version %d", abi)
	}
}

func tree(t *testing.T, names ...string) string {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		p := filepath.Join(dir, n)
		if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte(n), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestFiles(t *testing.T) {
	needLandlock(t, abiTruncate)
	dir := tree(t, "site/keys/id", "site/store/blob", "sibling/file", "ours.key", "free", "out/old")
	if err := os.Symlink(filepath.Join(dir, "site"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	at := func(n string) string { return filepath.Join(dir, n) }
	hide := Spec{Hidden: []string{at("link"), at("not-there")}, Write: []string{at("out")}}
	only := Spec{Read: append(SystemLibraries(), at("sibling")), Write: []string{at("out")}}
	nested := Spec{Hidden: []string{at("site")}, Write: []string{at("site/store")}}
	for name, tc := range map[string]struct {
		spec    Spec
		what    string
		path    string
		allowed bool
	}{
		"a hidden file can not be read":                     {hide, "read", "site/keys/id", false},
		"nor through a symbolic link to it":                 {hide, "read", "link/keys/id", false},
		"nor can its directory be listed":                   {hide, "list", "site", false},
		"nor can it be written":                             {hide, "write", "site/keys/id", false},
		"its sibling can be read":                           {hide, "read", "sibling/file", true},
		"a file beside it can be read":                      {hide, "read", "free", true},
		"a key beside it can not":                           {hide, "read", "ours.key", false},
		"what may be written can be":                        {hide, "write", "out/new", true},
		"what may be written can be read":                   {hide, "read", "out/old", true},
		"a sibling can not be written":                      {hide, "write", "sibling/file", false},
		"with a list to read, the listed can be read":       {only, "read", "sibling/file", true},
		"with a list to read, the rest can not be":          {only, "read", "free", false},
		"with a list to read, writing goes where it may":    {only, "write", "out/new", true},
		"a directory named inside a hidden one can be used": {nested, "write", "site/store/new", true},
		"and its hidden neighbour can not":                  {nested, "read", "site/keys/id", false},
		"without a list nothing can be written":             {Spec{}, "write", "free", false},
		"without a list everything can be read":             {Spec{}, "read", "free", true},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := try(t, tc.spec, tc.what, at(tc.path))
			if got := err == nil; got != tc.allowed {
				t.Errorf("allowed %v, want %v: %s", got, tc.allowed, out)
			}
		})
	}
}

func TestRawDisksAreHidden(t *testing.T) {
	needLandlock(t, abiTruncate)
	disks, _ := filepath.Glob("/dev/[vsn][dv]*a*")
	if len(disks) == 0 {
		t.Skip("no disk in /dev")
	}
	if out, err := try(t, Spec{}, "read", disks[0]); err == nil || !strings.Contains(out, "permission denied") {
		t.Errorf("%s could be opened: %s", disks[0], out)
	}
}

func TestContradictionIsRefused(t *testing.T) {
	needLandlock(t, abiTruncate)
	dir := tree(t, "a/b")
	out, err := confined(t.Context(), Spec{Hidden: []string{dir}, Write: []string{dir}}, Self, "read", "/dev/null")
	if err == nil || !strings.Contains(out, "allowed and hidden at once") {
		t.Errorf("got %v, %s", err, out)
	}
}

func listen(t *testing.T) *net.TCPListener {
	t.Helper()
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(t.Context(), "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l.(*net.TCPListener)
}

func TestNetNone(t *testing.T) {
	addr := listen(t).Addr().String()
	if out, err := try(t, Spec{}, "dial", "tcp", addr); err != nil {
		t.Fatalf("with the network inherited, dialling failed: %s", out)
	}
	for _, loopback := range []bool{false, true} {
		if out, err := try(t, Spec{Net: NetNone, Loopback: loopback}, "dial", "tcp", addr); err == nil {
			t.Errorf("loopback %v: the parent's listener was reached: %s", loopback, out)
		}
		if out, err := try(t, Spec{Net: NetNone, Loopback: loopback}, "unreachable"); err != nil || out != string(ProbeNet()) {
			t.Errorf("loopback %v: got %q, %v, want %s", loopback, out, err, ProbeNet())
		}
	}
	if out, err := try(t, Spec{Net: NetNone, NoConnect: true}, "unreachable"); err != nil || out != string(ProbeNet()) {
		t.Errorf("without connect: got %q, %v, want %s", out, err, ProbeNet())
	}
	if out, err := try(t, Spec{}, "mptcp"); err == nil {
		t.Errorf("an MPTCP socket was opened: %s", out)
	}
}

func TestUnreachableRefusesAnOpenNetwork(t *testing.T) {
	if onlyLoopback() == nil {
		t.Skip("this machine has no network")
	}
	if out, err := try(t, Spec{}, "unreachable"); err == nil {
		t.Errorf("an open network was called empty: %s", out)
	}
}

// The level below namespaces is applied by hand, since Command takes the best.
func TestSeccompLevel(t *testing.T) {
	addr := listen(t).Addr().String()
	text, err := json.Marshal(order{Spec: Spec{Net: NetNone}, Level: LevelSeccomp, Parent: os.Getpid()})
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"dial", "tcp", addr}, {"unreachable"}} {
		cmd := exec.Command(Self, append([]string{Verb, string(text), "--", Self, probeVerb}, args...)...)
		out, err := cmd.CombinedOutput()
		if args[0] == "dial" && (err == nil || !strings.Contains(string(out), "permission denied")) {
			t.Errorf("dialled: %s", out)
		}
		if args[0] == "unreachable" && strings.TrimSpace(string(out)) != string(LevelSeccomp) && onlyLoopback() != nil {
			t.Errorf("level: got %s, want %s", out, LevelSeccomp)
		}
	}
}

func TestInheritedListenerCanNotDial(t *testing.T) {
	l := listen(t)
	f, err := l.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	cmd, err := Reexec(t.Context(), Spec{Net: NetNone, NoConnect: true}, []*os.File{f}, probeVerb, "relisten")
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = nil, &out, &out
	if err := cmd.Run(); err == nil || !strings.Contains(out.String(), "permission denied") {
		t.Errorf("got %v, %s", err, out.String())
	}
}

func TestLimits(t *testing.T) {
	if out, err := try(t, Spec{}, "memory"); err != nil {
		t.Fatalf("without a limit: %v, %s", err, out)
	}
	if out, err := try(t, Spec{MaxMemory: 512 << 20}, "memory"); err == nil {
		t.Errorf("a gigabyte was had under a limit of half of it: %s", out)
	}
	out, err := try(t, Spec{MaxCPUSeconds: 1}, "spin")
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Errorf("one second of CPU: got %v, %s", err, out)
	}
}

func TestNice(t *testing.T) {
	before, err := try(t, Spec{}, "nice")
	if err != nil {
		t.Fatal(err)
	}
	if after, err := try(t, Spec{Nice: 19}, "nice"); err != nil || after != "19" {
		t.Errorf("from %s: got %s, %v, want 19", before, after, err)
	}
}

func TestPrivilegesAreGone(t *testing.T) {
	out, err := try(t, Spec{Net: NetNone}, "caps")
	if err != nil {
		t.Fatal(err, out)
	}
	for _, want := range []string{
		"CapInh:\t0000000000000000", "CapPrm:\t0000000000000000", "CapEff:\t0000000000000000",
		"CapAmb:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in %q", want, out)
		}
	}
}

func TestNoOtherProgram(t *testing.T) {
	needLandlock(t, abiTruncate)
	sleep, err := exec.LookPath("true")
	if err != nil {
		t.Skip("no program to run")
	}
	for name, tc := range map[string]struct {
		spec    Spec
		what    string
		allowed bool
	}{
		"as long as it may, another program runs":     {Spec{}, "exec", true},
		"NoExec refuses another program":              {Spec{NoExec: true}, "exec", false},
		"Seal refuses another program on all threads": {Spec{}, "sealed-exec", false},
	} {
		t.Run(name, func(t *testing.T) {
			if out, err := try(t, tc.spec, tc.what, sleep); (err == nil) != tc.allowed {
				t.Errorf("got %v, want allowed %v: %s", err, tc.allowed, out)
			}
		})
	}
}

func TestSocketsOnly(t *testing.T) {
	needLandlock(t, abiTruncate)
	dir := tree(t, "there/file")
	spec := Spec{Read: SystemLibraries(), Sockets: []string{filepath.Join(dir, "there")}, NoConnect: true}
	for name, tc := range map[string]struct {
		what, path string
		allowed    bool
	}{
		"a socket may be made":    {"listen", "there/a.sock", true},
		"not elsewhere":           {"listen", "a.sock", false},
		"nor a link in its place": {"link", "there/b.sock", false},
		"nor a file":              {"write", "there/c", false},
		"nothing can be read":     {"read", "there/file", false},
		"nor can it be listed":    {"list", "there", false},
		"daemons get no datagram": {"datagram", "", false},
	} {
		t.Run(name, func(t *testing.T) {
			out, err := try(t, spec, tc.what, filepath.Join(dir, tc.path))
			if got := err == nil; got != tc.allowed {
				t.Errorf("allowed %v, want %v: %s", got, tc.allowed, out)
			}
		})
	}
}

func TestNoFork(t *testing.T) {
	if out, err := try(t, Spec{NoFork: true}, "fork"); err == nil || !strings.Contains(out, "permission denied") {
		t.Errorf("got %v, %s", err, out)
	}
}

// A program in memory runs where nothing else may be executed or read, and its file
// cannot be changed by whoever inherits it.
func TestProgramInMemory(t *testing.T) {
	self, err := os.Open(Self)
	if err != nil {
		t.Fatal(err)
	}
	defer self.Close()
	p, err := Program("probe", self)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if _, err := p.WriteAt([]byte("x"), 0); err == nil {
		t.Error("it was changed")
	}
	run := func(args ...string) (string, error) {
		cmd, err := Command(t.Context(), Spec{Read: SystemLibraries(), NoExec: true, Net: NetNone}, append([]string{ProgramFile(3), probeVerb}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		cmd.ExtraFiles = []*os.File{p}
		out, err := cmd.CombinedOutput()
		return string(out), err
	}
	if out, err := run("unreachable"); err != nil || !strings.Contains(out, string(ProbeNet())) {
		t.Errorf("got %v, %s", err, out)
	}
	if abi := landlockABI(); abi >= abiTruncate {
		if out, err := run("exec", "/bin/true"); err == nil {
			t.Errorf("another program ran: %s", out)
		}
	}
	if _, err := Program("text", strings.NewReader("#!/bin/sh\n")); err == nil {
		t.Error("a script is a program")
	}
}

func gone(pid string) bool {
	for range 100 {
		b, err := os.ReadFile(filepath.Join("/proc", pid, "stat"))
		if err != nil || strings.Contains(string(b), ") Z ") {
			return true
		}
		time.Sleep(20 * time.Millisecond)
	}
	return false
}

func TestCancelKillsTheGroup(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cmd, err := Command(ctx, Spec{}, Self, probeVerb, "fork", "stay")
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 32)
	n, err := pipe.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if err := cmd.Wait(); err == nil {
		t.Error("the program ended well though it was cancelled")
	}
	if pid := strings.TrimSpace(string(buf[:n])); !gone(pid) {
		t.Errorf("process %s is still there", pid)
	}
}

// Without root the network is taken away by a user namespace, or by seccomp.
func TestWithoutRoot(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("is not root: the other tests have shown it")
	}
	addr := listen(t).Addr().String()
	dir := tree(t, "site/secret")
	exe, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	open, err := os.MkdirTemp("", "enisle-test-") // not below t.TempDir, which only root may enter
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(open)
	self := filepath.Join(open, "self")
	if err := errors.Join(os.Chmod(open, 0o755), os.WriteFile(self, exe, 0o755)); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, probeVerb, "as-nobody", self, dir, addr)
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil || !strings.Contains(string(out), "dial: true refused") || !strings.Contains(string(out), "unreachable: true") {
		t.Errorf("%v", err)
	}
	if canClone(LevelUserNamespace) && !strings.Contains(string(out), "unreachable: true "+string(LevelUserNamespace)) {
		t.Errorf("user namespaces exist here and were not used")
	}
}

func TestProbe(t *testing.T) {
	p := Probe()
	t.Logf("%+v", p)
	if p.Net == "" {
		t.Error("no level")
	}
	weak := Protection{Landlock: 1, Net: LevelSeccomp}
	if got := weak.missing(Spec{Net: NetNone}, LevelSeccomp); len(got) != 3 {
		t.Errorf("missing: got %q, want three things", got)
	}
}
