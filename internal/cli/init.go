package cli

import (
	"github.com/spf13/cobra"
)

func (e *env) initSite() *cobra.Command {
	var side, name, pol string
	var recovery []string
	c := &cobra.Command{
		Use: "init --side low|high [--name NAME]", Short: "Make a site: keys, trust root, store, ledger", Args: cobra.NoArgs,
		Example: "  enisle -C low  init --side low  --name outside\n  enisle -C high init --side high --name island --passphrase-file FILE",
		RunE: func(c *cobra.Command, _ []string) error {
			pass, err := e.sitePassphrase()
			if err != nil {
				return err
			}
			id, err := e.app().Init(c.Context(), side, name, pol, pass, recovery...)
			if err != nil {
				return err
			}
			return e.result(map[string]string{"name": id.Name, "side": id.Side, "fingerprint": id.Fingerprint()}, func() {
				e.say("site %s (%s side) is in %s", id.Name, id.Side, e.dir)
				e.print("%s", id.Fingerprint())
			})
		},
	}
	c.Flags().StringVar(&side, "side", "", "low (connected) or high (isolated)")
	c.Flags().StringVar(&name, "name", "", "name of the site; default: the name of its directory")
	c.Flags().StringSliceVar(&recovery, "recovery", nil, "recipients of recovery keys: they open what is sealed for this site")
	c.Flags().StringVar(&pol, "policy", "standard", "policy to begin with: standard or strict")
	return c
}

// sitePassphrase is that of the site's own keys: only from a file, since every
// command would ask for it.
func (e *env) sitePassphrase() (string, error) {
	if e.siteFile() == "" {
		return "", nil
	}
	return readPassphrase(e.siteFile())
}
