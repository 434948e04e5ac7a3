package cli

import (
	"github.com/spf13/cobra"

	"enisle/internal/crossing"
)

func (e *env) reject() *cobra.Command {
	var opt crossing.ApproveOptions
	c := &cobra.Command{
		Use: "reject SHIPMENT --as NAME --key FILE", Short: "Sign that a shipment must not be released", Args: cobra.ExactArgs(1),
		Example: "  enisle -C high reject outside-1-3f9a2c1b --as alice --key alice.key --reason 'wrong version'",
		RunE: func(c *cobra.Command, args []string) error {
			opt.Channel = "stable"
			return e.decide(c, args[0], crossing.Reject, opt)
		},
	}
	c.Flags().StringVar(&opt.Reason, "reason", "", "why, for the record")
	return c
}
