package pickle

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"regexp"
	"strconv"
	"strings"

	"enisle/internal/judge/inspect"
)

// numpyHead is the header of a .npy, exactly as numpy writes it: three keys in this
// order, once each, without escapes (numpy, lib/format.py, format versions 1 to 3).
var numpyHead = regexp.MustCompile(`^\{'descr': ([^\\]+), 'fortran_order': (?:True|False), 'shape': \(((?:\d+,? ?)*)\), \} *\n$`)

// numpyArrays reads the arrays of a file, one or several that stand behind each
// other. It returns where pickled objects begin, if an array is of such.
func numpyArrays(s inspect.Subject) (start int64, objects bool, err error) {
	for at := int64(0); ; {
		data, objects, size, err := numpyHeader(s, at)
		if err != nil && at > 0 {
			err = fmt.Errorf("behind an array: %w", err)
		}
		if err != nil || objects {
			return data, objects, err
		}
		if size > uint64(s.Size-data) {
			return 0, false, errors.New("the numbers are cut short")
		}
		if at = data + int64(size); at == s.Size {
			return 0, false, nil
		}
	}
}

// numpyHeader reads the header at an offset. It returns where the data begin, whether
// they are pickled objects, and how many bytes they are if not.
func numpyHeader(s inspect.Subject, at int64) (data int64, objects bool, n uint64, err error) {
	begin := make([]byte, 12)
	if _, err := s.ReadAt(begin, at); err != nil {
		return 0, false, 0, errors.New("the header is cut short")
	}
	size, start := int64(binary.LittleEndian.Uint16(begin[8:])), at+10
	if begin[6] > 1 {
		size, start = int64(binary.LittleEndian.Uint32(begin[8:])), at+12
	}
	if !bytes.HasPrefix(begin, []byte(numpyMagic)) || begin[6] < 1 || begin[6] > 3 || size > 1<<20 || start+size > s.Size {
		return 0, false, 0, errors.New("the header is of an unknown version or too long")
	}
	head := make([]byte, size)
	if _, err := s.ReadAt(head, start); err != nil && !errors.Is(err, io.EOF) {
		return 0, false, 0, err
	}
	m := numpyHead.FindSubmatch(head)
	if m == nil || bytes.Contains(m[1], []byte("'fortran_order'")) {
		return 0, false, 0, errors.New("the header is not as numpy writes it")
	}
	d := descr{rest: string(m[1])}
	item, ok := d.read(0)
	if !ok || d.rest != "" {
		return start + size, true, 0, nil // what is not certainly plain is taken for objects
	}
	count, ok := shapeOf(string(m[2]))
	hi, lo := bits.Mul64(count, item)
	if !ok || hi != 0 || lo > 1<<62 || item == 0 && count > 1<<10 {
		return 0, false, 0, errors.New("the shape overflows")
	}
	return start + size, false, lo, nil
}

// shapeOf multiplies dimensions, separated by commas.
func shapeOf(shape string) (uint64, bool) {
	count := uint64(1)
	for d := range strings.SplitSeq(shape, ",") {
		if d = strings.TrimSpace(d); d == "" {
			continue
		}
		n, err := strconv.ParseUint(d, 10, 62)
		hi, lo := bits.Mul64(count, n)
		if err != nil || hi != 0 {
			return 0, false
		}
		count = lo
	}
	return count, true
}

// descr reads the description of a type: a name, or the fields of a record, which may
// be records themselves. It knows only types of fixed size that are no objects.
type descr struct{ rest string }

var (
	descrType  = regexp.MustCompile(`^'[<>|=]?([biufcSUVmM?])(\d*)(?:\[\d*[a-zA-Z]+\])?'`)
	descrName  = regexp.MustCompile(`^(?:'[^'\\]*'|"[^"\\]*"|\((?:'[^'\\]*'|"[^"\\]*"), (?:'[^'\\]*'|"[^"\\]*")\)), `)
	descrShape = regexp.MustCompile(`^, \(((?:\d+,? ?)*)\)`)
)

func (d *descr) cut(prefix string) bool {
	rest, ok := strings.CutPrefix(d.rest, prefix)
	d.rest = rest
	return ok
}

// read returns the size of one item in bytes; ok is false for anything else.
func (d *descr) read(depth int) (size uint64, ok bool) {
	if m := descrType.FindStringSubmatch(d.rest); m != nil {
		d.rest = d.rest[len(m[0]):]
		n, err := strconv.ParseUint("0"+m[2], 10, 31)
		switch {
		case err != nil:
			return 0, false
		case m[1] == "U":
			n *= 4
		case m[1] == "?" && m[2] == "":
			n = 1
		}
		return n, true
	}
	if depth > 10 || !d.cut("[") {
		return 0, false
	}
	for !d.cut("]") {
		one, ok := d.field(depth)
		if !ok {
			return 0, false
		}
		if size += one; size > 1<<40 {
			return 0, false
		}
		d.cut(", ")
	}
	return size, true
}

// field reads a pair of a name and a type, or these and a shape.
func (d *descr) field(depth int) (size uint64, ok bool) {
	if !d.cut("(") {
		return 0, false
	}
	d.rest = d.rest[len(descrName.FindString(d.rest)):]
	if size, ok = d.read(depth + 1); !ok {
		return 0, false
	}
	if m := descrShape.FindStringSubmatch(d.rest); m != nil {
		d.rest = d.rest[len(m[0]):]
		count, ok := shapeOf(m[1])
		hi, lo := bits.Mul64(size, count)
		if !ok || hi != 0 {
			return 0, false
		}
		size = lo
	}
	return size, d.cut(")")
}
