package shipment

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"

	"enisle/internal/artifact"
	"enisle/internal/carry/planes"
)

// The plain text of a frame is chunks, one after the other. §3.3.
const (
	chunkHeaderSize = 64
	sourceSize      = 40 // bytes that name a Source

	encodedCopy = 16 // the chunk says where its bytes are held already
)

// Source is a place in a blob that the importer holds.
type Source struct {
	Digest artifact.Digest
	Offset int64
}

// Copy is a run of a blob whose bytes the islands hold elsewhere.
type Copy struct {
	Offset, Length int64
	From           Source
}

// Chunk is a run of bytes of one blob.
type Chunk struct {
	Blob   Blob
	Offset int64  // of the first byte in the blob
	Data   []byte // the bytes, unless Length is not 0
	// Length bytes stand at From, in a blob that is held.
	Length int64
	From   Source
}

// chunkHead is the fixed part of a chunk.
type chunkHead struct {
	blob     Blob
	offset   int64
	length   uint32 // bytes of the blob
	stored   uint32 // bytes that follow
	encoding byte
}

func (h chunkHead) put(b []byte) {
	sum := h.blob.Digest.Bytes()
	copy(b, sum[:])
	binary.BigEndian.PutUint64(b[32:], uint64(h.blob.Size))
	binary.BigEndian.PutUint64(b[40:], uint64(h.offset))
	binary.BigEndian.PutUint32(b[48:], h.length)
	binary.BigEndian.PutUint32(b[52:], h.stored)
	clear(b[56:chunkHeaderSize])
	b[56] = h.encoding
}

func (s Source) append(b []byte) []byte {
	sum := s.Digest.Bytes()
	return binary.BigEndian.AppendUint64(append(b, sum[:]...), uint64(s.Offset))
}

// parseChunk splits the first chunk off the plain text of a frame.
func parseChunk(p []byte) (h chunkHead, stored, rest []byte, err error) {
	if len(p) < chunkHeaderSize {
		return h, nil, nil, errors.New("a chunk is cut short")
	}
	var sum [sha256.Size]byte
	copy(sum[:], p)
	size, off := binary.BigEndian.Uint64(p[32:]), binary.BigEndian.Uint64(p[40:])
	h.length, h.stored, h.encoding = binary.BigEndian.Uint32(p[48:]), binary.BigEndian.Uint32(p[52:]), p[56]
	impossible := size > 1<<62 || off > size || uint64(h.length) > size-off || h.length == 0 && size != 0
	for _, b := range p[57:chunkHeaderSize] {
		impossible = impossible || b != 0
	}
	p = p[chunkHeaderSize:]
	switch h.encoding {
	case encodedCopy:
		impossible = impossible || h.stored != sourceSize
	case byte(planes.Plain):
		impossible = impossible || h.stored != h.length
	default:
		impossible = impossible || h.stored >= h.length || h.length > framePayload || planes.Encoding(h.encoding).Width() == 0
	}
	if impossible || uint64(h.stored) > uint64(len(p)) {
		return h, nil, nil, errors.New("a chunk has impossible figures")
	}
	h.blob, h.offset = Blob{artifact.FromSum(sum), int64(size)}, int64(off)
	return h, p[:h.stored], p[h.stored:], nil
}

// unpacker turns the plain text of frames into chunks. It keeps its buffers.
type unpacker struct {
	decoder *planes.Decoder
	buf     []byte
}

// each hands the chunks of p on, in order. Data is valid until take returns.
func (u *unpacker) each(p []byte, take func(Chunk) error) error {
	for len(p) > 0 {
		h, stored, rest, err := parseChunk(p)
		if err != nil {
			return err
		}
		p = rest
		c := Chunk{Blob: h.blob, Offset: h.offset, Data: stored}
		switch {
		case h.encoding == encodedCopy:
			at := binary.BigEndian.Uint64(stored[sha256.Size:])
			if at > 1<<62 {
				return errors.New("a copy begins nowhere")
			}
			c.Data, c.Length = nil, int64(h.length)
			c.From = Source{artifact.FromSum([sha256.Size]byte(stored)), int64(at)}
		case h.encoding != byte(planes.Plain):
			if c.Data, err = u.decode(h, stored); err != nil {
				return err
			}
		}
		if err := take(c); err != nil {
			return err
		}
	}
	return nil
}

func (u *unpacker) decode(h chunkHead, stored []byte) (_ []byte, err error) {
	if u.decoder == nil {
		if u.decoder, err = planes.NewDecoder(2 * framePayload); err != nil {
			return nil, err
		}
		u.buf = make([]byte, framePayload)
	}
	err = u.decoder.Decode(u.buf[:h.length], stored, planes.Encoding(h.encoding))
	return u.buf[:h.length], err
}

// packer compresses the chunks of frames. It keeps its buffers.
type packer struct {
	encoder *planes.Encoder
	out     []byte
}

// pack returns the plain text with every chunk compressed that gains by it. It
// is never longer.
func (k *packer) pack(plain []byte) (_ []byte, err error) {
	if k.encoder == nil {
		if k.encoder, err = planes.NewEncoder(); err != nil {
			return nil, err
		}
	}
	k.out = k.out[:0]
	for len(plain) > 0 {
		h, stored, rest, err := parseChunk(plain)
		if err != nil {
			return nil, err
		}
		plain = rest
		at := len(k.out)
		k.out = append(k.out, make([]byte, chunkHeaderSize)...)
		if h.encoding == byte(planes.Plain) {
			var how planes.Encoding
			k.out, how = k.encoder.Encode(k.out, stored)
			h.encoding = byte(how)
		} else {
			k.out = append(k.out, stored...)
		}
		h.stored = uint32(len(k.out) - at - chunkHeaderSize)
		h.put(k.out[at:])
	}
	return k.out, nil
}
