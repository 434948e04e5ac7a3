package guard

import (
	_ "embed"
	"strings"
)

// conceptFile is the table of words; constant.
//
//go:embed concepts.txt
var conceptFile string

// concepts maps words to what they are about. Most words are about nothing that
// matters, and begin like none that do.
type concepts struct {
	whole  map[uint32]uint8 // hash of a word → concept
	prefix map[uint32]uint8 // hash of the beginning of one, of minStem bytes and more
	begins [1 << 13]bool    // by the last bits of the hash: it may be in prefix
	words  [1 << 13]bool    // or in whole
}

const (
	minStem = 4
	maxStem = 12
)

// meaning is the table that is shipped. Constant.
var meaning = readConcepts(conceptFile)

func readConcepts(file string) *concepts {
	c := &concepts{whole: map[uint32]uint8{}, prefix: map[uint32]uint8{}}
	n := uint8(0)
	for line := range strings.Lines(file) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == "#" {
			continue
		}
		n++
		for _, w := range f[1:] {
			stem, all := strings.CutSuffix(w, ".")
			into, may := c.prefix, &c.begins
			if all || len(stem) < minStem {
				into, may = c.whole, &c.words
			}
			h := hashWord(stem)
			if may[h%uint32(len(may))] = true; into[h] == 0 {
				into[h] = n
			}
		}
	}
	return c
}

// of returns the hash of a folded word, and its concept, or 0.
func (c *concepts) of(word []byte) (h uint32, found uint8) {
	h = offset32
	for i, b := range word {
		h = (h ^ uint32(b)) * prime32
		if i+1 >= minStem && i+1 <= maxStem && c.begins[h%uint32(len(c.begins))] {
			if k := c.prefix[h]; k != 0 {
				found = k
			}
		}
	}
	if c.words[h%uint32(len(c.words))] {
		if k := c.whole[h]; k != 0 {
			found = k
		}
	}
	return h, found
}

// FNV-1a, 32 bits.
const (
	offset32 = 2166136261
	prime32  = 16777619
)

func hashWord(s string) uint32 {
	h := uint32(offset32)
	for i := range len(s) {
		h = (h ^ uint32(s[i])) * prime32
	}
	return h
}
