package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/crossing"
	"enisle/internal/fail"
	"enisle/internal/infer/engine"
	"enisle/internal/infer/engine/dialer"
	"enisle/internal/infer/engine/llamacpp"
	"enisle/internal/infer/engine/remote"
	"enisle/internal/site"
	"enisle/internal/site/state"
	"enisle/internal/site/trust"
)

// engines runs one engine for each released model and follows the stable
// channel: what a flip adds is started, what it takes away is ended.
type engines struct {
	site  *site.Site
	opt   InsideOptions
	pulls *pulls
	dial  *dialer.Client // to engines elsewhere
	log   *slog.Logger

	mu      sync.Mutex
	view    crossing.View             // that is followed; guarded by mu, like the rest
	running map[string]*runningEngine // by manifests of engine and model
	wanted  map[string]bool           // by the same
	stopped []string                  // names of models and engines that are not to run
	lastErr error                     // of the last that were started
	retry   time.Time                 // not before
	closed  bool
	// starting says that begin runs; one at a time.
	starting bool

	late bool // something else was wanted while begin ran; follow's alone
}

type runningEngine struct {
	engine engine.Engine
	files  []*os.File
}

func newEngines(s *site.Site, opt InsideOptions, p *pulls, dial *dialer.Client, log *slog.Logger) *engines {
	return &engines{site: s, opt: opt, pulls: p, dial: dial, log: log, running: map[string]*runningEngine{}}
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
	stopped, err := stoppedEngines(ctx, e.site)
	if err != nil {
		return err
	}
	e.mu.Lock()
	same := view == e.view && slices.Equal(stopped, e.stopped)
	again := e.lastErr != nil && time.Now().After(e.retry)
	e.stopped = stopped
	busy := e.starting
	e.mu.Unlock()
	if same && (busy || !again && !e.late) {
		return nil
	}
	v, err := crossing.ServedBy(ctx, e.site, "stable")
	if err != nil {
		return err
	}
	want := e.want(&v)
	err = e.end(want, v.View())
	if e.late = busy; !busy {
		e.mu.Lock()
		e.starting = true
		e.mu.Unlock()
		go e.begin(ctx, &v, want)
	}
	return err
}

