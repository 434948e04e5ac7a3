package crossing

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"enisle/internal/artifact"
	"enisle/internal/carry/shipment"
	"enisle/internal/fail"
	"enisle/internal/site"
	"enisle/internal/site/state"
	"enisle/internal/site/store"
)

// sink puts the content of a shipment into quarantine. Volumes come in any order
// and several at a time: each is written by a lane. As soon as index and manifests are known,
// only what they ask for is taken; what came before is judged in the end.
type sink struct {
	site    *site.Site
	content artifact.Digest
	base    map[artifact.Digest]bool // held already, and left out

	mu       sync.Mutex
	learned  map[artifact.Digest]bool  // of index and manifests
	expected map[artifact.Digest]int64 // size in bytes; -1 for the index
	entries  map[artifact.Digest]store.Entry
	unasked  map[artifact.Digest]bool // came before anybody knew what was asked for
	request  string
}

func newSink(s *site.Site, content artifact.Digest, base map[artifact.Digest]bool) *sink {
	return &sink{
		site: s, content: content, base: base, expected: map[artifact.Digest]int64{content: -1},
		entries: map[artifact.Digest]store.Entry{}, learned: map[artifact.Digest]bool{}, unasked: map[artifact.Digest]bool{},
	}
}

// restore learns from index and manifests that an earlier run brought in. What
// is not there yet is learned when it comes.
func (k *sink) restore() {
	if k.learn(k.content) != nil {
		return
	}
	for d := range k.entries {
		_ = k.learn(d) // complete judges
	}
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
		k.request, k.learned[d] = request, true
		for _, e := range entries {
			k.expected[e.Manifest], k.entries[e.Manifest] = e.Size, e
		}
		for _, e := range entries {
			if !k.base[e.Manifest] && !k.unasked[e.Manifest] {
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
	k.learned[d] = true
	for _, f := range a.Files {
		if size, ok := k.expected[f.Digest]; ok && size != f.Size {
			return refuse(fmt.Errorf("file %s has two sizes", f.Path))
		}
		k.expected[f.Digest] = f.Size
	}
	return nil
}

// admit refuses a blob that is not part of the signed content, and reports
// whether it is held already.
func (k *sink) admit(b shipment.Blob) (held bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	size, ok := k.expected[b.Digest]
	asked := ok && (size < 0 && b.Size <= store.MaxManifest || size == b.Size) && (!k.base[b.Digest] || b.Digest == k.content)
	if !ok && !k.knowsAll() {
		k.unasked[b.Digest] = true
		asked = true
	}
	if !asked {
		return false, fail.Refuse("ask the low side for a new shipment", fmt.Errorf("blob %s of %d bytes is not part of the signed content", b.Digest.Short(), b.Size))
	}
	if held = k.site.Held.Has(b.Digest); held {
		err = k.learn(b.Digest)
	}
	return held, err
}

// knowsAll reports whether index and manifests are all known: lanes that read
// other volumes may be ahead of them.
func (k *sink) knowsAll() bool { return k.learned[k.content] && len(k.learned) == len(k.entries)+1 }

func (k *sink) arrived(d artifact.Digest) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.learn(d)
}

func importKey(d artifact.Digest) string { return site.ImportKey + d.Hex() }

// lane writes the content of one volume after the other.
type lane struct {
	*sink
	blob shipment.Blob // the one being written
	w    *store.Writer // of blob, while its parts come in order from its start
	part *store.Part   // of blob, when they do not
	skip bool          // it is held already
	buf  []byte        // of copy
}

// take writes one chunk of a verified frame.
func (l *lane) take(c shipment.Chunk) error {
	if c.Offset == 0 || c.Blob != l.blob || l.w == nil && l.part == nil && !l.skip {
		if err := l.turn(c); err != nil {
			return err
		}
	}
	if l.skip {
		return nil
	}
	if c.Length == 0 {
		if err := l.write(c.Data, c.Offset, c.Blob); err != nil {
			return err
		}
	} else if err := l.copy(c); err != nil {
		return err
	}
	if l.w == nil || l.w.Size() < c.Blob.Size {
		return nil
	}
	w := l.w
	l.w = nil
	if err := w.CommitLater(c.Blob.Digest, c.Blob.Size); err != nil {
		return err
	}
	return l.arrived(c.Blob.Digest)
}

// write puts bytes of a blob where they belong.
func (l *lane) write(b []byte, off int64, blob shipment.Blob) error {
	if l.part != nil {
		_, err := l.part.WriteAt(b, off)
		return err
	}
	if l.w.Size() != off {
		return fail.Refuse("ask the low side for a new shipment", fmt.Errorf("blob %s: its parts are out of order", blob.Digest.Short()))
	}
	_, err := l.w.Write(b)
	return err
}

// copy puts bytes where they belong that the shipment leaves out, because a
// shipment it builds on brought them. The sum of the blob proves them right.
func (l *lane) copy(c shipment.Chunk) (err error) {
	if !l.base[c.From.Digest] {
		return fail.Refuse("ask the low side for a new shipment", fmt.Errorf("blob %s copies from blob %s, which is of no shipment that it builds on", c.Blob.Digest.Short(), c.From.Digest.Short()))
	}
	src, err := openAny(l.site)(c.From.Digest)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, src.Close()) }()
	if l.buf == nil {
		l.buf = make([]byte, 1<<20)
	}
	for done := int64(0); done < c.Length; {
		b := l.buf[:min(int64(len(l.buf)), c.Length-done)]
		if _, err := src.ReadAt(b, c.From.Offset+done); err != nil {
			return fail.Refuse("ask the low side for a new shipment, or have it packed with --full", fmt.Errorf("blob %s copies from blob %s: %w", c.Blob.Digest.Short(), c.From.Digest.Short(), err))
		}
		if err := l.write(b, c.Offset+done, c.Blob); err != nil {
			return err
		}
		done += int64(len(b))
	}
	return nil
}

