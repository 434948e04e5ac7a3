package cli

import (
	"strings"

	"github.com/spf13/cobra"

	"enisle/internal/site/ledger"
)

func (e *env) ledger() *cobra.Command {
	c := &cobra.Command{Use: "ledger", Short: "Prove and read the record of every act"}
	c.AddCommand(e.ledgerVerify(), e.ledgerSearch())
	return c
}

func (e *env) ledgerVerify() *cobra.Command {
	return &cobra.Command{
		Use: "verify", Short: "Prove the record, against every checkpoint that the site holds", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			n, held, err := e.app().VerifyLedger(c.Context())
			if err != nil {
				return err
			}
			return e.result(map[string]any{"records": n, "checkpoints": held}, func() {
				e.print("good: %d records, consistent with %d checkpoints in signed statements", n, held)
			})
		},
	}
}

func (e *env) ledgerSearch() *cobra.Command {
	return &cobra.Command{
		Use: "search [WORD...]", Short: "Print the records that hold all the words",
		Example: "  enisle -C high ledger search approve alice",
		RunE: func(c *cobra.Command, args []string) error {
			var found []ledger.Record
			err := e.app().Records(c.Context(), func(r ledger.Record) error {
				line := recordLine(r)
				for _, w := range args {
					if !strings.Contains(line, w) {
						return nil
					}
				}
				found = append(found, r)
				return nil
			})
			if err != nil {
				return err
			}
			return e.result(found, func() {
				for _, r := range found {
					e.print("%s", recordLine(r))
				}
			})
		},
	}
}

func recordLine(r ledger.Record) string {
	var b strings.Builder
	b.WriteString(r.Time.Format("2006-01-02 15:04:05") + "  " + r.Act + " " + r.Phase)
	if r.Result != "" {
		b.WriteString(" " + r.Result)
	}
	b.WriteString("  by " + r.Actor.Name)
	for _, k := range sortedKeys(r.Subject) {
		b.WriteString("  " + k + "=" + r.Subject[k])
	}
	return b.String()
}
