package shipment

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"

	"enisle/internal/carry/parity"
)

// spareSize is the size of a spare volume for volumes of at most longest bytes.
func spareSize(longest int64) int64 {
	windows := (longest + spareWindow - 1) / spareWindow
	return spareFront(windows) + longest + windows*frameHeaderSize + indexSize(int(windows)) + superblockSize + superblockSize
}

func spareFront(windows int64) int64 {
	n := superblockSize + indexSize(int(windows))
	return (n + frontAlign - 1) / frontAlign * frontAlign
}

// spares writes the spare volumes behind the others: window by window the parity
// of all of them. All are read once more, in steps. Spare volumes that an
// interrupted run left are written again, unless all are complete.
func (w *writer) spares(ctx context.Context) (_ []Volume, err error) {
	data := w.volumes
	s := &spares{data: data, dir: w.dir}
	s.measure()
	if all := w.keptSpares(); all != nil {
		return append(data, all...), nil
	}
	defer func() { err = errors.Join(err, s.close()) }()
	for _, v := range data {
		f, err := w.dir.Open(VolumeName(v.Number))
		if err != nil {
			return nil, err
		}
		s.files = append(s.files, f)
	}
	windows := s.windows()
	code, err := parity.NewCode(w.opt.Spare)
	if err != nil {
		return nil, err
	}
	for j := range w.opt.Spare {
		o := &writer{opt: w.opt, dir: w.dir, place: place{w.opt.Set, len(data) + j + 1}, layout: &layout{front: spareFront(windows)}}
		s.out = append(s.out, o)
		o.volumes = make([]Volume, len(data)+j) // finish appends
		if err := o.open(o.layout.front); err != nil {
			return nil, err
		}
	}
	for n := range windows {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if err := s.window(code, n, n == windows/2 && n > 0); err != nil {
			return nil, err
		}
	}
	for _, o := range s.out {
		if err := o.finish(); err != nil {
			return nil, err
		}
		data = append(data, o.volumes[len(o.volumes)-1])
	}
	return data, nil
}

// keptSpares returns the spare volumes that stand there complete, if all do.
func (w *writer) keptSpares() (all []Volume) {
	n := len(w.volumes)
	if len(w.kept) != n+w.opt.Spare {
		return nil
	}
	for i := n; i < len(w.kept); i++ {
		k, p := w.kept[i], place{w.opt.Set, i + 1}
		root, err := p.root(&k.layout)
		if err != nil || !k.complete {
			return nil
		}
		all = append(all, Volume{Number: i + 1, Size: k.size(), Frames: len(k.entries), Root: root})
	}
	return all
}

type spares struct {
	dir     *os.Root
	data    []Volume
	longest int64
	files   []*os.File
	out     []*writer
}

func (s *spares) measure() {
	for _, v := range s.data {
		s.longest = max(s.longest, v.Size)
	}
}

func (s *spares) windows() int64 { return (s.longest + spareWindow - 1) / spareWindow }

// width is how many bytes window n has.
func (s *spares) width(n int64) int64 { return min(spareWindow, s.longest-n*spareWindow) }

func (s *spares) close() (err error) {
	for _, f := range s.files {
		err = errors.Join(err, f.Close())
	}
	for _, o := range s.out {
		if o.file != nil {
			err = errors.Join(err, o.file.Close())
		}
	}
	return err
}

// window writes the frames of one window.
func (s *spares) window(code parity.Code, n int64, middle bool) error {
	width := s.width(n)
	sums := make([][]byte, len(s.out))
	for j := range sums {
		sums[j] = make([]byte, width)
	}
	p := make([]byte, width)
	for i, f := range s.files {
		clear(p)
		size := max(0, min(width, s.data[i].Size-n*spareWindow))
		if _, err := io.ReadFull(io.NewSectionReader(f, n*spareWindow, size), p[:size]); err != nil {
			return fmt.Errorf("volume %d: %w", i+1, err)
		}
		if size == 0 {
			continue
		}
		readAhead(f.Fd(), (n+1)*spareWindow)
		if err := code.Add(p, i, sums); err != nil {
			return err
		}
	}
	for j, o := range s.out {
		if middle {
			if err := o.middle(); err != nil {
				return err
			}
		}
		if err := o.append(entry{kindSpare, uint32(width), sha256.Sum256(sums[j])}, sums[j]); err != nil {
			return err
		}
	}
	return nil
}
