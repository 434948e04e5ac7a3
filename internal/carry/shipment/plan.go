package shipment

import (
	"bytes"
	"errors"
	"fmt"
	"io"

	"filippo.io/age"
)

// minVolume is the smallest volume that is written, in bytes: room for one
// frame for a few recipients.
const minVolume = 64 << 10

// minFrame is the least plain text worth beginning a frame for, in bytes.
const minFrame = 4 << 10

// DefaultVolumeSize fits a file on FAT32, whose limit is 4 GiB - 1.
const DefaultVolumeSize = 4_000_000_000

// span is a run of bytes of one blob in a frame.
type span struct {
	blob   int // index into the list of blobs
	offset int64
	length int
}

// frame is the plan of one frame: where it stands and what it holds.
type frame struct {
	volume, number int
	spans          []span
	plain          int // bytes of plain text
}

// planner cuts blobs into frames and volumes. The cut depends on nothing but
// the blobs, the volume size and the size of an age header, so that a run that
// was interrupted can be taken up again at any frame.
type planner struct {
	size   int64 // bytes of a volume, at most
	header int   // bytes that age puts before the first chunk, constant for a set of recipients

	volume, number int
	used           int64 // bytes of the volume written so far, this frame not counted
	plain          int   // bytes of plain text in this frame
	spans          []span
	emit           func(frame) error
}

// ageHeader measures what age adds in front of the payload for recipients.
func ageHeader(to []age.Recipient) (int, error) {
	var b bytes.Buffer
	w, err := age.Encrypt(&b, to...)
	if err != nil {
		return 0, fmt.Errorf("recipients: %w", err)
	}
	if err := w.Close(); err != nil {
		return 0, fmt.Errorf("recipients: %w", err)
	}
	return b.Len() - ageTag, nil // an empty payload is one empty chunk
}

// sealedSize is the exact number of bytes that n bytes become inside age.
func sealedSize(header, n int) int64 {
	chunks := max(1, (n+ageChunk-1)/ageChunk)
	return int64(header + n + chunks*ageTag)
}

func (p *planner) frameCost(plain int) int64 {
	return frameHeaderSize + indexEntrySize + sealedSize(p.header, plain)
}

// room returns how many bytes of plain text a frame may hold that begins after
// used bytes of a volume; at most framePayload, and possibly negative.
func (p *planner) room(used int64) int {
	left := p.size - used - indexHeaderSize - trailerSize - frameHeaderSize - indexEntrySize - int64(p.header)
	if left >= framePayload+(framePayload/ageChunk)*ageTag {
		return framePayload
	}
	chunks := (left + ageChunk + ageTag - 1) / (ageChunk + ageTag)
	return int(left - chunks*ageTag)
}

// fits reports whether a whole blob certainly fits behind what is planned.
func (p *planner) fits(size, used int64, plain int) bool {
	const full = framePayload - chunkHeaderSize
	need := size + chunkHeaderSize + int64(plain)
	frames := need/full + 2
	need += frames * (frameHeaderSize + indexEntrySize + chunkHeaderSize + int64(p.header) + (framePayload/ageChunk+1)*ageTag)
	return used+need+indexHeaderSize+trailerSize <= p.size
}

// run plans all blobs and calls emit for each frame in order.
func (p *planner) run(blobs []Blob) error {
	p.begin()
	if p.room(p.used) < minFrame {
		return errors.New("the volume size leaves no room for so many recipients")
	}
	for i, b := range blobs {
		if err := p.place(i, b); err != nil {
			return err
		}
	}
	return p.flush()
}

func (p *planner) begin() {
	p.volume++
	p.number, p.used = 0, superblockSize
}

func (p *planner) place(i int, b Blob) error {
	// A blob smaller than a volume is not cut over two of them.
	if !p.fits(b.Size, p.used, p.plain) && p.fits(b.Size, superblockSize, 0) && (p.number > 0 || p.plain > 0) {
		if err := p.flush(); err != nil {
			return err
		}
		p.begin()
	}
	for off := int64(0); ; {
		room := int64(p.room(p.used) - p.plain - chunkHeaderSize)
		if room < min(1, b.Size) {
			if err := p.turn(); err != nil {
				return err
			}
			continue
		}
		n := min(room, b.Size-off)
		p.spans = append(p.spans, span{i, off, int(n)})
		p.plain += chunkHeaderSize + int(n)
		if off += n; off == b.Size {
			return nil
		}
	}
}

// turn closes the frame that is full, and the volume when no frame of use
// would fit behind it.
func (p *planner) turn() error {
	if err := p.flush(); err != nil {
		return err
	}
	if p.room(p.used) < minFrame {
		p.begin()
	}
	return nil
}

// flush hands on the frame being filled, if there is one.
func (p *planner) flush() error {
	if p.plain == 0 {
		return nil
	}
	p.number++
	f := frame{p.volume, p.number, p.spans, p.plain}
	p.used += p.frameCost(p.plain)
	p.spans, p.plain = nil, 0
	return p.emit(f)
}

// seal encrypts plain for the recipients into dst and returns the result.
func seal(dst *bytes.Buffer, to []age.Recipient, plain []byte) error {
	w, err := age.Encrypt(dst, to...)
	if err != nil {
		return err
	}
	if _, err := w.Write(plain); err != nil {
		return err
	}
	return w.Close()
}

// open decrypts a sealed frame into dst, at most framePayload bytes.
func open(dst *bytes.Buffer, ids []age.Identity, sealed []byte) error {
	r, err := age.Decrypt(bytes.NewReader(sealed), ids...)
	if err != nil {
		return err
	}
	n, err := io.Copy(dst, io.LimitReader(r, framePayload+1))
	if err == nil && n > framePayload {
		err = fmt.Errorf("it opens to more than %d bytes", framePayload)
	}
	return err
}
