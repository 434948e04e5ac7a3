package guard

import (
	_ "embed"
	"encoding/json"
	"strings"
	"testing"
)

// Texts that were written to measure with, before the wider half of the grammar was, and
// that nothing is trained on.
//
//go:embed testdata/fresh.jsonl
var fresh string // constant

// What the shipped guard makes of attacks in words of their own. The bounds are a little
// below what is measured: they say when a change makes it worse.
func TestFreshTexts(t *testing.T) {
	g := standard(t)
	var flagged, blocked, n [2][2]float64 // by where it is from, and whether it is an attack
	for line := range strings.Lines(fresh) {
		var x Sample
		if err := json.Unmarshal([]byte(line), &x); err != nil {
			t.Fatal(err)
		}
		from, err := ParseSource(x.Role)
		if err != nil {
			t.Fatal(err)
		}
		v, _ := g.judged(x.Text, from, g.policy.route("/v1/chat/completions"), &scratch{})
		i, j := 0, 0
		if from.Untrusted() {
			i = 1
		}
		if x.Label == "attack" {
			j = 1
		}
		n[i][j]++
		if len(v.findings) > 0 {
			flagged[i][j]++
		}
		if v.block != "" {
			blocked[i][j]++
		}
	}
	for i, what := range []string{"users write", "documents say"} {
		t.Logf("what %s: flagged %.1f %% of %.0f attacks, %.1f %% of %.0f harmless texts; blocked %.1f %% and %.1f %%", what,
			100*flagged[i][1]/n[i][1], n[i][1], 100*flagged[i][0]/n[i][0], n[i][0], 100*blocked[i][1]/n[i][1], 100*blocked[i][0]/n[i][0])
		if want := []float64{0.6, 0.25}[i]; flagged[i][1] < want*n[i][1] {
			t.Errorf("of what %s, %.0f of %.0f attacks are flagged, want %.0f %%", what, flagged[i][1], n[i][1], 100*want)
		}
		if flagged[i][0] > 0.12*n[i][0] || blocked[i][0] > 0.02*n[i][0] {
			t.Errorf("of what %s, %.0f of %.0f harmless texts are flagged and %.0f blocked", what, flagged[i][0], n[i][0], blocked[i][0])
		}
	}
}
