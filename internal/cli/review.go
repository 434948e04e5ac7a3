package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"enisle/internal/artifact"
	"enisle/internal/crossing"
	"enisle/internal/judge/inspect"
)

func (e *env) review() *cobra.Command {
	var channel string
	c := &cobra.Command{
		Use: "review [SHIPMENT]", Short: "Show what is coming in, what was found, and what an approver signs", Args: cobra.MaximumNArgs(1),
		Example: "  enisle -C high review            # what is here\n  enisle -C high review outside-1-3f9a2c1b",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return e.listShipments(c)
			}
			r, err := e.app().Review(c.Context(), args[0], channel)
			if err != nil {
				return err
			}
			return e.result(r, func() { e.showReview(r) })
		},
	}
	c.Flags().StringVar(&channel, "channel", "stable", "the channel it is to go to")
	return c
}

func (e *env) listShipments(c *cobra.Command) error {
	rows, err := e.app().Shipments(c.Context())
	if err != nil {
		return err
	}
	type row struct{ ID, Request, Status, Imported string }
	list := []row{}
	for _, r := range rows {
		list = append(list, row{r.ID, r.Request, r.Status, r.Imported})
	}
	return e.result(list, func() {
		for _, r := range list {
			e.print("%-32s %-20s %-12s imported %s", r.ID, r.Request, r.Status, r.Imported)
		}
		if len(list) == 0 {
			e.say("no shipment is here")
		}
	})
}

func (e *env) showReview(r crossing.Review) {
	e.print("shipment   %s, number %d from %s, sealed %s, expires %s", r.ID, r.Sequence, r.From, r.Sealed.Format("2006-01-02 15:04"), r.Expires.Format("2006-01-02"))
	e.print("status     %s, imported by %s", r.Status, r.Importer)
	for _, n := range r.Notes {
		e.print("NOTE       %s", n)
	}
	list := func(word string, all []artifact.Artifact) {
		for _, a := range all {
			from := a.From
			if from == "" && len(a.Files) > 0 {
				from = a.Files[0].Origin
			}
			e.print("%-10s %-44s %10s  %-10s  %s", word, a.Ref, size(a.Size()), age(r.Sealed, a), from)
		}
	}
	list("new", r.New)
	list("changed", r.Changed)
	if r.Same > 0 {
		e.print("same       %d artifacts", r.Same)
	}
	for _, f := range r.Files {
		e.print("  %-8s %s %s: %s, before %s", f.Change, f.Artifact, f.Path, size(f.To), size(f.From))
	}
	for _, u := range r.Updates {
		e.print("update     %-44s %s → %s", u.Name, u.From, u.To)
	}
	for _, g := range r.Gone {
		e.print("gone       %s", g)
	}
	for _, l := range r.Licences {
		e.print("licence    %-44s %d artifacts", l.Name, l.Artifacts)
	}
	for _, t := range r.Templates {
		word := "TEMPLATE   %s %s: %s is not what is served:"
		if t.New {
			word = "TEMPLATE   %s %s: %s is new:"
		}
		e.print(word, t.Artifact, t.File, t.Name)
		for _, line := range strings.Split(strings.TrimSpace(t.Diff), "\n") {
			e.print("  | %s", line)
		}
	}
	rep := r.Judged.Report
	e.print("report     %s of %s: %d refuse, %d warn, %d info", r.Judged.Digest.Short(), rep.Made.Format("2006-01-02 15:04"),
		len(rep.Of(inspect.Refuse)), len(rep.Of(inspect.Warn)), len(rep.Of(inspect.Info)))
	e.showVerified(rep)
	for _, d := range rep.Databases {
		e.print("data       %s %s of %s", d.Name, d.Version, d.Dated.Format("2006-01-02"))
	}
	if !slices.ContainsFunc(rep.Databases, func(d inspect.Database) bool { return d.Name == "osv" }) {
		e.print("data       none of vulnerabilities: nothing was held against it")
	}
	for _, sev := range []inspect.Severity{inspect.Refuse, inspect.Warn} {
		for _, f := range rep.Of(sev) {
			e.print("  %-8s %s %s: %s", f.Severity, f.Artifact, f.File, f.Detail)
		}
	}
	for _, v := range r.Judged.Decision.Violations {
		word := "RULE"
		if v.Waiver != "" {
			word = "waived"
		}
		e.print("%-10s %s: %s", word, v.Rule, v)
	}
	if !r.Judged.Decision.Allow {
		e.print("POLICY     refuses it: %s", strings.Join(r.Judged.Decision.Reasons, "; "))
	}
	if len(r.Approvals) > 0 {
		e.print("approved   by %s", strings.Join(r.Approvals, ", "))
	}
	e.print("people     %d of %d needed approved", len(r.Approvals), r.Judged.Decision.Needed)
	e.print("channel    %s, policy %s, root version %d", r.Subject.Channel, r.Subject.Policy.Short(), r.Subject.RootVersion)
	e.print("you sign   %s", r.Sign)
}

// maxListed is how many of the same kind are named one by one.
const maxListed = 5

// showVerified prints whose signatures the low site verified, when, and what they
// leave out. Many artifacts by one signer are one line.
func (e *env) showVerified(r inspect.Report) {
	by := map[string][]string{}
	var order []string
	for _, v := range r.Verified {
		line := fmt.Sprintf("by %s, verified by %s on %s", v.Signer, v.By, v.At.Format("2006-01-02 15:04"))
		if by[line] == nil {
			order = append(order, line)
		}
		by[line] = append(by[line], v.Artifact)
	}
	for _, line := range order {
		all := by[line]
		if len(all) > maxListed {
			e.print("signed     %d artifacts, %s and others, %s", len(all), strings.Join(all[:2], ", "), line)
			continue
		}
		for _, a := range all {
			e.print("signed     %s %s", a, line)
		}
	}
	n, left := 0, map[string]bool{}
	for _, v := range r.Verified {
		if len(v.Ignored) > 0 {
			e.print("IGNORED    %s: the signer left out: %s", v.Artifact, strings.Join(v.Ignored, ", "))
		}
		if len(v.Unsigned) == 0 || left[v.Artifact] {
			continue
		}
		left[v.Artifact] = true
		if n++; n <= maxListed {
			e.print("unsigned   %s: no signature covers: %s", v.Artifact, strings.Join(v.Unsigned, ", "))
		}
	}
	if n > maxListed {
		e.print("unsigned   files of %d artifacts more, as --json lists them", n-maxListed)
	}
}

// age says how long before it was sealed something was published.
func age(sealed time.Time, a artifact.Artifact) string {
	newest := time.Time{}
	for _, f := range a.Files {
		if f.Published.After(newest) {
			newest = f.Published
		}
	}
	if newest.IsZero() {
		return "no date"
	}
	return fmt.Sprintf("%d days", int(sealed.Sub(newest)/(24*time.Hour)))
}
