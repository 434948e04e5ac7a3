// Package iso makes an image of an optical disc around a file that is there
// already: ISO 9660 level 3 (ECMA-119), so that the file may be larger than 4 GiB,
// with Rock Ridge (IEEE P1282) and Joliet names. The file is not moved where the
// file system can insert room in front of it.
//
// The image has one directory. It is laid out as: 32 KiB of nothing, descriptors,
// the large file at Front, the small files, tables.
package iso

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf16"

	"golang.org/x/sys/unix"
)

// Front is where the large file begins in the image, in bytes: a multiple of the
// block size of file systems.
const Front = 64 << 10

const (
	sector    = 2048
	maxExtent = 1<<32 - sector // bytes of one extent, at most
)

// File is a small file of the image.
type File struct {
	Name    string
	Content []byte
}

// Label is what the image says of itself.
type Label struct {
	Volume string // at most 32 letters, digits and underscores count
	Made   time.Time
}

// Insert moves the content of f by Front, and reports whether the file system
// can do that.
func Insert(f *os.File) (bool, error) {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_INSERT_RANGE, 0, Front)
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return false, nil
	}
	return err == nil, err
}

// entry is a file in the directory.
type entry struct {
	name   string
	sector int64
	size   int64
}

// extents are the runs that a file is recorded in.
func (e entry) extents() (out []entry) {
	for at := int64(0); at == 0 || at < e.size; at += maxExtent {
		out = append(out, entry{e.name, e.sector + at/sector, min(maxExtent, e.size-at)})
	}
	return out
}

func sectors(n int64) int64 { return (n + sector - 1) / sector }

// Finish completes the image f, at whose offset Front stands the content, of size
// bytes, of the file called name. It leaves nothing else of f as it was, and does
// not sync.
func Finish(f *os.File, name string, size int64, small []File, label Label) error {
	next := int64(Front/sector) + sectors(size)
	at := next * sector
	if err := f.Truncate(Front + size); err != nil {
		return err
	}
	files := []entry{{name, Front / sector, size}}
	var tail bytes.Buffer
	for _, s := range small {
		files = append(files, entry{s.Name, next, int64(len(s.Content))})
		tail.Write(s.Content)
		pad(&tail)
		next += sectors(int64(len(s.Content)))
	}
	slices.SortFunc(files, func(a, b entry) int { return cmp.Compare(plainName(a.name), plainName(b.name)) })
	var descriptors bytes.Buffer
	tables := []tree{{joliet: false}, {joliet: true}}
	for i := range tables {
		t := &tables[i]
		t.made, t.at = label.Made.UTC(), next
		dir, err := t.directory(files)
		if err != nil {
			return err
		}
		root := t.at + 2
		tail.Write(t.pathTable(binary.LittleEndian, root))
		pad(&tail)
		tail.Write(t.pathTable(binary.BigEndian, root))
		pad(&tail)
		tail.Write(dir)
		next = root + sectors(int64(len(dir)))
	}
	for i := range tables {
		descriptors.Write(tables[i].descriptor(label, next))
	}
	end := make([]byte, sector)
	end[0] = 255
	copy(end[1:], "CD001\x01")
	descriptors.Write(end)
	if _, err := f.WriteAt(tail.Bytes(), at); err != nil {
		return err
	}
	head := make([]byte, Front)
	copy(head[16*sector:], descriptors.Bytes())
	_, err := f.WriteAt(head, 0)
	return err
}

// Copy writes the content of src, of size bytes, behind Front of f, for file
// systems that cannot insert.
func Copy(f *os.File, src io.Reader, size int64) error {
	if _, err := f.Seek(Front, io.SeekStart); err != nil {
		return err
	}
	_, err := io.CopyN(f, src, size)
	return err
}

func pad(b *bytes.Buffer) {
	if n := b.Len() % sector; n > 0 {
		b.Write(make([]byte, sector-n))
	}
}

// tree is one of the two directories of an image.
type tree struct {
	joliet bool
	made   time.Time
	at     int64  // sector of its path tables, two of them, and then its directory
	dir    []byte // root directory
}

// directory returns the root directory, in whole sectors.
func (t *tree) directory(files []entry) ([]byte, error) {
	// Its own size is in it: it is made twice.
	size := int64(sector)
	for {
		b, err := t.records(files, size)
		if err != nil || int64(len(b)) == size {
			t.dir = b
			return b, err
		}
		size = int64(len(b))
	}
}

func (t *tree) records(files []entry, size int64) ([]byte, error) {
	var out bytes.Buffer
	self := entry{"", t.at + 2, size}
	var all [][]byte
	all = append(all, t.record(self, []byte{0}, 2, t.rockRidge(self, true, true)), t.record(self, []byte{1}, 2, t.rockRidge(self, true, false)))
	for _, f := range files {
		x := f.extents()
		for i, e := range x {
			flags := byte(0)
			if i+1 < len(x) {
				flags = 0x80
			}
			all = append(all, t.record(e, t.name(f.name), flags, t.rockRidge(f, false, false)))
		}
	}
	for _, r := range all {
		if len(r) > 255 {
			return nil, fmt.Errorf("a name of the image is too long: %d bytes", len(r))
		}
		if out.Len()/sector != (out.Len()+len(r)-1)/sector {
			pad(&out) // a record lies in one sector
		}
		out.Write(r)
	}
	pad(&out)
	return out.Bytes(), nil
}

