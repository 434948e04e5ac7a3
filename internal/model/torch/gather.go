package torch

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
)

// Memory that copying takes, in bytes.
const (
	chunkSize  = 1 << 20  // of a tensor that stands in order
	boxSize    = 16 << 20 // of a tensor that is gathered
	windowSize = 256 << 10
)

// Size returns how many bytes the tensor has when it is written out.
func (t Tensor) Size() int64 { return t.view.numel * t.view.kind.size }

// Copy writes the elements to w, the last dimension fastest, low byte first, each
// with the bits it has in the file. It holds 17 MiB at most, whatever the size.
func (t Tensor) Copy(ctx context.Context, w io.Writer) error {
	v := t.view
	if v.numel == 0 {
		return nil
	}
	var err error
	if v.ordered() {
		err = v.copyRun(ctx, w)
	} else {
		err = v.gather(ctx, w)
	}
	if err != nil {
		return fmt.Errorf("tensor %.80q: %w", t.Name, err)
	}
	return nil
}

// ordered reports whether the elements stand in the storage as they are written.
func (v *view) ordered() bool {
	step := int64(1)
	for i := len(v.shape) - 1; i >= 0; i-- {
		if v.shape[i] != 1 && v.strides[i] != step {
			return false
		}
		step *= v.shape[i]
	}
	return true
}

// read fills b with what stands at an element of the storage.
func (v *view) read(b []byte, element int64) error {
	s := v.storage
	at := s.base + element*v.kind.size
	if at < 0 || at+int64(len(b)) > s.data.bytes {
		return fmt.Errorf("bytes %d to %d are outside of storage %.80q", at, at+int64(len(b)), s.key)
	}
	n, err := s.data.r.ReadAt(b, s.data.at+at)
	if n == len(b) {
		err = nil
	}
	if err != nil {
		return err
	}
	if s.big && v.kind.swap > 1 {
		for i := int64(0); i < int64(len(b)); i += v.kind.swap {
			slices.Reverse(b[i : i+v.kind.swap])
		}
	}
	return nil
}

func (v *view) copyRun(ctx context.Context, w io.Writer) error {
	buf := make([]byte, min(chunkSize, v.numel*v.kind.size)) // whole elements: sizes are powers of two
	for at := int64(0); at < v.numel; {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(int64(len(buf))/v.kind.size, v.numel-at)
		part := buf[:n*v.kind.size]
		if err := v.read(part, v.offset+at); err != nil {
			return err
		}
		if _, err := w.Write(part); err != nil {
			return err
		}
		at += n
	}
	return nil
}

// axis is one dimension of what is gathered: how many elements, how far apart in
// the storage, and how far apart in the output.
type axis struct{ n, from, to int64 }

// gather writes the elements box by box. A box is a run of the output that fits
// into memory; within it the storage is read in its own order.
func (v *view) gather(ctx context.Context, w io.Writer) error {
	room := boxSize / v.kind.size
	// Dimensions from cut on fit into a box whole; of the one before, a part does.
	whole, cut := int64(1), len(v.shape)
	for cut > 0 && whole*v.shape[cut-1] <= room {
		cut--
		whole *= v.shape[cut]
	}
	band := int64(1)
	if cut > 0 {
		band = max(1, room/whole)
	}
	g := &gatherer{view: v, ctx: ctx, out: make([]byte, min(room, whole*band)*v.kind.size)}
	index := make([]int64, cut) // of the first element of the box, outer dimensions
	for {
		axes := make([]axis, 0, len(v.shape))
		first, to := v.offset, whole
		for i := range index {
			first += index[i] * v.strides[i]
		}
		n := whole
		if cut > 0 {
			rows := min(band, v.shape[cut-1]-index[cut-1])
			axes = append(axes, axis{rows, v.strides[cut-1], whole})
			n *= rows
		}
		for i := cut; i < len(v.shape); i++ {
			to /= v.shape[i]
			axes = append(axes, axis{v.shape[i], v.strides[i], to})
		}
		if err := g.box(axes, first); err != nil {
			return err
		}
		if _, err := w.Write(g.out[:n*v.kind.size]); err != nil {
			return err
		}
		if !advance(index, v.shape, band) {
			return nil
		}
	}
}

