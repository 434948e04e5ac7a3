package onnx

import (
	"context"
	"errors"
	"fmt"
	"io"

	"enisle/internal/model/wire"
)

const (
	maxDepth  = 64         // messages inside of messages; a graph in a node takes three
	maxFields = 50_000_000 // of one file
	maxText   = 64 << 10   // bytes of a name; tensors and strings are not read
	maxDims   = 64
	maxNames  = 10_000 // operators of other domains, and functions
)

// record is what is kept of one message.
type record struct {
	count  [maxField]int    // how often a field stood there; of packed numbers: how many, at most
	number [maxField]uint64 // the last number
	bytes  [maxField]int64  // of all bodies of a field
	text   [maxField]string
	dims   []uint64 // of a tensor
	extern []pair   // external_data of a tensor
}

type pair struct{ key, value string }

// walker reads one model.
type walker struct {
	ctx       context.Context
	report    func(rule, detail string) // a refusal
	opsets    []string
	domains   map[string]bool
	foreign   map[string]string // domain and operator → domain, where no loader has it by itself
	functions map[string]bool   // domain and operator
	nodes     int
	tensors   int
	params    uint64
	bad       int // refusals
}

// message reads one message to its end. Its record is returned, and judged where
// that is of use.
func (w *walker) message(m wire.Message, k kind, depth int) (r record, err error) {
	if depth > maxDepth {
		return r, fmt.Errorf("messages nest deeper than %d", maxDepth)
	}
	for n := 0; ; n++ {
		if n%4096 == 4095 && w.ctx.Err() != nil {
			return r, w.ctx.Err()
		}
		f, err := m.Next()
		if errors.Is(err, io.EOF) {
			return r, w.judge(k, &r)
		}
		if err != nil {
			return r, fmt.Errorf("byte %d: %w", m.At(), err)
		}
		var is *field
		if f.Number < maxField {
			is = schema[k][f.Number]
		}
		switch {
		case is == nil || !is.fits(f.Type):
			return r, fmt.Errorf("byte %d: ONNX has no field %d of this type here", m.At(), f.Number)
		case !is.many && r.count[f.Number] > 0:
			return r, fmt.Errorf("byte %d: field %d stands twice: two readers may see two models", m.At(), f.Number)
		}
		if err := w.take(k, &r, f, is, depth); err != nil {
			return r, err
		}
	}
}

// take keeps what a field says.
func (w *walker) take(k kind, r *record, f wire.Field, is *field, depth int) (err error) {
	n := f.Number
	r.number[n] = f.Value
	if f.Type != wire.Bytes {
		r.count[n]++
		if k == tensor && n == dims {
			r.dims = append(r.dims, f.Value)
		}
		return tooMany(r)
	}
	r.bytes[n] += f.Body.Size()
	switch is.use {
	case single, double:
		size := map[use]int64{single: 4, double: 8}[is.use]
		if f.Body.Size()%size != 0 {
			return fmt.Errorf("field %d ends within a number", n)
		}
		r.count[n] += int(f.Body.Size() / size)
	case number:
		r.count[n] += int(f.Body.Size())
		if k == tensor && n == dims {
			r.count[n], err = w.packed(f.Body, r)
		}
	case text:
		r.count[n]++
		r.text[n], err = f.Body.Text(maxText)
	case raw:
		r.count[n]++
		if k == entry && f.Body.Size() <= maxText {
			r.text[n], err = f.Body.Text(maxText)
		}
	case body:
		r.count[n]++
		var in record
		if in, err = w.message(f.Body, is.of, depth+1); err == nil && k == tensor && n == 13 {
			r.extern = append(r.extern, pair{in.text[1], in.text[2]})
			if in.bytes[2] > maxText || len(r.extern) > 16 {
				err = errors.New("a tensor has too much external_data")
			}
		}
	}
	return err
}

func (w *walker) packed(m wire.Message, r *record) (int, error) {
	for {
		v, err := m.Varint()
		if errors.Is(err, io.EOF) {
			return len(r.dims), nil
		}
		if err != nil {
			return 0, err
		}
		r.dims = append(r.dims, v)
		if err := tooMany(r); err != nil {
			return 0, err
		}
	}
}

func tooMany(r *record) error {
	if len(r.dims) > maxDims {
		return fmt.Errorf("a tensor has more than %d dimensions", maxDims)
	}
	return nil
}
