// Package gguf reads the header of GGUF model files: every count, length and
// offset is held against the file before anything trusts it.
//
// It reads the header only, in one pass, and no tensor. Layout: ggml
// documentation, "GGUF", versions 2 and 3, and 3 in big-endian too.
package gguf

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"slices"
	"strings"
)

// Limits. llama.cpp's own are of the same size or larger (gguf.cpp).
const (
	maxPairs     = 1 << 16
	maxTensors   = 1 << 20
	maxString    = 64 << 20 // bytes; vocabularies are arrays, not strings
	maxArray     = 1 << 26  // elements
	maxKey       = 1 << 16  // bytes; GGUF documentation
	maxTensor    = 64       // bytes of a tensor's name; GGML_MAX_NAME
	maxDims      = 4        // GGML_MAX_DIMS
	defaultAlign = 32
)

// Magic is what a file begins with.
const Magic = "GGUF"

// Header is what stands before the tensors.
type Header struct {
	Pairs     int    // key-value facts
	Arch      string // general.architecture
	Align     uint64
	Templates map[string]string // key → chat template
	Tensors   []Tensor
	DataStart uint64 // bytes before the tensors
}

// Tensor is where one tensor stands, in bytes behind DataStart.
type Tensor struct {
	Name        string
	Offset, Len uint64
}

// Read reads the header of a file of size bytes. On error, at is where in the file
// it gave up.
func Read(ctx context.Context, f io.ReaderAt, size int64) (h *Header, at int64, err error) {
	r := &reader{ctx: ctx, size: size, in: bufio.NewReaderSize(io.NewSectionReader(f, 0, size), 1<<16)}
	h, err = r.header()
	return h, r.at, err
}

type reader struct {
	ctx  context.Context //nolint:containedctx // lives for one Read
	in   *bufio.Reader
	at   int64
	size int64
	big  bool // numbers are big-endian
}

// order is how numbers are written.
func (r *reader) order() binary.ByteOrder {
	if r.big {
		return binary.BigEndian
	}
	return binary.LittleEndian
}

func (r *reader) bytes(n uint64) ([]byte, error) {
	if n > uint64(r.size-r.at) {
		return nil, fmt.Errorf("%d bytes are claimed, %d are left", n, r.size-r.at)
	}
	b := make([]byte, n)
	_, err := io.ReadFull(r.in, b)
	r.at += int64(n)
	return b, err
}

func (r *reader) u32() (uint32, error) {
	b, err := r.bytes(4)
	if err != nil {
		return 0, err
	}
	return r.order().Uint32(b), nil
}

func (r *reader) u64() (uint64, error) {
	b, err := r.bytes(8)
	if err != nil {
		return 0, err
	}
	return r.order().Uint64(b), nil
}

func (r *reader) text(limit uint64) (string, error) {
	n, err := r.u64()
	if err == nil && n > limit {
		err = fmt.Errorf("a string of %d bytes, more than %d", n, limit)
	}
	if err != nil {
		return "", err
	}
	b, err := r.bytes(n)
	return string(b), err
}

func (r *reader) header() (*Header, error) {
	m, err := r.bytes(4)
	if err != nil {
		return nil, err
	}
	if string(m) != Magic {
		return nil, errors.New("it does not begin as GGUF")
	}
	version, err := r.u32()
	if err != nil {
		return nil, err
	}
	if r.big = bits.ReverseBytes32(version) == 3; version != 2 && version != 3 && !r.big {
		return nil, fmt.Errorf("version %d is not known", version)
	}
	tensors, err := r.u64()
	if err != nil {
		return nil, err
	}
	pairs, err := r.u64()
	if err != nil {
		return nil, err
	}
	if tensors > maxTensors || pairs > maxPairs {
		return nil, fmt.Errorf("it claims %d tensors and %d facts", tensors, pairs)
	}
	h := &Header{Align: defaultAlign, Pairs: int(pairs), Templates: map[string]string{}}
	if err := r.facts(h, pairs); err != nil {
		return nil, err
	}
	if err := r.tensors(h, tensors); err != nil {
		return nil, err
	}
	h.DataStart = (uint64(r.at) + h.Align - 1) / h.Align * h.Align
	return h, nil
}

