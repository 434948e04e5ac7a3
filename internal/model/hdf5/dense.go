package hdf5

import (
	"cmp"
	"errors"
	"fmt"
	"math/bits"
	"slices"
)

// heap is a fractal heap (III.G): blocks, of which the first are of one size and
// every later row of twice the size of the one before.
type heap struct {
	f                  *file
	at                 uint64 // of its header
	idSize, offsetSize int
	width, start, most uint64      // blocks of a row; bytes of the first and the largest that holds objects
	blocks             []heapBlock // by offset
}

// heapBlock holds objects. offset is where it stands in the space of the heap.
type heapBlock struct{ offset, size, at uint64 }

// stored hands every object of a heap to see, in the order of an index of a type.
func (f *file) stored(at, tree uint64, kind uint64, see func(*cursor) error) error {
	h, objects, err := f.openHeap(at)
	if err != nil {
		return err
	}
	ids, err := f.records(tree, kind, h.idSize)
	if err != nil {
		return err
	}
	if uint64(len(ids)) != objects {
		return fmt.Errorf("a heap has %d objects and its index %d", objects, len(ids))
	}
	for _, id := range ids {
		c, err := h.get(id)
		if err != nil {
			return err
		}
		if err := see(c); err != nil {
			return err
		}
	}
	return nil
}

func (f *file) openHeap(at uint64) (*heap, uint64, error) {
	c, err := f.signed(at, 146, "FRHP")
	if err != nil {
		return nil, 0, err
	}
	h := &heap{f: f, at: at}
	version := c.uint(1)
	h.idSize = int(c.uint(2))
	filtered := c.uint(2)
	c.take(1 + 4 + 8 + 8 + 8 + 8 + 8 + 8 + 8)
	objects := c.uint(8)
	c.take(8)
	huge := c.uint(8)
	c.take(8)
	tiny := c.uint(8)
	h.width, h.start, h.most = c.uint(2), c.uint(8), c.uint(8)
	h.offsetSize = int(c.uint(2)+7) / 8
	c.take(2)
	root, rows := c.uint(8), c.uint(2)
	power := func(n uint64) bool { return n > 0 && n&(n-1) == 0 }
	switch {
	case version != 0 || filtered != 0 || huge != 0 || tiny != 0:
		return nil, 0, errors.New("a heap is filtered, or has objects of other kinds")
	case !power(h.width) || !power(h.start) || !power(h.most) || h.most > 1<<16 || h.start > h.most || h.width > 1<<10:
		return nil, 0, errors.New("the blocks of a heap are of sizes that are not read")
	case h.offsetSize < 1 || h.offsetSize > 8 || h.idSize < 1+h.offsetSize+2 || h.idSize > 16:
		return nil, 0, errors.New("the objects of a heap have names that are not read")
	case root == undefined:
		return h, objects, nil
	case rows == 0:
		h.blocks = []heapBlock{{0, h.start, root}}
		return h, objects, c.err()
	}
	return h, objects, errors.Join(c.err(), h.indirect(root, 0, rows, 0))
}

// rowSize returns the size of each block in a row.
func (h *heap) rowSize(row uint64) uint64 { return h.start << max(0, int(row)-1) }

// indirect reads a block that points at others.
func (h *heap) indirect(at, offset, rows uint64, depth int) error {
	if depth > 4 || rows > 40 || len(h.blocks) > maxLinks {
		return errors.New("a heap is too large")
	}
	c, err := h.f.signed(at, blockHead+uint64(h.offsetSize)+rows*h.width*8, "FHIB")
	if err != nil {
		return err
	}
	c.take(1)
	if c.uint(8) != h.at || c.uint(h.offsetSize) != offset {
		return errors.New("a block of a heap belongs to another")
	}
	for row := range rows {
		size := h.rowSize(row)
		for range h.width {
			child := c.uint(8)
			switch {
			case child == undefined:
			case size <= h.most:
				h.blocks = append(h.blocks, heapBlock{offset, size, child})
			default:
				in := uint64(bits.Len64(size)-bits.Len64(h.start*h.width)) + 1
				if err := h.indirect(child, offset, in, depth+1); err != nil {
					return err
				}
			}
			offset += size
		}
	}
	return c.err()
}

