package interop

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"enisle/internal/clamd"
)

// daemon starts a clamd with signatures of its own directory.
func daemon(t *testing.T, dir string, settings string) (socket string) {
	t.Helper()
	if testing.Short() {
		t.Skip("short: clamd is not run")
	}
	for _, program := range []string{"clamd", "clamscan"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skip(program + " is not installed")
		}
	}
	socket = filepath.Join(dir, "ctl")
	conf := fmt.Sprintf("LocalSocket %s\nDatabaseDirectory %s\nForeground yes\n%s", socket, filepath.Join(dir, "db"), settings)
	if err := os.WriteFile(filepath.Join(dir, "clamd.conf"), []byte(conf), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("clamd", "-c", filepath.Join(dir, "clamd.conf"))
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for end := time.Now().Add(time.Minute); ; time.Sleep(50 * time.Millisecond) {
		if c, err := net.Dial("unix", socket); err == nil {
			_ = c.Close()
			return socket
		}
		if time.Now().After(end) {
			t.Fatalf("clamd does not start: %s", said.String())
		}
	}
}

// signatures writes a set that finds EICAR's test file and a word.
func signatures(t *testing.T, dir, word string) {
	t.Helper()
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("Eicar-Test-Signature:0:0:%x\nWord-%s:0:*:%x\n", clamd.Eicar(), word, word)
	if err := os.WriteFile(filepath.Join(dir, "test.ndb"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

const believed = "AlertExceedsMax yes\n"

// short makes a directory whose sockets have names that are short enough.
func short(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "clam")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

func TestClamdIsBelievedOnlyWhenItShouldBe(t *testing.T) {
	for name, tc := range map[string]struct{ settings, word, want string }{
		"all in order":             {believed, "eicar", ""},
		"silent about its limits":  {"", "eicar", "AlertExceedsMax"},
		"without EICAR's":          {believed, "", "does not find EICAR"},
		"that finds it everywhere": {believed, "harmless", "does not pass a harmless text"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := short(t)
			signatures(t, filepath.Join(dir, "db"), "x"+tc.word)
			text := fmt.Sprintf("Eicar-Test-Signature:0:0:%x\n", clamd.Eicar())
			switch tc.word {
			case "":
				text = fmt.Sprintf("Other:0:*:%x\n", "something else")
			case "harmless":
				text += fmt.Sprintf("Word:0:*:%x\n", "harmless")
			}
			if err := os.WriteFile(filepath.Join(dir, "db", "test.ndb"), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			c := clamd.Client{Socket: daemon(t, dir, tc.settings)}
			err := c.Probe(t.Context())
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v, want %q", err, tc.want)
			}
		})
	}
}

func TestClamdScans(t *testing.T) {
	dir := short(t)
	signatures(t, filepath.Join(dir, "db"), "bandersnatch")
	c := clamd.Client{Socket: daemon(t, dir, believed+"StreamMaxLength 2M\n")}
	v, err := c.Version(t.Context())
	if err != nil || !strings.HasPrefix(v.Engine, "ClamAV ") || !v.Dated.IsZero() {
		t.Errorf("%+v, %v", v, err)
	}
	if err := c.Scan(t.Context(), strings.NewReader("")); err != nil {
		t.Errorf("nothing: %v", err)
	}
	if err := c.Scan(t.Context(), bytes.NewReader(make([]byte, 1<<20))); err != nil {
		t.Errorf("zeros: %v", err)
	}
	err = c.Scan(t.Context(), strings.NewReader(strings.Repeat("x", 700_000)+"bandersnatch"))
	if found, ok := err.(clamd.Found); !ok || !strings.HasPrefix(string(found), "Word-bandersnatch") {
		t.Errorf("the word: %v", err)
	}
	if err := c.Scan(t.Context(), bytes.NewReader(make([]byte, 8<<20))); err != clamd.ErrTooLarge {
		t.Errorf("too large: %v", err)
	}
	if err := (clamd.Client{Socket: filepath.Join(dir, "nobody")}).Scan(t.Context(), strings.NewReader("x")); err == nil {
		t.Error("nobody answered, and it passed")
	}
}

// Signatures cross the gap, are tried, installed, and asked; what they find is
// refused, and a daemon that is dead or has others refuses everything.
func TestSignaturesCrossTheGap(t *testing.T) {
	dir, enisle := sites(t, []byte("a text about a bandersnatch\n"))
	clam := short(t)
	signatures(t, filepath.Join(clam, "db"), "jabberwock")
	socket := daemon(t, clam, believed)
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	refused := func(want string, args ...string) {
		t.Helper()
		cmd := exec.Command(filepath.Join(dir, "enisle"), append([]string{"-C", "high"}, args...)...)
		cmd.Dir = dir
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 3 || !strings.Contains(string(out), want) {
			t.Errorf("%v: exit %d: %s, want %q", args, cmd.ProcessState.ExitCode(), out, want)
		}
	}
	for _, name := range []string{"alice", "bob"} {
		enisle("keygen", "--no-passphrase", "--out", name+".key")
		enisle("-C", "high", "person", "add", name, "--role", "approver", "--key", name+".key.pub")
	}
	n := 0
	crosses := func(request string) (id string) {
		t.Helper()
		n++
		write("enisle.yaml", request)
		media := fmt.Sprint("media", n)
		enisle("-C", "low", "collect")
		id = strings.TrimSpace(enisle("-C", "low", "pack", "--to", media))
		enisle("-C", "high", "import", media)
		return id
	}
	released := func(id string) {
		t.Helper()
		enisle("-C", "high", "inspect", id)
		enisle("-C", "high", "approve", id, "--as", "alice", "--key", "alice.key")
		enisle("-C", "high", "approve", id, "--as", "bob", "--key", "bob.key")
		enisle("-C", "high", "release", id)
	}
	const rules = "name: rules\nbring:\n  files: [ {path: sig, as: rules/clamav} ]\n"
	signatures(t, filepath.Join(dir, "sig"), "bandersnatch")
	released(crosses(rules))
	enisle("-C", "high", "malware", "use", socket)
	enisle("-C", "high", "malware", "install", "--to", filepath.Join(clam, "db"))
	id := crosses("name: text\nbring:\n  files: [ file.txt ]\n")
	refused("Word-bandersnatch", "inspect", id)

	// A set that does not find what it must is not installed; the one before stays.
	if err := os.WriteFile(filepath.Join(dir, "sig", "test.ndb"), fmt.Appendf(nil, "Other:0:*:%x\n", "nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	enisle("-C", "high", "malware", "use", "none")
	released(crosses(rules))
	enisle("-C", "high", "malware", "use", socket)
	refused("do not stand the test", "malware", "install", "--to", filepath.Join(clam, "db"))
	refused("Word-bandersnatch", "inspect", id)

	// One with exceptions is refused as well, and an older one.
	signatures(t, filepath.Join(dir, "sig"), "bandersnatch")
	write("sig/allow.fp", "0123456789abcdef0123456789abcdef:1:x\n")
	enisle("-C", "high", "malware", "use", "none")
	released(crosses(rules))
	refused("it holds exceptions", "malware", "install", "--to", filepath.Join(clam, "db"))
	enisle("-C", "high", "rollback")
	enisle("-C", "high", "rollback")
	enisle("-C", "high", "malware", "use", socket)
	if err := os.Remove(filepath.Join(dir, "sig", "allow.fp")); err != nil {
		t.Fatal(err)
	}

	// Somebody exchanges the signatures behind the site's back: nothing passes.
	signatures(t, filepath.Join(clam, "db"), "jabberwock")
	if err := os.Remove(filepath.Join(clam, "db", "enisle-canary.ndb")); err != nil {
		t.Fatal(err)
	}
	c := clamd.Client{Socket: socket}
	if err := c.Reload(t.Context()); err != nil {
		t.Fatal(err)
	}
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if c.Scan(t.Context(), strings.NewReader("bandersnatch")) == nil {
			break
		}
	}
	refused("does not have the signatures", "inspect", id)
	enisle("-C", "high", "malware", "install", "--to", filepath.Join(clam, "db"))
	refused("Word-bandersnatch", "inspect", id)

	// A newer set is taken; going back to the one before is refused.
	signatures(t, filepath.Join(dir, "sig"), "borogove")
	enisle("-C", "high", "malware", "use", "none")
	released(crosses(rules))
	enisle("-C", "high", "malware", "use", socket)
	enisle("-C", "high", "malware", "install", "--to", filepath.Join(clam, "db"))
	enisle("-C", "high", "inspect", id)
	enisle("-C", "high", "rollback")
	refused("were sealed on", "malware", "install", "--to", filepath.Join(clam, "db"))
}
