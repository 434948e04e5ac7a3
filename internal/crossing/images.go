package crossing

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"

	"enisle/internal/carry/iso"
	"enisle/internal/carry/shipment"
	"enisle/internal/fail"
)

// ImageName is the file name of the image of a disc with volume n.
func ImageName(n int) string { return fmt.Sprintf("disc-%04d.iso", n) }

// images makes an image of an optical disc around each volume of a sealed
// shipment, in the place of the volume; header and bill stay beside them. A run
// that was interrupted is taken up.
func (p *packing) images(dir *os.Root) error {
	h, err := headerOf(p.pack.Envelope)
	if err != nil {
		return err
	}
	if p.out.Missing > 0 {
		return fail.Refuse("run the same command again when all have signed: 'enisle sign'", fmt.Errorf("%d collectors must sign before images are made: the header is in all of them", p.out.Missing))
	}
	small := []iso.File{{Name: shipment.HeaderName, Content: p.pack.Envelope}, {Name: shipment.BillName, Content: p.bill(h)}}
	for _, v := range h.Volumes {
		if err := image(dir, v, small, iso.Label{Volume: h.ID, Made: h.Created}); err != nil {
			return fmt.Errorf("volume %d: image: %w", v.Number, err)
		}
		p.out.Images = append(p.out.Images, ImageName(v.Number))
	}
	return nil
}

func image(dir *os.Root, v shipment.Volume, small []iso.File, label iso.Label) (err error) {
	name, partial, volume := ImageName(v.Number), ImageName(v.Number)+".partial", shipment.VolumeName(v.Number)
	if _, err := dir.Lstat(name); !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// From here to the end the volume goes by another name, so that what is half
	// done is never taken for a volume.
	if err := dir.Rename(volume, partial); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := dir.OpenFile(partial, os.O_RDWR, 0)
	if err != nil {
		return fail.Refuse("empty the directory and pack again", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	at, err := shipment.Find(f, v, 0, iso.Front)
	if err != nil {
		return err
	}
	if at == 0 {
		done, err := iso.Insert(f)
		if err != nil {
			return err
		}
		if !done {
			if f, err = moved(dir, f, partial, v.Size); err != nil {
				return err
			}
		}
	}
	if err := iso.Finish(f, volume, v.Size, small, label); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	return dir.Rename(partial, name)
}

// moved copies the volume behind the front of an image, where the file system
// cannot insert.
func moved(dir *os.Root, f *os.File, partial string, size int64) (*os.File, error) {
	g, err := dir.OpenFile(partial+".copy", os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return f, err
	}
	if err = iso.Copy(g, io.NewSectionReader(f, 0, size), size); err == nil {
		err = g.Sync()
	}
	if err == nil {
		err = dir.Rename(partial+".copy", partial)
	}
	if err != nil {
		return f, errors.Join(err, g.Close(), dir.Remove(partial+".copy"))
	}
	return g, f.Close()
}

// imaged reports whether images stand for all the volumes that do not.
func imaged(dir *os.Root, h shipment.Header) bool {
	some := false
	for _, v := range h.Volumes {
		_, err := dir.Lstat(ImageName(v.Number))
		_, half := dir.Lstat(ImageName(v.Number) + ".partial")
		_, whole := dir.Lstat(shipment.VolumeName(v.Number))
		if err != nil && half != nil && whole != nil {
			return false
		}
		some = some || err == nil || half == nil
	}
	return some
}
