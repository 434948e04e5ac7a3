package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"enisle/internal/crossing"
	"enisle/internal/fail"
	"enisle/internal/judge/inspect"
	"enisle/internal/site/state"
)

func (e *env) inspect() *cobra.Command {
	var all, newData bool
	c := &cobra.Command{
		Use: "inspect [SHIPMENT|REF|--all]", Short: "Run the scanners and print what they find; exit 3 if the policy would refuse", Args: cobra.MaximumNArgs(1),
		Example: "  enisle -C high inspect outside-1-3f9a2c1b\n  enisle -C high inspect --all --new-data   # after new vulnerability data was released",
		RunE: func(c *cobra.Command, args []string) error {
			ids, err := e.inspected(c, args, all)
			if err != nil {
				return err
			}
			var results []crossing.Judged
			var refused error
			for _, id := range ids {
				again := e.app().Inspect
				if newData {
					again = e.app().Rematch
				}
				j, err := again(c.Context(), id)
				if err != nil {
					return err
				}
				results = append(results, j)
				if !j.Decision.Allow {
					refused = fail.Refuse("read the findings; bring another version, or let two admins change the policy: 'enisle policy set'",
						fmt.Errorf("the policy would refuse shipment %s: %s", id, j.Decision.Reasons[0]))
				}
			}
			err = e.result(results, func() {
				for _, j := range results {
					e.showReport(j)
				}
			})
			return errors.Join(refused, err)
		},
	}
	c.Flags().BoolVar(&newData, "new-data", false, "read no file again: match what was found before against the vulnerability data of now")
	c.Flags().BoolVar(&all, "all", false, "everything at the island, not only what waits in quarantine")
	return c
}

// inspected returns the shipments that the arguments mean: one, those that hold an
// artifact, those that wait, or all.
func (e *env) inspected(c *cobra.Command, args []string, all bool) ([]string, error) {
	if len(args) == 0 {
		return e.waiting(c, all)
	}
	if !strings.Contains(args[0], "/") {
		return args, nil
	}
	ids, err := e.app().Holding(c.Context(), args[0])
	if err == nil && len(ids) == 0 {
		err = fail.As(fail.Usage, "'enisle review' lists the shipments that are here", fmt.Errorf("no shipment here holds %.120q", args[0]))
	}
	return ids, err
}

// waiting lists the shipments in quarantine, or all.
func (e *env) waiting(c *cobra.Command, all bool) (ids []string, err error) {
	rows, err := e.app().Shipments(c.Context())
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		if all || row.Status == state.Quarantined {
			ids = append(ids, row.ID)
		}
	}
	if len(ids) == 0 {
		return nil, fail.As(fail.Usage, "import a shipment first", errors.New("there is nothing to inspect"))
	}
	return ids, nil
}

func (e *env) showReport(j crossing.Judged) {
	r := j.Report
	for _, sev := range []inspect.Severity{inspect.Refuse, inspect.Warn, inspect.Info} {
		for _, f := range r.Of(sev) {
			e.print("%-7s %-18s %s  %s: %s", f.Severity, f.Rule, f.Artifact, f.File, f.Detail)
		}
	}
	e.say("%s: %d artifacts, %d files and %d members inside, %s read by %d scanners", r.Shipment, r.Artifacts, r.Files, r.Members, size(r.Bytes), len(r.Scanners))
	e.say("findings: %d refuse, %d warn, %d info", len(r.Of(inspect.Refuse)), len(r.Of(inspect.Warn)), len(r.Of(inspect.Info)))
	if j.Decision.Allow {
		e.say("the policy would let it pass; next: enisle review %s", r.Shipment)
	}
}
