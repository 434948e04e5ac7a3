//go:build !sigstore

package crossing_test

import (
	"os"
	"testing"

	"enisle/internal/fail"
)

// A program without the verifier says so, and what to do.
func TestWithoutSigstoreTheRequestIsRefused(t *testing.T) {
	w := newWorld(t)
	w.must(os.WriteFile(w.path("root.json"), []byte("{}"), 0o600))
	w.asks("test", "  files: [ note.txt ]\ntrust:\n  sigstore: {trustedRoot: root.json, identity: somebody, issuer: some}\n")
	_, err := w.collected()
	refused(t, err, "built without sigstore")
	if hint := fail.HintOf(err); hint[:27] != "build with -tags sigstore, " {
		t.Errorf("hint %q", hint)
	}
}
