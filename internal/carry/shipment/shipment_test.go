package shipment

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"enisle/internal/artifact"
	"enisle/internal/fail"
)

// parcel is a written shipment and what opens it.
type parcel struct {
	dir      string
	header   Header
	identity age.Identity
	content  map[artifact.Digest][]byte
	damage   func(Damage) error
	base     []byte // a blob that the importer holds
}

type plainSigner struct{}

func (plainSigner) Sign(_ string, payload []byte) ([]byte, error) { return payload, nil }

func content(t *testing.T, sizes ...int) ([]Blob, map[artifact.Digest][]byte) {
	t.Helper()
	rng := rand.New(rand.NewPCG(1, 2))
	var blobs []Blob
	bytesOf := map[artifact.Digest][]byte{}
	for _, n := range sizes {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		d := artifact.Sum(b)
		if _, ok := bytesOf[d]; ok {
			continue
		}
		blobs = append(blobs, Blob{d, int64(n)})
		bytesOf[d] = b
	}
	return blobs, bytesOf
}

func opener(m map[artifact.Digest][]byte) func(Blob) (io.ReadCloser, error) {
	return func(b Blob) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(m[b.Digest])), nil }
}

func write(t *testing.T, volume int64, sizes ...int) parcel {
	t.Helper()
	return writeWith(t, WriteOptions{VolumeSize: volume}, sizes...)
}

func writeWith(t *testing.T, opt WriteOptions, sizes ...int) parcel {
	t.Helper()
	blobs, held := content(t, sizes...)
	return writeBlobs(t, opt, blobs, held)
}

func writeBlobs(t *testing.T, opt WriteOptions, blobs []Blob, held map[artifact.Digest][]byte) parcel {
	t.Helper()
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	return parcel{dir: t.TempDir(), identity: id, content: held}.again(t, opt, blobs, held)
}

// again writes into the directory of p.
func (p parcel) again(t *testing.T, opt WriteOptions, blobs []Blob, held map[artifact.Digest][]byte) parcel {
	t.Helper()
	root, err := os.OpenRoot(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	opt.Set, opt.Recipients, opt.Open = [16]byte{1}, []age.Recipient{p.identity.(*age.HybridIdentity).Recipient()}, opener(held)
	vols, err := Write(context.Background(), root, blobs, opt)
	if err != nil {
		t.Fatal(err)
	}
	p.header = finish(t, root, vols, blobs, opt.Spare)
	return p
}

func finish(t *testing.T, root *os.Root, vols []Volume, blobs []Blob, spare int) Header {
	t.Helper()
	bill := []byte("a bill\n")
	key := strings.Repeat("f", 64)
	h := Header{
		Format: Format, ID: "outside-1-01000000", Set: fmt.Sprintf("%032x", 1), From: Party{"outside", key}, To: []Party{{"island", key}},
		Sequence: 1, Content: blobs[0].Digest, Blobs: len(blobs), Base: []Base{}, Carried: Carried{Blobs: len(blobs)}, Created: time.Unix(0, 0).UTC(), Expires: time.Unix(9, 0).UTC(),
		Roots: []json.RawMessage{json.RawMessage(`{}`)}, Bill: artifact.Sum(bill), Spare: spare, Volumes: vols,
	}
	h.Set = "01" + strings.Repeat("0", 30)
	env, err := h.Encode(plainSigner{})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(WriteFile(root, BillName, bill), WriteFile(root, HeaderName, env)); err != nil {
		t.Fatal(err)
	}
	return h
}

// read verifies and opens the whole of a directory.
func (p parcel) read(dir string) (map[artifact.Digest][]byte, error) {
	m, err := OpenMedia(dir)
	if err != nil {
		return nil, err
	}
	defer func() { _ = m.Close() }()
	env, err := m.Envelope()
	if err != nil {
		return nil, err
	}
	h, err := DecodeHeader(env)
	if err != nil {
		return nil, fail.Refuse("", err)
	}
	if want, _ := json.Marshal(p.header); !bytes.Equal(want, env) {
		return nil, fail.Refuse("", errors.New("header: not what was signed")) // stands for the signature
	}
	if err := m.CheckWhole(h); err != nil {
		return nil, err
	}
	got := map[artifact.Digest][]byte{}
	err = m.Read(context.Background(), h, ReadOptions{Identities: []age.Identity{p.identity}, Damage: p.damage, Chunk: func(c Chunk) error {
		if int64(len(got[c.Blob.Digest])) != c.Offset {
			return errors.New("chunk out of order")
		}
		if c.Length > 0 {
			c.Data = p.base[c.From.Offset : c.From.Offset+c.Length]
		}
		got[c.Blob.Digest] = append(got[c.Blob.Digest], c.Data...)
		return nil
	}})
	return got, err
}

func TestWhatIsWrittenIsRead(t *testing.T) {
	for name, tc := range map[string]struct {
		volume  int64
		sizes   []int
		volumes int
	}{
		"one small blob":                         {0, []int{5}, 1},
		"an empty blob":                          {0, []int{0, 3}, 1},
		"many small blobs in one frame":          {0, []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 10}, 1},
		"a blob of exactly one frame":            {0, []int{framePayload - chunkHeaderSize}, 1},
		"a blob one byte over a frame":           {0, []int{framePayload - chunkHeaderSize + 1}, 1},
		"blobs over many volumes":                {1 << 20, []int{300 << 10, 300 << 10, 300 << 10, 300 << 10, 5}, 2},
		"a blob larger than a volume is cut":     {256 << 10, []int{1 << 20}, 5},
		"volumes as small as they may be":        {minVolume, []int{100 << 10, 7}, 2},
		"a blob that would not fit starts a new": {1 << 20, []int{700 << 10, 700 << 10}, 2},
	} {
		t.Run(name, func(t *testing.T) {
			p := write(t, tc.volume, tc.sizes...)
			if len(p.header.Volumes) != tc.volumes {
				t.Errorf("%d volumes, want %d", len(p.header.Volumes), tc.volumes)
			}
			for _, v := range p.header.Volumes {
				if tc.volume > 0 && v.Size > tc.volume {
					t.Errorf("volume %d has %d bytes, more than %d", v.Number, v.Size, tc.volume)
				}
			}
			got, err := p.read(p.dir)
			if err != nil {
				t.Fatal(err)
			}
			for d, want := range p.content {
				if !bytes.Equal(got[d], want) {
					t.Errorf("blob %s: %d bytes, want %d", d.Short(), len(got[d]), len(want))
				}
			}
		})
	}
}

