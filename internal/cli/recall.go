package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func (e *env) recall() *cobra.Command {
	var reason string
	c := &cobra.Command{
		Use: "recall [REF] --reason TEXT", Short: "Stop serving an artifact everywhere, at once; without one, list what was recalled", Args: cobra.MaximumNArgs(1),
		Long: "Stop serving exactly what is here under a reference, in every channel and in engines that run it, and keep it from\n" +
			"being released again. A corrected version under the same reference is other content, and is not recalled.",
		Example: "  enisle -C high recall pypi/requests@2.32.5 --reason \"CVE in its redirect handling\" --as olga --key olga.key\n  enisle -C high recall",
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return e.listRecalls(c)
			}
			out, err := e.app().Recall(c.Context(), args[0], reason)
			if err != nil {
				return err
			}
			return e.result(out, func() {
				e.print("recalled   %s", out.Ref)
				e.print("shipments  %s", strings.Join(out.Shipments, ", "))
				e.print("releases   %s", strings.Trim(fmt.Sprint(out.Releases), "[]"))
				e.print("channels   %s", strings.Join(out.Channels, ", "))
				e.say("it is not served any more; who had pulled it before is not recorded")
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, in a sentence")
	return c
}

func (e *env) listRecalls(c *cobra.Command) error {
	all, err := e.app().Recalls(c.Context())
	if err != nil {
		return err
	}
	return e.result(all, func() {
		for _, r := range all {
			e.print("%s  %s, by %s: %s", r.At, r.Ref, r.By, r.Reason)
		}
		if len(all) == 0 {
			e.say("nothing was recalled")
		}
	})
}
