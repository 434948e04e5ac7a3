// Package hdf5 follows the structure of HDF5 files: every group, every link and the
// text of every attribute.
//
// It reads no data of datasets. What makes a reader open another file or load code,
// external links and storage, virtual datasets and filters of strangers, is an
// error, and so is every structure that it does not know. Format: HDF5 File Format
// Specification 3.0; section numbers below are of it.
package hdf5

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// Magic is how a file begins.
const Magic = "\x89HDF\r\n\x1a\n"

const (
	undefined  = ^uint64(0) // an address of nothing
	maxObjects = 1 << 20
	maxDepth   = 64          // groups inside of groups, blocks inside of blocks
	maxBlock   = 16 << 20    // bytes that are read at once
	maxText    = 64 << 20    // bytes of one attribute
	maxRead    = 64 << 20    // bytes of all reads, beyond four times the file
	readCost   = 64          // bytes that a read counts for at least
	maxPath    = 64 << 10    // bytes of all names on the way to an object
	maxLinks   = 1 << 20     // of one group
	maxElems   = 1 << 20     // texts of one attribute
	nodeHead   = 8 + 2*8     // bytes of a node of a B-tree, version 1, before its keys
	symbolSize = 40          // bytes of an entry of a symbol table
	blockHead  = 4 + 1 + 1*8 // bytes of a block of a heap before its offset
)

// Attribute is one attribute of a group or dataset.
type Attribute struct {
	Object string // path of the group or dataset, "/" for the root
	Name   string
	Text   []string // its values; nil if it holds no text
}

// Summary is what a file holds.
type Summary struct{ Groups, Datasets, Attributes int }

type file struct {
	ctx     context.Context
	r       io.ReaderAt
	size    uint64
	read    uint64
	see     func(Attribute) error
	sum     Summary
	visited map[uint64]bool
}

// Read follows a file of size bytes and hands every attribute to see, whose error
// ends it. An error says what could not be followed, or may not be.
func Read(ctx context.Context, r io.ReaderAt, size int64, see func(Attribute) error) (Summary, error) {
	f := &file{ctx: ctx, r: r, size: uint64(size), see: see, visited: map[uint64]bool{}}
	root, err := f.superblock()
	if err == nil {
		err = f.object(root, "/", 0)
	}
	return f.sum, err
}

// bytes reads n bytes at an address.
func (f *file) bytes(at, n uint64) (*cursor, error) {
	if n > maxBlock {
		return nil, fmt.Errorf("a structure at byte %d has %d bytes", at, n)
	}
	return f.long(at, n)
}

func (f *file) long(at, n uint64) (*cursor, error) {
	if err := f.ctx.Err(); err != nil {
		return nil, err
	}
	if at > f.size || n > f.size-at {
		return nil, fmt.Errorf("a structure at byte %d lies outside of the file", at)
	}
	if f.read += n + readCost; f.read > maxRead+4*f.size {
		return nil, errors.New("its structures are too large")
	}
	b := make([]byte, n)
	if got, err := f.r.ReadAt(b, int64(at)); got < len(b) {
		return nil, fmt.Errorf("%w: %v", io.ErrUnexpectedEOF, err)
	}
	return &cursor{b: b}, nil
}

// signed reads n bytes that begin with a signature.
func (f *file) signed(at, n uint64, signature string) (*cursor, error) {
	c, err := f.bytes(at, n)
	if err == nil && string(c.take(4)) != signature {
		err = fmt.Errorf("no %s stands at byte %d", signature, at)
	}
	return c, err
}

// cursor reads little-endian numbers. What is beyond the end reads as zero, and is
// remembered.
type cursor struct {
	b     []byte
	short bool
}

func (c *cursor) take(n uint64) []byte {
	if n > uint64(len(c.b)) {
		c.short, c.b = true, nil
		return make([]byte, min(n, 16))
	}
	out := c.b[:n]
	c.b = c.b[n:]
	return out
}

// uint reads a number of up to 8 bytes.
func (c *cursor) uint(n int) uint64 {
	var b [8]byte
	copy(b[:], c.take(uint64(n)))
	return binary.LittleEndian.Uint64(b[:])
}

func (c *cursor) err() error {
	if c.short {
		return errors.New("a structure is cut short")
	}
	return nil
}

// superblock reads where the root is (II.A).
func (f *file) superblock() (root uint64, err error) {
	c, err := f.bytes(0, min(f.size, 100))
	if err != nil {
		return 0, err
	}
	if !bytes.HasPrefix(c.b, []byte(Magic)) {
		return 0, errors.New("it does not begin as HDF5")
	}
	c.take(8)
	version := c.uint(1)
	var base, end, driver, extension uint64 = 0, 0, undefined, undefined
	switch version {
	case 0, 1:
		c.take(4)
		if c.uint(2) != 0x0808 {
			return 0, errors.New("its addresses are not of 8 bytes")
		}
		c.take(1 + 2 + 2 + 4)
		if version == 1 {
			c.take(4)
		}
		base, _, end, driver = c.uint(8), c.uint(8), c.uint(8), c.uint(8)
		c.take(8)
		root = c.uint(8)
	case 2, 3:
		if c.uint(2) != 0x0808 {
			return 0, errors.New("its addresses are not of 8 bytes")
		}
		c.take(1)
		base, extension, end, root = c.uint(8), c.uint(8), c.uint(8), c.uint(8)
	default:
		return 0, fmt.Errorf("version %d of the superblock is not known", version)
	}
	switch {
	case base != 0 || driver != undefined || extension != undefined:
		return 0, errors.New("it is spread over files, or extended, by its superblock")
	case end != f.size:
		return 0, fmt.Errorf("it has %d bytes and says %d", f.size, end)
	}
	return root, c.err()
}
