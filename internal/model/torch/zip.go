package torch

import (
	"archive/zip"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// parts are the members of an archive of torch, without its directory.
type parts map[string]*io.SectionReader

// readZip reads an archive of torch 1.6 and newer. stored is how many bytes all
// storages have.
func readZip(ctx context.Context, r io.ReaderAt, size int64) (root any, stored int64, err error) {
	all, err := members(r, size)
	if err != nil {
		return nil, 0, fmt.Errorf("its archive: %w", err)
	}
	big, err := all.order()
	if err != nil {
		return nil, 0, err
	}
	pickle := all["data.pkl"]
	if pickle == nil {
		return nil, 0, errors.New("its archive has no data.pkl")
	}
	if pickle.Size() > maxPickle {
		return nil, 0, refuse("its data.pkl has %d bytes, more than %d", pickle.Size(), maxPickle)
	}
	known := map[string]*storage{}
	m := newMachine(ctx, pickle, pickle.Size())
	m.persistent = func(id []any) (any, error) { return all.storage(id, known, big) }
	if root, err = m.run(); err != nil {
		return nil, 0, fmt.Errorf("its data.pkl: %w", err)
	}
	if m.at != pickle.Size() {
		return nil, 0, errors.New("its data.pkl: bytes stand behind the pickle")
	}
	for name, member := range all {
		key, ok := strings.CutPrefix(name, "data/")
		if ok && known[key] == nil {
			return nil, 0, refuse("its archive has a storage %.80q that the pickle does not name", key)
		}
		if ok {
			stored += member.Size()
		}
	}
	return root, stored, nil
}

// members opens the archive: everything stored as it is, in one directory, each
// name once, no byte in two members.
func members(r io.ReaderAt, size int64) (parts, error) {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return nil, err
	}
	if len(z.File) > maxEntries {
		return nil, refuse("more than %d members", maxEntries)
	}
	type span struct{ at, end int64 }
	all, spans, directory := parts{}, []span{}, ""
	for i, f := range z.File {
		dir, name, ok := strings.Cut(f.Name, "/")
		if i == 0 {
			directory = dir
		}
		if !ok || dir != directory || name == "" {
			return nil, refuse("member %.80q does not stand in the directory of the others", f.Name)
		}
		if all[name] != nil {
			return nil, refuse("member %.80q stands twice", f.Name)
		}
		if f.Method != zip.Store || f.Flags&1 != 0 || f.CompressedSize64 != f.UncompressedSize64 {
			return nil, refuse("member %.80q is compressed or encrypted; torch stores it as it is", f.Name)
		}
		at, begin, err := dataOf(r, f)
		if err != nil {
			return nil, fmt.Errorf("member %.80q: %w", f.Name, err)
		}
		if f.CompressedSize64 > uint64(size-at) {
			return nil, refuse("member %.80q leaves the file", f.Name)
		}
		if err := expected(name); err != nil {
			return nil, err
		}
		n := int64(f.CompressedSize64)
		all[name] = io.NewSectionReader(r, at, n)
		spans = append(spans, span{begin, at + n})
	}
	slices.SortFunc(spans, func(a, b span) int { return cmp.Compare(a.at, b.at) })
	for i := 1; i < len(spans); i++ {
		if spans[i].at < spans[i-1].end {
			return nil, errors.New("two members overlap")
		}
	}
	return all, nil
}

// maxPadding is how many bytes torch may put before a storage to align it; it
// pads to 64 unless told otherwise.
const maxPadding = 8 << 10

// dataOf returns where the bytes of a member begin, and its local header, which
// must name the same member: it stands before the name and the padding.
func dataOf(r io.ReaderAt, f *zip.File) (at, begin int64, err error) {
	if at, err = f.DataOffset(); err != nil {
		return 0, 0, err
	}
	const header = 30
	fixed := int64(header + len(f.Name))
	block := make([]byte, min(at, fixed+maxPadding))
	if _, err := r.ReadAt(block, at-int64(len(block))); err != nil {
		return 0, 0, err
	}
	for padding := int64(0); padding+fixed <= int64(len(block)); padding++ {
		h := block[int64(len(block))-fixed-padding:]
		if string(h[:4]) == "PK\x03\x04" && binary.LittleEndian.Uint16(h[8:]) == zip.Store && int(binary.LittleEndian.Uint16(h[26:])) == len(f.Name) &&
			int64(binary.LittleEndian.Uint16(h[28:])) == padding && string(h[header:fixed]) == f.Name {
			return at, at - fixed - padding, nil
		}
	}
	return 0, 0, errors.New("its local header names another member, or pads too much")
}

// expected refuses members that torch.save does not write.
func expected(name string) error {
	switch name {
	case "data.pkl", "byteorder", "version", ".data/serialization_id", ".format_version", ".storage_alignment":
		return nil
	case "constants.pkl":
		return &Refusal{"its archive is a program of TorchScript, not a checkpoint", "save module.state_dict() with torch where it was made"}
	}
	if key, ok := strings.CutPrefix(name, "data/"); ok && key != "" && !strings.Contains(key, "/") {
		return nil
	}
	return refuse("its archive has a member %.80q, which torch.save does not write", name)
}

// order reads which byte of a number stands first; without a word it is the low one.
func (p parts) order() (big bool, err error) {
	member := p["byteorder"]
	if member == nil {
		return false, nil
	}
	b := make([]byte, 8)
	n, err := member.ReadAt(b, 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return false, err
	}
	switch string(b[:n]) {
	case "little":
		return false, nil
	case "big":
		return true, nil
	}
	return false, refuse("its byteorder is %.20q", b[:n])
}

// storage makes the storage of a persistent id: ('storage', class, key, location,
// elements).
func (p parts) storage(id []any, known map[string]*storage, big bool) (any, error) {
	if len(id) != 5 {
		return nil, refuse("a persistent id has %d parts", len(id))
	}
	s, err := newStorage(id)
	if err != nil {
		return nil, err
	}
	if old := known[s.key]; old != nil {
		if old.kind != s.kind || old.numel != s.numel {
			return nil, refuse("storage %.80q is named with two types or sizes", s.key)
		}
		return old, nil
	}
	member := p["data/"+s.key]
	if member == nil {
		return nil, refuse("storage %.80q is not in the archive", s.key)
	}
	n, err := s.bytes()
	if err != nil || n != member.Size() {
		return nil, refuse("storage %.80q has %d bytes in the archive, and %d by the pickle", s.key, member.Size(), n)
	}
	s.big, s.data = big, &data{r: member, bytes: n}
	known[s.key] = s
	return s, nil
}

// newStorage reads the parts that both formats write.
func newStorage(id []any) (*storage, error) {
	key, ok := id[2].(string)
	_, ok2 := id[3].(string)
	numel, ok3 := id[4].(int64)
	if id[0] != "storage" || !ok || !ok2 || !ok3 || numel < 0 {
		return nil, errors.New("a persistent id is none of a storage")
	}
	kind, err := storageClass(id[1])
	return &storage{key: key, kind: kind, numel: numel}, err
}
