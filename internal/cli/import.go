package cli

import (
	"context"

	"github.com/spf13/cobra"

	"enisle/internal/crossing"
)

func (e *env) importMedia() *cobra.Command {
	var more bool
	var recovery string
	c := &cobra.Command{
		Use: "import DIR…", Short: "Bring a shipment into quarantine, verified frame by frame", Args: cobra.MinimumNArgs(1),
		Long: "Bring a shipment into quarantine, verified frame by frame while it is read.\nThe medium is never written to. A run that was interrupted goes on where it stopped.\n" +
			"Several directories are read at the same time; with --more one after the other, in any order.",
		Example: "  enisle -C high import /media/usb\n  enisle -C high import --more /media/dvd   # and again with the next disc",
		RunE: func(c *cobra.Command, args []string) error {
			do := e.app().Import
			if more {
				do = e.app().ImportMore
			}
			out, err := e.imported(c, recovery, more, do, args)
			e.warnSealed(c, out.Sealed)
			if err != nil {
				return err
			}
			for _, n := range out.Notes {
				e.say("note: %s", n)
			}
			for _, n := range out.Ignored {
				e.say("ignored on the medium: %s", n)
			}
			e.showDamage(out.Repaired)
			return e.result(out, func() {
				if out.Already {
					e.say("was imported before; nothing to do")
				} else {
					e.say("in quarantine: %d artifacts, %s; next: enisle inspect %s", out.Artifacts, size(out.Bytes), out.ID)
				}
				e.print("%s", out.ID)
			})
		},
	}
	c.Flags().StringVar(&recovery, "recovery-key", "", "file with a recovery key, where the site's own is lost")
	c.Flags().BoolVar(&more, "more", false, "load the volumes that are here; others come later (exit 4 until all are there)")
	return c
}

func (e *env) imported(c *cobra.Command, recovery string, more bool, do func(context.Context, ...string) (crossing.Imported, error), dirs []string) (crossing.Imported, error) {
	if recovery != "" {
		return e.app().ImportWith(c.Context(), recovery, more, dirs...)
	}
	return do(c.Context(), dirs...)
}
