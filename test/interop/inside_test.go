package interop

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// crossed makes two sites in a directory, has a request collected with the settings
// that clients have on this machine, and brings it through to the stable channel.
func crossed(t *testing.T, files map[string]string) (dir string, enisle func(args ...string) string) {
	t.Helper()
	dir, enisle = sites(t, []byte("x"))
	for _, name := range []string{"alice", "bob"} {
		enisle("keygen", "--no-passphrase", "--out", name+".key")
		enisle("-C", "high", "person", "add", name, "--role", "approver", "--key", name+".key.pub")
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	crossAgain(t, dir, enisle)
	return dir, enisle
}

// crossAgain collects what enisle.yaml asks for and brings it through.
func crossAgain(t *testing.T, dir string, enisle func(args ...string) string) {
	t.Helper()
	enisle("-C", "low", "collect")
	bringThrough(t, dir, enisle)
}

// bringThrough packs what was collected last and brings it to the stable channel.
func bringThrough(t *testing.T, dir string, enisle func(args ...string) string) {
	t.Helper()
	media, err := os.MkdirTemp(dir, "media")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(media); err != nil {
		t.Fatal(err)
	}
	id := strings.TrimSpace(enisle("-C", "low", "pack", "--to", media))
	enisle("-C", "high", "import", media)
	enisle("-C", "high", "inspect", id)
	for _, name := range []string{"alice", "bob"} {
		enisle("-C", "high", "approve", id, "--as", name, "--key", name+".key")
	}
	enisle("-C", "high", "release", id)
}

// inside runs a script in a network namespace that has nothing but the mirror: $URL
// is where it answers, $ENISLE the program, and no setting of this machine's clients
// is left.
func inside(t *testing.T, dir, script string) string {
	t.Helper()
	if _, err := exec.LookPath("unshare"); err != nil || os.Getuid() != 0 {
		t.Skip("no network namespace can be made: it takes root and unshare")
	}
	home := t.TempDir()
	whole := fmt.Sprintf(`set -eu
ip link set lo up
export URL=http://127.0.0.1:8440 ENISLE=%[1]s/enisle
"$ENISLE" -C %[1]s/high serve --listen 127.0.0.1:8440 -q >%[1]s/serve.log 2>&1 &
serve=$!
trap 'kill $serve; wait $serve || true' EXIT
for i in $(seq 200); do
  if "$ENISLE" -C %[1]s/high channel >/dev/null && (exec 3<>/dev/tcp/127.0.0.1/8440) 2>/dev/null; then break; fi
  sleep 0.1
done
cd %[1]s
%[2]s
`, dir, script)
	cmd := exec.CommandContext(t.Context(), "unshare", "-n", "-m", "bash", "-c", whole)
	cmd.Dir = dir
	cmd.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + home, "TMPDIR=" + os.TempDir(), "LC_ALL=C.UTF-8", "PIP_DISABLE_PIP_VERSION_CHECK=1", "npm_config_update_notifier=false", "npm_config_globalconfig=" + os.DevNull}
	out, err := cmd.CombinedOutput()
	if err != nil {
		log, _ := os.ReadFile(filepath.Join(dir, "serve.log"))
		t.Fatalf("inside: %v\n%s\n%s", err, out, log)
	}
	return string(out)
}

// A lockfile of npm with everything that express needs is collected from the real
// registry, and installed by npm with nothing but the mirror to be reached;
// the lockfile is not changed. npm audit is answered from the data of the release.
func TestNpmInstallsALockfileInsideANamespace(t *testing.T) {
	program := client(t, "npm")
	work := t.TempDir()
	if err := os.WriteFile(filepath.Join(work, "package.json"), []byte(`{"name":"app","version":"1.0.0","dependencies":{"express":"4.21.1"}}`), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program, "install", "--package-lock-only", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = work
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("the registry of npm can not be reached: %v: %s", err, out)
	}
	lock, err := os.ReadFile(filepath.Join(work, "package-lock.json"))
	if err != nil {
		t.Fatal(err)
	}
	manifest, err := os.ReadFile(filepath.Join(work, "package.json"))
	if err != nil {
		t.Fatal(err)
	}
	osv := filepath.Join(work, "osv", "npm")
	if err := os.MkdirAll(osv, 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, osv, "python3", "-c", `
import json, zipfile
a = {"id": "GHSA-test", "modified": "2026-11-01T00:00:00Z", "summary": "a flaw", "severity": [{"type": "CVSS_V3", "score": "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:L/I:L/A:L"}],
     "affected": [{"package": {"ecosystem": "npm", "name": "qs"}, "ranges": [{"type": "SEMVER", "events": [{"introduced": "0"}, {"fixed": "99.0.0"}]}]}]}
with zipfile.ZipFile("all.zip", "w") as z:
    z.writestr("a.json", json.dumps(a))
`)
	dir, _ := crossed(t, map[string]string{
		"enisle.yaml":       "name: web\nbring:\n  npm: [ {lockfile: package-lock.json} ]\n  vulndb: [ {name: osv, from: " + filepath.Join(work, "osv") + "} ]\n",
		"package-lock.json": string(lock), "package.json": string(manifest),
	})
	out := inside(t, dir, `
mkdir app && cp package.json package-lock.json app/ && cd app
"$ENISLE" mirror config npm --url "$URL" > .npmrc
npm ci --no-audit --no-fund --ignore-scripts >/dev/null
cmp package-lock.json ../package-lock.json
node -e 'console.log("express", require("express/package.json").version)'
npm audit --json > audit.json || true
node -e 'const a = require("./audit.json"); console.log("audit", a.vulnerabilities.qs.severity, a.vulnerabilities.qs.via[0].title)'
npm view express time --json | grep -q 4.21.1 && echo times
if curl -s -o /dev/null --max-time 2 http://192.0.2.1/; then echo LEAK; fi
`)
	for _, want := range []string{"express 4.21.1", "audit high GHSA-test: a flaw", "times"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in %s", want, out)
		}
	}
	if strings.Contains(out, "LEAK") {
		t.Error("something outside answered")
	}
}
