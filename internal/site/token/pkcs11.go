//go:build pkcs11

package token

import (
	"crypto/elliptic"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ThalesGroup/crypto11"

	"enisle/internal/fail"
	"enisle/internal/site/trust"
)

// Load returns the key that a URI names. pin is asked for once. close ends the
// session with the token.
func Load(uri string, pin func() (string, error)) (_ *trust.Key, closed func() error, err error) {
	c, a, err := open(uri, pin)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	found, err := c.FindKeyPairs(nil, []byte(a.object))
	switch {
	case err != nil:
		return nil, nil, unusable(err)
	case len(found) != 1:
		return nil, nil, fail.Refuse("name one with object=LABEL, or make one with 'enisle keygen --pkcs11'", fmt.Errorf("the token has %d keys called %q", len(found), a.object))
	}
	k, err := trust.NewKey(found[0])
	if err != nil {
		return nil, nil, fail.Refuse("use an ECDSA P-384 key", err)
	}
	return k, c.Close, nil
}

// Generate makes a key in the token that stays there: it cannot be read out.
func Generate(uri string, pin func() (string, error)) (_ *trust.Key, closed func() error, err error) {
	c, a, err := open(uri, pin)
	if err != nil {
		return nil, nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.Close())
		}
	}()
	if found, err := c.FindKeyPairs(nil, []byte(a.object)); err != nil || len(found) > 0 {
		return nil, nil, errors.Join(fail.As(fail.Usage, "give another label; a key is never written over", fmt.Errorf("the token has a key called %q", a.object)), err)
	}
	id := make([]byte, 16)
	if _, err := rand.Read(id); err != nil {
		return nil, nil, err
	}
	s, err := c.GenerateECDSAKeyPairWithLabel(id, []byte(a.object), elliptic.P384())
	if err != nil {
		return nil, nil, unusable(err)
	}
	k, err := trust.NewKey(s)
	return k, c.Close, err
}

var errNoKey = errors.New("the token has no such key")

// secretKey returns the one secret key of a name.
func secretKey(c *crypto11.Context, name string) (*crypto11.SecretKey, error) {
	found, err := c.FindKeys(nil, []byte(name))
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, fmt.Errorf("%q: %w", name, errNoKey)
	case len(found) > 1:
		return nil, fmt.Errorf("the token has %d keys called %q", len(found), name)
	}
	return found[0], nil
}

// Wrap seals a secret so that only the token opens it, with an AES key that a URI
// names; the key is made if the token has none of this name, and stays there.
func Wrap(uri string, pin func() (string, error), secret []byte) (_ []byte, err error) {
	c, a, err := open(uri, pin)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	k, err := secretKey(c, a.object)
	if errors.Is(err, errNoKey) {
		id := make([]byte, 16)
		if _, err := rand.Read(id); err != nil {
			return nil, err
		}
		k, err = c.GenerateSecretKeyWithLabel(id, []byte(a.object), 256, crypto11.CipherAES)
	}
	if err != nil {
		return nil, unusable(err)
	}
	aead, err := k.NewGCM()
	if err != nil {
		return nil, unusable(err)
	}
	w := wrapped{Format: wrapFormat, Key: uri, Nonce: make([]byte, aead.NonceSize())}
	if _, err := rand.Read(w.Nonce); err != nil {
		return nil, err
	}
	w.Secret = aead.Seal(nil, w.Nonce, secret, []byte(wrapFormat))
	return json.Marshal(w)
}

// Unwrap opens what Wrap sealed.
func Unwrap(b []byte, pin func() (string, error)) (secret []byte, err error) {
	w, err := parseWrapped(b)
	if err != nil {
		return nil, err
	}
	c, a, err := open(w.Key, pin)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, c.Close()) }()
	k, err := secretKey(c, a.object)
	if err != nil {
		return nil, unusable(err)
	}
	aead, err := k.NewGCM()
	if err != nil {
		return nil, unusable(err)
	}
	if secret, err = aead.Open(nil, w.Nonce, w.Secret, []byte(wrapFormat)); err != nil {
		err = fail.Refuse("use the token that it was wrapped with", fmt.Errorf("wrapped secret: %w", err))
	}
	return secret, err
}

func open(uri string, pin func() (string, error)) (*crypto11.Context, address, error) {
	a, err := parse(uri)
	if err != nil {
		return nil, a, err
	}
	if pin == nil {
		return nil, a, fail.Refuse("give --passphrase-file with the PIN, or run it in a terminal", errors.New("the token wants a PIN"))
	}
	secret, err := pin()
	if err != nil {
		return nil, a, err
	}
	c, err := crypto11.Configure(&crypto11.Config{Path: a.module, TokenLabel: a.token, TokenSerial: a.serial, Pin: secret})
	if err != nil {
		return nil, a, unusable(err)
	}
	return c, a, nil
}

func unusable(err error) error {
	return fail.Refuse("check module, token and PIN: 'pkcs11-tool --module FILE --list-slots'", fmt.Errorf("token: %w", err))
}
