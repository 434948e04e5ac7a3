package shipment

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"enisle/internal/disk"
	"enisle/internal/fail"
)

// ReadOptions says what is done with the frames.
type ReadOptions struct {
	// Identities open the frames; none means that frames are only verified.
	Identities []age.Identity
	// Fresh reads from the medium what the page cache may hold.
	Fresh bool
	// Volumes are those to be read, in this order; nil means all.
	Volumes []Volume
	// From is the first frame to be read of a volume, by its number; absent means
	// from the start.
	From map[int]int
	// Chunk receives the content in order; p is valid until it returns.
	Chunk func(c Chunk) error
	// Mark is told after each frame whose chunks were all taken; may be nil.
	Mark func(volume, frame int) error
	// Progress is told of every n bytes read from the medium; may be nil.
	Progress func(n int64)
}

// Read verifies every frame against the verified header while it reads it, and
// hands the content on in order. Nothing is handed on of a frame that is not
// exactly what was signed. It writes nothing to the medium, reads every byte
// once, and holds a handful of frames in memory. A damaged frame stops it with
// a refusal that names volume and frame.
func (m *Media) Read(ctx context.Context, h Header, opt ReadOptions) error {
	if opt.Progress == nil {
		opt.Progress = func(int64) {}
	}
	volumes := opt.Volumes
	if volumes == nil {
		volumes = h.Volumes
	}
	for _, v := range volumes {
		if err := m.readVolume(ctx, h, v, max(1, opt.From[v.Number]), opt); err != nil {
			return err
		}
	}
	return nil
}

func (m *Media) readVolume(ctx context.Context, h Header, v Volume, first int, opt ReadOptions) (err error) {
	d := m.with(v.Number)
	if d == nil {
		return fail.Refuse("bring the medium that holds it", fmt.Errorf("volume %d of %d is missing", v.Number, len(h.Volumes)))
	}
	f, st, err := openRegular(d.root, VolumeName(v.Number))
	if err != nil {
		return fmt.Errorf("volume %d: %w", v.Number, err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if st.Size() != v.Size {
		return d.wrongSize(h, v, st.Size())
	}
	if opt.Fresh {
		if err := disk.Forget(f); err != nil {
			return fmt.Errorf("volume %d: %w", v.Number, err)
		}
	}
	p := place{h.SetBytes(), v.Number}
	entries, err := readIndex(f, p, v)
	if err != nil {
		return err
	}
	// A hint for read-ahead; reading works without it.
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_SEQUENTIAL)
	r := volumeReader{file: f, place: p, entries: entries, first: first, opt: opt}
	return r.run(ctx)
}

// readIndex verifies superblock, index and trailer of a volume.
func readIndex(f *os.File, p place, v Volume) ([]entry, error) {
	super := make([]byte, superblockSize)
	if _, err := f.ReadAt(super, 0); err != nil {
		return nil, readError(v.Number, 0, err)
	}
	if !bytes.Equal(super, p.superblock()) {
		return nil, damaged(v.Number, 0, errors.New("the superblock is not of this volume of this shipment"))
	}
	idx := make([]byte, indexSize(v.Frames))
	if _, err := f.ReadAt(idx, v.Size-int64(len(idx))); err != nil {
		return nil, readError(v.Number, v.Frames, err)
	}
	entries, err := p.parseIndex(v, idx)
	if err != nil {
		// The frames carry their own headers; they say where the first
		// difference is, if it is not in the index itself.
		return nil, damaged(v.Number, v.Frames, fmt.Errorf("index after it: %w", err))
	}
	return entries, nil
}

func readError(volume, frame int, err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return damaged(volume, frame, errors.New("the file ends inside it"))
	}
	// Not a refusal: a drive that was pulled may be put back.
	return fail.As(fail.Partial, "put the medium back, or copy this volume to another one, and run the same command again",
		fmt.Errorf("volume %d, frame %d: read: %w", volume, frame, err))
}

type volumeReader struct {
	file    *os.File
	place   place
	entries []entry
	first   int
	opt     ReadOptions
}

// opened is one frame on its way; its buffers are reused.
type opened struct {
	number int
	raw    []byte // header and sealed bytes
	plain  bytes.Buffer
	err    error
}

func (r *volumeReader) run(ctx context.Context) error {
	return inOrder(ctx, r.feed, func(o *opened) { o.err = r.open(o) }, r.take)
}

// feed reads the frames in order.
func (r *volumeReader) feed(next func() (*opened, error), put func(work bool)) error {
	at := int64(superblockSize)
	for i, e := range r.entries {
		size := frameHeaderSize + int64(e.length)
		if i+1 < r.first {
			at += size
			continue
		}
		o, err := next()
		if err != nil {
			return err
		}
		if int64(cap(o.raw)) < size {
			o.raw = make([]byte, size)
		}
		o.number, o.raw, o.err = i+1, o.raw[:size], nil
		readAhead(r.file.Fd(), at)
		if _, err := r.file.ReadAt(o.raw, at); err != nil {
			return readError(r.place.volume, o.number, err)
		}
		at += size
		put(true)
	}
	return nil
}

// open verifies one frame and decrypts it.
func (r *volumeReader) open(o *opened) error {
	e := r.entries[o.number-1]
	head, sealed := o.raw[:frameHeaderSize], o.raw[frameHeaderSize:]
	if !bytes.Equal(head, r.place.frameHeader(o.number, e)) {
		return damaged(r.place.volume, o.number, errors.New("its header is not the one that was signed"))
	}
	if sha256.Sum256(sealed) != e.sum {
		return damaged(r.place.volume, o.number, errors.New("its content is not what was signed"))
	}
	if len(r.opt.Identities) == 0 {
		return nil
	}
	o.plain.Reset()
	if err := open(&o.plain, r.opt.Identities, sealed); err != nil {
		// The sum was right: what was signed is here, and the key is not the one.
		return fail.Refuse("restore the site's keys from its backup, or ask for a new shipment if they are lost",
			fmt.Errorf("volume %d, frame %d: it does not open with this site's key: %w", r.place.volume, o.number, err))
	}
	return nil
}

// take hands the chunks of a frame on.
func (r *volumeReader) take(o *opened) error {
	if o.err != nil {
		return o.err
	}
	r.opt.Progress(int64(len(o.raw)))
	if len(r.opt.Identities) > 0 {
		for p := o.plain.Bytes(); len(p) > 0; {
			c, rest, err := nextChunk(p)
			if err != nil {
				return damaged(r.place.volume, o.number, err)
			}
			if err := r.opt.Chunk(c); err != nil {
				return fmt.Errorf("volume %d, frame %d: %w", r.place.volume, o.number, err)
			}
			p = rest
		}
	}
	if r.opt.Mark == nil {
		return nil
	}
	return r.opt.Mark(r.place.volume, o.number)
}
