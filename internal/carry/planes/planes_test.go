package planes

import (
	"bytes"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/klauspost/compress/zstd"
)

// weights returns n bytes of normally distributed numbers in the first width
// bytes, from the top, of float32.
func weights(n, width int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	b := make([]byte, 0, n+width)
	for len(b) < n {
		u := math.Float32bits(float32(r.NormFloat64()*0.02)) >> (32 - 8*width)
		for range width {
			b = append(b, byte(u))
			u >>= 8
		}
	}
	return b[:n]
}

func noise(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{}).Read(b)
	return b
}

func TestEveryRunComesBackByteForByte(t *testing.T) {
	e, err := NewEncoder()
	if err != nil {
		t.Fatal(err)
	}
	d, err := NewDecoder(8 << 20)
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		p    []byte
		want Encoding
	}{
		"nothing":            {nil, Plain},
		"little":             {[]byte("hello"), Plain},
		"text":               {[]byte(strings.Repeat("one two three ", 9000)), Zstd},
		"zeros":              {make([]byte, 1<<20), Zstd},
		"noise":              {noise(1 << 20), Plain},
		"bf16":               {weights(4<<20, 2), Two},
		"bf16, odd":          {weights(1<<20+1, 2), Two},
		"bf16, from the odd": {weights(1<<20, 2)[1:], Two},
		"f32":                {weights(1<<20, 4), Four},
		"f32, cut":           {weights(1<<20, 4)[3 : 1<<20-2], Four},
		"one block":          {weights(blockSize, 2), Two},
		"one block and one":  {weights(blockSize+1, 2), Two},
	} {
		out, how := e.Encode([]byte("before"), tc.p)
		if how != tc.want {
			t.Errorf("%s: encoding %d, want %d", name, how, tc.want)
		}
		if how != Plain && !gains(len(out)-6, len(tc.p)) {
			t.Errorf("%s: %d bytes of %d", name, len(out)-6, len(tc.p))
		}
		got := make([]byte, len(tc.p))
		if err := d.Decode(got, out[6:], how); err != nil || !bytes.Equal(got, tc.p) {
			t.Errorf("%s: what comes back differs: %v", name, err)
		}
	}
}

// TestRatio is the promise for bf16 weights of a standard deviation of 0.02.
func TestRatio(t *testing.T) {
	e, _ := NewEncoder()
	p := weights(4<<20, 2)
	out, _ := e.Encode(nil, p)
	if r := float64(len(out)) / float64(len(p)); r > 0.75 {
		t.Errorf("ratio %.3f, want at most 0.75", r)
	}
}

func TestHostileRunsAreRefused(t *testing.T) {
	d, _ := NewDecoder(1 << 20)
	z, _ := zstd.NewWriter(nil)
	bomb := z.EncodeAll(make([]byte, 64<<20), nil)
	for name, tc := range map[string]struct {
		p   []byte
		how Encoding
		n   int
	}{
		"a bomb":               {bomb, Zstd, 64 << 20},
		"a bomb that lies":     {bomb, Zstd, 1 << 20},
		"a length too small":   {z.EncodeAll([]byte("hello, world, hello"), nil), Zstd, 3},
		"no frame":             {[]byte("hello"), Two, 5},
		"an unknown encoding":  {[]byte("hello"), 9, 5},
		"plain, but longer":    {[]byte("hello"), Plain, 4},
		"plain, but shorter":   {[]byte("hello"), Plain, 6},
		"two frames, one lies": {append(z.EncodeAll([]byte("hello"), nil), bomb...), Zstd, 5},
	} {
		if err := d.Decode(make([]byte, tc.n), tc.p, tc.how); err == nil {
			t.Errorf("%s: taken", name)
		}
	}
}

func FuzzDecode(f *testing.F) {
	e, _ := NewEncoder()
	for _, p := range [][]byte{weights(2000, 2), weights(2000, 4), []byte(strings.Repeat("text ", 300))} {
		out, how := e.Encode(nil, p)
		f.Add(out, byte(how), len(p))
	}
	d, _ := NewDecoder(1 << 20)
	f.Fuzz(func(_ *testing.T, p []byte, how byte, n int) {
		if n >= 0 && n <= 1<<20 {
			_ = d.Decode(make([]byte, n), p, Encoding(how))
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	p := weights(4<<20, 2)
	e, _ := NewEncoder()
	b.SetBytes(int64(len(p)))
	var out []byte
	for b.Loop() {
		out, _ = e.Encode(out[:0], p)
	}
	b.ReportMetric(float64(len(out))/float64(len(p)), "ratio")
}

func BenchmarkDecode(b *testing.B) {
	p := weights(4<<20, 2)
	e, _ := NewEncoder()
	out, how := e.Encode(nil, p)
	d, _ := NewDecoder(8 << 20)
	b.SetBytes(int64(len(p)))
	for b.Loop() {
		if err := d.Decode(p, out, how); err != nil {
			b.Fatal(err)
		}
	}
}
