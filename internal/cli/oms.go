package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"enisle/internal/app"
	"enisle/internal/fail"
)

func (e *env) oms() *cobra.Command {
	c := &cobra.Command{
		Use: "oms", Short: "Sign models, and verify their signatures (OpenSSF Model Signing)",
		Long: "Sign the directory of a model, and verify a signature that came with one, by a key or a certificate: the same files\nthat the model_signing tool writes and reads.",
	}
	c.AddCommand(e.omsSign(), e.omsVerify())
	return c
}

func (e *env) omsSign() *cobra.Command {
	var opt app.OMSOptions
	c := &cobra.Command{
		Use: "sign DIR --private-key FILE", Short: "Sign every file of a model", Args: cobra.ExactArgs(1),
		Example: "  enisle oms sign models/tiny --private-key signer.pem --signature models/tiny/model.sig\n" +
			"  enisle oms sign models/tiny --private-key signer.pem --certificate-chain chain.pem --signature tiny.sig",
		RunE: func(c *cobra.Command, args []string) error {
			opt.Model = args[0]
			out, err := app.SignModel(c.Context(), opt)
			if err != nil {
				return err
			}
			return e.result(out, func() {
				e.say("%d files are signed", len(out.Signed))
				e.print("%s", out.Signature)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&opt.PrivateKey, "private-key", "", "PEM file of a key on P-256, P-384 or P-521")
	f.StringVar(&opt.Certificates, "certificate-chain", "", "PEM file of certificates, the key's own first; default: sign by the key alone")
	f.StringVar(&opt.Signature, "signature", "", "file to write the signature to; default: DIR/model.sig")
	return c
}

func (e *env) omsVerify() *cobra.Command {
	var opt app.OMSOptions
	var asOf string
	c := &cobra.Command{
		Use: "verify DIR --public-key FILE | --certificate-chain FILE", Short: "Verify the signature of a model, and name what it does not cover", Args: cobra.ExactArgs(1),
		Long: "Verify the signature of a model. A file that nobody signed is refused, unless it is to be ignored by name.\n" +
			"A certificate must be valid now, or with --as-of at that time, to be said only by who knows when it was signed.",
		Example: "  enisle oms verify models/tiny --public-key signer.pub\n  enisle oms verify models/tiny --certificate-chain root.pem --as-of 2026-03-01",
		RunE: func(c *cobra.Command, args []string) error {
			opt.Model = args[0]
			if asOf != "" {
				at, err := time.Parse(time.DateOnly, asOf)
				if err != nil {
					return fail.As(fail.Usage, "give a date such as 2026-03-01", err)
				}
				opt.At = at
			}
			out, err := app.VerifyModel(c.Context(), opt)
			if err != nil {
				return err
			}
			if err := e.result(out, func() {
				e.print("good: %d files, signed by %s", len(out.Signed), out.By)
				if len(out.Ignored) > 0 {
					e.say("the signer left out: %s", strings.Join(out.Ignored, ", "))
				}
			}); err != nil {
				return err
			}
			if len(out.Unsigned) > 0 {
				return fail.Refuse("remove them, or name each with --ignore after reading it", fmt.Errorf("%d files are not signed, the first: %s", len(out.Unsigned), out.Unsigned[0]))
			}
			return nil
		},
	}
	f := c.Flags()
	f.StringVar(&opt.PublicKey, "public-key", "", "PEM file of the signer's key")
	f.StringVar(&opt.Certificates, "certificate-chain", "", "PEM file of the roots that certificates lead to")
	f.StringVar(&opt.Signature, "signature", "", "file with the signature; default: DIR/model.sig")
	f.StringArrayVar(&opt.Ignore, "ignore", nil, "a file that need not be signed")
	f.BoolVar(&opt.Legacy, "legacy", false, "let the form of version 0.2 of the tools pass as well")
	f.StringVar(&asOf, "as-of", "", "the day as of which a certificate must be valid")
	return c
}
