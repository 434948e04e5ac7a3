package cli

import (
	"github.com/spf13/cobra"

	"enisle/internal/artifact"
	"enisle/internal/crossing"
	"enisle/internal/fail"
)

func (e *env) approve() *cobra.Command {
	var opt crossing.ApproveOptions
	var expect string
	c := &cobra.Command{
		Use: "approve SHIPMENT --as NAME --key FILE", Short: "Sign one person's approval over content, report and policy", Args: cobra.ExactArgs(1),
		Example: "  enisle -C high approve outside-1-3f9a2c1b --as alice --key alice.key",
		RunE: func(c *cobra.Command, args []string) (err error) {
			if opt.Expect, err = parseExpect(expect); err != nil {
				return err
			}
			return e.decide(c, args[0], crossing.Approve, opt)
		},
	}
	c.Flags().StringVar(&opt.Channel, "channel", "stable", "the channel it is approved for")
	c.Flags().StringVar(&expect, "expect", "", "refuse to sign anything but this digest")
	return c
}

// parseExpect reads the digest that somebody expects to sign; empty is any.
func parseExpect(s string) (artifact.Digest, error) {
	if s == "" {
		return "", nil
	}
	d, err := artifact.ParseDigest(s)
	if err != nil {
		err = fail.As(fail.Usage, "give the digest as 'enisle review' or 'enisle trust show' prints it", err)
	}
	return d, err
}

func (e *env) decide(c *cobra.Command, id, decision string, opt crossing.ApproveOptions) error {
	out, err := e.app().Decide(c.Context(), id, decision, opt)
	if err != nil {
		return err
	}
	return e.result(out, func() {
		e.print("%s", out.Signed)
		switch {
		case decision == crossing.Reject:
			e.say("%s rejected shipment %s", out.By, out.ID)
		case out.Have < out.Need:
			e.say("%s approved shipment %s; %d of %d signatures", out.By, out.ID, out.Have, out.Need)
		default:
			e.say("%s approved shipment %s; next: enisle release %s --channel %s", out.By, out.ID, out.ID, opt.Channel)
		}
	})
}
