// Package oms verifies and makes model signatures of the OpenSSF (Model Signing,
// version 1.0): an in-toto statement that lists the files of a model, in a DSSE
// envelope, in a bundle, by a key or by a certificate.
//
// It knows nothing of sites and policies, and reads files only where it is told
// to. Only what the statement lists is signed: whatever else stands beside it is
// named. Signatures without a key, by an identity of Sigstore, are read but not
// verified: that needs an online log's keys. Format: ossf/model-signing-spec.
package oms

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"enisle/internal/fail"
)

const (
	// MaxSize is the largest signature that is read, in bytes.
	MaxSize = 64 << 20
	// Suffix is what the names of signatures end in.
	Suffix = ".sig"
	// usual is the name that the reference implementation gives a signature.
	usual = "model.sig"

	anyMediaType  = "application/vnd.dev.sigstore.bundle" // what all versions begin with
	mediaType     = "application/vnd.dev.sigstore.bundle.v0.3+json"
	payloadType   = "application/vnd.in-toto+json"
	statementType = "https://in-toto.io/Statement/v1"
	predicateType = "https://model_signing/signature/v1.0"
	oldPredicate  = "https://model_signing/Digests/v0.1" // of version 0.2
)

// Methods are the ways a bundle may be signed.
const (
	Key         = "key"
	Certificate = "certificate"
	Sigstore    = "sigstore" // by an identity, over the network
)

// Bundle is a signature as its file holds it. Nothing of it is verified until
// VerifyKey or VerifyCertificate says so.
type Bundle struct {
	Method    string
	Hint      string // SHA-256 of the PEM of the public key, where it says one
	Statement Statement
	chain     []*x509.Certificate // leaf first
	payload   []byte
	sig       []byte
	old       bool // of version 0.2, which signed something else than DSSE
}

type bundleFile struct {
	MediaType string `json:"mediaType"`
	Material  *struct {
		PublicKey *struct {
			Hint string `json:"hint"`
			// Of versions before 1.1. The key is what the verifier brings.
			Raw     json.RawMessage `json:"rawBytes"`
			Details json.RawMessage `json:"keyDetails"`
		} `json:"publicKey"`
		Chain *struct {
			Certificates []rawCertificate `json:"certificates"`
		} `json:"x509CertificateChain"`
		Certificate *rawCertificate   `json:"certificate"`
		Log         []json.RawMessage `json:"tlogEntries"`
		Timestamps  json.RawMessage   `json:"timestampVerificationData"`
	} `json:"verificationMaterial"`
	Envelope *struct {
		Payload     []byte `json:"payload"`
		PayloadType string `json:"payloadType"`
		Signatures  []struct {
			Sig   []byte  `json:"sig"`
			KeyID *string `json:"keyid"`
		} `json:"signatures"`
	} `json:"dsseEnvelope"`
}

type rawCertificate struct {
	Raw []byte `json:"rawBytes"`
}

func refuse(err error) error {
	return fail.Refuse("ask whoever signed the model for its signature anew", fmt.Errorf("model signature: %w", err))
}

// Is reports whether a file, by its base name and content, is a signature of a model
// or claims to be one.
func Is(name string, content []byte) bool {
	if name == usual {
		return true
	}
	var f struct {
		MediaType string `json:"mediaType"`
	}
	return strings.HasSuffix(name, Suffix) && json.Unmarshal(content, &f) == nil && strings.HasPrefix(f.MediaType, anyMediaType)
}

// Parse reads a bundle and the statement in it. Whatever it does not know it
// refuses.
func Parse(b []byte) (*Bundle, error) {
	out, err := parse(b)
	if err != nil {
		return nil, refuse(err)
	}
	return out, nil
}

func parse(b []byte) (*Bundle, error) {
	var f bundleFile
	if len(b) > MaxSize {
		return nil, fmt.Errorf("larger than %d bytes", MaxSize)
	}
	if err := strictJSON(b, &f); err != nil {
		return nil, err
	}
	switch {
	case f.MediaType != mediaType:
		return nil, fmt.Errorf("media type %.80q is not known", f.MediaType)
	case f.Material == nil:
		return nil, errors.New("it says nothing to verify it with")
	case f.Envelope == nil || f.Envelope.PayloadType != payloadType || len(f.Envelope.Signatures) != 1 || len(f.Envelope.Payload) == 0:
		return nil, errors.New("it holds no envelope of one signature over a statement")
	}
	out := &Bundle{payload: f.Envelope.Payload, sig: f.Envelope.Signatures[0].Sig}
	if err := out.material(f); err != nil {
		return nil, err
	}
	var err error
	out.Statement, out.old, err = parseStatement(out.payload)
	return out, err
}

