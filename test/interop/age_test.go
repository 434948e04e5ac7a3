package interop

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

const ageCommand = "filippo.io/age/cmd/age@v1.3.2"

// sites makes a low and a high site that trust each other with the real program,
// and packs a file.
func sites(t *testing.T, content []byte) (dir string, enisle func(args ...string) string) {
	t.Helper()
	dir = t.TempDir()
	bin := filepath.Join(dir, "enisle")
	run(t, "", "go", "build", "-o", bin, "enisle/cmd/enisle")
	enisle = func(args ...string) string {
		t.Helper()
		cmd := exec.Command(bin, append(args, "-q")...)
		cmd.Dir = dir
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%v: %v: %s%s", args, err, out, stderr.String())
		}
		return string(out)
	}
	write := func(name string, b []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("file.txt", content)
	write("enisle.yaml", []byte("name: x\nbring:\n  files: [ file.txt ]\n"))
	enisle("-C", "low", "init", "--side", "low")
	enisle("-C", "high", "init", "--side", "high")
	write("high.id", []byte(enisle("-C", "high", "identity")))
	write("low.id", []byte(enisle("-C", "low", "identity")))
	enisle("-C", "low", "pair", "high.id")
	enisle("-C", "high", "pair", "low.id")
	enisle("-C", "low", "collect")
	return dir, enisle
}

// The age command opens a frame that was found by nothing but its magic, with the
// island's identity.
func TestAgeOpensAFrame(t *testing.T) {
	if testing.Short() {
		t.Skip("short: age is not fetched")
	}
	content := []byte("what a frame holds\n")
	dir, enisle := sites(t, content)
	enisle("-C", "low", "pack", "--to", "media")
	install := exec.Command("go", "install", ageCommand)
	install.Dir = dir
	install.Env = append(os.Environ(), "GOBIN="+dir, "GOFLAGS=")
	if out, err := install.CombinedOutput(); err != nil {
		t.Skipf("age can not be fetched: %v: %s", err, out)
	}
	volume, err := os.ReadFile(filepath.Join(dir, "media", "volume-0001.enisle"))
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(volume, []byte("ENISLEF1"))
	length := binary.BigEndian.Uint32(volume[at+32:])
	cmd := exec.Command(filepath.Join(dir, "age"), "--decrypt", "-i", filepath.Join(dir, "high", "keys", "age.key"))
	cmd.Stdin = bytes.NewReader(volume[at+72 : at+72+int(length)])
	out, err := cmd.Output()
	if err != nil || !bytes.Contains(out, content) || !strings.Contains(string(out), "oci.image.index") {
		t.Errorf("age: %v: %.200q", err, out)
	}
}
