package cli

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"enisle/internal/app"
	"enisle/internal/plain"
)

func (e *env) misses() *cobra.Command {
	var days int
	c := &cobra.Command{
		Use: "misses", Short: "What was asked for and is not here, as the next request", Args: cobra.NoArgs,
		Long:    "Print what clients asked for and did not get as a request: carry it out as a file, and 'enisle collect -f' brings it.",
		Example: "  enisle -C high misses > wanted.yaml\n  enisle -C high misses --days 7 --json",
		RunE: func(c *cobra.Command, _ []string) error {
			all, err := e.app().Misses(c.Context(), time.Now().AddDate(0, 0, -days))
			if err != nil {
				return err
			}
			b, err := app.MissedRequest("misses", all)
			if err != nil {
				return err
			}
			return e.result(all, func() {
				if len(all) == 0 {
					e.say("nothing was missed")
					return
				}
				fmt.Fprint(e.stdout, plain.Text(string(b)))
			})
		},
	}
	c.Flags().IntVar(&days, "days", 30, "how far back to look")
	return c
}
