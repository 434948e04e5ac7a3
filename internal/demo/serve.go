package demo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"time"

	"enisle/internal/app"
	"enisle/internal/cli/client"
	"enisle/internal/fail"
	"enisle/internal/plain"
	"enisle/internal/sandbox"
)

// needs checks for the programs of others that the demo shows off.
func (d *demo) needs() error {
	for name, from := range map[string]string{"python3": "python3 with python3-venv and python3-pip", "npm": "npm"} {
		if _, err := exec.LookPath(name); err != nil {
			return fail.As(fail.Usage, "install "+from+"; 'make demo' does", fmt.Errorf("demo: %s is not installed", name))
		}
	}
	return nil
}

func (d *demo) serve(ctx context.Context) error {
	d.title("Serve: mirrors and inference, in a network namespace with nothing in it")
	ctx, d.stop = context.WithCancel(ctx)
	started := make(chan sandbox.Level, 1)
	d.served = make(chan error, 1)
	opt := app.ServeOptions{Listen: d.Listen, Threads: d.Threads, Started: func(url string, level sandbox.Level) { d.url = url; started <- level }}
	listens := []string{d.Listen}
	if d.Listen == "" {
		listens = []string{"127.0.0.1:8440", "127.0.0.1:0"}
	}
	go func() {
		var err error
		for _, opt.Listen = range listens {
			if err = d.high.Serve(ctx, opt); err == nil || !strings.Contains(err.Error(), "address already in use") {
				break
			}
		}
		d.served <- err
	}()
	select {
	case err := <-d.served:
		d.served <- nil
		return errors.Join(errors.New("demo: the site did not start"), err)
	case level := <-started:
		d.tell("%s, isolated by: %s", d.url, level)
	}
	if err := d.ready(ctx); err != nil {
		return err
	}
	b, err := client.New(d.url).Get(ctx, "/healthz")
	if err != nil {
		return err
	}
	d.tell("the model is loaded; /healthz says %s", strings.TrimSpace(string(b)))
	return nil
}

// ready waits until the model is loaded, or serving has ended.
func (d *demo) ready(ctx context.Context) error {
	wait, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	up := make(chan error, 1)
	go func() { up <- client.New(d.url).Ready(wait) }()
	select {
	case err := <-up:
		return err
	case err := <-d.served:
		d.served <- nil
		return errors.Join(errors.New("demo: the site stopped serving"), err)
	}
}

func (d *demo) stopServing() error {
	if d.stop == nil {
		return nil
	}
	d.stop()
	select {
	case err := <-d.served:
		return err
	case <-time.After(20 * time.Second):
		return errors.New("demo: serve did not stop")
	}
}

// pip installs from the mirror with the stock client and no other index.
func (d *demo) pip(ctx context.Context) error {
	d.title("pip install, unmodified, from the mirror alone")
	if err := d.run(ctx, "python3", "-m", "venv", d.path("venv")); err != nil {
		return err
	}
	python := d.path("venv/bin/python")
	args := []string{"-m", "pip", "--isolated", "--disable-pip-version-check", "install", "--quiet", "--no-cache-dir", "--index-url", d.url + "/pypi/simple/", "requests", "openai"}
	d.tell("pip %s", strings.Join(args[3:], " "))
	if err := d.run(ctx, python, args...); err != nil {
		return err
	}
	out, err := d.output(ctx, python, "-c", "import openai, requests; print('requests', requests.__version__, 'and openai', openai.__version__)")
	if err != nil {
		return err
	}
	d.tell("installed and imported: %s", out)
	return nil
}

// clean is the environment without what would point clients elsewhere.
func clean() (env []string) {
	for _, kv := range os.Environ() {
		upper := strings.ToUpper(kv)
		if !strings.HasPrefix(upper, "PIP_") && !strings.HasPrefix(upper, "UV_") && !strings.Contains(strings.SplitN(upper, "=", 2)[0], "_PROXY") {
			env = append(env, kv)
		}
	}
	return append(env, "PIP_CONFIG_FILE=/dev/null", "NO_PROXY=*")
}

func (d *demo) run(ctx context.Context, name string, args ...string) error {
	_, err := d.output(ctx, name, args...)
	return err
}

func (d *demo) output(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = clean()
	out, err := cmd.CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("demo: %s: %w: %s", name, err, strings.TrimSpace(string(out)))
	}
	return strings.TrimSpace(string(out)), nil
}

func (d *demo) chat(ctx context.Context) error {
	d.title("Ask the model, over the OpenAI API")
	c := client.New(d.url)
	models, err := c.Models(ctx)
	if err != nil {
		return err
	}
	const question = "In one sentence: what is an island?"
	d.tell("%s is asked: %s", models[0], question)
	fmt.Fprint(d.Out, "    > ")
	pieces := 0
	answer, err := c.Chat(ctx, models[0], question, func(p string) {
		pieces++
		fmt.Fprint(d.Out, strings.ReplaceAll(plain.Text(p), "\n", "\n    > "))
	})
	d.say("")
	if err != nil {
		return err
	}
	if strings.TrimSpace(answer) == "" || pieces < 2 {
		return errors.New("demo: the model gave no streamed answer")
	}
	return nil
}
