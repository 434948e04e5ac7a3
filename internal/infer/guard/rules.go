package guard

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

// RulesFormat is the format of rule files; docs/spec/guard.md.
const RulesFormat = "enisle-guard-rules/1"

// Action is what a rule does when it matches.
type Action string

// The actions.
const (
	ActionBlock Action = "block" // the prompt is refused, or the answer ends
	ActionFlag  Action = "flag"  // it goes on record
	ActionScore Action = "score" // it counts towards the classifier's score
	ActionOff   Action = "off"   // nothing
)

// Rules are what a rule file says, ready to be used. They are safe for concurrent use.
type Rules struct {
	Name    string
	prompts []*promptRule
	answers []*answerRule
	words   *matcher // of prompts, over folded text; and what they are
	wordOf  []wordOf
	tight   *matcher // over squeezed text
	tightOf []*promptRule
	leads   *matcher // of answers, over the text as it is
	leadOf  []*answerRule
	numbers []*answerRule
}

// wordOf says which rule a word belongs to, and how it was disguised.
type wordOf struct {
	rule *promptRule
	how  disguise
	size int // bytes
}

// disguise is how a word is written.
type disguise uint8

const (
	plainly disguise = iota
	rotated          // by 13 letters
	backwards
)

type ruleFile struct {
	Format  string        `yaml:"format"`
	Name    string        `yaml:"name"`
	Prompts []*promptRule `yaml:"prompts"`
	Answers []*answerRule `yaml:"answers"`
}

// promptRule looks for one thing in prompts. Words and pattern are compared with
// folded text.
type promptRule struct {
	Name   string   `yaml:"name"`
	On     []string `yaml:"on"`    // user, assistant, tool, retrieved
	Find   []string `yaml:"find"`  // one of these must be there
	Match  string   `yaml:"match"` // from its first byte on, if given
	Back   int      `yaml:"back"`  // or anywhere from so many bytes before it
	Tight  []string `yaml:"tight"` // or these, between whose letters anything may stand
	Action Action   `yaml:"action"`
	Score  float64  `yaml:"score"` // logits, for what else is found in the text
	Say    string   `yaml:"say"`
	Tests  tests    `yaml:"tests"`

	on    [Retrieved + 1]bool
	match *regexp.Regexp
	index int // among the rules of prompts
}

// answerRule looks for one thing in answers, as they are.
type answerRule struct {
	Name    string   `yaml:"name"`
	Find    []string `yaml:"find"`    // one of these begins it, or stands in it
	Numbers bool     `yaml:"numbers"` // instead: it is made of groups of digits
	Before  int      `yaml:"before"`  // bytes before what is found that belong to it
	Match   string   `yaml:"match"`
	Check   string   `yaml:"check"` // of its digits: luhn, iban, pesel, nir, steuerid, bsn, aadhaar
	Hold    int      `yaml:"hold"`  // bytes that it can be long
	Lines   bool     `yaml:"lines"` // it goes on after white space
	Action  Action   `yaml:"action"`
	Say     string   `yaml:"say"`
	Tests   tests    `yaml:"tests"`

	match *regexp.Regexp
	check func([]byte) bool
}

type tests struct {
	Bad  []string `yaml:"bad"`  // must be found
	Good []string `yaml:"good"` // must not
}

const (
	maxRules    = 1000
	maxRuleLen  = 1 << 20 // bytes of a rule file
	maxWords    = 20_000
	minDisguise = 5   // bytes of a word that is looked for in disguise
	reach       = 200 // bytes from the beginning of a word on that a pattern sees
	maxBack     = 200
	maxHold     = 2 << 10 // bytes that a rule may hold an answer back
)

