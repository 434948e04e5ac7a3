package interop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/ecosystem/npm"
	"enisle/internal/sandbox"
)

// signedRegistry is the mirror with the signatures of a registry added to its answers,
// over what sign makes of NAME@VERSION:INTEGRITY.
func signedRegistry(t *testing.T, sign func(string) string) (base string, key artifact.Digest) {
	t.Helper()
	secret, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&secret.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(der)
	id := "SHA256:" + base64.RawStdEncoding.EncodeToString(sum[:])
	h, err := (&npm.Ecosystem{}).Handler(packages(t))
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/npm/-/npm/v1/keys", func(w http.ResponseWriter, _ *http.Request) {
		_ = json.NewEncoder(w).Encode(map[string]any{"keys": []any{map[string]any{"expires": nil, "keyid": id, "keytype": "ecdsa-sha2-nistp256", "scheme": "ecdsa-sha2-nistp256", "key": der}}})
	})
	add := func(v map[string]any) {
		dist, ok := v["dist"].(map[string]any)
		if !ok {
			return
		}
		text := sha256.Sum256([]byte(sign(v["name"].(string) + "@" + v["version"].(string) + ":" + dist["integrity"].(string))))
		sig, err := ecdsa.SignASN1(rand.Reader, secret, text[:])
		if err != nil {
			t.Error(err)
		}
		dist["signatures"] = []any{map[string]any{"keyid": id, "sig": sig}}
	}
	mux.Handle("/npm/", http.StripPrefix("/npm", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got := httptest.NewRecorder()
		h.ServeHTTP(got, r)
		var doc map[string]any
		if got.Code != http.StatusOK || json.Unmarshal(got.Body.Bytes(), &doc) != nil {
			w.Header().Set("Content-Type", got.Header().Get("Content-Type"))
			w.WriteHeader(got.Code)
			_, _ = w.Write(got.Body.Bytes())
			return
		}
		add(doc)
		if all, ok := doc["versions"].(map[string]any); ok {
			for _, v := range all {
				add(v.(map[string]any))
			}
		}
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(doc)
	})))
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s.URL + "/npm/", artifact.FromSum(sum)
}

// verifying does what 'npm audit signatures' does, with npm's own code: that command asks
// the Update Framework for keys first, which lies on the internet.
const verifying = `
const [root, registry] = process.argv.slice(1), pacote = require(root + "/npm/node_modules/pacote")
const u = new URL(registry)
fetch(registry + "-/npm/v1/keys").then(r => r.json()).then(({keys}) => pacote.manifest("island-top@1.0.0", {
	registry, verifySignatures: true, cache: process.env.npm_config_cache,
	["//" + u.host + u.pathname + ":_keys"]: keys.map(k => ({...k, pemkey: "-----BEGIN PUBLIC KEY-----\n" + k.key + "\n-----END PUBLIC KEY-----"})),
})).then(m => console.log("verified", m._signatures.length)).catch(err => { console.error(err.code, err.message); process.exit(1) })
`

// What 'npm audit signatures' says is good is proven here, and nothing else.
func TestSignaturesOfARegistryAreThoseThatNpmVerifies(t *testing.T) {
	program := client(t, "npm")
	for name, tc := range map[string]struct {
		sign func(string) string
		good bool
		said string
	}{
		"good":                    {func(s string) string { return s }, true, "verified 1"},
		"over another version":    {func(s string) string { return strings.Replace(s, "@1.0.0:", "@1.0.1:", 1) }, false, "EINTEGRITYSIGNATURE"},
		"over something besides":  {func(s string) string { return s + "x" }, false, "EINTEGRITYSIGNATURE"},
		"over another of its own": {func(s string) string { return strings.Replace(s, "island-top", "@island/dep", 1) }, false, "EINTEGRITYSIGNATURE"},
	} {
		t.Run(name, func(t *testing.T) {
			npmAlone(t)
			base, key := signedRegistry(t, tc.sign)
			t.Setenv("npm_config_registry", base)
			cmd := exec.CommandContext(t.Context(), client(t, "node"), "-e", verifying, strings.TrimSpace(run(t, "", program, "root", "-g")), base)
			if out, err := cmd.CombinedOutput(); (err == nil) != tc.good || !strings.Contains(string(out), tc.said) {
				t.Errorf("npm: %v: %s", err, out)
			}
			index, err := fetch.New(fetch.Options{})
			if err != nil {
				t.Fatal(err)
			}
			eco := &npm.Ecosystem{Runner: sandbox.Exec{}, Index: index}
			want := ecosystem.Want{Items: []any{"island-top@1.0.0"}, Work: t.TempDir()}
			found, err := eco.Resolve(t.Context(), want)
			if err != nil {
				t.Fatal(err)
			}
			got, err := eco.Prove(t.Context(), want, ecosystem.Found{Artifacts: found, At: time.Now()})
			if err != nil || len(got) != 1 {
				t.Fatalf("%+v, %v", got, err)
			}
			if proven := slices.Equal(got[0].Keys, []string{string(key)}) && len(got[0].Covers) == 1; proven != tc.good {
				t.Errorf("%+v", got[0])
			}
		})
	}
}

// It is known inside by whom a package of npm is, which was fetched after it was proven.
func TestPackagesOfNpmAreKnownInside(t *testing.T) {
	client(t, "npm")
	npmAlone(t)
	base, key := signedRegistry(t, func(s string) string { return strings.Replace(s, "@island/dep@9.10.0:", "@island/dep@9:", 1) })
	t.Setenv("npm_config_registry", base)
	dir, enisle := crossed(t, map[string]string{"enisle.yaml": "name: packages\nbring:\n  npm: [ island-top@1.0.0, \"@island/dep@9.10.0\" ]\n"})
	got := signersOf(t, dir, enisle)
	if by := got["npm/island-top@1.0.0"]; !slices.Equal(by, []string{"npm:key:" + string(key)}) {
		t.Errorf("it is signed by %v, want %s", by, key)
	}
	if by, ok := got["npm/@island/dep@9.10.0"]; !ok || len(by) != 0 {
		t.Errorf("what is not well signed is signed by %v", by)
	}
}
