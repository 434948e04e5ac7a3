// Package planes compresses the bytes of model weights without loss. The bytes
// of numbers of two or four bytes are sorted into planes, all first bytes, all
// second bytes and so on: in a plane of exponents few values are frequent, and
// Huffman coding alone takes most of what there is to gain. What it writes is
// one Zstandard frame (RFC 8878), so that any decoder reads it.
package planes

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/klauspost/compress/huff0"
	"github.com/klauspost/compress/zstd"
)

// Encoding says what was done with a run of bytes. The values are those of
// docs/spec/shipment.md §3.3.
type Encoding byte

// The encodings.
const (
	Plain Encoding = iota // the bytes as they are
	Zstd                  // one Zstandard frame
	Two                   // two planes, then one Zstandard frame
	Four                  // four planes, then one Zstandard frame
)

// Width returns the number of planes, 0 for an encoding that is not known.
func (e Encoding) Width() int {
	switch e {
	case Plain, Zstd:
		return 1
	case Two:
		return 2
	case Four:
		return 4
	}
	return 0
}

const (
	least     = 512       // bytes; less is not worth a probe
	probeSize = 16 << 10  // bytes of one probe, of which there are three
	blockSize = 128 << 10 // bytes of a Zstandard block, at most
	worth     = 95        // percent: what gains less is left as it is
)

// Encoder compresses; it keeps its buffers. It is for one goroutine.
type Encoder struct {
	zstd  *zstd.Encoder
	huff  huff0.Scratch
	split []byte
	trial []byte
}

// NewEncoder returns an Encoder.
func NewEncoder() (*Encoder, error) {
	z, err := zstd.NewWriter(nil, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1), zstd.WithEncoderCRC(false))
	return &Encoder{zstd: z, huff: huff0.Scratch{Reuse: huff0.ReusePolicyNone}}, err
}

// Encode appends p to dst in the encoding that a probe of p found to be the
// smallest, and says which. Plain appends p itself.
func (e *Encoder) Encode(dst, p []byte) ([]byte, Encoding) {
	best := e.probe(p)
	if best == Plain {
		return append(dst, p...), Plain
	}
	n := len(dst)
	dst = e.EncodeAs(dst, p, best)
	if !gains(len(dst)-n, len(p)) {
		return append(dst[:n], p...), Plain
	}
	return dst, best
}

func gains(after, before int) bool { return after*100 <= before*worth }

// probe tries the encodings on the start, the middle and the end of p.
func (e *Encoder) probe(p []byte) Encoding {
	if len(p) < least {
		return Plain
	}
	sample := p
	if len(p) > 3*probeSize {
		mid := len(p) / 2 &^ 3
		end := (len(p) - probeSize) &^ 3
		sample = append(append(append(make([]byte, 0, 3*probeSize), p[:probeSize]...), p[mid:mid+probeSize]...), p[end:end+probeSize]...)
	}
	best, size := Plain, len(sample)
	for _, c := range []Encoding{Zstd, Two, Four} {
		e.trial = e.EncodeAs(e.trial[:0], sample, c)
		if n := len(e.trial); gains(n, len(sample)) && n*100 < size*98 {
			best, size = c, n
		}
	}
	return best
}

// EncodeAs appends p to dst in an encoding other than Plain.
func (e *Encoder) EncodeAs(dst, p []byte, how Encoding) []byte {
	if how == Zstd {
		return e.zstd.EncodeAll(p, dst)
	}
	if cap(e.split) < len(p) {
		e.split = make([]byte, len(p))
	}
	e.split = e.split[:len(p)]
	split(e.split, p, how.Width())
	return e.entropy(dst, e.split, len(p)/how.Width())
}

