package cli

import (
	"github.com/spf13/cobra"

	"enisle/internal/crossing"
)

func (e *env) sign() *cobra.Command {
	var opt crossing.SignOptions
	var expect string
	c := &cobra.Command{
		Use: "sign SHIPMENT --as NAME --key FILE", Short: "Add one more collector's signature, where the root wants several", Args: cobra.ExactArgs(1),
		Example: "  enisle -C low sign outside-1-3f9a2c1b --to /media/usb --as bob --key bob.key",
		RunE: func(c *cobra.Command, args []string) (err error) {
			if opt.Expect, err = parseExpect(expect); err != nil {
				return err
			}
			out, err := e.app().Sign(c.Context(), args[0], opt)
			if err != nil {
				return err
			}
			return e.result(out, func() {
				e.say("signed: shipment %s has %d of %d collectors", out.ID, out.Have, out.Need)
				if opt.To == "" {
					e.say("write it to the medium with 'enisle sign %s --to DIR', or 'enisle pack' to the same directory", out.ID)
				}
				e.print("%s", out.Digest)
			})
		},
	}
	c.Flags().StringVar(&opt.To, "to", "", "directory with the shipment: its header is written with all signatures")
	c.Flags().StringVar(&expect, "expect", "", "refuse to sign anything but this digest of a header")
	return c
}