// want returns what should run, by key.
func (e *engines) want(v *crossing.Served) map[string]pair {
	want := pairs(v)
	for key, p := range elsewhere(e.site.Roots.Root().Engines, v) {
		want[key] = p
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for key, p := range want {
		if slices.Contains(e.stopped, p.model.Ref.Name) {
			delete(want, key)
		}
	}
	return want
}

// end ends what should not run any more. It waits for nothing that starts: what is
// recalled is gone at once.
func (e *engines) end(want map[string]pair, view crossing.View) (err error) {
	e.mu.Lock()
	e.view, e.wanted = view, map[string]bool{}
	for key := range want {
		e.wanted[key] = true
	}
	var gone []*runningEngine
	for key, r := range e.running {
		if !e.wanted[key] {
			gone = append(gone, r)
			delete(e.running, key)
		}
	}
	e.mu.Unlock()
	for _, r := range gone {
		err = errors.Join(err, r.close())
	}
	return err
}

// retryStart is how long after a failure engines are started again: it takes reading all
// of their weights.
const retryStart = 15 * time.Second

// begin starts what should run and does not, one after the other, and closes again what
// was withdrawn meanwhile.
func (e *engines) begin(ctx context.Context, v *crossing.Served, want map[string]pair) {
	var err error
	for key, p := range want {
		e.mu.Lock()
		_, ok := e.running[key]
		ok = ok || !e.wanted[key]
		e.mu.Unlock()
		if ok || ctx.Err() != nil {
			continue
		}
		r, serr := e.open(ctx, v, p)
		if serr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", p.model.Ref, serr))
			continue
		}
		e.mu.Lock()
		if ok = e.wanted[key] && !e.closed; ok {
			e.running[key] = r
		}
		e.mu.Unlock()
		if !ok {
			err = errors.Join(err, r.close())
			continue
		}
		if p.at != nil {
			continue // it pulled its weights itself
		}
		for _, a := range []artifact.Artifact{p.engine, p.model} {
			for _, f := range a.Files {
				e.pulls.add(engineClient, "stable", v.Number(), a.Ref.String(), f)
			}
		}
	}
	if err != nil && ctx.Err() == nil {
		e.log.ErrorContext(ctx, "engines", "err", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.starting, e.lastErr, e.retry = false, err, time.Now().Add(retryStart)
}

// pair is a model and the engine that runs it, or an engine elsewhere with its models.
type pair struct {
	engine, model artifact.Artifact
	at            *trust.EngineAddress
	models        []engine.Model
}

// elsewhere returns, by key, the allowed engines with those of their models that are
// released: what is recalled, or rolled back, is not asked for any more.
func elsewhere(allowed []trust.EngineAddress, v *crossing.Served) map[string]pair {
	released := map[string]artifact.Artifact{}
	for _, a := range v.Artifacts("") {
		released[a.Ref.String()] = a
	}
	out := map[string]pair{}
	for _, at := range allowed {
		p, key := pair{at: &at, model: artifact.Artifact{Ref: artifact.Ref{Kind: "engine", Name: at.Name}}}, "at "+at.Name
		for _, m := range at.Models {
			if a, ok := released[m.Artifact]; ok {
				p.models = append(p.models, engine.Model{ID: m.Name, Upstream: m.Upstream, Weights: string(a.Manifest), Since: time.Now()})
				key += " " + m.Name + "=" + string(a.Manifest)
			}
		}
		if len(p.models) > 0 {
			out[key] = p
		}
	}
	return out
}

// open starts a child, or begins to watch an engine elsewhere.
func (e *engines) open(ctx context.Context, v *crossing.Served, p pair) (*runningEngine, error) {
	if p.at == nil {
		return e.start(ctx, v, p)
	}
	opt := remote.Options{
		Name: p.at.Name, Kind: p.at.Kind, Parallel: p.at.Parallel, For: p.at.For, Models: p.models, Log: e.log,
		Dial: func(ctx context.Context) (net.Conn, error) { return e.dial.Dial(ctx, p.at.Name) },
	}
	if p.at.CA != "" {
		host, _, err := net.SplitHostPort(p.at.Address)
		if err != nil {
			host = "localhost"
		}
		opt.TLS = &tls.Config{ServerName: host, RootCAs: x509.NewCertPool(), MinVersion: tls.VersionTLS12}
		if !opt.TLS.RootCAs.AppendCertsFromPEM([]byte(p.at.CA)) {
			return nil, errors.New("its authorities cannot be read")
		}
	}
	r, err := remote.New(ctx, opt)
	if err != nil {
		return nil, err
	}
	return &runningEngine{engine: r}, nil
}

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
				out[string(eng.Manifest)+" "+string(model.Manifest)] = pair{engine: eng, model: model}
			}
		}
		break // one llama.cpp is enough; the first by reference
	}
	return out
}

// stoppedKey is where the state says which engines are not to run.
const stoppedKey = "engines.stopped"

func stoppedEngines(ctx context.Context, s *site.Site) (names []string, err error) {
	err = s.State.View(ctx, func(tx *state.Tx) error {
		v, err := tx.Meta(stoppedKey)
		if err == nil && v != "" {
			err = json.Unmarshal([]byte(v), &names)
		}
		return err
	})
	return names, err
}

