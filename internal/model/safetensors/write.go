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
	"slices"
	"strings"
	"unicode/utf8"
)

// Source is a tensor to be written.
type Source struct {
	Name  string
	Type  string // as the format names it, such as BF16
	Shape []uint64
	// Copy writes the elements, the last dimension fastest, low byte first.
	Copy func(ctx context.Context, w io.Writer) error
}

// rank orders types as the reference implementation does: larger elements first,
// so that every tensor is aligned to its element (its enum Dtype, last to first).
func rank(dtype string) int {
	return slices.Index([]string{
		"U64", "I64", "F64", "C64", "F32", "U32", "I32", "BF16", "F16", "U16", "I16", "F8_E8M0", "F8_E4M3", "F8_E5M2", "I8", "U8", "F6_E3M2", "F6_E2M3", "F4", "BOOL",
	}, dtype)
}

// Plan is a file to be written: the header, and the tensors in their order.
type Plan struct {
	head    []byte
	tensors []Source
	sizes   []uint64
	// Size is how many bytes the file will have.
	Size uint64
}

// Lay plans a file of the tensors, in the order of the reference implementation.
// It refuses what Read would refuse.
func Lay(meta map[string]string, tensors []Source) (*Plan, error) {
	p := &Plan{tensors: slices.Clone(tensors)}
	if len(tensors) > maxTensors {
		return nil, fmt.Errorf("more than %d tensors", maxTensors)
	}
	slices.SortStableFunc(p.tensors, func(a, b Source) int {
		return cmp.Or(cmp.Compare(rank(a.Type), rank(b.Type)), cmp.Compare(a.Name, b.Name))
	})
	var b bytes.Buffer
	b.Write(make([]byte, 8))
	b.WriteByte('{')
	if len(meta) > 0 {
		b.WriteString(`"__metadata__":`)
		if err := putJSON(&b, meta); err != nil {
			return nil, err
		}
	}
	seen := map[string]bool{"__metadata__": true}
	at := uint64(0)
	for _, t := range p.tensors {
		if seen[t.Name] || t.Name == "" || len(t.Name) > maxName || !utf8.ValidString(t.Name) || strings.ContainsRune(t.Name, 0) {
			return nil, fmt.Errorf("tensor %.80q: the name stands twice, or is none", t.Name)
		}
		seen[t.Name] = true
		size, err := sizeOf(t)
		if err != nil {
			return nil, fmt.Errorf("tensor %.80q: %w", t.Name, err)
		}
		if size > 1<<62-at {
			return nil, errors.New("the tensors are too large")
		}
		if err := putEntry(&b, t, at, at+size); err != nil {
			return nil, err
		}
		p.sizes = append(p.sizes, size)
		at += size
	}
	b.WriteByte('}')
	for b.Len()%8 != 0 {
		b.WriteByte(' ')
	}
	if b.Len()-8 > maxHeader {
		return nil, fmt.Errorf("the header is longer than %d bytes", maxHeader)
	}
	p.head = b.Bytes()
	binary.LittleEndian.PutUint64(p.head, uint64(len(p.head)-8))
	p.Size = uint64(len(p.head)) + at
	return p, nil
}

// putEntry writes what the header says of a tensor.
func putEntry(b *bytes.Buffer, t Source, begin, end uint64) error {
	if b.Len() > 9 {
		b.WriteByte(',')
	}
	err := putJSON(b, t.Name)
	b.WriteByte(':')
	err = errors.Join(err, putJSON(b, struct {
		Type    string    `json:"dtype"`
		Shape   []uint64  `json:"shape"`
		Offsets [2]uint64 `json:"data_offsets"`
	}{t.Type, append([]uint64{}, t.Shape...), [2]uint64{begin, end}}))
	if b.Len() > maxHeader {
		err = errors.Join(err, fmt.Errorf("the header is longer than %d bytes", maxHeader))
	}
	return err
}

// putJSON writes a value as short as it can be.
func putJSON(b *bytes.Buffer, v any) error {
	enc := json.NewEncoder(b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	b.Truncate(len(bytes.TrimSuffix(b.Bytes(), []byte("\n")))) // the encoder ends a line
	return err
}

// sizeOf returns how many bytes a tensor has.
func sizeOf(t Source) (uint64, error) {
	if len(t.Shape) > maxDims {
		return 0, errors.New("it has too many dimensions")
	}
	return Tensor{Type: t.Type, Shape: t.Shape}.size()
}

// Write writes the file to w, tensor by tensor. It holds nothing of them: the memory
// it takes is what their Copy takes.
func (p *Plan) Write(ctx context.Context, w io.Writer) error {
	if _, err := w.Write(p.head); err != nil {
		return err
	}
	for i, t := range p.tensors {
		if err := ctx.Err(); err != nil {
			return err
		}
		c := &counted{w: w, left: p.sizes[i]}
		if err := t.Copy(ctx, c); err != nil {
			return err
		}
		if c.left != 0 {
			return fmt.Errorf("tensor %.80q: %d bytes are missing", t.Name, c.left)
		}
	}
	return nil
}

// counted takes exactly so many bytes.
type counted struct {
	w    io.Writer
	left uint64
}

func (c *counted) Write(b []byte) (int, error) {
	if uint64(len(b)) > c.left {
		return 0, errors.New("a tensor has more bytes than its shape")
	}
	n, err := c.w.Write(b)
	c.left -= uint64(n)
	return n, err
}
