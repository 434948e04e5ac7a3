package oms

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"

	"enisle/internal/fail"
)

func data(t *testing.T) string {
	t.Helper()
	dir := os.Getenv("ENISLE_TESTDATA")
	if dir == "" {
		t.Skip("ENISLE_TESTDATA is not set: the vectors of models/oms are not read")
	}
	return filepath.Join(dir, "models", "oms")
}

func pemFile(t *testing.T, name string) []byte {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	p, _ := pem.Decode(b)
	return p.Bytes
}

// The models that the reference implementation signed, in all of its versions.
func TestSignaturesOfTheReferenceVerify(t *testing.T) {
	top := filepath.Join(data(t), "model-transparency")
	pub, err := x509.ParsePKIXPublicKey(pemFile(t, filepath.Join(top, "keys", "signing-key-pub.pem")))
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(pemFile(t, filepath.Join(top, "keys", "ca-cert.pem")))
	if err != nil {
		t.Fatal(err)
	}
	dirs, err := filepath.Glob(filepath.Join(top, "v*-*"))
	if err != nil || len(dirs) < 12 {
		t.Fatalf("%d models, %v", len(dirs), err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			raw, err := os.ReadFile(filepath.Join(dir, "model.sig"))
			if err != nil {
				t.Fatal(err)
			}
			b, err := Parse(raw)
			if err != nil {
				t.Fatal(err)
			}
			legacy := strings.HasPrefix(filepath.Base(dir), "v0.2")
			switch b.Method {
			case Sigstore:
				if err := b.VerifyKey(pub, legacy); !fail.IsRefused(err) || !strings.Contains(err.Error(), "Sigstore") {
					t.Errorf("by an identity: %v", err)
				}
				return
			case Key:
				if err := b.VerifyKey(pub, legacy); err != nil {
					t.Error(err)
				}
			case Certificate:
				from, _ := b.SignedBefore()
				if who, err := b.VerifyCertificate([]*x509.Certificate{root}, from, legacy); err != nil || who == "" {
					t.Errorf("%q, %v", who, err)
				}
				if _, err := b.VerifyCertificate([]*x509.Certificate{root}, from.AddDate(-1, 0, 0), legacy); !fail.IsRefused(err) {
					t.Errorf("before it was valid: %v", err)
				}
				if _, err := b.VerifyCertificate(nil, from, legacy); !fail.IsRefused(err) {
					t.Errorf("without a root: %v", err)
				}
			}
			if legacy {
				if _, err := b.VerifyCertificate([]*x509.Certificate{root}, time.Now(), false); !fail.IsRefused(err) {
					t.Errorf("the old form, not asked for: %v", err)
				}
			}
			got, err := b.Statement.Check(t.Context(), os.DirFS(dir), "model.sig")
			if err != nil || len(got.Signed) == 0 {
				t.Fatalf("%+v, %v", got, err)
			}
			_, ignores := os.Stat(filepath.Join(dir, "ignore-me"))
			if want := ignores == nil; want != (len(got.Unsigned) == 1) {
				t.Errorf("unsigned: %v, want one: %v", got.Unsigned, want)
			}
		})
	}
}

