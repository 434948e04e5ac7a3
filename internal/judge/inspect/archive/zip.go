package archive

import (
	"bytes"
	"compress/flate"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"slices"
	"strings"

	"enisle/internal/judge/inspect"
)

// Sizes and signatures of the zip format (PKWARE APPNOTE 6.3.10, sections 4.3
// and 4.5).
const (
	localSig, centralSig, endSig = 0x04034b50, 0x02014b50, 0x06054b50
	end64Sig, locator64Sig       = 0x06064b50, 0x07064b50
	localSize, centralSize       = 30, 46
	endSize, locatorSize         = 22, 20
	end64Size                    = 56
	maxDirectory                 = 256 << 20 // bytes of a central directory that is read
)

// entry is one record of the central directory.
type entry struct {
	name         string
	flags        uint16
	method       uint16
	crc          uint32
	packed, size uint64
	offset       uint64 // of the local header
	madeBy       byte   // upper byte of "version made by": 3 is Unix
	mode         uint32 // Unix mode where madeBy is 3 or 19
	alias        string // another name, in an extra field
}

// scanZip reads the central directory with a reader of its own: it must see
// what differs between the directory and the local headers.
func scanZip(ctx context.Context, s inspect.Subject, run inspect.Run) error {
	entries, dirStart, err := directory(s, run)
	if err != nil {
		run.Report("broken", inspect.Refuse, "not a zip that can be read: "+err.Error())
		return nil
	}
	sizes := make(map[string]int64, len(entries))
	for _, e := range entries {
		sizes[e.name] = int64(e.size)
	}
	spans := make([][2]uint64, 0, len(entries))
	known := newNames(s, run)
	for _, e := range entries {
		known.check(e.name)
		body, ok := e.local(s, run)
		if !ok {
			continue
		}
		spans = append(spans, [2]uint64{e.offset, uint64(body) + e.packed})
		if err := e.member(ctx, s, body, sizes, run); err != nil {
			return err
		}
	}
	layout(s, spans, dirStart, run)
	return nil
}

// layout refuses members that share bytes, and bytes that belong to none before
// the first: another reader may see another archive there.
func layout(s inspect.Subject, spans [][2]uint64, dirStart uint64, run inspect.Run) {
	slices.SortFunc(spans, func(a, b [2]uint64) int {
		if a[0] < b[0] {
			return -1
		}
		return 1
	})
	at := uint64(0)
	for i, sp := range spans {
		if i == 0 && sp[0] != 0 {
			run.Report("junk", inspect.Refuse, "bytes stand before the first member")
		}
		if sp[0] < at {
			run.Report("overlap", inspect.Refuse, "members share bytes: an archive bomb")
			return
		}
		if hidden(s, at, sp[0]) {
			run.Report("mismatch", inspect.Refuse, "a member stands between others that the directory does not name")
		}
		at = sp[1]
	}
	if at > dirStart {
		run.Report("overlap", inspect.Refuse, "a member reaches into the directory")
	} else if hidden(s, at, dirStart) {
		run.Report("mismatch", inspect.Refuse, "a member stands before the directory, which does not name it")
	}
}

// maxGap is how much of what belongs to no member is read, in bytes: descriptors have
// 24, what is aligned a few thousand.
const maxGap = 16 << 20

// hidden reports whether the header of a member stands between two offsets: readers
// that go from member to member find it.
func hidden(s inspect.Subject, from, to uint64) bool {
	if from+localSize > to {
		return false
	}
	b := make([]byte, min(to-from, maxGap))
	_, err := s.ReadAt(b, int64(from))
	return err != nil && !errors.Is(err, io.EOF) || bytes.Contains(b, []byte("PK\x03\x04"))
}

