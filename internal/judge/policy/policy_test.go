package policy

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"enisle/internal/fail"
	"enisle/internal/judge/inspect"
)

func named(t *testing.T, name string) *Policy {
	t.Helper()
	b, err := Named(name)
	if err != nil {
		t.Fatal(err)
	}
	p, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestWhatShipsPassesItsOwnTests(t *testing.T) {
	for _, name := range []string{"standard", "strict"} {
		p := named(t, name)
		if err := p.TryAll(); err != nil || len(p.Tests) < 6 || p.Name != name {
			t.Errorf("%s: %v, %d tests", name, err, len(p.Tests))
		}
	}
}

func TestDecisions(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	content := inspect.Content{Ref: "pypi/x@1", Manifest: "sha256:aa", Size: 5}
	clean := inspect.Report{Made: now, Contents: []inspect.Content{content}, Databases: []inspect.Database{{Name: "osv", Dated: now}}, Scanners: []inspect.ScannerInfo{{Name: "clamav"}}}
	bad := clean
	bad.Findings = []inspect.Finding{
		{Scanner: "pickle", Severity: inspect.Refuse, Rule: "global", Artifact: "pypi/x@1", File: "a.pkl", Detail: "it would import os.system"},
		{Severity: inspect.Warn, Rule: "startup-code", Artifact: "pypi/x@1", File: "b.pth"},
	}
	model := clean
	model.Contents = []inspect.Content{{Ref: "model/m"}}
	waiver := Waiver{Rule: "refused-finding", Artifact: "pypi/x@1", Manifest: "sha256:aa", Found: []string{"pickle global"}, Expires: now.AddDate(0, 0, 1), ID: "w"}
	other := func(change func(*Waiver)) []Waiver { w := waiver; change(&w); return []Waiver{w} }
	for name, tc := range map[string]struct {
		policy string
		c      Case
		want   []string
	}{
		"clean and two people":              {"standard", Case{Report: clean, Approvers: 2, Needed: 2, Now: now}, nil},
		"one person":                        {"standard", Case{Report: clean, Approvers: 1, Needed: 2, Now: now}, []string{"signature 2 of 2"}},
		"the root asks for more":            {"standard", Case{Report: clean, Approvers: 2, Needed: 3, Now: now}, []string{"signature 3 of 3"}},
		"the kind of content asks for more": {"strict", Case{Report: model, Approvers: 2, Needed: 2, Now: now}, []string{"signature 3 of 3"}},
		"a finding":                         {"standard", Case{Report: bad, Approvers: 2, Now: now}, []string{"1 findings"}},
		"strict refuses warnings":           {"strict", Case{Report: bad, Approvers: 2, Now: now}, []string{"2 findings"}},
		"an old report":                     {"standard", Case{Report: clean, Approvers: 2, Now: now.AddDate(0, 0, 31)}, []string{"30 days"}},
		"a report from the future":          {"standard", Case{Report: clean, Approvers: 2, Now: now.AddDate(0, 0, -2)}, []string{"30 days"}},
		"a gap is refused only by strict":   {"strict", Case{Report: clean, Approvers: 2, Shipment: Shipment{Gap: true}, Now: now}, []string{"never arrived"}},
		"standard lets a gap pass":          {"standard", Case{Report: clean, Approvers: 2, Shipment: Shipment{Gap: true}, Now: now}, nil},
		"strict wants to know who it was":   {"strict", Case{Report: clean, Approvers: 2, Shipment: Shipment{Unproven: true}, Now: now}, []string{"not proven"}},
		"all reasons stand there together":  {"strict", Case{Report: bad, Shipment: Shipment{Gap: true}, Now: now.AddDate(0, 0, 8)}, []string{"findings", "7 days", "signature 1"}},
		"what two people waive":             {"standard", Case{Report: bad, Approvers: 2, Waivers: []Waiver{waiver}, Now: now}, nil},
		"a waiver of that one file":         {"standard", Case{Report: bad, Approvers: 2, Waivers: other(func(w *Waiver) { w.File = "a.pkl" }), Now: now}, nil},
		"a waiver of another file":          {"standard", Case{Report: bad, Approvers: 2, Waivers: other(func(w *Waiver) { w.File = "b.pth" }), Now: now}, []string{"1 findings"}},
		"a waiver of something else found":  {"standard", Case{Report: bad, Approvers: 2, Waivers: other(func(w *Waiver) { w.Found = []string{"vuln vulnerability A-1"} }), Now: now}, []string{"1 findings"}},
		"a waiver of nothing found":         {"standard", Case{Report: bad, Approvers: 2, Waivers: other(func(w *Waiver) { w.Found = nil }), Now: now}, []string{"1 findings"}},
		"a waiver of another rule":          {"standard", Case{Report: bad, Approvers: 2, Waivers: other(func(w *Waiver) { w.Rule = "stale-data" }), Now: now}, []string{"1 findings"}},
		"a waiver of other content":         {"standard", Case{Report: bad, Approvers: 2, Waivers: other(func(w *Waiver) { w.Manifest = "sha256:bb" }), Now: now}, []string{"1 findings"}},
		"a waiver that has expired":         {"standard", Case{Report: bad, Approvers: 2, Waivers: other(func(w *Waiver) { w.Expires = now }), Now: now}, []string{"1 findings"}},
		"what is final cannot be waived":    {"strict", Case{Report: clean, Approvers: 2, Shipment: Shipment{Gap: true}, Waivers: other(func(w *Waiver) { w.Rule, w.Artifact = "gap", "" }), Now: now}, []string{"1 findings"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := named(t, tc.policy)
			d := p.Release(tc.c)
			if d.Allow != (len(tc.want) == 0) || len(d.Reasons) != len(tc.want) {
				t.Fatalf("got %+v, want %d reasons", d, len(tc.want))
			}
			for i, w := range tc.want {
				if !strings.Contains(d.Reasons[i], w) {
					t.Errorf("reason %q, want %q", d.Reasons[i], w)
				}
			}
			if again := p.Release(tc.c); fmt.Sprint(again) != fmt.Sprint(d) {
				t.Errorf("decided otherwise the second time: %+v, %+v", d, again)
			}
		})
	}
}

func TestAPolicyThatIsTooWeakOrUnknownIsRefused(t *testing.T) {
	good, err := Named("standard")
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string][2]string{
		"one approval":                       {"default: 2", "default: 1"},
		"one approval for models":            {"default: 2", "default: 2\n  model: 1"},
		"no default":                         {"default: 2", "model: 2"},
		"another format":                     {"enisle-policy/2", "enisle-policy/1"},
		"approvals for ever":                 {"approval: 30", "approval: 0"},
		"an unknown field":                   {"name: standard\n", "name: standard\nsudo: true\n"},
		"an unknown field of a rule":         {"say: a scanner refuses it", "say: a scanner refuses it\n    unless: true"},
		"refused findings that pass":         {`finding.severity == "refuse"`, `finding.severity == "never"`},
		"a misspelt variable":                {`finding.score >= 9.0`, `finding.scores >= 9.0`},
		"a condition that is no condition":   {`finding.score >= 9.0`, `finding.score + 9.0`},
		"a condition that does not parse":    {`finding.score >= 9.0`, `finding.score >=`},
		"a rule that asks what is not there": {"each: finding\n    when: finding.severity", "each: shipment\n    when: finding.severity"},
		"a rule without words":               {"say: a scanner refuses it", `say: ""`},
		"two rules of one name":              {"name: malicious-package", "name: refused-finding"},
		"a second document":                  {"name: standard\n", "name: standard\n---\n"},
		"a number too large":                 {"waiver: 90", "waiver: 99999999999999999999"},
	} {
		b := bytes.Replace(good, []byte(change[0]), []byte(change[1]), 1)
		if bytes.Equal(b, good) {
			t.Fatalf("%s: %q is not there", name, change[0])
		}
		if _, err := Parse(b); !fail.IsRefused(err) || fail.HintOf(err) == "" {
			t.Errorf("%s: got %v, want a refusal", name, err)
		}
	}
	b := bytes.Replace(good, []byte("want: stale-data"), []byte("want: pass"), 1)
	if p, err := Parse(b); err != nil || p.TryAll() == nil {
		t.Errorf("a policy whose own test fails: %v", err)
	}
}

