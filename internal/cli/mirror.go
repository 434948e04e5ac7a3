package cli

import (
	"github.com/spf13/cobra"

	"enisle/internal/app"
)

func (e *env) mirror() *cobra.Command {
	c := &cobra.Command{Use: "mirror", Short: "Settings for clients of the mirrors"}
	var base string
	config := &cobra.Command{
		Use: "config CLIENT", Short: "Print the settings that make pip, npm, docker and others use this mirror", Args: cobra.ExactArgs(1),
		Example: "  enisle mirror config pip > ~/.config/pip/pip.conf",
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := app.MirrorConfig(args[0], base)
			if err != nil {
				return err
			}
			return e.result(map[string]string{"client": args[0], "settings": text}, func() { e.lines(text) })
		},
	}
	config.Flags().StringVar(&base, "url", "http://127.0.0.1:8440", "address of the mirror")
	c.AddCommand(config)
	return c
}
