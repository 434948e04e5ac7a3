package cli

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"enisle/internal/app"
	"enisle/internal/fail"
)

func (e *env) rehearse() *cobra.Command {
	var request string
	c := &cobra.Command{
		Use: "rehearse", Short: "Install what was collected, with nothing else to be reached; exit 3 if anything is missing", Args: cobra.NoArgs,
		Long: "Serve what was collected in an empty network namespace and have the stock clients install all of it there, with what it\n" +
			"depends on. Whatever is asked for and not there is named; 'pack' then refuses, unless told why on the record.",
		Example: "  enisle -C low collect && enisle -C low rehearse && enisle -C low pack --to media",
		RunE: func(c *cobra.Command, _ []string) error {
			out, err := e.app().Rehearse(c.Context(), request)
			if err != nil {
				return err
			}
			err = e.result(out, func() {
				for _, t := range out.Tried {
					switch {
					case t.Skipped:
						e.print("%-10s %d artifacts: its client is not rehearsed", t.Ecosystem, t.Artifacts)
					case t.Error != "":
						e.print("%-10s %d artifacts: FAILED: %s", t.Ecosystem, t.Artifacts, t.Error)
					default:
						e.print("%-10s %d artifacts: installed", t.Ecosystem, t.Artifacts)
					}
				}
				for _, m := range out.Missing {
					e.print("missing    %s", m)
				}
			})
			if !out.Good() {
				err = errors.Join(fail.Refuse("bring what is missing: add it to the request, 'enisle collect', and rehearse again", fmt.Errorf("the rehearsal of %s failed: %s", out.Request, out.Why())), err)
			}
			return err
		},
	}
	c.Flags().StringVar(&request, "request", "", "name of the request; default: the one collected last")
	return c
}

// rehearseInside is the isolated half of rehearse; only rehearse starts it.
func (e *env) rehearseInside() *cobra.Command {
	var request, work string
	var hide []string
	c := &cobra.Command{
		Use: app.RehearseVerb, Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			out, err := e.app().RehearseInside(c.Context(), request, work, hide)
			if err != nil {
				return err
			}
			return json.NewEncoder(e.stdout).Encode(out)
		},
	}
	c.Flags().StringVar(&request, "request", "", "as for rehearse")
	c.Flags().StringVar(&work, "work", "", "directory for clients")
	c.Flags().StringArrayVar(&hide, "hide", nil, "what clients may not read")
	return c
}
