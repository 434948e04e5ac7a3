package parity

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"
)

func noise(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// group is k shards of odd lengths with m of parity, and what reads them.
func group(t *testing.T, r *rand.Rand, k, m, longest int) (shards [][]byte, heads map[int]Head, read Source) {
	t.Helper()
	g, err := NewGroup(m, longest)
	if err != nil {
		t.Fatal(err)
	}
	for i := range k {
		s := noise(r, longest-i*longest/(2*k))
		shards = append(shards, s)
		if err := g.Add(s); err != nil {
			t.Fatal(err)
		}
	}
	heads = map[int]Head{}
	for j := range m {
		head, shard := g.Parity(j)
		h, err := ParseHead(append(bytes.Clone(head), shard...), k, PayloadSize(k, longest))
		if err != nil {
			t.Fatal(err)
		}
		heads[j] = h
		shards = append(shards, bytes.Clone(shard))
	}
	return shards, heads, func(i, c int, p []byte) (int, error) {
		if c*Column >= len(shards[i]) {
			return 0, nil
		}
		return copy(p, shards[i][c*Column:]), nil
	}
}

// TestMend loses as many shards as there is parity, in whole and in parts, and
// then one more.
func TestMend(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, tc := range []struct{ k, m, longest int }{{1, 1, 10}, {5, 2, Column}, {20, 3, 3*Column + 77}, {128, 16, Column + 1}} {
		shards, heads, read := group(t, r, tc.k, tc.m, tc.longest)
		for range 20 {
			lost := r.Perm(tc.k + tc.m)[:tc.m+1]
			good := map[int][]byte{}
			for _, i := range lost[:tc.m] {
				good[i] = bytes.Clone(shards[i])
				clear(shards[i][r.IntN(len(shards[i])):])
				shards[i][0] ^= 1
			}
			for i, want := range good {
				if i >= tc.k {
					continue
				}
				got := bytes.Clone(shards[i])
				if err := Mend(got, i, tc.k, heads, read); err != nil || !bytes.Equal(got, want) {
					t.Fatalf("%+v: shard %d: %v", tc, i, err)
				}
			}
			x := lost[tc.m]
			if x < tc.k {
				got := bytes.Clone(shards[x])
				got[0] ^= 1
				if err := Mend(got, x, tc.k, heads, read); !errors.Is(err, ErrLost) {
					t.Fatalf("%+v: %d shards are lost: %v", tc, tc.m+1, err)
				}
			}
			for i, want := range good {
				copy(shards[i], want)
			}
		}
	}
}

// TestDamageInManyPlaces has a flipped bit in every shard, in another column of
// each: more shards than there is parity, and all can be mended.
func TestDamageInManyPlaces(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	shards, heads, read := group(t, r, 12, 1, 30*Column)
	var good [][]byte
	for i := range 12 {
		good = append(good, bytes.Clone(shards[i]))
		shards[i][i*Column+5] ^= 8
	}
	for i := range 12 {
		if err := Mend(shards[i], i, 12, heads, read); err != nil || !bytes.Equal(shards[i], good[i]) {
			t.Fatalf("shard %d: %v", i, err)
		}
	}
}

func TestUnreadableShardsAreLost(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	shards, heads, read := group(t, r, 4, 2, 1000)
	want := bytes.Clone(shards[1])
	bad := func(i, c int, p []byte) (int, error) {
		if i == 2 {
			return 0, io.ErrUnexpectedEOF
		}
		return read(i, c, p)
	}
	got := make([]byte, len(want))
	if err := Mend(got, 1, 4, heads, bad); err != nil || !bytes.Equal(got, want) {
		t.Fatal(err)
	}
	delete(heads, 0)
	if err := Mend(make([]byte, len(want)), 1, 4, heads, bad); !errors.Is(err, ErrLost) {
		t.Errorf("with half the parity gone: %v", err)
	}
}

func FuzzParseHead(f *testing.F) {
	g, _ := NewGroup(1, 100)
	_ = g.Add([]byte("hello"))
	head, shard := g.Parity(0)
	f.Add(append(head, shard...), 1)
	f.Fuzz(func(_ *testing.T, b []byte, k int) { _, _ = ParseHead(b, k, len(b)) })
}
