package cli

import (
	"errors"
	"os"
	"time"

	"github.com/spf13/cobra"

	"enisle/internal/app"
	"enisle/internal/fail"
	"enisle/internal/site/tuf"
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
	c.AddCommand(e.tufPublish())
	return c
}

func (e *env) tufPublish() *cobra.Command {
	var p tuf.Publication
	var keys, old []string
	var days int
	c := &cobra.Command{
		Use: "publish --to DIR --targets DIR --sign-key FILE…", Short: "Write the next version of a repository", Args: cobra.NoArgs,
		Long: "Write the next version of a repository: the files of a directory, signed with the keys given, in the roles of all.\n" +
			"Where keys change, those before sign as well, so that whoever trusts them can follow.",
		Example: "  enisle tuf publish --to repo --targets rules --sign-key alice.key --sign-key bob.key --threshold 2\n" +
			"  enisle tuf publish --to repo --targets rules --sign-key alice.key --sign-key erin.key --old-key bob.key",
		RunE: func(c *cobra.Command, _ []string) error {
			if p.Repository == "" || p.Targets == "" {
				return fail.As(fail.Usage, "give --to DIR and --targets DIR", errors.New("tuf publish: what, and where to?"))
			}
			p.Lasts, p.Now = time.Duration(days)*24*time.Hour, time.Now()
			out, err := e.app().PublishTUF(c.Context(), p, keys, old)
			if err != nil {
				return err
			}
			return e.result(out, func() { e.print("version %d, root %d, targets %d", out.Version, out.Root, out.Targets) })
		},
	}
	f := c.Flags()
	f.StringVar(&p.Repository, "to", "", "directory of the repository")
	f.StringVar(&p.Targets, "targets", "", "directory with the files to publish")
	f.StringArrayVar(&keys, "sign-key", nil, "file or token with a key that signs from now on")
	f.StringArrayVar(&old, "old-key", nil, "a key that signed until now, where it changes")
	f.IntVar(&p.Threshold, "threshold", 0, "how many must sign; default: as before, or 1")
	f.IntVar(&days, "days", 90, "until it expires")
	return c
}
