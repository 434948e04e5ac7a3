package crossing

import (
	"context"
	"errors"
	"fmt"

	"enisle/internal/artifact"
	"enisle/internal/carry/shipment"
	"enisle/internal/fail"
	"enisle/internal/site"
	"enisle/internal/site/state"
	"enisle/internal/site/store"
)

// errAgain says that what an interrupted import left cannot be continued.
var errAgain = errors.New("start again from the first frame")

// sink puts the chunks of a shipment into quarantine. It takes only blobs that
// the signed content root asks for: first the index, then the manifests it
// names, then the files they name.
type sink struct {
	site     *site.Site
	content  artifact.Digest
	base     map[artifact.Digest]bool  // held already, and left out
	expected map[artifact.Digest]int64 // size in bytes; -1 for the index
	entries  map[artifact.Digest]store.Entry
	request  string

	blob shipment.Blob // the one being written
	w    *store.Writer
	skip bool // it is held already
}

func newSink(s *site.Site, content artifact.Digest, base map[artifact.Digest]bool) *sink {
	return &sink{site: s, content: content, base: base, expected: map[artifact.Digest]int64{content: -1}, entries: map[artifact.Digest]store.Entry{}}
}

// restore learns from index and manifests that an earlier run brought in.
func (k *sink) restore() error {
	if err := k.learn(k.content); err != nil {
		return err
	}
	for d := range k.entries {
		if err := k.learn(d); err != nil {
			return err
		}
	}
	return nil
}

// learn reads a blob that names others.
func (k *sink) learn(d artifact.Digest) error {
	refuse := func(err error) error {
		return fail.Refuse("ask the low side for a new shipment", fmt.Errorf("blob %s: %w", d.Short(), err))
	}
	e, isManifest := k.entries[d]
	if d != k.content && !isManifest {
		return nil
	}
	b, err := readSmall(openAny(k.site), d, store.MaxManifest)
	if err != nil {
		return err
	}
	if d == k.content {
		request, entries, err := store.DecodeIndex(b)
		if err != nil {
			return refuse(err)
		}
		k.request = request
		for _, e := range entries {
			k.expected[e.Manifest], k.entries[e.Manifest] = e.Size, e
		}
		for _, e := range entries {
			if !k.base[e.Manifest] {
				continue
			}
			if err := k.learn(e.Manifest); err != nil {
				return err
			}
		}
		return nil
	}
	a, err := manifestOf(e, b)
	if err != nil {
		return refuse(err)
	}
	empty := store.EmptyConfig()
	k.expected[artifact.Sum(empty)] = int64(len(empty))
	for _, f := range a.Files {
		if size, ok := k.expected[f.Digest]; ok && size != f.Size {
			return refuse(fmt.Errorf("file %s has two sizes", f.Path))
		}
		k.expected[f.Digest] = f.Size
	}
	return nil
}

// take writes one chunk of a verified frame.
func (k *sink) take(ctx context.Context, c shipment.Chunk) error {
	if c.Offset == 0 || k.w == nil && !k.skip || c.Blob != k.blob {
		if err := k.turn(ctx, c); err != nil {
			return err
		}
	}
	if k.skip {
		return nil
	}
	if k.w.Size() != c.Offset {
		return fail.Refuse("ask the low side for a new shipment", fmt.Errorf("blob %s: its parts are out of order", c.Blob.Digest.Short()))
	}
	if _, err := k.w.Write(c.Data); err != nil {
		return err
	}
	if k.w.Size() < c.Blob.Size {
		return nil
	}
	w := k.w
	k.w = nil
	if err := w.CommitLater(c.Blob.Digest, c.Blob.Size); err != nil {
		return err
	}
	return k.learn(c.Blob.Digest)
}

