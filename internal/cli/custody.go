package cli

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"enisle/internal/carry/custody"
	"enisle/internal/crossing"
	"enisle/internal/fail"
)

func (e *env) custody() *cobra.Command {
	c := &cobra.Command{
		Use: "custody", Short: "Sign and show who had a medium, where and when",
		Example: `  enisle -C low custody add sealed --log disc1.jsonl --shipment ID --medium "disc 1" --seal S-104 --as carol --key carol.key
  enisle -C low custody add handed-over --log disc1.jsonl --to dave@island --place "loading dock" --seal S-104 --as carol --key carol.key
  enisle -C high custody show disc1.jsonl
  enisle -C low custody label disc1.jsonl --to labels`,
	}
	c.AddCommand(e.custodyAdd(), e.custodyShow(), e.custodyLabel())
	return c
}

func (e *env) custodyAdd() *cobra.Command {
	var opt crossing.CustodyOptions
	var wiped custody.Sanitised
	c := &cobra.Command{
		Use: "add EVENT --log FILE", Short: "Sign one event: " + strings.Join(custody.Kinds(), ", "), Args: cobra.ExactArgs(1),
		Long: "Sign one event. The log of a medium is a file that travels with it, as custody.jsonl beside the volumes or otherwise.\n" +
			"It begins with 'sealed' outside; whoever is handed the medium receives it; gaps and overlaps are refused.",
		RunE: func(c *cobra.Command, args []string) error {
			if opt.Log == "" {
				return fail.As(fail.Usage, "give --log FILE", errors.New("custody: which log?"))
			}
			if opt.What = args[0]; opt.What == custody.Wiped {
				opt.Sanitised = &wiped
			}
			out, err := e.app().AddCustody(c.Context(), opt)
			if err != nil {
				return err
			}
			return e.result(out, func() { e.print("%s", out.Events[len(out.Events)-1].Digest) })
		},
	}
	f := c.Flags()
	for flag, at := range map[string]struct {
		to   *string
		help string
	}{
		"log": {&opt.Log, "file of the medium's log"}, "shipment": {&opt.Shipment, "id of the shipment; with 'sealed'"},
		"medium": {&opt.Medium, "name of the medium; with 'sealed'"}, "to": {&opt.To, "who is to receive it, NAME@SITE; with 'handed-over'"},
		"place": {&opt.Fields.Place, "where"}, "seal": {&opt.Fields.Seal, "number of the tamper-evident seal"},
		"serial": {&opt.Fields.Serial, "serial number of the medium"}, "kind": {&opt.Fields.Kind, "maker, model, capacity"},
		"marking": {&opt.Fields.Marking, "classification or handling"}, "transport": {&opt.Fields.Transport, "how it travels"},
		"authority": {&opt.Fields.Authority, "ticket or order"}, "note": {&opt.Fields.Note, "condition; exception and its reason"},
		"method": {&wiped.Method, "clear, purge or destroy; with 'wiped'"}, "technique": {&wiped.Technique, "how it was wiped"},
		"tool": {&wiped.Tool, "what it was wiped with, and its version"}, "verification": {&wiped.Verification, "how that was checked"},
		"validator": {&wiped.Validator, "another person, who looked"}, "destination": {&wiped.Destination, "where the medium goes"},
	} {
		f.StringVar(at.to, flag, "", at.help)
	}
	return c
}

func (e *env) custodyShow() *cobra.Command {
	return &cobra.Command{
		Use: "show LOG", Short: "Prove a log and tell its story", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			out, err := e.app().Custody(c.Context(), args[0])
			if len(out.Events) > 0 {
				err = errors.Join(e.result(out, func() {
					for _, line := range strings.Split(strings.TrimSuffix(crossing.Story(out), "\n"), "\n") {
						e.print("%s", line)
					}
				}), err)
			}
			return err
		},
	}
}

func (e *env) custodyLabel() *cobra.Command {
	var to string
	c := &cobra.Command{
		Use: "label LOG --to DIR", Short: "Write the label of a medium (SVG, PNG) and a paper manifest", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			if to == "" {
				return fail.As(fail.Usage, "give --to DIR", errors.New("custody: where to?"))
			}
			names, err := e.app().Labels(c.Context(), args[0], to)
			if err != nil {
				return err
			}
			return e.result(names, func() {
				for _, n := range names {
					e.print("%s", n)
				}
			})
		},
	}
	c.Flags().StringVar(&to, "to", "", "directory to write to")
	return c
}
