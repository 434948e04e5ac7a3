package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"enisle/internal/crossing"
)

func (e *env) verify() *cobra.Command {
	var site, repairTo string
	c := &cobra.Command{
		Use: "verify DIR… [--site SITE] [--repair-to DIR]", Short: "Check every frame of a shipment against the roots of a site", Args: cobra.MinimumNArgs(1),
		Example: "  enisle verify /media/usb --site high\n  enisle verify /media/disc1 /media/disc2 --site low --repair-to repaired",
		RunE: func(c *cobra.Command, args []string) error {
			a := e.app()
			if site != "" {
				a.Dir = site
			}
			m, err := a.Verify(c.Context(), repairTo, args...)
			if err != nil {
				if e.json && len(m.Damage) > 0 {
					err = errors.Join(err, e.result(m, nil))
				}
				return err
			}
			return e.result(m, func() {
				e.showDamage(m.Damage)
				for _, n := range m.Repaired {
					e.say("volume %d: written to %s as it was signed", n, repairTo)
				}
				if len(m.Repaired) == 0 {
					e.print("%s: good: %d frames in %d volumes are what was signed", m.Header.ID, m.Frames, len(m.Header.Volumes))
				}
				for _, n := range m.Ignored {
					e.say("ignored: %s", n)
				}
			})
		},
	}
	c.Flags().StringVar(&repairTo, "repair-to", "", "write volumes that are damaged or missing to this directory, repaired")
	// The contract calls the flag --site; here it means the same as -C.
	c.Flags().StringVar(&site, "site", "", "directory of the site whose roots decide; default -C")
	return c
}

// showDamage lists what is not what was signed, and what parity gave back.
func (e *env) showDamage(all []crossing.Damage) {
	const most = 20
	for i, d := range all {
		if i == most {
			e.say("and %d more; --json lists all", len(all)-most)
			break
		}
		word := "lost"
		if d.Mended {
			word = "repaired"
		}
		e.say("%s: %v", word, d.Err)
	}
}
