package shipment

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"sort"

	"filippo.io/age"

	"enisle/internal/carry/parity"
)

// minVolume is the smallest volume that is written, in bytes: room for one
// frame for a few recipients.
const minVolume = 64 << 10

// minFrame is the least plain text worth beginning a frame for, in bytes.
const minFrame = 4 << 10

// DefaultVolumeSize fits a file on FAT32, whose limit is 4 GiB - 1.
const DefaultVolumeSize = 4_000_000_000

// span is a run of bytes of one blob in a frame.
type span struct {
	blob   int // index into the list of blobs
	offset int64
	length int
	from   *Source // where the importer holds it, nil if it is carried
}

// plain is how many bytes of plain text it takes at most.
func (s span) plain() int {
	if s.from != nil {
		return chunkHeaderSize + sourceSize
	}
	return chunkHeaderSize + s.length
}

// frame is the plan of one data frame: where it stands and what it holds.
type frame struct {
	volume, number int
	spans          []span
	plain          int   // bytes of plain text, before compression
	front          int64 // of its volume
	middle         bool  // the middle superblock stands before it
	parity         int   // parity frames behind it
	spare          int   // parity frames a full group of its volume has
	bound          int64 // bytes that it and its parity add to the volume, at most
}

// redundancy is how much parity a volume has.
type redundancy struct{ permille int }

// group is how many data frames have parity together.
func (r redundancy) group() int {
	return min(parity.Data, parity.Spare*1000/max(1, r.permille))
}

// of returns the number of parity frames of n data frames.
func (r redundancy) of(n int) int { return (n*r.permille + 999) / 1000 }

// fill is how far a volume is filled. All is an upper bound where frames are
// compressed.
type fill struct {
	front   int64
	at      int64 // bytes of front matter, frames and copies
	frames  int
	group   int // data frames of the open group
	longest int // sealed bytes of the longest of them
	half    int64
	midway  bool // the middle copy is written
	plain   int  // bytes of plain text of the open frame
	red     redundancy
}

// planner cuts blobs into frames and volumes. The cut depends on nothing but
// the blobs, the volume size, the size of an age header and how well older
// frames were compressed, so that a run that was interrupted can be taken up
// again at any frame.
type planner struct {
	size   int64 // bytes of a volume, at most
	header int   // bytes that age puts before the first chunk, constant for a set of recipients
	base   redundancy
	fill   bool // give what is free in the last volume to parity
	copies func(Blob) []Copy
	// saved returns by how much the nth frame, from 0, stayed below its bound; nil
	// if frames are not compressed.
	saved func(n int) (int64, error)

	volume  int
	left    int64 // plain bytes that are not in frames yet
	now     fill
	spans   []span
	pending []int // volumes of the frames whose true size is not taken into account yet
	settled int
	emit    func(frame) error
}

// lag is after how many frames their true size is taken into account: more than
// there are on the way at any time.
const lag = 16

// ageHeader measures what age adds in front of the payload for recipients.
func ageHeader(to []age.Recipient) (int, error) {
	var b bytes.Buffer
	w, err := age.Encrypt(&b, to...)
	if err != nil {
		return 0, fmt.Errorf("recipients: %w", err)
	}
	if err := w.Close(); err != nil {
		return 0, fmt.Errorf("recipients: %w", err)
	}
	return b.Len() - ageTag, nil // an empty payload is one empty chunk
}

// sealedSize is the exact number of bytes that n bytes become inside age.
func sealedSize(header, n int) int64 {
	chunks := max(1, (n+ageChunk-1)/ageChunk)
	return int64(header + n + chunks*ageTag)
}

// shut returns f with the open frame, of a size of plain text, closed, and the
// parity that then stands behind it.
func (p *planner) shut(f fill, plain int) (fill, int) {
	sealed := int(sealedSize(p.header, plain))
	if f.frames > 0 && !f.midway && f.at >= f.half {
		f.at, f.midway = f.at+superblockSize, true
	}
	f.at += frameHeaderSize + int64(sealed)
	f.frames, f.group, f.longest, f.plain = f.frames+1, f.group+1, max(f.longest, sealed), 0
	m := 0
	if f.red.permille > 0 && f.group == f.red.group() {
		f, m = p.protect(f)
	}
	return f, m
}

