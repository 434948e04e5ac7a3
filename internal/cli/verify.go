package cli

import "github.com/spf13/cobra"

func (e *env) verify() *cobra.Command {
	var site string
	c := &cobra.Command{
		Use: "verify DIR… [--site SITE]", Short: "Check every frame of a shipment against the roots of a site", Args: cobra.MinimumNArgs(1),
		Example: "  enisle verify /media/usb --site high",
		RunE: func(c *cobra.Command, args []string) error {
			a := e.app()
			if site != "" {
				a.Dir = site
			}
			m, err := a.Verify(c.Context(), args...)
			if err != nil {
				return err
			}
			return e.result(m, func() {
				e.print("%s: good: %d frames in %d volumes are what was signed", m.Header.ID, m.Frames, len(m.Header.Volumes))
				for _, n := range m.Ignored {
					e.say("ignored: %s", n)
				}
			})
		},
	}
	// The contract calls the flag --site; here it means the same as -C.
	c.Flags().StringVar(&site, "site", "", "directory of the site whose roots decide; default -C")
	return c
}
