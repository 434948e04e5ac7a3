package shipment

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"sort"
	"sync"

	"enisle/internal/carry/parity"
	"enisle/internal/disk"
	"enisle/internal/fail"
)

// Damage is one thing on the media that is not what was signed.
type Damage struct {
	Volume int   `json:"volume"`
	Frame  int   `json:"frame"`  // 0 is what stands before, between and behind the frames
	Mended bool  `json:"mended"` // parity, or another copy, gave back what was signed
	Err    error `json:"-"`      // what is wrong, as a refusal
}

// MarshalJSON adds what is wrong as text.
func (d Damage) MarshalJSON() ([]byte, error) {
	type plain Damage
	return json.Marshal(struct {
		plain
		Why string `json:"why"`
	}{plain(d), d.Err.Error()})
}

// set is the volumes of a shipment while they are read.
type set struct {
	media  *Media
	header Header
	fresh  bool // read past the page cache

	mu      sync.Mutex
	volumes map[int]*volume

	across sync.Mutex // one window is rebuilt at a time
}

func (m *Media) set(h Header, fresh bool) *set {
	return &set{media: m, header: h, fresh: fresh, volumes: map[int]*volume{}}
}

func (s *set) close() (err error) {
	for _, v := range s.volumes {
		if v.file != nil {
			err = errors.Join(err, v.file.Close())
		}
	}
	return err
}

// volume is one volume, open. What it gives is what was signed, or an error.
type volume struct {
	Volume
	set    *set
	place  place
	once   sync.Once
	err    error
	file   *os.File    // nil if the volume is missing
	src    io.ReaderAt // file, or what the spare volumes give back
	layout *layout
	damage []Damage // of what is not frames

	// Under set.across: the frame that a window was taken from last.
	cached int
	cache  []byte
}

// volume opens a volume, once.
func (s *set) volume(n int) (*volume, error) {
	s.mu.Lock()
	v := s.volumes[n]
	if v == nil {
		v = &volume{Volume: s.header.Volumes[n-1], set: s, place: place{s.header.SetBytes(), n}}
		s.volumes[n] = v
	}
	s.mu.Unlock()
	v.once.Do(func() { v.err = v.open() })
	return v, v.err
}

// missing says that a volume is not there, or lets the spare ones stand for it.
func (v *volume) missing() error {
	h := v.set.header
	missing := fail.Refuse("bring the medium that holds it", fmt.Errorf("volume %d of %d is missing", v.Number, len(h.Volumes)))
	if h.Spare == 0 || v.giveBack() != nil {
		return missing // too much else is lost
	}
	v.damage = []Damage{{Volume: v.Number, Mended: true, Err: missing}}
	return nil
}

func (v *volume) open() error {
	d := v.set.media.with(v.Number)
	if d == nil {
		return v.missing()
	}
	f, st, err := openRegular(d.root, VolumeName(v.Number))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return v.missing() // it was there when the medium was listed
	case err != nil:
		return readError(v.Number, 1, err)
	}
	v.file, v.src = f, f
	if h := v.set.header; st.Size() > v.Size || st.Size() < v.Size && !h.mendable(v.Volume) {
		return d.wrongSize(h, v.Volume, st.Size())
	}
	if v.set.fresh {
		if err := disk.Forget(f); err != nil {
			return fmt.Errorf("volume %d: %w", v.Number, err)
		}
	}
	return v.readLayout()
}

// giveBack finds the layout of a volume that is missing.
func (v *volume) giveBack() error {
	data := v.set.header.Data()
	if v.Number <= len(data) {
		v.src = &rebuilt{set: v.set, volume: v.Number, window: -1}
		return v.readLayout()
	}
	v.src = bytes.NewReader(nil)
	s := &spares{data: data}
	s.measure()
	l := &layout{front: spareFront(s.windows())}
	for n := range s.windows() {
		b, err := v.set.rebuild(v.Number, n)
		if err != nil {
			return err
		}
		if n > 0 && n == s.windows()/2 {
			l.middle = int(n)
		}
		b = b[:s.width(n)]
		l.add(entry{kindSpare, uint32(len(b)), sha256.Sum256(b)})
	}
	if err := v.place.check(v.Volume, l); err != nil {
		return damaged(v.Number, 0, err)
	}
	v.layout = l
	return nil
}