// split sorts p into planes. What is over when the length is no multiple of
// the width follows as it is.
func split(dst, p []byte, width int) {
	n := len(p) / width
	switch width {
	case 2:
		a, b := dst[:n], dst[n:2*n]
		for i, src := 0, p[:2*n]; i < n; i++ {
			v := binary.LittleEndian.Uint16(src[2*i:])
			a[i], b[i] = byte(v), byte(v>>8)
		}
	case 4:
		a, b, c, d := dst[:n], dst[n:2*n], dst[2*n:3*n], dst[3*n:4*n]
		for i, src := 0, p[:4*n]; i < n; i++ {
			v := binary.LittleEndian.Uint32(src[4*i:])
			a[i], b[i], c[i], d[i] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24)
		}
	}
	copy(dst[n*width:], p[n*width:])
}

// join undoes split.
func join(dst, p []byte, width int) {
	n := len(p) / width
	for w := range width {
		plane := p[w*n : (w+1)*n]
		for i, b := range plane {
			dst[i*width+w] = b
		}
	}
	copy(dst[n*width:], p[n*width:])
}

// entropy appends p as a Zstandard frame whose blocks are literals only, coded
// by Huffman where that gains: weights do not repeat, so that looking for
// matches takes most of the time and finds nothing. No block holds bytes of two
// planes, which are of n bytes each. RFC 8878 §3.1.1.
func (e *Encoder) entropy(dst, p []byte, n int) []byte {
	const singleSegment, size4 = 1 << 5, 2 << 6
	dst = append(dst, 0x28, 0xb5, 0x2f, 0xfd, singleSegment|size4)
	dst = binary.LittleEndian.AppendUint32(dst, uint32(len(p)))
	for left := n; ; {
		block := p[:min(len(p), left, blockSize)]
		p = p[len(block):]
		if left -= len(block); left == 0 {
			left = n
		}
		dst = e.block(dst, block, len(p) == 0)
		if len(p) == 0 {
			return dst
		}
	}
}

func (e *Encoder) block(dst, p []byte, last bool) []byte {
	const raw, compressed = 0, 2 << 1
	head := func(kind, size int) []byte {
		v := uint32(kind | size<<3)
		if last {
			v |= 1
		}
		return append(dst, byte(v), byte(v>>8), byte(v>>16))
	}
	coded, _, err := huff0.Compress4X(p, &e.huff)
	const overhead = 5 + 1 // literals header, and a sequence count of zero
	if err != nil || len(coded)+overhead >= len(p) {
		return append(head(raw, len(p)), p...)
	}
	dst = head(compressed, len(coded)+overhead)
	lit := uint64(2 | 3<<2 | len(p)<<4 | len(coded)<<22) // Huffman, four streams, sizes of 18 bits
	dst = append(dst, byte(lit), byte(lit>>8), byte(lit>>16), byte(lit>>24), byte(lit>>32))
	return append(append(dst, coded...), 0)
}

// Decoder undoes what an Encoder did. It is for one goroutine.
type Decoder struct {
	zstd *zstd.Decoder
	buf  []byte
}

// NewDecoder returns a Decoder that takes at most limit bytes of memory for
// one run, whatever a frame claims.
func NewDecoder(limit int) (*Decoder, error) {
	z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(uint64(limit)), zstd.WithDecoderLowmem(true))
	return &Decoder{zstd: z}, err
}

// Decode fills dst with what p decodes to. Anything but exactly len(dst) bytes
// is an error.
func (d *Decoder) Decode(dst, p []byte, how Encoding) error {
	switch how {
	case Plain:
		if copy(dst, p) != len(p) || len(p) != len(dst) {
			return errors.New("it has another length than stated")
		}
		return nil
	case Zstd, Two, Four:
	default:
		return fmt.Errorf("encoding %d is not known", how)
	}
	var h zstd.Header
	if err := h.Decode(p); err != nil {
		return err
	}
	if !h.HasFCS || h.FrameContentSize != uint64(len(dst)) {
		return errors.New("it decodes to another length than stated")
	}
	out, err := d.zstd.DecodeAll(p, d.buf[:0])
	if err != nil {
		return err
	}
	d.buf = out
	if len(out) != len(dst) {
		return errors.New("it decodes to another length than stated")
	}
	if how == Zstd {
		copy(dst, out)
		return nil
	}
	join(dst, out, how.Width())
	return nil
}