// turn begins the blob of c. One that does not begin in this lane is written in
// parts, which complete puts together.
func (l *lane) turn(c shipment.Chunk) (err error) {
	if err := l.suspend(); err != nil {
		return err
	}
	l.blob = c.Blob
	if l.skip, err = l.admit(c.Blob); err != nil || l.skip {
		return err
	}
	if c.Offset == 0 {
		l.w, err = l.site.Quarantine.Overwrite(importKey(c.Blob.Digest))
		return err
	}
	l.part, err = l.site.Quarantine.Part(importKey(c.Blob.Digest), c.Blob.Digest)
	return err
}

// suspend leaves a blob under construction for another lane, or the next run.
func (l *lane) suspend() (err error) {
	if l.w != nil {
		err = l.w.Suspend()
	}
	if l.part != nil {
		err = errors.Join(err, l.part.Close())
	}
	l.w, l.part, l.skip = nil, nil, false
	return err
}

// piece makes sure that a blob which may have come in parts is whole.
func (k *sink) piece(ctx context.Context, d artifact.Digest, size int64) error {
	if k.site.Quarantine.Has(d) || k.site.Held.Has(d) {
		return nil
	}
	err := k.site.Quarantine.CommitParts(ctx, importKey(d), d, size)
	if errors.Is(err, artifact.ErrNotHeld) {
		err = fail.Refuse("ask the low side for a new shipment", fmt.Errorf("the shipment is not complete: %w", err))
	}
	return err
}

// complete puts together what came in parts, and checks that everything the
// content root asks for is there, nothing besides came, and that it is what the
// header said of it.
func (k *sink) complete(ctx context.Context, h shipment.Header) (set, error) {
	if err := k.piece(ctx, k.content, -1); err != nil {
		return set{}, err
	}
	if err := k.learn(k.content); err != nil {
		return set{}, err
	}
	for _, e := range k.entries {
		if err := errors.Join(k.piece(ctx, e.Manifest, e.Size)); err != nil {
			return set{}, err
		}
		if err := k.learn(e.Manifest); err != nil {
			return set{}, err
		}
	}
	got, err := readSet(openAny(k.site), k.content)
	if err != nil {
		return got, err
	}
	for _, b := range got.blobs {
		if err := k.piece(ctx, b.digest, b.size); err != nil {
			return got, err
		}
		delete(k.unasked, b.digest)
	}
	for d := range k.unasked {
		return got, fail.Refuse("ask the low side for a new shipment", fmt.Errorf("blob %s is not part of the signed content", d.Short()))
	}
	return got, k.compare(got, h)
}

// compare checks sizes and counts.
func (k *sink) compare(got set, h shipment.Header) error {
	var total int64
	var carried shipment.Carried
	for i, b := range got.blobs {
		total += b.size
		if i == 0 || !k.base[b.digest] {
			carried.Blobs, carried.Bytes = carried.Blobs+1, carried.Bytes+b.size
		}
		open, err := openAny(k.site)(b.digest)
		if err != nil {
			return err
		}
		size := open.Size()
		if err := open.Close(); err != nil {
			return err
		}
		if size != b.size {
			return fail.Refuse("run 'enisle check --read-data'", fmt.Errorf("blob %s has %d bytes, want %d", b.digest.Short(), size, b.size))
		}
	}
	switch {
	case carried != h.Carried:
		return fail.Refuse("ask the low side for a new shipment", fmt.Errorf("the header promises %d blobs of %d bytes in the volumes, the content and what it builds on leave %d of %d",
			h.Carried.Blobs, h.Carried.Bytes, carried.Blobs, carried.Bytes))
	case len(got.artifacts) != h.Artifacts || len(got.blobs) != h.Blobs || total != h.Bytes:
		return fail.Refuse("ask the low side for a new shipment", fmt.Errorf("the header promises %d artifacts in %d blobs of %d bytes, the content is %d in %d of %d",
			h.Artifacts, h.Blobs, h.Bytes, len(got.artifacts), len(got.blobs), total))
	}
	return nil
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
