package interop

import (
	"os"
	"strings"
	"testing"
)

// Where users are enrolled, package clients pull with their keys and nothing without;
// a certificate does as well as a key, and a channel is open only to whom it is given.
func TestClientsPullWithTheirKeys(t *testing.T) {
	npm, cargo, python := client(t, "npm"), client(t, "cargo"), client(t, "python3")
	golang, curl, openssl := client(t, "go"), client(t, "curl"), client(t, "openssl")
	dir, enisle := crossed(t, map[string]string{
		"enisle.yaml": "name: app\nbring:\n  pypi: [ markupsafe==3.0.2 ]\n  npm: [ left-pad@1.3.0 ]\n  cargo: [ itoa@1.0.14 ]\n  gomod: [ rsc.io/sampler@v1.3.0 ]\n  files: [ file.txt ]\n",
	})
	enisle("-C", "high", "user", "add", "ada", "--role", "mirror")
	enisle("-C", "high", "user", "add", "olga", "--role", "mirror,monitor", "--channel", "stable,canary")
	ada := strings.TrimSpace(enisle("-C", "high", "user", "key", "ada"))
	gone := strings.TrimSpace(enisle("-C", "high", "user", "key", "ada"))
	enisle("-C", "high", "user", "revoke", "ada", gone)
	home, err := os.UserHomeDir()
	if err != nil {
		t.Fatal(err)
	}
	out := inside(t, dir, `
RUST=${RUSTUP_HOME:-`+home+`/.rustup} KEY=`+ada+` GONE=`+gone+`
code() { `+curl+` -s -o /dev/null -w '%{http_code}\n' "$@"; }
refused() { if "$@" >refused.log 2>&1; then echo "NOT REFUSED: $*"; else echo "refused: $(grep -io -m1 -e '401[^<]*' refused.log || cat refused.log)"; fi; }
echo "none $(code $URL/files/file.txt) gone $(code -H "Authorization: Bearer $GONE" $URL/files/file.txt) good $(code -u x:$KEY $URL/files/file.txt)"
echo "metrics $(code -u x:$KEY $URL/metrics) chat $(code -u x:$KEY $URL/v1/models) canary $(code -u x:$KEY $URL/c/canary/files/file.txt)"
echo "health $(code $URL/healthz) registry $(code $URL/v2/)"
`+curl+` -s $URL/v1/models; echo
`+curl+` -s $URL/v2/; echo

pip() { `+python+` -m pip --isolated "$@"; }
refused pip download -q --no-deps --no-input -d wheels --index-url $URL/pypi/simple/ markupsafe
pip download -q --no-deps -d wheels --index-url http://ada:$KEY@127.0.0.1:8440/pypi/simple/ markupsafe && ls wheels

mkdir web && cd web && echo '{"name":"app","version":"1.0.0"}' >package.json
refused `+npm+` install --registry $URL/npm/ left-pad
echo "//127.0.0.1:8440/npm/:_authToken=$KEY" >$HOME/.npmrc
`+npm+` install --no-audit --no-fund --registry $URL/npm/ left-pad && ls node_modules && cd ..

mkdir -p $HOME/.cargo rust/src && cd rust
printf '[package]\nname="app"\nversion="0.1.0"\nedition="2021"\n[dependencies]\nitoa="1"\n' >Cargo.toml && echo 'fn main(){}' >src/main.rs
printf '[registries.enisle]\nindex = "sparse+%s/cargo/"\n[source.crates-io]\nreplace-with = "enisle"\n[registry]\nglobal-credential-providers = ["cargo:token"]\n' $URL >$HOME/.cargo/config.toml
refused env CARGO_HOME=$HOME/.cargo RUSTUP_HOME=$RUST `+cargo+` fetch
CARGO_HOME=$HOME/.cargo RUSTUP_HOME=$RUST CARGO_REGISTRIES_ENISLE_TOKEN=$KEY `+cargo+` fetch 2>&1 | grep -i download; cd ..

mkdir keys && cd keys
`+openssl+` req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.pem -subj /CN=clients -days 2 2>/dev/null
for name in 127.0.0.1 ada eve; do
  `+openssl+` req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout $name.key -out $name.csr -subj /CN=$name 2>/dev/null
  echo "subjectAltName=IP:127.0.0.1" >ext; [ $name = 127.0.0.1 ] || echo "extendedKeyUsage=clientAuth" >ext
  `+openssl+` x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out $name.pem 2>/dev/null
done
"$ENISLE" -C ../high serve --listen 127.0.0.1:8443 --tls-cert 127.0.0.1.pem --tls-key 127.0.0.1.key --client-ca ca.pem -q >tls.log 2>&1 &
tls=$!
trap 'kill $serve $tls; wait $serve $tls || true' EXIT
for i in $(seq 100); do (exec 3<>/dev/tcp/127.0.0.1/8443) 2>/dev/null && break; sleep 0.1; done
S=https://127.0.0.1:8443
echo "certificate: none $(code --cacert ca.pem $S/files/file.txt) ada $(code --cacert ca.pem --cert ada.pem --key ada.key $S/files/file.txt) eve $(code --cacert ca.pem --cert eve.pem --key eve.key $S/files/file.txt)"
export SSL_CERT_FILE=$PWD/ca.pem GOPROXY=$S/go GOMODCACHE=$PWD/mod GOFLAGS=-modcacherw GOSUMDB=off GOTOOLCHAIN=local
mkdir ../go && cd ../go && `+golang+` mod init app.example/x 2>/dev/null
refused `+golang+` get rsc.io/sampler@v1.3.0
echo "machine 127.0.0.1:8443 login ada password $KEY" >$HOME/.netrc
`+golang+` get rsc.io/sampler@v1.3.0 2>&1
cd .. && "$ENISLE" -C high pulls pypi/markupsafe@3.0.2
`)
	for _, want := range []string{
		"none 401 gone 401 good 200", "metrics 403 chat 403 canary 403", "health 200 registry 401",
		`"error":{"code":"UNAUTHORIZED"`, `"errors":[{"code":"UNAUTHORIZED"`, "markupsafe-3.0.2", "left-pad", "Downloaded itoa",
		"certificate: none 401 ada 200 eve 401", "added rsc.io/sampler", "ada@127.0.0.1",
	} {
		if !strings.Contains(strings.ToLower(out), strings.ToLower(want)) {
			t.Errorf("%q is missing", want)
		}
	}
	// pip asks for a password and says nothing of the status when nobody answers; cargo
	// says which variable has to hold the token.
	if n := strings.Count(out, "refused: "); n != 4 || strings.Count(out, "refused: 401") != 2 || !strings.Contains(out, "no token found") {
		t.Errorf("%d clients were refused, want 4", n)
	}
	if t.Failed() {
		t.Log(out)
	}
}
