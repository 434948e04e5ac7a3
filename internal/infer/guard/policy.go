package guard

import (
	_ "embed"
	"fmt"
	"slices"
	"strings"
)

// PolicyFormat is the format of policies; docs/spec/guard.md.
const PolicyFormat = "enisle-guard-policy/1"

// standardPolicy is the one that is shipped; constant.
//
//go:embed policy.yaml
var standardPolicy []byte

// Mode is what a guard does with what it finds.
type Mode string

// The modes.
const (
	Off   Mode = "off"   // nothing is read
	Flag  Mode = "flag"  // all goes on record, nothing is stopped
	Block Mode = "block" // what is marked so is stopped
)

// Modes lists the modes by name.
func Modes() []string { return []string{string(Off), string(Flag), string(Block)} }

// Policy says what the guard does, by route.
type Policy struct {
	Format string `yaml:"format"`
	Name   string `yaml:"name"`
	// Default is for routes that are not named.
	Default RoutePolicy            `yaml:"default"`
	Routes  map[string]RoutePolicy `yaml:"routes"` // by path, such as /v1/embeddings
}

// RoutePolicy is what holds for one route. A route that is named takes nothing from the
// default.
type RoutePolicy struct {
	Mode  Mode              `yaml:"mode"`
	Rules map[string]Action `yaml:"rules"` // another action than the rule file gives
	// Thresholds are by source; one that is not named takes the classifier's own.
	Thresholds map[string]Threshold `yaml:"thresholds"`
	Tools      ToolPolicy           `yaml:"tools"`
	// AllowedHosts are those that links and images in answers may name; one that begins
	// with a dot stands for all below it.
	AllowedHosts []string `yaml:"allowedHosts"`
	Markings     []string `yaml:"markings"`  // words that no answer may have, as they are
	Canary       bool     `yaml:"canary"`    // a mark in the system prompt, which no answer may have
	Spotlight    string   `yaml:"spotlight"` // of untrusted texts: off, delimit or mark
	MaxHold      int      `yaml:"maxHold"`   // bytes of an answer that wait; 0 means no limit
	// Judge says which model judges calls after they were answered; nil: none does.
	Judge *JudgePolicy `yaml:"judge"`
}

// Threshold is the scores from which something is done. 0 means the classifier's own,
// above 1 never.
type Threshold struct {
	Flag  float64 `yaml:"flag"`
	Block float64 `yaml:"block"`
}

// ToolPolicy says which tools a model may call.
type ToolPolicy struct {
	Allow []string `yaml:"allow"` // none named: all that the request offers
	// Untrusted are those that it may call though there is untrusted text in the prompt.
	Untrusted []string `yaml:"untrusted"`
}

// sourceNames are the names of sources, in their order; constant.
var sourceNames = []string{"system", "user", "assistant", "tool", "retrieved"}

// String returns the name of a source.
func (s Source) String() string {
	if s < 0 || int(s) >= len(sourceNames) {
		return "unknown"
	}
	return sourceNames[s]
}

// ParseSource returns the source of a name.
func ParseSource(name string) (Source, error) {
	i := slices.Index(sourceNames, name)
	if i < 0 {
		return 0, fmt.Errorf("guard: there is no source %.40q; there are %s", name, strings.Join(sourceNames, ", "))
	}
	return Source(i), nil
}

// ParsePolicy reads a policy; rules, which may be nil, are those it must know.
func ParsePolicy(b []byte, rules *Rules) (*Policy, error) {
	p := &Policy{}
	if err := strictYAML(b, p); err != nil {
		return nil, fmt.Errorf("guard: policy: %w", err)
	}
	if p.Format != PolicyFormat {
		return nil, fmt.Errorf("guard: the policy has the format %.80q, not %s", p.Format, PolicyFormat)
	}
	for path, r := range p.Routes {
		if err := r.check(rules); err != nil {
			return nil, fmt.Errorf("guard: policy: %.80q: %w", path, err)
		}
	}
	if err := p.Default.check(rules); err != nil {
		return nil, fmt.Errorf("guard: policy: default: %w", err)
	}
	return p, nil
}

func (r *RoutePolicy) check(rules *Rules) error {
	if !slices.Contains(Modes(), string(r.Mode)) {
		return fmt.Errorf("modes are %s, not %.40q", strings.Join(Modes(), ", "), r.Mode)
	}
	if !slices.Contains([]string{"", "off", "delimit", "mark"}, r.Spotlight) {
		return fmt.Errorf("spotlight is off, delimit or mark, not %.40q", r.Spotlight)
	}
	if r.MaxHold < 0 || r.MaxHold > 0 && r.MaxHold < 64 {
		return fmt.Errorf("maxHold is at least 64 bytes")
	}
	for name, a := range r.Rules {
		if !slices.Contains([]Action{ActionBlock, ActionFlag, ActionScore, ActionOff}, a) {
			return fmt.Errorf("rule %.80s: there is no action %.40q", name, a)
		}
		if rules != nil && !slices.Contains(builtIn, name) && !slices.ContainsFunc(rules.Names(), func(i RuleInfo) bool { return i.Name == name }) {
			return fmt.Errorf("there is no rule %.80q", name)
		}
	}
	for name, t := range r.Thresholds {
		if _, err := ParseSource(name); err != nil {
			return err
		}
		if t.Flag < 0 || t.Block < 0 || t.Block > 0 && t.Flag > t.Block {
			return fmt.Errorf("thresholds of %s: flag comes before block", name)
		}
	}
	if r.Judge != nil {
		if err := r.Judge.check(); err != nil {
			return err
		}
		if r.Mode == Off {
			return fmt.Errorf("judge: nothing is read with mode %s", Off)
		}
	}
	for _, m := range r.Markings {
		if len(m) < 3 || len(m) > maxMarking {
			return fmt.Errorf("the marking %.100q has not 3 to 100 bytes", m)
		}
	}
	return nil
}

// route returns what holds for a path.
func (p *Policy) route(path string) *RoutePolicy {
	if r, ok := p.Routes[path]; ok {
		return &r
	}
	return &p.Default
}

// AtMost returns the policy with no stricter mode than m anywhere.
func (p *Policy) AtMost(m Mode) *Policy {
	out := *p
	out.Routes = map[string]RoutePolicy{}
	set := func(r RoutePolicy) RoutePolicy {
		r.Mode = Mode(Modes()[min(slices.Index(Modes(), string(r.Mode)), slices.Index(Modes(), string(m)))])
		return r
	}
	out.Default = set(p.Default)
	for path, r := range p.Routes {
		out.Routes[path] = set(r)
	}
	return &out
}

// action is what a rule does on a route.
func (r *RoutePolicy) action(name string, usual Action) Action {
	if a, ok := r.Rules[name]; ok {
		return a
	}
	return usual
}