// A condition that fails where it is needed refuses: it was not met.
func TestAConditionThatFailsRefuses(t *testing.T) {
	b, err := Named("standard")
	if err != nil {
		t.Fatal(err)
	}
	b = bytes.Replace(b, []byte(`finding.score >= 9.0`), []byte(`report.data["nothing"] > 1`), 1)
	p, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	d := p.Content(Case{Report: inspect.Report{Findings: []inspect.Finding{{Rule: "vulnerability", Severity: inspect.Warn, Artifact: "a/b"}}}})
	if d.Allow || len(d.Violations) == 0 || d.Violations[0].Rule != "critical-vulnerability" {
		t.Errorf("%+v", d)
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"standard", "strict"} {
		b, _ := Named(name)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := Parse(b)
		if err != nil {
			return
		}
		d := p.Content(Case{Report: inspect.Report{Findings: []inspect.Finding{{Severity: inspect.Refuse, Scanner: "any", Rule: "any", Artifact: "any/any", File: "any"}}}})
		if d.Allow {
			t.Error("what a scanner refuses passes")
		}
	})
}

func BenchmarkTenThousandFindings(b *testing.B) {
	raw, _ := Named("strict")
	p, err := Parse(raw)
	if err != nil {
		b.Fatal(err)
	}
	r := inspect.Report{}
	for i := range 10_000 {
		ref := fmt.Sprintf("pypi/p%d@1", i)
		r.Contents = append(r.Contents, inspect.Content{Ref: ref})
		r.Findings = append(r.Findings, inspect.Finding{Artifact: ref, Severity: inspect.Warn, Rule: "vulnerability", Score: 5})
	}
	for b.Loop() {
		p.Content(Case{Report: r})
	}
}

