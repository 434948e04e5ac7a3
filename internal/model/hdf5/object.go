package hdf5

import (
	"errors"
	"fmt"
)

// Types of messages (IV.A.2).
const (
	msgNil, msgSpace, msgLinkInfo, msgType         = 0x00, 0x01, 0x02, 0x03
	msgOldFill, msgFill, msgLink, msgExternal      = 0x04, 0x05, 0x06, 0x07
	msgLayout, msgGroupInfo, msgFilter             = 0x08, 0x0a, 0x0b
	msgAttribute, msgComment, msgOldTime           = 0x0c, 0x0d, 0x0e
	msgContinue, msgTable, msgTime                 = 0x10, 0x11, 0x12
	msgAttributeInfo, msgReferences                = 0x15, 0x16
	flagShared                                byte = 2
)

// message is one message of an object's header.
type message struct {
	kind  uint64
	flags byte
	body  []byte
}

// object follows one group, dataset or named type.
func (f *file) object(at uint64, path string, depth int) error {
	if depth > maxDepth || len(f.visited) == maxObjects {
		return errors.New("its groups nest too deep, or are too many")
	}
	f.visited[at] = true
	messages, err := f.header(at)
	if err != nil {
		return fmt.Errorf("%.100s: %w", path, err)
	}
	for _, m := range messages {
		if err := f.message(m, path, depth); err != nil {
			return err
		}
	}
	return nil
}

// message judges one message of an object.
func (f *file) message(m message, path string, depth int) (err error) {
	if m.flags&flagShared != 0 && m.kind != msgType {
		return fmt.Errorf("%.100s: message %#x is kept elsewhere, which is not read", path, m.kind)
	}
	c := &cursor{b: m.body}
	switch m.kind {
	case msgNil, msgSpace, msgType, msgOldFill, msgFill, msgGroupInfo, msgComment, msgOldTime, msgTime, msgReferences:
		return nil
	case msgExternal:
		return fmt.Errorf("%.100s: its data are in other files", path)
	case msgLayout:
		f.sum.Datasets++
		err = layout(c)
	case msgFilter:
		err = filters(c)
	case msgAttribute:
		err = f.attribute(c, path)
	case msgAttributeInfo:
		err = f.denseAttributes(c, path)
	case msgTable:
		f.sum.Groups++
		return f.table(c, path, depth)
	case msgLink:
		return f.link(c, path, depth)
	case msgLinkInfo:
		f.sum.Groups++
		return f.denseLinks(c, path, depth)
	default:
		err = fmt.Errorf("message %#x is not known", m.kind)
	}
	if err != nil {
		return fmt.Errorf("%.100s: %w", path, err)
	}
	return nil
}

// header reads all messages of an object (IV.A.1).
func (f *file) header(at uint64) ([]message, error) {
	c, err := f.bytes(at, min(16, f.size-min(at, f.size)))
	if err != nil {
		return nil, err
	}
	if string(c.b[:min(4, len(c.b))]) == "OHDR" {
		return f.header2(at)
	}
	if c.uint(1) != 1 {
		return nil, fmt.Errorf("no object stands at byte %d", at)
	}
	c.take(1)
	count := c.uint(2)
	c.take(4)
	size := c.uint(4)
	blocks := [][2]uint64{{at + 16, size}}
	var out []message
	for i := 0; i < len(blocks); i++ {
		b, err := f.bytes(blocks[i][0], blocks[i][1])
		if err != nil {
			return nil, err
		}
		for len(b.b) >= 8 {
			m := message{kind: b.uint(2)}
			n := b.uint(2)
			m.flags = byte(b.uint(1))
			b.take(3)
			m.body = b.take(n)
			if blocks, out, err = keep(m, blocks, out); err != nil {
				return nil, err
			}
		}
		if b.short || len(b.b) > 0 {
			return nil, errors.New("a message is cut short")
		}
	}
	if uint64(len(out)+len(blocks)-1) != count {
		return nil, fmt.Errorf("an object has %d messages and says %d", len(out)+len(blocks)-1, count)
	}
	return out, c.err()
}

// keep adds a message, or the block that it continues in.
func keep(m message, blocks [][2]uint64, out []message) ([][2]uint64, []message, error) {
	if len(out) > 1<<16 || len(blocks) > 1<<12 {
		return nil, nil, errors.New("an object has too many messages")
	}
	if m.kind != msgContinue {
		return blocks, append(out, m), nil
	}
	c := &cursor{b: m.body}
	return append(blocks, [2]uint64{c.uint(8), c.uint(8)}), out, c.err()
}

// header2 reads the second version of a header.
func (f *file) header2(at uint64) ([]message, error) {
	c, err := f.bytes(at, min(64, f.size-at))
	if err != nil {
		return nil, err
	}
	before := len(c.b)
	c.take(4)
	version, flags := c.uint(1), c.uint(1)
	if version != 2 || flags&^0x3f != 0 {
		return nil, fmt.Errorf("version %d of an object is not known", version)
	}
	if flags&0x20 != 0 {
		c.take(16)
	}
	if flags&0x10 != 0 {
		c.take(4)
	}
	size := c.uint(1 << (flags & 3))
	if err := c.err(); err != nil {
		return nil, err
	}
	blocks := [][2]uint64{{at + uint64(before-len(c.b)), size}}
	var out []message
	for i := 0; i < len(blocks); i++ {
		start, n := blocks[i][0], blocks[i][1]
		if i > 0 {
			if _, err := f.signed(start, 4, "OCHK"); err != nil {
				return nil, err
			}
			if n < 8 {
				return nil, errors.New("a block of messages is cut short")
			}
			start, n = start+4, n-8
		}
		b, err := f.bytes(start, n)
		if err != nil {
			return nil, err
		}
		head := 4
		if flags&4 != 0 {
			head = 6
		}
		for len(b.b) >= head {
			m := message{kind: b.uint(1)}
			n := b.uint(2)
			m.flags = byte(b.uint(1))
			b.take(uint64(head - 4))
			m.body = b.take(n)
			if blocks, out, err = keep(m, blocks, out); err != nil {
				return nil, err
			}
		}
		if b.short {
			return nil, errors.New("a message is cut short")
		}
	}
	return out, nil
}

// layout refuses datasets whose data are those of other datasets (IV.A.2.i).
func layout(c *cursor) error {
	version := c.uint(1)
	class := c.uint(1)
	if version < 3 {
		class = c.uint(1)
	}
	switch {
	case version == 0 || version > 5:
		return fmt.Errorf("version %d of a layout is not known", version)
	case class == 3:
		return errors.New("a virtual dataset, which reads other files")
	case class > 3:
		return fmt.Errorf("a layout of class %d is not known", class)
	}
	return c.err()
}

// filters refuses all but those that every library has (IV.A.2.l): 1 to 6, and the
// lzf of h5py. For others a reader loads a library by their number.
func filters(c *cursor) error {
	version, count := c.uint(1), c.uint(1)
	switch version {
	case 1:
		c.take(6)
	case 2:
	default:
		return fmt.Errorf("version %d of a filter is not known", version)
	}
	for range count {
		id, name := c.uint(2), uint64(0)
		if version == 1 || id >= 256 {
			name = c.uint(2)
		}
		c.take(2)
		values := c.uint(2)
		if version == 1 {
			name = (name + 7) &^ 7
			values += values & 1
		}
		c.take(name)
		c.take(4 * values)
		if err := c.err(); err != nil {
			return err
		}
		if (id < 1 || id > 6) && id != 32000 {
			return fmt.Errorf("filter %d needs a library that a reader would load", id)
		}
	}
	return c.err()
}
