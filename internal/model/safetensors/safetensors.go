// Package safetensors reads the header of safetensors model files, where every
// length and offset is held against the file before anything trusts it, and writes
// such files.
//
// It reads the header only, and no tensor. Layout: huggingface/safetensors,
// README "Format": the size of the header as 8 bytes, little-endian; the header
// as a JSON object; the tensors.
package safetensors

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"slices"
	"unicode/utf8"
)

const (
	maxHeader  = 100_000_000 // bytes; MAX_HEADER_SIZE of the reference implementation
	maxTensors = 1 << 20
	maxName    = 1 << 10 // bytes
	maxDims    = 64
)

// Tensor is one tensor. Begin and End are in bytes behind Header.DataStart.
type Tensor struct {
	Name       string
	Type       string // as the format names it, such as BF16
	Shape      []uint64
	Begin, End uint64
}

// Header is what stands before the tensors.
type Header struct {
	Meta      map[string]string // __metadata__
	Tensors   []Tensor          // in the order of the file
	DataStart uint64            // bytes before the tensors
}

// Is reports whether a file that begins with head, of 9 bytes at least, and has
// size bytes in all may be one.
func Is(head []byte, size int64) bool {
	if len(head) < 9 || head[8] != '{' {
		return false
	}
	n := binary.LittleEndian.Uint64(head)
	return n >= 2 && n <= maxHeader && n <= uint64(size)-8
}

// bitsOf returns how many bits an element of a type has, 0 if it is not known.
func bitsOf(dtype string) uint64 {
	known := map[string]uint64{
		"BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
		"I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64, "C64": 64, "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
	}
	return known[dtype]
}

// Read reads the header of a file of size bytes, and refuses one whose tensors do
// not fill the rest of it, each once, in the size that type and shape give.
func Read(ctx context.Context, f io.ReaderAt, size int64) (*Header, error) {
	head := make([]byte, 9)
	if _, err := f.ReadAt(head, 0); err != nil || !Is(head, size) {
		return nil, errors.Join(errors.New("it does not begin as safetensors"), err)
	}
	b := make([]byte, binary.LittleEndian.Uint64(head))
	if _, err := f.ReadAt(b, 8); err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	h := &Header{DataStart: 8 + uint64(len(b))}
	if err := h.parse(b); err != nil {
		return nil, err
	}
	slices.SortStableFunc(h.Tensors, func(a, b Tensor) int {
		return cmp.Or(cmp.Compare(a.Begin, b.Begin), cmp.Compare(a.End, b.End))
	})
	end := uint64(0)
	for _, t := range h.Tensors {
		if t.Begin != end {
			return nil, fmt.Errorf("tensor %.80q begins at %d, and the one before it ends at %d", t.Name, t.Begin, end)
		}
		end = t.End
	}
	if end != uint64(size)-h.DataStart {
		return nil, fmt.Errorf("the tensors have %d bytes, and the file has room for %d", end, uint64(size)-h.DataStart)
	}
	return h, nil
}

// parse reads the JSON key by key, so that none can hide behind another of the
// same name.
func (h *Header) parse(b []byte) error {
	if !utf8.Valid(b) {
		return errors.New("the header is no UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return errors.Join(errors.New("the header is no JSON object"), err)
	}
	seen := map[string]bool{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return err
		}
		name, _ := t.(string)
		if seen[name] || len(name) > maxName || len(seen) > maxTensors {
			return fmt.Errorf("tensor %.80q stands twice, or there are too many", name)
		}
		seen[name] = true
		if name == "__metadata__" {
			if err := d.Decode(&h.Meta); err != nil {
				return fmt.Errorf("__metadata__: %w", err)
			}
			continue
		}
		x := Tensor{Name: name}
		if err := x.parse(d); err != nil {
			return fmt.Errorf("tensor %.80q: %w", name, err)
		}
		h.Tensors = append(h.Tensors, x)
	}
	if _, err := d.Token(); err != nil {
		return err
	}
	if rest := bytes.TrimRight(b[d.InputOffset():], " "); len(rest) > 0 {
		return errors.New("something stands behind the header's JSON")
	}
	return nil
}

// parse reads one entry: the three keys as they are written, once each.
func (t *Tensor) parse(d *json.Decoder) error {
	if open, err := d.Token(); err != nil || open != json.Delim('{') {
		return errors.Join(errors.New("its entry is no JSON object"), err)
	}
	var offsets []uint64
	seen := map[string]bool{}
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return err
		}
		name, _ := key.(string)
		if seen[name] {
			return fmt.Errorf("%s stands twice", name)
		}
		seen[name] = true
		switch name {
		case "dtype":
			err = d.Decode(&t.Type)
		case "shape":
			err = d.Decode(&t.Shape)
		case "data_offsets":
			err = d.Decode(&offsets)
		default:
			err = fmt.Errorf("it has a key %.40q", name)
		}
		if err != nil {
			return err
		}
	}
	if _, err := d.Token(); err != nil {
		return err
	}
	if t.Shape == nil || len(t.Shape) > maxDims || len(offsets) != 2 {
		return errors.New("no shape, or no offsets")
	}
	t.Begin, t.End = offsets[0], offsets[1]
	return t.check()
}

// size returns how many bytes type and shape give.
func (t Tensor) size() (uint64, error) {
	n := bitsOf(t.Type)
	if n == 0 {
		return 0, fmt.Errorf("type %.20q is not known", t.Type)
	}
	for _, d := range t.Shape {
		hi, lo := bits.Mul64(n, d)
		if hi != 0 {
			return 0, errors.New("its shape overflows")
		}
		n = lo
	}
	if n%8 != 0 {
		return 0, errors.New("its elements end inside a byte")
	}
	return n / 8, nil
}

// check holds the size against type and shape.
func (t Tensor) check() error {
	n, err := t.size()
	if err != nil {
		return err
	}
	if t.End < t.Begin || t.End-t.Begin != n {
		return fmt.Errorf("bytes %d to %d are not those of its shape", t.Begin, t.End)
	}
	return nil
}
