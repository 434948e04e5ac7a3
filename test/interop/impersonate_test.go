package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// uvPackage is uv as PyPI has it.
const uvPackage = "uv==0.9.9"

// uvProgram installs uv from PyPI, once.
func uvProgram(t *testing.T) string {
	t.Helper()
	python := client(t, "python3")
	venv, err := filepath.Abs("../../.cache/venv-uv")
	if err != nil {
		t.Fatal(err)
	}
	uv := filepath.Join(venv, "bin", "uv")
	if _, err := os.Stat(uv); err != nil {
		run(t, "", python, "-m", "venv", venv)
		if out, err := exec.Command(filepath.Join(venv, "bin", "python"), "-m", "pip", "install", "-q", uvPackage).CombinedOutput(); err != nil {
			t.Skipf("%s can not be fetched: %v: %s", uvPackage, err, out)
		}
	}
	return uv
}

// inPlace is the beginning of a script inside: the mirror answers in the place of the
// registries, by the names in the file hosts.
const inPlace = `mount --bind hosts /etc/hosts
"$ENISLE" -C high serve --listen 127.0.0.1:443 --tls-cert tls/mirror.pem --tls-key tls/mirror.key -q >tls.log 2>&1 &
tls=$!
trap 'kill $serve $tls; wait $serve $tls || true' EXIT
for i in $(seq 100); do (exec 3<>/dev/tcp/127.0.0.1/443) 2>/dev/null && break; sleep 0.1; done
export SSL_CERT_FILE=$PWD/tls/ca.pem NODE_EXTRA_CA_CERTS=$PWD/tls/ca.pem
`

// standIn makes the file hosts and the certificates for inPlace.
func standIn(t *testing.T, dir string, enisle func(args ...string) string) (hosts int) {
	t.Helper()
	lines := enisle("-C", "high", "mirror", "ca", "--to", "tls")
	write(t, filepath.Join(dir, "hosts"), "127.0.0.1 localhost\n"+lines)
	return strings.Count(lines, "\n")
}

// Lockfiles of uv and npm that name the registries of the world are installed as they
// are, by clients without any setting, where these names lead to the mirror.
func TestUnmodifiedLockfilesInstallInsideANamespace(t *testing.T) {
	uv := uvProgram(t)
	npm := client(t, "npm")
	work := t.TempDir()
	files := map[string]string{
		"pyproject.toml": "[project]\nname = \"app\"\nversion = \"0.1.0\"\nrequires-python = \">=3.9\"\ndependencies = [\"requests==2.32.3\", \"markupsafe==3.0.2\"]\n",
		"package.json":   `{"name":"app","version":"1.0.0","dependencies":{"left-pad":"1.3.0","semver":"7.6.3"}}`,
	}
	for name, text := range files {
		if err := os.WriteFile(filepath.Join(work, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, argv := range [][]string{{uv, "lock", "--python", "python3"}, {npm, "install", "--package-lock-only", "--ignore-scripts", "--no-audit", "--no-fund"}} {
		cmd := exec.Command(argv[0], argv[1:]...)
		cmd.Dir = work
		cmd.Env = append(os.Environ(), "npm_config_omit_lockfile_registry_resolved=false")
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("the registries can not be reached: %v: %s", err, out)
		}
	}
	for _, name := range []string{"uv.lock", "package-lock.json"} {
		b, err := os.ReadFile(filepath.Join(work, name))
		if err != nil {
			t.Fatal(err)
		}
		files[name] = string(b)
	}
	files["enisle.yaml"] = "name: app\nbring:\n  pypi: [ {lockfile: uv.lock} ]\n  npm: [ {lockfile: package-lock.json} ]\n"
	dir, enisle := crossed(t, files)
	if n := standIn(t, dir, enisle); n < 3 {
		t.Fatalf("%d hosts", n)
	}
	if out := inside(t, dir, inPlace+`
mkdir app && cp pyproject.toml uv.lock package.json package-lock.json app/ && cd app
`+uv+` sync --frozen --no-cache --no-install-project --python python3 2>&1 | tail -3
.venv/bin/python -c 'import requests, markupsafe; print("requests", requests.__version__, "markupsafe", markupsafe.__version__)'
npm ci --no-audit --no-fund --ignore-scripts >/dev/null
node -e 'console.log("semver", require("semver/package.json").version, require("left-pad")("x", 3))'
cmp uv.lock ../uv.lock && cmp package-lock.json ../package-lock.json && echo unmodified
`); !strings.Contains(out, "requests 2.32.3 markupsafe 3.0.2") || !strings.Contains(out, "semver 7.6.3   x") || !strings.Contains(out, "unmodified") {
		t.Error(out)
	}
}
