package guard

import (
	"slices"
	"strings"
)

// What no single text of a prompt says, but several together: an attack in halves, and
// what clients tell the model of their tools.

const (
	joinedEnds   = 256       // bytes of the beginning and of the end of a text that are joined to others
	maxJoined    = 16 << 10  // bytes of texts that are joined, about; of more, the last ones are
	maxDescribed = 256 << 10 // bytes of descriptions of tools that are joined, about; of more, the first are
	maxEarlier   = 8 << 10   // bytes of what a model said before that are read, about, and of each text
	noteScore    = 4         // of what rules find in descriptions of tools: from here on it is noted
)

// joined reads the texts of the user, and those that anybody may have written, as if
// each group were one text: with a space between them, and with nothing. Only rules that
// block count, for what they did not find in one text by itself.
func (g *Local) joined(spans []Span, p *RoutePolicy, s *scratch, each func(from Source, v verdict)) {
	for _, from := range []Source{User, Retrieved} {
		of := func(i int) bool {
			return spans[i].Source == from || from.Untrusted() && spans[i].Source.Untrusted()
		}
		first, n, size := len(spans), 0, 0
		for i := len(spans) - 1; i >= 0 && size < maxJoined; i-- {
			if of(i) {
				first, n, size = i, n+1, size+min(len(spans[i].Text), 2*joinedEnds)
			}
		}
		if n < 2 {
			continue
		}
		s.texts = s.texts[:0]
		for i := first; i < len(spans); i++ {
			if of(i) {
				s.texts = append(s.texts, spans[i].Text)
			}
		}
		for _, between := range []string{" ", ""} {
			s.join(between)
			each(from, g.rulesOnly(string(s.joined), from, "joined", p, s))
		}
	}
}

// join writes texts as one, of long ones the beginning and the end: what is between is no
// part of halves.
func (s *scratch) join(between string) {
	s.joined = s.joined[:0]
	for _, t := range s.texts {
		if len(t) <= 2*joinedEnds {
			s.joined = append(s.joined, t...)
		} else {
			s.joined = append(append(append(s.joined, t[:joinedEnds]...), "\n\n"...), t[len(t)-joinedEnds:]...)
		}
		s.joined = append(s.joined, between...)
	}
}

// rulesOnly reads a text without the classifier.
func (g *Local) rulesOnly(text string, from Source, how string, p *RoutePolicy, s *scratch) verdict {
	r := reading{g: g, p: p, from: from, s: s, budget: len(text) + maxDecoded, plain: true}
	r.text(text, how, 0)
	return r.v
}

// earlier reads what a model is said to have said before, the newest first. The client
// sends it, and may have written it. Only rules for that are applied: a model talks of
// instructions as its user does, and of its own.
func (g *Local) earlier(spans []Span, p *RoutePolicy, s *scratch, take func(v verdict, where string)) {
	size := 0
	for i := len(spans) - 1; i >= 0 && size < maxEarlier; i-- {
		if spans[i].Source != Assistant {
			continue
		}
		t := spans[i].Text
		if len(t) > maxEarlier { // where consent stands
			t = t[:maxEarlier]
		}
		size += len(t)
		v := g.rulesOnly(t, Assistant, "", p, s)
		if slices.Contains(builtIn, v.block) {
			v.block = "" // it goes on record
		}
		take(v, says(Assistant))
	}
}

// described reads what a client tells the model of a tool: whoever wrote the tool wrote
// it. Much of it tells the model what to do, and is meant to; so what blocks elsewhere
// blocks here, and what is only suspicious is noted where there is much of it.
func (g *Local) described(text string, p *RoutePolicy, s *scratch) verdict {
	v := g.rulesOnly(text, Tool, "description", p, s)
	if v.block == "" && v.logit < noteScore {
		return verdict{}
	}
	return v
}

// tools reads what a client tells the model of its tools: each text that is long enough to
// say something, and then, without the words that every definition has, all of them as one,
// the names, and what is no name. In those only rules that block count, for what they did
// not find in one text by itself.
func (g *Local) tools(all []Description, p *RoutePolicy, s *scratch, take func(v verdict, where string)) {
	blocked := false
	for _, d := range all {
		if len(d.Text) >= minDescription {
			v := g.described(d.Text, p, s)
			blocked = blocked || v.block != ""
			take(v, "is said of a tool")
		}
	}
	for _, of := range []func(d Description) bool{
		func(Description) bool { return true },
		func(d Description) bool { return d.Name },
		func(d Description) bool { return !d.Name },
	} {
		size := 0
		s.texts = s.texts[:0]
		for _, d := range all {
			if of(d) && !ofSchemas[d.Text] && size < maxDescribed {
				size += min(len(d.Text), 2*joinedEnds)
				s.texts = append(s.texts, d.Text)
			}
		}
		if blocked || len(s.texts) < 2 {
			continue
		}
		s.join(" ")
		if v := g.rulesOnly(string(s.joined), Tool, "joined", p, s); v.block != "" {
			blocked = true
			take(v, "is said of tools in parts")
		}
	}
}

const minDescription = 16 // bytes of a text in the definition of a tool that is read by itself

// ofSchemas are words of JSON Schema and of definitions of tools, which say nothing to a
// model between the texts that do. Constant.
var ofSchemas = func() map[string]bool {
	m := map[string]bool{}
	for _, w := range strings.Fields(`$defs $id $ref $schema additionalProperties allOf anyOf array boolean const default definitions
		description enum exclusiveMaximum exclusiveMinimum examples format function input_schema integer items maxItems maxLength
		maximum minItems minLength minimum name not null number object oneOf parameters properties required schema strict
		string title type uniqueItems`) {
		m[w] = true
	}
	return m
}()
