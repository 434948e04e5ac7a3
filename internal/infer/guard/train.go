package guard

// What a program needs that trains classifiers (test/guard/train).

// Feature is one of a text: which weight is its own and how much it counts.
type Feature struct {
	Index uint32
	Value float32
}

// Sizes of a classifier.
const (
	Buckets   = buckets
	BlockSize = blockSize
)

// Features returns the features of a text, block by block of its folded form.
func Features(text string) [][]Feature {
	f := fold(nil, text)
	out := make([][]Feature, len(f.text)/blockSize+1)
	features(f.text, func(at int, i uint32, v float32) {
		out[at/blockSize] = append(out[at/blockSize], Feature{i, v})
	})
	return out
}

// Windows calls each with the blocks that are judged together, of n.
func Windows(n, window int, each func(from, to int)) {
	s := sums{make([]float32, n), make([]float32, n)}
	s.windows(window/blockSize, func(from, to int, _, _ float64) { each(from, to) })
}

// NewClassifier makes one of weights, len = Buckets each.
func NewClassifier(head ClassifierHead, w [2][]int8) (*Classifier, error) {
	c := &Classifier{Head: head}
	for i := range w {
		c.heads[i] = weights{head.Heads[i], w[i]}
	}
	b, err := c.Bytes()
	if err != nil {
		return nil, err
	}
	return ParseClassifier(b) // what cannot be read is not written
}

// Score returns how much a text by itself is like an attack, from 0 to 1.
func (c *Classifier) Score(from Source, text string) float64 {
	var s sums
	return sigmoid(c.head(from).score(fold(nil, text).text, &s))
}

// RuleScore returns what the shipped rules alone add to the score of a text, in logits.
func RuleScore(r *Rules, from Source, text string) float64 {
	g := &Local{rules: r, classifier: &Classifier{heads: [2]weights{{HeadFile{Window: 1 << 12, Scale: 1}, make([]int8, buckets)}, {HeadFile{Window: 1 << 12, Scale: 1}, make([]int8, buckets)}}}}
	return g.read(text, from, &RoutePolicy{Mode: Block}, &scratch{}).logit
}
