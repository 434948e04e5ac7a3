package shipment

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/fail"
)

// framesOf returns where the frames of a volume begin and end, as their own
// headers say.
func framesOf(t *testing.T, file string) (b []byte, at [][2]int) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; ; {
		n := bytes.Index(b[i:], []byte("ENISLEF1"))
		if n < 0 {
			return b, at
		}
		begin := i + n
		end := begin + frameHeaderSize + int(binary.BigEndian.Uint32(b[begin+32:]))
		at = append(at, [2]int{begin, end})
		i = end
	}
}

// Frames that are whole and signed, but not where they belong.
func TestFramesInOtherPlacesAreRefused(t *testing.T) {
	// Blobs that fill frames of one length, three frames a volume.
	blobs := []int{4<<20 - chunkHeaderSize, 4<<20 - chunkHeaderSize - 1, 4<<20 - chunkHeaderSize - 2, 4<<20 - chunkHeaderSize - 3, 4<<20 - chunkHeaderSize - 4, 4<<20 - chunkHeaderSize - 5}
	p := writeWith(t, WriteOptions{VolumeSize: 13 << 20}, blobs...)
	one, two := filepath.Join(p.dir, VolumeName(1)), filepath.Join(p.dir, VolumeName(2))
	a, fa := framesOf(t, one)
	b, fb := framesOf(t, two)
	if len(fa) < 2 || len(fb) < 2 {
		t.Fatalf("%d and %d frames", len(fa), len(fb))
	}
	over := func(to []byte, at [2]int, from []byte, frame [2]int) []byte {
		c := bytes.Clone(to)
		copy(c[at[0]:at[1]], from[frame[0]:frame[1]])
		return c
	}
	for name, tc := range map[string]struct {
		one, two []byte
		want     string
	}{
		"two frames of a volume swapped":     {over(over(a, fa[0], a, fa[1]), fa[1], a, fa[0]), b, "volume 1, frame 1"},
		"a frame of a volume twice":          {over(a, fa[1], a, fa[0]), b, "volume 1, frame 2"},
		"a frame of another volume":          {over(a, fa[0], b, fb[0]), b, "volume 1, frame 1"},
		"frames of two volumes swapped":      {over(a, fa[1], b, fb[1]), over(b, fb[1], a, fa[1]), "volume 1, frame 2"},
		"a frame under another's header":     {append(append(bytes.Clone(a[:fa[0][0]+frameHeaderSize]), a[fa[1][0]+frameHeaderSize:fa[1][0]+frameHeaderSize+fa[0][1]-fa[0][0]-frameHeaderSize]...), a[fa[0][1]:]...), b, "volume 1, frame 1"},
		"a frame whose header claims 16 MiB": {func() []byte { c := bytes.Clone(a); copy(c[fa[0][0]+32:], "\x00\xff\xff\xff"); return c }(), b, "volume 1, frame 1"},
	} {
		t.Run(name, func(t *testing.T) {
			q := p
			q.dir = t.TempDir()
			if err := os.CopyFS(q.dir, os.DirFS(p.dir)); err != nil {
				t.Fatal(err)
			}
			for v, content := range map[int][]byte{1: tc.one, 2: tc.two} {
				if err := os.WriteFile(filepath.Join(q.dir, VolumeName(v)), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			_, err := q.read(q.dir)
			if !fail.IsRefused(err) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want a refusal naming %q", err, tc.want)
			}
		})
	}
}

// A forged superblock, at any of its places, never changes what is read: with the
// others and the signed root it is named and read past, and where nothing is left
// to trust, refused.
func TestAForgedSuperblockIsNamed(t *testing.T) {
	p := writeWith(t, WriteOptions{VolumeSize: 150 << 10}, 70<<10, 60<<10, 50<<10)
	name := filepath.Join(p.dir, VolumeName(1))
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	places := 0
	for i := 0; ; {
		n := bytes.Index(b[i:], []byte("ENISLEV1"))
		if n < 0 {
			break
		}
		at := i + n
		i = at + superblockSize
		places++
		for field, forge := range map[string]func(c []byte){
			"the set":             func(c []byte) { c[at+8] ^= 0xff },
			"the volume":          func(c []byte) { c[at+27]++ },
			"the version":         func(c []byte) { c[at+31] = 2 },
			"a front of 4 GiB":    func(c []byte) { copy(c[at+32:], "\xff\xff\xff\xff") },
			"a place near 2^63":   func(c []byte) { copy(c[at+40:], "\x7f\xff\xff\xff\xff\xff\xff\xff") },
			"2^32 frames":         func(c []byte) { copy(c[at+48:], "\xff\xff\xff\xff") },
			"what is always zero": func(c []byte) { c[at+63] = 1 },
		} {
			c := bytes.Clone(b)
			forge(c)
			if err := os.WriteFile(name, c, 0o600); err != nil {
				t.Fatal(err)
			}
			named, err := p.mending(p.dir)
			if err == nil && named == 0 || err != nil && (!fail.IsRefused(err) || !strings.Contains(err.Error(), "volume 1")) {
				t.Errorf("superblock at %d, %s: %d named, %v", at, field, named, err)
			}
		}
	}
	if places < 2 {
		t.Errorf("%d superblocks", places)
	}
}

// Parity that was forged together with the frame it stands for gives back
// something else, which is not what was signed.
func TestForgedParityMendsNothing(t *testing.T) {
	p := writeWith(t, WriteOptions{VolumeSize: 1 << 20, Parity: 500, Spare: 1}, 90<<10, 80<<10, 70<<10)
	for n := 1; n <= len(p.header.Volumes); n++ {
		name := filepath.Join(p.dir, VolumeName(n))
		b, at := framesOf(t, name)
		for _, f := range at {
			kind := b[f[0]+36]
			if kind == kindData && f != at[0] {
				continue
			}
			// Parity and spare frames in whole, and one of what they stand for.
			for i := f[0] + frameHeaderSize; i < f[1]; i++ {
				b[i] = byte(i * 7)
			}
		}
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := p.mending(p.dir); !fail.IsRefused(err) || !strings.Contains(err.Error(), "volume 1, frame 1") {
		t.Errorf("got %v, want a refusal that names volume 1, frame 1", err)
	}
}

// Lengths near the end of what 63 and 64 bits hold are impossible, not added up.
func TestHugeFiguresAreRefused(t *testing.T) {
	huge := []uint64{1<<62 + 1, 1<<63 - 1, 1 << 63, 1<<64 - 1, 1<<64 - 64}
	for _, n := range huge {
		for _, field := range []int{32, 40} { // size of the blob, offset in it
			b := make([]byte, chunkHeaderSize+8)
			chunkHead{blob: Blob{artifact.Sum(nil), 8}, length: 8, stored: 8}.put(b)
			binary.BigEndian.PutUint64(b[field:], n)
			if h, _, _, err := parseChunk(b); err == nil {
				t.Errorf("a chunk with %d at %d was taken: %+v", n, field, h)
			}
		}
	}
	p := write(t, 96<<10, 80<<10)
	payload, err := json.Marshal(p.header)
	if err != nil {
		t.Fatal(err)
	}
	size := fmt.Sprintf(`"size":%d`, p.header.Volumes[0].Size)
	for _, n := range []string{"9223372036854775807", "9223372036854775808", "18446744073709551615", "-1", "1e300"} {
		for _, f := range []string{size, `"bytes":0`, `"blobs":1,`, `"artifacts":0`} {
			name, _, _ := strings.Cut(f, ":")
			tail := ""
			if strings.HasSuffix(f, ",") {
				tail = ","
			}
			forged := bytes.Replace(payload, []byte(f), []byte(name+":"+n+tail), 1)
			if bytes.Equal(forged, payload) {
				t.Fatalf("%s is not in %s", f, payload)
			}
			h, err := DecodeHeader(forged)
			if err == nil && name == `"size"` {
				m, err := OpenMedia(p.dir)
				if err != nil {
					t.Fatal(err)
				}
				err = m.CheckWhole(h)
				_ = m.Close()
				if !fail.IsRefused(err) {
					t.Errorf("%s of %s: %v", name, n, err)
				}
			}
		}
	}
}