// directory reads the end record and the central directory.
func directory(s inspect.Subject, run inspect.Run) ([]entry, uint64, error) {
	tail := make([]byte, min(s.Size, endSize+1<<16))
	if _, err := s.ReadAt(tail, s.Size-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	i := bytes.LastIndex(tail, []byte("PK\x05\x06"))
	if i < 0 || i+endSize > len(tail) {
		return nil, 0, errors.New("it has no end record")
	}
	le := binary.LittleEndian
	rec := tail[i:]
	if end := i + endSize + int(le.Uint16(rec[20:])); end != len(tail) {
		run.Report("junk", inspect.Refuse, "bytes stand after the end record")
	}
	count, size, start := uint64(le.Uint16(rec[10:])), uint64(le.Uint32(rec[12:])), uint64(le.Uint32(rec[16:]))
	endAt := s.Size - int64(len(tail)) + int64(i)
	if wide := hasLocator(s, endAt); wide || count == 0xffff || size == 0xffffffff || start == 0xffffffff {
		c, z, o, at, err := end64(s, endAt)
		if err != nil {
			return nil, 0, err
		}
		if count != 0xffff && count != c || size != 0xffffffff && size != z || start != 0xffffffff && start != o {
			return nil, 0, errors.New("its two end records differ")
		}
		count, size, start, endAt = c, z, o, at
	}
	if start > uint64(s.Size) || size > maxDirectory || start+size != uint64(endAt) {
		return nil, 0, errors.New("its directory is not where the end record says")
	}
	dir := make([]byte, size)
	if _, err := s.ReadAt(dir, int64(start)); err != nil && !errors.Is(err, io.EOF) {
		return nil, 0, err
	}
	entries, err := parseDirectory(dir, count)
	return entries, start, err
}

// zipBehind reports whether a file that does not begin as a zip ends as one: readers
// that look for the end record only, such as TorchScript's, open it.
func zipBehind(s inspect.Subject) bool {
	tail := make([]byte, min(s.Size, endSize+1<<16))
	if _, err := s.ReadAt(tail, s.Size-int64(len(tail))); err != nil && !errors.Is(err, io.EOF) {
		return false
	}
	i := bytes.LastIndex(tail, []byte("PK\x05\x06"))
	if i < 0 || i+endSize > len(tail) {
		return false
	}
	size := int64(binary.LittleEndian.Uint32(tail[i+12:]))
	at := s.Size - int64(len(tail)) + int64(i) - size
	sig := make([]byte, 4)
	if size < centralSize || at < 0 {
		return false
	}
	_, err := s.ReadAt(sig, at)
	return err == nil && binary.LittleEndian.Uint32(sig) == centralSig
}

// hasLocator reports whether a zip64 locator stands before the end record; some
// writers always put one there.
func hasLocator(s inspect.Subject, endAt int64) bool {
	sig := make([]byte, 4)
	if endAt < locatorSize+end64Size {
		return false
	}
	_, err := s.ReadAt(sig, endAt-locatorSize)
	return err == nil && binary.LittleEndian.Uint32(sig) == locator64Sig
}

// end64 reads the zip64 end record, whose locator stands before the end record.
func end64(s inspect.Subject, endAt int64) (count, size, start uint64, at int64, err error) {
	le := binary.LittleEndian
	loc, rec := make([]byte, locatorSize), make([]byte, end64Size)
	if endAt < locatorSize+end64Size {
		return 0, 0, 0, 0, errors.New("its zip64 record is missing")
	}
	if _, err := s.ReadAt(loc, endAt-locatorSize); err != nil {
		return 0, 0, 0, 0, err
	}
	at = int64(le.Uint64(loc[8:]))
	if le.Uint32(loc) != locator64Sig || at < 0 || at != endAt-locatorSize-end64Size {
		return 0, 0, 0, 0, errors.New("its zip64 record is not where it should be")
	}
	if _, err := s.ReadAt(rec, at); err != nil {
		return 0, 0, 0, 0, err
	}
	if le.Uint32(rec) != end64Sig {
		return 0, 0, 0, 0, errors.New("its zip64 record is broken")
	}
	return le.Uint64(rec[32:]), le.Uint64(rec[40:]), le.Uint64(rec[48:]), at, nil
}

func parseDirectory(dir []byte, count uint64) ([]entry, error) {
	le := binary.LittleEndian
	var out []entry
	for len(dir) > 0 {
		if len(dir) < centralSize || le.Uint32(dir) != centralSig {
			return nil, errors.New("its directory is broken")
		}
		n, x, c := int(le.Uint16(dir[28:])), int(le.Uint16(dir[30:])), int(le.Uint16(dir[32:]))
		if len(dir) < centralSize+n+x+c {
			return nil, errors.New("its directory is cut short")
		}
		e := entry{
			flags: le.Uint16(dir[8:]), method: le.Uint16(dir[10:]), crc: le.Uint32(dir[16:]), packed: uint64(le.Uint32(dir[20:])),
			size: uint64(le.Uint32(dir[24:])), offset: uint64(le.Uint32(dir[42:])), madeBy: dir[5], mode: le.Uint32(dir[38:]) >> 16,
			name: string(dir[centralSize : centralSize+n]),
		}
		if err := e.wide(dir[centralSize+n : centralSize+n+x]); err != nil {
			return nil, err
		}
		out = append(out, e)
		dir = dir[centralSize+n+x+c:]
	}
	if uint64(len(out)) != count {
		return nil, fmt.Errorf("its directory has %d entries, the end record says %d", len(out), count)
	}
	return out, nil
}

// wide takes the zip64 extra field's values for those that do not fit.
func (e *entry) wide(extra []byte) error {
	le := binary.LittleEndian
	for len(extra) >= 4 {
		id, n := le.Uint16(extra), int(le.Uint16(extra[2:]))
		if len(extra) < 4+n {
			return errors.New("an extra field is cut short")
		}
		body := extra[4 : 4+n]
		extra = extra[4+n:]
		// A second name, which some readers take for the first (APPNOTE, 4.6.9).
		if id == 0x7075 && n > 5 && string(body[5:]) != e.name {
			e.alias = string(body[5:])
		}
		if id != 1 {
			continue
		}
		for _, v := range []*uint64{&e.size, &e.packed, &e.offset} {
			if *v != 0xffffffff {
				continue
			}
			if len(body) < 8 {
				return errors.New("a zip64 field is cut short")
			}
			*v, body = le.Uint64(body), body[8:]
		}
	}
	return nil
}

// local reads the local header of an entry, compares it with the directory, and
// returns where the member's bytes begin.
func (e entry) local(s inspect.Subject, run inspect.Run) (body int64, ok bool) {
	refuse := func(rule, what string) (int64, bool) {
		run.Report(rule, inspect.Refuse, fmt.Sprintf("member %q: %s", e.name, what))
		return 0, false
	}
	head := make([]byte, localSize)
	if e.offset > uint64(s.Size) || e.packed > uint64(s.Size) || e.size > 1<<42 {
		return refuse("broken", "lies outside of the file")
	}
	if _, err := s.ReadAt(head, int64(e.offset)); err != nil {
		return refuse("broken", "its header cannot be read")
	}
	le := binary.LittleEndian
	n, x := int(le.Uint16(head[26:])), int(le.Uint16(head[28:]))
	body = int64(e.offset) + localSize + int64(n+x)
	name := make([]byte, n)
	if _, err := s.ReadAt(name, int64(e.offset)+localSize); err != nil && n > 0 {
		return refuse("broken", "its header cannot be read")
	}
	switch {
	case le.Uint32(head) != localSig || body+int64(e.packed) > s.Size:
		return refuse("broken", "lies outside of the file")
	case string(name) != e.name:
		return refuse("mismatch", fmt.Sprintf("is called %q in its own header", name))
	case le.Uint16(head[8:]) != e.method:
		return refuse("mismatch", "its own header names another compression")
	case e.flags&0x2041 != 0 || le.Uint16(head[6:])&0x2041 != 0:
		return refuse("encrypted", "is encrypted or masked")
	case (e.flags^le.Uint16(head[6:]))&^0x0806 != 0 || e.flags&0x20 != 0:
		return refuse("mismatch", "its flags differ or are not allowed")
	case e.flags&8 == 0 && le.Uint32(head[14:]) != e.crc:
		return refuse("mismatch", "its own header states another checksum")
	case e.flags&8 == 0 && differs(le.Uint32(head[18:]), e.packed) || e.flags&8 == 0 && differs(le.Uint32(head[22:]), e.size):
		return refuse("mismatch", "its own header states another size")
	case e.alias != "":
		return refuse("mismatch", fmt.Sprintf("is called %q in an extra field", e.alias))
	case (e.madeBy == 3 || e.madeBy == 19) && e.mode&0xf000 != 0 && e.mode&0xf000 != 0x8000 && e.mode&0xf000 != 0x4000 && !e.unset():
		return refuse("special", "is a link, device or pipe")
	}
	return body, true
}

// unset reports whether an entry is a directory by its name and has a mode of ones:
// old archivers of Java wrote -1 for one that was not set.
func (e entry) unset() bool {
	return e.mode == 0xffff && e.size == 0 && e.packed <= 2 && strings.HasSuffix(e.name, "/")
}

// differs compares a 32-bit size with the directory's; 0xffffffff stands for
// the zip64 field.
func differs(short uint32, size uint64) bool { return short != 0xffffffff && uint64(short) != size }

// content is a member among the others.
type content struct {
	io.ReaderAt
	sizes map[string]int64
}

var _ inspect.Member = content{}

// Beside returns the size of another member.
func (c content) Beside(name string) (size int64, ok bool) {
	size, ok = c.sizes[name]
	return size, ok
}

// member unpacks one member and hands it on.
func (e entry) member(ctx context.Context, s inspect.Subject, body int64, sizes map[string]int64, run inspect.Run) (err error) {
	raw := io.NewSectionReader(s, body, int64(e.packed))
	var r io.Reader
	switch e.method {
	case 0:
		if e.packed != e.size {
			run.Report("mismatch", inspect.Refuse, fmt.Sprintf("member %q: is stored with two sizes", e.name))
			return nil
		}
		if err := checkSum(raw, e.crc); err != nil {
			run.Report("checksum", inspect.Refuse, fmt.Sprintf("member %q: %v", e.name, err))
		}
		return run.Descend(ctx, e.name, content{io.NewSectionReader(s, body, int64(e.packed)), sizes}, int64(e.size))
	case 8:
		r = flate.NewReader(raw)
	default:
		run.Report("compression", inspect.Refuse, fmt.Sprintf("member %q: compression %d is not read", e.name, e.method))
		return nil
	}
	// Deflate gives at most 1032 bytes for one (RFC 1951; zlib technical notes).
	if e.size > 1032*(e.packed+1) {
		run.Report("bomb", inspect.Refuse, fmt.Sprintf("member %q: claims %d bytes out of %d", e.name, e.size, e.packed))
		return nil
	}
	if e.packed > 0 && e.size/e.packed > 200 && e.size > 64<<20 {
		run.Report("bomb", inspect.Refuse, fmt.Sprintf("member %q: %d bytes out of %d: an archive bomb", e.name, e.size, e.packed))
		return nil
	}
	sum := crc32.NewIEEE()
	at, release, err := inspect.Spool(io.TeeReader(r, sum), int64(e.size))
	if err != nil {
		run.Report("broken", inspect.Refuse, fmt.Sprintf("member %q: %v", e.name, err))
		return nil
	}
	defer func() { err = errors.Join(err, release()) }()
	if sum.Sum32() != e.crc {
		run.Report("checksum", inspect.Refuse, fmt.Sprintf("member %q: the checksum is wrong", e.name))
	}
	return run.Descend(ctx, e.name, content{at, sizes}, int64(e.size))
}

func checkSum(r io.Reader, want uint32) error {
	sum := crc32.NewIEEE()
	if _, err := io.Copy(sum, r); err != nil {
		return err
	}
	if sum.Sum32() != want {
		return errors.New("the checksum is wrong")
	}
	return nil
}
