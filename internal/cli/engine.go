package cli

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"enisle/internal/fail"
	"enisle/internal/site/trust"
)

func (e *env) engine() *cobra.Command {
	c := &cobra.Command{
		Use: "engine", Short: "Inference engines: which there are, which run, which may be started, or asked elsewhere",
		Long: "Inference engines. Released models run in confined children of 'serve': in the embedded llama.cpp where its libraries are\n" +
			"released, or in an engine's own server that two admins allowed. Engines that run elsewhere are asked only if two admins\n" +
			"allowed their address. 'serve' reads the list when it starts.",
	}
	c.AddCommand(e.engineList(), e.engineSet("start", true), e.engineSet("stop", false), e.engineLog(), e.engineAllow(), e.engineForbid())
	return c
}

func (e *env) engineList() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "Show the engines and their models", Args: cobra.NoArgs,
		Example: "  enisle -C high engine list",
		RunE: func(c *cobra.Command, _ []string) error {
			all, err := e.app().Engines(c.Context())
			if err != nil {
				return err
			}
			return e.result(all, func() {
				for _, s := range all {
					where := s.Address
					if where == "" {
						where = "child of serve"
					}
					if s.Program != "" {
						where += ", started from " + s.Program
					}
					word := ""
					if s.Stopped {
						word = "  STOPPED"
					}
					e.print("%s  %s, %s%s", s.Name, s.Kind, where, word)
					for _, m := range s.Models {
						e.print("  serves %s", m)
					}
					for _, m := range s.Missing {
						e.print("  not released, so not served: %s", m)
					}
					if s.Last != nil {
						e.print("  %s  %s", s.Last.At.Format(time.DateTime), s.Last.Text)
					}
				}
				if len(all) == 0 {
					e.say("there is no engine: release a model with an engine, or allow one elsewhere with 'enisle engine allow'")
				}
			})
		},
	}
}

func (e *env) engineSet(verb string, run bool) *cobra.Command {
	return &cobra.Command{
		Use: verb + " NAME", Short: strings.ToUpper(verb[:1]) + verb[1:] + " the engine of a model, or one elsewhere; a running 'serve' follows", Args: cobra.ExactArgs(1),
		Example: "  enisle -C high engine " + verb + " smollm2-135m --as olga --key olga.key",
		RunE: func(c *cobra.Command, args []string) error {
			if err := e.app().SetEngine(c.Context(), args[0], run); err != nil {
				return err
			}
			return e.result(map[string]any{"engine": args[0], "run": run}, func() { e.say("a running 'serve' follows within a second") })
		},
	}
}

func (e *env) engineLog() *cobra.Command {
	return &cobra.Command{
		Use: "log [NAME]", Short: "Show what the children of 'serve' did, and printed until they took requests", Args: cobra.MaximumNArgs(1),
		Example: "  enisle -C high engine log qwen",
		RunE: func(c *cobra.Command, args []string) error {
			all, err := e.app().EngineLog(c.Context(), strings.Join(args, ""))
			if err != nil {
				return err
			}
			return e.result(all, func() {
				for _, l := range all {
					e.print("%s  %s  %s", l.At.Format(time.DateTime), l.Engine, l.Text)
				}
				if len(all) == 0 {
					e.say("'serve' has started no engine yet")
				}
			})
		},
	}
}