// material finds out how the bundle is signed: in exactly one way.
func (b *Bundle) material(f bundleFile) error {
	m := f.Material
	ways := 0
	if m.PublicKey != nil {
		ways++
		b.Method, b.Hint = Key, m.PublicKey.Hint
	}
	if m.Certificate != nil {
		ways++
		b.Method = Sigstore
		if len(m.Log) == 0 {
			return errors.New("it is signed by an identity, and no log has an entry of it")
		}
	}
	if m.Chain != nil {
		ways++
		b.Method = Certificate
		if n := len(m.Chain.Certificates); n == 0 || n > 10 {
			return fmt.Errorf("%d certificates; from one to ten are possible", n)
		}
		for i, raw := range m.Chain.Certificates {
			c, err := x509.ParseCertificate(raw.Raw)
			if err != nil {
				return fmt.Errorf("certificate %d: %w", i+1, err)
			}
			b.chain = append(b.chain, c)
		}
	}
	if ways != 1 {
		return fmt.Errorf("it is signed in %d ways; one is possible", ways)
	}
	return nil
}

// strictJSON decodes one document and refuses unknown and repeated keys.
func strictJSON(b []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return errors.New("something stands behind the document")
	}
	return uniqueKeys(json.NewDecoder(bytes.NewReader(b)))
}

// uniqueKeys refuses a document in which an object has a key twice, in any case
// of letters.
func uniqueKeys(d *json.Decoder) error {
	t, err := d.Token()
	if err != nil {
		return err
	}
	open, ok := t.(json.Delim)
	if !ok {
		return nil
	}
	seen := map[string]bool{}
	for d.More() {
		if open == '{' {
			k, err := d.Token()
			if err != nil {
				return err
			}
			key := strings.ToLower(fmt.Sprint(k))
			if seen[key] {
				return fmt.Errorf("the key %.40q stands twice", key)
			}
			seen[key] = true
		}
		if err := uniqueKeys(d); err != nil {
			return err
		}
	}
	_, err = d.Token()
	return err
}

// Hint returns what names a public key in a bundle: the SHA-256, in hex, of its PEM.
func Hint(pub crypto.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", err
	}
	sum := sha256.Sum256(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}))
	return hex.EncodeToString(sum[:]), nil
}

// VerifyKey verifies the signature by a key. legacy lets what version 0.2 of the
// reference implementation signed pass as well.
func (b *Bundle) VerifyKey(pub crypto.PublicKey, legacy bool) error {
	if b.Method == Sigstore {
		return b.offline()
	}
	if b.Method == Key && b.Hint != "" {
		if hint, err := Hint(pub); err != nil || hint != b.Hint {
			return refuse(errors.Join(errors.New("it was made by another key"), err))
		}
	}
	return b.check(pub, legacy)
}

func (b *Bundle) offline() error {
	return fail.Refuse("verify it outside, with the tool that made it, and have it signed again by a key or a certificate",
		errors.New("model signature: it is by an identity of Sigstore, which cannot be verified without its log"))
}

// VerifyCertificate verifies the signature by the certificate in the bundle, and
// that one up to the roots, as of a time. It returns who that certificate names.
func (b *Bundle) VerifyCertificate(roots []*x509.Certificate, at time.Time, legacy bool) (who string, err error) {
	if b.Method == Sigstore {
		return "", b.offline()
	}
	if b.Method != Certificate {
		return "", refuse(errors.New("it carries no certificate; verify it by the key"))
	}
	leaf := b.chain[0]
	if leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0 && leaf.KeyUsage != 0 {
		return "", refuse(errors.New("its certificate is not for signatures"))
	}
	o := x509.VerifyOptions{Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: at, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny}}
	for _, c := range roots {
		o.Roots.AddCert(c)
	}
	for _, c := range b.chain[1:] {
		o.Intermediates.AddCert(c)
	}
	if _, err := leaf.Verify(o); err != nil {
		return "", refuse(err)
	}
	return leaf.Subject.String(), b.check(leaf.PublicKey, legacy)
}

// SignedBefore returns when the certificate in the bundle begins and ends to be
// valid; zero times if there is none.
func (b *Bundle) SignedBefore() (from, to time.Time) {
	if len(b.chain) == 0 {
		return from, to
	}
	return b.chain[0].NotBefore, b.chain[0].NotAfter
}

// Chain returns the SHA-256, in hex, over the certificates in the bundle, leaf first;
// nothing if there are none.
func (b *Bundle) Chain() string {
	if len(b.chain) == 0 {
		return ""
	}
	h := sha256.New()
	for _, c := range b.chain {
		h.Write(c.Raw)
	}
	return hex.EncodeToString(h.Sum(nil))
}

