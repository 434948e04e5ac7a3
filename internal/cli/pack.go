package cli

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"enisle/internal/crossing"
	"enisle/internal/fail"
)

func (e *env) pack() *cobra.Command {
	var opt crossing.PackOptions
	var media, bom, share string
	c := &cobra.Command{
		Use: "pack --to DIR [--media PROFILE|SIZE]", Short: "Seal what was collected into the next shipment", Args: cobra.NoArgs,
		Example: "  id=$(enisle -C low pack --to /media/usb --media usb-fat32 --quiet)\n  enisle -C low pack --to discs --media bd25 --parity 5% --spare 1",
		RunE: func(c *cobra.Command, _ []string) (err error) {
			if opt.To == "" && !opt.DryRun {
				return fail.As(fail.Usage, "give --to DIR", errors.New("pack: where to?"))
			}
			if opt.VolumeSize, err = parseMedia(media); err != nil {
				return err
			}
			if opt.Parity, err = parseShare(share); err != nil {
				return err
			}
			opt.Fill = media != ""
			if bom != "" && bom != "clear" {
				return fail.As(fail.Usage, "use --bom clear, or leave it out", fmt.Errorf("pack: --bom %s", bom))
			}
			opt.ClearBOM = bom == "clear"
			out, err := e.app().Pack(c.Context(), opt)
			e.warnSealed(c, out.Sealed)
			if err != nil {
				return err
			}
			return e.result(out, func() { e.showPacked(out, opt.DryRun) })
		},
	}
	c.Flags().StringVar(&opt.To, "to", "", "directory to write to")
	c.Flags().StringVar(&opt.Request, "request", "", "name of the request; default: the one collected last")
	c.Flags().StringVar(&media, "media", "", "largest volume: cd, dvd, bd25, bd50, bd100, usb-fat32, usb, or a size")
	c.Flags().StringVar(&bom, "bom", "", "'clear' writes names and versions into the clear-text bill")
	c.Flags().BoolVar(&opt.Full, "full", false, "carry everything, whatever the receipts of the islands say")
	c.Flags().BoolVar(&opt.ReadBack, "read-back", false, "read the medium back, past the page cache, before the shipment is sealed")
	c.Flags().StringVar(&share, "parity", "", "parity within each volume, such as 5%: as much of it may be damaged and is repaired")
	c.Flags().IntVar(&opt.Spare, "spare", 0, "volumes of parity besides: as many whole volumes may be lost")
	c.Flags().BoolVar(&opt.Compress, "compress", false, "compress what gains by it; weights by their byte planes")
	c.Flags().BoolVar(&opt.ISO, "iso", false, "make an image of an optical disc of each volume, with header and bill, to burn or mount")
	c.Flags().StringVar(&opt.Despite, "despite", "", "why it is packed although its rehearsal failed; goes on the record")
	c.Flags().BoolVar(&opt.DryRun, "dry-run", false, "print bytes and volumes and write nothing")
	return c
}

// warnSealed warns when the people of a site were closed now and can never
// change.
func (e *env) warnSealed(c *cobra.Command, now bool) {
	if !now {
		return
	}
	if w := e.app().Unchangeable(c.Context()); w != "" {
		e.say("warning: %s", w)
	}
}

func (e *env) showPacked(out crossing.Packed, dry bool) {
	if dry {
		// Media write at very different speeds; these are a USB 2 stick and a USB 3 one.
		slow, fast := float64(out.Bytes)/20e6/60, float64(out.Bytes)/200e6/60
		e.print("volumes: %d, together %s, %.1f to %.1f minutes at 200 to 20 MB/s", out.Volumes, size(out.Bytes), fast, slow)
		return
	}
	word := "sealed"
	if out.Already {
		word = "stood there already"
	}
	e.say("%s: artifacts %d, volumes %d, %s", word, out.Artifacts, out.Volumes, size(out.Bytes))
	if out.Missing > 0 {
		e.say("%d more collectors must sign it before an island takes it: enisle sign %s --to DIR --as NAME --key FILE", out.Missing, out.ID)
	}
	if len(out.Base) > 0 {
		e.say("builds on %s: %s of %s are carried", strings.Join(out.Base, ", "), size(out.Payload), size(out.Content))
	}
	if n := len(out.Images); n > 0 {
		e.say("images to burn: %s to %s", out.Images[0], out.Images[n-1])
	}
	e.print("%s", out.ID)
}
