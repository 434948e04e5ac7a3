package cli

import "github.com/spf13/cobra"

func (e *env) rollback() *cobra.Command {
	var channel string
	var to int64
	c := &cobra.Command{
		Use: "rollback --channel stable [--to N]", Short: "Point a channel at an earlier release, at once", Args: cobra.NoArgs,
		Example: "  enisle -C high rollback --channel stable",
		RunE: func(c *cobra.Command, _ []string) error {
			out, err := e.app().Rollback(c.Context(), channel, to)
			if err != nil {
				return err
			}
			return e.result(out, func() { e.showReleased(out) })
		},
	}
	c.Flags().StringVar(&channel, "channel", "stable", "candidate or stable")
	c.Flags().Int64Var(&to, "to", 0, "number of the release; default: the one before")
	return c
}
