package shipment

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/fail"
)

// mending reads a parcel and tolerates what could be mended, which it counts.
func (p parcel) mending(dir string) (mended int, err error) {
	p.damage = func(d Damage) error {
		if d.Mended {
			mended++
			return nil
		}
		return d.Err
	}
	got, err := p.read(dir)
	if err != nil {
		return mended, err
	}
	for d, want := range p.content {
		if !bytes.Equal(got[d], want) {
			return mended, errors.New("accepted, and wrong")
		}
	}
	return mended, nil
}

// layoutOf reads where the frames of a volume stand.
func (p parcel) layoutOf(t *testing.T, n int) *layout {
	t.Helper()
	m, err := OpenMedia(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	s := m.set(p.header, false)
	defer func() { _, _ = s.close(), m.Close() }()
	v, err := s.volume(n)
	if err != nil {
		t.Fatal(err)
	}
	return v.layout
}

// files returns what stands in a directory, and a function that brings it back.
func files(t *testing.T, dir string) (map[string][]byte, func()) {
	t.Helper()
	all := map[string][]byte{}
	names, _ := filepath.Glob(filepath.Join(dir, "*"))
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		all[filepath.Base(n)] = b
	}
	return all, func() {
		now, _ := filepath.Glob(filepath.Join(dir, "*"))
		for _, n := range now {
			if all[filepath.Base(n)] == nil {
				_ = os.RemoveAll(n)
			}
		}
		for n, b := range all {
			if now, err := os.ReadFile(filepath.Join(dir, n)); err == nil && bytes.Equal(now, b) {
				continue
			}
			if err := os.WriteFile(filepath.Join(dir, n), b, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func damage(t *testing.T, name string, at, n int64) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xdb}, int(n)), at); err != nil {
		t.Fatal(err)
	}
}

// Small frames, so that there are many: a blob of a volume's size each.
func manyFrames() []int {
	var sizes []int
	for i := range 40 {
		sizes = append(sizes, 4<<20-chunkHeaderSize-i)
	}
	return sizes
}

