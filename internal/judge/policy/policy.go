// Package policy turns a report and approvals into a decision.
//
// Deciding is a pure function of report, approvals, policy and clock, so that
// any decision can be replayed years later. The policy itself is a small
// readable file, named by digest in the site's root.
package policy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"enisle/internal/fail"
	"enisle/internal/judge/inspect"
)

// Format is the format a policy file names.
const Format = "enisle-policy/1"

// Policy is the rules of one site.
type Policy struct {
	Format string `json:"format"`
	Name   string `json:"name"`
	// Refuse lists the severities of findings that are not released.
	Refuse []inspect.Severity `json:"refuse"`
	// Approvals is how many people must approve; the root may ask for more.
	Approvals int `json:"approvals"`
	// ProvenActors refuses acts without --as and --key.
	ProvenActors bool `json:"provenActors"`
	// TwoAdmins refuses to seal a site without two admins.
	TwoAdmins bool `json:"twoAdmins"`
	// ConfirmedPeers refuses shipments of a site whose fingerprint nobody compared.
	ConfirmedPeers bool `json:"confirmedPeers"`
	// Gaps refuses to release a shipment when one before it never arrived.
	Gaps bool `json:"refuseGaps"`
	// ReportDays is how old a report may be at release, in days.
	ReportDays int `json:"reportDays"`
	// ApprovalDays is how long an approval counts, in days.
	ApprovalDays int `json:"approvalDays"`
	// ShipmentDays is how long a shipment may be imported after it was sealed.
	ShipmentDays int `json:"shipmentDays"`
}

// Standard is the policy a site begins with: findings of severity refuse stop a
// release, two people approve, unproven actors are shown.
func Standard() Policy {
	return Policy{
		Format: Format, Name: "standard", Refuse: []inspect.Severity{inspect.Refuse}, Approvals: 2,
		ReportDays: 30, ApprovalDays: 30, ShipmentDays: 90,
	}
}

// Strict is Standard with everything that Standard only shows refused.
func Strict() Policy {
	p := Standard()
	p.Name, p.Refuse = "strict", []inspect.Severity{inspect.Warn, inspect.Refuse}
	p.ProvenActors, p.TwoAdmins, p.ConfirmedPeers, p.Gaps = true, true, true, true
	p.ReportDays, p.ApprovalDays = 7, 7
	return p
}

// Named returns a policy that ships with enisle.
func Named(name string) (Policy, error) {
	switch name {
	case "standard":
		return Standard(), nil
	case "strict":
		return Strict(), nil
	}
	return Policy{}, fail.As(fail.Usage, "use standard or strict", fmt.Errorf("no policy is called %q", name))
}

// Encode returns the policy as its file holds it.
func (p Policy) Encode() ([]byte, error) {
	b, err := json.MarshalIndent(p, "", "  ")
	return append(b, '\n'), err
}

// Parse reads a policy file. Whatever it does not know it refuses.
func Parse(b []byte) (Policy, error) {
	var p Policy
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err := d.Decode(&p)
	switch {
	case err != nil:
	case p.Format != Format:
		err = fmt.Errorf("format %.40q is not known", p.Format)
	case p.Approvals < 2:
		err = errors.New("fewer than two approvals")
	case p.ReportDays < 1 || p.ApprovalDays < 1 || p.ShipmentDays < 1:
		err = errors.New("a number of days is less than one")
	case !slices.Contains(p.Refuse, inspect.Refuse):
		err = errors.New("findings of severity refuse are not refused")
	}
	if err != nil {
		return p, fail.Refuse("put the policy right; 'enisle policy show' prints the one in force", fmt.Errorf("policy: %w", err))
	}
	return p, nil
}

// Case is everything a decision is made from.
type Case struct {
	Report    inspect.Report
	Approvers int  // different people whose approvals are valid and bind exactly this content, report and policy
	Needed    int  // what the root asks for
	Gap       bool // a shipment before this one never arrived
	Unproven  bool // the importer is not proven
	Now       time.Time
}

// Decision is what a policy says, with every reason against.
type Decision struct {
	Allow   bool     `json:"allow"`
	Reasons []string `json:"reasons"` // why not; empty when allowed
}

// Content decides on the report alone: would this be released if enough people
// approved?
func (p Policy) Content(c Case) Decision {
	var why []string
	n := 0
	for _, sev := range p.Refuse {
		n += len(c.Report.Of(sev))
	}
	if n > 0 {
		first := Finding(c.Report, p.Refuse)
		why = append(why, fmt.Sprintf("%d findings refuse it, the first: %s %s: %s", n, first.Artifact, first.File, first.Detail))
	}
	if age := c.Now.Sub(c.Report.Made); age > time.Duration(p.ReportDays)*24*time.Hour || age < -24*time.Hour {
		why = append(why, fmt.Sprintf("the report is of %s; it may be %d days old", c.Report.Made.Format(time.DateOnly), p.ReportDays))
	}
	if p.Gaps && c.Gap {
		why = append(why, "a shipment before it never arrived")
	}
	if p.ProvenActors && c.Unproven {
		why = append(why, "who imported it is not proven")
	}
	return Decision{len(why) == 0, append([]string{}, why...)}
}

// Release decides on everything.
func (p Policy) Release(c Case) Decision {
	d := p.Content(c)
	if need := max(p.Approvals, c.Needed); c.Approvers < need {
		d.Reasons = append(d.Reasons, fmt.Sprintf("signature %d of %d required is missing", c.Approvers+1, need))
	}
	d.Allow = len(d.Reasons) == 0
	return d
}

// Finding returns the first finding of one of the severities.
func Finding(r inspect.Report, of []inspect.Severity) inspect.Finding {
	for _, f := range r.Findings {
		if slices.Contains(of, f.Severity) {
			return f
		}
	}
	return inspect.Finding{}
}