// advance goes to the next box.
func advance(index, shape []int64, band int64) bool {
	for i := len(index) - 1; i >= 0; i-- {
		step := int64(1)
		if i == len(index)-1 {
			step = band
		}
		if index[i] += step; index[i] < shape[i] {
			return true
		}
		index[i] = 0
	}
	return false
}

// gatherer fills boxes.
type gatherer struct {
	*view
	ctx  context.Context //nolint:containedctx // lives for one tensor
	out  []byte
	runs int

	window []byte // what was read last
	from   int64  // its first element
	ahead  int64  // elements to read at once, where they stand close together
}

// box fills out. The innermost dimension is the one whose elements stand closest
// together in the storage, so that one read serves many; repeated dimensions
// (stride 0) come just outside of it, so that the same read serves all.
func (g *gatherer) box(axes []axis, first int64) error {
	axes = slices.DeleteFunc(axes, func(a axis) bool { return a.n == 1 })
	if len(axes) == 0 {
		axes = []axis{{1, 1, 1}}
	}
	slices.SortStableFunc(axes, func(a, b axis) int { return cmp.Compare(b.from, a.from) })
	// The last dimension that moves goes inside of those that repeat.
	moves := len(axes) - 1
	for moves > 0 && axes[moves].from == 0 {
		moves--
	}
	inner := axes[moves]
	outer := slices.Delete(slices.Clone(axes), moves, moves+1)
	g.ahead = 0
	if span := (inner.n-1)*inner.from + 1; moves > 0 && axes[moves-1].from <= 4*span {
		g.ahead = windowSize / g.kind.size
	}
	g.window = g.window[:0]
	return g.fill(outer, inner, first, 0)
}

// fill does the outer dimensions one by one, and then a row of the inner one.
func (g *gatherer) fill(outer []axis, inner axis, from, to int64) error {
	if len(outer) == 0 {
		return g.row(inner, from, to)
	}
	for range outer[0].n {
		if err := g.fill(outer[1:], inner, from, to); err != nil {
			return err
		}
		from += outer[0].from
		to += outer[0].to
	}
	return nil
}

func (g *gatherer) row(a axis, from, to int64) error {
	if g.runs++; g.runs%1024 == 0 && g.ctx.Err() != nil {
		return g.ctx.Err()
	}
	size := g.kind.size
	for done := int64(0); done < a.n; {
		// As many as one window covers; at least one.
		n := a.n - done
		if a.from > 0 {
			n = min(n, max(1, (windowSize/size-1)/a.from+1))
		}
		b, err := g.at(from, (n-1)*a.from+1)
		if err != nil {
			return err
		}
		for i := range n {
			copy(g.out[(to+i*a.to)*size:][:size], b[i*a.from*size:])
		}
		done += n
		from += n * a.from
		to += n * a.to
	}
	return nil
}

// at returns n elements of the storage from one on.
func (g *gatherer) at(element, n int64) ([]byte, error) {
	size := g.kind.size
	if at := element - g.from; at >= 0 && (at+n)*size <= int64(len(g.window)) {
		return g.window[at*size : (at+n)*size], nil
	}
	held := (g.storage.data.bytes - g.storage.base) / size
	want := min(max(n, g.ahead), held-element)
	if want < n {
		return nil, fmt.Errorf("element %d is outside of storage %.80q", element, g.storage.key)
	}
	if int64(cap(g.window)) < want*size {
		g.window = make([]byte, want*size)
	}
	g.window, g.from = g.window[:want*size], element
	if err := g.read(g.window, element); err != nil {
		return nil, err
	}
	return g.window[:n*size], nil
}
