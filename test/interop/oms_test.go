package interop

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"enisle/internal/app"
	"enisle/internal/fail"
)

// The reference implementation verifies what we sign, and we what it signs, by key
// and by certificate; and neither takes a model that was changed.
func TestModelSignaturesBothWays(t *testing.T) {
	python := pythonWith(t, "model_signing.signing", "model-signing==1.1.1", "pyopenssl==26.4.0")
	tool := filepath.Join(filepath.Dir(python), "model_signing")
	dir := t.TempDir()
	model := filepath.Join(dir, "model")
	write := func(name string, content []byte) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for _, f := range []string{"a.txt", "a/b", "a-b/c", "weights.safetensors"} {
		write("model/"+f, []byte(f))
	}
	signer := signerFiles(t, write)
	for name, tc := range map[string]struct{ theirs, sign []string }{
		"key": {
			[]string{"verify", "key", model, "--public_key", signer.public},
			[]string{"sign", "key", model, "--private_key", signer.private},
		},
		"certificate": {
			[]string{"verify", "certificate", model, "--certificate_chain", signer.root},
			[]string{"sign", "certificate", model, "--private_key", signer.private, "--signing_certificate", signer.leaf, "--certificate_chain", signer.root},
		},
	} {
		t.Run(name, func(t *testing.T) {
			verify := func(signature string) (app.ModelSignature, error) {
				o := app.OMSOptions{Model: model, Signature: signature, PublicKey: signer.public}
				if name == "certificate" {
					o.PublicKey, o.Certificates = "", signer.root
				}
				return app.VerifyModel(t.Context(), o)
			}
			ours, theirs := filepath.Join(dir, name+"-ours.sig"), filepath.Join(dir, name+"-theirs.sig")
			o := app.OMSOptions{Model: model, Signature: ours, PrivateKey: signer.private}
			if name == "certificate" {
				o.Certificates = signer.leaf
			}
			if _, err := app.SignModel(t.Context(), o); err != nil {
				t.Fatal(err)
			}
			run(t, "", append([]string{tool}, append(tc.theirs, "--signature", ours)...)...)
			run(t, "", append([]string{tool}, append(tc.sign, "--signature", theirs)...)...)
			got, err := verify(theirs)
			if err != nil || len(got.Signed) != 4 || len(got.Unsigned) != 0 {
				t.Fatalf("theirs: %+v, %v", got, err)
			}
			write("model/a.txt", []byte("changed"))
			if _, err := verify(theirs); !fail.IsRefused(err) || !strings.Contains(err.Error(), "a.txt") {
				t.Errorf("changed, and we say %v", err)
			}
			if out, err := exec.Command(tool, append(tc.theirs, "--signature", ours)...).CombinedOutput(); err == nil {
				t.Errorf("changed, and they say %s", out)
			}
			write("model/a.txt", []byte("a.txt"))
		})
	}
}

type signer struct{ private, public, leaf, root string }

// signerFiles makes a key, a root, and a certificate of the key under the root.
func signerFiles(t *testing.T, write func(string, []byte) string) signer {
	t.Helper()
	file := func(name, kind string, der []byte, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return write(name, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}))
	}
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	rootKey, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	ca := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "root"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, SubjectKeyId: []byte{1},
	}
	leaf := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "signer"}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}, SubjectKeyId: []byte{2},
	}
	rootDER, err := x509.CreateCertificate(rand.Reader, ca, ca, rootKey.Public(), rootKey)
	root := file("root.pem", "CERTIFICATE", rootDER, err)
	leafDER, err := x509.CreateCertificate(rand.Reader, leaf, ca, key.Public(), rootKey)
	cert := file("leaf.pem", "CERTIFICATE", leafDER, err)
	private, err := x509.MarshalECPrivateKey(key)
	out := signer{leaf: cert, root: root, private: file("key.pem", "EC PRIVATE KEY", private, err)}
	public, err := x509.MarshalPKIXPublicKey(key.Public())
	out.public = file("key.pub", "PUBLIC KEY", public, err)
	return out
}
