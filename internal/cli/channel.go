package cli

import "github.com/spf13/cobra"

func (e *env) channel() *cobra.Command {
	return &cobra.Command{
		Use: "channel", Short: "Show where the channels point and pointed", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			all, err := e.app().Channels(c.Context())
			if err != nil {
				return err
			}
			return e.result(all, func() {
				for _, ch := range all {
					e.print("%-10s release %d", ch.Name, ch.Release)
					for _, m := range ch.Moves {
						e.print("             %s → %d", m.At, m.Release)
					}
				}
			})
		},
	}
}
