//go:build sigstore

package sigstore

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/sigstore/sigstore-go/pkg/bundle"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"

	"enisle/internal/fail"
)

// Built says whether this program can verify.
const Built = true

// Verify verifies a bundle: the signature, the certificate up to an authority of the
// trusted root, the entry in a transparency log and its time, and whose it is. It
// returns the digests of what is signed, which the caller compares.
func Verify(by Signer, content []byte) (Proof, error) {
	out, err := verified(by, content)
	if err != nil {
		text := strings.Join(strings.Fields(err.Error()), " ")
		return out, fail.Refuse("find out who signed it; identity and issuer are those of its certificate, and the trusted root must know its time", fmt.Errorf("sigstore: %s", text))
	}
	return out, nil
}

func verified(by Signer, content []byte) (out Proof, err error) {
	trusted, err := root.NewTrustedRootFromJSON(by.TrustedRoot)
	if err != nil {
		return out, fmt.Errorf("trusted root: %w", err)
	}
	v, err := verify.NewVerifier(trusted, verify.WithSignedCertificateTimestamps(1), verify.WithTransparencyLog(1), verify.WithObserverTimestamps(1))
	if err != nil {
		return out, err
	}
	if by.Identity == "" || by.Issuer == "" {
		return out, errors.New("identity or issuer is missing")
	}
	identity, err := verify.NewShortCertificateIdentity(by.Issuer, "", by.Identity, "")
	if err != nil {
		return out, err
	}
	var b bundle.Bundle
	if err := b.UnmarshalJSON(content); err != nil {
		return out, err
	}
	what := verify.WithoutArtifactUnsafe() // a statement names what it is about
	if m := b.GetMessageSignature(); m != nil {
		if m.GetMessageDigest().GetAlgorithm().String() != "SHA2_256" {
			return out, errors.New("the signature is over another hash than SHA-256")
		}
		digest := m.GetMessageDigest().GetDigest()
		out.Digests = []string{hex.EncodeToString(digest)}
		what = verify.WithArtifactDigest("sha256", digest)
	}
	result, err := v.Verify(&b, verify.NewPolicy(what, verify.WithCertificateIdentity(identity)))
	if err != nil {
		return out, err
	}
	if result.Statement != nil && !vouches(result.Statement.GetPredicateType()) {
		return out, fmt.Errorf("a statement of the type %.120q vouches for nothing that is known here", result.Statement.GetPredicateType())
	}
	for _, s := range result.Statement.GetSubject() {
		if d := s.GetDigest()["sha256"]; d != "" {
			out.Digests = append(out.Digests, strings.ToLower(d))
		}
	}
	if len(out.Digests) == 0 {
		return out, errors.New("it names nothing by its SHA-256")
	}
	material, err := b.VerificationContent()
	if err != nil {
		return out, err
	}
	if c := material.Certificate(); c != nil {
		sum := sha256.Sum256(c.Raw)
		out.Chain = hex.EncodeToString(sum[:])
	}
	return out, nil
}
