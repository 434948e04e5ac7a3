package torch_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"enisle/internal/model/torch"
)

type want struct {
	Name   string   `json:"name"`
	Type   string   `json:"type"`
	Shape  []uint64 `json:"shape"`
	SHA256 string   `json:"sha256"`
}

func expected(t testing.TB) map[string][]want {
	t.Helper()
	b, err := os.ReadFile("testdata/expected.json")
	if err != nil {
		t.Fatal(err)
	}
	var all map[string][]want
	if err := json.Unmarshal(b, &all); err != nil {
		t.Fatal(err)
	}
	return all
}

func read(t testing.TB, b []byte) (*torch.Checkpoint, error) {
	t.Helper()
	return torch.Read(t.Context(), bytes.NewReader(b), int64(len(b)))
}

// Each tensor comes out with the bits that torch itself says it has.
func TestTensorsAreThoseThatTorchSaysBitByBit(t *testing.T) {
	all := expected(t)
	if len(all) < 60 {
		t.Fatalf("only %d checkpoints are expected", len(all))
	}
	for file, tensors := range all {
		t.Run(file, func(t *testing.T) {
			b, err := os.ReadFile(filepath.Join("testdata", file))
			if err != nil {
				t.Fatal(err)
			}
			c, err := read(t, b)
			if err != nil {
				t.Fatal(err)
			}
			if len(c.Tensors) != len(tensors) {
				t.Errorf("%d tensors, want %d", len(c.Tensors), len(tensors))
			}
			for i, got := range c.Tensors {
				w := tensors[i]
				if got.Name != w.Name || got.Type != w.Type || !slices.Equal(got.Shape, w.Shape) {
					t.Errorf("tensor %d is %q %s %v, want %q %s %v", i, got.Name, got.Type, got.Shape, w.Name, w.Type, w.Shape)
				}
				h := sha256.New()
				if err := got.Copy(t.Context(), h); err != nil {
					t.Fatal(err)
				}
				if sum := hex.EncodeToString(h.Sum(nil)); sum != w.SHA256 {
					t.Errorf("%s: SHA-256 %s, and torch says %s", got.Name, sum, w.SHA256)
				}
			}
		})
	}
}
