package shipment

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"regexp"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"enisle/internal/artifact"
	"enisle/internal/fail"
)

var volumePattern = regexp.MustCompile(`^volume-[0-9]{4}\.enisle$`)

func isVolume(name string) bool { return volumePattern.MatchString(name) && name != VolumeName(0) }

// Media are the directories with a shipment, open for reading only: one medium
// or drive each.
type Media struct {
	dirs []*mediaDir
	// Ignored are names that an operating system left there.
	Ignored []string
}

type mediaDir struct {
	root    *os.Root
	volumes []string // names, sorted
	files   []string // header and bill, as far as they are there
}

// OpenMedia lists the directories, of which there is at least one, and refuses
// whatever does not belong to a shipment: names that are not known, links,
// devices, pipes, directories, and names that are one on a file system that folds
// case. It opens nothing but the directories.
func OpenMedia(dirs ...string) (*Media, error) {
	m := &Media{}
	for _, dir := range dirs {
		root, err := os.OpenRoot(dir)
		if err != nil {
			return nil, errors.Join(fail.As(fail.Usage, "name the directory that holds header.json and the volumes", fmt.Errorf("media: %w", err)), m.Close())
		}
		d := &mediaDir{root: root}
		m.dirs = append(m.dirs, d)
		ignored, err := d.list()
		if err != nil {
			return nil, errors.Join(err, m.Close())
		}
		m.Ignored = append(m.Ignored, ignored...)
	}
	return m, nil
}

// Close releases the directories.
func (m *Media) Close() (err error) {
	for _, d := range m.dirs {
		err = errors.Join(err, d.root.Close())
	}
	return err
}

func (m *mediaDir) list() (ignored []string, err error) {
	d, err := m.root.Open(".")
	if err != nil {
		return nil, err
	}
	entries, err := d.ReadDir(-1)
	if err = errors.Join(err, d.Close()); err != nil {
		return nil, err
	}
	const wipe = "look at what it is; then remove it, or copy only the shipment's own files to a clean medium"
	seen := map[string]string{}
	for _, e := range entries {
		name := e.Name()
		if other, ok := seen[strings.ToLower(name)]; ok {
			return nil, fail.Refuse(wipe, fmt.Errorf("media: %q and %q differ only in case", other, name))
		}
		seen[strings.ToLower(name)] = name
		switch {
		case litter(name), name == CustodyName && e.Type().IsRegular():
			ignored = append(ignored, name)
		case strings.HasSuffix(name, partialSuffix) && e.Type().IsRegular():
			return nil, fail.Refuse("run 'enisle pack' on the low side again: it takes up where it stopped",
				fmt.Errorf("media: %q says that packing was not finished", name))
		case !e.Type().IsRegular():
			return nil, fail.Refuse(wipe, fmt.Errorf("media: %q is not a regular file (%s)", name, e.Type()))
		case isVolume(name):
			m.volumes = append(m.volumes, name)
		case name == HeaderName || name == BillName:
			m.files = append(m.files, name)
		default:
			return nil, fail.Refuse(wipe, fmt.Errorf("media: %q does not belong to a shipment", name))
		}
	}
	slices.Sort(m.volumes)
	return ignored, nil
}

// with returns the directory that holds volume n, nil if none does. Of several
// copies it is the first.
func (m *Media) with(n int) *mediaDir {
	for _, d := range m.dirs {
		if slices.Contains(d.volumes, VolumeName(n)) {
			return d
		}
	}
	return nil
}

// openRegular opens a file of root without following a link or waiting for a
// pipe, and makes sure of what it got by the descriptor itself.
func openRegular(root *os.Root, name string) (*os.File, fs.FileInfo, error) {
	f, err := root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fail.Refuse("look at what it is; a shipment has regular files only", fmt.Errorf("media: %q is not a regular file", name))
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, st, nil
}

// readFile returns a file that stands beside the volumes: on every medium the
// same, and on one at least.
func (m *Media) readFile(name string, limit int64) (content []byte, err error) {
	for _, d := range m.dirs {
		if !slices.Contains(d.files, name) {
			continue
		}
		f, _, err := openRegular(d.root, name)
		if err != nil {
			return nil, err
		}
		b, err := readAll(f, limit)
		if err = errors.Join(err, f.Close()); err != nil {
			return nil, fmt.Errorf("media: %s: %w", name, err)
		}
		if content != nil && !bytes.Equal(b, content) {
			return nil, fail.Refuse("bring media of one shipment together; after 'enisle sign' write the header to each", fmt.Errorf("media: %s differs from one medium to another", name))
		}
		content = b
	}
	if content == nil {
		return nil, fail.Refuse("bring the whole shipment; without it nothing can be verified", fmt.Errorf("media: %s is missing", name))
	}
	return content, nil
}