func TestThePlanIsWhatIsWritten(t *testing.T) {
	p := write(t, 1<<20, 3<<20, 10, 900<<10, 900<<10)
	blobs, _ := content(t, 3<<20, 10, 900<<10, 900<<10)
	n, size, err := Plan(blobs, WriteOptions{VolumeSize: 1 << 20, Recipients: []age.Recipient{p.identity.(*age.HybridIdentity).Recipient()}})
	if err != nil {
		t.Fatal(err)
	}
	var wrote int64
	for _, v := range p.header.Volumes {
		wrote += v.Size
	}
	if n != len(p.header.Volumes) || size != wrote {
		t.Errorf("planned %d volumes of %d bytes, wrote %d of %d", n, size, len(p.header.Volumes), wrote)
	}
}

func TestABlobSmallerThanAVolumeIsNotCut(t *testing.T) {
	p := write(t, 1<<20, 600<<10, 500<<10, 400<<10, 300<<10, 10)
	where := map[artifact.Digest]int{}
	m, err := OpenMedia(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	var here []artifact.Digest
	err = m.Read(context.Background(), p.header, ReadOptions{
		Identities: []age.Identity{p.identity},
		Chunk:      func(c Chunk) error { here = append(here, c.Blob.Digest); return nil },
		Mark: func(v, _ int) error {
			for _, d := range here {
				if w, ok := where[d]; ok && w != v {
					t.Errorf("blob %s lies in volumes %d and %d", d.Short(), w, v)
				}
				where[d] = v
			}
			here = nil
			return nil
		},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Every single flipped bit, in any file, is refused and named.
func TestEveryFlippedBitIsRefused(t *testing.T) {
	p := write(t, 96<<10, 70<<10, 100, 50<<10, 0, 33<<10)
	files, _ := filepath.Glob(filepath.Join(p.dir, "*"))
	var sizes []int64
	var total int64
	for _, f := range files {
		st, err := os.Stat(f)
		if err != nil {
			t.Fatal(err)
		}
		sizes, total = append(sizes, st.Size()), total+st.Size()
	}
	rng := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		at := rng.Int64N(total)
		i := 0
		for at >= sizes[i] {
			at -= sizes[i]
			i++
		}
		flip(t, files[i], at, 1<<rng.IntN(8))
		_, err := p.read(p.dir)
		if !fail.IsRefused(err) {
			t.Fatalf("%s at %d: got %v, want a refusal", filepath.Base(files[i]), at, err)
		}
		if v := filepath.Base(files[i]); isVolume(v) && !(strings.Contains(err.Error(), "volume ") && strings.Contains(err.Error(), "frame ")) {
			t.Fatalf("%s at %d: %v names no volume and frame", v, at, err)
		}
		flip(t, files[i], at, 0)
	}
	if _, err := p.read(p.dir); err != nil {
		t.Fatalf("with every bit back: %v", err)
	}
}

var undo = map[string]byte{}

func flip(t *testing.T, name string, at int64, mask byte) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	b := make([]byte, 1)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	if mask == 0 {
		mask = undo[name]
	}
	undo[name] = mask
	b[0] ^= mask
	if _, err := f.WriteAt(b, at); err != nil {
		t.Fatal(err)
	}
}

func TestHostileMediaIsRefused(t *testing.T) {
	other := write(t, 96<<10, 80<<10, 70<<10)
	for name, tc := range map[string]struct {
		do   func(dir string) error
		want string
	}{
		"a missing volume": {func(d string) error { return os.Remove(filepath.Join(d, VolumeName(1))) }, "volume 1 of"},
		"an extra volume":  {func(d string) error { return os.WriteFile(filepath.Join(d, VolumeName(9)), []byte("x"), 0o600) }, "extra"},
		"a missing header": {func(d string) error { return os.Remove(filepath.Join(d, HeaderName)) }, "header.json is missing"},
		"a missing bill":   {func(d string) error { return os.Remove(filepath.Join(d, BillName)) }, "BILL.txt is missing"},
		"an unknown file":  {func(d string) error { return os.WriteFile(filepath.Join(d, "autorun.inf"), nil, 0o600) }, "does not belong"},
		"a directory":      {func(d string) error { return os.Mkdir(filepath.Join(d, VolumeName(8)), 0o700) }, "not a regular file"},
		"names differing in case": {
			func(d string) error { return os.WriteFile(filepath.Join(d, "Header.json"), nil, 0o600) },
			"differ only in case",
		},
		"a link in place of a volume": {func(d string) error {
			v := filepath.Join(d, VolumeName(1))
			return errors.Join(os.Rename(v, d+".v"), os.Symlink(d+".v", v))
		}, "not a regular file"},
		"a cut volume": {func(d string) error { return os.Truncate(filepath.Join(d, VolumeName(1)), 70000) }, "cut short"},
		"a long volume": {func(d string) error {
			f, err := os.OpenFile(filepath.Join(d, VolumeName(1)), os.O_APPEND|os.O_WRONLY, 0)
			if err != nil {
				return err
			}
			_, err = f.WriteString("x")
			return errors.Join(err, f.Close())
		}, "goes on"},
		"a volume of another shipment": {func(d string) error {
			b, err := os.ReadFile(filepath.Join(other.dir, VolumeName(1)))
			if err != nil {
				return err
			}
			b = append(b, make([]byte, 200<<10)...)
			st, err := os.Stat(filepath.Join(d, VolumeName(1)))
			if err != nil {
				return err
			}
			return os.WriteFile(filepath.Join(d, VolumeName(1)), b[:st.Size()], 0o600)
		}, "volume 1, frame"},
		"an unfinished volume": {func(d string) error { return os.WriteFile(filepath.Join(d, VolumeName(2)+partialSuffix), nil, 0o600) }, "not finished"},
		"two volumes swapped": {func(d string) error {
			a, b := filepath.Join(d, VolumeName(1)), filepath.Join(d, VolumeName(2))
			return errors.Join(os.Rename(a, d+".x"), os.Rename(b, a), os.Rename(d+".x", b))
		}, "volume 1, frame"},
	} {
		t.Run(name, func(t *testing.T) {
			p := write(t, 96<<10, 80<<10, 70<<10, 60<<10)
			if err := tc.do(p.dir); err != nil {
				t.Fatal(err)
			}
			_, err := p.read(p.dir)
			if !fail.IsRefused(err) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want a refusal naming %q", err, tc.want)
			}
			if fail.HintOf(err) == "" {
				t.Error("the refusal gives no hint")
			}
		})
	}
}

func TestLitterOfOperatingSystemsIsIgnoredAndReported(t *testing.T) {
	p := write(t, 0, 10)
	for _, n := range []string{"lost+found", "System Volume Information"} {
		if err := os.Mkdir(filepath.Join(p.dir, n), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	m, err := OpenMedia(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	if len(m.Ignored) != 2 {
		t.Errorf("ignored %v, want both", m.Ignored)
	}
}

// A run that stopped at any byte is taken up again and keeps its whole frames.
func TestWritingIsTakenUpWhereItStopped(t *testing.T) {
	sizes := []int{200 << 10, 90 << 10, 10, 150 << 10, 40 << 10}
	rng := rand.New(rand.NewPCG(5, 6))
	for range 40 {
		p := write(t, 160<<10, sizes...)
		blobs, held := content(t, sizes...)
		for _, n := range []string{HeaderName, BillName} {
			if err := os.Remove(filepath.Join(p.dir, n)); err != nil {
				t.Fatal(err)
			}
		}
		cut := 1 + rng.IntN(len(p.header.Volumes))
		for n := cut; n <= len(p.header.Volumes); n++ {
			name := filepath.Join(p.dir, VolumeName(n))
			if n > cut {
				_ = os.Remove(name)
				continue
			}
			if err := errors.Join(os.Truncate(name, rng.Int64N(p.header.Volumes[n-1].Size)), os.Rename(name, name+partialSuffix)); err != nil {
				t.Fatal(err)
			}
		}
		root, err := os.OpenRoot(p.dir)
		if err != nil {
			t.Fatal(err)
		}
		vols, err := Write(context.Background(), root, blobs, WriteOptions{
			Set: [16]byte{1}, VolumeSize: 160 << 10,
			Recipients: []age.Recipient{p.identity.(*age.HybridIdentity).Recipient()}, Open: opener(held),
		})
		if err != nil {
			t.Fatal(err)
		}
		for n := range cut - 1 {
			if vols[n] != p.header.Volumes[n] {
				t.Errorf("volume %d was complete and was written again", n+1)
			}
		}
		p.header = finish(t, root, vols, blobs, 0)
		_ = root.Close()
		got, err := p.read(p.dir)
		if err != nil || len(got) != len(held) {
			t.Fatalf("%d blobs of %d: %v", len(got), len(held), err)
		}
	}
}

func TestABlobThatIsNotWhatItsNameSaysStopsWriting(t *testing.T) {
	blobs, held := content(t, 100)
	held[blobs[0].Digest][7] ^= 1
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	root, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = root.Close() }()
	_, err = Write(context.Background(), root, blobs, WriteOptions{Recipients: []age.Recipient{id.Recipient()}, Open: opener(held)})
	if !fail.IsRefused(err) {
		t.Errorf("got %v, want a refusal", err)
	}
}

func FuzzDecodeHeader(f *testing.F) {
	f.Add([]byte(`{"format":"enisle-shipment/1"}`))
	f.Fuzz(func(_ *testing.T, b []byte) {
		h, err := DecodeHeader(b)
		if err != nil {
			return
		}
		if again, err := h.Encode(plainSigner{}); err != nil || !bytes.Equal(again, b) {
			panic("two encodings of one header")
		}
	})
}

func FuzzFrames(f *testing.F) {
	p := place{[16]byte{1}, 1}
	l := &layout{front: frontAlign}
	l.add(entry{kindData, 100, sha256.Sum256(nil)})
	f.Add(p.index(l), l.size(), 1)
	b := make([]byte, chunkHeaderSize)
	chunkHead{blob: Blob{artifact.Sum(nil), 0}}.put(b)
	f.Add(b, int64(0), 0)
	f.Fuzz(func(_ *testing.T, b []byte, size int64, frames int) {
		if frames >= 0 && frames < 1000 {
			_, _ = p.parseIndex(Volume{Number: 1, Size: size, Frames: frames}, b)
		}
		var u unpacker
		_ = u.each(b, func(Chunk) error { return nil })
		_, _ = p.parseSuperblock(b)
		_, _ = p.parseFrameHeader(b, 1)
	})
}
