package policy

import (
	"strings"
	"testing"
	"time"

	"enisle/internal/fail"
	"enisle/internal/judge/inspect"
)

func TestADecisionNamesEveryReason(t *testing.T) {
	now := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	clean := inspect.Report{Made: now}
	bad := inspect.Report{Made: now, Findings: []inspect.Finding{{Severity: inspect.Warn, File: "w"}, {Severity: inspect.Refuse, File: "r"}}}
	for name, tc := range map[string]struct {
		policy Policy
		c      Case
		want   []string
	}{
		"clean and two people":             {Standard(), Case{Report: clean, Approvers: 2, Needed: 2, Now: now}, nil},
		"one person":                       {Standard(), Case{Report: clean, Approvers: 1, Needed: 2, Now: now}, []string{"signature 2 of 2"}},
		"the root asks for more":           {Standard(), Case{Report: clean, Approvers: 2, Needed: 3, Now: now}, []string{"signature 3 of 3"}},
		"a finding":                        {Standard(), Case{Report: bad, Approvers: 2, Now: now}, []string{"1 findings"}},
		"strict refuses warnings":          {Strict(), Case{Report: bad, Approvers: 2, Now: now}, []string{"2 findings"}},
		"an old report":                    {Standard(), Case{Report: clean, Approvers: 2, Now: now.AddDate(0, 0, 31)}, []string{"30 days"}},
		"a report from the future":         {Standard(), Case{Report: clean, Approvers: 2, Now: now.AddDate(0, 0, -2)}, []string{"30 days"}},
		"a gap is refused only by strict":  {Strict(), Case{Report: clean, Approvers: 2, Gap: true, Now: now}, []string{"never arrived"}},
		"standard lets a gap pass":         {Standard(), Case{Report: clean, Approvers: 2, Gap: true, Now: now}, nil},
		"strict wants to know who it was":  {Strict(), Case{Report: clean, Approvers: 2, Unproven: true, Now: now}, []string{"not proven"}},
		"all reasons stand there together": {Strict(), Case{Report: bad, Gap: true, Now: now}, []string{"findings", "never arrived", "signature 1"}},
	} {
		t.Run(name, func(t *testing.T) {
			d := tc.policy.Release(tc.c)
			if d.Allow != (len(tc.want) == 0) || len(d.Reasons) != len(tc.want) {
				t.Fatalf("got %+v, want %d reasons", d, len(tc.want))
			}
			for i, w := range tc.want {
				if !strings.Contains(d.Reasons[i], w) {
					t.Errorf("reason %q, want %q", d.Reasons[i], w)
				}
			}
		})
	}
}

func TestAPolicyThatIsTooWeakOrUnknownIsRefused(t *testing.T) {
	for name, change := range map[string]func(*Policy){
		"one approval":       func(p *Policy) { p.Approvals = 1 },
		"findings allowed":   func(p *Policy) { p.Refuse = nil },
		"another format":     func(p *Policy) { p.Format = "x" },
		"approvals for ever": func(p *Policy) { p.ApprovalDays = 0 },
	} {
		p := Standard()
		change(&p)
		b, err := p.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(b); !fail.IsRefused(err) {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
	if _, err := Parse([]byte(`{"format":"enisle-policy/1","sudo":true}`)); !fail.IsRefused(err) {
		t.Errorf("an unknown field: %v", err)
	}
}
