package ledger

import (
	"crypto/ed25519"
	"testing"
	"time"
)

// FuzzParseCheckpoint reads heads: what is accepted was signed, byte for byte.
func FuzzParseCheckpoint(f *testing.F) {
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		f.Fatal(err)
	}
	dir := f.TempDir() + "/ledger"
	if err := Create(dir, "enisle/a", private); err != nil {
		f.Fatal(err)
	}
	l, err := Open(dir, "enisle/a", public, private)
	if err != nil {
		f.Fatal(err)
	}
	known := map[string]bool{l.Head().Note: true}
	f.Add(l.Head().Note)
	if _, err := l.Begin("try", Actor{Name: "uid:0"}, nil, time.Unix(1_800_000_000, 0), nil); err != nil {
		f.Fatal(err)
	}
	known[l.Head().Note] = true
	f.Add(l.Head().Note)
	f.Fuzz(func(t *testing.T, signed string) {
		if h, err := ParseCheckpoint(signed, "enisle/a", public); err == nil && !known[signed] {
			t.Errorf("accepted what was not signed: %+v", h)
		}
	})
}