// readLayout finds the index that was signed: at the end, at the start, or put
// together from both and from the headers of the frames themselves.
func (v *volume) readLayout() error {
	size := indexSize(v.Frames)
	tail, tailErr := v.bytes(v.Size-size-superblockSize, size)
	l, err := v.place.parseIndex(v.Volume, tail)
	if err != nil {
		front, _ := v.bytes(superblockSize, size)
		var other error
		if l, other = v.place.parseIndex(v.Volume, front); other != nil {
			if l = v.salvage(front, tail); l == nil {
				if tailErr != nil && !errors.Is(tailErr, io.EOF) {
					return readError(v.Number, v.Frames, tailErr)
				}
				return damaged(v.Number, v.Frames, fmt.Errorf("index after it: %w", err))
			}
		}
	}
	for i, e := range l.entries {
		if (e.kind == kindSpare) != (v.Number > len(v.set.header.Data())) {
			return damaged(v.Number, i+1, errors.New("a frame of this kind does not belong here"))
		}
	}
	v.layout = l
	return v.checkCopies()
}

// checkCopies compares everything but the frames with what it must be.
func (v *volume) checkCopies() error {
	l := v.layout
	type part struct {
		at    int64
		want  []byte
		what  string
		frame int
	}
	parts := []part{{0, v.place.front(l), "the superblock and index before it", 1}, {l.end(), v.place.tail(l), "the index and superblock after it", v.Frames}}
	if l.middle > 0 {
		b, at := v.place.middle(l)
		parts = append(parts, part{at, b, "the superblock after it", l.middle})
	}
	for _, p := range parts {
		got, err := v.bytes(p.at, int64(len(p.want)))
		if err == nil && bytes.Equal(got, p.want) {
			continue
		}
		if err == nil || errors.Is(err, io.EOF) {
			err = errors.New("not what was signed")
		}
		v.damage = append(v.damage, Damage{Volume: v.Number, Mended: true, Err: damaged(v.Number, p.frame, fmt.Errorf("%s: %w", p.what, err))})
	}
	return nil
}

// bytes reads n bytes at an offset; fewer, and an error, if there are not as many.
func (v *volume) bytes(at, n int64) ([]byte, error) {
	if at < 0 || n > maxFront {
		return nil, io.ErrUnexpectedEOF
	}
	b := make([]byte, n)
	m, err := v.src.ReadAt(b, at)
	if m == len(b) {
		err = nil
	}
	return b[:m], err
}

// salvage walks the frames by their own headers; where one is not readable, what
// either index says of it counts. nil: what it found is not what was signed.
func (v *volume) salvage(front, tail []byte) *layout {
	var fronts []int64
	for _, at := range []int64{0, v.Size - superblockSize} {
		if b, err := v.bytes(at, superblockSize); err == nil {
			if n, ok := v.place.parseSuperblock(b); ok {
				fronts = append(fronts, n)
			}
		}
	}
	for _, idx := range [][]byte{front, tail} {
		if len(idx) >= indexHeaderSize {
			fronts = append(fronts, int64(uint32(idx[32])<<24|uint32(idx[33])<<16|uint32(idx[34])<<8|uint32(idx[35])))
		}
	}
	slices.Sort(fronts)
	for _, begin := range slices.Compact(fronts) {
		for _, order := range [][][]byte{{front, tail}, {tail, front}} {
			if begin < frontAlign || begin > maxFront {
				continue
			}
			l := &layout{front: begin}
			if v.walk(l, order) && v.place.check(v.Volume, l) == nil {
				return l
			}
		}
	}
	return nil
}

func (v *volume) walk(l *layout, indexes [][]byte) bool {
	for n := range v.Frames {
		at := l.end()
		b, _ := v.bytes(at, superblockSize)
		if n > 0 && l.middle == 0 && bytes.Equal(b, v.place.superblock(l.front, copyMiddle, at, 0)) {
			l.middle, at = n, at+superblockSize
		}
		head, _ := v.bytes(at, frameHeaderSize)
		e, err := v.place.parseFrameHeader(head, n+1)
		for _, idx := range indexes {
			if i := indexHeaderSize + n*indexEntrySize; err != nil && len(idx) >= i+indexEntrySize {
				e = parseEntry(idx[i:])
				err = e.check()
			}
		}
		if err != nil {
			return false
		}
		l.add(e)
	}
	return true
}

func (e entry) holds(b []byte) bool {
	return len(b) == int(e.length) && sha256.Sum256(b) == e.sum
}

// mend gives back the content of frame i, of which got was read.
func (v *volume) mend(i int, got []byte) ([]byte, error) {
	b, err := v.mendWithin(i, got)
	if err == nil {
		return b, nil
	}
	e := v.layout.entries[i-1]
	b = make([]byte, e.length)
	switch {
	case v.set.header.Spare == 0 || v.file == nil && e.kind != kindSpare:
		return nil, err
	case e.kind == kindSpare:
		w, err := v.set.rebuild(v.Number, int64(i-1))
		if err != nil {
			return nil, err
		}
		if copy(b, w); !e.holds(b) {
			return nil, parity.ErrLost
		}
		return b, nil
	}
	if _, err := (&rebuilt{set: v.set, volume: v.Number, window: -1}).ReadAt(b, v.layout.at[i-1]+frameHeaderSize); err != nil {
		return nil, err
	}
	if !e.holds(b) {
		return nil, parity.ErrLost
	}
	return b, nil
}

