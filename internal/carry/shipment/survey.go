package shipment

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"strings"

	"enisle/internal/fail"
)

// keptVolume is what an interrupted run left of a volume.
type keptVolume struct {
	layout
	complete bool // it has its index and its name
}

// survey reads what stands in dir of the set and returns, per volume, the
// frames that are whole. Nothing there is trusted beyond that: every blob is
// checked against the signed content root when it is imported.
func survey(ctx context.Context, dir *os.Root, set [16]byte) ([]keptVolume, error) {
	var out []keptVolume
	for n := 1; n <= maxVolumes; n++ {
		v, err := surveyVolume(ctx, dir, place{set, n})
		if errors.Is(err, fs.ErrNotExist) {
			return out, nil
		}
		if err != nil {
			return nil, fmt.Errorf("volume %d: %w", n, err)
		}
		out = append(out, v)
		if !v.complete {
			return out, nil
		}
	}
	return out, nil
}

func surveyVolume(ctx context.Context, dir *os.Root, p place) (v keptVolume, err error) {
	v.complete = true
	f, _, err := openRegular(dir, VolumeName(p.volume))
	if errors.Is(err, fs.ErrNotExist) {
		v.complete = false
		f, _, err = openRegular(dir, VolumeName(p.volume)+partialSuffix)
	}
	if err != nil {
		return v, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	v.layout, err = wholeFrames(ctx, f, p)
	if err != nil || !v.complete {
		return v, err
	}
	want := p.tail(&v.layout)
	got, err := io.ReadAll(io.NewSectionReader(f, v.end(), int64(len(want))+1))
	if err == nil && (len(v.entries) == 0 || string(got) != string(want)) {
		err = foreign(p.volume)
	}
	return v, err
}

// wholeFrames returns the frames from the start of a volume up to the first
// that is cut short or damaged.
func wholeFrames(ctx context.Context, r io.ReaderAt, p place) (l layout, err error) {
	super := make([]byte, superblockSize)
	if _, err := r.ReadAt(super, 0); err != nil {
		return l, nil //nolint:nilerr // nothing of use stands here
	}
	front, ok := p.parseSuperblock(super)
	if !ok {
		return l, nil
	}
	l.front = front
	head := make([]byte, frameHeaderSize)
	for {
		if err := ctx.Err(); err != nil {
			return l, err
		}
		at := l.end()
		if n := len(l.entries); n > 0 && l.middle == 0 {
			if _, err := r.ReadAt(super, at); err == nil && string(super) == string(p.superblock(front, copyMiddle, at, 0)) {
				l.middle, at = n, at+superblockSize
			}
		}
		if _, err := r.ReadAt(head, at); err != nil {
			return l, nil //nolint:nilerr // the end of what was written
		}
		e, err := p.parseFrameHeader(head, len(l.entries)+1)
		if err != nil {
			return l, nil //nolint:nilerr // likewise
		}
		sum := sha256.New()
		n, err := io.Copy(sum, io.NewSectionReader(r, at+frameHeaderSize, int64(e.length)))
		if err != nil || n != int64(e.length) || [32]byte(sum.Sum(nil)) != e.sum {
			return l, nil //nolint:nilerr // likewise
		}
		l.add(e)
	}
}

// Litter is what operating systems leave on media by themselves; it is ignored
// by name and reported.
func litter(name string) bool {
	return slices.Contains([]string{
		"lost+found", ".Trashes", ".fseventsd", ".Spotlight-V100",
		"System Volume Information", ".DS_Store",
	}, name) || strings.HasPrefix(name, ".Trash-")
}

// Prepare readies dir for writing: it must be empty, hold only what an
// interrupted run of this set left, or (done) hold a finished shipment whose
// header bytes are returned.
func Prepare(dir *os.Root, set [16]byte, resuming bool) (header []byte, err error) {
	d, err := dir.Open(".")
	if err != nil {
		return nil, err
	}
	names, err := d.Readdirnames(-1)
	if err = errors.Join(err, d.Close()); err != nil {
		return nil, err
	}
	if slices.Contains(names, HeaderName) {
		f, _, err := openRegular(dir, HeaderName)
		if err != nil {
			return nil, err
		}
		header, err = readAll(f, maxHeader)
		return header, errors.Join(err, f.Close())
	}
	for _, name := range names {
		base := strings.TrimSuffix(name, partialSuffix)
		ours := base == HeaderName || base == BillName || isVolume(base)
		if litter(name) || ours && resuming {
			continue
		}
		return nil, fail.Refuse("empty the directory, or name another one",
			fmt.Errorf("%q stands where the shipment is to be written", name))
	}
	return nil, nil
}

// Size returns how many bytes stand in dir already.
func Size(dir *os.Root) (n int64, err error) {
	d, err := dir.Open(".")
	if err != nil {
		return 0, err
	}
	infos, err := d.Readdir(-1)
	for _, st := range infos {
		n += st.Size()
	}
	return n, errors.Join(err, d.Close())
}

// WriteFile writes a small file into dir, durably and under its name only when
// it is whole.
func WriteFile(dir *os.Root, name string, content []byte) error {
	f, err := dir.OpenFile(name+partialSuffix, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return publish(dir, name)
}

// Find returns which of some offsets a volume begins at.
func Find(r io.ReaderAt, v Volume, offsets ...int64) (int64, error) {
	b := make([]byte, superblockSize)
	for _, at := range offsets {
		if _, err := r.ReadAt(b, at); err != nil {
			continue
		}
		p := place{[16]byte(b[8:24]), v.Number}
		if _, ok := p.parseSuperblock(b); ok {
			return at, nil
		}
	}
	return 0, foreign(v.Number)
}
