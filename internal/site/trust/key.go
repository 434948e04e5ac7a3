package trust

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"os"

	"filippo.io/age"
	"filippo.io/age/armor"

	"enisle/internal/fail"
)

// Public is a public key as PKIX DER: Ed25519, or ECDSA P-384 with SHA-384 for
// keys in tokens, which rarely know Ed25519.
type Public []byte

// ID names the key by its material: hex SHA-256 of the DER.
func (p Public) ID() string {
	sum := sha256.Sum256(p)
	return hex.EncodeToString(sum[:])
}

// Check refuses bytes that are not one of the two kinds of key.
func (p Public) Check() error {
	_, err := p.parse()
	return err
}

func (p Public) parse() (any, error) {
	k, err := x509.ParsePKIXPublicKey(p)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	switch k := k.(type) {
	case ed25519.PublicKey:
	case *ecdsa.PublicKey:
		if k.Curve != elliptic.P384() {
			return nil, errors.New("public key: ECDSA keys must be P-384")
		}
	default:
		return nil, fmt.Errorf("public key: %T is not supported", k)
	}
	// The id is taken over these bytes: one key must have one encoding.
	again, err := x509.MarshalPKIXPublicKey(k)
	if err == nil && !bytes.Equal(again, p) {
		err = errors.New("public key: not in its only encoding")
	}
	return k, err
}

func (p Public) verify(msg, sig []byte) error {
	k, err := p.parse()
	if err != nil {
		return err
	}
	ok := false
	switch k := k.(type) {
	case ed25519.PublicKey:
		ok = ed25519.Verify(k, msg, sig)
	case *ecdsa.PublicKey:
		sum := sha512.Sum384(msg)
		ok = ecdsa.VerifyASN1(k, sum[:], sig)
	}
	if !ok {
		return errors.New("is not valid over this content")
	}
	return nil
}

// Key signs. Its private half may live in memory or in a token.
type Key struct {
	Public Public
	signer crypto.Signer
}

// NewKey returns the key of a signer.
func NewKey(s crypto.Signer) (*Key, error) {
	der, err := x509.MarshalPKIXPublicKey(s.Public())
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return &Key{der, s}, Public(der).Check()
}

// GenerateKey makes a new Ed25519 key.
func GenerateKey() (*Key, error) {
	_, priv, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return NewKey(priv)
}

func (k *Key) sign(msg []byte) ([]byte, error) {
	if _, ok := k.signer.Public().(*ecdsa.PublicKey); ok {
		sum := sha512.Sum384(msg)
		return k.signer.Sign(rand.Reader, sum[:], crypto.SHA384)
	}
	return k.signer.Sign(rand.Reader, msg, crypto.Hash(0))
}

// Signer returns the key for formats of others.
func (k *Key) Signer() crypto.Signer { return k.signer }

// Ed25519 returns the private key for the ledger's signed notes, whose format
// knows no other kind.
func (k *Key) Ed25519() (ed25519.PrivateKey, bool) {
	priv, ok := k.signer.(ed25519.PrivateKey)
	return priv, ok
}

const (
	pemPrivate = "PRIVATE KEY" // PKCS #8
	maxKeyFile = 64 << 10
	// PublicSuffix ends the name of the file with the public half.
	PublicSuffix = ".pub"
)

// Derive returns 32 secret bytes for one purpose, from a key whose private half is in
// memory. Nobody learns the key from them, and another purpose has others.
func (k *Key) Derive(purpose string) ([]byte, error) {
	priv, ok := k.signer.(ed25519.PrivateKey)
	if !ok {
		return nil, errors.New("key: nothing is derived from a key that lives in a token")
	}
	b, err := hkdf.Key(sha256.New, priv.Seed(), nil, "enisle "+purpose, 32)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	return b, nil
}

// SaveKey writes the key to file, readable by its owner only, and its public
// half with a proof of possession to file.pub. An empty passphrase leaves the
// key unprotected. It never overwrites a file.
func SaveKey(k *Key, file, passphrase string) error {
	der, err := x509.MarshalPKCS8PrivateKey(k.signer)
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	private, err := Protect(pem.EncodeToMemory(&pem.Block{Type: pemPrivate, Bytes: der}), passphrase)
	if err != nil {
		return fmt.Errorf("key: %w", err)
	}
	public, err := EncodePublic(k)
	if err != nil {
		return err
	}
	// The public half first: a private key never stands alone.
	if err := writeNew(file+PublicSuffix, public, 0o644); err != nil {
		return err
	}
	if err := writeNew(file, private, 0o600); err != nil {
		return errors.Join(err, os.Remove(file+PublicSuffix))
	}
	return nil
}

// SaveSecret writes a secret to a new file, readable by its owner only, protected
// unless the passphrase is empty.
func SaveSecret(secret []byte, file, passphrase string) error {
	b, err := Protect(secret, passphrase)
	if err != nil {
		return err
	}
	return writeNew(file, b, 0o600)
}

