package guard

import "slices"

// matcher finds many words at once (Aho and Corasick 1975), a byte at a time. Where a
// whole text is there, most of it is passed over: words are looked for only where their
// first three bytes stand.
type matcher struct {
	class   [256]uint8
	classes int
	next    []int32 // state*classes + class → state
	out     [][]int32
	final   []bool          // of a state: a word ends here
	depth   []uint8         // of a state: bytes at the end of the text that begin a word
	begins  [1 << 10]uint64 // hashes of three classes that a word begins with, a bit each
}

const maxStates = 200_000 // of a matcher

// newMatcher takes words of at most 255 bytes; same says which bytes count as equal.
func newMatcher(words []string, same func(byte) byte) *matcher {
	m := &matcher{classes: 1}
	for _, w := range words {
		for i := range len(w) {
			if c := same(w[i]); m.class[c] == 0 {
				m.class[c] = uint8(m.classes)
				m.classes++
			}
		}
	}
	for i := range 256 {
		m.class[i] = m.class[same(byte(i))]
	}
	m.add()
	for id, w := range words {
		s := int32(0)
		for i := range len(w) {
			at := int(s)*m.classes + int(m.class[w[i]])
			if m.next[at] == 0 {
				m.next[at] = m.add()
				m.depth[m.next[at]] = uint8(i + 1)
			}
			s = m.next[at]
		}
		m.out[s] = append(m.out[s], int32(id))
	}
	m.link()
	for _, out := range m.out {
		m.final = append(m.final, len(out) > 0)
	}
	m.filter(words)
	return m
}

// beginning is how many bytes of a word are looked for first.
const beginning = 3

// slot is where three classes are in the filter: a word of it, and a bit.
func slot(three uint32) (word, bit uint32) {
	h := three * 0x9E3779B1
	return h >> 22, h >> 16 % 64
}

// filter notes what words begin with; what follows a shorter word may be anything.
func (m *matcher) filter(words []string) {
	for _, w := range words {
		keys := []uint32{0}
		for i := range beginning {
			var longer []uint32
			for _, k := range keys {
				if i < len(w) {
					longer = append(longer, k<<8|uint32(m.class[w[i]]))
					continue
				}
				for c := range m.classes {
					longer = append(longer, k<<8|uint32(c))
				}
			}
			keys = longer
		}
		for _, k := range keys {
			word, bit := slot(k)
			m.begins[word] |= 1 << bit
		}
	}
}

func (m *matcher) add() int32 {
	m.next = append(m.next, make([]int32, m.classes)...)
	m.out, m.depth = append(m.out, nil), append(m.depth, 0)
	return int32(len(m.out) - 1)
}

func (m *matcher) link() {
	fail := make([]int32, len(m.out))
	var queue []int32
	for _, s := range m.next[:m.classes] {
		if s != 0 {
			queue = append(queue, s)
		}
	}
	for len(queue) > 0 {
		s := queue[0]
		queue = queue[1:]
		m.out[s] = append(slices.Clip(m.out[s]), m.out[fail[s]]...)
		for c := range m.classes {
			at := int(s)*m.classes + c
			back := m.next[int(fail[s])*m.classes+c]
			if t := m.next[at]; t != 0 {
				fail[t] = back
				queue = append(queue, t)
			} else {
				m.next[at] = back
			}
		}
	}
}

// step returns the state after one more byte.
func (m *matcher) step(s int32, b byte) int32 {
	return m.next[int(s)*m.classes+int(m.class[b])]
}

// find calls hit with each word of two bytes or more, and where it ends. It is linear in
// the length of text.
func (m *matcher) find(text []byte, hit func(word int32, end int)) {
	i := 0
	for i+beginning <= len(text) {
		three, at := uint32(m.class[text[i]])<<8|uint32(m.class[text[i+1]]), -1
		for k, b := range text[i+2:] {
			three = (three<<8 | uint32(m.class[b])) & 0xFFFFFF
			if word, bit := slot(three); m.begins[word]>>bit&1 != 0 {
				at = k
				break
			}
		}
		if at < 0 {
			i = len(text) - beginning + 1
			break
		}
		i = m.from(text, i+at, hit)
	}
	m.from(text, i, hit) // words of two bytes at the end
}

// from finds the words that begin at i, or later while they overlap, and returns where
// others may.
func (m *matcher) from(text []byte, i int, hit func(word int32, end int)) (next int) {
	s := int32(0)
	for j := i; j < len(text); j++ {
		s = m.step(s, text[j])
		if m.final[s] {
			for _, w := range m.out[s] {
				hit(w, j+1)
			}
		} else if d := int(m.depth[s]); d < beginning && j-i+1 >= beginning {
			return j + 1 - d
		}
	}
	return len(text)
}
