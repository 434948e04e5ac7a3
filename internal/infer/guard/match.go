package guard

import "slices"

// matcher finds many words at once (Aho and Corasick 1975), a byte at a time.
type matcher struct {
	class   [256]uint8
	classes int
	next    []int32 // state*classes + class → state
	out     [][]int32
	depth   []uint8 // of a state: bytes at the end of the text that begin a word
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
	return m
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

// find calls hit with each word and where it ends.
func (m *matcher) find(text []byte, hit func(word int32, end int)) {
	s := int32(0)
	for i, b := range text {
		s = m.next[int(s)*m.classes+int(m.class[b])]
		if s != 0 {
			for _, w := range m.out[s] {
				hit(w, i+1)
			}
		}
	}
}
