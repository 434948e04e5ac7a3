package cli

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"enisle/internal/app"
	"enisle/internal/fail"
)

// The shape of the command is that of the TUF conformance suite's clients.
func (e *env) tuf() *cobra.Command {
	var dir, metadata, name, base, to string
	c := &cobra.Command{
		Use: "tuf", Short: "Follow a repository of The Update Framework",
		Long: "Follow a repository of The Update Framework: keys and roles, policies, rules, in a directory that crossed\nthe gap or at an address outside. Nothing is taken that its keys did not sign, or that is expired.",
		Example: "  enisle tuf --metadata-dir trusted init root.json\n  enisle tuf --metadata-dir trusted --metadata-url /media/repository/metadata refresh\n" +
			"  enisle tuf --metadata-dir trusted --metadata-url /media/repository/metadata --target-name rules.json \\\n    --target-base-url /media/repository/targets --target-dir rules download",
	}
	f := c.PersistentFlags()
	f.StringVar(&dir, "metadata-dir", "", "directory of what is trusted")
	f.StringVar(&metadata, "metadata-url", "", "directory or address of the metadata")
	f.StringVar(&name, "target-name", "", "target to bring")
	f.StringVar(&base, "target-base-url", "", "directory or address of the targets")
	f.StringVar(&to, "target-dir", "", "directory to bring it to")
	need := func(flags ...string) error {
		for _, n := range flags {
			if v, _ := f.GetString(n); v == "" {
				return fail.As(fail.Usage, "give --"+n, errors.New("tuf: --"+n+" is missing"))
			}
		}
		return nil
	}
	c.AddCommand(&cobra.Command{
		Use: "init ROOT", Short: "Trust a root, once", Args: cobra.ExactArgs(1),
		RunE: func(c *cobra.Command, args []string) error {
			root, err := os.ReadFile(args[0])
			if err != nil {
				return fail.As(fail.Usage, "name the file with the root", err)
			}
			if err := need("metadata-dir"); err != nil {
				return err
			}
			client, err := app.TUF(c.Context(), dir)
			if err != nil {
				return err
			}
			return client.Init(root)
		},
	}, &cobra.Command{
		Use: "refresh", Short: "Bring what is trusted up to date", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := need("metadata-dir", "metadata-url"); err != nil {
				return err
			}
			client, err := app.TUF(c.Context(), dir)
			if err != nil {
				return err
			}
			return client.Refresh(metadata)
		},
	}, &cobra.Command{
		Use: "download", Short: "Bring one target, proven", Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := need("metadata-dir", "metadata-url", "target-name", "target-base-url", "target-dir"); err != nil {
				return err
			}
			client, err := app.TUF(c.Context(), dir)
			if err != nil {
				return err
			}
			at, err := client.Download(metadata, name, base, to)
			if err != nil {
				return err
			}
			return e.result(map[string]string{"target": at}, func() { e.print("%s", at) })
		},
	})
	return c
}
