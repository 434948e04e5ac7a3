package app

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"enisle/internal/fail"
	"enisle/internal/judge/oms"
)

// OMSOptions say how a model is signed or verified.
type OMSOptions struct {
	Model        string // directory
	Signature    string // file; empty: model.sig in the directory
	PrivateKey   string // PEM file; to sign
	PublicKey    string // PEM file; to verify by a key
	Certificates string // PEM file: to sign with, leaf first; to verify by, roots
	Ignore       []string
	Legacy       bool
	At           time.Time // certificates must be valid then; zero: now
}

// ModelSignature says what a signature covers.
type ModelSignature struct {
	Signature string `json:"signature"`
	By        string `json:"by,omitempty"`
	oms.Checked
}

func (o *OMSOptions) fill() (model *os.Root, own string, err error) {
	if st, err := os.Stat(o.Model); err != nil || !st.IsDir() {
		return nil, "", fail.As(fail.Usage, "name the directory of a model", errors.Join(fmt.Errorf("%s is no directory", o.Model), err))
	}
	if o.Signature == "" {
		o.Signature = filepath.Join(o.Model, "model.sig")
	}
	if own, err = filepath.Rel(o.Model, o.Signature); err != nil {
		own = ""
	}
	root, err := os.OpenRoot(o.Model)
	if err != nil {
		return nil, "", err
	}
	return root, filepath.ToSlash(own), nil
}

// SignModel signs every file of a model.
func SignModel(ctx context.Context, o OMSOptions) (out ModelSignature, err error) {
	model, own, err := o.fill()
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, model.Close()) }()
	key, err := readPEM(o.PrivateKey, "--private-key", parsePrivate)
	if err != nil {
		return out, err
	}
	var chain []*x509.Certificate
	if o.Certificates != "" {
		if chain, err = readPEM(o.Certificates, "--certificate-chain", parseCertificates); err != nil {
			return out, err
		}
	}
	abs, err := filepath.Abs(o.Model)
	if err != nil {
		return out, err
	}
	skip := []string{}
	if fs.ValidPath(own) {
		skip = append(skip, own)
	}
	st, err := oms.Describe(ctx, filepath.Base(abs), model.FS(), skip)
	if err != nil {
		return out, fail.Refuse("a model holds regular files only", err)
	}
	b, err := oms.Sign(st, key, chain)
	if err != nil {
		return out, err
	}
	out.Signature = o.Signature
	for _, r := range st.Resources {
		out.Signed = append(out.Signed, r.Name)
	}
	return out, os.WriteFile(o.Signature, append(b, '\n'), 0o644)
}

// VerifyModel verifies the signature of a model, and says what it covers.
func VerifyModel(ctx context.Context, o OMSOptions) (out ModelSignature, err error) {
	model, own, err := o.fill()
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, model.Close()) }()
	if (o.PublicKey == "") == (o.Certificates == "") {
		return out, fail.As(fail.Usage, "give --public-key FILE or --certificate-chain FILE", errors.New("what is the signature verified by?"))
	}
	raw, err := os.ReadFile(o.Signature)
	if err != nil {
		return out, fail.As(fail.Usage, "name the file with --signature", err)
	}
	b, err := oms.Parse(raw)
	if err != nil {
		return out, err
	}
	out.Signature = o.Signature
	if o.PublicKey != "" {
		key, err := readPEM(o.PublicKey, "--public-key", x509.ParsePKIXPublicKey)
		if err != nil {
			return out, err
		}
		if err := b.VerifyKey(key, o.Legacy); err != nil {
			return out, err
		}
		out.By, _ = oms.Hint(key)
	} else {
		roots, err := readPEM(o.Certificates, "--certificate-chain", parseCertificates)
		if err != nil {
			return out, err
		}
		if o.At.IsZero() {
			o.At = time.Now()
		}
		if out.By, err = b.VerifyCertificate(roots, o.At, o.Legacy); err != nil {
			return out, err
		}
	}
	out.Checked, err = b.Statement.Check(ctx, model.FS(), own)
	out.Unsigned = slices.DeleteFunc(out.Unsigned, func(f string) bool { return slices.Contains(o.Ignore, f) })
	return out, err
}

func parsePrivate(der []byte) (crypto.Signer, error) {
	if k, err := x509.ParseECPrivateKey(der); err == nil {
		return k, nil
	}
	k, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, err
	}
	s, ok := k.(crypto.Signer)
	if !ok {
		return nil, fmt.Errorf("a key of type %T signs nothing", k)
	}
	return s, nil
}

func parseCertificates(der []byte) ([]*x509.Certificate, error) { return x509.ParseCertificates(der) }

// readPEM reads what the blocks of a PEM file hold, one after the other.
func readPEM[T any](file, flag string, parse func([]byte) (T, error)) (out T, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return out, fail.As(fail.Usage, "name a PEM file with "+flag, err)
	}
	if out, err = parsePEM(b, parse); err != nil {
		err = fail.As(fail.Usage, "name a PEM file with "+flag, fmt.Errorf("%s: nothing of that kind is in it: %w", file, err))
	}
	return out, err
}
