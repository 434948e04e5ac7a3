// Package pgp signs texts as OpenPGP does, for clients that know nothing else: apt.
//
// The key is derived from a secret and nothing is stored; the same secret, text and time
// give the same bytes.
package pgp

import (
	"bytes"
	"crypto"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"
)

// born is when every key says that it was made: it is derived, and has no age. Constant.
var born = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)

// Key signs; Ed25519 inside.
type Key struct {
	entity *openpgp.Entity
	secret []byte
}

// New derives the key of a name from a secret of at least 32 bytes.
func New(secret []byte, name string) (*Key, error) {
	if len(secret) < 32 {
		return nil, errors.New("pgp: the secret is too short")
	}
	random, err := stream(secret, "key of "+name)
	if err != nil {
		return nil, err
	}
	entity, err := openpgp.NewEntity(name, "enisle", "", config(random, born))
	if err != nil {
		return nil, fmt.Errorf("pgp: %w", err)
	}
	return &Key{entity, secret}, nil
}

func config(random io.Reader, at time.Time) *packet.Config {
	return &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, DefaultHash: crypto.SHA512, Rand: random, Time: func() time.Time { return at },
	}
}

// stream is bytes that depend on the secret and a purpose alone.
func stream(secret []byte, purpose string) (io.Reader, error) {
	b, err := hkdf.Key(sha256.New, secret, nil, "enisle openpgp "+purpose, 4096)
	if err != nil {
		return nil, fmt.Errorf("pgp: %w", err)
	}
	return bytes.NewReader(b), nil
}

// Public returns the public key in armour.
func (k *Key) Public() ([]byte, error) {
	var b bytes.Buffer
	w, err := armor.EncodeWithChecksumOption(&b, openpgp.PublicKeyType, nil, true)
	if err == nil {
		err = errors.Join(k.entity.Serialize(w), w.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("pgp: %w", err)
	}
	return append(b.Bytes(), '\n'), nil
}

// Clearsign returns the text with a signature of a time behind it (RFC 9580, 7).
func (k *Key) Clearsign(text []byte, at time.Time) ([]byte, error) {
	sum := sha256.Sum256(text)
	random, err := stream(k.secret, fmt.Sprintf("signature %x", sum))
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	w, err := clearsign.Encode(&b, k.entity.PrivateKey, config(random, at.UTC()))
	if err == nil {
		_, err = w.Write(text)
		err = errors.Join(err, w.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("pgp: %w", err)
	}
	return withChecksum(b.Bytes())
}

// withChecksum writes the armour of the signature again with a checksum: GnuPG 2.2, which
// apt asks, reads none without.
func withChecksum(signed []byte) ([]byte, error) {
	at := bytes.LastIndex(signed, []byte("-----BEGIN PGP SIGNATURE-----"))
	if at < 0 {
		return nil, errors.New("pgp: no signature was made")
	}
	block, err := armor.Decode(bytes.NewReader(signed[at:]))
	if err != nil {
		return nil, fmt.Errorf("pgp: %w", err)
	}
	raw, err := io.ReadAll(block.Body)
	if err != nil {
		return nil, fmt.Errorf("pgp: %w", err)
	}
	out := bytes.NewBuffer(bytes.Clone(signed[:at]))
	w, err := armor.EncodeWithChecksumOption(out, openpgp.SignatureType, nil, true)
	if err == nil {
		_, err = w.Write(raw)
		err = errors.Join(err, w.Close())
	}
	if err != nil {
		return nil, fmt.Errorf("pgp: %w", err)
	}
	return append(out.Bytes(), '\n'), nil
}
