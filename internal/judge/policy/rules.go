package policy

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"cel.dev/cel-go/cel"

	"enisle/internal/judge/inspect"
)

// What a rule looks at, one after the other.
const (
	eachFinding  = "finding"
	eachArtifact = "artifact"
	eachShipment = "shipment"
)

// Rule refuses what its condition is true of.
type Rule struct {
	Name  string `yaml:"name"`  // waivers name it
	Each  string `yaml:"each"`  // finding, artifact or shipment
	When  string `yaml:"when"`  // a condition in CEL
	Say   string `yaml:"say"`   // for people
	Final bool   `yaml:"final"` // nobody can waive it

	program cel.Program
}

// variables are what a condition may name; the same everywhere, so that a rule is
// refused when it is set, not when it is needed.
func variables() []cel.EnvOption {
	strings := cel.ListType(cel.StringType)
	var all []cel.EnvOption
	for name, t := range map[string]*cel.Type{
		"finding.scanner": cel.StringType, "finding.rule": cel.StringType, "finding.severity": cel.StringType, "finding.file": cel.StringType,
		"finding.detail": cel.StringType, "finding.score": cel.DoubleType,
		"artifact.ref": cel.StringType, "artifact.kind": cel.StringType, "artifact.name": cel.StringType, "artifact.version": cel.StringType,
		"artifact.size": cel.IntType, "artifact.age": cel.IntType, "artifact.formats": strings, "artifact.licences": strings,
		"artifact.signers": strings, "artifact.labels": strings,
		"shipment.from": cel.StringType, "shipment.request": cel.StringType, "shipment.sequence": cel.IntType, "shipment.gap": cel.BoolType,
		"shipment.unproven": cel.BoolType, "shipment.kinds": strings, "shipment.artifacts": cel.IntType, "shipment.size": cel.IntType,
		"report.age": cel.IntType, "report.scanners": strings, "report.data": cel.MapType(cel.StringType, cel.IntType),
	} {
		all = append(all, cel.Variable(name, t))
	}
	return all
}

// costLimit bounds what one condition may take over one thing.
const costLimit = 1_000_000

// compile makes the programs of all rules.
func (p *Policy) compile() error {
	env, err := cel.NewEnv(variables()...)
	if err != nil {
		return err
	}
	seen := map[string]bool{}
	for i := range p.Rules {
		r := &p.Rules[i]
		switch {
		case r.Name == "" || seen[r.Name] || r.Name == passes || r.Name == internalName || r.Name == confusableName:
			return fmt.Errorf("rule %d: its name %q is empty, taken or reserved", i+1, r.Name)
		case !slices.Contains([]string{eachFinding, eachArtifact, eachShipment}, r.Each):
			return fmt.Errorf("rule %s: each %q; it is finding, artifact or shipment", r.Name, r.Each)
		case r.Say == "":
			return fmt.Errorf("rule %s: say is missing: people must be told why", r.Name)
		}
		seen[r.Name] = true
		if err := r.compile(env); err != nil {
			return fmt.Errorf("rule %s: %w", r.Name, err)
		}
	}
	if !p.refusesRefused() {
		return errors.New("no rule refuses findings of severity refuse")
	}
	return nil
}

func (r *Rule) compile(env *cel.Env) error {
	ast, issues := env.Compile(r.When)
	if err := issues.Err(); err != nil {
		return errors.New(strings.Join(strings.Fields(err.Error()), " "))
	}
	if ast.OutputType() != cel.BoolType {
		return fmt.Errorf("the condition is a %s, not true or false", ast.OutputType())
	}
	for _, part := range []string{eachFinding, eachArtifact} {
		if (r.Each == eachShipment || r.Each == eachArtifact && part == eachFinding) && strings.Contains(r.When, part+".") {
			return fmt.Errorf("the condition names a %s, but is about each %s", part, r.Each)
		}
	}
	var err error
	r.program, err = env.Program(ast, cel.CostLimit(costLimit), cel.EvalOptions(cel.OptOptimize))
	return err
}

