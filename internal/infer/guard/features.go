package guard

// The classifier is linear over hashed features: groups of 3 to 5 bytes, words, pairs of
// words, and what the words are about, alone and in order. docs/spec/guard.md has it
// byte by byte: a change here is another version of the format.

const (
	bits    = 17 // of an index into the weights
	buckets = 1 << bits

	wordValue    = 2
	conceptValue = 5
	maxGap       = 14 // words between concepts that belong together
	maxWord      = 40 // bytes of a word that is looked at
)

func bucket(h uint32) uint32 { return (h * 2654435769) >> (32 - bits) }

// Is a byte part of a word? Constant.
var wordByte = func() (t [256]bool) {
	for i := range t {
		c := byte(i)
		t[i] = c >= 'a' && c <= 'z' || c >= '0' && c <= '9' || c == '_' || c >= 0x80
	}
	return t
}()

// grams3, grams4 and grams5 are the weights of groups of bytes: t is the first three,
// each in eight bits, and so is what comes before the last byte of a longer group.
func grams3(t uint32) uint32 { return bucket(t*prime32 ^ 0x33) }

func grams4(t uint32, fourth byte) (h, w uint32) {
	h = t*31 + uint32(fourth)
	return h, bucket(h*prime32 ^ 0x44444)
}

func grams5(h uint32, fifth byte) uint32 { return bucket((h*131+uint32(fifth))*prime32 ^ 0x5555555) }

// grams returns the weights of the groups of 3, 4 and 5 bytes that begin at i; there
// are as many as fit.
func grams(text []byte, i int) (g [3]uint32, n int) {
	t := text[i:]
	if len(t) < 3 {
		return g, 0
	}
	three := uint32(t[0])<<16 | uint32(t[1])<<8 | uint32(t[2])
	g[0] = grams3(three)
	if len(t) < 4 {
		return g, 1
	}
	h, w := grams4(three, t[3])
	if g[1] = w; len(t) < 5 {
		return g, 2
	}
	g[2] = grams5(h, t[4])
	return g, 3
}

// sumGrams sums the weights of the groups that begin in text[from:to], and counts them.
func sumGrams(table *[buckets]int8, text []byte, from, to int) (sum, count int) {
	whole := min(to, len(text)-4) // as far as groups of five go
	if from < whole {
		t := text[from : whole+4]
		three := uint32(t[0])<<8 | uint32(t[1])
		for k := 0; k+4 < len(t); k++ {
			three = (three<<8 | uint32(t[k+2])) & 0xFFFFFF
			h, w := grams4(three, t[k+3])
			sum += int(table[grams3(three)]) + int(table[w]) + int(table[grams5(h, t[k+4])])
		}
		count, from = 3*(whole-from), whole
	}
	for i := from; i < to; i++ {
		g, n := grams(text, i)
		for _, j := range g[:n] {
			sum += int(table[j])
		}
		count += n
	}
	return sum, count
}

// features calls yield with each feature of a folded text: where it begins, which
// weight is its own and how much it counts.
func features(text []byte, yield func(at int, i uint32, value float32)) {
	for i := range text {
		g, n := grams(text, i)
		for _, w := range g[:n] {
			yield(i, w, 1)
		}
	}
	words(text, yield)
}

// words yields the features of words.
func words(text []byte, yield func(at int, i uint32, value float32)) {
	type seen struct {
		concept uint8
		word    int
	}
	var last [3]seen // the newest first
	before, n := uint32(0), 0
	for i := 0; i < len(text); {
		if !wordByte[text[i]] {
			i++
			continue
		}
		j := i
		for j < len(text) && wordByte[text[j]] {
			j++
		}
		h, c := meaning.of(text[i:min(j, i+maxWord)])
		yield(i, bucket(h^0x11111111), wordValue)
		yield(i, bucket(h*0x9E3779B1^before^0x22222222), wordValue)
		before = h
		n++
		if c != 0 {
			key := uint32(c)
			yield(i, bucket(key*0x85EBCA6B^0xC0), conceptValue)
			for k, l := range last {
				if l.concept == 0 || n-l.word > maxGap {
					break
				}
				yield(i, bucket((key<<8|uint32(l.concept))*0x85EBCA6B^0xC1), conceptValue)
				if k == 1 {
					yield(i, bucket((key<<16|uint32(last[0].concept)<<8|uint32(l.concept))*0x85EBCA6B^0xC2), conceptValue)
				}
			}
			last[2], last[1], last[0] = last[1], last[0], seen{c, n}
		}
		i = j
	}
}
