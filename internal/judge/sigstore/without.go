//go:build !sigstore

package sigstore

import (
	"errors"

	"enisle/internal/fail"
)

// Built says whether this program can verify.
const Built = false

// Verify refuses: this program was built without what verifies.
func Verify(Signer, []byte) (Proof, error) {
	return Proof{}, fail.Refuse("build with -tags sigstore, or take 'sigstore' out of the section 'trust:' of the request", errors.New("built without sigstore"))
}
