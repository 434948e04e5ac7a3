package hdf5

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
)

// child follows a member of a group.
func (f *file) child(at uint64, path, name string, depth int) error {
	if f.visited[at] {
		return nil // a second hard link
	}
	if len(path)+len(name) > maxPath {
		return errors.New("its names are too long")
	}
	return f.object(at, strings.TrimSuffix(path, "/")+"/"+name, depth+1)
}

// table follows a group of the first version: a B-tree of names in a heap (III.A.1).
func (f *file) table(c *cursor, path string, depth int) error {
	tree, heap := c.uint(8), c.uint(8)
	if err := c.err(); err != nil {
		return err
	}
	h, err := f.signed(heap, 32, "HEAP")
	if err != nil {
		return err
	}
	h.take(4)
	size := h.uint(8)
	h.take(8)
	names, err := f.bytes(h.uint(8), size)
	if err != nil {
		return err
	}
	left := maxLinks
	return f.treeNode(tree, -1, &left, func(name uint64, object uint64) error {
		if name > uint64(len(names.b)) {
			return errors.New("a name lies outside of its heap")
		}
		text, _, ok := bytes.Cut(names.b[name:min(name+maxPath, uint64(len(names.b)))], []byte{0})
		if !ok {
			return errors.New("a name has no end")
		}
		return f.child(object, path, string(text), depth)
	})
}

// treeNode reads one node of such a B-tree; level is what its parent says, -1: none.
func (f *file) treeNode(at uint64, level int, left *int, see func(name, object uint64) error) error {
	c, err := f.signed(at, nodeHead, "TREE")
	if err != nil {
		return err
	}
	kind, has, used := c.uint(1), int(c.uint(1)), c.uint(2)
	if kind != 0 || level >= 0 && has != level || has > maxDepth {
		return errors.New("a node of a group is of the wrong kind")
	}
	if c, err = f.bytes(at+nodeHead, used*16); err != nil {
		return err
	}
	for range used {
		c.take(8)
		child := c.uint(8)
		if *left--; *left < 0 {
			return errors.New("a group has too many members")
		}
		if has > 0 {
			err = f.treeNode(child, has-1, left, see)
		} else {
			err = f.symbols(child, left, see)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// symbols reads a node of names (III.B).
func (f *file) symbols(at uint64, left *int, see func(name, object uint64) error) error {
	c, err := f.signed(at, 8, "SNOD")
	if err != nil {
		return err
	}
	c.take(2)
	n := c.uint(2)
	if c, err = f.bytes(at+8, n*symbolSize); err != nil {
		return err
	}
	for range n {
		name, object, cache := c.uint(8), c.uint(8), c.uint(4)
		c.take(20)
		if cache > 1 {
			return errors.New("a link that is not to an object of its own")
		}
		if *left--; *left < 0 {
			return errors.New("a group has too many members")
		}
		if err := see(name, object); err != nil {
			return err
		}
	}
	return nil
}

// link follows a link that a group of the second version has (IV.A.2.g).
func (f *file) link(c *cursor, path string, depth int) error {
	version, flags := c.uint(1), c.uint(1)
	if version != 1 || flags&^0x1f != 0 {
		return fmt.Errorf("%.100s: version %d of a link is not known", path, version)
	}
	kind := uint64(0)
	if flags&8 != 0 {
		kind = c.uint(1)
	}
	if flags&4 != 0 {
		c.take(8)
	}
	if flags&0x10 != 0 {
		c.take(1)
	}
	name := string(c.take(c.uint(1 << (flags & 3))))
	if kind == 64 {
		return fmt.Errorf("%.100s: %.60q is a link into another file", path, name)
	}
	if kind != 0 {
		return fmt.Errorf("%.100s: %.60q is a link that is not to an object of its own", path, name)
	}
	object := c.uint(8)
	if err := c.err(); err != nil {
		return err
	}
	return f.child(object, path, name, depth)
}

// denseLinks follows the links of a group that keeps them in a heap (IV.A.2.c).
func (f *file) denseLinks(c *cursor, path string, depth int) error {
	heap, tree, err := c.dense(8)
	if err != nil || heap == undefined {
		return err
	}
	return f.stored(heap, tree, 5, func(c *cursor) error { return f.link(c, path, depth) })
}

// denseAttributes follows the attributes that are kept in a heap (IV.A.2.v).
func (f *file) denseAttributes(c *cursor, path string) error {
	heap, tree, err := c.dense(2)
	if err != nil || heap == undefined {
		return err
	}
	return f.stored(heap, tree, 8, func(c *cursor) error { return f.attribute(c, path) })
}

// dense reads where links or attributes are kept; order is the size of a number.
func (c *cursor) dense(order uint64) (heap, tree uint64, err error) {
	version, flags := c.uint(1), c.uint(1)
	if version != 0 || flags&^3 != 0 {
		return 0, 0, fmt.Errorf("version %d of an index is not known", version)
	}
	if flags&1 != 0 {
		c.take(order)
	}
	return c.uint(8), c.uint(8), c.err()
}