// group returns the frames, from and to, not counting to, that have parity
// together with frame i, and the number of parity frames that stand at to.
func (v *volume) group(i int) (from, to, m int) {
	all := v.layout.entries
	for to = i - 1; to > 0 && all[to].kind == kindParity; to-- { // of a parity frame: its data
	}
	for to < len(all) && all[to].kind == kindData {
		to++
	}
	for from = to; from > 0 && all[from-1].kind == kindData; from-- { // nothing but count
	}
	for to+m < len(all) && all[to+m].kind == kindParity {
		m++
	}
	return from + 1, to + 1, m
}

// mendWithin is mend by the parity of the volume itself.
func (v *volume) mendWithin(i int, got []byte) ([]byte, error) {
	e := v.layout.entries[i-1]
	from, to, m := v.group(i)
	k := to - from
	if e.kind == kindSpare || m == 0 || m > parity.Spare || k < 1 || k > parity.Data {
		return nil, parity.ErrLost
	}
	if e.kind == kindParity {
		return v.remake(i, from, to)
	}
	longest := 0
	for n := from; n < to; n++ {
		longest = max(longest, int(v.layout.entries[n-1].length))
	}
	heads := map[int]parity.Head{}
	headSize := parity.HeadSize(k, longest)
	for j := range m {
		b, err := v.bytes(v.layout.at[to+j-1]+frameHeaderSize, int64(headSize))
		if err != nil {
			continue
		}
		if h, err := parity.ParseHead(b, k, int(v.layout.entries[to+j-1].length)); err == nil && h.Number == j {
			heads[j] = h
		}
	}
	b := make([]byte, e.length)
	copy(b, got)
	err := parity.Mend(b, i-from, k, heads, func(shard, c int, p []byte) (int, error) {
		n, skip := from+shard, 0
		if shard >= k {
			n, skip = to+shard-k, headSize
		}
		left := int(v.layout.entries[n-1].length) - skip - c*parity.Column
		p = p[:max(0, min(len(p), left))]
		_, err := io.ReadFull(io.NewSectionReader(v.src, v.layout.at[n-1]+frameHeaderSize+int64(skip+c*parity.Column), int64(len(p))), p)
		return len(p), err
	})
	if err == nil && !e.holds(b) {
		err = parity.ErrLost
	}
	return b, err
}

// remake makes parity frame i again from the data frames of its group.
func (v *volume) remake(i, from, to int) ([]byte, error) {
	longest := 0
	for n := from; n < to; n++ {
		longest = max(longest, int(v.layout.entries[n-1].length))
	}
	g, err := parity.NewGroup(i-to+1, longest)
	if err != nil {
		return nil, err
	}
	for n := from; n < to; n++ {
		b, err := v.content(n)
		if err == nil {
			err = g.Add(b)
		}
		if err != nil {
			return nil, err
		}
	}
	head, shard := g.Parity(i - to)
	b := append(head, shard...)
	if !v.layout.entries[i-1].holds(b) {
		return nil, parity.ErrLost
	}
	return b, nil
}

// content returns the content of frame i, mended by the volume's own parity if
// it must be.
func (v *volume) content(i int) ([]byte, error) {
	e := v.layout.entries[i-1]
	b, _ := v.bytes(v.layout.at[i-1]+frameHeaderSize, int64(e.length))
	if e.holds(b) {
		return b, nil
	}
	return v.mendWithin(i, b)
}

// signed fills p with the bytes of the volume from an offset, as they were
// signed; zeros behind its end. It is called under set.across.
func (v *volume) signed(p []byte, off int64) error {
	clear(p)
	l := v.layout
	put := func(b []byte, at int64) {
		if at < off {
			b, at = b[min(int64(len(b)), off-at):], off
		}
		if at-off < int64(len(p)) {
			copy(p[at-off:], b)
		}
	}
	end := off + int64(len(p))
	if off < l.front {
		put(v.place.front(l), 0)
	}
	if l.middle > 0 {
		put(v.place.middle(l))
	}
	if end > l.end() {
		put(v.place.tail(l), l.end())
	}
	first := max(0, sort.Search(len(l.at), func(i int) bool { return l.at[i] > off })-1)
	for i := first; i < len(l.at) && l.at[i] < end; i++ {
		put(v.place.frameHeader(i+1, l.entries[i]), l.at[i])
		if l.at[i]+l.entries[i].size() <= off {
			continue
		}
		if v.cached != i+1 {
			b, err := v.content(i + 1)
			if err != nil {
				return err
			}
			v.cached, v.cache = i+1, b
		}
		put(v.cache, l.at[i]+frameHeaderSize)
	}
	return nil
}