// TestParityMendsWhatItCan loses frames of a group in a burst and at random: as
// many as there is parity, and then one more.
func TestParityMendsWhatItCan(t *testing.T) {
	p := writeWith(t, WriteOptions{VolumeSize: 1 << 30, Parity: 100}, manyFrames()...)
	l := p.layoutOf(t, 1)
	if v := p.header.Volumes[0]; v.Frames != 44 || v.Parity != 4 {
		t.Fatalf("%d frames, of which %d parity, want 44 and 4", v.Frames, v.Parity)
	}
	name := filepath.Join(p.dir, VolumeName(1))
	whole, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(8, 9))
	for round := range 6 {
		lost := rng.Perm(44)[:4]
		if round%2 == 0 {
			first := rng.IntN(40)
			lost = []int{first, first + 1, first + 2, first + 3}
		}
		for _, i := range lost {
			damage(t, name, l.at[i], l.entries[i].size())
		}
		if n, err := p.mending(p.dir); err != nil || n != 4 {
			t.Fatalf("frames %v lost: %d mended, %v", lost, n, err)
		}
		more := 0
		for slices.Contains(lost, more) {
			more++
		}
		damage(t, name, l.at[more], l.entries[more].size())
		if _, err := p.mending(p.dir); !fail.IsRefused(err) || !strings.Contains(err.Error(), "volume 1, frame ") {
			t.Fatalf("one frame more than the parity can give back: %v", err)
		}
		if err := os.WriteFile(name, whole, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	// Random bits in every frame: each in a column of its own.
	for i := range l.entries[:40] {
		damage(t, name, l.at[i]+frameHeaderSize+int64(i)*65536+int64(rng.IntN(65000)), 3)
	}
	if n, err := p.mending(p.dir); err != nil || n != 40 {
		t.Fatalf("a scratch in every frame: %d mended, %v", n, err)
	}
	// The end is cut off: index, superblock and the parity itself.
	if err := errors.Join(os.WriteFile(name, whole, 0o600), os.Truncate(name, l.at[40]+100)); err != nil {
		t.Fatal(err)
	}
	if n, err := p.mending(p.dir); err != nil || n < 5 {
		t.Fatalf("cut short: %d mended, %v", n, err)
	}
}

func TestSpareVolumesStandForLostOnes(t *testing.T) {
	sizes := []int{300 << 10, 290 << 10, 280 << 10, 500 << 10, 10, 0, 3 << 20, 77}
	p := writeWith(t, WriteOptions{VolumeSize: 800 << 10, Spare: 2, Parity: 50}, sizes...)
	all := len(p.header.Volumes)
	if all < 6 || p.header.Spare != 2 {
		t.Fatalf("%d volumes, %d spare", all, p.header.Spare)
	}
	for _, v := range p.header.Volumes {
		if v.Size > 800<<10 {
			t.Errorf("volume %d has %d bytes", v.Number, v.Size)
		}
	}
	content, restore := files(t, p.dir)
	for a := 1; a <= all; a++ {
		for b := a; b <= all; b++ {
			for _, n := range []int{a, b} {
				_ = os.Remove(filepath.Join(p.dir, VolumeName(n)))
			}
			if _, err := p.mending(p.dir); err != nil {
				t.Fatalf("volumes %d and %d lost: %v", a, b, err)
			}
			to := t.TempDir()
			repaired(t, p, to, content, a, b)
			restore()
		}
	}
	for _, n := range []int{1, 2, 4} {
		_ = os.Remove(filepath.Join(p.dir, VolumeName(n)))
	}
	if _, err := p.mending(p.dir); !fail.IsRefused(err) || !strings.Contains(err.Error(), "missing") {
		t.Errorf("three volumes lost: %v", err)
	}
	restore()
	// One lost, and in every other one a frame that its own parity gives back.
	_ = os.Remove(filepath.Join(p.dir, VolumeName(2)))
	for n := 3; n <= all-2; n++ {
		damage(t, filepath.Join(p.dir, VolumeName(n)), frontAlign+100, 5000)
	}
	if _, err := p.mending(p.dir); err != nil {
		t.Errorf("one lost, others scratched: %v", err)
	}
}

func repaired(t *testing.T, p parcel, to string, want map[string][]byte, numbers ...int) {
	t.Helper()
	m, err := OpenMedia(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = m.Close() }()
	dir, err := os.OpenRoot(to)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = dir.Close() }()
	if err := m.Repair(p.header, dir, slices.Compact(slices.Clone(numbers))); err != nil {
		t.Fatalf("volumes %v: %v", numbers, err)
	}
	for _, n := range numbers {
		got, err := os.ReadFile(filepath.Join(to, VolumeName(n)))
		if err != nil || !bytes.Equal(got, want[VolumeName(n)]) {
			t.Fatalf("volume %d was written otherwise than it was: %v", n, err)
		}
	}
}

// TestSuperblocksAndIndexesAreThereTwice damages one copy after the other, and then
// both with a header of a frame.
func TestSuperblocksAndIndexesAreThereTwice(t *testing.T) {
	p := write(t, 0, manyFrames()[:5]...)
	l := p.layoutOf(t, 1)
	if l.middle == 0 {
		t.Fatal("no superblock in the middle")
	}
	name := filepath.Join(p.dir, VolumeName(1))
	_, restore := files(t, p.dir)
	middle := l.at[l.middle] - superblockSize
	entry2 := func(index int64) int64 { return index + indexHeaderSize + indexEntrySize + 4 }
	for what, at := range map[string][]int64{
		"the first superblock": {3}, "the front index": {entry2(superblockSize)}, "the middle superblock": {middle}, "the last index": {entry2(l.end())},
		"both indexes": {entry2(superblockSize), entry2(l.end())}, "an index and a frame's header": {entry2(l.end()), l.at[1] + 41},
		"the last superblock": {l.size() - 9}, "the padding": {frontAlign - 7},
	} {
		for _, a := range at {
			damage(t, name, a, 4)
		}
		if n, err := p.mending(p.dir); err != nil || n < len(at) {
			t.Errorf("%s: %d mended, %v", what, n, err)
		}
		if _, err := p.read(p.dir); !fail.IsRefused(err) {
			t.Errorf("%s: not noticed: %v", what, err)
		}
		restore()
	}
	for _, a := range []int64{entry2(superblockSize), entry2(l.end()), l.at[1] + 41} {
		damage(t, name, a, 4)
	}
	if _, err := p.mending(p.dir); !fail.IsRefused(err) {
		t.Errorf("all copies of one frame's sum are gone: %v", err)
	}
}

