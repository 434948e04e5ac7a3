package cli

import (
	"maps"
	"slices"

	"github.com/spf13/cobra"
)

func (e *env) check() *cobra.Command {
	var data, remove bool
	c := &cobra.Command{
		Use: "check [--read-data]", Short: "Check the store; with --read-data every blob against its hash", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			report := func(bad string) { e.print("%s", bad) }
			if remove {
				out, err := e.app().CheckRemove(c.Context(), report)
				if err != nil {
					return err
				}
				return e.result(out, func() { e.print("removed: %d of %d blobs", out.Bad, out.Blobs) })
			}
			out, err := e.app().Check(c.Context(), data, report)
			if err != nil {
				return err
			}
			return e.result(out, func() { e.print("good: %d blobs, %s", out.Blobs, size(out.Bytes)) })
		},
	}
	c.Flags().BoolVar(&data, "read-data", false, "read and hash every blob")
	c.Flags().BoolVar(&remove, "remove", false, "read every blob and remove what is damaged, so that it can be brought in again")
	return c
}

func sortedKeys(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }
