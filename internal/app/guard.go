package app

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/crossing"
	"enisle/internal/fail"
	"enisle/internal/infer/guard"
	"enisle/internal/judge/inspect/guardrules"
	"enisle/internal/site"
)

// GuardOptions say what guards prompts and answers.
type GuardOptions struct {
	Mode   guard.Mode `json:"mode"`             // no stricter than this; off: nothing is read
	Policy []byte     `json:"policy,omitempty"` // nil: the one that is shipped
}

const (
	maxGuardPolicy = 64 << 10 // bytes; it is handed over as an argument
	maxGuardFile   = 16 << 20
)

// ReadGuardPolicy reads a policy from a file and refuses one that cannot be used.
func ReadGuardPolicy(name string) ([]byte, error) {
	b, err := os.ReadFile(name)
	if err == nil && len(b) > maxGuardPolicy {
		err = fmt.Errorf("%s is longer than %d bytes", name, maxGuardPolicy)
	}
	if err == nil {
		_, err = guard.ParsePolicy(b, nil)
	}
	if err != nil {
		return nil, fail.As(fail.Usage, "'enisle guard show --policy' prints the one that is shipped", err)
	}
	return b, nil
}

// guarding is the guard of what serves: by the rules of the stable channel, or by those
// that are shipped where it has none.
type guarding struct {
	opt     GuardOptions
	read    func(ctx context.Context) (manifest artifact.Digest, files guard.Options, changed bool, err error)
	log     *slog.Logger
	current atomic.Pointer[guard.Local]
	loaded  artifact.Digest // manifest of what is used; owned by follow, as the next
	refused artifact.Digest // and of what cannot be
}

var _ guard.Guard = (*guarding)(nil)

// newGuarding refuses to begin with rules that cannot be used.
func newGuarding(ctx context.Context, s *site.Site, opt GuardOptions, log *slog.Logger) (*guarding, error) {
	g := &guarding{opt: opt, read: releasedGuard(s), log: log}
	if err := g.refresh(ctx); err != nil {
		return nil, fail.Refuse("release a good rules/guard, or recall it", fmt.Errorf("guard: %w", err))
	}
	return g, nil
}

// Prompt rules by what is in force now.
func (g *guarding) Prompt(p *guard.Prompt) guard.Ruling { return g.current.Load().Prompt(p) }

// follow looks at the channel once a second until ctx ends. Rules that cannot be used
// are logged, and those before them stay in force.
func (g *guarding) follow(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
		if err := g.refresh(ctx); err != nil && ctx.Err() == nil {
			g.log.ErrorContext(ctx, "new rules of the guard are not used", "err", err)
		}
	}
}

func (g *guarding) refresh(ctx context.Context) error {
	manifest, opt, changed, err := g.read(ctx)
	first := g.current.Load() == nil
	if err != nil || !first && (!changed || manifest == g.loaded || manifest == g.refused) {
		return err
	}
	opt.Policy, opt.Mode, opt.Random = g.opt.Policy, g.opt.Mode, rand.Reader
	made, err := guard.New(opt)
	if err != nil {
		g.refused = manifest
		return err
	}
	g.current.Store(made)
	g.loaded, g.refused = manifest, "none"
	g.log.InfoContext(ctx, "guard", "rules", manifest, "mode", g.opt.Mode)
	return nil
}

// releasedGuard returns what reads the guard's files of the stable channel. The manifest
// is empty where it has none.
func releasedGuard(s *site.Site) func(context.Context) (artifact.Digest, guard.Options, bool, error) {
	var last crossing.View
	return func(ctx context.Context) (manifest artifact.Digest, opt guard.Options, changed bool, err error) {
		view, err := crossing.ChannelView(ctx, s, "stable")
		if errors.Is(err, crossing.ErrNoRelease) {
			return "", opt, false, nil
		}
		if err != nil || view == last {
			return "", opt, false, err
		}
		v, err := crossing.ServedBy(ctx, s, "stable")
		if err != nil {
			return "", opt, false, err
		}
		manifest, err = guardFiles(&v, &opt)
		if err == nil {
			last = v.View()
		}
		return manifest, opt, true, err
	}
}

func guardFiles(v *crossing.Served, opt *guard.Options) (manifest artifact.Digest, err error) {
	for _, a := range v.Artifacts(guardrules.Ref().Kind) {
		if a.Ref.Name != guardrules.Ref().Name {
			continue
		}
		for _, f := range a.Files {
			into := map[string]*[]byte{guard.RulesFile: &opt.Rules, guard.ClassifierFile: &opt.Classifier}[f.Path]
			if into == nil {
				return "", guard.Check(f.Path, nil)
			}
			file, err := v.OpenFile(f.Digest)
			if err != nil {
				return "", err
			}
			b, err := io.ReadAll(io.LimitReader(file, maxGuardFile))
			if err = errors.Join(err, file.Close()); err != nil {
				return "", err
			}
			*into = b
		}
		return a.Manifest, nil
	}
	return "", nil
}

// Guard returns a guard for the terminal. rules and classifier are files; empty: those
// that are shipped.
func Guard(rules, classifier, policy string) (*guard.Local, error) {
	opt := guard.Options{Random: rand.Reader}
	for name, into := range map[string]*[]byte{rules: &opt.Rules, classifier: &opt.Classifier, policy: &opt.Policy} {
		if name == "" {
			continue
		}
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, fail.As(fail.Usage, "name readable files", err)
		}
		*into = b
	}
	g, err := guard.New(opt)
	if err != nil {
		return nil, fail.Refuse("docs/spec/guard.md has the formats", err)
	}
	return g, nil
}

const maxSample = 4 << 20 // bytes of a line

// ReadSamples reads texts, a JSON object a line.
func ReadSamples(names []string) (out []guard.Sample, err error) {
	for _, name := range names {
		f, err := os.Open(name)
		if err != nil {
			return nil, fail.As(fail.Usage, "name readable files", err)
		}
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, maxSample)
		for n := 1; lines.Scan(); n++ {
			if len(bytes.TrimSpace(lines.Bytes())) == 0 {
				continue
			}
			var s guard.Sample
			if err := json.Unmarshal(lines.Bytes(), &s); err != nil || s.Text == "" {
				err = errors.Join(fmt.Errorf("%s, line %d: it is no text with its label", name, n), err, f.Close())
				return nil, fail.As(fail.Usage, `a line is {"text": "…", "label": "attack" or "benign", "source": "…", "role": "user", "tool" or "retrieved"}`, err)
			}
			out = append(out, s)
		}
		if err := errors.Join(lines.Err(), f.Close()); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
	}
	return out, nil
}
