package guard

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// What is passed over has nothing in it: all that plain search finds is found, once.
func TestMatcherFindsAll(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	some := func(least, most int) string {
		var b strings.Builder
		for range least + r.IntN(most-least+1) {
			b.WriteByte("abc \n"[r.IntN(5)])
		}
		return b.String()
	}
	for range 3000 {
		var words []string
		for range 1 + r.IntN(6) {
			if w := strings.ReplaceAll(some(2, 6), "\n", " "); !slices.Contains(words, w) {
				words = append(words, w)
			}
		}
		text := some(0, 60)
		var want, got []string
		for end := range len(text) + 1 {
			for id, w := range words {
				if strings.HasSuffix(strings.ReplaceAll(text[:end], "\n", " "), w) {
					want = append(want, fmt.Sprint(id, end))
				}
			}
		}
		newMatcher(words, oneSpace).find([]byte(text), func(word int32, end int) { got = append(got, fmt.Sprint(word, end)) })
		slices.Sort(want)
		slices.Sort(got)
		if !slices.Equal(want, got) {
			t.Fatalf("%q in %q: found %q, there are %q", words, text, got, want)
		}
	}
}
