package archive

import (
	"encoding/binary"
	"errors"
	"io"
)

// The frame format of LZ4 (LZ4 frame format description 1.6.3), in which joblib packs
// where lz4 is installed. Its checksums are not compared: a reader that does reads no
// more than this one.
const (
	lz4Magic  = "\x04\x22\x4d\x18"
	lz4Window = 64 << 10 // bytes that a match may lie behind
)

var (
	errLZ4     = errors.New("a block is broken")
	errLZ4Kind = errors.New("it is of a version or with a dictionary that is not read")
)

// lz4Reader reads one frame. It holds one block, of at most 4 MiB, and the window.
type lz4Reader struct {
	src     io.Reader
	largest int    // bytes of a block, unpacked
	summed  bool   // a checksum stands behind every block
	closing bool   // and one behind the last
	linked  bool   // matches reach into the blocks before
	out     []byte // window, and behind it what was not read yet
	at      int    // of out: what is read next
	end     error
}

func newLZ4(src io.Reader) (io.Reader, error) {
	head := make([]byte, 7)
	if _, err := io.ReadFull(src, head[:6]); err != nil {
		return nil, err
	}
	flags, size := head[4], head[5]>>4&7
	// Version 1, no dictionary, and nothing in the bits that are kept free.
	if string(head[:4]) != lz4Magic || flags>>6 != 1 || flags&3 != 0 || size < 4 || head[5]&0x8f != 0 {
		return nil, errLZ4Kind
	}
	skip := int64(1) // checksum of the header
	if flags&8 != 0 {
		skip += 8 // size of the content
	}
	if _, err := io.CopyN(io.Discard, src, skip); err != nil {
		return nil, err
	}
	return &lz4Reader{src: src, largest: 1 << (8 + 2*int(size)), summed: flags&16 != 0, closing: flags&4 != 0, linked: flags&32 == 0}, nil
}

func (r *lz4Reader) Read(p []byte) (int, error) {
	for r.at == len(r.out) {
		if r.end == nil {
			r.end = r.block()
		}
		if r.at == len(r.out) && r.end != nil {
			return 0, r.end
		}
	}
	n := copy(p, r.out[r.at:])
	r.at += n
	return n, nil
}

// block unpacks the next block behind the window.
func (r *lz4Reader) block() error {
	var word [4]byte
	if _, err := io.ReadFull(r.src, word[:]); err != nil {
		return io.ErrUnexpectedEOF
	}
	size := binary.LittleEndian.Uint32(word[:])
	if size == 0 {
		if r.closing {
			if _, err := io.ReadFull(r.src, word[:]); err != nil {
				return io.ErrUnexpectedEOF
			}
		}
		return io.EOF
	}
	plain, n := size>>31 == 1, int(size&^(1<<31))
	if n > r.largest {
		return errLZ4
	}
	in := make([]byte, n)
	if _, err := io.ReadFull(r.src, in); err != nil {
		return io.ErrUnexpectedEOF
	}
	if r.summed {
		if _, err := io.ReadFull(r.src, word[:]); err != nil {
			return io.ErrUnexpectedEOF
		}
	}
	keep := 0
	if r.linked {
		keep = min(len(r.out), lz4Window)
	}
	r.out = append(r.out[:0], r.out[len(r.out)-keep:]...)
	r.at = keep
	if plain {
		r.out = append(r.out, in...)
		return nil
	}
	return r.unpack(in, keep+r.largest)
}

// unpack appends what a block holds, up to so many bytes in all.
func (r *lz4Reader) unpack(in []byte, limit int) error {
	length := func(n int) (int, bool) {
		for more := n == 15; more; { // a byte of 255 says that another follows
			if len(in) == 0 || n > limit {
				return 0, false
			}
			more = in[0] == 255
			n, in = n+int(in[0]), in[1:]
		}
		return n, true
	}
	for len(in) > 0 {
		token := in[0]
		in = in[1:]
		literals, ok := length(int(token >> 4))
		if !ok || literals > len(in) || len(r.out)+literals > limit {
			return errLZ4
		}
		r.out, in = append(r.out, in[:literals]...), in[literals:]
		if len(in) == 0 {
			return nil // the last sequence has no match
		}
		if len(in) < 2 {
			return errLZ4
		}
		back := int(binary.LittleEndian.Uint16(in))
		in = in[2:]
		match, ok := length(int(token & 15))
		match += 4
		if !ok || back == 0 || back > len(r.out) || len(r.out)+match > limit {
			return errLZ4
		}
		for range match { // a match may reach into itself
			r.out = append(r.out, r.out[len(r.out)-back])
		}
	}
	return nil
}
