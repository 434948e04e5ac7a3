package cli

import (
	"github.com/spf13/cobra"

	"enisle/internal/crossing"
)

func (e *env) release() *cobra.Command {
	var channel string
	c := &cobra.Command{
		Use: "release SHIPMENT --channel stable", Short: "Make an approved shipment visible, at once", Args: cobra.ExactArgs(1),
		Example: "  enisle -C high release outside-1-3f9a2c1b --channel stable",
		RunE: func(c *cobra.Command, args []string) error {
			out, err := e.app().Release(c.Context(), args[0], channel)
			if err != nil {
				return err
			}
			return e.result(out, func() { e.showReleased(out) })
		},
	}
	c.Flags().StringVar(&channel, "channel", "stable", "candidate or stable")
	return c
}

func (e *env) showReleased(out crossing.Released) {
	if out.Already {
		e.say("channel %s points at it already", out.Channel)
	} else {
		e.say("channel %s points at release %d (%s)", out.Channel, out.Number, out.Digest.Short())
	}
	e.print("%d", out.Number)
}
