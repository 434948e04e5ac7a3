package tensorflow

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"enisle/internal/judge/inspect"
)

// A model of TensorFlow Lite is a FlatBuffer: tables of offsets, each to be held
// against the file. Fields are those of tensorflow/lite schema.fbs, version 3.

const (
	builtinCustom  = 32
	builtinMost    = 400     // above every number of an operation
	maxReads       = 5 << 20 // of one file
	maxCodes       = 10_000
	modelCodes     = 1 // fields of a model
	modelGraphs    = 2
	modelBuffers   = 4
	modelExternal  = 8
	modelExternals = 9
)

// flat reads a file; the first error is kept, and everything after it is zero.
type flat struct {
	r     io.ReaderAt
	size  int64
	reads int
	err   error
}

// num reads a little-endian number of n bytes.
func (f *flat) num(at int64, n int) uint64 {
	var b [8]byte
	if f.reads++; f.err == nil && f.reads > maxReads {
		f.err = errors.New("it has too many parts")
	}
	if f.err == nil && (at < 0 || at > f.size-int64(n)) {
		f.err = fmt.Errorf("an offset leads to byte %d, outside of the file", at)
	}
	if f.err != nil {
		return 0
	}
	if got, err := f.r.ReadAt(b[:n], at); got < n {
		f.err = fmt.Errorf("byte %d: %w", at, err)
	}
	return binary.LittleEndian.Uint64(b[:])
}

// field returns where a field of a table is, 0 if it is not there.
func (f *flat) field(table int64, n int) int64 {
	vtable := table - int64(int32(f.num(table, 4)))
	size := int64(f.num(vtable, 2))
	if size < 4 || size%2 != 0 {
		f.err = errors.Join(f.err, errors.New("a table has no fields"))
		return 0
	}
	if int64(4+2*n+2) > size {
		return 0
	}
	off := int64(f.num(vtable+4+2*int64(n), 2))
	if off == 0 || f.err != nil {
		return 0
	}
	return table + off
}

// follow returns what an offset leads to.
func (f *flat) follow(at int64) int64 { return at + int64(f.num(at, 4)) }

// vector returns where the items of a vector begin, of so many bytes each, and how
// many there are.
func (f *flat) vector(table int64, n int, each int64) (at int64, count int64) {
	pos := f.field(table, n)
	if pos == 0 {
		return 0, 0
	}
	at = f.follow(pos)
	count = int64(f.num(at, 4))
	if f.err == nil && count*each > f.size-at-4 {
		f.err = errors.New("a vector reaches beyond the end")
	}
	if f.err != nil {
		return 0, 0
	}
	return at + 4, count
}

// tables calls see for every table of a vector.
func (f *flat) tables(table int64, n int, see func(i, at int64)) int64 {
	at, count := f.vector(table, n, 4)
	for i := range count {
		if f.err != nil {
			return 0
		}
		see(i, f.follow(at+4*i))
	}
	return count
}

// scanLite judges a model of TensorFlow Lite.
func scanLite(s inspect.Subject, run inspect.Run) error {
	f := &flat{r: s, size: s.Size}
	var names []string
	codes, nodes, graphs := int64(0), int64(0), int64(0)
	if len(s.Head) < 8 || string(s.Head[4:8]) != "TFL3" {
		f.err = errors.New("it does not begin as TensorFlow Lite, version 3")
	} else {
		root := f.follow(0)
		for _, n := range []int{modelExternal, modelExternals} {
			if f.field(root, n) != 0 && f.err == nil {
				run.Report("external-data", s.Data(), "it has its data in other files")
			}
		}
		codes = f.tables(root, modelCodes, func(_, at int64) { names = f.code(at, names) })
		buffers := f.tables(root, modelBuffers, func(_, at int64) { f.buffer(at) })
		graphs = f.tables(root, modelGraphs, func(_, at int64) { nodes += f.graph(at, codes, buffers) })
		if f.err == nil && (graphs == 0 || codes == 0 && nodes > 0) {
			f.err = errors.New("it has no graph")
		}
	}
	if f.err != nil {
		run.Report("broken", s.Data(), "no model that can be read: "+f.err.Error())
		return nil
	}
	judgeCustom(names, s, run)
	run.Note(inspect.Model, fmt.Sprintf("%d nodes of %d operations in %d graphs", nodes, codes, graphs))
	return nil
}

// judgeCustom judges operations by their names; Flex runs one of TensorFlow.
func judgeCustom(names []string, s inspect.Subject, run inspect.Run) {
	var out, strange []string
	for _, name := range names {
		op := strings.TrimPrefix(name, "Flex")
		switch {
		case reaches(op):
			out = append(out, name)
		case op == name || !computes(op):
			strange = append(strange, name)
		}
	}
	if len(out) > 0 {
		run.Report("operation", s.Data(), fmt.Sprintf("it has operations that reach out of the model: %.200q", out))
	}
	if len(strange) > 0 {
		run.Report("custom-operation", inspect.Warn, fmt.Sprintf("it has operations that a library must bring: %.200q", strange))
	}
}

// code reads the code of an operation, and adds the name of one that is not built in.
func (f *flat) code(at int64, names []string) []string {
	builtin := int32(0)
	if pos := f.field(at, 0); pos != 0 {
		builtin = int32(int8(f.num(pos, 1)))
	}
	if pos := f.field(at, 3); pos != 0 {
		builtin = max(builtin, int32(f.num(pos, 4)))
	}
	name := ""
	if start, n := f.vector(at, 1, 1); n > 0 && f.err == nil {
		if n > 1<<10 {
			f.err = errors.New("the name of an operation is too long")
			return names
		}
		b := make([]byte, n)
		if got, err := f.r.ReadAt(b, start); got < len(b) {
			f.err = fmt.Errorf("byte %d: %w", start, err)
		}
		name = string(b)
	}
	switch {
	case f.err != nil:
	case builtin < 0 || builtin > builtinMost:
		f.err = fmt.Errorf("operation %d is not known", builtin)
	case builtin == builtinCustom && name == "":
		f.err = errors.New("an operation has no name")
	case len(names) > maxCodes:
		f.err = errors.New("it has too many operations")
	case name != "" && !slices.Contains(names, name):
		names = append(names, name)
	}
	return names
}

// buffer holds the data of a buffer against the file: in it, or behind it.
func (f *flat) buffer(at int64) {
	f.vector(at, 0, 1)
	offset, size := uint64(0), uint64(0)
	if pos := f.field(at, 1); pos != 0 {
		offset = f.num(pos, 8)
	}
	if pos := f.field(at, 2); pos != 0 {
		size = f.num(pos, 8)
	}
	if f.err == nil && (offset > uint64(f.size) || size > uint64(f.size)-offset) {
		f.err = errors.New("a buffer lies outside of the file")
	}
}

// graph holds the numbers of a graph against what they count, and returns how many
// nodes it has.
func (f *flat) graph(at, codes, buffers int64) int64 {
	f.tables(at, 0, func(_, t int64) {
		f.vector(t, 0, 4)
		if pos := f.field(t, 2); pos != 0 && int64(f.num(pos, 4)) >= buffers && f.err == nil {
			f.err = errors.New("a tensor is in a buffer that is not there")
		}
	})
	return f.tables(at, 3, func(_, t int64) {
		code := int64(0)
		if pos := f.field(t, 0); pos != 0 {
			code = int64(f.num(pos, 4))
		}
		if code >= codes && f.err == nil {
			f.err = errors.New("a node has an operation that is not there")
		}
		f.vector(t, 1, 4)
		f.vector(t, 2, 4)
		f.vector(t, 5, 1)
	})
}
