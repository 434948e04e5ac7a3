package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// validator is a package of PyPI with the schemas of CycloneDX.
const validator = "cyclonedx-python-lib[json-validation]==11.2.0"

const validate = `
import sys
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(open(sys.argv[1]).read())
print("valid" if error is None else error)
`

// The SBOM of a release is what CycloneDX's own schema says it must be, and names
// what is inside of what is served.
func TestTheSBOMOfAReleaseIsValid(t *testing.T) {
	python := client(t, "python3")
	venv, err := filepath.Abs("../../.cache/venv-sbom")
	if err != nil {
		t.Fatal(err)
	}
	in := filepath.Join(venv, "bin", "python")
	if _, err := os.Stat(filepath.Join(venv, "done")); err != nil {
		run(t, "", python, "-m", "venv", venv)
		if out, err := exec.Command(in, "-m", "pip", "install", "-q", validator).CombinedOutput(); err != nil {
			t.Skipf("%s can not be fetched: %v: %s", validator, err, out)
		}
		if err := os.WriteFile(filepath.Join(venv, "done"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	dir, enisle := sites(t, []byte("x"))
	for _, name := range []string{"alice", "bob"} {
		enisle("keygen", "--no-passphrase", "--out", name+".key")
		enisle("-C", "high", "person", "add", name, "--role", "approver", "--key", name+".key.pub")
	}
	for name, text := range map[string]string{
		"enisle.yaml":           "name: x\nbring:\n  files: [ file.txt, layer.tar, {path: model, as: model/small} ]\n",
		"model/README.md":       "a model\n",
		"model/config.json":     `{"architectures":["LlamaForCausalLM"]}`,
		"layer/etc/os-release":  "ID=debian\nVERSION_ID=12\n",
		"layer/var/lib/dpkg/x":  "",
		"status":                "Package: libssl3\nStatus: install ok installed\nSource: openssl\nVersion: 3.0.11-1\nArchitecture: amd64\n",
		"layer/usr/share/doc/a": "text",
	} {
		at := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Rename(filepath.Join(dir, "status"), filepath.Join(dir, "layer/var/lib/dpkg/status")); err != nil {
		t.Fatal(err)
	}
	run(t, dir, "tar", "-cf", "layer.tar", "-C", "layer", "etc/os-release", "var/lib/dpkg/status")
	enisle("-C", "low", "collect")
	id := strings.TrimSpace(enisle("-C", "low", "pack", "--to", "media"))
	enisle("-C", "high", "import", "media")
	enisle("-C", "high", "inspect", id)
	for _, name := range []string{"alice", "bob"} {
		enisle("-C", "high", "approve", id, "--as", name, "--key", name+".key")
	}
	if out := enisle("-C", "high", "release", id, "--json"); !strings.Contains(out, `"sbom": "sha256:`) {
		t.Errorf("the release has no SBOM: %s", out)
	}
	enisle("-C", "high", "sbom", "--to", "sbom.json")
	if got := run(t, dir, in, "-c", validate, "sbom.json"); got != "valid\n" {
		t.Errorf("not valid: %s", got)
	}
	b, err := os.ReadFile(filepath.Join(dir, "sbom.json"))
	if err != nil || !strings.Contains(string(b), "pkg:deb/debian/libssl3@3.0.11-1") || !strings.Contains(string(b), `"machine-learning-model"`) {
		t.Errorf("%v: %s", err, b)
	}
}