func TestVectorsOfTheSpecification(t *testing.T) {
	top := filepath.Join(data(t), "spec-vectors", "v1.0")
	count := 0
	for dir, good := range map[string]bool{"valid": true, "invalid": false, "invalid-payload": false} {
		names, err := filepath.Glob(filepath.Join(top, dir, "*.json"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			count++
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := Parse(b); (err == nil) != good {
				t.Errorf("%s/%s: %v", dir, filepath.Base(name), err)
			}
		}
	}
	if count < 8 {
		t.Errorf("only %d vectors", count)
	}
}

func model() fstest.MapFS {
	return fstest.MapFS{
		"a.txt": {Data: []byte("a")}, "a/b": {Data: []byte("b")}, "a-b/c": {Data: nil}, "weights.bin": {Data: bytes.Repeat([]byte("w"), 1000)},
		".git/config": {Data: []byte("x")}, "model.sig": {Data: []byte("x")},
	}
}

func newKey(t *testing.T, c elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	k, err := ecdsa.GenerateKey(c, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func signModel(t *testing.T, key crypto.Signer, chain []*x509.Certificate) []byte {
	t.Helper()
	st, err := Describe(t.Context(), "m", model(), []string{"model.sig"})
	if err != nil {
		t.Fatal(err)
	}
	b, err := Sign(st, key, chain)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestWhatIsSignedVerifies(t *testing.T) {
	for _, c := range []elliptic.Curve{elliptic.P256(), elliptic.P384(), elliptic.P521()} {
		k := newKey(t, c)
		b, err := Parse(signModel(t, k, nil))
		if err != nil {
			t.Fatal(err)
		}
		if err := b.VerifyKey(k.Public(), false); err != nil {
			t.Error(err)
		}
		if err := b.VerifyKey(newKey(t, c).Public(), false); !fail.IsRefused(err) {
			t.Errorf("another key: %v", err)
		}
		got, err := b.Statement.Check(t.Context(), model(), "model.sig")
		if err != nil || !slices.Equal(got.Signed, []string{"a-b/c", "a.txt", "a/b", "weights.bin"}) || len(got.Unsigned) != 0 {
			t.Errorf("%+v, %v", got, err)
		}
	}
	_, ed, _ := ed25519.GenerateKey(rand.Reader)
	st, err := Describe(t.Context(), "m", model(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Sign(st, ed, nil); err == nil {
		t.Error("signed with a key that nobody verifies")
	}
	if _, err := Sign(st, newKey(t, elliptic.P224()), nil); err == nil {
		t.Error("signed on a curve that nobody verifies")
	}
}

func TestCertificatesCount(t *testing.T) {
	now := time.Now()
	issue := func(name string, ca bool, key *ecdsa.PrivateKey, by *x509.Certificate, byKey *ecdsa.PrivateKey, usage x509.KeyUsage) *x509.Certificate {
		c := &x509.Certificate{
			SerialNumber: big.NewInt(now.UnixNano()), Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
			IsCA: ca, BasicConstraintsValid: true, KeyUsage: usage,
		}
		if by == nil {
			by, byKey = c, key
		}
		der, err := x509.CreateCertificate(rand.Reader, c, by, key.Public(), byKey)
		if err != nil {
			t.Fatal(err)
		}
		out, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	rootKey, midKey, leafKey := newKey(t, elliptic.P384()), newKey(t, elliptic.P256()), newKey(t, elliptic.P256())
	root := issue("root", true, rootKey, nil, nil, x509.KeyUsageCertSign)
	mid := issue("mid", true, midKey, root, rootKey, x509.KeyUsageCertSign)
	leaf := issue("signer", false, leafKey, mid, midKey, x509.KeyUsageDigitalSignature)
	wrong := issue("no signer", false, leafKey, mid, midKey, x509.KeyUsageKeyEncipherment)
	other := issue("other", true, rootKey, nil, nil, x509.KeyUsageCertSign)
	verify := func(chain, roots []*x509.Certificate, at time.Time) (string, error) {
		b, err := Parse(signModel(t, leafKey, chain))
		if err != nil {
			t.Fatal(err)
		}
		return b.VerifyCertificate(roots, at, false)
	}
	if who, err := verify([]*x509.Certificate{leaf, mid}, []*x509.Certificate{root}, now); err != nil || who != "CN=signer" {
		t.Errorf("%q, %v", who, err)
	}
	for name, err := range map[string]error{
		"expired": func() error {
			_, err := verify([]*x509.Certificate{leaf, mid}, []*x509.Certificate{root}, now.Add(2*time.Hour))
			return err
		}(),
		"not for signatures": func() error {
			_, err := verify([]*x509.Certificate{wrong, mid}, []*x509.Certificate{root}, now)
			return err
		}(),
		"without its issuer": func() error { _, err := verify([]*x509.Certificate{leaf}, []*x509.Certificate{root}, now); return err }(),
		"under another root": func() error {
			_, err := verify([]*x509.Certificate{leaf, mid}, []*x509.Certificate{mid, other}[1:], now)
			return err
		}(),
	} {
		if !fail.IsRefused(err) || fail.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Sign(Statement{}, leafKey, []*x509.Certificate{mid}); err == nil {
		t.Error("signed under a certificate of another key")
	}
}

func TestAChangedModelIsRefused(t *testing.T) {
	k := newKey(t, elliptic.P384())
	b, err := Parse(signModel(t, k, nil))
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(fstest.MapFS){
		"another byte":   func(m fstest.MapFS) { m["a.txt"] = &fstest.MapFile{Data: []byte("b")} },
		"a longer file":  func(m fstest.MapFS) { m["a.txt"] = &fstest.MapFile{Data: []byte("aa")} },
		"a missing file": func(m fstest.MapFS) { delete(m, "a/b") },
		"files swapped":  func(m fstest.MapFS) { m["a.txt"], m["a/b"] = m["a/b"], m["a.txt"] },
		"a link":         func(m fstest.MapFS) { m["x"] = &fstest.MapFile{Data: []byte("a.txt"), Mode: os.ModeSymlink} },
	} {
		m := model()
		change(m)
		if _, err := b.Statement.Check(t.Context(), m, "model.sig"); !fail.IsRefused(err) {
			t.Errorf("%s: %v", name, err)
		}
	}
	m := model()
	m["modeling_x.py"] = &fstest.MapFile{Data: []byte("import os")}
	got, err := b.Statement.Check(t.Context(), m, "model.sig")
	if err != nil || !slices.Equal(got.Unsigned, []string{"modeling_x.py"}) {
		t.Errorf("a file that nobody signed: %+v, %v", got, err)
	}
}

func TestHostileBundlesAreRefused(t *testing.T) {
	k := newKey(t, elliptic.P256())
	good := signModel(t, k, nil)
	resign := func(change func(map[string]any)) []byte {
		var f map[string]any
		if err := json.Unmarshal(good, &f); err != nil {
			t.Fatal(err)
		}
		env := f["dsseEnvelope"].(map[string]any)
		payload, _ := base64.StdEncoding.DecodeString(env["payload"].(string))
		var st map[string]any
		if err := json.Unmarshal(payload, &st); err != nil {
			t.Fatal(err)
		}
		change(st)
		payload, _ = json.Marshal(st)
		sum, _ := digest(elliptic.P256(), pae(payload))
		sig, err := ecdsa.SignASN1(rand.Reader, k, sum)
		if err != nil {
			t.Fatal(err)
		}
		env["payload"], env["signatures"] = payload, []any{map[string]any{"sig": sig}}
		b, _ := json.Marshal(f)
		return b
	}
	predicate := func(st map[string]any) map[string]any { return st["predicate"].(map[string]any) }
	resource := func(st map[string]any) map[string]any { return predicate(st)["resources"].([]any)[0].(map[string]any) }
	for name, b := range map[string][]byte{
		"another sum of all":         resign(func(st map[string]any) { resource(st)["digest"] = strings.Repeat("0", 64) }),
		"a path that leaves":         resign(func(st map[string]any) { resource(st)["name"] = "../x" }),
		"an absolute path":           resign(func(st map[string]any) { resource(st)["name"] = "/etc/passwd" }),
		"a hash that is not known":   resign(func(st map[string]any) { resource(st)["algorithm"] = "md5" }),
		"a digest that is cut short": resign(func(st map[string]any) { resource(st)["digest"] = "00" }),
		"two subjects":               resign(func(st map[string]any) { st["subject"] = append(st["subject"].([]any), st["subject"].([]any)[0]) }),
		"no subject":                 resign(func(st map[string]any) { st["subject"] = []any{} }),
		"another predicate":          resign(func(st map[string]any) { st["predicateType"] = "https://slsa.example/v1" }),
		"a resource twice": resign(func(st map[string]any) {
			p := predicate(st)
			p["resources"] = append(p["resources"].([]any), p["resources"].([]any)[0])
		}),
		"no resources":        resign(func(st map[string]any) { predicate(st)["resources"] = []any{} }),
		"an unknown key":      resign(func(st map[string]any) { st["also"] = 1 }),
		"no JSON":             []byte("x"),
		"a key twice":         bytes.Replace(good, []byte(`"mediaType"`), []byte(`"mediaType": "x", "mediaType"`), 1),
		"signed in two ways":  bytes.Replace(good, []byte(`"publicKey"`), []byte(`"certificate": {"rawBytes": ""}, "publicKey"`), 1),
		"something behind it": append(bytes.Clone(good), "{}"...),
	} {
		if _, err := Parse(b); !fail.IsRefused(err) || fail.HintOf(err) == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	for i := range good {
		c := bytes.Clone(good)
		c[i] ^= 4
		b, err := Parse(c)
		if err != nil {
			continue
		}
		if err := b.VerifyKey(k.Public(), false); err == nil {
			if got, err := b.Statement.root(); err != nil || got != mustRoot(t, good) {
				t.Fatalf("byte %d: another statement passes", i)
			}
		}
	}
}

func mustRoot(t *testing.T, bundle []byte) string {
	t.Helper()
	b, err := Parse(bundle)
	if err != nil {
		t.Fatal(err)
	}
	root, err := b.Statement.root()
	if err != nil {
		t.Fatal(err)
	}
	return root
}

func FuzzParse(f *testing.F) {
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	st, err := Describe(f.Context(), "m", model(), nil)
	if err != nil {
		f.Fatal(err)
	}
	b, err := Sign(st, k, nil)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := Parse(b)
		if err == nil && got.VerifyKey(k.Public(), false) == nil && len(got.Statement.Resources) != len(st.Resources) {
			t.Error("another statement passes")
		}
	})
}
