package cli

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"enisle/internal/crossing"
	"enisle/internal/fail"
)

func (e *env) receipt() *cobra.Command {
	var to, paper, peer string
	c := &cobra.Command{
		Use: "receipt [--to FILE]", Short: "Say what arrived, so that the next shipment carries only what is new", Args: cobra.NoArgs,
		Long: "Say what arrived, so that the next shipment carries only what is new: as a signed file, or as a code of 20 letters\n" +
			"that a person types at the low site where nothing electronic may leave.",
		Example: "  enisle -C high receipt --to receipt.json      # then, outside: enisle -C low receipt add receipt.json\n" +
			"  enisle -C high receipt --paper page           # page/receipt.svg and .png: the code, and a QR code to scan\n" +
			"  enisle -C low  receipt add AEAA-AAAC-AABT-4EBN-XD3A",
		RunE: func(c *cobra.Command, _ []string) error {
			out, err := e.app().Receipt(c.Context(), peer)
			if err != nil {
				return err
			}
			if to != "" {
				if err := os.WriteFile(to, append(out.Envelope, '\n'), 0o644); err != nil {
					return fail.As(fail.Usage, "name a file that can be written with --to", err)
				}
			}
			if paper != "" {
				if _, err := out.Print(paper); err != nil {
					return err
				}
			}
			return e.result(out, func() { e.showReceipt(out, to) })
		},
	}
	c.Flags().StringVar(&to, "to", "", "file to write the signed receipt to")
	c.Flags().StringVar(&paper, "paper", "", "directory to write a page to print to, with the code as letters and as a QR code")
	c.Flags().StringVar(&peer, "for", "", "name of the low site, if several are paired")
	c.AddCommand(e.receiptAdd())
	return c
}

func (e *env) showReceipt(out crossing.Received, to string) {
	e.say("%s holds %d shipments of %s", out.Receipt.Site.Name, len(out.Receipt.Held), out.Receipt.From.Name)
	for _, h := range out.Receipt.Held {
		e.say("  %s", h.ID)
	}
	if to != "" {
		e.say("carry %s to %s: enisle receipt add FILE; or have this typed there: enisle receipt add CODE", to, out.Receipt.From.Name)
	}
	if out.Code != "" {
		e.print("%s", out.Code)
	}
}

func (e *env) receiptAdd() *cobra.Command {
	return &cobra.Command{
		Use: "add FILE|CODE", Short: "Take an island's receipt: the next pack builds on what it holds", Args: cobra.ExactArgs(1),
		Example: "  enisle -C low receipt add receipt.json",
		RunE: func(c *cobra.Command, args []string) error {
			out, err := e.addReceipt(c, args[0])
			if err != nil {
				return err
			}
			return e.result(out, func() { e.say("%s holds %d shipments that the next one may build on", out.Site, out.Held) })
		},
	}
}

func (e *env) addReceipt(c *cobra.Command, arg string) (crossing.Told, error) {
	b, err := os.ReadFile(arg)
	if errors.Is(err, os.ErrNotExist) {
		if !crossing.IsCode(arg) {
			return crossing.Told{}, fail.As(fail.Usage, "give the file that 'enisle receipt --to' wrote, or the code that it printed", err)
		}
		return e.app().AddReceiptCode(c.Context(), arg)
	}
	if err != nil {
		return crossing.Told{}, err
	}
	return e.app().AddReceipt(c.Context(), b)
}
