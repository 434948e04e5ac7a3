package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"enisle/internal/fail"
)

func (e *env) evidence() *cobra.Command {
	var to, channel string
	c := &cobra.Command{
		Use: "evidence SHIPMENT --to DIR", Short: "Write everything about a shipment for the auditor, as a page and as JSON", Args: cobra.ExactArgs(1),
		Example: "  enisle -C high evidence outside-1-3f9a2c1b --to evidence",
		RunE: func(c *cobra.Command, args []string) error {
			if to == "" && !e.json {
				return fail.As(fail.Usage, "give --to DIR, or --json", errors.New("where to?"))
			}
			out, err := e.app().Evidence(c.Context(), args[0], channel)
			if err != nil {
				return err
			}
			var names []string
			if to != "" {
				if names, err = out.Write(to); err != nil {
					return err
				}
			}
			return e.result(out, func() {
				for _, n := range names {
					e.print("%s", n)
				}
			})
		},
	}
	c.Flags().StringVar(&to, "to", "", "directory for evidence.html and evidence.json")
	c.Flags().StringVar(&channel, "channel", "stable", "the channel it is to go to")
	return c
}
