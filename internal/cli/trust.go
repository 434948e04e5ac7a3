package cli

import (
	"strings"

	"github.com/spf13/cobra"
)

func (e *env) trust() *cobra.Command {
	c := &cobra.Command{Use: "trust", Short: "Show and change who may do what"}
	c.AddCommand(e.trustShow(), e.trustRevoke(), e.trustSign())
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
				for _, id := range t.Root.Revoked {
					e.print("revoked      key %.16s", id)
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

func (e *env) trustSign() *cobra.Command {
	return &cobra.Command{
		Use: "sign --as ADMIN --key FILE", Short: "Sign the proposed root as a further admin", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			missing, err := e.app().SignRoot(c.Context())
			if err != nil {
				return err
			}
			return e.result(map[string]int{"missing": missing}, func() {
				if missing > 0 {
					e.say("signed; %d more signatures are needed", missing)
					return
				}
				e.say("signed; the new root is in force")
			})
		},
	}
}
