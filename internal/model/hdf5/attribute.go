package hdf5

import (
	"bytes"
	"errors"
	"fmt"
)

// Classes of types (IV.A.2.d).
const (
	classString = 3
	classVlen   = 9
)

// attribute reads one attribute (IV.A.2.m).
func (f *file) attribute(c *cursor, path string) error {
	version, flags := c.uint(1), c.uint(1)
	nameSize, typeSize, spaceSize := c.uint(2), c.uint(2), c.uint(2)
	round := func(n uint64) uint64 { return n }
	switch version {
	case 1:
		flags = 0
		round = func(n uint64) uint64 { return (n + 7) &^ 7 }
	case 2:
	case 3:
		c.take(1)
	default:
		return fmt.Errorf("version %d of an attribute is not known", version)
	}
	if flags != 0 {
		return errors.New("an attribute is of a type that is kept elsewhere, which is not read")
	}
	rawName := c.take(round(nameSize))
	is := &cursor{b: c.take(round(typeSize))}
	space := &cursor{b: c.take(round(spaceSize))}
	if err := c.err(); err != nil {
		return err
	}
	name, _, ok := bytes.Cut(rawName[:nameSize], []byte{0})
	if !ok {
		return errors.New("an attribute has a name without end")
	}
	f.sum.Attributes++
	a := Attribute{Object: path, Name: string(name)}
	n, err := elements(space)
	if err == nil {
		a.Text, err = f.texts(is, c, n)
	}
	if err != nil {
		return fmt.Errorf("attribute %.60q: %w", a.Name, err)
	}
	return f.see(a)
}

// elements returns how many values a space has (IV.A.2.b).
func elements(c *cursor) (uint64, error) {
	version, rank, flags := c.uint(1), c.uint(1), c.uint(1)
	switch version {
	case 1:
		c.take(5)
	case 2:
		if c.uint(1) == 2 {
			return 0, c.err() // null
		}
	default:
		return 0, fmt.Errorf("version %d of a space is not known", version)
	}
	if rank > 32 || flags&^3 != 0 {
		return 0, errors.New("a space is not read")
	}
	n := uint64(1)
	for range rank {
		d := c.uint(8)
		if d > 1<<40 || n > 1<<20 && d > 1 {
			return 0, errors.New("a space is too large")
		}
		n *= d
	}
	return n, c.err()
}

// texts reads the values of an attribute if they are text.
func (f *file) texts(is, data *cursor, n uint64) ([]string, error) {
	class := is.uint(1)
	kind := is.uint(3)
	size := is.uint(4)
	if err := is.err(); err != nil {
		return nil, err
	}
	text := class&15 == classString || class&15 == classVlen && kind&15 == 1
	if !text {
		return nil, nil
	}
	if n > maxElems || size == 0 {
		return nil, errors.New("it holds too many texts, or texts of no size")
	}
	out := []string{}
	for range n {
		if class&15 == classString {
			v := data.take(size)
			if err := data.err(); err != nil {
				return nil, err
			}
			out = append(out, trim(v))
			continue
		}
		length, heap, index := data.uint(4), data.uint(8), data.uint(4)
		if err := data.err(); err != nil {
			return nil, err
		}
		if length == 0 {
			out = append(out, "")
			continue
		}
		v, err := f.global(heap, index, length)
		if err != nil {
			return nil, err
		}
		out = append(out, trim(v))
	}
	return out, nil
}

// trim cuts the zeros off that fill a text up.
func trim(b []byte) string { return string(bytes.TrimRight(b, "\x00")) }

// global returns an object of a global heap (III.E).
func (f *file) global(at, index, length uint64) ([]byte, error) {
	c, err := f.signed(at, 16, "GCOL")
	if err != nil {
		return nil, err
	}
	c.take(4)
	size := c.uint(8)
	if size < 16 || size > maxText {
		return nil, errors.New("a heap of texts is too large")
	}
	for pos := uint64(16); pos+16 <= size; {
		c, err := f.bytes(at+pos, 16)
		if err != nil {
			return nil, err
		}
		is := c.uint(2)
		c.take(6)
		n := c.uint(8)
		if is == 0 || n > size-pos-16 {
			break
		}
		if is == index {
			if length != n {
				return nil, errors.New("a text has another length in its heap")
			}
			v, err := f.long(at+pos+16, n)
			if err != nil {
				return nil, err
			}
			return v.b, nil
		}
		pos += 16 + (n+7)&^7
	}
	return nil, errors.New("a text is not in its heap")
}
