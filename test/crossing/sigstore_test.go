//go:build sigstore

package crossing_test

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// identity copies what the tests of Sigstore are made from: root.json, the trusted root
// in the source of sigstore-go, so that nothing is asked; tiny, a model of the vectors
// that an identity signed. It returns the signature and who made it.
func (w *world) identity() (sig []byte, who, issuer string) {
	w.t.Helper()
	data := os.Getenv("ENISLE_TESTDATA")
	if data == "" {
		w.t.Skip("ENISLE_TESTDATA is not set: the vectors of models/oms are not read")
	}
	out, err := exec.CommandContext(w.t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/sigstore/sigstore-go").Output()
	if err != nil || len(out) < 2 {
		w.t.Skip("the source of sigstore-go is not here")
	}
	copied := func(from, to string) []byte {
		b, err := os.ReadFile(from)
		w.must(err)
		w.must(os.MkdirAll(filepath.Dir(w.path(to)), 0o755))
		w.must(os.WriteFile(w.path(to), b, 0o600))
		return b
	}
	copied(filepath.Join(strings.TrimSpace(string(out)), "pkg", "testing", "data", "trusted-roots", "public-good.json"), "root.json")
	model := filepath.Join(data, "models", "oms", "model-transparency", "v1.1.0-sigstore")
	for _, name := range []string{"signme-1", "signme-2"} {
		copied(filepath.Join(model, name), "tiny/"+name)
	}
	sig = copied(filepath.Join(model, "model.sig"), "tiny/model.sig")
	c, err := x509.ParseCertificate(readBundle(w, sig).VerificationMaterial.Certificate.RawBytes)
	w.must(err)
	for _, e := range c.Extensions {
		if e.Id.String() == "1.3.6.1.4.1.57264.1.1" {
			issuer = string(e.Value)
		}
	}
	return sig, c.EmailAddresses[0], issuer
}

type bundleParts struct {
	VerificationMaterial struct {
		Certificate struct{ RawBytes []byte }
		TlogEntries []json.RawMessage
	}
	DsseEnvelope struct {
		Payload    []byte
		Signatures []struct{ Sig []byte }
	}
}

func readBundle(w *world, b []byte) (out bundleParts) {
	w.t.Helper()
	w.must(json.Unmarshal(b, &out))
	return out
}

// A bundle over a file counts wherever it lies, and as PyPI would publish it. What the
// signature of the vectors is over is the sum of a file: that of the two digests.
func TestABundleOverAFileIsAttested(t *testing.T) {
	w := newWorld(t)
	sig, who, issuer := w.identity()
	var sums []byte
	for _, name := range []string{"signme-1", "signme-2"} {
		b, err := os.ReadFile(w.path("tiny", name))
		w.must(err)
		sum := sha256.Sum256(b)
		sums = append(sums, sum[:]...)
	}
	b := readBundle(w, sig)
	published, err := json.Marshal(map[string]any{
		"version":               1,
		"verification_material": map[string]any{"certificate": b.VerificationMaterial.Certificate.RawBytes, "transparency_entries": b.VerificationMaterial.TlogEntries},
		"envelope":              map[string]any{"statement": b.DsseEnvelope.Payload, "signature": b.DsseEnvelope.Signatures[0].Sig},
	})
	w.must(err)
	w.must(os.MkdirAll(w.path("dir"), 0o755))
	for name, content := range map[string][]byte{"sums.bin": sums, "dir/sums.bin": sums, "dir/sums.bin.sigstore.json": sig, "bundle.json": sig, "published.json": published} {
		w.must(os.WriteFile(w.path(name), content, 0o600))
	}
	asks := func(what, more string) {
		w.asks("test", "  files: [ "+what+" ]\n"+fmt.Sprintf("trust:\n  sigstore: {trustedRoot: root.json, identity: %q, issuer: %q%s}\n", who, issuer, more))
	}
	for name, tc := range map[string]struct{ what, more, want string }{
		"a bundle":       {"sums.bin", ", files: [bundle.json]", "files/sums.bin sigstore:identity:" + who},
		"an attestation": {"sums.bin", ", files: [published.json]", "files/sums.bin pep740:identity:" + who},
		"beside it":      {"{path: dir, as: files/dir}", "", "files/dir sigstore:identity:" + who},
	} {
		t.Run(name, func(t *testing.T) {
			asks(tc.what, tc.more)
			j := w.arrives("m-" + name)
			if got := signers(j.Report); !slices.Equal(got, []string{tc.want}) || len(j.Report.Verified[0].Unsigned) != 0 {
				t.Errorf("%v %+v", got, j.Report.Verified)
			}
		})
	}
	asks("note.txt", ", files: [bundle.json]")
	_, err = w.collected()
	refused(t, err, "bundle.json is about nothing that the request brings")
	w.must(os.WriteFile(w.path("dir", "sums.bin"), []byte("other"), 0o600))
	asks("{path: dir, as: files/dir}", "")
	_, err = w.collected()
	refused(t, err, "sums.bin.sigstore.json: it is about something else")
}

// A model that an identity signed by Sigstore crosses like one signed by a key.
func TestAModelSignedByAnIdentityIsAttested(t *testing.T) {
	w := newWorld(t)
	_, who, issuer := w.identity()
	asks := func(identity, more string) {
		w.asks("test", "  files: [ {path: tiny, as: model/tiny} ]\n"+
			fmt.Sprintf("trust:\n  sigstore: {trustedRoot: root.json, identity: %q, issuer: %q%s}\n", identity, issuer, more))
	}
	asks("x"+who, "")
	_, err := w.collected()
	refused(t, err, "model/tiny: model.sig: sigstore:")
	asks(who, ", files: [note.txt]")
	_, err = w.collected()
	refused(t, err, "note.txt: ")
	asks(who, "")
	j := w.arrives("m")
	if got := signers(j.Report); !slices.Equal(got, []string{"model/tiny oms:identity:" + who}) || len(j.Report.Verified) != 1 || j.Report.Verified[0].Ignored[0] != "ignore-me" {
		t.Errorf("%v %+v", got, j.Report.Verified)
	}
	w.must(os.WriteFile(w.path("tiny", "ignore-me"), []byte("x"), 0o600))
	_, err = w.collected()
	refused(t, err, "ignore-me: nobody signed it")
}