// Envelope returns the bytes of header.json, not yet verified.
func (m *Media) Envelope() ([]byte, error) { return m.readFile(HeaderName, maxHeader) }

// CheckWhole is CheckSet that misses no volume.
func (m *Media) CheckWhole(h Header) error {
	if err := m.CheckSet(h); err != nil {
		return err
	}
	if missing := m.Missing(h); len(missing) > 0 {
		return fail.Refuse("bring the medium that holds it", fmt.Errorf("volume %d of %d is missing", missing[0], len(h.Volumes)))
	}
	return nil
}

// Missing returns the numbers of the volumes with content that are not here and
// cannot be given back from spare volumes that are.
func (m *Media) Missing(h Header) (numbers []int) {
	spare := 0
	for _, v := range h.Volumes {
		switch {
		case v.Number > len(h.Data()) && m.with(v.Number) != nil:
			spare++
		case v.Number <= len(h.Data()) && m.with(v.Number) == nil:
			numbers = append(numbers, v.Number)
		}
	}
	if len(numbers) <= spare {
		return nil
	}
	return numbers
}

// Lanes returns the volumes with content that are here, by the directory that they
// are read from, and last those that spare volumes give back: each lane can be
// read at the same time as the others.
func (m *Media) Lanes(h Header) (lanes [][]Volume) {
	missing := m.Missing(h)
	for _, d := range append(slices.Clone(m.dirs), nil) {
		var lane []Volume
		for _, v := range h.Data() {
			if m.with(v.Number) == d && !slices.Contains(missing, v.Number) {
				lane = append(lane, v)
			}
		}
		if len(lane) > 0 {
			lanes = append(lanes, lane)
		}
	}
	return lanes
}

// CheckSet compares what is on the media with what the verified header says
// should be: the bill, no volume besides, and the size of every one that is here.
// It reads no frame.
func (m *Media) CheckSet(h Header) error {
	bill, err := m.readFile(BillName, maxBill)
	if err != nil {
		return err
	}
	if artifact.Sum(bill) != h.Bill {
		return fail.Refuse("copy the bill again from the low side; do not trust what it says",
			fmt.Errorf("media: %s is not the bill that was signed", BillName))
	}
	for _, d := range m.dirs {
		if n := len(d.volumes); n > 0 && d.volumes[n-1] > VolumeName(len(h.Volumes)) {
			return fail.Refuse("remove it; it is not part of this shipment",
				fmt.Errorf("media: %s is extra: shipment %s has %d volumes", d.volumes[n-1], h.ID, len(h.Volumes)))
		}
	}
	for _, v := range h.Volumes {
		d := m.with(v.Number)
		if d == nil {
			continue
		}
		st, err := d.root.Lstat(VolumeName(v.Number))
		if err != nil {
			return err
		}
		if st.Size() > v.Size || st.Size() < v.Size && !h.mendable(v) {
			return d.wrongSize(h, v, st.Size())
		}
	}
	return nil
}

// wrongSize names the frame at which a volume of another size than signed ends
// or goes on too long.
func (m *mediaDir) wrongSize(h Header, v Volume, size int64) error {
	hint := "copy this volume again from the low side"
	if size > v.Size {
		return fail.Refuse(hint, fmt.Errorf("volume %d, frame %d: the file goes on for %d bytes after it", v.Number, v.Frames, size-v.Size))
	}
	n := 0
	f, _, err := openRegular(m.root, VolumeName(v.Number))
	if err == nil {
		var l layout
		l, err = wholeFrames(context.Background(), f, place{h.SetBytes(), v.Number})
		n = len(l.entries)
		err = errors.Join(err, f.Close())
	}
	return errors.Join(fail.Refuse(hint, fmt.Errorf("volume %d, frame %d: the file is cut short: %d bytes of %d", v.Number, min(n+1, v.Frames), size, v.Size)), err)
}
