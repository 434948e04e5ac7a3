package shipment

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"enisle/internal/artifact"
	"enisle/internal/disk"
	"enisle/internal/fail"
)

// WriteOptions says what volumes are written, and for whom.
type WriteOptions struct {
	Set        [16]byte
	VolumeSize int64 // bytes of a volume at most; 0 means DefaultVolumeSize
	Recipients []age.Recipient
	// Open returns the content of a blob. Its digest is checked on the way.
	Open func(Blob) (io.ReadCloser, error)
	// Progress is told of every n bytes of plain text that are done; may be nil.
	Progress func(n int64)
}

// Plan returns the number of volumes and the bytes that blobs come to.
func Plan(blobs []Blob, opt WriteOptions) (volumes int, size int64, err error) {
	p, err := opt.planner()
	if err != nil {
		return 0, 0, err
	}
	p.emit = func(f frame) error {
		if f.volume > volumes {
			volumes, size = f.volume, size+superblockSize+indexHeaderSize+trailerSize
		}
		size += p.frameCost(f.plain)
		return nil
	}
	err = p.run(blobs)
	return volumes, size, err
}

func (opt WriteOptions) planner() (*planner, error) {
	if opt.VolumeSize == 0 {
		opt.VolumeSize = DefaultVolumeSize
	}
	if opt.VolumeSize < minVolume {
		return nil, fail.As(fail.Usage, "give a larger --media", fmt.Errorf("a volume of %d bytes is smaller than %d", opt.VolumeSize, minVolume))
	}
	h, err := ageHeader(opt.Recipients)
	return &planner{size: opt.VolumeSize, header: h}, err
}

// Write cuts blobs into sealed volumes in dir and returns what a header says of
// them. It reads every blob once and writes every byte once. Volumes and frames
// that an interrupted run of the same set left in dir are kept. It holds a
// handful of frames in memory whatever the sizes. On error what reached the
// medium stays, for the next run.
func Write(ctx context.Context, dir *os.Root, blobs []Blob, opt WriteOptions) ([]Volume, error) {
	p, err := opt.planner()
	if err != nil {
		return nil, err
	}
	if opt.Progress == nil {
		opt.Progress = func(int64) {}
	}
	kept, err := survey(ctx, dir, opt.Set)
	if err != nil {
		return nil, err
	}
	w := &writer{opt: opt, plan: p, dir: dir, kept: kept, src: source{open: opt.Open, blobs: blobs}}
	defer w.src.close()
	return w.run(ctx, blobs)
}

// job is one frame on its way through the pipeline. Its buffers are reused.
type job struct {
	frame frame
	kept  *entry // set when the frame stands on the medium already
	plain []byte
	out   bytes.Buffer // sealed frame
	entry entry
	err   error
}

type writer struct {
	opt  WriteOptions
	plan *planner
	dir  *os.Root
	kept []keptVolume
	src  source // owned by produce

	// The rest is owned by the goroutine that calls run.
	file    *os.File
	end     *disk.Appender // of file
	place   place
	entries []entry
	at      int64 // bytes of the volume
	volumes []Volume
}

func (w *writer) run(ctx context.Context, blobs []Blob) ([]Volume, error) {
	err := inOrder(ctx, func(next func() (*job, error), put func(bool)) error { return w.produce(ctx, blobs, next, put) },
		func(j *job) { j.seal(w.opt.Recipients) },
		func(j *job) error {
			if err := w.put(j); err != nil {
				return fmt.Errorf("volume %d: %w", j.frame.volume, err)
			}
			w.opt.Progress(int64(j.frame.plain))
			return nil
		})
	if err == nil {
		err = w.finish()
	}
	if w.file != nil {
		err = errors.Join(err, w.file.Close())
	}
	return w.volumes, err
}

// produce plans the frames and fills those that are not kept.
func (w *writer) produce(ctx context.Context, blobs []Blob, next func() (*job, error), put func(work bool)) error {
	w.plan.emit = func(f frame) error {
		j, err := next()
		if err != nil {
			return err
		}
		j.frame, j.err, j.kept = f, nil, nil
		if f.volume <= len(w.kept) && f.number <= len(w.kept[f.volume-1].entries) {
			j.kept = &w.kept[f.volume-1].entries[f.number-1]
			if int64(j.kept.length) != sealedSize(w.plan.header, f.plain) {
				return foreign(f.volume)
			}
		} else if err := w.src.fill(ctx, j); err != nil {
			return err
		}
		put(j.kept == nil)
		return nil
	}
	return w.plan.run(blobs)
}

func (j *job) seal(to []age.Recipient) {
	j.out.Reset()
	if j.err = seal(&j.out, to, j.plain); j.err != nil {
		return
	}
	j.entry = entry{uint32(j.out.Len()), sha256.Sum256(j.out.Bytes())}
}

// put writes one frame in order, opening and closing volumes as they turn.
func (w *writer) put(j *job) error {
	if j.err != nil {
		return j.err
	}
	if j.frame.volume != w.place.volume {
		if err := w.finish(); err != nil {
			return err
		}
		if err := w.begin(j.frame.volume); err != nil {
			return err
		}
	}
	if j.kept != nil {
		w.entries = append(w.entries, *j.kept)
		w.at += frameHeaderSize + int64(j.kept.length)
		return nil
	}
	if int64(j.entry.length) != sealedSize(w.plan.header, j.frame.plain) {
		return errors.New("age made a frame of another size than planned")
	}
	if w.file == nil {
		return foreign(j.frame.volume)
	}
	return w.append(j)
}