// spareWindow is how many bytes of every volume one frame of a spare volume
// stands for.
const spareWindow = 1 << 20

// rebuilt reads a volume that is missing, or parts of one that are damaged, by
// what the other volumes and the spare ones hold. Memory: one window, and one
// frame, of each of them.
type rebuilt struct {
	set    *set
	volume int

	mu     sync.Mutex
	window int64
	bytes  []byte
}

// ReadAt fills p; bytes behind the end of the volume are zeros.
func (r *rebuilt) ReadAt(p []byte, off int64) (n int, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for n < len(p) {
		w := (off + int64(n)) / spareWindow
		if w != r.window {
			b, err := r.set.rebuild(r.volume, w)
			if err != nil {
				return n, err
			}
			r.window, r.bytes = w, b
		}
		n += copy(p[n:], r.bytes[off+int64(n)-w*spareWindow:])
	}
	return n, nil
}

// rebuild gives back a window of a volume.
func (s *set) rebuild(want int, window int64) ([]byte, error) {
	s.across.Lock()
	defer s.across.Unlock()
	k := len(s.header.Data())
	shards := make([][]byte, len(s.header.Volumes))
	have := 0
	for i := range shards {
		// Data first; of the spare volumes only as many as are needed. The last
		// window may be shorter in them: the rest is zeros, as it is in all others.
		if i+1 == want || s.media.with(i+1) == nil || have == k {
			continue
		}
		b := make([]byte, spareWindow)
		if err := s.shard(i+1, window, b); err == nil {
			shards[i] = b
			have++
		}
	}
	code, err := parity.NewCode(s.header.Spare)
	if err != nil {
		return nil, err
	}
	return code.Rebuild(shards, k, want-1, spareWindow)
}

// shard fills p with what volume n adds to a window.
func (s *set) shard(n int, window int64, p []byte) error {
	v, err := s.volume(n)
	if err != nil {
		return err
	}
	if n <= len(s.header.Data()) {
		return v.signed(p, window*spareWindow)
	}
	if window >= int64(v.Frames) {
		return parity.ErrLost
	}
	b, err := v.content(int(window) + 1)
	copy(p, b)
	return err
}

// Repair writes the volumes that are damaged or missing, whole and as they were
// signed, into dir, beside header and bill, and returns their numbers. numbers
// are those to be written.
func (m *Media) Repair(h Header, dir *os.Root, numbers []int) (err error) {
	s := m.set(h, false)
	defer func() { err = errors.Join(err, s.close()) }()
	for _, n := range numbers {
		if err := s.repair(n, dir); err != nil {
			return fmt.Errorf("volume %d: %w", n, err)
		}
	}
	bill, err := m.readFile(BillName, maxBill)
	if err != nil {
		return err
	}
	env, err := m.Envelope()
	if err != nil {
		return err
	}
	return errors.Join(WriteFile(dir, BillName, bill), WriteFile(dir, HeaderName, env))
}

func (s *set) repair(n int, dir *os.Root) error {
	v, err := s.volume(n)
	if err != nil {
		return err
	}
	f, err := dir.OpenFile(VolumeName(n)+partialSuffix, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	a, err := disk.Append(f, 0)
	if err == nil {
		err = v.writeTo(a)
	}
	if err == nil {
		err = a.Finish(nil)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return publish(dir, VolumeName(n))
}

// writeTo writes the volume as it was signed.
func (v *volume) writeTo(w io.Writer) error {
	l := v.layout
	if _, err := w.Write(v.place.front(l)); err != nil {
		return err
	}
	for i, e := range l.entries {
		b, err := v.bytes(l.at[i]+frameHeaderSize, int64(e.length))
		if err != nil || !e.holds(b) {
			if b, err = v.mend(i+1, b); err != nil {
				return damaged(v.Number, i+1, err)
			}
		}
		pieces := [][]byte{v.place.frameHeader(i+1, e), b}
		if i+1 == l.middle {
			super, _ := v.place.middle(l)
			pieces = append(pieces, super)
		}
		for _, p := range pieces {
			if _, err := w.Write(p); err != nil {
				return err
			}
		}
	}
	_, err := w.Write(v.place.tail(l))
	return err
}
