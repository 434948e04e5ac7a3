// Package policy turns a report, approvals and waivers into a decision.
//
// Deciding is a pure function of these, the policy and the clock, so that any
// decision can be replayed years later. The policy is a small readable file,
// named by digest in the site's root; its rules are conditions in CEL, the Common
// Expression Language. It knows nothing of signatures, stores or people.
package policy

import (
	"bytes"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"gopkg.in/yaml.v3"

	"enisle/internal/fail"
	"enisle/internal/judge/inspect"
)

// Format is the format a policy file names.
const Format = "enisle-policy/2"

// maxSize is the largest policy that is read, in bytes.
const maxSize = 1 << 20

// standard is constant.
//
//go:embed standard.yaml
var standard []byte

// strict is constant.
//
//go:embed strict.yaml
var strict []byte

// Policy is the rules of one site.
type Policy struct {
	Format string `yaml:"format"`
	Name   string `yaml:"name"`
	// Approvals is how many different people must approve, by kind of artifact;
	// "default" is for all others. At least two everywhere.
	Approvals map[string]int `yaml:"approvals"`
	People    People         `yaml:"people"`
	Days      Days           `yaml:"days"`
	Soak      Soak           `yaml:"soak"`
	Names     Names          `yaml:"names"`
	Rules     []Rule         `yaml:"rules"`
	Tests     []Test         `yaml:"tests"`
}

// People says what is asked of those who act.
type People struct {
	ProvenActors   bool `yaml:"provenActors"`   // acts without --as and --key are refused
	TwoAdmins      bool `yaml:"twoAdmins"`      // a site is not sealed without two admins
	ConfirmedPeers bool `yaml:"confirmedPeers"` // shipments of a site whose fingerprint nobody compared are refused
}

// Days says how long things count, in days.
type Days struct {
	Report   int `yaml:"report"`   // how old a report may be at release
	Approval int `yaml:"approval"` // how long an approval counts
	Shipment int `yaml:"shipment"` // how long a shipment may be imported after it was sealed
	Waiver   int `yaml:"waiver"`   // how long a waiver may last at most
}

// Soak says how long what is new must have been tried before everybody gets it.
type Soak struct {
	Hours int `yaml:"hours"` // on the candidate channel, before stable; 0: none is asked for
}

// Names says which names belong to the organisation: nothing from elsewhere may have them.
type Names struct {
	// Internal are names by kind of artifact; * stands for any letters.
	Internal map[string][]string `yaml:"internal"`
	// From are the hosts that may bring them; without any, nothing from outside does.
	From []string `yaml:"from"`
}

// Named returns the file of a policy that ships with enisle.
func Named(name string) ([]byte, error) {
	switch name {
	case "standard":
		return bytes.Clone(standard), nil
	case "strict":
		return bytes.Clone(strict), nil
	}
	return nil, fail.As(fail.Usage, "use standard or strict", fmt.Errorf("no policy is called %q", name))
}

// Parse reads a policy file and compiles its rules. Whatever it does not know it
// refuses.
func Parse(b []byte) (*Policy, error) {
	p, err := parse(b)
	if err != nil {
		return nil, fail.Refuse("put the policy right; 'enisle policy show' prints the one in force", fmt.Errorf("policy: %w", err))
	}
	return p, nil
}

func parse(b []byte) (*Policy, error) {
	if len(b) > maxSize {
		return nil, fmt.Errorf("larger than %d bytes", maxSize)
	}
	var p Policy
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&p); err != nil {
		return nil, err
	}
	if err := d.Decode(new(any)); !errors.Is(err, io.EOF) {
		return nil, errors.New("more than one document")
	}
	if err := p.check(); err != nil {
		return nil, err
	}
	return &p, p.compile()
}

func (p *Policy) check() error {
	if p.Format != Format {
		return fmt.Errorf("format %.40q is not known", p.Format)
	}
	if p.Approvals[defaultKind] == 0 {
		return errors.New("approvals: default is missing")
	}
	for kind, n := range p.Approvals {
		if n < 2 || n > 100 {
			return fmt.Errorf("approvals: %s: %d people; from two to a hundred are possible", kind, n)
		}
	}
	for _, days := range []int{p.Days.Report, p.Days.Approval, p.Days.Shipment, p.Days.Waiver} {
		if days < 1 || days > 3660 {
			return errors.New("days: each is from 1 to 3660")
		}
	}
	if p.Soak.Hours < 0 || p.Soak.Hours > 24*366 {
		return errors.New("soak: hours are from 0 to a year of them")
	}
	for kind, names := range p.Names.Internal {
		if kind == "" || len(names) == 0 || len(names) > 1000 || slices.Contains(names, "") {
			return fmt.Errorf("names: internal: %.80q has no list of names", kind)
		}
	}
	if len(p.Rules) == 0 || len(p.Rules) > 1000 {
		return fmt.Errorf("%d rules; from one to a thousand are possible", len(p.Rules))
	}
	return nil
}

