package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"enisle/internal/crossing"
)

func (e *env) gc() *cobra.Command {
	opt := crossing.GCOptions{}
	c := &cobra.Command{
		Use: "gc", Short: "Remove the files that no kept release needs", Args: cobra.NoArgs,
		Long: "Remove the files of releases that no channel points at, beyond the last few of each, and of shipments that were rejected.\n" +
			"What waits in quarantine, and what a channel left within the last hour, is kept. Reports, manifests and the record stay.",
		Example: "  enisle -C high gc --dry-run\n  enisle -C high gc --keep 1",
		RunE: func(c *cobra.Command, _ []string) error {
			out, err := e.app().GC(c.Context(), opt)
			if err != nil {
				return err
			}
			return e.result(out, func() {
				list := func(n []int64) string { return strings.Trim(fmt.Sprint(n), "[]") }
				word := "removed"
				if opt.DryRun {
					word = "would remove"
				}
				e.print("%s %d files, %s", word, out.Files, size(out.Bytes))
				e.print("kept       releases %s", list(out.Kept))
				if len(out.Dropped) > 0 {
					e.print("dropped    releases %s: they cannot be rolled back to", list(out.Dropped))
				}
			})
		},
	}
	c.Flags().IntVar(&opt.Keep, "keep", 3, "how many releases before the present one each channel keeps")
	c.Flags().BoolVar(&opt.DryRun, "dry-run", false, "say what would be removed")
	return c
}
