package token

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"enisle/internal/fail"
)

const wrapFormat = "enisle-wrapped/1"

// wrapped is a secret that a key in a token opens, AES-256 in Galois/Counter Mode;
// the format is what is authenticated with it.
type wrapped struct {
	Format string `json:"format"`
	Key    string `json:"key"` // URI of the key
	Nonce  []byte `json:"nonce"`
	Secret []byte `json:"secret"`
}

func parseWrapped(b []byte) (w wrapped, err error) {
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err = d.Decode(&w)
	if err == nil && (w.Format != wrapFormat || !Is(w.Key) || len(w.Nonce) < 12 || len(w.Nonce) > 16 || len(w.Secret) < 16) {
		err = errors.New("it is not in its form")
	}
	if err != nil {
		err = fail.Refuse("bring it back from a backup", fmt.Errorf("wrapped secret: %w", err))
	}
	return w, err
}
