package archive

import (
	"bytes"
	"io"
	"strings"
	"testing"
)

// Frames as python-lz4 4.4.5 writes them, of what stands beside.
func TestLZ4(t *testing.T) {
	frame := func(flags byte, blocks string) string { return lz4Magic + string(flags) + "\x40\xc0" + blocks }
	for name, c := range map[string]struct {
		frame, want string
		bad         bool
	}{
		"plain":                    {frame(0x60, "\x03\x00\x00\x80abc\x00\x00\x00\x00"), "abc", false},
		"a match within itself":    {frame(0x60, "\x0a\x00\x00\x00\x1aa\x01\x00\x50bcdef\x00\x00\x00\x00"), strings.Repeat("a", 15) + "bcdef", false},
		"a long run":               {frame(0x60, "\x0b\x00\x00\x00\x1fa\x01\x00\x0a\x50bcdef\x00\x00\x00\x00"), strings.Repeat("a", 30) + "bcdef", false},
		"checksums":                {lz4Magic + "\x74\x40\xc0\x01\x00\x00\x80asum_\x00\x00\x00\x00sum_", "a", false},
		"a size":                   {lz4Magic + "\x68\x40\x01\x00\x00\x00\x00\x00\x00\x00\xc0\x01\x00\x00\x80a\x00\x00\x00\x00", "a", false},
		"a match before the block": {lz4Magic + "\x40\x40\xc0\x02\x00\x00\x80ab\x09\x00\x00\x00\x00\x02\x00\x50cdefg\x00\x00\x00\x00", "ababab" + "cdefg", false},
		"a match before the start": {frame(0x60, "\x04\x00\x00\x00\x1aa\x09\x00\x00\x00\x00\x00"), "", true},
		"cut short":                {frame(0x60, "\x03\x00\x00\x80ab"), "", true},
		"no end":                   {frame(0x60, "\x01\x00\x00\x80a"), "", true},
		"a block too large":        {frame(0x60, "\xff\xff\xff\x80a"), "", true},
		"a dictionary":             {frame(0x61, "\x00\x00\x00\x00"), "", true},
		"another version":          {frame(0x20, "\x00\x00\x00\x00"), "", true},
	} {
		r, err := newLZ4(strings.NewReader(c.frame))
		var got []byte
		if err == nil {
			got, err = io.ReadAll(r)
		}
		if err != nil != c.bad || !c.bad && string(got) != c.want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
	}
}

func FuzzLZ4(f *testing.F) {
	f.Add([]byte(lz4Magic + "\x60\x40\xc0\x0a\x00\x00\x00\x1aa\x01\x00\x50bcdef\x00\x00\x00\x00"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		if r, err := newLZ4(bytes.NewReader(b)); err == nil {
			_, _ = io.Copy(io.Discard, io.LimitReader(r, 1<<20))
		}
	})
}
