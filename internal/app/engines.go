package app

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
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
	"enisle/internal/infer/engine/local"
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
	dial  *dialer.Client // to engines elsewhere, and to the sockets of those that are started
	said  *engineLog
	log   *slog.Logger

	mu      sync.Mutex
	view    crossing.View             // that is followed; guarded by mu, like the rest
	running map[string]*runningEngine // by manifests of engine and model
	wanted  map[string][]string       // names of their models, by the same
	stopped []string                  // names of models and engines that are not to run
	lastErr error                     // of the last that were started
	retry   time.Time                 // not before
	closed  bool
	// starting says that begin runs; one at a time.
	starting bool
	now      string             // key of what is being started; guarded by mu
	cancel   context.CancelFunc // ends that; guarded by mu

	late bool // something else was wanted while begin ran; follow's alone
}

func newEngines(s *site.Site, opt InsideOptions, p *pulls, dial *dialer.Client, said *engineLog, log *slog.Logger) *engines {
	return &engines{site: s, opt: opt, pulls: p, dial: dial, said: said, log: log, running: map[string]*runningEngine{}}
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
	want := pairs(e.site.Roots.Root().Engines, v)
	e.mu.Lock()
	defer e.mu.Unlock()
	for key, p := range want {
		if slices.Contains(e.stopped, p.name) {
			delete(want, key)
		}
	}
	return want
}

// end ends what should not run any more. It waits for nothing that starts: what is
// recalled is gone at once.
func (e *engines) end(want map[string]pair, view crossing.View) (err error) {
	e.mu.Lock()
	e.view, e.wanted = view, map[string][]string{}
	for key, p := range want {
		e.wanted[key] = p.serves()
	}
	var gone []*runningEngine
	for key, r := range e.running {
		if e.wanted[key] == nil {
			gone = append(gone, r)
			delete(e.running, key)
		}
	}
	if e.cancel != nil && e.wanted[e.now] == nil {
		e.cancel()
	}
	e.mu.Unlock()
	return closeEngines(gone)
}

// closeEngines ends them all at once.
func closeEngines(all []*runningEngine) error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, r := range all {
		wg.Go(func() { errs[i] = r.close() })
	}
	wg.Wait()
	return errors.Join(errs...)
}

// retryStart is how long after a failure engines are started again: it takes reading all
// of their weights.
const retryStart = 15 * time.Second

// begin starts what should run and does not, one after the other, and closes again what
// was withdrawn meanwhile.
func (e *engines) begin(ctx context.Context, v *crossing.Served, want map[string]pair) {
	var err error
	for key, p := range want {
		if serr := e.beginOne(ctx, v, key, p); serr != nil {
			err = errors.Join(err, fmt.Errorf("%s: %w", p.name, serr))
		}
	}
	if err != nil && ctx.Err() == nil {
		e.log.ErrorContext(ctx, "engines", "err", err)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	e.starting, e.lastErr, e.retry = false, err, time.Now().Add(retryStart)
}

// beginOne starts one, unless it runs, and says who pulled its files.
func (e *engines) beginOne(ctx context.Context, v *crossing.Served, key string, p pair) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	e.mu.Lock()
	_, ok := e.running[key]
	if ok = ok || e.wanted[key] == nil || ctx.Err() != nil; !ok {
		e.now, e.cancel = key, cancel
	}
	e.mu.Unlock()
	if ok {
		return nil
	}
	r, err := e.open(ctx, v, p)
	e.mu.Lock()
	e.cancel = nil
	wanted := e.wanted[key] != nil && !e.closed
	if err == nil && wanted {
		e.running[key] = r
	}
	e.mu.Unlock()
	switch {
	case err == nil && !wanted:
		return r.close()
	case err != nil && wanted:
		return err
	case err != nil || p.engine.Files == nil:
		return nil // it was withdrawn, or pulled its weights itself
	}
	for _, a := range []artifact.Artifact{p.engine, p.model} {
		for _, f := range a.Files {
			e.pulls.add(engineClient, "stable", v.Number(), a.Ref.String(), f)
		}
	}
	return nil
}

// pair is a model and the engine that runs it, or an engine elsewhere with its models.
type pair struct {
	name          string // of the model, or of the engine that was allowed
	engine, model artifact.Artifact
	at            *trust.EngineAddress
	models        []engine.Model
}

// serves returns the names that clients know its models by, at least one.
func (p pair) serves() (names []string) {
	if p.at == nil {
		return []string{p.name}
	}
	for _, m := range p.models {
		names = append(names, m.ID)
	}
	return names
}

