package torch

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// legacyStart is how a legacy file begins: a pickle of protocol 2 that holds the
// magic number (torch/serialization.py, MAGIC_NUMBER).
const legacyStart = "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19."

// legacy is the reading of one legacy file: five pickles, then the storages, each
// behind its number of elements.
type legacy struct {
	ctx   context.Context //nolint:containedctx // lives for one file
	r     io.ReaderAt
	at    int64
	size  int64
	roots map[string]*storage // by key
	views map[string]*storage // parts of roots, by key
}

// readLegacy reads what torch wrote before 1.6, and writes when asked to.
func readLegacy(ctx context.Context, r io.ReaderAt, size int64) (root any, stored int64, err error) {
	l := &legacy{ctx: ctx, r: r, at: int64(len(legacyStart)), size: size, roots: map[string]*storage{}, views: map[string]*storage{}}
	version, err := l.pickle("protocol", nil)
	if err == nil && version != int64(1001) {
		err = errors.New("its protocol is not 1001")
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := l.pickle("sys_info", nil)
	if err != nil {
		return nil, 0, err
	}
	if d, ok := info.(*dict); !ok || d.get("protocol_version") != int64(1001) || d.get("little_endian") != true {
		return nil, 0, errors.New("its sys_info is not that of a machine with the low byte first")
	}
	if root, err = l.pickle("object", l.storage); err != nil {
		return nil, 0, err
	}
	keys, err := l.pickle("list of storages", nil)
	if err != nil {
		return nil, 0, err
	}
	ordered, ok := keys.(*list)
	if !ok {
		return nil, 0, errors.New("its list of storages is none")
	}
	stored, err = l.place(ordered.items)
	return root, stored, err
}

func (d *dict) get(key string) any {
	for i, k := range d.keys {
		if k == key {
			return d.values[i]
		}
	}
	return nil
}

// pickle reads the next one.
func (l *legacy) pickle(what string, persistent func([]any) (any, error)) (any, error) {
	limit := min(maxPickle, l.size-l.at)
	m := newMachine(l.ctx, io.NewSectionReader(l.r, l.at, limit), limit)
	m.persistent = persistent
	v, err := m.run()
	if err != nil {
		return nil, fmt.Errorf("its %s: %w", what, err)
	}
	l.at += m.at
	return v, nil
}

// storage makes the storage of a persistent id: ('storage', class, key, location,
// elements, part), where part is None or (key, offset, elements).
func (l *legacy) storage(id []any) (any, error) {
	if len(id) != 6 {
		return nil, refuse("a persistent id has %d parts", len(id))
	}
	s, err := newStorage(id)
	if err != nil {
		return nil, err
	}
	if _, err := s.bytes(); err != nil {
		return nil, err
	}
	if s.kind.size == 0 {
		return nil, errors.New("a storage of bytes in a legacy file is not understood")
	}
	if old := l.roots[s.key]; old == nil {
		s.data = &data{r: l.r}
		l.roots[s.key] = s
	} else if old.kind != s.kind || old.numel != s.numel {
		return nil, refuse("storage %.80q is named with two types or sizes", s.key)
	} else {
		s = old
	}
	part, ok := id[5].(*tuple)
	if _, whole := id[5].(none); whole {
		return s, nil
	}
	if !ok || len(part.items) != 3 {
		return nil, errors.New("a part of a storage is none")
	}
	return l.part(s, part.items)
}

// part makes a storage that is a part of another.
func (l *legacy) part(root *storage, id []any) (any, error) {
	key, ok := id[0].(string)
	offset, ok2 := id[1].(int64)
	numel, ok3 := id[2].(int64)
	if !ok || !ok2 || !ok3 || offset < 0 || numel < 0 || offset > root.numel || numel > root.numel-offset {
		return nil, errors.New("a part of a storage is none, or leaves it")
	}
	s := &storage{key: key, kind: root.kind, numel: numel, base: offset * root.kind.size, data: root.data}
	if old := l.views[key]; old == nil {
		l.views[key] = s
	} else if old.kind != s.kind || old.numel != numel || old.base != s.base || old.data != s.data {
		return nil, refuse("part %.80q of a storage is named in two ways", key)
	} else {
		s = old
	}
	return s, nil
}

// place finds where each storage stands, up to the end of the file.
func (l *legacy) place(keys []any) (stored int64, err error) {
	if len(keys) != len(l.roots) {
		return 0, refuse("its list has %d storages, and the object names %d", len(keys), len(l.roots))
	}
	placed := map[string]bool{}
	for _, k := range keys {
		if err := l.ctx.Err(); err != nil {
			return 0, err
		}
		key, _ := k.(string)
		s := l.roots[key]
		if s == nil || placed[key] {
			return 0, refuse("storage %.80q is listed twice, or the object does not name it", key)
		}
		placed[key] = true
		var count [8]byte
		if l.size-l.at < 8 {
			return 0, errCut
		}
		if _, err := l.r.ReadAt(count[:], l.at); err != nil {
			return 0, cut(err)
		}
		l.at += 8
		n, err := s.bytes()
		if err != nil {
			return 0, err
		}
		if got := binary.LittleEndian.Uint64(count[:]); got != uint64(s.numel) {
			return 0, refuse("storage %.80q has %d elements, and %d by the pickle", key, got, s.numel)
		}
		if n > l.size-l.at {
			return 0, errCut
		}
		s.data.at, s.data.bytes = l.at, n
		l.at += n
		stored += n
	}
	if l.at != l.size {
		return 0, refuse("%d bytes stand behind the last storage", l.size-l.at)
	}
	return stored, nil
}
