package guard

import (
	"fmt"
	"slices"
)

// Names of what is noticed without a rule file.
const (
	byClassifier = "classifier"
	hiddenText   = "hidden-text"    // characters that nobody sees spell something
	tooManyCodes = "too-many-codes" // more is encoded than is decoded
	tooManyWords = "too-many-words" // more that may begin an attack than is looked at
	toolUnknown  = "tool-not-allowed"
	toolTaint    = "tool-after-untrusted"
	valueTaint   = "value-from-untrusted"
	linkTaint    = "link-from-untrusted"
	linkData     = "link-with-data"
	imageAway    = "image-elsewhere"
	canarySeen   = "canary"
	markingSeen  = "marking"
	unreadPrompt = "unread-prompt" // tokens, not text
)

// builtIn are those whose action a policy may change. Constant.
var builtIn = []string{byClassifier, hiddenText, tooManyCodes, tooManyWords, toolUnknown, toolTaint, valueTaint, linkTaint, linkData, imageAway, canarySeen, markingSeen, unreadPrompt}

const (
	maxDepth    = 3        // of codes in codes
	maxDecoded  = 64 << 10 // bytes that are decoded of any text, beside as many as it has
	minHidden   = 6        // characters of hidden text
	blockLogits = 6        // that a blocking rule counts in scores
	manyUnseen  = 8        // invisible characters that are worth something
	unseenScore = 1.0
)

// verdict is what reading one text came to.
type verdict struct {
	logit    float64
	block    string // name of the rule that blocks
	say      string
	findings []Finding
}

// reading is the reading of one text with everything that is decoded from it.
type reading struct {
	g      *Local
	p      *RoutePolicy
	from   Source
	s      *scratch
	budget int
	plain  bool // without the classifier
	v      verdict
}

// read reads one text.
func (g *Local) read(text string, from Source, p *RoutePolicy, s *scratch) verdict {
	r := reading{g: g, p: p, from: from, s: s, budget: len(text) + maxDecoded, v: verdict{logit: -20}}
	r.text(text, "", 0)
	return r.v
}

func (r *reading) text(text, how string, depth int) {
	f := fold(r.s.folded, text)
	added := 0.0
	for _, h := range r.g.rules.scanFolded(f, r.from, r.s) {
		where := r.from.String()
		for _, w := range []string{how, h.how} {
			if w != "" {
				where += ", " + w
			}
		}
		switch a := r.p.action(h.rule.Name, h.rule.Action); a {
		case ActionOff:
			continue
		case ActionBlock:
			if added += blockLogits; r.v.block == "" {
				r.v.block, r.v.say = h.rule.Name, h.rule.Say
			}
		case ActionFlag, ActionScore:
			added += h.rule.Score
		}
		r.note(Finding{Rule: h.rule.Name, Where: where})
	}
	if r.s.tooMany {
		r.act(tooManyWords, how, ActionBlock, "it has more words of attacks than can be looked at")
	}
	if f.invisible >= manyUnseen {
		added += unseenScore
	}
	hidden := f.hidden
	switch {
	case r.plain:
		r.v.logit = max(r.v.logit, added)
	case r.p.action(byClassifier, ActionBlock) != ActionOff:
		r.v.logit = max(r.v.logit, added+r.g.classifier.head(r.from).score(r.s.folded, &r.s.sums))
	}
	if depth >= maxDepth {
		return
	}
	if len(hidden) >= minHidden {
		r.act(hiddenText, "", ActionBlock, "it has text that people cannot see")
		r.coded(coded{"hidden", string(hidden)}, how, depth)
	}
	for _, c := range decode(text) {
		r.coded(c, how, depth)
	}
}

// coded reads what was found in a code.
func (r *reading) coded(c coded, how string, depth int) {
	if r.budget -= len(c.text); r.budget < 0 {
		r.act(tooManyCodes, c.how, ActionBlock, "it has more in codes than is decoded")
		return
	}
	if how != "" {
		c.how = how + ", " + c.how
	}
	r.text(c.text, c.how, depth+1)
}

func (r *reading) act(rule, how string, usual Action, say string) {
	switch r.p.action(rule, usual) {
	case ActionOff:
		return
	case ActionBlock:
		if r.v.block == "" {
			r.v.block, r.v.say = rule, say
		}
	case ActionFlag, ActionScore:
	}
	where := r.from.String()
	if how != "" {
		where += ", " + how
	}
	r.note(Finding{Rule: rule, Where: where})
}

