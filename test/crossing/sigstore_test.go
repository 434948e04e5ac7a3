//go:build sigstore

package crossing_test

import (
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

// A model that an identity signed by Sigstore crosses like one signed by a key. The
// trusted root is that in the source of sigstore-go: nothing is asked.
func TestAModelSignedByAnIdentityIsAttested(t *testing.T) {
	data := os.Getenv("ENISLE_TESTDATA")
	if data == "" {
		t.Skip("ENISLE_TESTDATA is not set: the vectors of models/oms are not read")
	}
	out, err := exec.CommandContext(t.Context(), "go", "list", "-m", "-f", "{{.Dir}}", "github.com/sigstore/sigstore-go").Output()
	if err != nil || len(out) < 2 {
		t.Skip("the source of sigstore-go is not here")
	}
	w := newWorld(t)
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
	var b struct {
		VerificationMaterial struct{ Certificate struct{ RawBytes []byte } }
	}
	w.must(json.Unmarshal(copied(filepath.Join(model, "model.sig"), "tiny/model.sig"), &b))
	c, err := x509.ParseCertificate(b.VerificationMaterial.Certificate.RawBytes)
	w.must(err)
	issuer := ""
	for _, e := range c.Extensions {
		if e.Id.String() == "1.3.6.1.4.1.57264.1.1" {
			issuer = string(e.Value)
		}
	}
	who := c.EmailAddresses[0]
	asks := func(identity, more string) {
		w.asks("test", "  files: [ {path: tiny, as: model/tiny} ]\n"+
			fmt.Sprintf("trust:\n  sigstore: {trustedRoot: root.json, identity: %q, issuer: %q%s}\n", identity, issuer, more))
	}
	asks("x"+who, "")
	_, err = w.collected()
	refused(t, err, "model/tiny: model.sig: sigstore:")
	asks(who, ", files: [note.txt]")
	_, err = w.collected()
	refused(t, err, "note.txt: ")
	asks(who, "")
	j := w.arrives("m")
	if got := signers(j.Report); !slices.Equal(got, []string{"model/tiny oms:identity:" + who}) || len(j.Report.Verified) != 1 || j.Report.Verified[0].Ignored[0] != "ignore-me" {
		t.Errorf("%v %+v", got, j.Report.Verified)
	}
	copied(filepath.Join(model, "ignore-me"), "tiny/ignore-me")
	_, err = w.collected()
	refused(t, err, "ignore-me: nobody signed it")
}
