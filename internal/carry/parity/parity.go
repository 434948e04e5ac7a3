// Package parity makes Reed-Solomon parity of runs of bytes, shards, and gives
// back what was lost of them. One code serves everything: 128 data shards, of
// which those that do not exist count as zeros, and up to 16 parity shards. It
// knows nothing of volumes or signed hashes: what it gives back is a proposal,
// which the caller proves. docs/spec/shipment.md §4.
package parity

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/klauspost/reedsolomon"
)

// The size of the code, in shards.
const (
	Data  = 128
	Spare = 16
)

// Column is how many bytes of a shard are found damaged, and mended, together.
const Column = 64 << 10

// ErrLost is given when more is lost than the parity can give back.
var ErrLost = errors.New("more is damaged than the parity can mend")

// Code adds up and takes apart shards; it holds no data.
type Code struct {
	rs reedsolomon.Encoder
	m  int
}

// NewCode returns the code with m parity shards, 1 to Spare. The first parity
// shards are the same whatever m is.
func NewCode(m int) (Code, error) {
	rs, err := reedsolomon.New(Data, m, reedsolomon.WithCauchyMatrix(), reedsolomon.WithMaxGoroutines(2))
	if err == nil && m > Spare {
		err = fmt.Errorf("%d parity shards, want at most %d", m, Spare)
	}
	return Code{rs, m}, err
}

// Add adds data shard i to m parity shards of its length, which begin as zeros.
func (c Code) Add(shard []byte, i int, parity [][]byte) error {
	return c.rs.EncodeIdx(shard, i, parity)
}

// Rebuild fills in shard want, of size bytes. shards are the first k data shards
// and then the m parity shards; nil is one that is lost. Each of the others has
// size bytes.
func (c Code) Rebuild(shards [][]byte, k, want, size int) ([]byte, error) {
	all, zeros := make([][]byte, Data+c.m), make([]byte, size)
	required := make([]bool, Data+c.m)
	for i := range Data {
		all[i] = zeros
	}
	copy(all, shards[:k])
	copy(all[Data:], shards[k:])
	at := want
	if want >= k {
		at = Data + want - k
	}
	all[at], required[at] = nil, true
	err := c.rs.ReconstructSome(all, required)
	if errors.Is(err, reedsolomon.ErrTooFewShards) {
		err = ErrLost
	}
	return all[at], err
}

// Group makes the parity of one group of shards after the other, as they come.
// It holds m shards in memory.
type Group struct {
	code    Code
	max     int
	spare   [][]byte
	sums    [][]uint32 // of the columns of each data shard
	padded  []byte
	longest int
}

// NewGroup returns a Group that makes up to m parity shards of shards of at most
// longest bytes.
func NewGroup(m, longest int) (*Group, error) {
	c, err := NewCode(m)
	if err != nil {
		return nil, err
	}
	g := &Group{code: c, max: longest, padded: make([]byte, longest)}
	for range m {
		g.spare = append(g.spare, make([]byte, longest))
	}
	return g, nil
}

// Add takes the next data shard of the group.
func (g *Group) Add(p []byte) error {
	if len(g.sums) == Data || len(p) > g.max {
		return errors.New("the group is full, or the shard too long")
	}
	err := g.code.Add(append(g.padded[:0], p...)[:g.max], len(g.sums), g.spare)
	clear(g.padded[:len(p)])
	g.longest = max(g.longest, len(p))
	g.sums = append(g.sums, Sums(p))
	return err
}

// Len returns how many shards were added.
func (g *Group) Len() int { return len(g.sums) }

// Parity returns payload j of the group: its head, and the parity shard. Both are
// valid until the next call of Reset.
func (g *Group) Parity(j int) (head, shard []byte) {
	shard = g.spare[j][:g.longest]
	h := Head{Shard: g.longest, Number: j, Sums: g.sums, Own: Sums(shard)}
	return h.append(nil), shard
}

// Reset begins the next group.
func (g *Group) Reset() {
	for _, s := range g.spare {
		clear(s)
	}
	g.sums, g.longest = nil, 0
}

// Sums returns the CRC-32C of each column of a shard.
func Sums(p []byte) (out []uint32) {
	for len(p) > 0 {
		n := min(len(p), Column)
		out = append(out, crc32.Checksum(p[:n], crc32.MakeTable(crc32.Castagnoli)))
		p = p[n:]
	}
	return out
}

func columns(shard int) int { return (shard + Column - 1) / Column }

