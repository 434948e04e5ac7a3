package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/ecosystem/huggingface/huggingfacetest"
	"enisle/internal/ecosystem/ocidist/ocidisttest"
)

// Clients that have the addresses of their registries built in find what they know there:
// go with its proxy and checksum database, cargo with a lock file, mvn with its central
// repository, apt with a stock source, skopeo and hf with the names of their upstreams. None
// has any setting but whom to trust.
func TestClientsWithoutSettingsFindTheMirror(t *testing.T) {
	golang, cargo, mvn, skopeo, keytool := client(t, "go"), client(t, "cargo"), client(t, "mvn"), client(t, "skopeo"), client(t, "keytool")
	hf := filepath.Join(hubClient(t), "hf")
	if _, err := exec.LookPath("unshare"); err != nil || os.Getuid() != 0 {
		t.Skip("no namespace can be made: it takes root and unshare")
	}
	image := ocidisttest.New()
	image.Tags["1.4"] = image.Image("linux", "amd64", layer(t, "../../docs")).Digest
	registry := image.Serve(t, "team/app", "")
	_, weights := tinyModel("")
	hub := &huggingfacetest.Hub{Repository: "org/name", Commit: hubCommit, Large: []string{"model.safetensors"}, Files: map[string][]byte{
		"config.json": []byte(`{"model_type":"llama"}`), "model.safetensors": weights,
	}}
	hub.Start(t)
	named := func(name, address string) string { return strings.Replace(address, "127.0.0.1", name, 1) }

	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	dir, enisle := sites(t, []byte("x"))
	for _, name := range []string{"alice", "bob"} {
		enisle("keygen", "--no-passphrase", "--out", name+".key")
		enisle("-C", "high", "person", "add", name, "--role", "approver", "--key", name+".key.pub")
	}
	for name, text := range map[string]string{
		"rust/Cargo.toml":  "[package]\nname = \"app\"\nversion = \"0.1.0\"\nedition = \"2021\"\n[dependencies]\nitoa = \"=1.0.14\"\n",
		"rust/src/main.rs": "fn main() {}\n",
		"pom.xml": `<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion><groupId>g</groupId><artifactId>a</artifactId><version>1</version>
<dependencies><dependency><groupId>org.slf4j</groupId><artifactId>slf4j-api</artifactId><version>1.7.36</version></dependency></dependencies></project>`,
		"hosts": "127.0.0.1 localhost registry.example hub.example\n",
		"enisle.yaml": `
name: stock
target: {os: linux, arch: amd64}
bring:
  gomod: [ rsc.io/sampler@v1.3.0 ]
  cargo: [ {lockfile: rust/Cargo.lock} ]
  maven: [ "org.slf4j:slf4j-api:1.7.36" ]
  debian: [ hello ]
  oci: [ {image: "registry.example/team/app:1.4", registry: "` + named("registry.example", registry.URL) + `"} ]
  huggingface: [ {repo: "org/name", endpoint: "` + named("hub.example", hub.URL) + `"} ]
`,
	} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(dir, name), text)
	}
	run(t, filepath.Join(dir, "rust"), cargo, "generate-lockfile")
	// The names of the test's own registries mean this machine while it is collected.
	t.Setenv("NO_PROXY", "registry.example,hub.example")
	t.Setenv("no_proxy", "registry.example,hub.example")
	cat, err := os.ReadFile("/etc/hosts")
	if err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "outside"), string(cat)+"127.0.0.1 registry.example hub.example\n")
	run(t, dir, "unshare", "-m", "bash", "-c", "mount --bind outside /etc/hosts && exec ./enisle -C low collect -q")
	bringThrough(t, dir, enisle)
	if n := standIn(t, dir, enisle); n < 6 {
		t.Fatalf("%d hosts", n)
	}
	out := inside(t, dir, `
mount --bind hosts /etc/hosts
"$ENISLE" -C high serve --listen 127.0.0.1:443 --tls-cert tls/mirror.pem --tls-key tls/mirror.key -q >tls.log 2>&1 &
tls=$!
"$ENISLE" -C high serve --listen 127.0.0.1:80 -q >plain.log 2>&1 &
plain=$!
trap 'kill $serve $tls $plain; wait $serve $tls $plain || true' EXIT
for port in 443 80; do for i in $(seq 100); do (exec 3<>/dev/tcp/127.0.0.1/$port) 2>/dev/null && break; sleep 0.1; done; done
export SSL_CERT_FILE=$PWD/tls/ca.pem REQUESTS_CA_BUNDLE=$PWD/tls/ca.pem
try() { echo "== $1"; shift; "$@" 2>&1 || echo FAILED; }
mkdir goapp && cd goapp && `+golang+` mod init app.example/x 2>/dev/null
try go env GOTOOLCHAIN=local GOMODCACHE=$PWD/mod GOFLAGS=-modcacherw `+golang+` get rsc.io/sampler@v1.3.0
cd ../rust && cp Cargo.lock before
try cargo env CARGO_HOME=$PWD/home RUSTUP_HOME=${RUSTUP_HOME:-`+home+`/.rustup} CARGO_HTTP_CAINFO=$SSL_CERT_FILE `+cargo+` fetch --locked
cmp Cargo.lock before && echo unmodified
cd ..
`+keytool+` -importcert -noprompt -alias island -file tls/ca.pem -keystore trust.p12 -storepass changeit -storetype PKCS12 2>/dev/null
mkdir java && cp pom.xml java/
MAVEN_OPTS="-Djavax.net.ssl.trustStore=$PWD/trust.p12 -Djavax.net.ssl.trustStorePassword=changeit" try mvn `+mvn+` -B -q -f java/pom.xml -Dmaven.repo.local=$PWD/repository package
ls repository/org/slf4j/slf4j-api/1.7.36/*.jar
try skopeo `+skopeo+` --insecure-policy copy -q docker://registry.example/team/app:1.4 dir:image
ls image/manifest.json
try hf env HF_ENDPOINT=https://hub.example HF_HOME=$PWD/hfhome `+hf+` download org/name --local-dir model
ls model/model.safetensors
curl -sf http://127.0.0.1:8440/debian/enisle.asc -o island.asc
. /etc/os-release
mkdir -p apt/lists/partial apt/archives/partial && : >apt/status
archive=$(apt-get indextargets --format '$(REPO_URI) $(RELEASE)' | awk -v r=$VERSION_CODENAME '$2==r {print $1; exit}')
echo "deb [signed-by=$PWD/island.asc] $archive $VERSION_CODENAME main" >apt/sources.list
apt="-o Dir::Etc::sourcelist=$PWD/apt/sources.list -o Dir::Etc::sourceparts=- -o Dir::State::lists=$PWD/apt/lists -o Dir::State::status=$PWD/apt/status -o Dir::Cache=$PWD/apt -o Dir::Cache::archives=$PWD/apt/archives -o APT::Sandbox::User=root -o Acquire::http::Proxy=false"
try apt sh -c "apt-get $apt update && apt-get $apt install -y --download-only hello"
ls apt/archives/hello_*.deb
if curl -s -o /dev/null --max-time 2 http://192.0.2.1/; then echo LEAK; fi
`)
	for _, want := range []string{"added rsc.io/sampler v1.3.0", "unmodified", "slf4j-api-1.7.36.jar", "image/manifest.json", "model/model.safetensors", "archives/hello_"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q", want)
		}
	}
	if strings.Contains(out, "FAILED") || strings.Contains(out, "LEAK") || t.Failed() {
		t.Error(out)
	}
}
