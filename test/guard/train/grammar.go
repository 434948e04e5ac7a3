package main

import (
	_ "embed"
	"fmt"
	"math/rand/v2"
	"strings"
)

//go:embed grammar.txt
var grammarFile string

// grammar is lists of lines, by name.
type grammar map[string][]string

func readGrammar(file string) (grammar, error) {
	g, name := grammar{}, ""
	for line := range strings.Lines(file) {
		line = strings.TrimRight(line, "\n")
		switch {
		case line == "" || strings.HasPrefix(line, "# "):
		case strings.HasPrefix(line, "[") && strings.HasSuffix(line, "]"):
			name = strings.Trim(line, "[]")
		default:
			g[name] = append(g[name], line)
		}
	}
	for name, lines := range g {
		for _, l := range lines {
			for _, part := range strings.Split(l, "{")[1:] {
				if of, _, ok := strings.Cut(part, "}"); ok && g[of] == nil && !strings.ContainsAny(of, "\" :") {
					return nil, fmt.Errorf("grammar: %s names %q, which is not there", name, of)
				}
			}
		}
	}
	return g, nil
}

// make returns one text of a list.
func (g grammar) make(r *rand.Rand, name string) string {
	l := g[name]
	line := l[r.IntN(len(l))]
	var b strings.Builder
	for {
		before, rest, ok := strings.Cut(line, "{")
		b.WriteString(before)
		if !ok {
			return b.String()
		}
		of, after, ok := strings.Cut(rest, "}")
		if !ok || g[of] == nil {
			b.WriteString("{")
			line = rest
			continue
		}
		b.WriteString(g.make(r, of))
		line = after
	}
}

// parts is how many parts the grammar has that are told apart in tests.
const parts = 4

// part returns the grammar without the lines of the other parts, where there are enough:
// what is made of one part is unlike what is made of another.
func (g grammar) part(k int) grammar {
	out := grammar{}
	for name, lines := range g {
		if len(lines) < 3*parts || strings.HasPrefix(name, "attack") || strings.HasPrefix(name, "harmless") || name == "previous" || name == "ignore" || name == "rules" {
			out[name] = lines
			continue
		}
		for i, l := range lines {
			if i%parts == k {
				out[name] = append(out[name], l)
			}
		}
	}
	return out
}

// texts returns n different texts of a list, or as many as it finds.
func (g grammar) texts(r *rand.Rand, name string, n int) (out []string) {
	seen := map[string]bool{}
	for range 4 * n {
		t := g.make(r, name)
		switch r.IntN(12) {
		case 0:
			t = strings.ToLower(t)
		case 1:
			t = strings.ToUpper(t)
		case 2:
			t = strings.ReplaceAll(t, ". ", ".\n")
		}
		if !seen[t] && len(out) < n {
			seen[t] = true
			out = append(out, t)
		}
	}
	return out
}
