//go:build !pkcs11

package token

import (
	"errors"

	"enisle/internal/fail"
	"enisle/internal/site/trust"
)

func none(uri string) error {
	_, err := parse(uri)
	return errors.Join(fail.As(fail.Usage, "build it with -tags pkcs11", errors.New("this program was built without tokens")), err)
}

// Load refuses.
func Load(uri string, _ func() (string, error)) (*trust.Key, func() error, error) {
	return nil, nil, none(uri)
}

// Generate refuses.
func Generate(uri string, _ func() (string, error)) (*trust.Key, func() error, error) {
	return nil, nil, none(uri)
}

// Wrap refuses.
func Wrap(uri string, _ func() (string, error), _ []byte) ([]byte, error) { return nil, none(uri) }

// Unwrap refuses.
func Unwrap(b []byte, _ func() (string, error)) ([]byte, error) {
	w, err := parseWrapped(b)
	if err != nil {
		return nil, err
	}
	return nil, none(w.Key)
}