// Head stands before a parity shard: what the columns of the group's shards add
// up to, so that damage is found where it is.
type Head struct {
	Shard  int        // bytes of the longest data shard, and of every parity shard
	Number int        // of this parity shard, from 0
	Sums   [][]uint32 // of the columns of every data shard
	Own    []uint32   // of the columns of this parity shard
}

const headFixed = 8

// HeadSize is the size of the head of a parity shard of k shards, the longest of
// which has shard bytes.
func HeadSize(k, shard int) int { return headFixed + 4*columns(shard)*(k+1) + 4 }

// PayloadSize is HeadSize and the shard.
func PayloadSize(k, shard int) int { return HeadSize(k, shard) + shard }

func (h Head) append(b []byte) []byte {
	begin := len(b)
	b = binary.BigEndian.AppendUint32(b, uint32(h.Shard))
	b = binary.BigEndian.AppendUint16(b, uint16(len(h.Sums)))
	b = binary.BigEndian.AppendUint16(b, uint16(h.Number))
	for _, sums := range append(append([][]uint32{}, h.Sums...), h.Own) {
		for c := range columns(h.Shard) {
			v := uint32(0) // a column behind the end of a shard
			if c < len(sums) {
				v = sums[c]
			}
			b = binary.BigEndian.AppendUint32(b, v)
		}
	}
	return binary.BigEndian.AppendUint32(b, crc32.Checksum(b[begin:], crc32.MakeTable(crc32.Castagnoli)))
}

// ParseHead reads the head of a parity shard of k shards in a payload of size
// bytes; b begins with it. A head that is damaged is an error.
func ParseHead(b []byte, k, size int) (h Head, err error) {
	bad := errors.New("the head of the parity is damaged")
	if len(b) < headFixed || int(binary.BigEndian.Uint16(b[4:])) != k || k == 0 || k > Data {
		return h, bad
	}
	shard := binary.BigEndian.Uint32(b)
	if int64(shard) > int64(size) || PayloadSize(k, int(shard)) != size || len(b) < HeadSize(k, int(shard)) {
		return h, bad
	}
	h.Shard, h.Number = int(shard), int(binary.BigEndian.Uint16(b[6:]))
	b = b[:HeadSize(k, h.Shard)]
	end := len(b) - 4
	if h.Number >= Spare || binary.BigEndian.Uint32(b[end:]) != crc32.Checksum(b[:end], crc32.MakeTable(crc32.Castagnoli)) {
		return h, bad
	}
	at := headFixed
	row := func() []uint32 {
		out := make([]uint32, columns(h.Shard))
		for c := range out {
			out[c] = binary.BigEndian.Uint32(b[at:])
			at += 4
		}
		return out
	}
	for range k {
		h.Sums = append(h.Sums, row())
	}
	h.Own = row()
	return h, nil
}

// Source reads column c of a shard of the group, data shards first, then the
// parity shards, into p, and returns how many bytes it has there: fewer where
// the shard ends.
type Source func(shard, c int, p []byte) (n int, err error)

// Mend gives back data shard x of a group with k of them. p is the shard as it was
// read, and is mended in place, column by column where one is damaged. heads are
// those of the parity shards that could be read, by number.
func Mend(p []byte, x, k int, heads map[int]Head, read Source) error {
	var table *Head
	m := 0
	for j, h := range heads {
		if h.Number != j || table != nil && h.Shard != table.Shard {
			return ErrLost
		}
		m, table = max(m, j+1), &h
	}
	if table == nil || len(p) > table.Shard {
		return ErrLost
	}
	code, err := NewCode(m)
	if err != nil {
		return err
	}
	for c, sum := range Sums(p) {
		if sum == table.Sums[x][c] {
			continue
		}
		good, err := code.column(x, k, c, *table, heads, read)
		if err != nil {
			return err
		}
		copy(p[c*Column:], good)
	}
	return nil
}

// column rebuilds one column of shard x.
func (c Code) column(x, k, col int, table Head, heads map[int]Head, read Source) ([]byte, error) {
	width := min(Column, table.Shard-col*Column)
	shards := make([][]byte, k+c.m)
	for i := range shards {
		want := uint32(0)
		if i >= k {
			h, ok := heads[i-k]
			if !ok {
				continue
			}
			want = h.Own[col]
		} else if want = table.Sums[i][col]; i == x {
			continue
		}
		b := make([]byte, width)
		n, err := read(i, col, b)
		if err != nil || crc32.Checksum(b[:n], crc32.MakeTable(crc32.Castagnoli)) != want {
			continue // lost as well
		}
		shards[i] = b
	}
	return c.Rebuild(shards, k, x, width)
}
