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
	"sync"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"enisle/internal/artifact"
	"enisle/internal/carry/parity"
	"enisle/internal/disk"
	"enisle/internal/fail"
)

// WriteOptions says what volumes are written, and for whom.
type WriteOptions struct {
	Set        [16]byte
	VolumeSize int64 // bytes of a volume at most; 0 means DefaultVolumeSize
	Recipients []age.Recipient
	Parity     int  // parity within each volume, in thousandths of its frames; 0 to 500
	Fill       bool // give what is free in the last volume to parity, if there is any
	Spare      int  // further volumes of parity: as many whole volumes may be lost; 0 to 16
	Compress   bool // compress what gains by it
	// Open returns the content of a blob. Its digest is checked on the way.
	Open func(Blob) (io.ReadCloser, error)
	// Copies returns the runs of a blob that the importer holds elsewhere, in
	// order; may be nil.
	Copies func(Blob) []Copy
	// Progress is told of every n bytes of plain text that are done; may be nil.
	Progress func(n int64)
}

// maxParity is the most parity within a volume, in thousandths.
const maxParity = 500

// Plan returns the number of volumes and the bytes that blobs come to, at most.
func Plan(blobs []Blob, opt WriteOptions) (volumes int, size int64, err error) {
	p, err := opt.planner()
	if err != nil {
		return 0, 0, err
	}
	var last, longest int64 // bytes of this volume, and of the longest before
	var frames int
	shut := func() {
		if frames > 0 {
			last += indexSize(frames) + superblockSize
		}
		size, longest, last, frames = size+last, max(longest, last), 0, 0
	}
	p.emit = func(f frame) error {
		if f.volume > volumes {
			shut()
			volumes, last = f.volume, f.front
		}
		last, frames = last+f.bound, frames+1+f.parity
		return nil
	}
	err = p.run(blobs)
	shut()
	return volumes + opt.Spare, size + int64(opt.Spare)*spareSize(longest), errors.Join(err, opt.check(volumes))
}

func (opt WriteOptions) planner() (*planner, error) {
	if opt.VolumeSize == 0 {
		opt.VolumeSize = DefaultVolumeSize
	}
	switch {
	case opt.VolumeSize < minVolume:
		return nil, fail.As(fail.Usage, "give a larger --media", fmt.Errorf("a volume of %d bytes is smaller than %d", opt.VolumeSize, minVolume))
	case opt.Parity < 0 || opt.Parity > maxParity || opt.Spare < 0 || opt.Spare > parity.Spare:
		return nil, fail.As(fail.Usage, "give --parity 0% to 50%, and --spare 0 to 16", errors.New("there cannot be so much parity"))
	}
	size := opt.VolumeSize
	if opt.Spare > 0 {
		// A spare volume is a little longer than those it stands for.
		for spareSize(size) > opt.VolumeSize {
			size -= spareSize(size) - opt.VolumeSize
		}
	}
	h, err := ageHeader(opt.Recipients)
	return &planner{size: size, header: h, base: redundancy{opt.Parity}, fill: opt.Fill, copies: opt.Copies}, err
}

func (opt WriteOptions) check(volumes int) error {
	if opt.Spare > 0 && volumes > parity.Data {
		return fail.As(fail.Usage, "give a larger --media, or no --spare", fmt.Errorf("spare volumes can stand for %d volumes, and there are %d", parity.Data, volumes))
	}
	return nil
}

// Write cuts blobs into sealed volumes in dir and returns what a header says of
// them. It reads every blob once and writes every byte once; with spare volumes
// it reads once more what it wrote. Volumes and frames that an interrupted run of
// the same set left in dir are kept. It holds a handful of frames in memory
// whatever the sizes, and with parity up to 16 more. On error what reached the
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
	if opt.Compress {
		w.saved = newTally()
		p.saved = w.saved.get
	}
	if err := w.run(ctx, blobs); err != nil {
		return nil, err
	}
	if err := opt.check(len(w.volumes)); err != nil || opt.Spare == 0 {
		return w.volumes, err
	}
	return w.spares(ctx)
}

// tally tells the planner how much shorter frames became than planned.
type tally struct {
	mu    sync.Mutex
	cond  *sync.Cond
	saved []int64
	err   error
}

func newTally() *tally {
	t := &tally{}
	t.cond = sync.NewCond(&t.mu)
	return t
}