// mutation does one thing to the media that nobody should.
func mutation(t *testing.T, rng *rand.Rand, dir, other string) string {
	t.Helper()
	names, _ := filepath.Glob(filepath.Join(dir, "volume-*"))
	name := names[rng.IntN(len(names))]
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	span := func() (int, int) {
		n := 1 + rng.IntN(1<<rng.IntN(14))
		return rng.IntN(max(1, len(b)-n)), n
	}
	what := ""
	switch at, n := span(); rng.IntN(7) {
	case 0:
		what = fmt.Sprintf("bit at %d", at)
		b[at] ^= 1 << rng.IntN(8)
	case 1:
		what = fmt.Sprintf("cut at %d", at)
		b = b[:at]
	case 2: // two runs change places
		to, _ := span()
		what = fmt.Sprintf("%d bytes at %d and %d swapped", n, at, to)
		x, y := bytes.Clone(b[at:at+n]), bytes.Clone(b[to:min(len(b), to+n)])
		copy(b[to:], x)
		copy(b[at:], y)
	case 3:
		what = fmt.Sprintf("%d bytes at %d twice", n, at)
		b = slices.Insert(b, at, bytes.Clone(b[at:at+n])...)
	case 4:
		what = fmt.Sprintf("%d bytes at %d gone", n, at)
		b = slices.Delete(b, at, at+n)
	case 5: // the same place of another shipment, or of another volume
		from, err := os.ReadFile(filepath.Join(other, filepath.Base(names[rng.IntN(len(names))])))
		if err != nil {
			from = bytes.Repeat([]byte{7}, len(b))
		}
		what = fmt.Sprintf("%d bytes at %d of another shipment", n, at)
		copy(b[at:], from[min(at, len(from)):min(at+n, len(from))])
	case 6:
		to := names[rng.IntN(len(names))]
		what = "a volume in place of " + filepath.Base(to)
		name = to
	}
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return filepath.Base(name) + ": " + what
}

// TestRandomMutations does 1,200 things to four shipments, with and without
// parity, and 10,000 when it is asked to soak: each is refused or mended, none is accepted wrong, and every refusal
// names volume and frame.
func TestRandomMutations(t *testing.T) {
	sizes := []int{70 << 10, 100, 50 << 10, 0, 33 << 10, 90 << 10}
	rounds, mended, refused := 300, 0, 0
	if os.Getenv("ENISLE_SOAK") != "" {
		rounds = 2500
	}
	for i, opt := range []WriteOptions{{}, {Parity: 250}, {Spare: 1}, {Parity: 250, Spare: 2, Compress: true}} {
		opt.VolumeSize = 150 << 10
		p, other := writeWith(t, opt, sizes...), writeWith(t, opt, sizes...)
		content, restore := files(t, p.dir)
		rng := rand.New(rand.NewPCG(uint64(i), 1))
		for range rounds {
			what := mutation(t, rng, p.dir, other.dir)
			if rng.IntN(4) == 0 {
				what += ", " + mutation(t, rng, p.dir, other.dir)
			}
			n, err := p.mending(p.dir)
			same := true
			for name, b := range content {
				now, _ := os.ReadFile(filepath.Join(p.dir, name))
				same = same && bytes.Equal(now, b)
			}
			switch {
			case err == nil && (n > 0 || same):
				mended++
			case fail.IsRefused(err) && strings.Contains(err.Error(), "volume ") && (strings.Contains(err.Error(), "frame ") || strings.Contains(err.Error(), "missing")):
				refused++
			default:
				t.Fatalf("%+v: %s: %d mended, %v", opt, what, n, err)
			}
			restore()
		}
	}
	t.Logf("%d mended, %d refused", mended, refused)
	if mended < rounds/2 || refused < rounds/2 {
		t.Error("one of the two hardly happened: the test tests nothing")
	}
}

