package interop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/ecosystem/huggingface/huggingfacetest"
	"enisle/internal/ecosystem/ocidist/ocidisttest"
)

// What waits for approval and what was recalled is refused by unmodified clients with the
// reason, in the form that each of them shows. pip shows the status alone, and cargo
// nothing of a crate that its index has not; hf shows the reason with HF_DEBUG.
func TestClientsAreToldWhyThereIsNothing(t *testing.T) {
	npm, cargo, golang, curl, skopeo := client(t, "npm"), client(t, "cargo"), client(t, "go"), client(t, "curl"), client(t, "skopeo")
	hf := filepath.Join(hubClient(t), "hf")
	image := ocidisttest.New()
	image.Tags["1.4"] = image.Image("linux", "amd64", layer(t, "../../docs")).Digest
	registry := image.Serve(t, "team/app", "")
	host := strings.TrimPrefix(registry.URL, "http://")
	hub := &huggingfacetest.Hub{Repository: "org/name", Commit: hubCommit, Files: map[string][]byte{"config.json": []byte(`{"model_type":"llama"}`)}}
	hub.Start(t)
	t.Setenv("HF_ENDPOINT", hub.URL)
	t.Setenv("NO_PROXY", "127.0.0.1")
	t.Setenv("no_proxy", "127.0.0.1")
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	dir, enisle := crossed(t, map[string]string{
		"enisle.yaml": "name: app\nbring:\n  npm: [ left-pad@1.3.0 ]\n  cargo: [ itoa@1.0.14 ]\n  files: [ file.txt ]\n",
	})
	later := `
name: later
target: {os: linux, arch: amd64}
bring:
  pypi: [ markupsafe==3.0.2 ]
  npm: [ is-odd@3.0.1 ]
  cargo: [ ryu@1.0.18 ]
  gomod: [ rsc.io/sampler@v1.3.0 ]
  oci: [ "` + host + `/team/app:1.4" ]
  huggingface: [ "org/name" ]
`
	if err := os.WriteFile(filepath.Join(dir, "enisle.yaml"), []byte(later), 0o600); err != nil {
		t.Fatal(err)
	}
	enisle("-C", "low", "collect")
	media := filepath.Join(t.TempDir(), "media")
	id := strings.TrimSpace(enisle("-C", "low", "pack", "--to", media))
	enisle("-C", "high", "import", media)
	for _, ref := range []string{"npm/left-pad@1.3.0", "cargo/itoa@1.0.14"} {
		enisle("-C", "high", "recall", ref, "--reason", "a flaw in its padding", "--as", "alice", "--key", "alice.key")
	}
	out := inside(t, dir, `
tell() { echo "== $1"; shift; if "$@" >told 2>&1; then echo "NOT REFUSED: $*"; fi; cat told; }
export npm_config_registry=$URL/npm/ npm_config_fetch_retries=0 GOPROXY=$URL/go GOSUMDB=off GOFLAGS=-modcacherw GOTOOLCHAIN=local GOMODCACHE=$PWD/mod
mkdir web && cd web && echo '{"name":"app","version":"1.0.0"}' >package.json
tell npm-waits `+npm+` install is-odd@3.0.1
tell npm-recalled `+npm+` install left-pad
tell npm-unknown `+npm+` install no-such-thing
cd .. && mkdir goapp && cd goapp && `+golang+` mod init app.example/x 2>/dev/null
tell go-waits `+golang+` get rsc.io/sampler@v1.3.0
tell go-unknown `+golang+` get rsc.io/sampler@v1.2.0
cd ..
mkdir -p rust/src && cd rust && echo 'fn main(){}' >src/main.rs
printf '[package]\nname="app"\nversion="0.1.0"\nedition="2021"\n[dependencies]\nryu="1"\n' >Cargo.toml
mkdir .cargo && "$ENISLE" mirror config cargo --url "$URL" >.cargo/config.toml
tell cargo-waits env CARGO_HOME=$PWD/home RUSTUP_HOME=${RUSTUP_HOME:-`+home+`/.rustup} `+cargo+` fetch
cd ..
tell skopeo-waits `+skopeo+` --insecure-policy inspect --tls-verify=false docker://127.0.0.1:8440/team/app:1.4
tell skopeo-unknown `+skopeo+` --insecure-policy inspect --tls-verify=false docker://127.0.0.1:8440/team/other:1.4
export $("$ENISLE" mirror config hf --url "$URL")
tell hf-waits env HF_DEBUG=1 `+hf+` download org/name --local-dir model
tell pip-waits python3 -m pip --isolated download -q --no-deps -d wheels --index-url $URL/pypi/simple/ markupsafe
for at in pypi/simple/markupsafe/ cargo/3/r/ryu cargo/crates/itoa/itoa-1.0.14.crate cargo/it/oa/itoa npm/left-pad/-/left-pad-1.3.0.tgz; do
  echo; echo "== $at $(`+curl+` -s -w ' %{http_code}' $URL/$at)"
done
`)
	for what, want := range map[string]string{
		"npm-waits": "is-odd 3.0.1 arrived with shipment " + id + " and waits for approval", "npm-recalled": "left-pad 1.3.0 was recalled by alice",
		"npm-unknown": "it is not held here", "go-waits": "rsc.io/sampler v1.3.0 arrived with shipment " + id, "go-unknown": "it is not held here",
		"skopeo-waits": "team/app 1.4 arrived with shipment " + id, "skopeo-unknown": "it is not held here",
		"hf-waits": "org/name " + hubCommit + " arrived with shipment " + id, "pip-waits": "markupsafe", "cargo-waits": "no matching package named `ryu` found",
		"pypi/simple/markupsafe/":             "not found: markupsafe 3.0.2 arrived with shipment " + id + " and waits for approval\n 404",
		"cargo/3/r/ryu":                       `{"errors":[{"detail":"not found: ryu 1.0.18 arrived with shipment ` + id,
		"cargo/crates/itoa/itoa-1.0.14.crate": "itoa 1.0.14 was recalled by alice", "cargo/it/oa/itoa": "a flaw in its padding",
		"npm/left-pad/-/left-pad-1.3.0.tgz": `{"error":"not found: left-pad 1.3.0 was recalled by alice on `,
	} {
		_, said, ok := strings.Cut(out, "== "+what)
		said, _, _ = strings.Cut(said, "\n== ")
		if !ok || !strings.Contains(said, want) {
			t.Errorf("%s: no %q in %s", what, want, said)
		}
	}
	if strings.Contains(out, "NOT REFUSED") {
		t.Error(out)
	}
}
