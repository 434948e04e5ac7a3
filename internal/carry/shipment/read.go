package shipment

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
	"golang.org/x/sys/unix"

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
	// Chunk receives the content in order; its data is valid until it returns.
	Chunk func(c Chunk) error
	// Mark is told after each frame whose chunks were all taken; may be nil.
	Mark func(volume, frame int) error
	// Damage is told of everything that is not what was signed, and decides: an
	// error stops reading. Without it any damage does, mended or not.
	Damage func(Damage) error
	// Progress is told of every n bytes read from the medium; may be nil.
	Progress func(n int64)
}

// Read verifies every frame against the verified header while it reads it, and
// hands the content on in order. Nothing is handed on of a frame that is not
// exactly what was signed. What is damaged or missing it mends in memory, as far
// as there is parity. It writes nothing to the medium, reads every byte once if
// nothing is damaged, and holds a handful of frames in memory.
func (m *Media) Read(ctx context.Context, h Header, opt ReadOptions) (err error) {
	if opt.Progress == nil {
		opt.Progress = func(int64) {}
	}
	if opt.Damage == nil {
		opt.Damage = func(d Damage) error { return d.Err }
	}
	volumes := opt.Volumes
	if volumes == nil {
		volumes = h.Volumes
	}
	s := m.set(h, opt.Fresh)
	defer func() { err = errors.Join(err, s.close()) }()
	for _, v := range volumes {
		if err := s.read(ctx, v.Number, max(1, opt.From[v.Number]), opt); err != nil {
			return err
		}
	}
	return nil
}

func (s *set) read(ctx context.Context, n, first int, opt ReadOptions) error {
	v, err := s.volume(n)
	if err != nil {
		return opt.Damage(Damage{Volume: n, Err: err})
	}
	for _, d := range v.damage {
		if err := opt.Damage(d); err != nil {
			return err
		}
	}
	if v.file != nil {
		// A hint for read-ahead; reading works without it.
		_ = unix.Fadvise(int(v.file.Fd()), 0, 0, unix.FADV_SEQUENTIAL)
	}
	r := volumeReader{volume: v, first: first, opt: opt}
	return inOrder(ctx, r.feed, func(o *opened) { r.open(o) }, r.take)
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
	*volume
	first  int
	opt    ReadOptions
	unpack unpacker // of take
}

// opened is one frame on its way; its buffers are reused.
type opened struct {
	number int
	raw    []byte // header and content
	short  error  // why not all of it could be read
	plain  bytes.Buffer
	damage *Damage
	err    error
}

// feed reads the frames in order.
func (r *volumeReader) feed(next func() (*opened, error), put func(work bool)) error {
	for i, e := range r.layout.entries {
		if i+1 < r.first {
			continue
		}
		o, err := next()
		if err != nil {
			return err
		}
		size := e.size()
		if int64(cap(o.raw)) < size {
			o.raw = make([]byte, size)
		}
		o.number, o.raw, o.short, o.damage, o.err = i+1, o.raw[:size], nil, nil, nil
		if r.file != nil {
			readAhead(r.file.Fd(), r.layout.at[i])
		}
		n, err := r.src.ReadAt(o.raw, r.layout.at[i])
		if n < len(o.raw) {
			clear(o.raw[n:])
			o.short = readError(r.Number, o.number, err)
		}
		put(true)
	}
	return nil
}

// open verifies one frame, mends it if it must, and decrypts it.
func (r *volumeReader) open(o *opened) {
	e := r.layout.entries[o.number-1]
	head, sealed := o.raw[:frameHeaderSize], o.raw[frameHeaderSize:]
	why := o.short
	switch {
	case why != nil:
	case !bytes.Equal(head, r.place.frameHeader(o.number, e)):
		why = damaged(r.Number, o.number, errors.New("its header is not the one that was signed"))
	case sha256.Sum256(sealed) != e.sum:
		why = damaged(r.Number, o.number, errors.New("its content is not what was signed"))
	}
	if why != nil {
		o.damage = &Damage{Volume: r.Number, Frame: o.number, Err: why}
		if !e.holds(sealed) {
			b, err := r.mend(o.number, sealed)
			if err != nil {
				return
			}
			copy(sealed, b)
		}
		o.damage.Mended = true
	}
	if len(r.opt.Identities) == 0 || e.kind != kindData {
		return
	}
	o.plain.Reset()
	if err := open(&o.plain, r.opt.Identities, sealed); err != nil {
		// The sum was right: what was signed is here, and the key is not the one.
		o.err = fail.Refuse("restore the site's keys from its backup, or ask for a new shipment if they are lost",
			fmt.Errorf("volume %d, frame %d: it does not open with this site's key: %w", r.Number, o.number, err))
	}
}

// take hands the chunks of a frame on.
func (r *volumeReader) take(o *opened) error {
	r.opt.Progress(int64(len(o.raw)))
	if o.damage != nil {
		if err := r.opt.Damage(*o.damage); err != nil {
			return err
		}
		if !o.damage.Mended {
			return nil
		}
	}
	if o.err != nil {
		return o.err
	}
	if len(r.opt.Identities) > 0 && r.layout.entries[o.number-1].kind == kindData {
		taken := error(nil)
		err := r.unpack.each(o.plain.Bytes(), func(c Chunk) error {
			taken = r.opt.Chunk(c)
			return taken
		})
		switch {
		case taken != nil:
			return fmt.Errorf("volume %d, frame %d: %w", r.Number, o.number, taken)
		case err != nil:
			return damaged(r.Number, o.number, err)
		}
	}
	if r.opt.Mark == nil {
		return nil
	}
	return r.opt.Mark(r.Number, o.number)
}