// protect returns f with the parity of the open group behind it.
func (p *planner) protect(f fill) (fill, int) {
	m := 0
	if f.group > 0 {
		m = f.red.of(f.group)
		f.at += int64(m) * int64(frameHeaderSize+parity.PayloadSize(f.group, f.longest))
		f.frames += m
	}
	f.group, f.longest = 0, 0
	return f, m
}

// within reports whether the volume can be closed behind one more frame.
func (p *planner) within(f fill, plain int) bool {
	f, _ = p.shut(f, plain)
	f, _ = p.protect(f)
	return superblockSize+indexSize(f.frames) <= f.front && f.at+indexSize(f.frames)+superblockSize <= p.size
}

// room returns how many bytes of plain text the open frame may hold; at most
// framePayload, and -1 if not even an empty one has room.
func (p *planner) room(f fill) int {
	if p.within(f, framePayload) {
		return framePayload
	}
	return sort.Search(framePayload, func(n int) bool { return !p.within(f, n) }) - 1
}

// fits reports whether n bytes of a blob have room behind f in the same volume.
func (p *planner) fits(f fill, n int64) bool {
	for {
		room := int64(p.room(f) - f.plain - chunkHeaderSize)
		if room < min(1, n) {
			if f.plain == 0 {
				return false
			}
			if f, _ = p.shut(f, f.plain); p.room(f) < minFrame {
				return false
			}
			continue
		}
		k := min(room, n)
		f.plain += chunkHeaderSize + int(k)
		if n -= k; n == 0 {
			return true
		}
	}
}

// run plans all blobs and calls emit for each frame in order.
func (p *planner) run(blobs []Blob) error {
	for _, b := range blobs {
		p.left += p.need(b)
	}
	p.begin()
	if p.room(p.now) < minFrame {
		return errors.New("the volume size leaves no room for so many recipients, or so much parity")
	}
	for i, b := range blobs {
		if err := p.place(i, b); err != nil {
			return err
		}
	}
	return p.close()
}

// need is how much plain text a blob takes, about.
func (p *planner) need(b Blob) int64 {
	n := b.Size + chunkHeaderSize
	if p.copies != nil {
		for _, c := range p.copies(b) {
			n += 2*chunkHeaderSize + sourceSize - c.Length
		}
	}
	return n
}

func (p *planner) begin() {
	p.volume++
	p.now = p.empty(p.base)
	if !p.fill || p.base.permille == 0 {
		return
	}
	// As much more as leaves room for all that is still to come.
	for pm := 500; pm > p.base.permille; pm = pm * 9 / 10 {
		if f := p.empty(redundancy{pm}); p.fits(f, p.left+p.left>>10) {
			p.now = f
			return
		}
	}
}

// empty is a volume with nothing in it yet but front matter, which has room for
// twice as many frames as there can be of full ones, and more.
func (p *planner) empty(r redundancy) fill {
	estimate := min(p.size, p.left+p.left*int64(r.permille+20)/1000)
	front := superblockSize + indexSize(int(estimate>>19)+64)
	front = (front + frontAlign - 1) / frontAlign * frontAlign
	return fill{front: front, at: front, half: estimate / 2, red: r}
}

func (p *planner) place(i int, b Blob) error {
	// A blob smaller than a volume is not cut over two of them.
	if need := p.need(b); (p.now.frames > 0 || p.now.plain > 0) && !p.fits(p.now, need) && p.fits(p.empty(p.base), need) {
		if err := p.close(); err != nil {
			return err
		}
		p.begin()
	}
	off := int64(0)
	if p.copies != nil {
		for _, c := range p.copies(b) {
			if err := p.literal(i, b, off, c.Offset); err != nil {
				return err
			}
			if err := p.reference(i, c); err != nil {
				return err
			}
			off = c.Offset + c.Length
		}
	}
	if off == b.Size && off > 0 {
		return nil
	}
	return p.literal(i, b, off, b.Size)
}