// turn begins the blob of c.
func (k *sink) turn(ctx context.Context, c shipment.Chunk) error {
	d := c.Blob.Digest
	if k.w != nil {
		return fail.Refuse("ask the low side for a new shipment", fmt.Errorf("blob %s: ends after %d of %d bytes", k.blob.Digest.Short(), k.w.Size(), k.blob.Size))
	}
	size, ok := k.expected[d]
	if !ok || k.base[d] && d != k.content || size >= 0 && size != c.Blob.Size || size < 0 && c.Blob.Size > store.MaxManifest {
		return fail.Refuse("ask the low side for a new shipment", fmt.Errorf("blob %s of %d bytes is not part of the signed content", d.Short(), c.Blob.Size))
	}
	k.blob, k.skip = c.Blob, k.site.Held.Has(d)
	if k.skip {
		return k.learn(d)
	}
	var err error
	if c.Offset == 0 {
		k.w, err = k.site.Quarantine.Begin(site.ImportKey + d.Hex())
		return err
	}
	if k.site.Quarantine.Has(d) {
		// Named after the last mark; durable or not, its bytes decide.
		k.skip = true
		if k.site.Quarantine.Check(ctx, d) != nil {
			return errAgain
		}
		return k.learn(d)
	}
	if k.w, err = k.site.Quarantine.Resume(ctx, site.ImportKey+d.Hex(), c.Offset); err != nil {
		return err
	}
	if k.w.Size() != c.Offset {
		err, k.w = errors.Join(errAgain, k.w.Abort()), nil
	}
	return err
}

// suspend leaves a blob under construction for the next run.
func (k *sink) suspend() error {
	if k.w == nil {
		return nil
	}
	w := k.w
	k.w = nil
	return w.Suspend()
}

// complete checks that everything the content root asks for is there, and that
// it is what the header said of it.
func (k *sink) complete(h shipment.Header) (set, error) {
	got, err := readSet(openAny(k.site), k.content)
	if errors.Is(err, artifact.ErrNotHeld) {
		err = fail.Refuse("ask the low side for a new shipment", fmt.Errorf("the shipment is not complete: %w", err))
	}
	if err != nil {
		return got, err
	}
	var total int64
	for _, b := range got.blobs {
		total += b.size
		open, err := openAny(k.site)(b.digest)
		if err != nil {
			return got, fail.Refuse("ask the low side for a new shipment", fmt.Errorf("the shipment is not complete: %w", err))
		}
		size := open.Size()
		if err := open.Close(); err != nil {
			return got, err
		}
		if size != b.size {
			return got, fail.Refuse("run 'enisle check --read-data'", fmt.Errorf("blob %s has %d bytes, want %d", b.digest.Short(), size, b.size))
		}
	}
	var carried shipment.Carried
	for i, b := range got.blobs {
		if i == 0 || !k.base[b.digest] {
			carried.Blobs, carried.Bytes = carried.Blobs+1, carried.Bytes+b.size
		}
	}
	if carried != h.Carried {
		return got, fail.Refuse("ask the low side for a new shipment", fmt.Errorf("the header promises %d blobs of %d bytes in the volumes, the content and what it builds on leave %d of %d",
			h.Carried.Blobs, h.Carried.Bytes, carried.Blobs, carried.Bytes))
	}
	if len(got.artifacts) != h.Artifacts || len(got.blobs) != h.Blobs || total != h.Bytes {
		return got, fail.Refuse("ask the low side for a new shipment", fmt.Errorf("the header promises %d artifacts in %d blobs of %d bytes, the content is %d in %d of %d",
			h.Artifacts, h.Blobs, h.Bytes, len(got.artifacts), len(got.blobs), total))
	}
	return got, nil
}

// sweep removes from quarantine what no shipment there needs: the remains of
// imports that were given up, and the files of shipments that were rejected, of
// which only the lists are kept. If one shipment cannot be read, or is being
// imported, it removes nothing.
func sweep(ctx context.Context, s *site.Site) error {
	keep := map[artifact.Digest]bool{}
	var all []state.Shipment
	err := s.State.View(ctx, func(tx *state.Tx) (err error) { all, err = tx.Shipments(); return err })
	if err != nil {
		return err
	}
	for _, row := range all {
		if row.Status == state.Importing {
			return nil
		}
		if row.Status == state.Released {
			continue
		}
		got, err := readSet(openAny(s), row.Content)
		if err != nil {
			return fmt.Errorf("shipment %s: %w", row.ID, err)
		}
		keep[row.Content] = true
		for _, a := range got.artifacts {
			keep[a.Manifest] = true
		}
		for _, b := range got.blobs {
			keep[b.digest] = keep[b.digest] || row.Status == state.Quarantined
		}
	}
	err = s.Quarantine.All(func(d artifact.Digest) error {
		if keep[d] {
			return nil
		}
		return s.Quarantine.Remove(d)
	})
	return errors.Join(err, s.Quarantine.CleanTemp(nil))
}