// name is the identifier of a file.
func (t *tree) name(s string) []byte {
	if t.joliet {
		return ucs2(s + ";1")
	}
	return []byte(plainName(s))
}

// plainName is a name in the letters that ISO 9660 has.
func plainName(s string) string {
	return dchars(strings.TrimSuffix(s, "."+extension(s))) + "." + dchars(extension(s)) + ";1"
}

func extension(s string) string {
	if i := strings.LastIndexByte(s, '.'); i >= 0 {
		return s[i+1:]
	}
	return ""
}

func dchars(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' {
			return r
		}
		return '_'
	}, strings.ToUpper(s))
}

func ucs2(s string) (b []byte) {
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.BigEndian.AppendUint16(b, u)
	}
	return b
}

// both writes a number in both byte orders (ECMA-119 §7.2.3, §7.3.3).
func both32(b []byte, v int64) []byte {
	return binary.BigEndian.AppendUint32(binary.LittleEndian.AppendUint32(b, uint32(v)), uint32(v))
}

func both16(b []byte, v int) []byte {
	return binary.BigEndian.AppendUint16(binary.LittleEndian.AppendUint16(b, uint16(v)), uint16(v))
}

// record is a directory record (ECMA-119 §9.1).
func (t *tree) record(e entry, id []byte, flags byte, use []byte) []byte {
	b := []byte{0, 0}
	b = both32(b, e.sector)
	b = both32(b, e.size)
	m := t.made
	b = append(b, byte(m.Year()-1900), byte(m.Month()), byte(m.Day()), byte(m.Hour()), byte(m.Minute()), byte(m.Second()), 0)
	b = append(b, flags, 0, 0)
	b = both16(b, 1)
	b = append(append(b, byte(len(id))), id...)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	b = append(b, use...)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	b[0] = byte(min(len(b), 255))
	return b
}

// rockRidge is the system use field: mode and name as a POSIX system has them.
func (t *tree) rockRidge(e entry, dir, first bool) (b []byte) {
	if t.joliet {
		return nil
	}
	if first {
		b = append(b, 'S', 'P', 7, 1, 0xbe, 0xef, 0)
	}
	mode, links := int64(0o100444), int64(1)
	if dir {
		mode, links = 0o040555, 2
	}
	b = append(b, 'P', 'X', 36, 1)
	for _, v := range []int64{mode, links, 0, 0} {
		b = both32(b, v)
	}
	if first {
		const id, text = "RRIP_1991A", "ROCK RIDGE"
		b = append(b, 'E', 'R', byte(8+len(id)+len(text)), 1, byte(len(id)), byte(len(text)), 0, 1)
		b = append(append(b, id...), text...)
	}
	if !dir {
		b = append(b, 'N', 'M', byte(5+len(e.name)), 1, 0)
		b = append(b, e.name...)
	}
	return b
}

// pathTable lists the one directory there is (ECMA-119 §9.4).
func (t *tree) pathTable(order binary.AppendByteOrder, root int64) []byte {
	b := []byte{1, 0}
	b = order.AppendUint32(b, uint32(root))
	b = order.AppendUint16(b, 1)
	return append(b, 0, 0)
}

// descriptor is the primary or the supplementary volume descriptor (ECMA-119
// §8.4, §8.5).
func (t *tree) descriptor(label Label, total int64) []byte {
	text := func(s string, n int) []byte {
		if t.joliet {
			b := ucs2(s)
			for len(b) < n {
				b = append(b, 0, ' ')
			}
			return b[:n]
		}
		return []byte(fmt.Sprintf("%-*.*s", n, n, dchars(s)))
	}
	blank := func(n int) []byte {
		return text("", n)
	}
	b := []byte{1, 'C', 'D', '0', '0', '1', 1, 0}
	if t.joliet {
		b[0] = 2
	}
	b = append(b, blank(32)...)
	b = append(b, text(label.Volume, 32)...)
	b = append(b, make([]byte, 8)...)
	b = both32(b, total)
	escape := make([]byte, 32)
	if t.joliet {
		copy(escape, "%/E") // UCS-2 level 3
	}
	b = append(b, escape...)
	b = both16(both16(both16(b, 1), 1), sector)
	b = both32(b, int64(len(t.pathTable(binary.LittleEndian, 0))))
	b = binary.LittleEndian.AppendUint32(b, uint32(t.at))
	b = append(b, 0, 0, 0, 0)
	b = binary.BigEndian.AppendUint32(b, uint32(t.at+1))
	b = append(b, 0, 0, 0, 0)
	b = append(b, t.record(entry{"", t.at + 2, int64(len(t.dir))}, []byte{0}, 2, nil)...)
	for _, n := range []int{128, 128, 128, 128, 37, 37, 37} {
		b = append(b, blank(n)...)
	}
	b = b[:813]
	stamp := append([]byte(t.made.Format("20060102150405")+"00"), 0)
	never := append(bytes.Repeat([]byte{'0'}, 16), 0)
	for _, s := range [][]byte{stamp, stamp, never, stamp} {
		b = append(b, s...)
	}
	b = append(b, 1, 0)
	return append(b, make([]byte, sector-len(b))...)
}