// ParseRules reads a rule file and runs its tests: one whose examples it does not judge
// as they say is refused.
func ParseRules(b []byte) (*Rules, error) {
	if len(b) > maxRuleLen {
		return nil, fmt.Errorf("guard: rules longer than %d bytes", maxRuleLen)
	}
	var f ruleFile
	if err := strictYAML(b, &f); err != nil {
		return nil, fmt.Errorf("guard: rules: %w", err)
	}
	if f.Format != RulesFormat {
		return nil, fmt.Errorf("guard: rules have the format %.80q, not %s", f.Format, RulesFormat)
	}
	if len(f.Prompts)+len(f.Answers) > maxRules {
		return nil, fmt.Errorf("guard: more than %d rules", maxRules)
	}
	r := &Rules{Name: f.Name, prompts: f.Prompts, answers: f.Answers}
	if err := r.compile(); err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	return r, r.try()
}

func strictYAML(b []byte, into any) error {
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(into); err != nil {
		return err
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return errors.New("something follows the document")
	}
	return nil
}

func (r *Rules) compile() error {
	var words, tight, leads []string
	names := map[string]bool{}
	for i, p := range r.prompts {
		if p == nil || p.Name == "" || names[p.Name] {
			return errors.New("a rule has no name, or one that another has")
		}
		names[p.Name], p.index = true, i
		if err := p.compile(); err != nil {
			return fmt.Errorf("rule %s: %w", p.Name, err)
		}
		for _, w := range p.Find {
			w := string(fold(nil, w).text)
			words, r.wordOf = append(words, w), append(r.wordOf, wordOf{p, plainly, len(w)})
			if len(w) >= minDisguise && p.match != nil {
				words = append(words, string(turned(nil, []byte(w), rotated)), string(turned(nil, []byte(w), backwards)))
				r.wordOf = append(r.wordOf, wordOf{p, rotated, len(w)}, wordOf{p, backwards, len(w)})
			}
		}
		for _, w := range p.Tight {
			tight, r.tightOf = append(tight, string(squeeze(nil, fold(nil, w).text))), append(r.tightOf, p)
		}
	}
	for _, a := range r.answers {
		if a == nil || a.Name == "" || names[a.Name] {
			return errors.New("a rule has no name, or one that another has")
		}
		names[a.Name] = true
		if err := a.compile(); err != nil {
			return fmt.Errorf("rule %s: %w", a.Name, err)
		}
		if a.Numbers {
			r.numbers = append(r.numbers, a)
		}
		for _, w := range a.Find {
			leads, r.leadOf = append(leads, w), append(r.leadOf, a)
		}
	}
	for i, list := range [][]string{words, tight, leads} {
		least := []int{2, 2, 1}[i]
		n := 0
		for _, w := range list {
			if n += len(w); len(w) < least || len(w) > 100 {
				return fmt.Errorf("a word to find is shorter than %d or longer than 100 bytes", least)
			}
		}
		if n > maxStates || len(list) > maxWords {
			return errors.New("there are too many words to find")
		}
	}
	r.words, r.tight, r.leads = newMatcher(words, oneSpace), newMatcher(tight, itself), newMatcher(leads, itself)
	return nil
}

func itself(b byte) byte { return b }

func oneSpace(b byte) byte {
	if b == '\n' {
		return ' '
	}
	return b
}

func (p *promptRule) compile() (err error) {
	for _, s := range p.On {
		i := slices.Index(sourceNames, s)
		if i < 0 {
			return fmt.Errorf("there is no source %.40q", s)
		}
		p.on[i] = true
	}
	switch {
	case len(p.On) == 0 || len(p.Find)+len(p.Tight) == 0:
		return errors.New("it says not where, or not what")
	case p.Action != ActionBlock && p.Action != ActionFlag && p.Action != ActionScore:
		return fmt.Errorf("there is no action %.40q", p.Action)
	case p.Back < 0 || p.Back > maxBack:
		return fmt.Errorf("it can look back %d bytes", maxBack)
	case p.Score < 0 || p.Score > 20:
		return errors.New("scores are from 0 to 20")
	case len(p.Tests.Bad) == 0 || len(p.Tests.Good) == 0:
		return errors.New("it has no tests, bad and good")
	}
	if p.Match != "" {
		pattern := `(?s:` + foldPattern(p.Match) + `)`
		if p.Back == 0 {
			pattern = `\A` + pattern
		}
		p.match, err = regexp.Compile(pattern)
	}
	return err
}

