package trust

import (
	"bytes"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"filippo.io/age"

	"enisle/internal/artifact"
)

// FuzzParse reads envelopes: what is accepted has one form only, and is verified
// by nobody who is not known.
func FuzzParse(f *testing.F) {
	k, err := GenerateKey()
	if err != nil {
		f.Fatal(err)
	}
	env, err := Sign("application/vnd.enisle.test+json", []byte("{}"), k)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(env)
	f.Add([]byte(`{"payloadType":"","payload":"","signatures":[]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		e, err := Parse(b)
		if err != nil {
			return
		}
		if again, err := json.Marshal(e); err != nil || !bytes.Equal(again, b) {
			t.Error("two encodings of one envelope")
		}
		if _, _, err := Verify(b, e.PayloadType, func(string) (Public, error) { return nil, errors.New("unknown") }); err == nil {
			t.Error("verified by nobody")
		}
	})
}

// FuzzVerifyChain reads chains of roots whose payloads are hostile, but signed.
func FuzzVerifyChain(f *testing.F) {
	k, err := GenerateKey()
	if err != nil {
		f.Fatal(err)
	}
	a, err := age.GenerateHybridIdentity()
	if err != nil {
		f.Fatal(err)
	}
	root := NewRoot(Identity{Name: "a", Side: High, Key: k.Public, Recipient: a.Recipient().String()}, artifact.Sum(nil))
	root.Version, root.Made = 1, time.Unix(1_800_000_000, 0).UTC()
	payload, err := json.Marshal(root)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(payload)
	f.Fuzz(func(t *testing.T, payload []byte) {
		env, err := Sign(RootType, payload, k)
		if err != nil {
			return
		}
		r, err := VerifyChain([][]byte{env}, k.Public)
		if err == nil && (r.Version != 1 || r.Site.Key.ID() != k.Public.ID()) {
			t.Errorf("accepted %+v", r)
		}
		_, _ = DecodeIdentity(payload)
		_, _ = DecodeIdentity(env)
	})
}
