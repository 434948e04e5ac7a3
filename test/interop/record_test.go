package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// A build of the user's own, that resolves by itself, is recorded outside and finds the
// same inside, at the same addresses, without a setting.
func TestARecordedBuildRunsInsideANamespace(t *testing.T) {
	uv := uvProgram(t)
	build := `#!/bin/sh
set -e
rm -rf venv cache
` + uv + ` venv --quiet --python python3 venv
` + uv + ` pip install --quiet --cache-dir cache --python venv/bin/python 'itsdangerous==2.2.0' 'click>=8'
venv/bin/python -c 'import itsdangerous, click; print("built", itsdangerous.__name__)'
`
	dir, enisle := sites(t, []byte("x"))
	// The site lies elsewhere: what is recorded sees neither it nor what lies beside it.
	if err := os.Mkdir(filepath.Join(dir, "build"), 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"build/enisle.yaml": "name: built\nbring: {}\n", "build/build.sh": build} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{"alice", "bob"} {
		enisle("keygen", "--no-passphrase", "--out", name+".key")
		enisle("-C", "high", "person", "add", name, "--role", "approver", "--key", name+".key.pub")
	}
	cmd := exec.Command(filepath.Join(dir, "enisle"), "-C", "low", "collect", "-f", "build/enisle.yaml", "--record", "-q", "--", "sh", "build.sh")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		if strings.Contains(string(out), "error sending request") || strings.Contains(string(out), "502") {
			t.Skipf("the index can not be reached: %s", out)
		}
		t.Fatalf("%v: %s", err, out)
	}
	enisle("-C", "low", "collect", "-f", "build/enisle.yaml") // what was recorded is in the lock
	bringThrough(t, dir, enisle)
	hosts := enisle("-C", "high", "mirror", "ca", "--to", "tls")
	if err := os.WriteFile(filepath.Join(dir, "hosts"), []byte("127.0.0.1 localhost\n"+hosts), 0o644); err != nil {
		t.Fatal(err)
	}
	out := inside(t, dir, `
mount --bind hosts /etc/hosts
"$ENISLE" -C high serve --listen 127.0.0.1:443 --tls-cert tls/mirror.pem --tls-key tls/mirror.key -q >tls.log 2>&1 &
tls=$!
trap 'kill $serve $tls; wait $serve $tls || true' EXIT
for i in $(seq 100); do (exec 3<>/dev/tcp/127.0.0.1/443) 2>/dev/null && break; sleep 0.1; done
export SSL_CERT_FILE=$PWD/tls/ca.pem
cd build && sh build.sh
`)
	if !strings.Contains(out, "built itsdangerous") {
		t.Error(out)
	}
}
