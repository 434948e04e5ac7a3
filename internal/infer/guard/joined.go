package guard

// What no single text of a prompt says, but several together: an attack in halves, and
// what clients tell the model of their tools.

const (
	joinedEnds = 256      // bytes of the beginning and of the end of a text that are joined to others
	maxJoined  = 16 << 10 // bytes of texts that are joined, about; of more, the last ones are
	noteScore  = 4        // of what rules find in descriptions of tools: from here on it is noted
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
		for _, between := range []string{" ", ""} {
			s.joined = s.joined[:0]
			for i := first; i < len(spans); i++ {
				if !of(i) {
					continue
				}
				if t := spans[i].Text; len(t) <= 2*joinedEnds {
					s.joined = append(s.joined, t...)
				} else { // what is between is no part of halves
					s.joined = append(append(append(s.joined, t[:joinedEnds]...), "\n\n"...), t[len(t)-joinedEnds:]...)
				}
				s.joined = append(s.joined, between...)
			}
			each(from, g.rulesOnly(string(s.joined), from, "joined", p, s))
		}
	}
}

// rulesOnly reads a text without the classifier.
func (g *Local) rulesOnly(text string, from Source, how string, p *RoutePolicy, s *scratch) verdict {
	r := reading{g: g, p: p, from: from, s: s, budget: len(text) + maxDecoded, plain: true}
	r.text(text, how, 0)
	return r.v
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