func (w *writer) append(j *job) error {
	if _, err := w.end.Write(w.place.frameHeader(j.frame.number, j.entry)); err != nil {
		return err
	}
	if _, err := w.end.Write(j.out.Bytes()); err != nil {
		return err
	}
	w.entries = append(w.entries, j.entry)
	w.at += frameHeaderSize + int64(j.out.Len())
	return nil
}

// begin opens volume n for writing behind what is kept of it. A volume that is
// complete already is not opened.
func (w *writer) begin(n int) error {
	w.place, w.entries, w.at = place{w.opt.Set, n}, nil, superblockSize
	if n <= len(w.kept) && w.kept[n-1].complete {
		return nil
	}
	f, err := w.dir.OpenFile(VolumeName(n)+partialSuffix, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	w.file = f
	keep := int64(superblockSize)
	if n <= len(w.kept) {
		for _, e := range w.kept[n-1].entries {
			keep += frameHeaderSize + int64(e.length)
		}
	}
	if _, err := f.WriteAt(w.place.superblock(), 0); err != nil {
		return err
	}
	w.end, err = disk.Append(f, keep)
	return err
}

// finish closes the open volume: index, fsync, name.
func (w *writer) finish() error {
	n := w.place.volume
	if n == 0 {
		return nil
	}
	idx := w.place.index(w.entries, w.at)
	root, err := w.place.root(w.entries)
	if err != nil {
		return err
	}
	w.volumes = append(w.volumes, Volume{n, w.at + int64(len(idx)), len(w.entries), root})
	if w.file == nil {
		if len(w.entries) != len(w.kept[n-1].entries) {
			return foreign(n)
		}
		return nil
	}
	f := w.file
	w.file = nil
	_, err = w.end.Write(idx)
	if err == nil {
		err = w.end.Finish()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return publish(w.dir, VolumeName(n))
}

// publish gives a finished partial file its name, durably.
func publish(dir *os.Root, name string) error {
	if err := dir.Rename(name+partialSuffix, name); err != nil {
		return err
	}
	return syncDir(dir)
}

func syncDir(dir *os.Root) error {
	d, err := dir.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

func foreign(volume int) error {
	return fail.Refuse("empty the directory, or name another one, and pack again",
		fmt.Errorf("volume %d: what stands there is not of this shipment", volume))
}

// readAhead asks the kernel to read on while what was read is worked on. A hint
// that changes nothing but the time it takes.
func readAhead(fd uintptr, at int64) {
	const window = 32 << 20 // bytes; eight frames
	_ = unix.Fadvise(int(fd), at, window, unix.FADV_WILLNEED)
}

// source reads the blobs of the plan in order and checks each as it ends.
type source struct {
	open  func(Blob) (io.ReadCloser, error)
	blobs []Blob

	blob int // index of the open blob
	r    io.ReadCloser
	at   int64
	sum  hash.Hash
}

func (s *source) close() {
	if s.r != nil {
		_ = s.r.Close() // only read from
		s.r = nil
	}
}

// fill writes the plain text of j's frame.
func (s *source) fill(ctx context.Context, j *job) error {
	if j.plain == nil {
		j.plain = make([]byte, 0, framePayload)
	}
	j.plain = j.plain[:0]
	for _, sp := range j.frame.spans {
		if err := ctx.Err(); err != nil {
			return err
		}
		b := s.blobs[sp.blob]
		j.plain = appendChunkHeader(j.plain, b, sp.offset, sp.length)
		j.plain = j.plain[:len(j.plain)+sp.length]
		if err := s.read(sp, j.plain[len(j.plain)-sp.length:]); err != nil {
			return fmt.Errorf("blob %s: %w", b.Digest.Short(), err)
		}
	}
	return nil
}

func (s *source) read(sp span, p []byte) error {
	b := s.blobs[sp.blob]
	if s.r == nil || s.blob != sp.blob || s.at != sp.offset {
		if err := s.seek(sp); err != nil {
			return err
		}
	}
	if f, ok := s.r.(interface{ Fd() uintptr }); ok {
		readAhead(f.Fd(), s.at)
	}
	if _, err := io.ReadFull(s.r, p); err != nil {
		return err
	}
	s.sum.Write(p)
	s.at += int64(len(p))
	if s.at < b.Size {
		return nil
	}
	defer s.close()
	if n, err := s.r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		return fail.Refuse("run 'enisle check --read-data'", errors.New("it is longer than recorded"))
	}
	if got := artifact.FromSum([32]byte(s.sum.Sum(nil))); got != b.Digest {
		return fail.Refuse("run 'enisle check --read-data', then 'enisle collect' to fetch it again",
			fmt.Errorf("its content is %s", got.Short()))
	}
	return nil
}

// seek opens the blob of sp and reads up to its offset, hashing what it skips.
func (s *source) seek(sp span) error {
	s.close()
	r, err := s.open(s.blobs[sp.blob])
	if err != nil {
		return err
	}
	s.blob, s.r, s.at, s.sum = sp.blob, r, sp.offset, sha256.New()
	_, err = io.CopyN(s.sum, r, sp.offset)
	return err
}
