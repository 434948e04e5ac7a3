package cli

import (
	"github.com/spf13/cobra"

	"enisle/internal/app"
	"enisle/internal/demo"
)

func (e *env) demo() *cobra.Command {
	opt := demo.Options{Out: e.stdout}
	c := &cobra.Command{
		Use: "demo [DIR]", Short: "Play the whole journey here, with real packages and a real model", Args: cobra.MaximumNArgs(1),
		Example: "  enisle demo            # in ./enisle-demo; then serves until Ctrl-C\n  enisle demo --exit DIR # for scripts: exit 0 only if every step was proven",
		RunE: func(c *cobra.Command, args []string) error {
			opt.Dir = "enisle-demo"
			if len(args) > 0 {
				opt.Dir = args[0]
			}
			if e.quiet {
				opt.Out = discard{}
			}
			opt.App = func(dir string) *app.App {
				a := e.app()
				a.Dir, a.As, a.KeyFile = dir, "", ""
				return a
			}
			return demo.Run(c.Context(), opt)
		},
	}
	f := c.Flags()
	f.BoolVar(&opt.Exit, "exit", false, "stop after everything was proven")
	f.StringVar(&opt.Listen, "listen", "", "address; default 127.0.0.1:8440, or a free port")
	f.IntVar(&opt.Threads, "threads", 1, "threads of the engine")
	return c
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }
