package policy

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"enisle/internal/artifact"
)

// What is refused whatever the rules say, and cannot be waived: a name stands for what
// its owner publishes, on the island as outside.
const (
	internalName   = "internal-name"
	confusableName = "confusable-name"
)

// names refuses names of the organisation that came from elsewhere, and names that could
// be taken for others.
func (p *Policy) names(c Case) (out []Violation) {
	internal := map[string]*regexp.Regexp{}
	for kind, patterns := range p.Names.Internal {
		internal[kind] = matcher(kind, patterns)
	}
	var refs []artifact.Ref
	for _, content := range c.Report.Contents {
		ref, err := artifact.ParseRef(content.Ref)
		if err != nil {
			out = append(out, Violation{Rule: confusableName, Artifact: content.Ref, Why: "it has no name"})
			continue
		}
		refs = append(refs, ref)
		if form := internal[ref.Kind]; form == nil || !form.MatchString(artifact.Normal(ref.Kind, ref.Name)) {
			continue
		}
		if i := slices.IndexFunc(content.Hosts, func(h string) bool { return !slices.Contains(p.Names.From, h) }); i >= 0 || len(content.Hosts) == 0 {
			from := "nowhere that is known"
			if i >= 0 {
				from = content.Hosts[i]
			}
			out = append(out, Violation{Rule: internalName, Artifact: content.Ref, Why: fmt.Sprintf("this name is the organisation's own, and it came from %s", from)})
		}
	}
	for _, a := range artifact.Lookalikes(refs) {
		out = append(out, Violation{Rule: confusableName, Artifact: a.Ref.String(), Why: a.Why})
	}
	return out
}

// matcher matches names of a kind, in their normal form.
func matcher(kind string, patterns []string) *regexp.Regexp {
	var all []string
	for _, p := range patterns {
		all = append(all, strings.ReplaceAll(regexp.QuoteMeta(artifact.Normal(kind, p)), `\*`, ".*"))
	}
	return regexp.MustCompile("^(?:" + strings.Join(all, "|") + ")$") // quoted: it compiles
}