func TestFreeSpaceOfTheLastVolumeIsParity(t *testing.T) {
	for _, fill := range []bool{false, true} {
		p := writeWith(t, WriteOptions{VolumeSize: 64 << 20, Parity: 20, Fill: fill}, manyFrames()[:10]...)
		v := p.header.Volumes[0]
		if len(p.header.Volumes) != 1 || v.Size > 64<<20 || (v.Parity > 3) != fill {
			t.Errorf("fill %v: %d volumes, %d frames of parity, %d bytes", fill, len(p.header.Volumes), v.Parity, v.Size)
		}
		if _, err := p.read(p.dir); err != nil {
			t.Error(err)
		}
	}
}

// weights are bytes as those of bf16 weights.
func weights(n int) []byte {
	rng := rand.New(rand.NewPCG(1, 1))
	b := make([]byte, n)
	for i := 0; i+1 < n; i += 2 {
		if i >= 1<<20 {
			b[i], b[i+1] = b[i-1<<20], b[i+1-1<<20]
			continue
		}
		u := math.Float32bits(float32(rng.NormFloat64()*0.02)) >> 16
		b[i], b[i+1] = byte(u), byte(u>>8)
	}
	return b
}

func TestCompressedFramesFillVolumes(t *testing.T) {
	var blobs []Blob
	held := map[artifact.Digest][]byte{}
	for i := range 45 {
		b := weights(8 << 20)
		b[0] = byte(i)
		blobs = append(blobs, Blob{artifact.Sum(b), int64(len(b))})
		held[artifact.Sum(b)] = b
	}
	plain := writeBlobs(t, WriteOptions{VolumeSize: 90 << 20}, blobs, held)
	p := writeBlobs(t, WriteOptions{VolumeSize: 90 << 20, Compress: true, Parity: 30}, blobs, held)
	if a, b := len(plain.header.Volumes), len(p.header.Volumes); b >= a {
		t.Errorf("%d volumes compressed, %d without", b, a)
	}
	for _, v := range p.header.Volumes {
		if v.Size > 90<<20 {
			t.Errorf("volume %d has %d bytes", v.Number, v.Size)
		}
	}
	if _, err := p.mending(p.dir); err != nil {
		t.Fatal(err)
	}
}

// TestCopies leaves out what the importer holds.
func TestCopies(t *testing.T) {
	blobs, held := content(t, 5<<20, 9<<20)
	base := bytes.Repeat([]byte("what is held"), 1<<20)
	at := artifact.Sum(base)
	mine := append(append(bytes.Clone(held[blobs[1].Digest][:1<<20]), base[1000:8<<20]...), "and the end"...)
	blobs = append(blobs, Blob{artifact.Sum(mine), int64(len(mine))})
	held[artifact.Sum(mine)] = mine
	opt := WriteOptions{Copies: func(b Blob) []Copy {
		if b.Digest != artifact.Sum(mine) {
			return nil
		}
		return []Copy{{1 << 20, 8<<20 - 1000, Source{at, 1000}}}
	}}
	p := writeBlobs(t, opt, blobs, held)
	if n := p.header.Volumes[0].Size; n > 16<<20 {
		t.Errorf("%d bytes written: what is held was carried", n)
	}
	p.base = base
	if _, err := p.mending(p.dir); err != nil {
		t.Fatal(err)
	}
}

// TestWritingWithParityIsTakenUp cuts a volume at any byte.
func TestWritingWithParityIsTakenUp(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	sizes := []int{200 << 10, 90 << 10, 10, 150 << 10, 40 << 10, 64 << 10}
	for i := range 30 {
		opt := WriteOptions{VolumeSize: 300 << 10, Parity: 250, Spare: i % 2, Compress: i%3 == 0}
		p := writeWith(t, opt, sizes...)
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
		blobs, held := content(t, sizes...)
		again := p.again(t, opt, blobs, held)
		if n, err := again.mending(p.dir); err != nil || n != 0 {
			t.Fatalf("cut in volume %d: %d mended, %v", cut, n, err)
		}
	}
}
