package policy

import (
	"fmt"
	"strings"
	"time"

	"enisle/internal/judge/inspect"
)

// passes is what a test wants when no rule is to refuse.
const passes = "pass"

// Test is one row of a policy's own tests: what there is, and the rule that is to
// refuse it, or pass.
type Test struct {
	Name     string       `yaml:"name"`
	Finding  testFinding  `yaml:"finding"`
	Artifact testArtifact `yaml:"artifact"`
	Shipment testShipment `yaml:"shipment"`
	Report   testReport   `yaml:"report"`
	Want     string       `yaml:"want"`
}

type testFinding struct {
	Scanner  string           `yaml:"scanner"`
	Rule     string           `yaml:"rule"`
	Severity inspect.Severity `yaml:"severity"`
	File     string           `yaml:"file"`
	Detail   string           `yaml:"detail"`
	Score    float64          `yaml:"score"`
}

type testArtifact struct {
	Ref      string   `yaml:"ref"`
	Size     int64    `yaml:"size"`
	Age      *int     `yaml:"age"` // days since it was published
	Formats  []string `yaml:"formats"`
	Licences []string `yaml:"licences"`
	Signers  []string `yaml:"signers"`
	Labels   []string `yaml:"labels"`
	Hosts    []string `yaml:"hosts"` // where it came from
}

type testShipment struct {
	From     string   `yaml:"from"`
	Request  string   `yaml:"request"`
	Sequence int64    `yaml:"sequence"`
	Gap      bool     `yaml:"gap"`
	Unproven bool     `yaml:"unproven"`
	Kinds    []string `yaml:"kinds"`
}

type testReport struct {
	Age      int            `yaml:"age"`
	Data     map[string]int `yaml:"data"` // database → days
	Scanners []string       `yaml:"scanners"`
}

// Tried is what one test came to.
type Tried struct {
	Name string `json:"name"`
	Want string `json:"want"`
	Got  string `json:"got"` // rules that refuse, or pass
	Good bool   `json:"good"`
}

// Try runs the policy's own tests.
func (p *Policy) Try() (all []Tried) {
	for _, t := range p.Tests {
		var rules []string
		for _, v := range p.violations(t.put()) {
			rules = append(rules, v.Rule)
		}
		got := strings.Join(rules, ", ")
		if got == "" {
			got = passes
		}
		all = append(all, Tried{t.Name, t.Want, got, got == t.Want})
	}
	return all
}

// TryAll is an error that names the first test that fails.
func (p *Policy) TryAll() error {
	for _, t := range p.Try() {
		if !t.Good {
			return fmt.Errorf("its test %q wants %s and gets %s", t.Name, t.Want, t.Got)
		}
	}
	return nil
}

// put makes the case that a test describes.
func (t Test) put() Case {
	now := time.Unix(1_800_000_000, 0).UTC()
	ago := func(days int) time.Time { return now.AddDate(0, 0, -days) }
	ref := t.Artifact.Ref
	if ref == "" {
		ref = "files/test"
	}
	content := inspect.Content{Ref: ref, Size: t.Artifact.Size, Hosts: t.Artifact.Hosts}
	if t.Artifact.Age != nil {
		content.Published = ago(*t.Artifact.Age)
	}
	r := inspect.Report{Made: ago(t.Report.Age), Contents: []inspect.Content{content}}
	for _, kind := range t.Shipment.Kinds {
		r.Contents = append(r.Contents, inspect.Content{Ref: kind + "/test"})
	}
	for name, age := range t.Report.Data {
		r.Databases = append(r.Databases, inspect.Database{Name: name, Dated: ago(age)})
	}
	for _, name := range t.Report.Scanners {
		r.Scanners = append(r.Scanners, inspect.ScannerInfo{Name: name})
	}
	for kind, values := range map[string][]string{
		inspect.Format: t.Artifact.Formats, inspect.Licence: t.Artifact.Licences, inspect.Signer: t.Artifact.Signers, inspect.Label: t.Artifact.Labels,
	} {
		for _, v := range values {
			r.Facts = append(r.Facts, inspect.Fact{Kind: kind, Artifact: ref, Value: v})
		}
	}
	if f := t.Finding; f != (testFinding{}) {
		r.Findings = []inspect.Finding{{Scanner: f.Scanner, Rule: f.Rule, Severity: f.Severity, Artifact: ref, File: f.File, Detail: f.Detail, Score: f.Score}}
	}
	s := t.Shipment
	return Case{Report: r, Now: now, Shipment: Shipment{From: s.From, Request: s.Request, Sequence: s.Sequence, Gap: s.Gap, Unproven: s.Unproven}}
}