func (t *tally) add(n int64, err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.saved, t.err = append(t.saved, n), errors.Join(t.err, err)
	t.cond.Broadcast()
}

// get waits until the nth frame is written.
func (t *tally) get(n int) (int64, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.saved) <= n && t.err == nil {
		t.cond.Wait()
	}
	if t.err != nil {
		return 0, t.err
	}
	return t.saved[n], nil
}

// job is one frame on its way through the pipeline. Its buffers are reused.
type job struct {
	frame  frame
	kept   *entry // set when the frame stands on the medium already
	plain  []byte
	packer packer
	out    bytes.Buffer // sealed frame
	entry  entry
	err    error
}

type writer struct {
	opt   WriteOptions
	plan  *planner
	dir   *os.Root
	kept  []keptVolume
	src   source // owned by produce
	saved *tally // nil unless frames are compressed

	// The rest is owned by the goroutine that calls run.
	file    *os.File
	end     *disk.Appender // of file
	place   place
	layout  *layout
	group   *parity.Group // of the open volume; nil without parity
	volumes []Volume
}

func (w *writer) run(ctx context.Context, blobs []Blob) error {
	err := inOrder(ctx, func(next func() (*job, error), put func(bool)) error { return w.produce(ctx, blobs, next, put) },
		func(j *job) { j.seal(w.opt) },
		func(j *job) error {
			before := int64(0)
			if w.layout != nil && w.place.volume == j.frame.volume {
				before = w.layout.end()
			} else {
				before = j.frame.front
			}
			err := w.put(j)
			if w.saved != nil {
				n := int64(0)
				if err == nil {
					n = j.frame.bound - (w.layout.end() - before)
				}
				w.saved.add(n, err)
			}
			if err != nil {
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
	return err
}

// produce plans the frames and fills those that are not kept.
func (w *writer) produce(ctx context.Context, blobs []Blob, next func() (*job, error), put func(work bool)) error {
	if w.saved != nil {
		defer context.AfterFunc(ctx, func() { w.saved.add(0, ctx.Err()) })()
	}
	w.plan.emit = func(f frame) error {
		j, err := next()
		if err != nil {
			return err
		}
		j.frame, j.err, j.kept = f, nil, nil
		if f.volume <= len(w.kept) && f.number <= len(w.kept[f.volume-1].entries) {
			j.kept = &w.kept[f.volume-1].entries[f.number-1]
			most := sealedSize(w.plan.header, f.plain)
			if n := int64(j.kept.length); j.kept.kind != kindData || n > most || n != most && !w.opt.Compress || w.kept[f.volume-1].front != f.front {
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

func (j *job) seal(opt WriteOptions) {
	j.out.Reset()
	plain := j.plain
	if opt.Compress {
		if plain, j.err = j.packer.pack(plain); j.err != nil {
			return
		}
	}
	if j.err = seal(&j.out, opt.Recipients, plain); j.err != nil {
		return
	}
	j.entry = entry{kindData, uint32(j.out.Len()), sha256.Sum256(j.out.Bytes())}
}

// put writes one frame in order, and the parity behind it, opening and closing
// volumes as they turn.
func (w *writer) put(j *job) error {
	if j.err != nil {
		return j.err
	}
	if j.frame.volume != w.place.volume {
		if err := w.finish(); err != nil {
			return err
		}
		if err := w.begin(j.frame); err != nil {
			return err
		}
	}
	if j.frame.middle {
		if err := w.middle(); err != nil {
			return err
		}
	}
	sealed := j.out.Bytes()
	if j.kept != nil {
		w.layout.add(*j.kept)
		if w.group != nil && w.file != nil {
			var err error
			if sealed, err = w.reread(); err != nil {
				return err
			}
		}
	} else if err := w.append(j.entry, sealed); err != nil {
		return err
	}
	if w.group == nil {
		return nil
	}
	if j.kept == nil || w.file != nil {
		if err := w.group.Add(sealed); err != nil {
			return err
		}
	}
	return w.protect(j.frame.parity)
}

// append writes a frame, in one or two pieces.
func (w *writer) append(e entry, pieces ...[]byte) error {
	if w.file == nil || w.end.Size() != w.layout.end() {
		return foreign(w.place.volume)
	}
	w.layout.add(e)
	if _, err := w.end.Write(w.place.frameHeader(len(w.layout.entries), e)); err != nil {
		return err
	}
	for _, p := range pieces {
		if _, err := w.end.Write(p); err != nil {
			return err
		}
	}
	return nil
}

// middle puts the middle superblock behind the last frame.
func (w *writer) middle() error {
	w.layout.middle = len(w.layout.entries)
	b, at := w.place.middle(w.layout)
	if w.file == nil || at < w.end.Size() {
		return nil // it stands there
	}
	_, err := w.end.Write(b)
	return err
}

// reread returns the content of the newest frame of the layout, from the medium.
func (w *writer) reread() ([]byte, error) {
	n := len(w.layout.entries) - 1
	f, err := w.dir.Open(VolumeName(w.place.volume) + partialSuffix)
	if err != nil {
		return nil, err
	}
	b := make([]byte, w.layout.entries[n].length)
	_, err = f.ReadAt(b, w.layout.at[n]+frameHeaderSize)
	return b, errors.Join(err, f.Close())
}

// protect writes m frames of parity behind the group, unless they stand there.
func (w *writer) protect(m int) error {
	for j := range m {
		n := len(w.layout.entries)
		if k := w.place.volume; k <= len(w.kept) && n < len(w.kept[k-1].entries) {
			e := w.kept[k-1].entries[n]
			if e.kind != kindParity {
				return foreign(k)
			}
			w.layout.add(e)
			continue
		}
		head, shard := w.group.Parity(j)
		sum := sha256.New()
		sum.Write(head)
		sum.Write(shard)
		if err := w.append(entry{kindParity, uint32(len(head) + len(shard)), [32]byte(sum.Sum(nil))}, head, shard); err != nil {
			return err
		}
	}
	if m > 0 {
		w.group.Reset()
	}
	return nil
}

// begin opens a volume for writing behind what is kept of it. A volume that is
// complete already is not opened.
func (w *writer) begin(first frame) (err error) {
	n := first.volume
	w.place, w.layout, w.group = place{w.opt.Set, n}, &layout{front: first.front}, nil
	if first.spare > 0 {
		if w.group, err = parity.NewGroup(first.spare, int(sealedSize(w.plan.header, framePayload))); err != nil {
			return err
		}
	}
	if n <= len(w.kept) && w.kept[n-1].complete {
		return nil
	}
	keep := first.front
	if n <= len(w.kept) && len(w.kept[n-1].entries) > 0 {
		keep = w.kept[n-1].end()
	}
	return w.open(keep)
}

// open opens the volume of w.place for appending at an offset.
func (w *writer) open(keep int64) (err error) {
	w.file, err = w.dir.OpenFile(VolumeName(w.place.volume)+partialSuffix, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return err
	}
	if _, err := w.file.WriteAt(w.place.superblock(w.layout.front, copyStart, 0, 0), 0); err != nil {
		return err
	}
	w.end, err = disk.Append(w.file, keep)
	return err
}

// finish closes the open volume: indexes, fsync, name.
func (w *writer) finish() error {
	n := w.place.volume
	if n == 0 || len(w.volumes) == n {
		return nil
	}
	l := w.layout
	root, err := w.place.root(l)
	if err != nil {
		return err
	}
	v := Volume{Number: n, Size: l.size(), Frames: len(l.entries), Root: root}
	for _, e := range l.entries {
		if e.kind == kindParity {
			v.Parity++
		}
	}
	w.volumes = append(w.volumes, v)
	if w.file == nil {
		if len(l.entries) != len(w.kept[n-1].entries) || l.middle != w.kept[n-1].middle {
			return foreign(n)
		}
		return nil
	}
	f := w.file
	w.file = nil
	_, err = w.end.Write(w.place.tail(l))
	if err == nil {
		err = w.end.Finish(w.place.front(l))
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
		at := len(j.plain)
		j.plain = j.plain[:at+chunkHeaderSize]
		h := chunkHead{blob: b, offset: sp.offset, length: uint32(sp.length), stored: uint32(sp.length)}
		if sp.from != nil {
			h.stored, h.encoding = sourceSize, encodedCopy
			h.put(j.plain[at:])
			j.plain = sp.from.append(j.plain)
			continue
		}
		h.put(j.plain[at:])
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
