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

// Features calls yield with each feature of a folded text: where it ends, which weight
// is its own and how much it counts.
func features(text []byte, yield func(at int, i uint32, value float32)) {
	for i := range text {
		// Groups begin at every byte; a mark of their length keeps them apart.
		if i+3 > len(text) {
			break
		}
		h := uint32(text[i])<<16 | uint32(text[i+1])<<8 | uint32(text[i+2])
		yield(i, bucket(h*0x01000193^0x33), 1)
		if i+4 <= len(text) {
			h = h*31 + uint32(text[i+3])
			yield(i, bucket(h*0x01000193^0x44444), 1)
		}
		if i+5 <= len(text) {
			h = h*131 + uint32(text[i+4])
			yield(i, bucket(h*0x01000193^0x5555555), 1)
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
		w := text[i:min(j, i+maxWord)]
		h := uint32(offset32)
		for _, b := range w {
			h = (h ^ uint32(b)) * prime32
		}
		yield(i, bucket(h^0x11111111), wordValue)
		yield(i, bucket(h*0x9E3779B1^before^0x22222222), wordValue)
		before = h
		n++
		if c := meaning.of(w); c != 0 {
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