// SetEngine starts or stops the engine of a model, or one elsewhere, by its name. A
// running serve follows within a second.
func (a *App) SetEngine(ctx context.Context, name string, run bool) error {
	act := map[bool]string{true: "engine start", false: "engine stop"}[run]
	return a.change(ctx, act, func(s *site.Site, by site.Actor) error {
		all, err := listEngines(ctx, s)
		if err != nil {
			return err
		}
		if !slices.ContainsFunc(all, func(e EngineState) bool { return e.Name == name }) {
			return fail.As(fail.Usage, "'enisle engine list' lists them", fmt.Errorf("there is no engine %.80q", name))
		}
		return s.Act(ctx, act, by, map[string]string{"engine": name}, func(ctx context.Context, intent int64) (map[string]string, error) {
			names, err := stoppedEngines(ctx, s)
			if err != nil {
				return nil, err
			}
			names = slices.DeleteFunc(names, func(n string) bool { return n == name })
			if !run {
				names = append(names, name)
			}
			slices.Sort(names)
			b, err := json.Marshal(names)
			if err != nil {
				return nil, err
			}
			return nil, s.State.Update(ctx, func(tx *state.Tx) error {
				return errors.Join(tx.SetMeta(stoppedKey, string(b)), tx.SetEffect(intent, act))
			})
		})
	})
}

// EngineState is an engine that serves, or would.
type EngineState struct {
	Name    string   `json:"name"`
	Kind    string   `json:"kind"`
	Address string   `json:"address,omitempty"` // of one elsewhere
	Models  []string `json:"models"`            // with the artifact of each
	// Missing are models whose artifacts are not released.
	Missing []string `json:"missing"`
	Stopped bool     `json:"stopped"`
}

// Engines lists the engines of the stable channel, and those elsewhere.
func (a *App) Engines(ctx context.Context) (out []EngineState, err error) {
	err = a.read(ctx, func(s *site.Site) error {
		out, err = listEngines(ctx, s)
		return err
	})
	return out, err
}

func listEngines(ctx context.Context, s *site.Site) (out []EngineState, err error) {
	v, err := crossing.ServedBy(ctx, s, "stable")
	if err != nil && !errors.Is(err, crossing.ErrNoRelease) {
		return nil, err
	}
	stopped, err := stoppedEngines(ctx, s)
	if err != nil {
		return nil, err
	}
	out = []EngineState{}
	released := map[string]bool{}
	if v.Number() > 0 {
		for _, a := range v.Artifacts("") {
			released[a.Ref.String()] = true
		}
		for _, p := range pairs(&v) {
			out = append(out, EngineState{Name: p.model.Ref.Name, Kind: "llama.cpp", Models: []string{p.model.Ref.Name + " (" + p.model.Ref.String() + ")"}, Missing: []string{}})
		}
	}
	for _, at := range s.Roots.Root().Engines {
		e := EngineState{Name: at.Name, Kind: at.Kind, Address: at.Address, Models: []string{}, Missing: []string{}}
		for _, m := range at.Models {
			if text := m.Name + " (" + m.Artifact + ")"; released[m.Artifact] {
				e.Models = append(e.Models, text)
			} else {
				e.Missing = append(e.Missing, text)
			}
		}
		out = append(out, e)
	}
	for i := range out {
		out[i].Stopped = slices.Contains(stopped, out[i].Name)
	}
	slices.SortFunc(out, func(a, b EngineState) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// AllowEngine lets what serves have connections to an engine; after sealing a second
// admin signs it. caFile, if given, has the authorities of its certificate.
func (a *App) AllowEngine(ctx context.Context, e trust.EngineAddress, caFile string) (pending bool, err error) {
	if caFile != "" {
		b, err := os.ReadFile(caFile)
		if err != nil {
			return false, fail.As(fail.Usage, "name a PEM file", err)
		}
		e.CA = string(b)
	}
	subject := map[string]string{"engine": e.Name, "address": e.Address, "kind": e.Kind}
	return a.changeRoot(ctx, "engine allow", subject, func(r trust.Root) (trust.Root, error) { return r.AllowEngine(e) })
}

// ForbidEngine takes an engine off the list.
func (a *App) ForbidEngine(ctx context.Context, name string) (pending bool, err error) {
	return a.changeRoot(ctx, "engine forbid", map[string]string{"engine": name}, func(r trust.Root) (trust.Root, error) { return r.ForbidEngine(name) })
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
	e.running, e.closed = map[string]*runningEngine{}, true
	return err
}
