package app

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/crossing"
	"enisle/internal/infer/engine"
	"enisle/internal/infer/engine/llamacpp"
	"enisle/internal/site"
)

// engines runs one engine for each released model and follows the stable
// channel: what a flip adds is started, what it takes away is ended.
type engines struct {
	site  *site.Site
	opt   InsideOptions
	pulls *pulls
	log   *slog.Logger

	mu      sync.Mutex
	view    crossing.View             // that is followed; guarded by mu, like the rest
	running map[string]*runningEngine // by manifests of engine and model
	wanted  []string
	lastErr error
}

type runningEngine struct {
	engine engine.Engine
	files  []*os.File
}

func newEngines(s *site.Site, opt InsideOptions, p *pulls, log *slog.Logger) *engines {
	return &engines{site: s, opt: opt, pulls: p, log: log, running: map[string]*runningEngine{}}
}

// follow looks at the channel once a second until ctx ends.
func (e *engines) follow(ctx context.Context) {
	for {
		if err := e.refresh(ctx); err != nil && ctx.Err() == nil {
			e.log.ErrorContext(ctx, "engines", "err", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Second):
		}
	}
}

func (e *engines) refresh(ctx context.Context) error {
	view, err := crossing.ChannelView(ctx, e.site, "stable")
	if errors.Is(err, crossing.ErrNoRelease) {
		return nil
	}
	if err != nil {
		return err
	}
	e.mu.Lock()
	same := view == e.view && e.lastErr == nil
	e.mu.Unlock()
	if same {
		return nil
	}
	v, err := crossing.ServedBy(ctx, e.site, "stable")
	if err != nil {
		return err
	}
	err = e.reconcile(ctx, &v)
	e.mu.Lock()
	defer e.mu.Unlock()
	e.view, e.lastErr = v.View(), err
	return err
}

// reconcile starts what v has and is not running, and ends what it has not.
func (e *engines) reconcile(ctx context.Context, v *crossing.Served) error {
	want := pairs(v)
	e.mu.Lock()
	e.wanted = nil
	for key := range want {
		e.wanted = append(e.wanted, key)
	}
	var gone []*runningEngine
	for key, r := range e.running {
		if _, ok := want[key]; !ok {
			gone = append(gone, r)
			delete(e.running, key)
		}
	}
	e.mu.Unlock()
	var err error
	for _, r := range gone {
		err = errors.Join(err, r.close())
	}
	for key, p := range want {
		e.mu.Lock()
		_, ok := e.running[key]
		e.mu.Unlock()
		if ok {
			continue
		}
		r, serr := e.start(ctx, v, p)
		if serr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", p.model.Ref, serr))
			continue
		}
		e.mu.Lock()
		e.running[key] = r
		e.mu.Unlock()
		for _, a := range []artifact.Artifact{p.engine, p.model} {
			for _, f := range a.Files {
				e.pulls.add(engineClient, "stable", v.Number(), a.Ref.String(), f)
			}
		}
	}
	return err
}

// pair is a model and the engine that runs it.
type pair struct{ engine, model artifact.Artifact }

// pairs returns, by key, every released model that a released engine can run:
// GGUF files by llama.cpp's libraries.
func pairs(v *crossing.Served) map[string]pair {
	out := map[string]pair{}
	has := func(a artifact.Artifact, match func(string) bool) bool {
		return slices.ContainsFunc(a.Files, func(f artifact.File) bool { return match(f.Path) })
	}
	for _, eng := range v.Artifacts("engine") {
		if !has(eng, func(p string) bool { return strings.HasPrefix(p, "libllama") }) {
			continue
		}
		for _, model := range v.Artifacts("model") {
			if has(model, func(p string) bool { return strings.HasSuffix(p, ".gguf") }) {
				out[string(eng.Manifest)+" "+string(model.Manifest)] = pair{eng, model}
			}
		}
		break // one llama.cpp is enough; the first by reference
	}
	return out
}

func (e *engines) start(ctx context.Context, v *crossing.Served, p pair) (_ *runningEngine, err error) {
	r := &runningEngine{}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.close())
		}
	}()
	open := func(a artifact.Artifact) (out []llamacpp.NamedFile, err error) {
		for _, f := range a.Files {
			b, err := v.OpenFile(f.Digest)
			if err != nil {
				return nil, err
			}
			r.files = append(r.files, b)
			out = append(out, llamacpp.NamedFile{Name: f.Path, File: b, Digest: f.Digest})
		}
		return out, nil
	}
	library, err := open(p.engine)
	if err != nil {
		return nil, err
	}
	model, err := open(p.model)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	r.engine, err = llamacpp.Start(ctx, llamacpp.Options{
		Name: p.model.Ref.Name, Library: library, Model: model, Weights: string(p.model.Manifest),
		Threads: e.opt.Threads, TempDir: e.opt.Temp, Strict: e.opt.Strict, Log: e.log,
	})
	if err == nil {
		e.log.InfoContext(ctx, "engine started", "model", p.model.Ref.Name, "took", time.Since(began))
	}
	return r, err
}

func (r *runningEngine) close() (err error) {
	if r.engine != nil {
		err = r.engine.Close()
	}
	for _, f := range r.files {
		err = errors.Join(err, f.Close())
	}
	return err
}

// list returns the engines that run now, in a stable order.
func (e *engines) list() []engine.Engine {
	e.mu.Lock()
	defer e.mu.Unlock()
	keys := make([]string, 0, len(e.running))
	for k := range e.running {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	out := make([]engine.Engine, 0, len(keys))
	for _, k := range keys {
		out = append(out, e.running[k].engine)
	}
	return out
}

// ready says whether a release is followed and all its models are up.
func (e *engines) ready(context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.view.Release == 0 && e.lastErr == nil:
		return errors.New("nothing was released yet, or its engines are starting")
	case e.lastErr != nil:
		return e.lastErr
	case len(e.running) < len(e.wanted):
		return fmt.Errorf("%d of %d engines are up", len(e.running), len(e.wanted))
	}
	return nil
}

func (e *engines) release() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strconv.FormatInt(e.view.Release, 10)
}

func (e *engines) close() (err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, r := range e.running {
		err = errors.Join(err, r.close())
	}
	e.running = map[string]*runningEngine{}
	return err
}
