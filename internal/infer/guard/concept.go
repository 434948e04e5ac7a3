package guard

import (
	_ "embed"
	"strings"
)

// conceptFile is the table of words; constant.
//
//go:embed concepts.txt
var conceptFile string

// concepts maps words to what they are about.
type concepts struct {
	whole  map[uint32]uint8 // hash of a word → concept
	prefix map[uint32]uint8 // hash of the beginning of one, of minStem bytes and more
}

const (
	minStem = 4
	maxStem = 12
)

// meaning is the table that is shipped. Constant.
var meaning = readConcepts(conceptFile)

func readConcepts(file string) *concepts {
	c := &concepts{map[uint32]uint8{}, map[uint32]uint8{}}
	n := uint8(0)
	for line := range strings.Lines(file) {
		f := strings.Fields(line)
		if len(f) == 0 || f[0] == "#" {
			continue
		}
		n++
		for _, w := range f[1:] {
			stem, all := strings.CutSuffix(w, ".")
			into := c.prefix
			if all || len(stem) < minStem {
				into = c.whole
			}
			if h := hashWord(stem); into[h] == 0 {
				into[h] = n
			}
		}
	}
	return c
}

// of returns the concept of a folded word, or 0.
func (c *concepts) of(word []byte) uint8 {
	h := uint32(offset32)
	found := uint8(0)
	for i, b := range word {
		h = (h ^ uint32(b)) * prime32
		if i+1 >= minStem && i+1 <= maxStem {
			if k := c.prefix[h]; k != 0 {
				found = k
			}
		}
	}
	if k := c.whole[h]; k != 0 {
		return k
	}
	return found
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
