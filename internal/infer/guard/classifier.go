package guard

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math"
)

// Classifier says how much a text is like an attack. It is safe for concurrent use.
type Classifier struct {
	Head  ClassifierHead
	heads [2]weights
}

// ClassifierHead is what a file says of itself, in JSON.
type ClassifierHead struct {
	Format  string     `json:"format"` // "enisle-guard-classifier/2"
	Name    string     `json:"name"`
	Sources []string   `json:"sources"` // what it was trained on, with licences
	Heads   []HeadFile `json:"heads"`   // for what people write; for what documents and tools say
}

// HeadFile is one set of weights.
type HeadFile struct {
	Bias   float64 `json:"bias"`
	Scale  float64 `json:"scale"`  // what one step of a weight is
	Window int     `json:"window"` // bytes of a text that are judged together
	// Flag and Block are the scores at which 1 % and 0.1 % of harmless texts of sources
	// that were not trained on are taken for attacks.
	Flag  float64 `json:"flag"`
	Block float64 `json:"block"`
}

type weights struct {
	HeadFile
	w []int8 // len = buckets
}

// ClassifierFormat is the format of the files.
const ClassifierFormat = "enisle-guard-classifier/2"

const (
	magic       = "ENISLEGC"
	maxHead     = 64 << 10 // bytes of the head of a file
	blockSize   = 32       // bytes of a text whose features are summed together
	windowParts = 4        // windows overlap by all but this part of them
)

// ParseClassifier reads the file of a classifier.
func ParseClassifier(b []byte) (*Classifier, error) {
	rest, ok := bytes.CutPrefix(b, []byte(magic))
	if !ok || len(rest) < 4 {
		return nil, errors.New("guard: it is no classifier")
	}
	n := binary.LittleEndian.Uint32(rest)
	if rest = rest[4:]; n > maxHead || int(n) > len(rest) {
		return nil, errors.New("guard: the head of the classifier is too long")
	}
	c := &Classifier{}
	d := json.NewDecoder(bytes.NewReader(rest[:n]))
	d.DisallowUnknownFields()
	if err := d.Decode(&c.Head); err != nil {
		return nil, fmt.Errorf("guard: the head of the classifier: %w", err)
	}
	rest = rest[n:]
	if c.Head.Format != ClassifierFormat {
		return nil, fmt.Errorf("guard: the classifier has the format %.80q, not %s", c.Head.Format, ClassifierFormat)
	}
	if len(c.Head.Heads) != len(c.heads) || len(rest) != len(c.heads)*buckets {
		return nil, errors.New("guard: the classifier has another size than it says")
	}
	for i, h := range c.Head.Heads {
		bad := func(v float64) bool { return math.IsNaN(v) || math.Abs(v) > 1e6 }
		if bad(h.Bias) || bad(h.Scale) || h.Scale <= 0 || h.Window < 2*blockSize || h.Window > 1<<16 || !(h.Flag > 0 && h.Flag <= h.Block && h.Block <= 1) {
			return nil, fmt.Errorf("guard: head %d of the classifier makes no sense", i)
		}
		c.heads[i] = weights{h, make([]int8, buckets)}
		for j, v := range rest[i*buckets : (i+1)*buckets] {
			c.heads[i].w[j] = int8(v)
		}
	}
	return c, nil
}

// Bytes returns the file.
func (c *Classifier) Bytes() ([]byte, error) {
	head, err := json.Marshal(c.Head)
	if err != nil {
		return nil, err
	}
	out := binary.LittleEndian.AppendUint32([]byte(magic), uint32(len(head)))
	out = append(out, head...)
	for _, h := range c.heads {
		for _, v := range h.w {
			out = append(out, byte(v))
		}
	}
	return out, nil
}

// head returns the weights for what a source says.
func (c *Classifier) head(s Source) *weights {
	if s.Untrusted() {
		return &c.heads[1]
	}
	return &c.heads[0]
}

// score returns the logit of the window of a folded text that is most like an attack.
func (w *weights) score(text []byte, sums *sums) float64 {
	sums.reset(len(text))
	table := (*[buckets]int8)(w.w)
	for k := range sums.weight {
		sum, count := sumGrams(table, text, k*blockSize, min((k+1)*blockSize, len(text)))
		sums.weight[k], sums.norm[k] = float32(sum), float32(count)
	}
	words(text, func(at int, i uint32, v float32) {
		k := at / blockSize
		sums.weight[k] += float32(table[i]) * v
		sums.norm[k] += v * v
	})
	best := math.Inf(-1)
	sums.windows(w.Window/blockSize, func(_, _ int, weight, norm float64) {
		best = max(best, w.Bias+w.Scale*weight/math.Sqrt(norm+1))
	})
	return best
}

// sums are the features of a text, block by block.
type sums struct{ weight, norm []float32 }

func (s *sums) reset(length int) {
	n := length/blockSize + 1
	if cap(s.weight) < n {
		s.weight, s.norm = make([]float32, n), make([]float32, n)
	}
	s.weight, s.norm = s.weight[:n], s.norm[:n]
}

// windows calls each with the sums over every window of so many blocks; a short text is
// one window. Windows overlap.
func (s *sums) windows(size int, each func(from, to int, weight, norm float64)) {
	n := len(s.weight)
	step := max(size/windowParts, 1)
	for from := 0; ; from += step {
		to := min(from+size, n)
		if n-to < step { // no tail of its own
			to = n
		}
		var weight, norm float64
		for k := from; k < to; k++ {
			weight += float64(s.weight[k])
			norm += float64(s.norm[k])
		}
		each(from, to, weight, norm)
		if to == n {
			return
		}
	}
}

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