func (r *reading) note(f Finding) {
	if !slices.Contains(r.v.findings, f) {
		r.v.findings = append(r.v.findings, f)
	}
}

// thresholds returns the scores that matter for a source.
func (g *Local) thresholds(p *RoutePolicy, s Source) Threshold {
	h := g.classifier.head(s)
	t := p.Thresholds[s.String()]
	if t.Flag == 0 {
		t.Flag = h.Flag
	}
	if t.Block == 0 {
		t.Block = max(h.Block, t.Flag)
	}
	return t
}

// judged is what one text comes to under a policy.
func (g *Local) judged(text string, from Source, p *RoutePolicy, s *scratch) (v verdict, score float64) {
	v = g.read(text, from, p, s)
	score = sigmoid(v.logit)
	t := g.thresholds(p, from)
	if a := p.action(byClassifier, ActionBlock); a != ActionOff && score >= t.Flag {
		v.findings = append(v.findings, Finding{Rule: byClassifier, Score: score, Where: from.String()})
		if score >= t.Block && a == ActionBlock && v.block == "" {
			v.block, v.say = byClassifier, fmt.Sprintf("it is much like an attack on the model (%.2f)", score)
		}
	}
	return v, score
}

// Prompt rules on a prompt.
func (g *Local) Prompt(p *Prompt) (out Ruling) {
	policy := g.policy.route(p.Route)
	if policy.Mode == Off {
		return out
	}
	s := g.scratches.Get().(*scratch) //nolint:forcetypeassert // the pool holds nothing else
	defer g.scratches.Put(s)
	take := func(v verdict, where string) {
		for _, f := range v.findings {
			if len(out.Findings) < maxFindings && !slices.Contains(out.Findings, f) {
				out.Findings = append(out.Findings, f)
			}
		}
		if v.block != "" && out.Block == "" && policy.Mode == Block {
			out.Block = fmt.Sprintf("in what %s: %s (%s)", where, v.say, v.block)
		}
	}
	tainted, blocked := false, false
	for _, span := range p.Spans {
		tainted = tainted || span.Source.Untrusted()
		if span.Source == System || span.Source == Assistant {
			continue
		}
		v, _ := g.judged(span.Text, span.Source, policy, s)
		blocked = blocked || v.block != ""
		take(v, says(span.Source))
	}
	if !blocked {
		g.joined(p.Spans, policy, s, func(from Source, v verdict) {
			if v.block != "" {
				take(v, says(from)+" in parts")
			}
		})
	}
	g.earlier(p.Spans, policy, s, take)
	g.tools(p.Descriptions, policy, s, take)
	if p.Unread {
		switch policy.action(unreadPrompt, ActionBlock) {
		case ActionOff:
		case ActionBlock:
			if out.Block == "" && policy.Mode == Block {
				out.Block = fmt.Sprintf("it is tokens, which cannot be read here: send text (%s)", unreadPrompt)
			}
			fallthrough
		case ActionFlag, ActionScore:
			out.Findings = append(out.Findings, Finding{Rule: unreadPrompt, Where: User.String()})
		}
	}
	a := &answer{g: g, policy: policy, prompt: p, tainted: tainted, lanes: map[string]*lane{}}
	out.Rewrite = a.rewrite()
	out.Answer, out.Judge = a, policy.Judge
	return out
}

const maxFindings = 100 // of one prompt

func says(s Source) string {
	switch s {
	case Tool:
		return "a tool says"
	case Retrieved:
		return "a document says"
	case Assistant:
		return "the model is said to have said"
	case System, User:
	}
	return "the user writes"
}

// Try says what the guard finds in one text.
func (g *Local) Try(text string, from Source, route string) Tried {
	var s scratch
	v, score := g.judged(text, from, g.policy.route(route), &s)
	t := g.thresholds(g.policy.route(route), from)
	return Tried{Score: score, Flag: t.Flag, Threshold: t.Block, Block: v.block, Say: v.say, Findings: v.findings}
}

// Tried is what one text came to.
type Tried struct {
	Score     float64   `json:"score"`
	Flag      float64   `json:"flag"`            // threshold
	Threshold float64   `json:"threshold"`       // from which it blocks
	Block     string    `json:"block,omitempty"` // the rule that does
	Say       string    `json:"say,omitempty"`
	Findings  []Finding `json:"findings,omitempty"`
}
