package cli

import "github.com/spf13/cobra"

func (e *env) importMedia() *cobra.Command {
	return &cobra.Command{
		Use: "import DIR", Short: "Bring a shipment into quarantine, verified frame by frame", Args: cobra.ExactArgs(1),
		Long:    "Bring a shipment into quarantine, verified frame by frame while it is read.\nThe medium is never written to. A run that was interrupted goes on where it stopped.",
		Example: "  enisle -C high import /media/usb",
		RunE: func(c *cobra.Command, args []string) error {
			out, err := e.app().Import(c.Context(), args[0])
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
}