// Types of facts.
const (
	typeBool   = 7
	typeString = 8
	typeArray  = 9
)

// width is the size of a value of a type in bytes, 0 for those without one.
func width(t uint32) uint64 {
	widths := [...]uint64{1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8}
	if int(t) >= len(widths) {
		return 0
	}
	return widths[t]
}

func (r *reader) facts(h *Header, n uint64) error {
	seen := map[string]bool{}
	for range n {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		key, err := r.text(maxKey)
		if err != nil {
			return err
		}
		if seen[key] || key == "" {
			return fmt.Errorf("fact %.80q stands twice or has no name", key)
		}
		seen[key] = true
		t, err := r.u32()
		if err != nil {
			return err
		}
		if err := r.fact(h, key, t); err != nil {
			return fmt.Errorf("fact %.80q: %w", key, err)
		}
	}
	return nil
}

func (r *reader) fact(h *Header, key string, t uint32) error {
	switch {
	case key == "tokenizer.chat_template" && t != typeString, key == "general.alignment" && t != 4:
		return errors.New("it is of the wrong type")
	case t == typeString:
		v, err := r.text(maxString)
		switch {
		case err != nil:
			return err
		case key == "general.architecture":
			h.Arch = v
		case strings.Contains(key, "chat_template"):
			h.Templates[key] = v
		}
		return nil
	case t == typeArray:
		return r.array(1)
	case width(t) == 0:
		return fmt.Errorf("type %d is not known", t)
	}
	b, err := r.bytes(width(t))
	if err != nil {
		return err
	}
	if t == typeBool && b[0] > 1 {
		return errors.New("a truth value is neither 0 nor 1")
	}
	if key == "general.alignment" {
		h.Align = uint64(r.order().Uint32(b))
		if h.Align == 0 || h.Align%8 != 0 || bits.OnesCount64(h.Align) != 1 || h.Align > 1<<20 {
			return fmt.Errorf("%d is no alignment", h.Align)
		}
	}
	return nil
}

// array skips an array; arrays of arrays may nest three deep.
func (r *reader) array(depth int) error {
	t, err := r.u32()
	if err != nil {
		return err
	}
	n, err := r.u64()
	if err != nil {
		return err
	}
	if n > maxArray {
		return fmt.Errorf("an array of %d elements", n)
	}
	switch {
	case t == typeArray && depth < 3:
		for range n {
			if err := r.array(depth + 1); err != nil {
				return err
			}
		}
		return nil
	case t == typeString:
		for range n {
			if err := r.skipText(); err != nil {
				return err
			}
		}
		return nil
	case width(t) == 0:
		return fmt.Errorf("an array of type %d", t)
	}
	return r.skip(n * width(t))
}

func (r *reader) skipText() error {
	n, err := r.u64()
	if err == nil && n > maxString {
		err = fmt.Errorf("a string of %d bytes", n)
	}
	if err != nil {
		return err
	}
	return r.skip(n)
}

func (r *reader) skip(n uint64) error {
	if n > uint64(r.size-r.at) {
		return fmt.Errorf("%d bytes are claimed, %d are left", n, r.size-r.at)
	}
	if err := r.ctx.Err(); err != nil {
		return err
	}
	done, err := io.CopyN(io.Discard, r.in, int64(n))
	r.at += done
	return err
}

// ggmlType is the size of a block in elements and in bytes.
type ggmlType struct{ elements, bytes uint64 }

