//go:build !sigstore

package sigstore

import (
	"strings"
	"testing"

	"enisle/internal/fail"
)

func TestWithoutTheTagEverythingIsRefused(t *testing.T) {
	_, err := Verify(Signer{}, []byte(`{}`))
	if Built || fail.ExitCode(err) != 3 || err.Error() != "built without sigstore" || !strings.Contains(fail.HintOf(err), "build with -tags sigstore") {
		t.Errorf("got %v, hint %q", err, fail.HintOf(err))
	}
}
