package guard

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
)

// Sample is one text whose nature is known.
type Sample struct {
	Text   string `json:"text"`
	Label  string `json:"label"`          // attack or benign
	Source string `json:"source"`         // where it was taken from
	Role   string `json:"role,omitempty"` // user, tool or retrieved; empty: user
}

// Measured is what a guard makes of the texts of one source.
type Measured struct {
	Source  string  `json:"source"`
	Label   string  `json:"label"`
	Texts   int     `json:"texts"`
	Blocked float64 `json:"blocked"` // shares of them, under the policy in force
	Flagged float64 `json:"flagged"` // or more
	// AtOne is the share above the score that 1 % of the benign texts of other sources
	// are above: recall of attacks, false positives of benign texts. It is left out where
	// there are none.
	AtOne     *float64 `json:"atOnePercent,omitempty"`
	Threshold float64  `json:"threshold,omitempty"` // that score
}

// Measure tries a guard on texts, by source, as a route's policy has it.
func (g *Local) Measure(samples []Sample, route string) ([]Measured, error) {
	type scored struct {
		Sample
		score            float64
		blocked, flagged bool
	}
	p := g.policy.route(route)
	var s scratch
	all := make([]scored, len(samples))
	for i, x := range samples {
		if x.Label != "attack" && x.Label != "benign" {
			return nil, fmt.Errorf("text %d has the label %.40q, not attack or benign", i+1, x.Label)
		}
		if x.Role == "" {
			x.Role = User.String()
		}
		from, err := ParseSource(x.Role)
		if err != nil {
			return nil, fmt.Errorf("text %d: %w", i+1, err)
		}
		v, score := g.judged(x.Text, from, p, &s)
		all[i] = scored{x, score, v.block != "", len(v.findings) > 0}
	}
	var out []Measured
	for _, x := range all {
		if slices.ContainsFunc(out, func(m Measured) bool { return m.Source == x.Source && m.Label == x.Label }) {
			continue
		}
		m := Measured{Source: x.Source, Label: x.Label}
		benign := map[string][]float64{} // of other sources, by role
		for _, o := range all {
			if o.Label == "benign" && o.Source != x.Source {
				benign[o.Role] = append(benign[o.Role], o.score)
			}
		}
		above, known := 0, true
		for _, o := range all {
			if o.Source != x.Source || o.Label != x.Label {
				continue
			}
			m.Texts++
			m.Blocked += float64(one(o.blocked))
			m.Flagged += float64(one(o.flagged))
			t, ok := onePercent(benign[o.Role])
			known = known && ok
			m.Threshold = t
			above += one(o.score > t)
		}
		m.Blocked /= float64(m.Texts)
		m.Flagged /= float64(m.Texts)
		if share := float64(above) / float64(m.Texts); known {
			m.AtOne = &share
		}
		out = append(out, m)
	}
	slices.SortStableFunc(out, func(a, b Measured) int {
		return cmp.Or(strings.Compare(a.Label, b.Label), strings.Compare(a.Source, b.Source))
	})
	return out, nil
}

// onePercent returns the score that one in a hundred is above.
func onePercent(scores []float64) (float64, bool) {
	if len(scores) == 0 {
		return 0, false
	}
	s := slices.Sorted(slices.Values(scores))
	return s[len(s)-1-len(s)/100], true
}