// pairs returns, by key, what a release wants to run: the allowed engines with those of
// their models that are released, since what is recalled or rolled back is not asked for
// any more; and for every model that none of these is started for, the embedded one.
func pairs(allowed []trust.EngineAddress, v *crossing.Served) map[string]pair {
	released := map[string]artifact.Artifact{}
	for _, a := range v.Artifacts("") {
		released[a.Ref.String()] = a
	}
	out := map[string]pair{}
	for _, at := range allowed {
		p, key := pair{name: at.Name, at: &at}, "at "+at.Name
		for _, m := range at.Models {
			if a, ok := released[m.Artifact]; ok {
				p.model = a
				p.models = append(p.models, engine.Model{ID: m.Name, Upstream: m.Upstream, Context: at.Context, Weights: string(a.Manifest), Size: a.Size(), Since: time.Now()})
				key += " " + m.Name + "=" + string(a.Manifest)
			}
		}
		program, ok := released[at.Program]
		if at.Started() {
			p.engine = program
			key += " by " + string(program.Manifest)
		}
		if len(p.models) > 0 && (ok || !at.Started()) {
			out[key] = p
		}
	}
	embedded(v, out)
	return out
}

// embedded adds every released model that a released engine with llama.cpp's libraries
// can run, and that no other is started for: GGUF files.
func embedded(v *crossing.Served, to map[string]pair) {
	taken := map[string]bool{}
	for _, p := range to {
		taken[p.model.Ref.String()] = taken[p.model.Ref.String()] || p.at.Started()
	}
	has := func(a artifact.Artifact, match func(string) bool) bool {
		return slices.ContainsFunc(a.Files, func(f artifact.File) bool { return match(f.Path) })
	}
	for _, eng := range v.Artifacts("engine") {
		if !has(eng, func(p string) bool { return strings.HasPrefix(p, "libllama") }) || has(eng, local.IsProgram) {
			continue
		}
		for _, model := range v.Artifacts("model") {
			if !taken[model.Ref.String()] && has(model, func(p string) bool { return strings.HasSuffix(p, ".gguf") }) {
				to[string(eng.Manifest)+" "+string(model.Manifest)] = pair{name: model.Ref.Name, engine: eng, model: model}
			}
		}
		break // one llama.cpp is enough; the first by reference
	}
}

// open starts a child, or begins to watch an engine elsewhere.
func (e *engines) open(ctx context.Context, v *crossing.Served, p pair) (*runningEngine, error) {
	if p.at == nil || p.at.Started() {
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
	Program string   `json:"program,omitempty"` // reference of what is started, of one that was allowed
	Models  []string `json:"models"`            // with the artifact of each
	// Missing are models whose artifacts are not released.
	Missing []string    `json:"missing"`
	Stopped bool        `json:"stopped"`
	Last    *EngineLine `json:"last,omitempty"` // that is on record of a child
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
		for _, p := range pairs(s.Roots.Root().Engines, &v) {
			if p.at == nil {
				out = append(out, EngineState{Name: p.name, Kind: "llama.cpp", Models: []string{p.name + " (" + p.model.Ref.String() + ")"}, Missing: []string{}})
			}
		}
	}
	for _, at := range s.Roots.Root().Engines {
		e := EngineState{Name: at.Name, Kind: at.Kind, Address: at.Address, Program: at.Program, Models: []string{}, Missing: []string{}}
		if at.Started() && !released[at.Program] {
			e.Missing = append(e.Missing, at.Program)
		}
		for _, m := range at.Models {
			if text := m.Name + " (" + m.Artifact + ")"; released[m.Artifact] {
				e.Models = append(e.Models, text)
			} else {
				e.Missing = append(e.Missing, text)
			}
		}
		out = append(out, e)
	}
	last := map[string]EngineLine{}
	if err := readEngineLog(s.Dir, func(l EngineLine) { last[l.Engine] = l }); err != nil {
		return nil, err
	}
	for i := range out {
		out[i].Stopped = slices.Contains(stopped, out[i].Name)
		if l, ok := last[out[i].Name]; ok && out[i].Address == "" {
			out[i].Last = &l
		}
	}
	slices.SortFunc(out, func(a, b EngineState) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}

// AllowEngine lets what serves have connections to an engine, or start one; after sealing
// a second admin signs it. caFile, if given, has the authorities of its certificate.
func (a *App) AllowEngine(ctx context.Context, e trust.EngineAddress, caFile string) (pending bool, err error) {
	if caFile != "" {
		b, err := os.ReadFile(caFile)
		if err != nil {
			return false, fail.As(fail.Usage, "name a PEM file", err)
		}
		e.CA = string(b)
	}
	subject := map[string]string{"engine": e.Name, "kind": e.Kind, "address": e.Address}
	if e.Started() {
		subject = map[string]string{"engine": e.Name, "kind": e.Kind, "program": e.Program}
	}
	return a.changeRoot(ctx, "engine allow", subject, func(r trust.Root) (trust.Root, error) { return r.AllowEngine(e) })
}

// ForbidEngine takes an engine off the list.
func (a *App) ForbidEngine(ctx context.Context, name string) (pending bool, err error) {
	return a.changeRoot(ctx, "engine forbid", map[string]string{"engine": name}, func(r trust.Root) (trust.Root, error) { return r.ForbidEngine(name) })
}

func (e *engines) release() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strconv.FormatInt(e.view.Release, 10)
}

func (e *engines) close() (err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	all := slices.Collect(maps.Values(e.running))
	e.running, e.closed = map[string]*runningEngine{}, true
	return closeEngines(all)
}