// refusesRefused reports whether what scanners refuse is refused, wherever it is.
func (p *Policy) refusesRefused() bool {
	for _, f := range []inspect.Finding{
		{Scanner: "any", Rule: "any", Artifact: "any/any", File: "any"},
		{Scanner: "pickle", Rule: "global", Artifact: "model/m", File: "m.pkl"},
		{Scanner: "clamav", Rule: "malware", Artifact: "files/f", File: "f"},
		{Scanner: "vuln", Rule: "unread", Artifact: "vulndb/osv"},
	} {
		f.Severity = inspect.Refuse
		if !slices.ContainsFunc(p.Rules, func(r Rule) bool {
			return r.Each == eachFinding && r.broken(facts{finding: &f}.with(facts{}.whole()))
		}) {
			return false
		}
	}
	return true
}

// broken reports whether the condition is true, or cannot be evaluated.
func (r *Rule) broken(vars map[string]any) bool {
	out, _, err := r.program.Eval(vars)
	if err != nil {
		return true
	}
	is, ok := out.Value().(bool)
	return is || !ok
}

// violations runs every rule over everything.
func (p *Policy) violations(c Case) []Violation {
	out := []Violation{}
	base := facts{c: c, kinds: kinds(c.Report), notes: notes(c.Report)}
	contents := map[string]*inspect.Content{}
	for i := range c.Report.Contents {
		contents[c.Report.Contents[i].Ref] = &c.Report.Contents[i]
	}
	add := func(r *Rule, ref, file string, f *inspect.Finding) {
		v := Violation{Rule: r.Name, Artifact: ref, File: file, Why: r.Say}
		if f != nil {
			v.Why = cmp.Or(f.Detail, r.Say)
			v.Found = strings.TrimSuffix(f.Scanner+" "+f.Rule+" "+f.Advisory, " ")
		}
		if !r.Final {
			v.Waiver = p.waived(c, v, contents[ref])
		}
		out = append(out, v)
	}
	whole := base.whole()
	each := func(kind string, do func(r *Rule)) {
		for i := range p.Rules {
			if p.Rules[i].Each == kind {
				do(&p.Rules[i])
			}
		}
	}
	each(eachShipment, func(r *Rule) {
		if r.broken(whole) {
			add(r, "", "", nil)
		}
	})
	for i := range c.Report.Contents {
		f := base
		f.content = &c.Report.Contents[i]
		vars := f.with(whole)
		each(eachArtifact, func(r *Rule) {
			if r.broken(vars) {
				add(r, f.content.Ref, "", nil)
			}
		})
	}
	for i := range c.Report.Findings {
		f := base
		f.finding = &c.Report.Findings[i]
		f.content = contents[f.finding.Artifact]
		vars := f.with(whole)
		each(eachFinding, func(r *Rule) {
			if r.broken(vars) {
				add(r, f.finding.Artifact, f.finding.File, f.finding)
			}
		})
	}
	return append(out, p.names(c)...)
}

// waived returns the id of the waiver that lets a violation pass; empty: none.
func (p *Policy) waived(c Case, v Violation, content *inspect.Content) string {
	if content == nil {
		return ""
	}
	for _, w := range c.Waivers {
		if w.Rule == v.Rule && w.Artifact == v.Artifact && w.Manifest == string(content.Manifest) && (w.File == "" || w.File == v.File) &&
			(v.Found == "" || slices.Contains(w.Found, v.Found)) && c.Now.Before(w.Expires) {
			return w.ID
		}
	}
	return ""
}

// facts is what conditions are evaluated over.
type facts struct {
	c       Case
	kinds   []string
	notes   map[string]map[string][]string // artifact → kind of fact → values
	content *inspect.Content
	finding *inspect.Finding
}

