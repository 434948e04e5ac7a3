package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"enisle/internal/site/trust"
)

func (e *env) trust() *cobra.Command {
	c := &cobra.Command{Use: "trust", Short: "Show and change who may do what"}
	c.AddCommand(e.trustShow(), e.trustRevoke(), e.trustSign(), e.trustWithdraw(), e.trustClock(), e.trustThresholds())
	return c
}

func (e *env) trustShow() *cobra.Command {
	return &cobra.Command{
		Use: "show", Short: "Print the root in force", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			t, err := e.app().ShowTrust(c.Context())
			if err != nil {
				return err
			}
			return e.result(t, func() {
				sealed := "open: people may still be enrolled"
				if t.Sealed {
					sealed = "sealed"
				}
				e.print("%s (%s side)  root version %d, %s", t.Root.Site.Name, t.Root.Site.Side, t.Root.Version, sealed)
				e.print("fingerprint  %s", t.Fingerprint)
				for _, p := range t.Root.People {
					e.print("person       %-16s %-30s key %.16s", p.Name, strings.Join(p.Roles, ","), p.Key.ID())
				}
				for _, p := range t.Root.Peers {
					word := "not confirmed"
					if p.Confirmed {
						word = "confirmed"
					}
					e.print("paired with  %-16s %s, %s", p.Name, t.Peers[p.Name], word)
				}
				for _, p := range t.Root.Revoked {
					e.print("revoked      %-16s key %.16s", p.Name, p.Key.ID())
				}
				e.print("thresholds   collectors %d, approvers %d, admins %d", t.Root.Thresholds.Collectors, t.Root.Thresholds.Approvers, t.Root.Thresholds.Admins)
				e.print("policy       %s", t.Root.Policy.Short())
				if t.Damaged != "" {
					e.print("proposed     cannot be signed: %s", t.Damaged)
				}
				if t.Proposed != nil {
					e.showProposal(*t.Proposed)
				}
			})
		},
	}
}

func (e *env) trustRevoke() *cobra.Command {
	return &cobra.Command{
		Use: "revoke NAME --as ADMIN --key FILE", Short: "Take a person's key out of force; a second admin signs it", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			pending, err := e.app().Revoke(c.Context(), args[0])
			if err != nil {
				return err
			}
			return e.result(map[string]any{"name": args[0], "pending": pending}, func() {
				if pending {
					e.say("proposed; a second admin signs it with 'enisle trust sign'")
					return
				}
				e.say("%s is revoked", args[0])
			})
		},
	}
}

// showProposal prints what admins sign.
func (e *env) showProposal(p trust.Proposal) {
	e.print("proposed     root version %d, signed by %s; %d signatures are needed", p.Root.Version, strings.Join(p.Signers, " and "), p.Need)
	for _, c := range p.Changes {
		e.print("  change     %s", c)
	}
	e.print("  sign       enisle trust sign --expect %s --as NAME --key FILE", p.Digest)
}

func (e *env) trustSign() *cobra.Command {
	var expect string
	c := &cobra.Command{
		Use: "sign --as ADMIN --key FILE", Short: "Sign the proposed root as a further admin; 'trust show' prints it", Args: cobra.NoArgs,
		Example: "  enisle -C high trust show\n  enisle -C high trust sign --expect sha256:… --as eve --key eve.key",
		RunE: func(c *cobra.Command, _ []string) error {
			want, err := parseExpect(expect)
			if err != nil {
				return err
			}
			out, err := e.app().SignRoot(c.Context(), want)
			if err != nil {
				return err
			}
			return e.result(out, func() {
				for _, change := range out.Changes {
					e.say("signed: %s", change)
				}
				if out.Missing > 0 {
					e.say("%d more signatures are needed", out.Missing)
					return
				}
				e.say("root version %d is in force", out.Root.Version)
			})
		},
	}
	c.Flags().StringVar(&expect, "expect", "", "digest that 'trust show' printed; anything else is not signed")
	return c
}

func (e *env) trustWithdraw() *cobra.Command {
	return &cobra.Command{
		Use: "withdraw --as ADMIN --key FILE", Short: "Take the proposed root back", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := e.app().WithdrawRoot(c.Context()); err != nil {
				return err
			}
			return e.result(map[string]bool{"withdrawn": true}, func() { e.say("the proposal is taken back") })
		},
	}
}

func (e *env) trustClock() *cobra.Command {
	return &cobra.Command{
		Use: "clock --as ADMIN --key FILE", Short: "Vouch for this machine's clock, after it was wrong or nothing was done for long; a second admin signs it", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			pending, err := e.app().SetClock(c.Context())
			if err != nil {
				return err
			}
			return e.result(map[string]bool{"pending": pending}, func() {
				if pending {
					e.say("proposed; a second admin compares the time in 'enisle trust show' with their own and signs it with 'enisle trust sign'")
					return
				}
				e.say("the clock of this machine counts")
			})
		},
	}
}

func (e *env) trustThresholds() *cobra.Command {
	var t trust.Thresholds
	c := &cobra.Command{
		Use: "thresholds [--collectors N] [--approvers N] [--admins N]", Short: "Say how many people must sign; after sealing a second admin signs it", Args: cobra.NoArgs,
		Example: "  enisle -C low trust thresholds --collectors 2",
		RunE: func(c *cobra.Command, _ []string) error {
			pending, err := e.app().SetThresholds(c.Context(), t)
			if err != nil {
				return err
			}
			return e.result(map[string]any{"thresholds": t, "pending": pending}, func() {
				if pending {
					e.say("proposed; a second admin signs it with 'enisle trust sign'")
					return
				}
				e.say("the thresholds are in force")
			})
		},
	}
	c.Flags().IntVar(&t.Collectors, "collectors", 0, "who must sign a shipment; at least 1")
	c.Flags().IntVar(&t.Approvers, "approvers", 0, "who must approve a release; at least 2")
	c.Flags().IntVar(&t.Admins, "admins", 0, "who must sign a change of the root; at least 2")
	return c
}
