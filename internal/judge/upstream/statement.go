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
	"regexp"
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

// SetRef is the reference of the attestation about what a signed document vouches for,
// of one kind. Its name has no slash, as that about an artifact always has.
func SetRef(kind string, document artifact.Digest) artifact.Ref {
	return artifact.Ref{Kind: Kind, Name: kind, Version: document.Short()}
}

// setForm is the resource of a statement about many artifacts; constant.
var setForm = regexp.MustCompile(`^([a-z0-9]{1,40})@[0-9a-f]{12}$`)

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
	// each of its files, in the order of the manifest. Of a set it is the manifests
	// of many, ordered by reference.
	Subject       []Subject `json:"subject"`
	PredicateType string    `json:"predicateType"`
	Predicate     Predicate `json:"predicate"`
}

// Predicate says what was verified, when, and by which rules.
type Predicate struct {
	Verifier           Verifier   `json:"verifier"`
	TimeVerified       time.Time  `json:"timeVerified"`
	ResourceURI        string     `json:"resourceUri"` // the artifact's reference, or KIND@DOCUMENT of a set
	Policy             Resource   `json:"policy"`      // the section 'trust' of a request, or the keys that a client is set to
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
	Signers []Signer `json:"signers"`
	// Through are the documents that lead from the signature to a set.
	Through []Resource `json:"through,omitempty"`
	// Unsigned are files that no signature covers, by the format's own rules; of a set
	// REFERENCE!FILE.
	Unsigned []string `json:"unsigned"`
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
	Format   string `json:"format"`           // oms, sigstore, pep740, sumdb, apt, npm
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
	Through  []Resource
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
	return encode(a.Ref.String(), subjects(a), p, by)
}

// MakeSet returns the payload that says what a signed document vouches for: artifacts of
// one kind, whose manifests are known. ref is from SetRef.
func MakeSet(ref artifact.Ref, all []artifact.Artifact, p Proof, by About) ([]byte, error) {
	var of []Subject
	for _, a := range all {
		of = append(of, Subject{a.Ref.String(), DigestsOf(a.Manifest)})
	}
	slices.SortFunc(of, func(a, b Subject) int { return strings.Compare(a.Name, b.Name) })
	slices.Sort(p.Unsigned)
	return encode(ref.Name+"@"+ref.Version, of, p, by)
}

func encode(about string, of []Subject, p Proof, by About) ([]byte, error) {
	st := Statement{Type: statementType, Subject: of, PredicateType: predicateType}
	st.Predicate = Predicate{
		Verifier: Verifier{by.Verifier}, TimeVerified: by.At.UTC().Truncate(time.Second), ResourceURI: about, Policy: by.Policy,
		InputAttestations: []Resource{}, VerificationResult: passed, VerifiedLevels: []string{},
		Enisle: Details{Signers: p.Signers, Through: p.Through, Unsigned: append([]string{}, p.Unsigned...), Checkpoint: by.Checkpoint},
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
	p.InputAttestations = append(p.InputAttestations, p.Enisle.Through...)
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
	maxSigners  = 100 // and documents between a signature and a set
)

func (st Statement) check() error {
	p := st.Predicate
	switch {
	case st.Type != statementType || st.PredicateType != predicateType:
		return fmt.Errorf("type %.80q or predicate %.80q is not known", st.Type, st.PredicateType)
	case len(st.Subject) > maxSubjects:
		return errors.New("it has too many subjects")
	case p.VerificationResult != passed:
		return fmt.Errorf("the result is %.40q", p.VerificationResult)
	case p.TimeVerified.IsZero() || p.Verifier.ID == "" || p.Enisle.Checkpoint == "":
		return errors.New("it does not say who verified, or when")
	case len(p.Enisle.Signers) == 0 || len(p.Enisle.Signers) > maxSigners:
		return fmt.Errorf("it names %d signers", len(p.Enisle.Signers))
	}
	if err := st.checkSubjects(); err != nil {
		return err
	}
	for _, d := range append([]Subject{{p.Policy.URI, p.Policy.Digest}}, st.Subject...) {
		if _, err := artifact.ParseDigest("sha256:" + d.Digest.SHA256); err != nil {
			return err
		}
	}
	for _, r := range p.Enisle.Through {
		if _, err := artifact.ParseDigest("sha256:" + r.Digest.SHA256); err != nil {
			return err
		}
		if err := artifact.CheckPath(r.URI); err != nil {
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

// Set reports whether the statement is about many artifacts, and of which kind.
func (st Statement) Set() (kind string, ok bool) {
	if g := setForm.FindStringSubmatch(st.Predicate.ResourceURI); g != nil {
		return g[1], true
	}
	return "", false
}

// checkSubjects refuses subjects that are not those of an artifact, or of a set.
func (st Statement) checkSubjects() error {
	about, details := st.Predicate.ResourceURI, st.Predicate.Enisle
	kind, set := st.Set()
	if !set {
		if ref, err := artifact.ParseRef(about); err != nil || ref.Kind == Kind {
			return fmt.Errorf("%.80q is no artifact", about)
		}
		if len(st.Subject) < 2 || st.Subject[0].Name != about || len(details.Through) > 0 {
			return errors.New("its first subject is not the artifact")
		}
		return nil
	}
	named := map[string]bool{}
	for i, s := range st.Subject {
		if ref, err := artifact.ParseRef(s.Name); err != nil || ref.Kind != kind || ref.Kind == Kind || ref.String() != s.Name {
			return fmt.Errorf("%.80q is no artifact of %s", s.Name, kind)
		}
		if i > 0 && st.Subject[i-1].Name >= s.Name {
			return errors.New("its subjects are not in order")
		}
		named[s.Name] = true
	}
	if len(named) == 0 || len(details.Through) > maxSigners || !slices.IsSorted(details.Unsigned) {
		return errors.New("it is about nothing, or not in order")
	}
	for _, u := range details.Unsigned {
		if ref, file, _ := strings.Cut(u, "!"); !named[ref] || artifact.CheckPath(file) != nil {
			return fmt.Errorf("%.80q is of no subject", u)
		}
	}
	return nil
}

// Same reports whether two statements about sets say that the same was signed by the
// same, under the same trust, whenever and by whatever documents.
func (st Statement) Same(o Statement) bool {
	a, b := st.Predicate, o.Predicate
	by := func(p Predicate) (out []string) {
		for _, s := range p.Enisle.Signers {
			out = append(out, s.String())
		}
		return out
	}
	return slices.Equal(st.Subject, o.Subject) && slices.Equal(by(a), by(b)) && a.Policy == b.Policy && slices.Equal(a.Enisle.Unsigned, b.Enisle.Unsigned)
}

// UnsignedOf returns the files of one subject of a set that no signature covers.
func (st Statement) UnsignedOf(ref string) []string {
	out := []string{}
	all := st.Predicate.Enisle.Unsigned
	for i, _ := slices.BinarySearch(all, ref+"!"); i < len(all); i++ {
		file, ok := strings.CutPrefix(all[i], ref+"!")
		if !ok {
			break
		}
		out = append(out, file)
	}
	return out
}

func (s Signer) check() error {
	if !slices.Contains([]string{"oms", "sigstore", "pep740", "sumdb", "apt", "npm"}, s.Format) || !slices.Contains([]string{Key, Certificate, Identity}, s.Method) {
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