// notes gathers what scanners noted, by artifact.
func notes(r inspect.Report) map[string]map[string][]string {
	out := map[string]map[string][]string{}
	for _, f := range r.Facts {
		if f.Kind == inspect.Template || f.Kind == inspect.Component {
			continue
		}
		if out[f.Artifact] == nil {
			out[f.Artifact] = map[string][]string{}
		}
		if !slices.Contains(out[f.Artifact][f.Kind], f.Value) {
			out[f.Artifact][f.Kind] = append(out[f.Artifact][f.Kind], f.Value)
		}
	}
	return out
}

// kinds returns the kinds of artifacts in a report, in order.
func kinds(r inspect.Report) []string {
	out := []string{}
	for _, c := range r.Contents {
		kind, _, _ := strings.Cut(c.Ref, "/")
		if !slices.Contains(out, kind) {
			out = append(out, kind)
		}
	}
	slices.Sort(out)
	return out
}

func ageIn(now, then time.Time) int64 { return int64(now.Sub(then) / (24 * time.Hour)) }

// whole gives the variables of shipment and report their values.
func (f facts) whole() map[string]any {
	r := f.c.Report
	data := map[string]int64{}
	for _, d := range r.Databases {
		// Of two that were asked, both count, and the younger says how old what is known is.
		if age, twice := data[d.Name]; !twice || ageIn(f.c.Now, d.Dated) < age {
			data[d.Name] = ageIn(f.c.Now, d.Dated)
		}
	}
	scanners := []string{}
	for _, s := range r.Scanners {
		scanners = append(scanners, s.Name)
	}
	size := int64(0)
	for _, c := range r.Contents {
		size += c.Size
	}
	return map[string]any{
		"shipment.from": f.c.Shipment.From, "shipment.request": f.c.Shipment.Request, "shipment.sequence": f.c.Shipment.Sequence,
		"shipment.gap": f.c.Shipment.Gap, "shipment.unproven": f.c.Shipment.Unproven, "shipment.kinds": f.kinds,
		"shipment.artifacts": int64(len(r.Contents)), "shipment.size": size,
		"report.age": ageIn(f.c.Now, r.Read()), "report.scanners": scanners, "report.data": data,
	}
}

// with adds the variables of one finding or artifact to those of the whole.
func (f facts) with(whole map[string]any) map[string]any {
	vars := maps.Clone(whole)
	if f.finding != nil {
		vars["finding.scanner"], vars["finding.rule"], vars["finding.severity"] = f.finding.Scanner, f.finding.Rule, string(f.finding.Severity)
		vars["finding.file"], vars["finding.detail"], vars["finding.score"] = f.finding.File, f.finding.Detail, f.finding.Score
	}
	f.artifact(vars)
	return vars
}

// artifact adds what there is to know of one artifact.
func (f facts) artifact(vars map[string]any) {
	ref := ""
	switch {
	case f.content != nil:
		ref = f.content.Ref
	case f.finding != nil:
		ref = f.finding.Artifact
	default:
		return
	}
	kind, rest, _ := strings.Cut(ref, "/")
	name, version := rest, ""
	if i := strings.LastIndex(rest, "@"); i > 0 {
		name, version = rest[:i], rest[i+1:]
	}
	vars["artifact.ref"], vars["artifact.kind"], vars["artifact.name"], vars["artifact.version"] = ref, kind, name, version
	vars["artifact.size"], vars["artifact.age"] = int64(0), int64(-1)
	if f.content != nil {
		vars["artifact.size"] = f.content.Size
		if !f.content.Published.IsZero() {
			vars["artifact.age"] = ageIn(f.c.Now, f.content.Published)
		}
	}
	for variable, fact := range map[string]string{
		"artifact.formats": inspect.Format, "artifact.licences": inspect.Licence, "artifact.signers": inspect.Signer, "artifact.labels": inspect.Label,
	} {
		values := f.notes[ref][fact]
		if values == nil {
			values = []string{}
		}
		vars[variable] = values
	}
}
