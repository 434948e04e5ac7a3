// Package sigstore verifies what an identity signed by Sigstore: bundles, and the
// attestations that PyPI publishes (PEP 740).
//
// It asks nobody: the keys of the logs and of the authorities are a file that
// whoever calls it brings. The verifier is compiled only with the build tag
// sigstore, because it brings some fifty modules; without it, everything is refused.
package sigstore

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"

	"enisle/internal/fail"
)

// Formats of files.
const (
	Bundle = "sigstore"
	PEP740 = "pep740"
)

// MaxSize is the largest file that is read, in bytes.
const MaxSize = 64 << 20

// Signer is whose signatures count.
type Signer struct {
	TrustedRoot []byte // JSON: keys of logs and authorities, and since when they count
	Identity    string // exactly as in the certificate: address or URI
	Issuer      string // who vouches for it, as a URL
}

// Proof is what one bundle says, verified.
type Proof struct {
	Digests []string // SHA-256 of what is signed, in hex
	Chain   string   // SHA-256 of the certificate, in hex
}

// Read returns the bundles in a file: it is one, or an attestation of PyPI, or what
// PyPI says of the provenance of a file, which holds several.
func Read(content []byte) (format string, bundles [][]byte, err error) {
	var f struct {
		MediaType string              `json:"mediaType"`
		Version   int                 `json:"version"`
		Envelope  json.RawMessage     `json:"envelope"`
		Published []attestationBundle `json:"attestation_bundles"`
	}
	bad := func(err error) (string, [][]byte, error) {
		return "", nil, fail.Refuse("name a bundle of Sigstore, or an attestation as PyPI publishes it", err)
	}
	if len(content) > MaxSize {
		return bad(fmt.Errorf("larger than %d bytes", MaxSize))
	}
	if err := json.Unmarshal(content, &f); err != nil {
		return bad(err)
	}
	switch {
	case f.MediaType != "":
		return Bundle, [][]byte{content}, nil
	case f.Version == 1 && f.Envelope != nil:
		f.Published = []attestationBundle{{Attestations: []json.RawMessage{content}}}
	case f.Version != 1 || len(f.Published) == 0:
		return bad(errors.New("it is neither a bundle nor an attestation of version 1"))
	}
	for _, set := range f.Published {
		for _, a := range set.Attestations {
			b, err := asBundle(a)
			if err != nil {
				return bad(err)
			}
			bundles = append(bundles, b)
		}
	}
	if len(bundles) == 0 {
		return bad(errors.New("it holds no attestation"))
	}
	return PEP740, bundles, nil
}

type attestationBundle struct {
	Publisher    json.RawMessage   `json:"publisher"`
	Attestations []json.RawMessage `json:"attestations"`
}

// attestation is an attestation object of PEP 740.
type attestation struct {
	Version  int `json:"version"`
	Material struct {
		Certificate []byte            `json:"certificate"` // DER
		Entries     []json.RawMessage `json:"transparency_entries"`
	} `json:"verification_material"`
	Envelope struct {
		Statement []byte `json:"statement"`
		Signature []byte `json:"signature"`
	} `json:"envelope"`
}

// asBundle writes an attestation as the bundle that it was made from.
func asBundle(content []byte) ([]byte, error) {
	var a attestation
	d := json.NewDecoder(bytes.NewReader(content))
	d.DisallowUnknownFields()
	if err := d.Decode(&a); err != nil {
		return nil, fmt.Errorf("attestation: %w", err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("attestation: something stands behind it")
	}
	if a.Version != 1 || len(a.Material.Certificate) == 0 || len(a.Material.Entries) == 0 || len(a.Envelope.Statement) == 0 || len(a.Envelope.Signature) == 0 {
		return nil, errors.New("attestation: certificate, entry of a log, statement or signature is missing")
	}
	return json.Marshal(map[string]any{
		"mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
		"verificationMaterial": map[string]any{
			"certificate": map[string]any{"rawBytes": a.Material.Certificate}, "tlogEntries": a.Material.Entries,
		},
		"dsseEnvelope": map[string]any{
			"payload": a.Envelope.Statement, "payloadType": "application/vnd.in-toto+json",
			"signatures": []any{map[string]any{"sig": a.Envelope.Signature}},
		},
	})
}

// vouches reports whether whoever signs a statement of a type stands for what it is
// about: where it was built, that it was published, that it is a model of theirs. Of
// others, such as the result of a test, a signature says nothing of the kind.
func vouches(predicateType string) bool {
	return strings.HasPrefix(predicateType, "https://slsa.dev/provenance/") ||
		strings.HasSuffix(predicateType, "/attestations/publish/v1") || // PyPI
		predicateType == "https://model_signing/signature/v1.0"
}