// LoadSecret reads what SaveSecret wrote.
func LoadSecret(file string, passphrase func() (string, error)) ([]byte, error) {
	b, err := readSmall(file)
	if err != nil {
		return nil, err
	}
	if b, err = Unprotect(b, passphrase); err != nil {
		return nil, fmt.Errorf("key %s: %w", file, err)
	}
	return b, nil
}

// SavePublic writes the public half of k, with its proof, to file.pub. It never
// overwrites a file.
func SavePublic(k *Key, file string) error {
	b, err := EncodePublic(k)
	if err != nil {
		return err
	}
	return writeNew(file+PublicSuffix, b, 0o644)
}

func writeNew(file string, content []byte, mode os.FileMode) error {
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return fail.As(fail.Usage, "give another name with --out; a key is never written over", err)
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

// Protect seals a secret with a passphrase (age, scrypt); an empty passphrase
// returns it as it is.
func Protect(secret []byte, passphrase string) ([]byte, error) {
	if passphrase == "" {
		return secret, nil
	}
	r, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		return nil, err
	}
	var b bytes.Buffer
	a := armor.NewWriter(&b)
	w, err := age.Encrypt(a, r)
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(secret); err != nil {
		return nil, err
	}
	if err := errors.Join(w.Close(), a.Close()); err != nil {
		return nil, err
	}
	return append(b.Bytes(), '\n'), nil
}

// ErrPassphrase says that a secret is protected and none was given.
var ErrPassphrase = errors.New("the key is protected by a passphrase")

// Unprotect opens what Protect made; passphrase is asked for only if needed.
func Unprotect(b []byte, passphrase func() (string, error)) ([]byte, error) {
	if !bytes.HasPrefix(b, []byte(armor.Header)) {
		return b, nil
	}
	if passphrase == nil {
		return nil, fail.Refuse("give --passphrase-file, or run it in a terminal", ErrPassphrase)
	}
	p, err := passphrase()
	if err != nil {
		return nil, err
	}
	id, err := age.NewScryptIdentity(p)
	if err != nil {
		return nil, err
	}
	r, err := age.Decrypt(armor.NewReader(bytes.NewReader(b)), id)
	if err != nil {
		return nil, fail.Refuse("check the passphrase", fmt.Errorf("the passphrase does not open the key: %w", err))
	}
	return io.ReadAll(io.LimitReader(r, maxKeyFile))
}

// LoadKey reads a key that SaveKey wrote.
func LoadKey(file string, passphrase func() (string, error)) (*Key, error) {
	b, err := readSmall(file)
	if err != nil {
		return nil, fmt.Errorf("key: %w", err)
	}
	if b, err = Unprotect(b, passphrase); err != nil {
		return nil, fmt.Errorf("key %s: %w", file, err)
	}
	block, rest := pem.Decode(b)
	if block == nil || block.Type != pemPrivate || len(bytes.TrimSpace(rest)) != 0 {
		return nil, fail.As(fail.Usage, "name a key that 'enisle keygen' made", fmt.Errorf("key %s: not a private key", file))
	}
	k, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", file, err)
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("key %s: cannot sign", file)
	}
	return NewKey(s)
}

func readSmall(file string) ([]byte, error) {
	f, err := os.Open(file)
	if err != nil {
		return nil, fail.As(fail.Usage, "name a file that is there; 'enisle keygen' makes keys", err)
	}
	b, err := io.ReadAll(io.LimitReader(f, maxKeyFile+1))
	if err == nil && len(b) > maxKeyFile {
		err = fmt.Errorf("%s: larger than %d bytes", file, maxKeyFile)
	}
	return b, errors.Join(err, f.Close())
}

const publicType = "application/vnd.enisle.public-key.v1+json"

type publicFile struct {
	Key Public `json:"key"`
}

// EncodePublic returns the public half of k, signed by k itself: a proof that
// whoever made the file holds the key.
func EncodePublic(k *Key) ([]byte, error) {
	return selfSigned(k, publicType, publicFile{k.Public})
}

// LoadPublic reads a .pub file and checks its proof of possession.
func LoadPublic(file string) (Public, error) {
	b, err := readSmall(file)
	if err != nil {
		return nil, fmt.Errorf("public key: %w", err)
	}
	if block, _ := pem.Decode(b); block != nil {
		return nil, fail.As(fail.Usage, "give the file that ends in .pub, and keep the private key to its owner", fmt.Errorf("%s is a private key", file))
	}
	var p publicFile
	if err := openSelfSigned(b, publicType, &p, func() Public { return p.Key }); err != nil {
		return nil, fmt.Errorf("public key %s: %w", file, err)
	}
	return p.Key, nil
}
