package cli

import "github.com/spf13/cobra"

func (e *env) pair() *cobra.Command {
	var expect string
	c := &cobra.Command{
		Use: "pair FILE [--expect FINGERPRINT]", Short: "Trust another site's identity", Args: cobra.ExactArgs(1),
		Example: "  enisle -C low pair high.id --expect 7QXM-…",
		RunE: func(c *cobra.Command, args []string) error {
			p, err := e.app().Pair(c.Context(), args[0], expect)
			if err != nil {
				return err
			}
			return e.result(p, func() {
				switch {
				case p.Pending:
					e.say("proposed; a second admin signs it with 'enisle trust sign'")
				case !p.Confirmed:
					e.say("paired with %s (%s side); compare the fingerprint by voice or on paper, then give it with --expect", p.Name, p.Side)
				default:
					e.say("paired with %s (%s side), fingerprint confirmed", p.Name, p.Side)
				}
				e.print("%s", p.Fingerprint)
			})
		},
	}
	c.Flags().StringVar(&expect, "expect", "", "the fingerprint that people compared")
	return c
}
