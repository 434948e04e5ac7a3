package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"enisle/internal/app"
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
				for _, m := range out.Engines {
					e.print("ended      engine of %s", m)
				}
				e.pulled(out.Pulled)
				e.say("it is not served any more; tell those who pulled it")
			})
		},
	}
	c.Flags().StringVar(&reason, "reason", "", "why, in a sentence")
	return c
}

// pulled lists who has what.
func (e *env) pulled(all []app.Pulled) {
	for _, p := range all {
		e.print("pulled by  %-20s %s, first %s, last %s", p.Client, p.File, p.First.Format("2006-01-02 15:04"), p.Last.Format("2006-01-02 15:04"))
	}
	if len(all) == 0 {
		e.print("pulled by  nobody on record")
	}
}

func (e *env) pulls() *cobra.Command {
	return &cobra.Command{
		Use: "pulls REF", Short: "Who pulled an artifact from this site", Args: cobra.ExactArgs(1),
		Example: "  enisle -C high pulls pypi/requests@2.32.5",
		RunE: func(c *cobra.Command, args []string) error {
			all, err := e.app().Pulls(c.Context(), args[0])
			if err != nil {
				return err
			}
			return e.result(all, func() { e.pulled(all) })
		},
	}
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