// get returns an object by its name: a byte of flags, where it is and its length.
func (h *heap) get(id []byte) (*cursor, error) {
	c := &cursor{b: id}
	if c.uint(1) != 0 {
		return nil, errors.New("an object of a heap is of a kind that is not read")
	}
	offset, size := c.uint(h.offsetSize), c.uint(2)
	i, exact := slices.BinarySearchFunc(h.blocks, offset, func(b heapBlock, at uint64) int { return cmp.Compare(b.offset, at) })
	if !exact {
		i--
	}
	if i < 0 {
		return nil, errOutside
	}
	b := h.blocks[i]
	head, err := h.f.signed(b.at, blockHead+uint64(h.offsetSize), "FHDB")
	if err != nil {
		return nil, err
	}
	head.take(1)
	in := offset - b.offset
	if head.uint(8) != h.at || head.uint(h.offsetSize) != b.offset || in < blockHead+uint64(h.offsetSize) || in > b.size || size > b.size-in {
		return nil, errOutside
	}
	return h.f.bytes(b.at+in, size)
}

var errOutside = errors.New("an object lies outside of its heap")

// records reads the names of objects from a B-tree of the second version (III.A.2).
func (f *file) records(at, kind uint64, idSize int) ([][]byte, error) {
	c, err := f.signed(at, 38, "BTHD")
	if err != nil {
		return nil, err
	}
	t := tree2{f: f, kind: kind, id: idSize}
	version, is := c.uint(1), c.uint(1)
	t.node, t.record = c.uint(4), c.uint(2)
	depth := c.uint(2)
	c.take(2)
	root, used, total := c.uint(8), c.uint(2), c.uint(8)
	want := uint64(idSize) + 4
	if kind == 8 {
		want = uint64(idSize) + 9
	}
	if version != 0 || is != kind || t.record != want || t.node < 64 || t.node > 1<<20 || depth > 8 || total > maxLinks {
		return nil, errors.New("an index is of a kind that is not read")
	}
	if root == undefined {
		return nil, c.err()
	}
	most := (t.node - 10) / t.record
	t.counts, t.totals = limitSize(most), []int{0}
	sum := most
	for d := range depth {
		pointer := 8 + uint64(t.counts+t.totals[d])
		if t.node < 10+pointer {
			return nil, errors.New("an index has nodes that are too small")
		}
		n := (t.node - 10 - pointer) / (t.record + pointer)
		if hi, lo := bits.Mul64(n+1, sum); hi != 0 || lo > 1<<60 {
			return nil, errors.New("an index is too deep")
		}
		sum = (n+1)*sum + n
		t.totals = append(t.totals, limitSize(sum))
	}
	if err := t.read(root, used, int(depth)); err != nil {
		return nil, err
	}
	if uint64(len(t.out)) != total {
		return nil, fmt.Errorf("an index has %d entries and says %d", len(t.out), total)
	}
	return t.out, c.err()
}

// limitSize returns how many bytes the library gives to numbers of up to n.
func limitSize(n uint64) int { return (bits.Len64(n)-1)/8 + 1 }

type tree2 struct {
	f            *file
	kind         uint64
	id           int
	node, record uint64 // bytes
	counts       int    // bytes of a number of entries
	totals       []int  // bytes of a number of all entries below, by depth
	out          [][]byte
}

func (t *tree2) read(at, used uint64, depth int) error {
	signature := "BTLF"
	if depth > 0 {
		signature = "BTIN"
	}
	c, err := t.f.signed(at, t.node, signature)
	if err != nil {
		return err
	}
	if c.uint(1) != 0 || c.uint(1) != t.kind || used > t.node/t.record || len(t.out) > maxLinks {
		return errors.New("a node of an index is of the wrong kind")
	}
	for range used {
		r := c.take(t.record)
		if len(r) < int(t.record) {
			return c.err()
		}
		if t.kind == 5 {
			r = r[4:] // behind the hash of the name
		}
		t.out = append(t.out, r[:t.id])
	}
	if depth == 0 {
		return c.err()
	}
	for range used + 1 {
		child, n := c.uint(8), c.uint(t.counts)
		c.take(uint64(t.totals[depth-1]))
		if err := c.err(); err != nil {
			return err
		}
		if err := t.read(child, n, depth-1); err != nil {
			return err
		}
	}
	return nil
}