// check verifies the one signature over the payload.
func (b *Bundle) check(pub crypto.PublicKey, legacy bool) error {
	k, ok := pub.(*ecdsa.PublicKey)
	if !ok {
		return refuse(fmt.Errorf("a key of type %T is not possible, only one on the curves P-256, P-384 and P-521", pub))
	}
	if b.old {
		if !legacy {
			return refuse(errors.New("it is of version 0.2 of the tools, which signed something else than it said; ask for it by --legacy"))
		}
		sum := sha256.Sum256(oldPAE(b.payload))
		if !ecdsa.VerifyASN1(k, sum[:], b.sig) {
			return refuse(errors.New("the signature is wrong"))
		}
		return nil
	}
	sum, err := digest(k.Curve, pae(b.payload))
	if err != nil {
		return refuse(err)
	}
	if !ecdsa.VerifyASN1(k, sum, b.sig) {
		return refuse(errors.New("the signature is wrong"))
	}
	return nil
}

func digest(c elliptic.Curve, b []byte) ([]byte, error) {
	switch c {
	case elliptic.P256():
		sum := sha256.Sum256(b)
		return sum[:], nil
	case elliptic.P384():
		sum := sha512.Sum384(b)
		return sum[:], nil
	case elliptic.P521():
		sum := sha512.Sum512(b)
		return sum[:], nil
	}
	return nil, errors.New("the curve is none of P-256, P-384 and P-521")
}

// pae is what DSSE signs in the place of a payload.
func pae(payload []byte) []byte {
	return append(fmt.Appendf(nil, "DSSEv1 %d %s %d ", len(payloadType), payloadType, len(payload)), payload...)
}

// oldPAE is what version 0.2 signed: the payload as Python prints bytes.
func oldPAE(payload []byte) []byte {
	b := fmt.Appendf(nil, "DSSEV1 %d %s %d b'", len(payloadType), payloadType, len(payload))
	for _, c := range payload {
		switch {
		case c == '\\' || c == '\'' && bytes.IndexByte(payload, '"') >= 0:
			b = append(b, '\\', c)
		case c == '\n':
			b = append(b, `\n`...)
		case c == '\r':
			b = append(b, `\r`...)
		case c == '\t':
			b = append(b, `\t`...)
		case c < ' ' || c > '~':
			b = fmt.Appendf(b, `\x%02x`, c)
		default:
			b = append(b, c)
		}
	}
	return append(b, '\'')
}

// Sign signs a statement with a key on one of the curves P-256, P-384 and P-521,
// and returns the bundle: by the key, or with certificates, leaf first, by them.
func Sign(st Statement, key crypto.Signer, chain []*x509.Certificate) ([]byte, error) {
	pub, ok := key.Public().(*ecdsa.PublicKey)
	if !ok {
		return nil, fail.As(fail.Usage, "make one with 'openssl ecparam -name secp384r1 -genkey'", fmt.Errorf("a key of type %T cannot sign models", key.Public()))
	}
	payload, err := st.encode()
	if err != nil {
		return nil, err
	}
	sum, err := digest(pub.Curve, pae(payload))
	if err != nil {
		return nil, err
	}
	sig, err := key.Sign(nil, sum, map[int]crypto.Hash{32: crypto.SHA256, 48: crypto.SHA384, 64: crypto.SHA512}[len(sum)])
	if err != nil {
		return nil, err
	}
	material := map[string]any{"tlogEntries": []string{}}
	if len(chain) == 0 {
		hint, err := Hint(pub)
		if err != nil {
			return nil, err
		}
		material["publicKey"] = map[string]string{"hint": hint}
	} else {
		if leaf, ok := chain[0].PublicKey.(*ecdsa.PublicKey); !ok || !leaf.Equal(pub) {
			return nil, fail.As(fail.Usage, "put the certificate of the key first", errors.New("the first certificate is not of this key"))
		}
		var raw []map[string]string
		for _, c := range chain {
			raw = append(raw, map[string]string{"rawBytes": base64.StdEncoding.EncodeToString(c.Raw)})
		}
		material["x509CertificateChain"] = map[string]any{"certificates": raw}
	}
	return json.MarshalIndent(map[string]any{
		"mediaType": mediaType, "verificationMaterial": material,
		"dsseEnvelope": map[string]any{"payload": payload, "payloadType": payloadType, "signatures": []any{map[string]any{"sig": sig, "keyid": ""}}},
	}, "", "  ")
}
