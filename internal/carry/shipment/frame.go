package shipment

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"enisle/internal/artifact"
)

// The layout of a volume: superblock, index, padding; frames, with a copy of the
// superblock about the middle; index, superblock. All integers are big-endian.
// docs/spec/shipment.md §3.
const (
	superblockSize  = 64
	frameHeaderSize = 72
	indexHeaderSize = 64
	indexEntrySize  = 36
	frontAlign      = 4096 // the first frame stands at a multiple of it

	framePayload = 4 << 20     // bytes of plain text in a frame, at most
	maxSealed    = 16<<20 - 1  // bytes of a frame a reader accepts, after its header
	maxFrames    = 1 << 20     // frames of one volume a reader accepts: 4 TiB
	maxFront     = 64 + 36<<20 // bytes of front matter a reader accepts

	ageChunk = 64 << 10 // age, STREAM chunk size (C2SP age.md, "Payload")
	ageTag   = 16
)

const (
	magicVolume = "ENISLEV1"
	magicFrame  = "ENISLEF1"
	magicIndex  = "ENISLEX1"
)

// What a frame holds.
const (
	kindData   = 0 // an age file
	kindParity = 1 // parity of the data frames before it
	kindSpare  = 2 // parity of the same window of all data volumes
)

// The copies of a superblock.
const (
	copyStart = iota
	copyMiddle
	copyEnd
)

// place says where a structure belongs: every structure repeats it, so that a
// frame of another set, volume or position is never taken for this one.
type place struct {
	set    [16]byte
	volume int
}

func (p place) put(b []byte, magic string, n uint32) {
	copy(b, magic)
	copy(b[8:], p.set[:])
	binary.BigEndian.PutUint32(b[24:], uint32(p.volume))
	binary.BigEndian.PutUint32(b[28:], n)
}

// superblock returns a copy that stands at an offset. frames is stated at the end
// only, where it is known.
func (p place) superblock(front int64, which int, at int64, frames int) []byte {
	b := make([]byte, superblockSize)
	p.put(b, magicVolume, 1)
	binary.BigEndian.PutUint32(b[32:], uint32(front))
	binary.BigEndian.PutUint32(b[36:], uint32(which))
	binary.BigEndian.PutUint64(b[40:], uint64(at))
	binary.BigEndian.PutUint32(b[48:], uint32(frames))
	return b
}

// parseSuperblock returns the size of the front matter that a superblock of this
// place states, in whichever copy.
func (p place) parseSuperblock(b []byte) (front int64, ok bool) {
	if len(b) != superblockSize || string(b[:8]) != magicVolume {
		return 0, false
	}
	front = int64(binary.BigEndian.Uint32(b[32:]))
	which, at, frames := binary.BigEndian.Uint32(b[36:]), binary.BigEndian.Uint64(b[40:]), binary.BigEndian.Uint32(b[48:])
	ok = front%frontAlign == 0 && front >= frontAlign && front <= maxFront &&
		bytes.Equal(b, p.superblock(front, int(which), int64(at), int(frames)))
	return front, ok
}

// entry is what the index holds of one frame; with its place it determines the
// whole frame header.
type entry struct {
	kind   byte
	length uint32   // bytes of the frame after its header
	sum    [32]byte // SHA-256 of them
}

func (e entry) size() int64 { return frameHeaderSize + int64(e.length) }

func (p place) frameHeader(frame int, e entry) []byte {
	b := make([]byte, frameHeaderSize)
	p.put(b, magicFrame, uint32(frame))
	binary.BigEndian.PutUint32(b[32:], e.length)
	b[36] = e.kind
	copy(b[40:], e.sum[:])
	return b
}

// parseFrameHeader reads a frame header found at the place and number given.
func (p place) parseFrameHeader(b []byte, frame int) (entry, error) {
	var e entry
	if len(b) != frameHeaderSize || string(b[:8]) != magicFrame {
		return e, errors.New("no frame begins here")
	}
	e.length, e.kind = binary.BigEndian.Uint32(b[32:]), b[36]
	copy(e.sum[:], b[40:])
	if !bytes.Equal(p.frameHeader(frame, e), b) {
		return e, errors.New("the frame belongs elsewhere")
	}
	return e, e.check()
}

func (e entry) check() error {
	if e.length == 0 || e.length > maxSealed || e.kind > kindSpare {
		return fmt.Errorf("the frame claims %d bytes of kind %d", e.length, e.kind)
	}
	return nil
}

// layout is all of a volume but the content of its frames.
type layout struct {
	front   int64 // bytes before the first frame
	middle  int   // frames before the middle copy of the superblock; 0: there is none
	entries []entry
	at      []int64 // where each frame begins
}

// add puts a frame behind the others. Where it begins is the end of what was
// there.
func (l *layout) add(e entry) {
	l.at = append(l.at, l.end())
	l.entries = append(l.entries, e)
}

// end is where the next frame begins.
func (l *layout) end() int64 {
	n := len(l.entries)
	if n == 0 {
		return l.front
	}
	end := l.at[n-1] + l.entries[n-1].size()
	if n == l.middle {
		end += superblockSize
	}
	return end
}

