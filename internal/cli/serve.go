package cli

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"enisle/internal/app"
	"enisle/internal/fail"
	"enisle/internal/infer/gateway"
	"enisle/internal/infer/guard"
	"enisle/internal/sandbox"
)

func (e *env) serve() *cobra.Command {
	var opt app.ServeOptions
	var policy string
	c := &cobra.Command{
		Use: "serve [--listen 127.0.0.1:8440]", Short: "Serve what is released: mirrors, gateway, metrics on one address", Args: cobra.NoArgs,
		Long:    "Serve what is released: mirrors, gateway and metrics on one address.\nThe listening socket is opened first; what serves runs in an empty network namespace and cannot dial.",
		Example: "  enisle -C high serve --listen 127.0.0.1:8440",
		RunE: func(c *cobra.Command, _ []string) error {
			if opt.Verbose = e.verbose; opt.Gateway.Shape.Mode == "off" {
				opt.Gateway.Shape.Mode = gateway.Off
			}
			if m := opt.Gateway.Shape.Mode; m != gateway.Off && !slices.Contains(gateway.Modes(), string(m)) {
				return fail.As(fail.Usage, "forms are "+strings.Join(gateway.Modes(), ", "), fmt.Errorf("serve: there is no form %q", m))
			}
			if m := opt.Gateway.Guard.Mode; !slices.Contains(guard.Modes(), string(m)) {
				return fail.As(fail.Usage, "modes are "+strings.Join(guard.Modes(), ", "), fmt.Errorf("serve: there is no mode %q of the guard", m))
			}
			if policy != "" {
				b, err := app.ReadGuardPolicy(policy)
				if err != nil {
					return err
				}
				opt.Gateway.Guard.Policy = b
			}
			opt.Started = func(url string, level sandbox.Level) {
				e.print("%s", url)
				e.say("isolation: %s; stop with Ctrl-C", level)
			}
			return e.app().Serve(c.Context(), opt)
		},
	}
	f := c.Flags()
	f.StringVar(&opt.Listen, "listen", "127.0.0.1:8440", "address; anything but loopback needs TLS")
	f.StringVar(&opt.TLSCert, "tls-cert", "", "PEM certificate chain")
	f.StringVar(&opt.TLSKey, "tls-key", "", "PEM key")
	f.StringVar(&opt.ClientCA, "client-ca", "", "PEM certificates of authorities; a client's certificate names its user as common name")
	f.IntVar(&opt.Threads, "threads", 0, "threads of each engine; 0: one less than there are processors")
	f.StringVar((*string)(&opt.Gateway.Shape.Mode), "stream-form", "off", "how answers are sent: "+strings.Join(gateway.Modes(), ", ")+"; all but off tell less to who watches the wires")
	f.DurationVar(&opt.Gateway.Shape.Every, "stream-every", 100*time.Millisecond, "time between records of the forms batch and constant")
	f.IntVar(&opt.Gateway.Shape.Size, "stream-size", 512, "bytes of a record of the forms pad and constant")
	f.BoolVar(&opt.Gateway.Sync, "record-sync", false, "ask models when the record of the call is on the disk, not at most 50 ms before")
	f.StringVar(&opt.Gateway.Seal, "seal-to", "", "recipient of age (age1…) that prompts and answers are sealed to; default: their hashes are kept")
	f.StringVar((*string)(&opt.Gateway.Guard.Mode), "guard", string(guard.Block), "what guards prompts and answers, at most: "+strings.Join(guard.Modes(), ", "))
	f.StringVar(&policy, "guard-policy", "", "file with the guard's policy; default: the one that is shipped")
	f.BoolVar(&opt.Strict, "strict", false, "refuse to run less isolated than described")
	return c
}

// serveInside is the isolated half of serve; only serve starts it.
func (e *env) serveInside() *cobra.Command {
	var opt app.InsideOptions
	c := &cobra.Command{
		Use: app.ServeVerb, Hidden: true, Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error { return e.app().ServeInside(c.Context(), opt) },
	}
	f := c.Flags()
	f.BoolVar(&opt.TLS, "tls", false, "descriptors 9 and 10 are certificate and key")
	f.StringVar(&opt.Gateway, "gateway", "{}", "settings of the gateway, in JSON")
	f.BoolVar(&opt.ClientCA, "client-ca", false, "descriptor 11 has the authorities of clients")
	f.IntVar(&opt.Threads, "threads", 0, "threads of each engine")
	f.StringVar(&opt.Temp, "temp", "", "directory for links")
	f.BoolVar(&opt.Strict, "strict", false, "as for serve")
	return c
}