// literal places the bytes of a blob from off to end.
func (p *planner) literal(i int, b Blob, off, end int64) error {
	for off < end || b.Size == 0 {
		room := int64(p.room(p.now) - p.now.plain - chunkHeaderSize)
		if room < min(1, end-off) {
			if err := p.turn(); err != nil {
				return err
			}
			continue
		}
		n := min(room, end-off)
		p.put(span{blob: i, offset: off, length: int(n)})
		if off += n; off == end {
			return nil
		}
	}
	return nil
}

// reference places a copy, which is cut only at what one chunk can state.
func (p *planner) reference(i int, c Copy) error {
	const most = 1 << 30
	for done := int64(0); done < c.Length; {
		if p.room(p.now)-p.now.plain < chunkHeaderSize+sourceSize {
			if err := p.turn(); err != nil {
				return err
			}
			continue
		}
		n := min(most, c.Length-done)
		p.put(span{blob: i, offset: c.Offset + done, length: int(n), from: &Source{c.From.Digest, c.From.Offset + done}})
		done += n
	}
	return nil
}

func (p *planner) put(s span) {
	p.spans = append(p.spans, s)
	p.now.plain += s.plain()
}

// turn closes the frame that is full, and the volume when no frame of use
// would fit behind it.
func (p *planner) turn() error {
	if err := p.flush(false); err != nil {
		return err
	}
	if p.room(p.now) < minFrame {
		if err := p.close(); err != nil {
			return err
		}
		p.begin()
	}
	return nil
}

// close hands on what is open of the volume.
func (p *planner) close() error { return p.flush(true) }

// flush hands on the frame being filled, if there is one; the last of a volume
// with the parity of its group. A volume whose last frame is gone already has
// had its parity announced by it.
func (p *planner) flush(last bool) error {
	if p.now.plain == 0 {
		return nil
	}
	f := frame{
		volume: p.volume, number: p.now.frames + 1, spans: p.spans, plain: p.now.plain,
		front: p.now.front, spare: p.now.red.of(p.now.red.group()),
	}
	before := p.now
	p.left -= int64(p.now.plain)
	p.now, f.parity = p.shut(p.now, p.now.plain)
	f.middle = p.now.midway && !before.midway
	if (last || p.room(p.now) < minFrame) && f.parity == 0 && p.now.red.permille > 0 {
		p.now, f.parity = p.protect(p.now)
	}
	f.bound = p.now.at - before.at
	p.spans = nil
	if err := p.settle(); err != nil {
		return err
	}
	p.pending = append(p.pending, p.volume)
	return p.emit(f)
}

// settle takes into account by how much the frames of this volume that were
// handed on long enough ago stayed below their bound.
func (p *planner) settle() error {
	if p.saved == nil || len(p.pending) < lag {
		return nil
	}
	n, err := p.saved(p.settled)
	if err == nil && p.pending[0] == p.volume {
		p.now.at -= n
	}
	p.pending, p.settled = p.pending[1:], p.settled+1
	return err
}

// seal encrypts plain for the recipients into dst and returns the result.
func seal(dst *bytes.Buffer, to []age.Recipient, plain []byte) error {
	w, err := age.Encrypt(dst, to...)
	if err != nil {
		return err
	}
	if _, err := w.Write(plain); err != nil {
		return err
	}
	return w.Close()
}

// open decrypts a sealed frame into dst, at most framePayload bytes.
func open(dst *bytes.Buffer, ids []age.Identity, sealed []byte) error {
	r, err := age.Decrypt(bytes.NewReader(sealed), ids...)
	if err != nil {
		return err
	}
	n, err := io.Copy(dst, io.LimitReader(r, framePayload+1))
	if err == nil && n > framePayload {
		err = fmt.Errorf("it opens to more than %d bytes", framePayload)
	}
	return err
}