func (e *env) engineAllow() *cobra.Command {
	var at trust.EngineAddress
	var models []string
	var ca, memory string
	c := &cobra.Command{
		Use: "allow NAME --kind KIND (--address HOST:PORT | --program REFERENCE) --model NAME=REFERENCE", Short: "Let 'serve' start an engine, or have connections to one elsewhere; two admins sign it", Args: cobra.ExactArgs(1),
		Long: "Let 'serve' have connections to one engine elsewhere, or start one as a confined child: from the program in the released\n" +
			"artifact REFERENCE, for one released model. A model is NAME=REFERENCE, or, elsewhere, NAME@UPSTREAM=REFERENCE where the engine\n" +
			"knows it by another name; it is served while the artifact REFERENCE is released.",
		Example: "  enisle -C high engine allow qwen --kind llama-server --program engine/llama-server --model qwen3=model/qwen3 \\\n" +
			"    --context 8192 --parallel 4 --memory 6GiB --as adam --key adam.key\n" +
			"  enisle -C high engine allow gpu1 --kind vllm --address 10.0.0.7:8000 --model qwen3@Qwen/Qwen3-0.6B=hf/Qwen/Qwen3-0.6B@… \\\n" +
			"    --as adam --key adam.key\n  enisle -C high trust show\n  enisle -C high trust sign --expect sha256:… --as eve --key eve.key",
		RunE: func(c *cobra.Command, args []string) error {
			at.Name = args[0]
			for _, m := range models {
				name, ref, ok := strings.Cut(m, "=")
				if !ok {
					return fail.As(fail.Usage, "give --model NAME=REFERENCE", fmt.Errorf("engine allow: %.80q says of no artifact that it is", m))
				}
				name, upstream, _ := strings.Cut(name, "@")
				at.Models = append(at.Models, trust.ServedModel{Name: name, Upstream: upstream, Artifact: ref})
			}
			if at.Kind == "" || at.Address == "" && at.Program == "" || len(at.Models) == 0 {
				return fail.As(fail.Usage, "give --kind, --address or --program, and --model", errors.New("engine allow: something is missing"))
			}
			if memory != "" {
				n, err := parseSize(memory)
				if err != nil {
					return err
				}
				at.Memory = n
			}
			pending, err := e.app().AllowEngine(c.Context(), at, ca)
			if err != nil {
				return err
			}
			return e.result(map[string]any{"engine": at, "pending": pending}, func() {
				e.engineChanged(pending)
				e.forNobody(at)
			})
		},
	}
	f := c.Flags()
	f.StringVar(&at.Kind, "kind", "", strings.Join(trust.EngineKinds(), ", "))
	f.StringVar(&at.Address, "address", "", "HOST:PORT, or unix:/PATH, of an engine elsewhere")
	f.StringVar(&at.Program, "program", "", "released artifact with the program that 'serve' starts: "+strings.Join(trust.StartedKinds(), ", "))
	f.StringVar(&at.Task, "task", "", "of a program: "+strings.Join(trust.EngineTasks(), ", ")+"; default: chat and texts")
	f.IntVar(&at.Context, "context", 0, "of a program: tokens of one call, prompt and answer together; default: 4096")
	f.StringVar(&memory, "memory", "", "of a program: memory beside the weights, such as 6GiB; default: 2 GiB and as much as the weights")
	f.StringArrayVar(&models, "model", nil, "NAME=REFERENCE or NAME@UPSTREAM=REFERENCE; may be repeated")
	f.StringVar(&ca, "ca", "", "PEM file with the authorities of its certificate; with it TLS is spoken")
	f.IntVar(&at.Parallel, "parallel", 0, "calls that it works on at a time; default: as usual for its kind")
	f.StringVar(&at.For, "for", "", "user or project that an engine is for which cannot keep users' prompts apart (ollama, tgi); '*': it is accepted that it does not")
	return c
}

// forNobody tells of an engine that no user could ask.
func (e *env) forNobody(at trust.EngineAddress) {
	if (at.Kind == "ollama" || at.Kind == "tgi") && at.For == "" {
		e.say("note: %s keeps users' prompts apart in no way: once users are enrolled, it answers none of them without --for NAME or --for '*'", at.Kind)
	}
}

func (e *env) engineChanged(pending bool) {
	if pending {
		e.say("proposed; a second admin signs it with 'enisle trust sign'")
		return
	}
	e.say("done; 'serve' reads the list when it starts")
}

func (e *env) engineForbid() *cobra.Command {
	return &cobra.Command{
		Use: "forbid NAME", Short: "Take an engine off the list", Args: cobra.ExactArgs(1),
		Example: "  enisle -C high engine forbid gpu1 --as adam --key adam.key",
		RunE: func(c *cobra.Command, args []string) error {
			pending, err := e.app().ForbidEngine(c.Context(), args[0])
			if err != nil {
				return err
			}
			return e.result(map[string]any{"engine": args[0], "pending": pending}, func() { e.engineChanged(pending) })
		},
	}
}
