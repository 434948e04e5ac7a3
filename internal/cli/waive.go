package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"enisle/internal/artifact"
	"enisle/internal/crossing"
	"enisle/internal/fail"
)

func (e *env) waive() *cobra.Command {
	var opt crossing.WaiveOptions
	c := &cobra.Command{
		Use: "waive SHIPMENT --rule RULE --artifact REF --reason TEXT", Short: "Let one rule pass for one artifact, for a time: two people sign it", Args: cobra.ExactArgs(1),
		Long: "Let one rule of the policy pass for exactly this content of one artifact, or of one file of it. A second person signs\n" +
			"the same with 'enisle waive sign'. What is waived is part of what approvers sign.",
		Example: "  enisle -C high waive outside-1-3f9a2c1b --rule critical-vulnerability --artifact pypi/x@1.0 --days 30 \\\n" +
			"    --reason \"the parser it is in is never reached here\" --as alice --key alice.key\n" +
			"  enisle -C high waive sign sha256:… --as erin --key erin.key\n  enisle -C high waive list",
		RunE: func(c *cobra.Command, args []string) error {
			out, err := e.app().Waive(c.Context(), args[0], opt)
			if err != nil {
				return err
			}
			return e.result(out, func() {
				e.say("signed by %s; it counts when a second person runs: enisle waive sign %s", strings.Join(out.By, ", "), out.Digest)
				e.print("%s", out.Digest)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&opt.Rule, "rule", "", "name of the rule, as review shows it")
	f.StringVar(&opt.Artifact, "artifact", "", "reference of the artifact")
	f.StringVar(&opt.File, "file", "", "one file of it, as review shows it; default: all of them")
	f.StringVar(&opt.Reason, "reason", "", "why the risk is taken, in a sentence")
	f.IntVar(&opt.Days, "days", 0, "how long it counts; default: as long as the policy allows")
	c.AddCommand(e.waiveSign(), e.waiveList())
	return c
}

func (e *env) waiveSign() *cobra.Command {
	return &cobra.Command{
		Use: "sign DIGEST", Short: "Add the second signature to a waiver", Args: cobra.ExactArgs(1),
		Example: "  enisle -C high waive sign sha256:… --as erin --key erin.key",
		RunE: func(c *cobra.Command, args []string) error {
			d, err := artifact.ParseDigest(args[0])
			if err != nil {
				return fail.As(fail.Usage, "'enisle waive list' shows them", err)
			}
			out, err := e.app().SignWaiver(c.Context(), d)
			if err != nil {
				return err
			}
			return e.result(out, func() { e.showWaiver(out) })
		},
	}
}

func (e *env) waiveList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "Show every waiver, who signed it and whether it counts", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			all, err := e.app().Waivers(c.Context())
			if err != nil {
				return err
			}
			return e.result(all, func() {
				for _, w := range all {
					e.showWaiver(w)
				}
				if len(all) == 0 {
					e.say("nothing is waived")
				}
			})
		},
	}
}

func (e *env) showWaiver(w crossing.Waived) {
	state := "counts until " + w.Expires.Format("2006-01-02")
	if w.Counts != "" {
		state = "does not count: " + w.Counts
	}
	what := w.Artifact
	if w.File != "" {
		what += " " + w.File
	}
	e.print("%s  rule %s, %s, by %s: %s", w.Digest, w.Rule, what, strings.Join(w.By, " and "), state)
	if len(w.Found) > 0 {
		e.print("  for what was found: %s", strings.Join(w.Found, ", "))
	}
	e.print("  %s", w.Reason)
}

func (e *env) policyTest() *cobra.Command {
	return &cobra.Command{
		Use: "test [standard|strict|FILE]", Short: "Run the tests that a policy carries; without a name, of the one in force", Args: cobra.MaximumNArgs(1),
		Example: "  enisle policy test policy.yaml",
		RunE: func(c *cobra.Command, args []string) error {
			tried, err := e.app().TestPolicy(c.Context(), strings.Join(args, ""))
			if err != nil {
				return err
			}
			bad := 0
			for _, t := range tried {
				if !t.Good {
					bad++
				}
			}
			if err := e.result(tried, func() {
				for _, t := range tried {
					word := "good"
					if !t.Good {
						word = "BAD"
					}
					e.print("%-5s %s: wants %s, gets %s", word, t.Name, t.Want, t.Got)
				}
			}); err != nil {
				return err
			}
			if bad > 0 {
				return fail.Refuse("put the rules or the tests right", fmt.Errorf("%d of %d tests of the policy fail", bad, len(tried)))
			}
			return nil
		},
	}
}
