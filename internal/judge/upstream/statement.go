// Package upstream holds what a low site says it verified of signatures made
// outside: a Verification Summary Attestation (SLSA, version 1), in an in-toto
// statement, in an envelope.
//
// It knows nothing of keys and sites: whoever reads a statement verifies its
// envelope first. Once made it does not expire, whatever becomes of the
// certificates it was made from. Bytes: docs/spec/vsa.md.
package upstream

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"enisle/internal/artifact"
)

const (
	// Kind is the kind of artifacts that attestations are carried in.
	Kind = "vsa"
	// File is the one file of such an artifact.
	File = "vsa.json"
	// PayloadType is that of the envelope.
	PayloadType = "application/vnd.in-toto+json"
	// MaxSize is the largest envelope that is read, in bytes.
	MaxSize = 64 << 20

	statementType = "https://in-toto.io/Statement/v1"
	predicateType = "https://slsa.dev/verification_summary/v1"
	passed        = "PASSED"
	levelPrefix   = "ENISLE_"
)

// Ref is the reference of the attestation about an artifact.
func Ref(of artifact.Ref) artifact.Ref {
	return artifact.Ref{Kind: Kind, Name: of.Kind + "/" + of.Name, Version: of.Version}
}

// Digests are hashes by algorithm, in hex; here always one, of sha256.
type Digests struct {
	SHA256 string `json:"sha256"`
}

// DigestsOf names a digest as in-toto does.
func DigestsOf(d artifact.Digest) Digests { return Digests{d.Hex()} }

// Subject is one thing that a statement is about.
type Subject struct {
	Name   string  `json:"name"`
	Digest Digests `json:"digest"`
}

// Statement is the payload of an envelope.
type Statement struct {
	Type string `json:"_type"`
	// Subject is first the artifact's manifest, under its reference, and then
	// each of its files, in the order of the manifest.
	Subject       []Subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     Predicate `json:"predicate"`
}

// Predicate says what was verified, when, and by which rules.
type Predicate struct {
	Verifier           Verifier   `json:"verifier"`
	TimeVerified       time.Time  `json:"timeVerified"`
	ResourceURI        string     `json:"resourceUri"` // the artifact's reference
	Policy             Resource   `json:"policy"`      // the section 'trust' of a request
	InputAttestations  []Resource `json:"inputAttestations"`
	VerificationResult string     `json:"verificationResult"`
	VerifiedLevels     []string   `json:"verifiedLevels"`
	Enisle             Details    `json:"enisle"`
}

// Verifier is the site that verified.
type Verifier struct {
	ID string `json:"id"`
}

// Resource is something named by URI and digest.
type Resource struct {
	URI    string  `json:"uri"`
	Digest Digests `json:"digest"`
}

// Details are our own extension of the predicate.
type Details struct {
	Signers  []Signer `json:"signers"`
	Unsigned []string `json:"unsigned"` // files that no signature covers, by the format's own rules
	// Checkpoint is the head of the low site's ledger that it was made under.
	Checkpoint string `json:"checkpoint"`
}

// Methods by which something may be signed.
const (
	Key         = "key"
	Certificate = "certificate"
	Identity    = "identity" // of Sigstore
)

// Signer is a proven identity.
type Signer struct {
	Format   string `json:"format"`           // oms, sigstore, pep740
	Method   string `json:"method"`           // key, certificate, identity
	Name     string `json:"name"`             // digest of the key, subject of the certificate, or identity
	Issuer   string `json:"issuer,omitempty"` // who vouched for the identity
	Chain    string `json:"chain,omitempty"`  // digest over the certificates in the signature, leaf first
	NotAfter string `json:"notAfter,omitempty"`
	// Signature is the file that holds the signature, in the artifact or beside the
	// request, and Digest is of its content.
	Signature string          `json:"signature"`
	Digest    artifact.Digest `json:"digest"`
	Ignored   []string        `json:"ignored"` // paths that the signer left out
}

// String is what rules compare: oms:key:sha256:…
func (s Signer) String() string { return s.Format + ":" + s.Method + ":" + s.Name }

// level is what the statement says was reached.
func (s Signer) level() string { return levelPrefix + strings.ToUpper(s.Format+"_"+s.Method) }

// Proof is what was verified of one artifact.
type Proof struct {
	Signers  []Signer
	Unsigned []string
	Unknown  []string // files with signatures by nobody whom the request names
}

// About says who verified, when and by what.
type About struct {
	Verifier   string // URI of the site
	Policy     Resource
	Checkpoint string
	At         time.Time
}

// Make returns the payload that says what was verified of an artifact, whose
// manifest is known.
func Make(a artifact.Artifact, p Proof, by About) ([]byte, error) {
	st := Statement{Type: statementType, Subject: subjects(a), PredicateType: predicateType}
	st.Predicate = Predicate{
		Verifier: Verifier{by.Verifier}, TimeVerified: by.At.UTC().Truncate(time.Second), ResourceURI: a.Ref.String(), Policy: by.Policy,
		InputAttestations: []Resource{}, VerificationResult: passed, VerifiedLevels: []string{},
		Enisle: Details{Signers: p.Signers, Unsigned: append([]string{}, p.Unsigned...), Checkpoint: by.Checkpoint},
	}
	st.Predicate.fromSigners()
	if err := st.check(); err != nil {
		return nil, fmt.Errorf("attestation: %w", err)
	}
	return json.Marshal(st)
}

