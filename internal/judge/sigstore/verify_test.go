//go:build sigstore

package sigstore

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/fail"
)

// upstreamFiles is where the source of sigstore-go has bundles, and the trusted root of
// the public instance: nothing is asked.
func upstreamFiles(t *testing.T) string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/sigstore/sigstore-go").Output()
	dir := strings.TrimSpace(string(out))
	if err != nil || dir == "" {
		t.Skip("the source of sigstore-go is not here")
	}
	return filepath.Join(dir, "pkg", "testing", "data")
}

func file(t *testing.T, name ...string) []byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(name...))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// signerOf returns whom the certificate in a bundle names, to be asked for.
func signerOf(t *testing.T, root, content []byte) Signer {
	t.Helper()
	var b struct {
		VerificationMaterial struct {
			Certificate *struct{ RawBytes []byte }
			Chain       *struct {
				Certificates []struct{ RawBytes []byte }
			} `json:"x509CertificateChain"`
		}
	}
	if err := json.Unmarshal(content, &b); err != nil {
		t.Fatal(err)
	}
	m := b.VerificationMaterial
	if m.Certificate == nil {
		m.Certificate = &m.Chain.Certificates[0]
	}
	c, err := x509.ParseCertificate(m.Certificate.RawBytes)
	if err != nil {
		t.Fatal(err)
	}
	by := Signer{TrustedRoot: root, Identity: strings.Join(c.EmailAddresses, "")}
	for _, u := range c.URIs {
		by.Identity = u.String()
	}
	for _, e := range c.Extensions {
		if e.Id.String() == "1.3.6.1.4.1.57264.1.1" { // the issuer, in Fulcio's certificates
			by.Issuer = string(e.Value)
		}
	}
	return by
}

func TestABundleIsVerified(t *testing.T) {
	dir := upstreamFiles(t)
	content := file(t, dir, "bundles", "sigstore.js@2.0.0-provenance.sigstore.json")
	by := signerOf(t, file(t, dir, "trusted-roots", "public-good.json"), content)
	p, err := Verify(by, content)
	if fail.IsRefused(err) && strings.Contains(err.Error(), "names nothing by its SHA-256") {
		// Packages of npm are named by SHA-512; all else was verified.
		err = nil
	}
	if err != nil {
		t.Fatalf("%+v, %v", p, err)
	}
	for name, change := range map[string]func(*Signer){
		"another identity": func(s *Signer) { s.Identity = "x" + s.Identity },
		"another issuer":   func(s *Signer) { s.Issuer += "/x" },
		"no identity":      func(s *Signer) { s.Identity = "" },
		"another root":     func(s *Signer) { s.TrustedRoot = file(t, dir, "trusted-roots", "scaffolding.json") },
		"no root":          func(s *Signer) { s.TrustedRoot = []byte("{}") },
	} {
		other := by
		change(&other)
		if _, err := Verify(other, content); !fail.IsRefused(err) || strings.Contains(err.Error(), "SHA-256") || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// The models that the reference implementation signed by an identity.
func TestModelsSignedByAnIdentity(t *testing.T) {
	data := os.Getenv("ENISLE_TESTDATA")
	if data == "" {
		t.Skip("ENISLE_TESTDATA is not set: the vectors of models/oms are not read")
	}
	root := file(t, upstreamFiles(t), "trusted-roots", "public-good.json")
	dirs, err := filepath.Glob(filepath.Join(data, "models", "oms", "model-transparency", "*-sigstore"))
	if err != nil || len(dirs) < 4 {
		t.Fatalf("%d models, %v", len(dirs), err)
	}
	for _, dir := range dirs {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			content := file(t, dir, "model.sig")
			by := signerOf(t, root, content)
			p, err := Verify(by, content)
			if err != nil || len(p.Digests) == 0 || len(p.Chain) != 64 {
				t.Fatalf("%+v, %v", p, err)
			}
			other := by
			other.Identity += "x"
			if _, err := Verify(other, content); !fail.IsRefused(err) {
				t.Errorf("by somebody else: %v", err)
			}
			// One bit of the signature.
			var doc map[string]any
			if err := json.Unmarshal(content, &doc); err != nil {
				t.Fatal(err)
			}
			sig := doc["dsseEnvelope"].(map[string]any)["signatures"].([]any)[0].(map[string]any)
			text := []byte(sig["sig"].(string))
			text[20] ^= 1
			sig["sig"] = string(text)
			broken, err := json.Marshal(doc)
			if err != nil || bytes.Equal(broken, content) {
				t.Fatal(err)
			}
			if _, err := Verify(by, broken); !fail.IsRefused(err) {
				t.Errorf("with a broken signature: %v", err)
			}
			// The same, as PyPI would publish it.
			_, all, err := Read(asPublished(t, content))
			if err != nil || len(all) != 1 {
				t.Fatal(err)
			}
			if q, err := Verify(by, all[0]); err != nil || q.Digests[0] != p.Digests[0] {
				t.Errorf("as an attestation: %+v, %v", q, err)
			}
		})
	}
}

// asPublished writes a bundle as an attestation of PyPI.
func asPublished(t *testing.T, content []byte) []byte {
	t.Helper()
	var b struct {
		VerificationMaterial struct {
			Certificate struct{ RawBytes []byte }
			TlogEntries []json.RawMessage
		}
		DsseEnvelope struct {
			Payload    []byte
			Signatures []struct{ Sig []byte }
		}
	}
	if err := json.Unmarshal(content, &b); err != nil {
		t.Fatal(err)
	}
	out, err := json.Marshal(map[string]any{
		"version":               1,
		"verification_material": map[string]any{"certificate": b.VerificationMaterial.Certificate.RawBytes, "transparency_entries": b.VerificationMaterial.TlogEntries},
		"envelope":              map[string]any{"statement": b.DsseEnvelope.Payload, "signature": b.DsseEnvelope.Signatures[0].Sig},
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}
