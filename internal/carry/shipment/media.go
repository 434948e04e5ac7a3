package shipment

import (
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

// Media is a directory with a shipment, open for reading only.
type Media struct {
	root    *os.Root
	volumes []string // names, sorted
	// Ignored are names that an operating system left there.
	Ignored []string
}

// OpenMedia lists dir and refuses whatever does not belong to a shipment: names
// that are not known, links, devices, pipes, directories, and names that are
// one on a file system that folds case. It opens nothing but the directory.
func OpenMedia(dir string) (*Media, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fail.As(fail.Usage, "name the directory that holds header.json and the volumes", fmt.Errorf("media: %w", err))
	}
	m := &Media{root: root}
	if err := m.list(); err != nil {
		return nil, errors.Join(err, root.Close())
	}
	return m, nil
}

// Close releases the directory.
func (m *Media) Close() error { return m.root.Close() }

func (m *Media) list() error {
	d, err := m.root.Open(".")
	if err != nil {
		return err
	}
	entries, err := d.ReadDir(-1)
	if err = errors.Join(err, d.Close()); err != nil {
		return err
	}
	const wipe = "look at what it is; then remove it, or copy only the shipment's own files to a clean medium"
	seen := map[string]string{}
	for _, e := range entries {
		name := e.Name()
		if other, ok := seen[strings.ToLower(name)]; ok {
			return fail.Refuse(wipe, fmt.Errorf("media: %q and %q differ only in case", other, name))
		}
		seen[strings.ToLower(name)] = name
		switch {
		case litter(name):
			m.Ignored = append(m.Ignored, name)
		case strings.HasSuffix(name, partialSuffix) && e.Type().IsRegular():
			return fail.Refuse("run 'enisle pack' on the low side again: it takes up where it stopped",
				fmt.Errorf("media: %q says that packing was not finished", name))
		case !e.Type().IsRegular():
			return fail.Refuse(wipe, fmt.Errorf("media: %q is not a regular file (%s)", name, e.Type()))
		case isVolume(name):
			m.volumes = append(m.volumes, name)
		case name != HeaderName && name != BillName:
			return fail.Refuse(wipe, fmt.Errorf("media: %q does not belong to a shipment", name))
		}
	}
	slices.Sort(m.volumes)
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

func (m *Media) readFile(name string, limit int64) ([]byte, error) {
	f, _, err := openRegular(m.root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fail.Refuse("bring the whole shipment; without it nothing can be verified", fmt.Errorf("media: %s is missing", name))
	}
	if err != nil {
		return nil, err
	}
	b, err := readAll(f, limit)
	if err = errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("media: %s: %w", name, err)
	}
	return b, nil
}

// Envelope returns the bytes of header.json, not yet verified.
func (m *Media) Envelope() ([]byte, error) { return m.readFile(HeaderName, maxHeader) }

// CheckSet compares what is on the medium with what the verified header says
// should be: the bill, and every volume's presence and size. It reads no frame.
func (m *Media) CheckSet(h Header) error {
	bill, err := m.readFile(BillName, maxBill)
	if err != nil {
		return err
	}
	if artifact.Sum(bill) != h.Bill {
		return fail.Refuse("copy the bill again from the low side; do not trust what it says",
			fmt.Errorf("media: %s is not the bill that was signed", BillName))
	}
	for _, v := range h.Volumes {
		if !slices.Contains(m.volumes, VolumeName(v.Number)) {
			return fail.Refuse("bring the medium that holds it", fmt.Errorf("volume %d of %d is missing", v.Number, len(h.Volumes)))
		}
	}
	if len(m.volumes) != len(h.Volumes) {
		extra := m.volumes[len(m.volumes)-1]
		return fail.Refuse("remove it; it is not part of this shipment",
			fmt.Errorf("media: %s is extra: shipment %s has %d volumes", extra, h.ID, len(h.Volumes)))
	}
	for _, v := range h.Volumes {
		st, err := m.root.Lstat(VolumeName(v.Number))
		if err != nil {
			return err
		}
		if st.Size() != v.Size {
			return m.wrongSize(h, v, st.Size())
		}
	}
	return nil
}

// wrongSize names the frame at which a volume of another size than signed ends
// or goes on too long.
func (m *Media) wrongSize(h Header, v Volume, size int64) error {
	hint := "copy this volume again from the low side"
	if size > v.Size {
		return fail.Refuse(hint, fmt.Errorf("volume %d, frame %d: the file goes on for %d bytes after it", v.Number, v.Frames, size-v.Size))
	}
	at, n := int64(superblockSize), 0
	f, _, err := openRegular(m.root, VolumeName(v.Number))
	if err == nil {
		head, p := make([]byte, frameHeaderSize), place{h.SetBytes(), v.Number}
		for n < v.Frames {
			if _, err := f.ReadAt(head, at); err != nil {
				break
			}
			e, err := p.parseFrameHeader(head, n+1)
			if err != nil || at+frameHeaderSize+int64(e.length) > size {
				break
			}
			at += frameHeaderSize + int64(e.length)
			n++
		}
		err = f.Close()
	}
	return errors.Join(fail.Refuse(hint, fmt.Errorf("volume %d, frame %d: the file is cut short: %d bytes of %d", v.Number, min(n+1, v.Frames), size, v.Size)), err)
}
