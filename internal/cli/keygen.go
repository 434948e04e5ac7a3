package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"enisle/internal/app"
	"enisle/internal/fail"
)

func (e *env) keygen() *cobra.Command {
	var out, uri string
	var none, recovery bool
	c := &cobra.Command{
		Use: "keygen --out FILE", Short: "Make a signing key and its .pub", Args: cobra.NoArgs,
		Example: "  enisle keygen --out alice.key",
		RunE: func(*cobra.Command, []string) error {
			if out == "" {
				return fail.As(fail.Usage, "give --out FILE", errors.New("keygen: where to?"))
			}
			if uri != "" {
				id, err := e.app().KeygenInToken(uri, out)
				if err != nil {
					return err
				}
				return e.result(map[string]string{"key": id, "private": uri, "public": out + ".pub"}, func() {
					e.say("the key stays in the token; the public half is in %s.pub; act with --key '%s'", out, uri)
					e.print("%s", id)
				})
			}
			pass, err := e.newPassphrase(none, out)
			if err != nil {
				return err
			}
			if recovery {
				to, err := app.KeygenRecovery(out, pass)
				if err != nil {
					return err
				}
				return e.result(map[string]string{"recipient": to, "private": out}, func() {
					e.say("recovery key %s: keep it in a safe; give its recipient to 'enisle init --recovery' and 'enisle backup --recipient'", out)
					e.print("%s", to)
				})
			}
			id, err := app.Keygen(out, pass)
			if err != nil {
				return err
			}
			return e.result(map[string]string{"key": id, "private": out, "public": out + ".pub"}, func() {
				e.say("key %s; the public half is in %s.pub", out, out)
				e.print("%s", id)
			})
		},
	}
	c.Flags().StringVar(&out, "out", "", "file to write")
	c.Flags().StringVar(&uri, "pkcs11", "", "make it in a token: pkcs11:token=LABEL;object=LABEL?module-path=FILE")
	c.Flags().BoolVar(&recovery, "recovery", false, "make a recovery key instead: it opens shipments and backups, and prints its recipient")
	c.Flags().BoolVar(&none, "no-passphrase", false, "leave the key unprotected, for tests")
	return c
}
