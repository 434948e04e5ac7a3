// Package trust holds a site's keys, its people and their roles, and the
// statements they sign.
//
// Every signature is a DSSE envelope with a payload type of its own; whoever
// verifies says which type and which keys it expects. Who may sign what is in
// the root: a signed, numbered document of which each version is signed by the
// threshold that the version before names. The package knows nothing of what
// the statements mean. See docs/spec/trust.md.
package trust

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"enisle/internal/fail"
)

// Envelope is a DSSE envelope (github.com/secure-systems-lab/dsse, protocol
// and envelope documents, v1.0.2).
type Envelope struct {
	Payload     []byte      `json:"payload"` // base64 in JSON
	PayloadType string      `json:"payloadType"`
	Signatures  []Signature `json:"signatures"`
}

// Signature is one signature over the payload and its type.
type Signature struct {
	KeyID string `json:"keyid"` // hex SHA-256 of the public key
	Sig   []byte `json:"sig"`
}

// pae is DSSE's pre-authentication encoding.
func pae(payloadType string, payload []byte) []byte {
	b := []byte("DSSEv1 " + strconv.Itoa(len(payloadType)) + " " + payloadType + " " + strconv.Itoa(len(payload)) + " ")
	return append(b, payload...)
}

// Sign returns the envelope of a payload signed by every key, as bytes.
func Sign(payloadType string, payload []byte, keys ...*Key) ([]byte, error) {
	e := Envelope{Payload: payload, PayloadType: payloadType}
	for _, k := range keys {
		if err := e.add(k); err != nil {
			return nil, err
		}
	}
	return json.Marshal(e)
}

func (e *Envelope) add(k *Key) error {
	sig, err := k.sign(pae(e.PayloadType, e.Payload))
	if err != nil {
		return fmt.Errorf("sign: %w", err)
	}
	e.Signatures = append(e.Signatures, Signature{k.Public.ID(), sig})
	return nil
}

// Cosign returns an envelope with one more signature.
func Cosign(envelope []byte, k *Key) ([]byte, error) {
	e, err := Parse(envelope)
	if err != nil {
		return nil, err
	}
	if err := e.add(k); err != nil {
		return nil, err
	}
	return json.Marshal(e)
}

// SignDetached returns only the signature over a payload of a type.
func SignDetached(payloadType string, payload []byte, k *Key) ([]byte, error) {
	return k.sign(pae(payloadType, payload))
}

// VerifyDetached checks what SignDetached made.
func VerifyDetached(payloadType string, payload, sig []byte, key Public) error {
	return key.verify(pae(payloadType, payload), sig)
}

// Parse reads an envelope without verifying it. It accepts only the bytes that
// Sign would have written: no two byte strings are one envelope.
func Parse(b []byte) (Envelope, error) {
	var e Envelope
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&e); err != nil {
		return e, fmt.Errorf("envelope: %w", err)
	}
	again, err := json.Marshal(e)
	if err != nil {
		return e, fmt.Errorf("envelope: %w", err)
	}
	if !bytes.Equal(again, b) {
		return e, errors.New("envelope: not in canonical form")
	}
	return e, nil
}

// KeyFunc returns the public key of an id, or why that key does not count.
type KeyFunc func(id string) (Public, error)

// Verify opens an envelope that must be of the type given. Every signature in
// it must be valid, by a key that keys knows, and no key may sign twice. It
// returns the payload and the ids of the signers, of whom there is at least
// one; whether they are enough is for the caller to say.
func Verify(envelope []byte, payloadType string, keys KeyFunc) (payload []byte, signers []string, err error) {
	refuse := func(err error) ([]byte, []string, error) {
		return nil, nil, fail.Refuse("find out where it was changed; take it again from its source", err)
	}
	e, err := Parse(envelope)
	if err != nil {
		return refuse(err)
	}
	if e.PayloadType != payloadType {
		return refuse(fmt.Errorf("envelope: is a %.80q, want %q", e.PayloadType, payloadType))
	}
	if len(e.Signatures) == 0 {
		return refuse(errors.New("envelope: carries no signature"))
	}
	seen := map[string]bool{}
	for _, s := range e.Signatures {
		pub, err := keys(s.KeyID)
		if err != nil {
			return refuse(fmt.Errorf("signature by key %.12s: %w", s.KeyID, err))
		}
		if pub.ID() != s.KeyID || seen[s.KeyID] {
			return refuse(fmt.Errorf("signature by key %.12s: counted twice or under a wrong id", s.KeyID))
		}
		if err := pub.verify(pae(e.PayloadType, e.Payload), s.Sig); err != nil {
			return refuse(fmt.Errorf("signature by key %.12s: %w", s.KeyID, err))
		}
		seen[s.KeyID] = true
		signers = append(signers, s.KeyID)
	}
	return e.Payload, signers, nil
}

// decode reads the JSON of a verified payload and accepts no other form of it.
func decode(payload []byte, into any) error {
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(into); err != nil {
		return err
	}
	again, err := json.Marshal(into)
	if err == nil && !bytes.Equal(again, payload) {
		err = errors.New("not in canonical form")
	}
	return err
}