// Looking things up in new data does not make what was read long ago young.
func TestAReportAgesFromWhenTheFilesWereRead(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	r := inspect.Report{Made: now, Scanned: now.AddDate(0, 0, -40), Contents: []inspect.Content{{Ref: "pypi/x@1"}}}
	if d := named(t, "standard").Content(Case{Report: r, Now: now}); d.Allow || !strings.Contains(d.Reasons[0], "inspected on 2026-10-16") {
		t.Errorf("%+v", d)
	}
}

// A policy whose rule refuses only what one scanner refuses is none.
func TestARuleForSomeRefusalsIsNotEnough(t *testing.T) {
	b, err := Named("standard")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.Replace(string(b), `finding.severity == "refuse"`, `finding.severity == "refuse" && finding.scanner == "any"`, 1)
	if _, err := Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), "no rule refuses") {
		t.Errorf("%v", err)
	}
}

// Names of the organisation come from its own hosts only, in whatever form the clients of
// their kind take for the same; names that could be taken for others do not come at all.
func TestNamesThatBelongToSomebody(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	b, err := Named("standard")
	if err != nil {
		t.Fatal(err)
	}
	p, err := Parse(append(b, []byte(`
  - name: an internal name from elsewhere
    artifact: {ref: pypi/Acme_Core@1, hosts: [index.example]}
    want: internal-name
names:
  internal: {pypi: ["acme-*"], npm: ["@acme/*"], gomod: ["git.acme.example/*"]}
  from: [packages.acme.example]
`)...))
	if err == nil {
		err = p.TryAll()
	}
	if err != nil {
		t.Fatal(err)
	}
	home := []string{"packages.acme.example"}
	for name, tc := range map[string]struct {
		contents []inspect.Content
		want     string
	}{
		"from its own host":                 {[]inspect.Content{{Ref: "pypi/acme-core@1", Hosts: home}}, ""},
		"another name":                      {[]inspect.Content{{Ref: "pypi/acmeology@1", Hosts: []string{"index.example"}}}, ""},
		"another kind":                      {[]inspect.Content{{Ref: "files/acme-core", Hosts: nil}}, ""},
		"from elsewhere":                    {[]inspect.Content{{Ref: "pypi/acme-core@99", Hosts: []string{"index.example"}}}, internalName},
		"in another form":                   {[]inspect.Content{{Ref: "pypi/ACME.Core@99", Hosts: []string{"index.example"}}}, internalName},
		"partly from elsewhere":             {[]inspect.Content{{Ref: "npm/@acme/ui@9.0.0", Hosts: append(home, "index.example")}}, internalName},
		"from nowhere":                      {[]inspect.Content{{Ref: "gomod/git.acme.example/team/x@v1.0.0"}}, internalName},
		"two names that look alike":         {[]inspect.Content{{Ref: "pypi/requests@2"}, {Ref: "cargo/a_b@1.0.0"}, {Ref: "cargo/a-b@1.0.0"}}, confusableName},
		"letters that the registry has not": {[]inspect.Content{{Ref: "pypi/аcme-core@1", Hosts: home}}, confusableName},
	} {
		t.Run(name, func(t *testing.T) {
			got := ""
			r := inspect.Report{Made: now, Contents: tc.contents}
			for _, v := range p.Content(Case{Report: r, Now: now}).Violations {
				if v.Waiver != "" {
					t.Error("it is waived")
				}
				got = v.Rule
			}
			if got != tc.want {
				t.Errorf("got %q, want %q", got, tc.want)
			}
		})
	}
	for _, bad := range []string{"names: {internal: {pypi: []}}", `names: {internal: {pypi: [""]}}`, "names: {outside: {}}"} {
		if _, err := Parse(append(bytes.Clone(b), []byte("\n"+bad+"\n")...)); !fail.IsRefused(err) {
			t.Errorf("%s: %v", bad, err)
		}
	}
}
