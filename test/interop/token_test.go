package interop

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const softHSM = "/usr/lib/softhsm/libsofthsm2.so" // where Debian's package puts it

// Collector and approvers sign with keys in a SoftHSM2 token: header and approvals
// are taken; a wrong PIN, or another key, is refused.
func TestKeysInATokenSignHeadersAndApprovals(t *testing.T) {
	if _, err := os.Stat(softHSM); err != nil {
		t.Skipf("SoftHSM2 is not here: %v", err)
	}
	dir, enisle := sites(t, []byte("signed in a token\n"))
	if _, err := exec.LookPath("gcc"); err != nil {
		t.Skipf("gcc, which cgo needs, is not here: %v", err)
	}
	build := exec.Command("go", "build", "-tags", "pkcs11", "-o", filepath.Join(dir, "enisle"), "enisle/cmd/enisle")
	build.Env = append(os.Environ(), "CGO_ENABLED=1")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	tokens := filepath.Join(dir, "tokens")
	for name, content := range map[string]string{"softhsm2.conf": "directories.tokendir = " + tokens + "\n", "pin": "246810\n", "wrong": "111111\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("SOFTHSM2_CONF", filepath.Join(dir, "softhsm2.conf"))
	t.Setenv("ENISLE_PKCS11_MODULE", softHSM)
	run(t, dir, "softhsm2-util", "--init-token", "--free", "--label", "people", "--so-pin", "13579", "--pin", "246810")
	uri := func(name string) string { return "pkcs11:token=people;object=" + name }
	for name, at := range map[string]string{"carol": "low collector", "alice": "high approver", "bob": "high approver"} {
		enisle("keygen", "--pkcs11", uri(name), "--out", name, "--passphrase-file", "pin")
		site, role, _ := strings.Cut(at, " ")
		enisle("-C", site, "person", "add", name, "--role", role, "--key", name+".pub")
	}
	as := func(site, name string, args ...string) []string {
		return append([]string{"-C", site, "--as", name, "--key", uri(name), "--passphrase-file", "pin"}, args...)
	}
	refused := func(want string, args ...string) {
		t.Helper()
		cmd := exec.Command(filepath.Join(dir, "enisle"), args...)
		cmd.Dir = dir
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 3 || !strings.Contains(string(out), want) {
			t.Errorf("%v: exit %d: %s, want %q", args, cmd.ProcessState.ExitCode(), out, want)
		}
	}
	refused("CKR_PIN_INCORRECT", "-C", "low", "--as", "carol", "--key", uri("carol"), "--passphrase-file", "wrong", "pack", "--to", "media")
	refused("0 keys called", "-C", "low", "--as", "carol", "--key", uri("nobody"), "--passphrase-file", "pin", "pack", "--to", "media")
	refused("", as("low", "carol", "--key", uri("alice"), "pack", "--to", "media")...)
	id := strings.TrimSpace(enisle(as("low", "carol", "pack", "--to", "media")...))
	enisle("-C", "high", "import", "media")
	enisle("-C", "high", "inspect", id)
	enisle(as("high", "alice", "approve", id)...)
	enisle(as("high", "bob", "approve", id)...)
	enisle("-C", "high", "release", id)
	// A site whose own keys, the age identity among them, only a token opens.
	site := []string{"-C", "vault", "--site-passphrase-file", "pin"}
	enisle(append(site, "init", "--side", "high", "--pkcs11", uri("vault"))...)
	enisle(append(site, "pair", "low.id")...)
	refused("CKR_PIN_INCORRECT", "-C", "vault", "--site-passphrase-file", "wrong", "pair", "high.id")
	if b, err := os.ReadFile(filepath.Join(dir, "vault", "keys", "age.key")); err != nil || strings.Contains(string(b), "AGE-SECRET-KEY") {
		t.Errorf("the age identity lies there in clear, %v", err)
	}
	var header struct {
		Signatures []json.RawMessage `json:"signatures"`
	}
	b, err := os.ReadFile(filepath.Join(dir, "media", "header.json"))
	if err == nil {
		err = json.Unmarshal(b, &header)
	}
	if err != nil || len(header.Signatures) != 2 {
		t.Errorf("%d signatures of the header, %v", len(header.Signatures), err)
	}
}
