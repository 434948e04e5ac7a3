package cli

import (
	"github.com/spf13/cobra"

	"enisle/internal/app"
)

func (e *env) initSite() *cobra.Command {
	var side, name, pol, uri string
	var recovery []string
	c := &cobra.Command{
		Use: "init --side low|high [--name NAME]", Short: "Make a site: keys, trust root, store, ledger", Args: cobra.NoArgs,
		Example: "  enisle -C low  init --side low  --name outside\n  enisle -C high init --side high --name island --passphrase-file FILE",
		RunE: func(c *cobra.Command, _ []string) error {
			secrets, err := e.siteSecrets(uri)
			if err != nil {
				return err
			}
			secrets.Recovery = recovery
			id, err := e.app().Init(c.Context(), side, name, pol, secrets)
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
	c.Flags().StringVar(&uri, "pkcs11", "", "a token opens the site's keys: pkcs11:token=LABEL;object=LABEL?module-path=FILE")
	c.Flags().StringVar(&pol, "policy", "standard", "policy to begin with: standard or strict")
	return c
}

// siteSecrets protects the keys of a new site: by a token, a passphrase, or not.
func (e *env) siteSecrets(uri string) (app.Secrets, error) {
	if uri != "" {
		return e.app().WrappedSecrets(uri)
	}
	pass, err := e.sitePassphrase()
	return app.Secrets{Passphrase: pass}, err
}

// sitePassphrase is that of the site's own keys: only from a file, since every
// command would ask for it.
func (e *env) sitePassphrase() (string, error) {
	if e.siteFile() == "" {
		return "", nil
	}
	return readPassphrase(e.siteFile())
}
