package shipment

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"golang.org/x/mod/sumdb/tlog"

	"enisle/internal/artifact"
)

// The layout of a volume: superblock, frames, index, trailer. All integers are
// big-endian. docs/spec/shipment.md §3.
const (
	superblockSize  = 64
	frameHeaderSize = 72
	indexHeaderSize = 32
	indexEntrySize  = 36
	trailerSize     = 48
	chunkHeaderSize = 52

	framePayload = 4 << 20  // bytes of plain text in a frame, at most
	maxSealed    = 16 << 20 // bytes of sealed frame a reader accepts
	maxFrames    = 1 << 20  // frames of one volume a reader accepts: 4 TiB

	ageChunk = 64 << 10 // age, STREAM chunk size (C2SP age.md, "Payload")
	ageTag   = 16
)

const (
	magicVolume  = "ENISLEV1"
	magicFrame   = "ENISLEF1"
	magicIndex   = "ENISLEX1"
	magicTrailer = "ENISLEZ1"
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

func (p place) superblock() []byte {
	b := make([]byte, superblockSize)
	p.put(b, magicVolume, 1)
	return b
}

// entry is what the index holds of one frame; with its place it determines the
// whole frame header.
type entry struct {
	length uint32   // bytes of the sealed frame
	sum    [32]byte // SHA-256 of the sealed frame
}

func (p place) frameHeader(frame int, e entry) []byte {
	b := make([]byte, frameHeaderSize)
	p.put(b, magicFrame, uint32(frame))
	binary.BigEndian.PutUint32(b[32:], e.length)
	copy(b[40:], e.sum[:])
	return b
}

// parseFrameHeader reads a frame header found at the place and number given.
func (p place) parseFrameHeader(b []byte, frame int) (entry, error) {
	var e entry
	if len(b) != frameHeaderSize || string(b[:8]) != magicFrame {
		return e, errors.New("no frame begins here")
	}
	e.length = binary.BigEndian.Uint32(b[32:])
	copy(e.sum[:], b[40:])
	if !bytes.Equal(p.frameHeader(frame, e), b) {
		return e, errors.New("the frame belongs elsewhere")
	}
	if e.length == 0 || e.length > maxSealed {
		return e, fmt.Errorf("the frame claims %d bytes", e.length)
	}
	return e, nil
}

// index returns the index and trailer that close a volume; at is the offset at
// which the index will stand.
func (p place) index(entries []entry, at int64) []byte {
	b := make([]byte, indexHeaderSize, indexSize(len(entries)))
	p.put(b, magicIndex, uint32(len(entries)))
	for _, e := range entries {
		b = binary.BigEndian.AppendUint32(b, e.length)
		b = append(b, e.sum[:]...)
	}
	t := make([]byte, trailerSize)
	p.put(t, magicTrailer, uint32(len(entries)))
	binary.BigEndian.PutUint64(t[32:], uint64(at))
	return append(b, t...)
}

func indexSize(frames int) int64 {
	return indexHeaderSize + int64(frames)*indexEntrySize + trailerSize
}

func (v Volume) minSize() int64 {
	return superblockSize + int64(v.Frames)*frameHeaderSize + indexSize(v.Frames)
}

// parseIndex reads index and trailer of a volume and returns the entries only
// if they are exactly what v's root was signed over.
func (p place) parseIndex(v Volume, b []byte) ([]entry, error) {
	if int64(len(b)) != indexSize(v.Frames) {
		return nil, errors.New("the index has the wrong size")
	}
	entries := make([]entry, v.Frames)
	total := int64(superblockSize)
	for i := range entries {
		rec := b[indexHeaderSize+i*indexEntrySize:]
		entries[i].length = binary.BigEndian.Uint32(rec)
		copy(entries[i].sum[:], rec[4:indexEntrySize])
		if n := entries[i].length; n == 0 || n > maxSealed {
			return nil, fmt.Errorf("frame %d claims %d bytes", i+1, n)
		}
		total += frameHeaderSize + int64(entries[i].length)
	}
	if total != v.Size-int64(len(b)) {
		return nil, errors.New("the frames do not fill the volume")
	}
	if !bytes.Equal(p.index(entries, total), b) {
		return nil, errors.New("the index is not in its form")
	}
	if root, err := p.root(entries); err != nil || root != v.Root {
		return nil, errors.Join(errors.New("the index is not the one that was signed"), err)
	}
	return entries, nil
}

// root returns the RFC 6962 Merkle root whose leaves are the superblock and
// every frame header, in order.
func (p place) root(entries []entry) (artifact.Digest, error) {
	hashes := hashStore{}
	add := func(n int, record []byte) error {
		hs, err := tlog.StoredHashes(int64(n), record, &hashes)
		hashes = append(hashes, hs...)
		return err
	}
	err := add(0, p.superblock())
	for i := 0; err == nil && i < len(entries); i++ {
		err = add(i+1, p.frameHeader(i+1, entries[i]))
	}
	if err != nil {
		return "", err
	}
	h, err := tlog.TreeHash(int64(len(entries)+1), &hashes)
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

// appendChunkHeader writes the head of a run of n bytes of a blob.
func appendChunkHeader(dst []byte, b Blob, offset int64, n int) []byte {
	sum := b.Digest.Bytes()
	dst = append(dst, sum[:]...)
	dst = binary.BigEndian.AppendUint64(dst, uint64(b.Size))
	dst = binary.BigEndian.AppendUint64(dst, uint64(offset))
	return binary.BigEndian.AppendUint32(dst, uint32(n))
}

// nextChunk splits the first chunk off the plain text of a frame.
func nextChunk(p []byte) (c Chunk, rest []byte, err error) {
	if len(p) < chunkHeaderSize {
		return c, nil, errors.New("a chunk is cut short")
	}
	var sum [sha256.Size]byte
	copy(sum[:], p)
	size, off := binary.BigEndian.Uint64(p[32:]), binary.BigEndian.Uint64(p[40:])
	n := uint64(binary.BigEndian.Uint32(p[48:]))
	p = p[chunkHeaderSize:]
	if size > 1<<62 || off > size || n > size-off || n > uint64(len(p)) || (n == 0 && size != 0) {
		return c, nil, errors.New("a chunk has impossible figures")
	}
	c = Chunk{Blob{artifact.FromSum(sum), int64(size)}, int64(off), p[:n]}
	return c, p[n:], nil
}