const defaultKind = "default"

// Case is everything a decision is made from.
type Case struct {
	Report    inspect.Report
	Waivers   []Waiver // that two people signed, whatever their dates
	Approvers int      // different people whose approvals are valid and bind exactly this content, report, policy and waivers
	Needed    int      // what the root asks for
	Shipment  Shipment
	Soaks     bool          // it is to go where what is new must have been tried before
	Soaked    time.Duration // for how long the candidate channel has served it without a break; negative: never
	Now       time.Time
}

// Shipment is what rules may ask of the shipment itself.
type Shipment struct {
	From     string // the low site
	Request  string
	Sequence int64
	Gap      bool // a shipment before this one never arrived
	Unproven bool // who imported it is not proven
}

// Waiver lets one rule pass for one artifact, or one file of it, for a time.
type Waiver struct {
	Rule     string
	Artifact string   // reference
	Manifest string   // digest of its manifest: other content is not waived
	File     string   // empty: all of its files
	Found    []string // what was found when it was made; what is found later is not waived
	Expires  time.Time
	ID       string // digest of what was signed
}

// Violation is one rule that is not met.
type Violation struct {
	Rule     string `json:"rule"`
	Artifact string `json:"artifact,omitempty"`
	File     string `json:"file,omitempty"`
	Why      string `json:"why"`
	Found    string `json:"found,omitempty"`  // scanner, rule and advisory of the finding
	Waiver   string `json:"waiver,omitempty"` // id of the waiver that lets it pass
}

// Decision is what a policy says, with every reason against.
type Decision struct {
	Allow      bool        `json:"allow"`
	Reasons    []string    `json:"reasons"` // why not; empty when allowed
	Violations []Violation `json:"violations"`
	Needed     int         `json:"needed"` // people who must approve
}

// Content decides on the report alone: would this be released if enough people
// approved?
func (p *Policy) Content(c Case) Decision {
	d := Decision{Reasons: []string{}, Violations: p.violations(c), Needed: p.needed(c)}
	open := slices.DeleteFunc(slices.Clone(d.Violations), func(v Violation) bool { return v.Waiver != "" })
	if len(open) > 0 {
		d.Reasons = append(d.Reasons, fmt.Sprintf("%d findings refuse it, the first by rule %s: %s", len(open), open[0].Rule, open[0]))
	}
	if age := c.Now.Sub(c.Report.Read()); age > days(p.Days.Report) || age < -days(1) {
		d.Reasons = append(d.Reasons, fmt.Sprintf("the files were inspected on %s; the report may be %d days old", c.Report.Read().Format(time.DateOnly), p.Days.Report))
	}
	d.Allow = len(d.Reasons) == 0
	return d
}

// String says what is wrong with what.
func (v Violation) String() string {
	s := v.Why
	if v.File != "" {
		s = v.File + ": " + s
	}
	if v.Artifact != "" {
		s = v.Artifact + " " + s
	}
	return s
}

// Release decides on everything.
func (p *Policy) Release(c Case) Decision {
	d := p.Content(c)
	if c.Approvers < d.Needed {
		d.Reasons = append(d.Reasons, fmt.Sprintf("signature %d of %d required is missing", c.Approvers+1, d.Needed))
	}
	if ask := time.Duration(p.Soak.Hours) * time.Hour; ask > 0 && c.Soaks && c.Soaked < ask {
		have := "was not on the candidate channel"
		if c.Soaked >= 0 {
			have = fmt.Sprintf("was on the candidate channel for %s", c.Soaked.Round(time.Minute))
		}
		d.Reasons = append(d.Reasons, fmt.Sprintf("it %s; %d hours are asked for before stable", have, p.Soak.Hours))
	}
	d.Allow = len(d.Reasons) == 0
	return d
}

// needed returns how many people must approve.
func (p *Policy) needed(c Case) int {
	need := max(c.Needed, p.Approvals[defaultKind])
	for _, kind := range kinds(c.Report) {
		need = max(need, p.Approvals[kind])
	}
	return need
}

func days(n int) time.Duration { return time.Duration(n) * 24 * time.Hour }
