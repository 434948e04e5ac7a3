package cli

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"enisle/internal/app"
	"enisle/internal/plain"
)

func (e *env) mirror() *cobra.Command {
	c := &cobra.Command{Use: "mirror", Short: "Settings for clients of the mirrors"}
	var base string
	config := &cobra.Command{
		Use: "config CLIENT", Short: "Print the settings that make a client use this mirror",
		Long: "Print the settings that make a client use this mirror and nothing else. Clients: " + strings.Join(app.MirrorClients(), ", ") + ".", Args: cobra.ExactArgs(1),
		Example: "  enisle mirror config pip > ~/.config/pip/pip.conf",
		RunE: func(_ *cobra.Command, args []string) error {
			text, err := app.MirrorConfig(args[0], base)
			if err != nil {
				return err
			}
			return e.result(map[string]string{"client": args[0], "settings": text}, func() { fmt.Fprint(e.stdout, plain.Text(text)) })
		},
	}
	config.Flags().StringVar(&base, "url", "http://127.0.0.1:8440", "address of the mirror")
	c.AddCommand(config, e.mirrorAuthority())
	return c
}

func (e *env) mirrorAuthority() *cobra.Command {
	var to, channel, address string
	var own []string
	c := &cobra.Command{
		Use: "ca --to DIR", Short: "Certificates with which the mirror answers for the hosts that its artifacts came from", Args: cobra.NoArgs,
		Long: "Make an authority and a certificate for the hosts that the artifacts of a channel came from, so that clients with these\n" +
			"addresses built in, or written into their lockfiles, install from the mirror without any change. The authority may vouch\n" +
			"for these hosts only. Clients must trust ca.pem, and the island's names must lead the hosts to the mirror.",
		Example: "  enisle -C high mirror ca --to tls --host mirror.island.example\n" +
			"  enisle -C high serve --listen 10.0.0.5:443 --tls-cert tls/mirror.pem --tls-key tls/mirror.key",
		RunE: func(c *cobra.Command, _ []string) error {
			out, err := e.app().MakeAuthority(c.Context(), channel, to, own)
			if err != nil {
				return err
			}
			return e.result(out, func() {
				for _, l := range strings.Split(strings.TrimSuffix(out.HostsFile(address), "\n"), "\n") {
					e.print("%s", l)
				}
				if out.New {
					e.say("a new authority: clients must trust %s/%s", to, app.AuthorityFile)
				}
				e.say("the certificate ends on %s; the lines above are for /etc/hosts or the island's names", out.Expires.Format("2006-01-02"))
			})
		},
	}
	c.Flags().StringVar(&to, "to", "", "directory for ca.pem, ca.key, mirror.pem and mirror.key")
	c.Flags().StringVar(&channel, "channel", "stable", "the channel that is served")
	c.Flags().StringVar(&address, "address", "127.0.0.1", "address of the mirror, for the lines that are printed")
	c.Flags().StringArrayVar(&own, "host", nil, "a further name or address of the mirror; may be repeated")
	_ = c.MarkFlagRequired("to") // the flag is there
	return c
}
