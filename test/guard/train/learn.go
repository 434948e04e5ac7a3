package main

import (
	"math"
	"math/rand/v2"
	"sort"

	"enisle/internal/infer/guard"
)

// learner fits one head: logistic regression by AdaGrad, on the window of each text that
// is most like an attack (multiple-instance learning).
type learner struct {
	window int
	w, g   []float64
	bias   float64
	gb     float64
}

type item struct {
	example
	blocks [][]guard.Feature
	rules  float64 // what rules add
	weight float64
}

func items(all []example, rules *guard.Rules, from guard.Source) []item {
	// Every source counts as much as the root of its number, and both sides the same.
	count := map[string]float64{}
	var side [2]float64
	out := make([]item, len(all))
	for i, e := range all {
		out[i] = item{example: e, blocks: guard.Features(e.text), rules: guard.RuleScore(rules, from, e.text)}
		count[key(e)]++
	}
	for i := range out {
		out[i].weight = 1 / math.Sqrt(count[key(out[i].example)])
		side[at(out[i].attack)] += out[i].weight
	}
	for i := range out {
		out[i].weight *= float64(len(out)) / 2 / side[at(out[i].attack)]
	}
	return out
}

func key(e example) string { return e.source + string(rune('0'+at(e.attack))) }

func at(b bool) int {
	if b {
		return 1
	}
	return 0
}

const (
	epochs = 6
	rate   = 0.15
	decay  = 2e-4
)

func (l *learner) fit(all []item) {
	l.w, l.g, l.gb = make([]float64, guard.Buckets), make([]float64, guard.Buckets), 1
	r := rand.New(rand.NewPCG(7, 7))
	order := make([]int, len(all))
	for i := range order {
		order[i] = i
	}
	for epoch := range epochs {
		r.Shuffle(len(order), func(i, j int) { order[i], order[j] = order[j], order[i] })
		for _, i := range order {
			it := &all[i]
			from, to, s := l.best(it.blocks)
			if epoch == 0 && !it.attack { // all of what is harmless is
				var spans [][2]int
				guard.Windows(len(it.blocks), l.window, func(a, b int) { spans = append(spans, [2]int{a, b}) })
				p := spans[r.IntN(len(spans))]
				from, to = p[0], p[1]
				s = l.logit(it.blocks, from, to)
			}
			l.step(it, from, to, s)
		}
	}
}

func (l *learner) step(it *item, from, to int, s float64) {
	norm := 1.0
	for _, b := range it.blocks[from:to] {
		for _, f := range b {
			norm += float64(f.Value) * float64(f.Value)
		}
	}
	y := 0.02 + 0.96*float64(at(it.attack))
	e := (1/(1+math.Exp(-s-it.rules)) - y) * it.weight
	norm = math.Sqrt(norm)
	for _, b := range it.blocks[from:to] {
		for _, f := range b {
			d := e*float64(f.Value)/norm + decay*l.w[f.Index]
			l.g[f.Index] += d * d
			l.w[f.Index] -= rate * d / math.Sqrt(l.g[f.Index]+1e-3)
		}
	}
	l.gb += e * e
	l.bias -= rate * e / math.Sqrt(l.gb)
}

func (l *learner) logit(blocks [][]guard.Feature, from, to int) float64 {
	s, norm := 0.0, 1.0
	for _, b := range blocks[from:to] {
		for _, f := range b {
			s += l.w[f.Index] * float64(f.Value)
			norm += float64(f.Value) * float64(f.Value)
		}
	}
	return l.bias + s/math.Sqrt(norm)
}

// best returns the window with the highest logit.
func (l *learner) best(blocks [][]guard.Feature) (from, to int, s float64) {
	sums, norms := make([]float64, len(blocks)+1), make([]float64, len(blocks)+1)
	for i, b := range blocks {
		sums[i+1], norms[i+1] = sums[i], norms[i]
		for _, f := range b {
			sums[i+1] += l.w[f.Index] * float64(f.Value)
			norms[i+1] += float64(f.Value) * float64(f.Value)
		}
	}
	s = math.Inf(-1)
	guard.Windows(len(blocks), l.window, func(a, b int) {
		if v := l.bias + (sums[b]-sums[a])/math.Sqrt(norms[b]-norms[a]+1); v > s {
			from, to, s = a, b, v
		}
	})
	return from, to, s
}

// quantised returns the weights in steps, and what a step is.
func (l *learner) quantised() (w []int8, scale float64) {
	size := make([]float64, len(l.w))
	for i, v := range l.w {
		size[i] = math.Abs(v)
	}
	sort.Float64s(size)
	scale = math.Max(size[len(size)-1-len(size)/2000], 1e-6) / 127 // the largest few are cut
	w = make([]int8, len(l.w))
	for i, v := range l.w {
		w[i] = int8(math.Max(-127, math.Min(127, math.Round(v/scale))))
	}
	return w, scale
}