// typeOf returns the block of a tensor type (ggml.h, enum ggml_type; sizes from
// ggml.c, type_traits).
func typeOf(t uint32) (ggmlType, bool) {
	known := map[uint32]ggmlType{
		0: {1, 4}, 1: {1, 2}, 2: {32, 18}, 3: {32, 20}, 6: {32, 22}, 7: {32, 24}, 8: {32, 34}, 9: {32, 36},
		10: {256, 84}, 11: {256, 110}, 12: {256, 144}, 13: {256, 176}, 14: {256, 210}, 15: {256, 292},
		16: {256, 66}, 17: {256, 74}, 18: {256, 98}, 19: {256, 50}, 20: {32, 18}, 21: {256, 110}, 22: {256, 82}, 23: {256, 136},
		24: {1, 1}, 25: {1, 2}, 26: {1, 4}, 27: {1, 8}, 28: {1, 8}, 29: {256, 56}, 30: {1, 2}, 31: {32, 18}, 32: {32, 18}, 33: {32, 18}, 34: {256, 54}, 35: {256, 66}, 36: {32, 18}, 37: {32, 18}, 38: {32, 18}, 39: {32, 17}, 40: {64, 36}, 41: {128, 18},
	}
	g, ok := known[t]
	return g, ok
}

func (r *reader) tensors(h *Header, n uint64) error {
	seen := map[string]bool{}
	for range n {
		if err := r.ctx.Err(); err != nil {
			return err
		}
		t, err := r.tensor()
		if err != nil {
			return fmt.Errorf("tensor %.80q: %w", t.Name, err)
		}
		if seen[t.Name] {
			return fmt.Errorf("tensor %.80q stands twice", t.Name)
		}
		seen[t.Name] = true
		if t.Offset%h.Align != 0 {
			return fmt.Errorf("tensor %.80q is not aligned", t.Name)
		}
		h.Tensors = append(h.Tensors, t)
	}
	return nil
}

func (r *reader) tensor() (t Tensor, err error) {
	if t.Name, err = r.text(maxTensor); err != nil {
		return t, err
	}
	dims, err := r.u32()
	if err == nil && (dims == 0 || dims > maxDims) {
		err = fmt.Errorf("it has %d dimensions", dims)
	}
	if err != nil {
		return t, err
	}
	elements, first := uint64(1), uint64(0)
	for i := range dims {
		d, err := r.u64()
		if err != nil {
			return t, err
		}
		hi, lo := bits.Mul64(elements, d)
		if hi != 0 || lo > math.MaxInt64 || d == 0 {
			return t, errors.New("its dimensions overflow")
		}
		if elements = lo; i == 0 {
			first = d
		}
	}
	kind, err := r.u32()
	if err != nil {
		return t, err
	}
	g, ok := typeOf(kind)
	if !ok {
		return t, fmt.Errorf("type %d is not known", kind)
	}
	if first%g.elements != 0 {
		return t, errors.New("its rows are no whole blocks")
	}
	hi, lo := bits.Mul64(elements/g.elements, g.bytes)
	if hi != 0 || lo > math.MaxInt64 {
		return t, errors.New("its size overflows")
	}
	t.Len = lo
	t.Offset, err = r.u64()
	return t, err
}

// Layout checks that all tensors lie inside the file and apart.
func (h *Header) Layout(size int64) error {
	if h.DataStart > uint64(size) && len(h.Tensors) > 0 {
		return errors.New("there is no room for tensors")
	}
	sorted := slices.Clone(h.Tensors)
	slices.SortFunc(sorted, func(a, b Tensor) int {
		switch {
		case a.Offset < b.Offset:
			return -1
		case a.Offset > b.Offset:
			return 1
		}
		return 0
	})
	end := uint64(0)
	for _, t := range sorted {
		if t.Offset < end {
			return fmt.Errorf("tensor %.80q shares bytes with another", t.Name)
		}
		sum, carry := bits.Add64(t.Offset, t.Len, 0)
		if carry != 0 || sum > uint64(size)-h.DataStart {
			return fmt.Errorf("tensor %.80q lies outside of the file", t.Name)
		}
		end = sum
	}
	if rest := uint64(size) - min(uint64(size), h.DataStart+end); rest > h.Align {
		return fmt.Errorf("%d bytes stand behind the last tensor", rest)
	}
	return nil
}
