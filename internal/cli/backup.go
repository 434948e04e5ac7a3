package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"enisle/internal/fail"
)

func (e *env) backup() *cobra.Command {
	var to string
	var recipients []string
	var blobs bool
	c := &cobra.Command{
		Use: "backup --to FILE", Short: "Write the site's keys, trust, record and state, sealed for recovery keys", Args: cobra.NoArgs,
		Example: "  enisle -C high backup --to high-2026-11-24.enisle-backup",
		RunE: func(c *cobra.Command, _ []string) error {
			if to == "" {
				return fail.As(fail.Usage, "give --to FILE", errors.New("backup: where to?"))
			}
			if err := e.app().Backup(c.Context(), to, recipients, blobs); err != nil {
				return err
			}
			return e.result(map[string]string{"backup": to}, func() { e.print("%s", to) })
		},
	}
	c.Flags().StringVar(&to, "to", "", "file to write")
	c.Flags().StringSliceVar(&recipients, "recipient", nil, "recipients besides those that the site was made with")
	c.Flags().BoolVar(&blobs, "blobs", false, "with all blobs; without, they are brought in again")
	return c
}

func (e *env) restore() *cobra.Command {
	var key string
	c := &cobra.Command{
		Use: "restore FILE --recovery-key KEY", Short: "Make the site of a backup, in a directory that does not exist yet", Args: cobra.ExactArgs(1),
		Example: "  enisle -C high restore high-2026-11-24.enisle-backup --recovery-key recovery.key\n  enisle -C high check --read-data",
		RunE: func(c *cobra.Command, args []string) error {
			if key == "" {
				return fail.As(fail.Usage, "give --recovery-key FILE", errors.New("restore: with which key?"))
			}
			if err := e.app().Restore(c.Context(), args[0], key); err != nil {
				return err
			}
			return e.result(map[string]string{"site": e.dir}, func() {
				e.say("restored; what was done after the backup is not in it: 'enisle ledger show', 'enisle check --read-data'")
				e.print("%s", e.dir)
			})
		},
	}
	c.Flags().StringVar(&key, "recovery-key", "", "file with the recovery key")
	return c
}