func subjects(a artifact.Artifact) []Subject {
	out := []Subject{{a.Ref.String(), DigestsOf(a.Manifest)}}
	for _, f := range a.Files {
		out = append(out, Subject{f.Path, DigestsOf(f.Digest)})
	}
	return out
}

// fromSigners fills in what follows from the signers.
func (p *Predicate) fromSigners() {
	p.InputAttestations, p.VerifiedLevels = []Resource{}, []string{}
	for _, s := range p.Enisle.Signers {
		p.InputAttestations = append(p.InputAttestations, Resource{s.Signature, DigestsOf(s.Digest)})
		if !slices.Contains(p.VerifiedLevels, s.level()) {
			p.VerifiedLevels = append(p.VerifiedLevels, s.level())
		}
	}
}

// Decode reads the payload of an envelope and accepts only what Make writes.
func Decode(payload []byte) (Statement, error) {
	var st Statement
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	err := d.Decode(&st)
	if err == nil {
		if _, end := d.Token(); !errors.Is(end, io.EOF) {
			err = errors.New("something stands behind the document")
		}
	}
	if err == nil {
		err = st.check()
	}
	if err == nil {
		var again []byte
		if again, err = json.Marshal(st); err == nil && !bytes.Equal(again, payload) {
			err = errors.New("not in canonical form")
		}
	}
	if err != nil {
		return st, fmt.Errorf("attestation: %w", err)
	}
	return st, nil
}

// Unverified reads the statement in an envelope without verifying who signed it: to
// look whether it is one, not what it says.
func Unverified(envelope []byte) (Statement, error) {
	var e struct {
		Payload     []byte `json:"payload"`
		PayloadType string `json:"payloadType"`
		Signatures  []struct {
			KeyID string `json:"keyid"`
			Sig   []byte `json:"sig"`
		} `json:"signatures"`
	}
	d := json.NewDecoder(bytes.NewReader(envelope))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return Statement{}, fmt.Errorf("attestation: envelope: %w", err)
	}
	if e.PayloadType != PayloadType || len(e.Signatures) == 0 {
		return Statement{}, errors.New("attestation: it is no signed statement of in-toto")
	}
	return Decode(e.Payload)
}

const (
	maxSubjects = 1_000_000
	maxSigners  = 100
)

func (st Statement) check() error {
	p := st.Predicate
	switch {
	case st.Type != statementType || st.PredicateType != predicateType:
		return fmt.Errorf("type %.80q or predicate %.80q is not known", st.Type, st.PredicateType)
	case len(st.Subject) < 2 || len(st.Subject) > maxSubjects || st.Subject[0].Name != p.ResourceURI:
		return errors.New("its first subject is not the artifact")
	case p.VerificationResult != passed:
		return fmt.Errorf("the result is %.40q", p.VerificationResult)
	case p.TimeVerified.IsZero() || p.Verifier.ID == "" || p.Enisle.Checkpoint == "":
		return errors.New("it does not say who verified, or when")
	case len(p.Enisle.Signers) == 0 || len(p.Enisle.Signers) > maxSigners:
		return fmt.Errorf("it names %d signers", len(p.Enisle.Signers))
	}
	if ref, err := artifact.ParseRef(p.ResourceURI); err != nil || ref.Kind == Kind {
		return fmt.Errorf("%.80q is no artifact", p.ResourceURI)
	}
	for _, d := range append([]Subject{{p.Policy.URI, p.Policy.Digest}}, st.Subject...) {
		if _, err := artifact.ParseDigest("sha256:" + d.Digest.SHA256); err != nil {
			return err
		}
	}
	for _, s := range p.Enisle.Signers {
		if err := s.check(); err != nil {
			return err
		}
	}
	want := p
	want.fromSigners()
	if !slices.Equal(want.InputAttestations, p.InputAttestations) || !slices.Equal(want.VerifiedLevels, p.VerifiedLevels) {
		return errors.New("its levels and inputs are not those of its signers")
	}
	return nil
}

func (s Signer) check() error {
	if !slices.Contains([]string{"oms", "sigstore", "pep740"}, s.Format) || !slices.Contains([]string{Key, Certificate, Identity}, s.Method) {
		return fmt.Errorf("a signer by %.40q and %.40q is not known", s.Format, s.Method)
	}
	for _, text := range []string{s.Name, s.Issuer, s.Chain, s.NotAfter} {
		if len(text) > 1000 || strings.ContainsFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\uFFFD' }) {
			return errors.New("the name of a signer is too long, or holds what cannot be printed")
		}
	}
	if s.Name == "" {
		return errors.New("a signer has no name")
	}
	if _, err := artifact.ParseDigest(string(s.Digest)); err != nil {
		return err
	}
	return artifact.CheckPath(s.Signature)
}

// Covers compares the statement with an artifact as it is here: manifest, names and
// digests of all files must be exactly those.
func (st Statement) Covers(a artifact.Artifact) error {
	want := subjects(a)
	for i, s := range st.Subject {
		switch {
		case i >= len(want):
			return fmt.Errorf("it is about a file %.120q, which is not here", s.Name)
		case s != want[i]:
			return fmt.Errorf("it is about another %.120q than what is here", s.Name)
		}
	}
	if len(st.Subject) < len(want) {
		return fmt.Errorf("it is not about the file %.120q", want[len(st.Subject)].Name)
	}
	return nil
}
