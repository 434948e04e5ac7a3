package crossing

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"io"
	"slices"

	"enisle/internal/artifact"
	"enisle/internal/carry/shipment"
	"enisle/internal/model/gguf"
	"enisle/internal/model/safetensors"
	"enisle/internal/site"
	"enisle/internal/site/store"
)

// What is worth leaving out, in bytes.
const (
	minModel  = 1 << 20  // a model file
	minTensor = 64 << 10 // a tensor in it
)

// part is a tensor in a model file, by its name and size.
type part struct {
	name string
	size int64
}

// parts returns where the tensors of a model file are, by what they are. A file
// that is no model, or a broken one, has none.
func parts(ctx context.Context, b *store.Blob) map[part]int64 {
	head := make([]byte, 9)
	if _, err := b.ReadAt(head, 0); err != nil {
		return nil
	}
	out := map[part]int64{}
	switch {
	case bytes.HasPrefix(head, []byte(gguf.Magic)):
		h, _, err := gguf.Read(ctx, b, b.Size())
		if err != nil || h.Layout(b.Size()) != nil {
			return nil
		}
		for _, t := range h.Tensors {
			out[part{t.Name, int64(t.Len)}] = int64(h.DataStart + t.Offset)
		}
	case safetensors.Is(head, b.Size()):
		h, err := safetensors.Read(ctx, b, b.Size())
		if err != nil {
			return nil
		}
		for _, t := range h.Tensors {
			out[part{t.Name, int64(t.End - t.Begin)}] = int64(h.DataStart + t.Begin)
		}
	}
	return out
}

// reuse finds the tensors of new model files that the islands hold already in
// others: of the same name, the same size, and the same bytes. It reads the new
// files once more, and of the old ones as much as is the same.
type reuse struct {
	site   *site.Site
	old    []shipment.Base                     // shipments that may be built on, newest first
	found  map[part][]place                    // in the content of old
	used   map[artifact.Digest]bool            // content of old that anything is copied from
	copies map[artifact.Digest][]shipment.Copy // by new blob, in order
}

type place struct {
	content artifact.Digest
	blob    artifact.Digest
	offset  int64
}

// look fills copies for the blobs that must be carried.
func (r *reuse) look(ctx context.Context, carried []blob) error {
	r.found, r.used, r.copies = map[part][]place{}, map[artifact.Digest]bool{}, map[artifact.Digest][]shipment.Copy{}
	wanted := map[artifact.Digest]map[part]int64{}
	for _, b := range carried {
		if b.size < minModel {
			continue
		}
		if has, err := r.partsOf(ctx, b.digest); err != nil {
			return err
		} else if len(has) > 0 {
			wanted[b.digest] = has
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	if err := r.index(ctx); err != nil {
		return err
	}
	for d, has := range wanted {
		if err := r.match(ctx, d, has); err != nil {
			return err
		}
	}
	return nil
}

func (r *reuse) partsOf(ctx context.Context, d artifact.Digest) (map[part]int64, error) {
	f, err := r.site.Held.Open(d)
	if errors.Is(err, artifact.ErrNotHeld) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	out := parts(ctx, f)
	return out, f.Close()
}

// index finds the tensors that the islands hold and this site still does, too.
func (r *reuse) index(ctx context.Context) error {
	seen := map[artifact.Digest]bool{}
	for _, old := range r.old {
		set, err := readSet(r.site.Held.Open, old.Content)
		if err != nil {
			continue // what this site no longer knows cannot be built on
		}
		for _, b := range set.blobs {
			if b.size < minModel || seen[b.digest] {
				continue
			}
			seen[b.digest] = true
			has, err := r.partsOf(ctx, b.digest)
			if err != nil {
				return err
			}
			for p, off := range has {
				if p.size >= minTensor {
					r.found[p] = append(r.found[p], place{old.Content, b.digest, off})
				}
			}
		}
	}
	return nil
}

// match compares the tensors of one new blob with those of their name and size.
func (r *reuse) match(ctx context.Context, d artifact.Digest, has map[part]int64) (err error) {
	f, err := r.site.Held.Open(d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var out []shipment.Copy
	for p, off := range has {
		for _, at := range r.found[p] {
			if err := ctx.Err(); err != nil {
				return err
			}
			same, err := r.same(f, off, at, p.size)
			if err != nil {
				return err
			}
			if same {
				r.used[at.content] = true
				out = append(out, shipment.Copy{Offset: off, Length: p.size, From: shipment.Source{Digest: at.blob, Offset: at.offset}})
				break
			}
		}
	}
	slices.SortFunc(out, func(a, b shipment.Copy) int { return cmp.Compare(a.Offset, b.Offset) })
	r.copies[d] = joinedCopies(out)
	return nil
}

// joinedCopies makes one of copies that continue each other.
func joinedCopies(in []shipment.Copy) (out []shipment.Copy) {
	for _, c := range in {
		if n := len(out) - 1; n >= 0 && out[n].From.Digest == c.From.Digest &&
			out[n].Offset+out[n].Length == c.Offset && out[n].From.Offset+out[n].Length == c.From.Offset {
			out[n].Length += c.Length
			continue
		}
		out = append(out, c)
	}
	return out
}

// same compares size bytes of two blobs.
func (r *reuse) same(f *store.Blob, off int64, at place, size int64) (_ bool, err error) {
	g, err := r.site.Held.Open(at.blob)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, g.Close()) }()
	a, b := make([]byte, 1<<20), make([]byte, 1<<20)
	for done := int64(0); done < size; {
		n := min(int64(len(a)), size-done)
		if _, err := f.ReadAt(a[:n], off+done); err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		if _, err := g.ReadAt(b[:n], at.offset+done); err != nil && !errors.Is(err, io.EOF) {
			return false, err
		}
		if !bytes.Equal(a[:n], b[:n]) {
			return false, nil
		}
		done += n
	}
	return true, nil
}
