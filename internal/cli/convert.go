package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"enisle/internal/app"
)

// shownLeftOut is how many values beside the tensors are shown.
const shownLeftOut = 20

func (e *env) convert() *cobra.Command {
	var opt app.ConvertOptions
	c := &cobra.Command{
		Use: "convert CHECKPOINT --to FILE", Short: "Convert a checkpoint of torch to safetensors, without running it", Args: cobra.ExactArgs(1),
		Long: "Write the tensors of a PyTorch checkpoint (.pt, .pth, .ckpt, .bin) to a safetensors file, each with the bits it has.\n" +
			"The scanners judge the checkpoint first. Nothing of it is run or imported: whatever rebuilds more than tensors and\n" +
			"plain containers is refused by name. Values that are no tensors are left out and listed.",
		Example: "  enisle convert model.pt --dry-run\n  enisle convert model.pt --to model.safetensors --key state_dict",
		RunE: func(c *cobra.Command, args []string) error {
			opt.In = args[0]
			out, err := e.app().Convert(c.Context(), opt)
			if err != nil {
				return err
			}
			return e.result(out, func() { e.showConversion(out) })
		},
	}
	f := c.Flags()
	f.StringVar(&opt.Out, "to", "", "safetensors file to write")
	f.StringVar(&opt.Key, "key", "", "take only the tensors below this key, such as state_dict, and take it off their names")
	f.BoolVar(&opt.DryRun, "dry-run", false, "list the tensors and write nothing")
	f.BoolVar(&opt.Force, "force", false, "replace the file if it exists")
	return c
}

func (e *env) showConversion(out app.Conversion) {
	shared := 0
	for _, t := range out.Tensors {
		if t.SharesWith != "" {
			shared++
		}
		if out.Output == "" {
			e.print("%-7s %-20s %s", t.Type, strings.ReplaceAll(fmt.Sprint(t.Shape), " ", ","), t.Name)
		}
	}
	for i, l := range out.LeftOut {
		if i == shownLeftOut {
			e.say("left out: %d more values; --json lists them", len(out.LeftOut)-i)
			break
		}
		switch {
		case l.Value == "":
			e.say("left out: %s = %s", l.Name, l.Kind)
		default:
			e.say("left out: %s = %.80s", l.Name, l.Value)
		}
	}
	if out.Elsewhere > 0 {
		e.say("%d tensors stand outside of the key", out.Elsewhere)
	}
	if shared > 0 {
		e.say("%d tensors share their storage with another; each is written in full", shared)
	}
	verb := "written"
	if out.Output == "" {
		verb = "to be written"
	}
	e.say("%d tensors, %s, %s", len(out.Tensors), size(out.Size), verb)
	if out.Output != "" {
		e.print("%s", out.Output)
	}
}
