package interop

import (
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem/ecosystemtest"
	"enisle/internal/ecosystem/pypi"
)

// What an index has of the provenance of a file (PEP 740) crosses with it, byte for byte,
// and is where the page of the project says.
func TestProvenanceCrossesWithItsFile(t *testing.T) {
	client(t, "python3")
	alone(t)
	file, wheel, err := ecosystemtest.Wheel("island_top", "1.0", "Requires-Python: >=3.8\n")
	if err != nil {
		t.Fatal(err)
	}
	const proof = `{"version": 1,  "attestation_bundles": [{"publisher": {"kind": "GitHub", "repository": "org/name"}, "attestations": []}]}`
	rel := &ecosystemtest.Release{}
	rel.AddAll(artifact.Ref{Kind: pypi.Kind, Name: "island-top", Version: "1.0"}, map[string][]byte{file: wheel, file + ".provenance": []byte(proof)})
	s := serve(t, pypi.New(pypi.Options{}), rel, "")
	t.Setenv("PIP_INDEX_URL", s.URL+"/pypi/simple/")
	dir, _ := crossed(t, map[string]string{"enisle.yaml": "name: app\nbring:\n  pypi: [ \"island-top==1.0\" ]\n", "proof": proof})
	out := inside(t, dir, `
python3 - "$URL/pypi/simple/island-top/" <<'PY'
import json, sys, urllib.parse, urllib.request
at = sys.argv[1]
def get(url, kind):
    return urllib.request.urlopen(urllib.request.Request(url, headers={"Accept": kind})).read()
page = json.loads(get(at, "application/vnd.pypi.simple.v1+json"))
assert [f["filename"] for f in page["files"]] == ["island_top-1.0-py3-none-any.whl"], page
where = urllib.parse.urljoin(at, page["files"][0]["provenance"])
assert where.endswith("/pypi/integrity/island-top/1.0/island_top-1.0-py3-none-any.whl/provenance"), where
assert get(where, "application/vnd.pypi.integrity.v1+json") == open("proof", "rb").read()
assert b"data-provenance" in get(at, "text/html")
print("provenance is there")
PY
python3 -m venv env && env/bin/python -m pip install -q --index-url "$URL/pypi/simple/" island-top && env/bin/python -c 'import island_top; print("version", island_top.version)'
`)
	if !strings.Contains(out, "provenance is there") || !strings.Contains(out, "version 1.0") {
		t.Error(out)
	}
}

const poetryPackage = "poetry==2.5.1"

// Poetry locks and installs a project whose source is what 'mirror config' prints, with
// nothing but the mirror to be reached; what it installed runs.
func TestPoetryInstallsInsideANamespace(t *testing.T) {
	poetry := filepath.Join(filepath.Dir(pythonWith(t, "poetry", poetryPackage)), "poetry")
	home := t.TempDir()
	alone(t)
	dir, _ := crossed(t, map[string]string{
		"enisle.yaml": "name: app\nbring:\n  pypi: [ \"requests==2.32.3\", \"markupsafe==3.0.2\" ]\n",
		"pyproject.toml": "[project]\nname = \"app\"\nversion = \"0.1.0\"\nrequires-python = \">=3.10,<4\"\ndependencies = [\"requests (>=2.32,<3)\", \"markupsafe (==3.0.2)\"]\n" +
			"[tool.poetry]\npackage-mode = false\n",
	})
	out := inside(t, dir, `
export POETRY_CACHE_DIR=`+home+` POETRY_VIRTUALENVS_IN_PROJECT=true POETRY_NO_INTERACTION=1
mkdir app && cp pyproject.toml app/ && cd app
"$ENISLE" mirror config poetry --url "$URL" >> pyproject.toml
`+poetry+` lock && `+poetry+` install
.venv/bin/python -c 'import requests, markupsafe; print("requests", requests.__version__, markupsafe.escape("<"))'
if curl -s -o /dev/null --max-time 2 http://192.0.2.1/; then echo LEAK; fi
`)
	if !strings.Contains(out, "requests 2.32.3 &lt;") || strings.Contains(out, "LEAK") {
		t.Error(out)
	}
}