// foldPattern folds the characters of a pattern that are not ASCII, as texts are.
func foldPattern(s string) string {
	b := make([]byte, 0, len(s))
	for _, r := range s {
		if r < utf8.RuneSelf {
			b = append(b, byte(r))
		} else {
			b = append(b, fold(nil, string(r)).text...)
		}
	}
	return string(b)
}

func (a *answerRule) compile() (err error) {
	if a.Hold == 0 {
		a.Hold = 128
	}
	switch {
	case a.Numbers == (len(a.Find) > 0):
		return errors.New("it is found by words, or by numbers")
	case a.Action != ActionBlock && a.Action != ActionFlag:
		return fmt.Errorf("there is no action %.40q for answers", a.Action)
	case a.Hold < 8 || a.Hold > maxHold || a.Before < 0 || a.Before > 128:
		return fmt.Errorf("it can hold 8 to %d bytes, and reach 128 back", maxHold)
	case a.Match == "":
		return errors.New("it has no pattern")
	case len(a.Tests.Bad) == 0 || len(a.Tests.Good) == 0:
		return errors.New("it has no tests, bad and good")
	}
	if a.Check != "" {
		if a.check = checks[a.Check]; a.check == nil {
			return fmt.Errorf("there is no check %.40q", a.Check)
		}
	}
	a.match, err = regexp.Compile(`(?s)` + a.Match)
	return err
}

// found returns what the rule's pattern matches in a text, with a good checksum; nil:
// nothing.
func (a *answerRule) found(text []byte) []byte {
	for _, at := range a.match.FindAllIndex(text, -1) {
		if v := text[at[0]:at[1]]; a.check == nil || a.check(v) {
			return v
		}
	}
	return nil
}

// Names returns the names of all rules, with what they do.
func (r *Rules) Names() (out []RuleInfo) {
	for _, p := range r.prompts {
		out = append(out, RuleInfo{p.Name, "prompt", p.Action, p.Say})
	}
	for _, a := range r.answers {
		out = append(out, RuleInfo{a.Name, "answer", a.Action, a.Say})
	}
	return out
}

// RuleInfo is what people see of a rule.
type RuleInfo struct {
	Name   string `json:"name"`
	Reads  string `json:"reads"` // prompt or answer
	Action Action `json:"action"`
	Say    string `json:"say"`
}

// try runs the tests that the rules bring along.
func (r *Rules) try() (err error) {
	var s scratch
	for _, p := range r.prompts {
		from := Source(slices.Index(p.on[:], true))
		has := func(text string) bool {
			hits := r.scan(text, from, &s)
			return slices.ContainsFunc(hits, func(h hit) bool { return h.rule == p })
		}
		for _, t := range p.Tests.Bad {
			if !has(t) {
				err = errors.Join(err, fmt.Errorf("guard: rule %s does not find its bad example %q", p.Name, t))
			}
		}
		for _, t := range p.Tests.Good {
			if has(t) {
				err = errors.Join(err, fmt.Errorf("guard: rule %s finds its good example %q", p.Name, t))
			}
		}
	}
	for _, a := range r.answers {
		has := func(text string) bool {
			l := lane{rules: r}
			l.only = a
			l.add([]byte(text))
			l.end()
			return len(l.hits) > 0
		}
		for _, t := range a.Tests.Bad {
			if !has(t) {
				err = errors.Join(err, fmt.Errorf("guard: rule %s does not find its bad example %q", a.Name, t))
			}
		}
		for _, t := range a.Tests.Good {
			if has(t) {
				err = errors.Join(err, fmt.Errorf("guard: rule %s finds its good example %q", a.Name, t))
			}
		}
	}
	return err
}
