package guard

import (
	"crypto/rand"
	"slices"
	"strings"
	"testing"
	"time"
)

func standard(tb testing.TB) *Local {
	tb.Helper()
	g, err := New(Options{Random: rand.Reader})
	if err != nil {
		tb.Fatal(err)
	}
	return g
}

func TestStandard(t *testing.T) {
	g := standard(t)
	if len(g.Rules()) < 30 || g.Policy().Default.Mode != Block {
		t.Errorf("%d rules, mode %s", len(g.Rules()), g.Policy().Default.Mode)
	}
}

// prose is ordinary text of n bytes.
func prose(n int) string {
	const text = "The turbine was inspected on 4 May. Two blades showed slight wear; they are to be replaced within six months. " +
		"Please send the report to the office, and forget the earlier draft. What is a heat pump? It moves heat into the house. "
	return strings.Repeat(text, n/len(text)+1)[:n]
}

func BenchmarkPrompt(b *testing.B) {
	g := standard(b)
	for name, n := range map[string]int{"1000": 1000, "4000": 4000} {
		text := prose(n)
		p := &Prompt{Route: "/v1/chat/completions", Spans: []Span{{User, text}}}
		b.Run("whole/"+name, func(b *testing.B) {
			for b.Loop() {
				g.Prompt(p)
			}
		})
		b.Run("rules/"+name, func(b *testing.B) {
			var s scratch
			for b.Loop() {
				g.rules.scan(text, User, &s)
			}
		})
		b.Run("codes/"+name, func(b *testing.B) {
			for b.Loop() {
				decode(text)
			}
		})
		b.Run("classifier/"+name, func(b *testing.B) {
			var s sums
			f := fold(nil, text).text
			for b.Loop() {
				g.classifier.head(User).score(f, &s)
			}
		})
	}
}

func BenchmarkAnswer(b *testing.B) {
	g := standard(b)
	text := strings.SplitAfter(prose(4000), " ")
	for b.Loop() {
		a := g.Prompt(&Prompt{Route: "/v1/chat/completions", Spans: []Span{{User, "hi"}}}).Answer
		for _, w := range text {
			a.Add("x", []byte(w))
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*len(text)), "ns/chunk")
}

// The targets are in the manual: p99 of rules below 1 ms, of the classifier below 5 ms.
func TestLatency(t *testing.T) {
	if raced {
		t.Skip("the race detector is on: nothing can be said of time")
	}
	g := standard(t)
	text := prose(4000)
	var s scratch
	f := fold(nil, text).text
	for name, tc := range map[string]struct {
		limit time.Duration
		do    func()
	}{
		"rules":      {time.Millisecond, func() { g.rules.scan(text, User, &s); decode(text) }},
		"classifier": {5 * time.Millisecond, func() { g.classifier.head(User).score(f, &s.sums) }},
	} {
		t.Run(name, func(t *testing.T) {
			took := make([]time.Duration, 500)
			for i := range took {
				began := time.Now()
				tc.do()
				took[i] = time.Since(began)
			}
			slices.Sort(took)
			t.Logf("p50 %v, p99 %v", took[250], took[495])
			if took[450] > tc.limit { // p90: other tests run beside it
				t.Errorf("p90 is %v, want less than %v", took[450], tc.limit)
			}
		})
	}
}
