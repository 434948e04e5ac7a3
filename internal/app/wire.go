package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"enisle/internal/crossing"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/cargo"
	"enisle/internal/ecosystem/debian"
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/ecosystem/files"
	"enisle/internal/ecosystem/gomod"
	"enisle/internal/ecosystem/helm"
	"enisle/internal/ecosystem/huggingface"
	"enisle/internal/ecosystem/maven"
	"enisle/internal/ecosystem/members"
	"enisle/internal/ecosystem/npm"
	"enisle/internal/ecosystem/oci"
	"enisle/internal/ecosystem/ocidist"
	"enisle/internal/ecosystem/ollama"
	"enisle/internal/ecosystem/pypi"
	"enisle/internal/infer/engine/llamacpp"
	"enisle/internal/infer/engine/llamacpp/worker"
	"enisle/internal/judge/inspect"
	"enisle/internal/sandbox"
	"enisle/internal/site"
	"enisle/internal/site/token"
)

// Hidden runs the verbs under which this program starts itself confined, before
// any flag is read. done says that args named one.
func Hidden(ctx context.Context, args []string) (done bool, err error) {
	if len(args) == 0 {
		return false, nil
	}
	switch args[0] {
	case sandbox.Verb:
		return true, fmt.Errorf("confine: %w", errors.Join(sandbox.Enter(args[1:]), errors.New("the program was not started")))
	case inspectVerb:
		if err := inspectConfined(ctx); err != nil {
			return true, fmt.Errorf("%s: %w", inspectVerb, err)
		}
		return true, nil
	case convertVerb:
		if err := convertConfined(ctx); err != nil {
			return true, fmt.Errorf("%s: %w", convertVerb, err)
		}
		return true, nil
	case dialVerb:
		return true, dialOutside(ctx, args[1:])
	case llamacpp.Verb:
		return true, worker.Run(ctx, args[1:])
	}
	return false, nil
}

// outside asks for small documents; fetch does.
type outside interface {
	pypi.Getter
	ocidist.Getter // also what huggingface needs
}

// ecosystems lists every package world. Serving needs no runner and no way out.
func (a *App) ecosystems(run ecosystem.Runner, out outside) []ecosystem.Ecosystem {
	images := &oci.Ecosystem{Get: out, Beside: []oci.Beside{{Kind: ollama.Kind, Repositories: ollama.Repositories}}}
	return []ecosystem.Ecosystem{
		pypi.New(pypi.Options{Runner: run, Index: out, Log: a.Log}),
		&npm.Ecosystem{Runner: run, Index: out, Audit: audit},
		&debian.Ecosystem{Runner: run},
		&gomod.Ecosystem{Runner: run, Keep: keep("go")},
		&maven.Ecosystem{Runner: run},
		&cargo.Ecosystem{Runner: run, Home: settingsOf("CARGO_HOME", ".cargo")},
		images,
		&ollama.Ecosystem{Get: out, Registry: os.Getenv("OLLAMA_REGISTRY")},
		&helm.Ecosystem{Get: out, Run: run, Images: images},
		&huggingface.Ecosystem{Get: out, Endpoint: os.Getenv("HF_ENDPOINT")},
		files.Ecosystem{},
	}
}

// indexes lists the ecosystems whose index the site signs.
func (a *App) indexes() (out []crossing.Index) {
	for _, e := range a.ecosystems(nil, nil) {
		if ix, ok := e.(ecosystem.Indexed); ok {
			out = append(out, crossing.Index{Name: e.Name(), Indexed: ix})
		}
	}
	return out
}

// keep is where clients remember something from one collect to the next, in the
// user's cache; empty where there is none.
func keep(name string) string {
	dir, err := os.UserCacheDir()
	if err != nil {
		return ""
	}
	return filepath.Join(dir, "enisle", name)
}

// settingsOf is the directory in which a client has its settings: what a variable
// says, or one in the user's home.
func settingsOf(variable, standard string) string {
	if dir := os.Getenv(variable); filepath.IsAbs(dir) {
		return dir
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return ""
	}
	return filepath.Join(home, standard)
}

// collector builds what collecting needs: clients that run confined, and the
// one HTTP client, with the settings pip has on this machine.
func (a *App) collector(ctx context.Context, s *site.Site, req crossing.Request) (_ *crossing.Collector, done func() error, err error) {
	work, err := os.MkdirTemp("", "enisle-settings-")
	if err != nil {
		return nil, nil, err
	}
	done = func() error { return os.RemoveAll(work) }
	hidden := []string{s.Dir}
	if a.KeyFile != "" && !token.Is(a.KeyFile) {
		hidden = append(hidden, a.KeyFile)
	}
	run := sandbox.Exec{}
	var settings fetch.Options
	if req.Outside() {
		settings = pypi.New(pypi.Options{Runner: run, Log: a.Log}).Settings(ctx, ecosystem.Want{Work: work, Hidden: hidden})
	}
	settings.Credentials = append(settings.Credentials, oci.Credentials()...)
	settings.Credentials = append(settings.Credentials, huggingface.Credentials(os.Getenv("HF_ENDPOINT"))...)
	settings.Log = a.Log
	client, err := fetch.New(settings)
	if err != nil {
		return nil, nil, errors.Join(err, done())
	}
	child := &confined{limits: inspect.Limits{Time: 10 * time.Minute}}
	done = func() error { return errors.Join(child.end(), os.RemoveAll(work)) }
	return &crossing.Collector{Site: s, Advisories: advisories{child}, Recording: recording{}, Ecosystems: a.ecosystems(run, client), Fetch: client, Members: members.Reader{}, Upstream: &makers{beside: map[string]proven{}}, Progress: a.Progress, Hidden: hidden}, done, nil
}