func (l *layout) size() int64 { return l.end() + indexSize(len(l.entries)) + superblockSize }

func indexSize(frames int) int64 { return indexHeaderSize + int64(frames)*indexEntrySize }

func (v Volume) minSize() int64 {
	return frontAlign + int64(v.Frames)*frameHeaderSize + indexSize(v.Frames) + superblockSize
}

// index returns the index, of which one copy stands behind the first superblock
// and one before the last.
func (p place) index(l *layout) []byte {
	b := make([]byte, indexHeaderSize, indexSize(len(l.entries)))
	p.put(b, magicIndex, uint32(len(l.entries)))
	binary.BigEndian.PutUint32(b[32:], uint32(l.front))
	binary.BigEndian.PutUint32(b[36:], uint32(l.middle))
	binary.BigEndian.PutUint64(b[40:], uint64(l.end()))
	for _, e := range l.entries {
		b = e.append(b)
	}
	return b
}

func (e entry) append(b []byte) []byte {
	b = binary.BigEndian.AppendUint32(b, uint32(e.kind)<<24|e.length)
	return append(b, e.sum[:]...)
}

func parseEntry(b []byte) (e entry) {
	v := binary.BigEndian.Uint32(b)
	e.kind, e.length = byte(v>>24), v&(1<<24-1)
	copy(e.sum[:], b[4:indexEntrySize])
	return e
}

// front returns the bytes before the first frame.
func (p place) front(l *layout) []byte {
	b := make([]byte, l.front)
	copy(b, p.superblock(l.front, copyStart, 0, 0))
	copy(b[superblockSize:], p.index(l))
	return b
}

// middle returns the copy of the superblock between the frames.
func (p place) middle(l *layout) (b []byte, at int64) {
	at = l.at[l.middle-1] + l.entries[l.middle-1].size()
	return p.superblock(l.front, copyMiddle, at, 0), at
}

// tail returns what closes a volume.
func (p place) tail(l *layout) []byte {
	idx := p.index(l)
	return append(idx, p.superblock(l.front, copyEnd, l.end()+int64(len(idx)), len(l.entries))...)
}

// check accepts a layout that is exactly what v's root was signed over.
func (p place) check(v Volume, l *layout) error {
	parity := 0
	for i, e := range l.entries {
		if err := e.check(); err != nil {
			return fmt.Errorf("frame %d: %w", i+1, err)
		}
		if e.kind == kindParity {
			parity++
		}
	}
	switch {
	case len(l.entries) != v.Frames || parity != v.Parity || l.middle < 0 || l.middle >= v.Frames:
		return errors.New("the index has the wrong counts")
	case l.front%frontAlign != 0 || l.front > maxFront || superblockSize+indexSize(v.Frames) > l.front || l.size() != v.Size:
		return errors.New("the frames do not fill the volume")
	}
	if root, err := p.root(l); err != nil || root != v.Root {
		return errors.Join(errors.New("the index is not the one that was signed"), err)
	}
	return nil
}

// parseIndex reads an index and returns the layout only if it is exactly what
// v's root was signed over.
func (p place) parseIndex(v Volume, b []byte) (*layout, error) {
	if int64(len(b)) != indexSize(v.Frames) || string(b[:8]) != magicIndex {
		return nil, errors.New("there is no index")
	}
	l := &layout{front: int64(binary.BigEndian.Uint32(b[32:])), middle: int(binary.BigEndian.Uint32(b[36:]))}
	for rest := b[indexHeaderSize:]; len(rest) > 0; rest = rest[indexEntrySize:] {
		l.add(parseEntry(rest))
	}
	if err := p.check(v, l); err != nil {
		return nil, err
	}
	if !bytes.Equal(p.index(l), b) {
		return nil, errors.New("the index is not in its form")
	}
	return l, nil
}

// root returns the RFC 6962 Merkle root whose leaves are the first superblock,
// every frame header in order, and the header of the index.
func (p place) root(l *layout) (artifact.Digest, error) {
	hashes := hashStore{}
	n := int64(0)
	add := func(record []byte) error {
		hs, err := tlog.StoredHashes(n, record, &hashes)
		hashes = append(hashes, hs...)
		n++
		return err
	}
	err := add(p.superblock(l.front, copyStart, 0, 0))
	for i := 0; err == nil && i < len(l.entries); i++ {
		err = add(p.frameHeader(i+1, l.entries[i]))
	}
	if err == nil {
		err = add(p.index(l)[:indexHeaderSize])
	}
	if err != nil {
		return "", err
	}
	h, err := tlog.TreeHash(n, &hashes)
	return artifact.FromSum(h), err
}

// hashStore keeps a tree's stored hashes in memory: 64 bytes a frame.
type hashStore []tlog.Hash

func (s *hashStore) ReadHashes(at []int64) ([]tlog.Hash, error) {
	out := make([]tlog.Hash, len(at))
	for i, n := range at {
		if n < 0 || n >= int64(len(*s)) {
			return nil, fmt.Errorf("hash %d is not stored", n)
		}
		out[i] = (*s)[n]
	}
	return out, nil
}
