// Package cli is the command line: one file a verb, each flags → options → one
// call of package app → text or JSON.
//
// stdout is the result and stderr the talk. Errors become one line, a line
// "hint:", and the exit code of their kind. There is no domain logic here.
package cli

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"enisle/internal/app"
	"enisle/internal/fail"
	"enisle/internal/plain"
)

// env is what a verb may use of the process, and the flags that all verbs have.
type env struct {
	stdin          io.Reader
	stdout, stderr io.Writer

	dir, as, key, passphraseFile, sitePassphraseFile string
	json, quiet, verbose                             bool
}

// Main runs one command and returns the exit code of the process. Hidden verbs
// of confined children are handled before any flag is read.
func Main(args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if done, err := app.Hidden(ctx, args); done {
		return report(stderr, err)
	}
	e := &env{stdin: stdin, stdout: stdout, stderr: stderr}
	root := e.root()
	root.SetArgs(args)
	return report(stderr, root.ExecuteContext(ctx))
}

// report prints an error as people should see it and returns its exit code.
func report(w io.Writer, err error) int {
	if err == nil {
		return 0
	}
	if errors.Is(err, context.Canceled) && fail.KindOf(err) == fail.Failed {
		err = fail.As(fail.Partial, "run the same command again", errors.New("interrupted"))
	}
	fmt.Fprintln(w, "enisle: "+plain.Line(strings.ReplaceAll(err.Error(), "\n", "; ")))
	if h := fail.HintOf(err); h != "" {
		fmt.Fprintln(w, "hint: "+plain.Line(h))
	}
	return fail.ExitCode(err)
}

func (e *env) root() *cobra.Command {
	dir := os.Getenv("ENISLE_SITE")
	if dir == "" {
		dir = "enisle-site"
	}
	root := &cobra.Command{
		Use:   "enisle",
		Short: "Run AI on an island: collect outside, carry over, verify, approve, serve inside",
		Long: `enisle brings models, packages and data over an air gap and serves them inside.

Outside:  init · collect · pack          Inside:  init · import · inspect · review
                                                  approve · release · serve
Try it:   enisle demo`,
		SilenceErrors: true, SilenceUsage: true, Args: cobra.ArbitraryArgs,
		RunE: func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				return c.Help()
			}
			return fail.As(fail.Usage, "'enisle help' lists the verbs", fmt.Errorf("unknown command %q", args[0]))
		},
	}
	f := root.PersistentFlags()
	f.StringVarP(&e.dir, "directory", "C", dir, "directory of the site (ENISLE_SITE)")
	f.StringVar(&e.as, "as", "", "name of the person who acts")
	f.StringVar(&e.key, "key", "", "file with that person's key, or pkcs11:token=LABEL;object=LABEL?module-path=FILE")
	f.StringVar(&e.passphraseFile, "passphrase-file", "", "file with the passphrase of a protected key")
	f.StringVar(&e.sitePassphraseFile, "site-passphrase-file", os.Getenv("ENISLE_SITE_PASSPHRASE_FILE"),
		"file with the passphrase of the site's keys (ENISLE_SITE_PASSPHRASE_FILE); default: that of --passphrase-file")
	f.BoolVar(&e.json, "json", false, "print one JSON document")
	f.BoolVarP(&e.quiet, "quiet", "q", false, "print only the result")
	f.BoolVarP(&e.verbose, "verbose", "v", false, "print what is done inside")
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return fail.As(fail.Usage, "'enisle help "+c.Name()+"' shows the flags and an example", err)
	})
	root.SetOut(e.stdout)
	root.SetErr(e.stderr)
	root.CompletionOptions.HiddenDefaultCmd = true
	root.AddCommand(e.demo(), e.initSite(), e.identity(), e.pair(), e.keygen(), e.person(), e.trust(), e.policy(),
		e.collect(), e.rehearse(), e.rehearseInside(), e.pack(), e.sign(), e.inspectMedia(), e.verify(),
		e.importMedia(), e.inspect(), e.malware(), e.review(), e.waive(), e.approve(), e.reject(), e.release(), e.rollback(), e.gc(), e.recall(), e.pulls(), e.evidence(), e.sbom(), e.channel(), e.receipt(),
		e.serve(), e.serveInside(), e.guard(), e.user(), e.engine(), e.mirror(), e.misses(), e.chat(), e.ledger(), e.check(), e.tuf(), e.oms(), e.convert(), e.custody(), e.backup(), e.restore())
	for _, c := range root.Commands() {
		strictArgs(c)
	}
	return root
}

// strictArgs makes a wrong number of arguments a usage error everywhere.
func strictArgs(c *cobra.Command) {
	if check := c.Args; check != nil {
		c.Args = func(c *cobra.Command, args []string) error {
			if err := check(c, args); err != nil {
				return fail.As(fail.Usage, "usage: "+c.UseLine(), err)
			}
			return nil
		}
	}
	if c.HasSubCommands() && c.RunE == nil {
		c.RunE = func(c *cobra.Command, args []string) error {
			return fail.As(fail.Usage, "'enisle help "+c.Name()+"' lists what it does", fmt.Errorf("%s: unknown or missing verb %q", c.CommandPath(), strings.Join(args, " ")))
		}
	}
	for _, sub := range c.Commands() {
		strictArgs(sub)
	}
}

// app returns the program for the site that the flags name.
func (e *env) app() *app.App {
	a := &app.App{Dir: e.dir, As: e.as, KeyFile: e.key, Log: e.logger(), Passphrase: e.asks(e.passphraseFile), SitePassphrase: e.asks(e.siteFile())}
	if !e.quiet && !e.json {
		a.Progress = (&bars{w: e.stderr, terminal: isTerminal(e.stderr)}).progress
	}
	return a
}

func (e *env) logger() *slog.Logger {
	level := slog.LevelWarn
	if e.verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(e.stderr, &slog.HandlerOptions{Level: level}))
}

func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// result prints v as JSON, or runs text.
func (e *env) result(v any, text func()) error {
	if !e.json {
		text()
		return nil
	}
	enc := json.NewEncoder(e.stdout)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// say talks on stderr, unless asked not to.
func (e *env) say(format string, args ...any) {
	if !e.quiet && !e.json {
		fmt.Fprintf(e.stderr, format+"\n", plain.Args(args)...)
	}
}

// print writes a line of the result.
func (e *env) print(format string, args ...any) {
	fmt.Fprintf(e.stdout, format+"\n", plain.Args(args)...)
}
