// Package gomod brings Go modules: resolved and verified by go itself outside,
// served to unmodified go inside, the checksum database with them.
//
// It knows nothing of sites or shipments. The protocol is that of GOPROXY
// (go.dev/ref/mod, "GOPROXY protocol" and "Checksum database").
package gomod

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/module"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/fail"
)

// Kind is the kind of Go modules.
const Kind = "gomod"

// Ecosystem is that of Go modules. The zero value serves.
type Ecosystem struct {
	Runner ecosystem.Runner // runs go; needed for collecting
	// Keep is a directory that go may write and that stays: there it remembers the
	// newest head of each checksum database, so that what is collected next proves
	// that it continues what clients inside saw. Empty means that nothing is kept.
	Keep string
}

var (
	_ ecosystem.Ecosystem    = (*Ecosystem)(nil)
	_ ecosystem.Impersonator = (*Ecosystem)(nil)
	_ ecosystem.Prefixed     = (*Ecosystem)(nil)
	_ ecosystem.Wanter       = (*Ecosystem)(nil)
	_ ecosystem.Configured   = (*Ecosystem)(nil)
)

// Name returns "gomod".
func (*Ecosystem) Name() string { return Kind }

// Prefix returns "go".
func (*Ecosystem) Prefix() string { return "go" }

// Resolve lets go download what a go.mod comes to, or a module and all that it
// needs to be built. Everything is looked up in the checksum database that go is
// set to, twice: the second time against its newest head, so that what was learnt
// verifies every module in whatever order it is asked for.
func (e *Ecosystem) Resolve(ctx context.Context, want ecosystem.Want) ([]artifact.Artifact, error) {
	r, err := e.start(ctx, want)
	if err != nil {
		return nil, err
	}
	var sums []string // of go.sum files beside what was asked for
	for i, it := range want.Items {
		dir := filepath.Join(want.Work, fmt.Sprintf("module-%d", i))
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, err
		}
		switch v := it.(type) {
		case string:
			err = r.one(ctx, v, dir)
		case map[string]any:
			name, ok := v["modfile"].(string)
			if !ok || len(v) != 1 {
				return nil, unknown(it)
			}
			err = r.file(ctx, filepath.Join(want.Dir, name), dir, &sums)
		default:
			return nil, unknown(it)
		}
		if err != nil {
			return nil, fmt.Errorf("%v: %w", it, err)
		}
	}
	for _, ref := range want.Alone {
		version := ref.Version
		if version == "" {
			version = "latest"
		}
		if _, err := r.download(ctx, want.Work, ref.Name+"@"+version); err != nil {
			return nil, fmt.Errorf("%s: %w", ref, err)
		}
	}
	return r.read(sums)
}

func unknown(it any) error {
	return fail.As(fail.Usage, `write "MODULE@VERSION" or {modfile: go.mod}`, fmt.Errorf("unknown entry %.80v", it))
}

// resolving is one Resolve.
type resolving struct {
	run    ecosystem.Runner
	want   ecosystem.Want
	gopath string
	cache  string // GOMODCACHE, below want.Work
	by     string
	env    settings
	more   []string // variables of its environment
}

// settings of go that say where modules come from.
type settings struct{ GOPROXY, GONOPROXY string }

func (e *Ecosystem) start(ctx context.Context, want ecosystem.Want) (*resolving, error) {
	r := &resolving{run: e.Runner, want: want, gopath: e.Keep, cache: filepath.Join(want.Work, "mod")}
	if r.gopath == "" {
		r.gopath = filepath.Join(want.Work, "gopath")
	}
	for _, dir := range []string{r.gopath, r.cache} {
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return nil, err
		}
	}
	out, err := r.gocmd(ctx, want.Work, "version")
	if err != nil {
		return nil, fail.As(fail.Failed, "install Go (Debian: golang-go)", err)
	}
	if f := strings.Fields(string(out)); len(f) > 2 {
		r.by = "go " + strings.TrimPrefix(f[2], "go")
	}
	if out, err = r.gocmd(ctx, want.Work, "env", "-json", "GOPROXY", "GONOPROXY"); err == nil {
		err = json.Unmarshal(out, &r.env)
	}
	return r, err
}

// gocmd runs go with the settings of this machine, but for where it keeps things.
func (r *resolving) gocmd(ctx context.Context, dir string, args ...string) ([]byte, error) {
	argv := append(append([]string{"env"}, r.more...), []string{
		"GOMODCACHE=" + r.cache, "GOPATH=" + r.gopath, "GOFLAGS=-mod=mod -modcacherw", "GOTOOLCHAIN=local", "GOWORK=off", "GO111MODULE=on",
		// The runner lets go write only where it is started.
		"sh", "-c", `cd "$0" && exec go "$@"`, dir,
	}...)
	argv = append(argv, args...)
	out, stderr, err := r.run.Run(ctx, r.want.Work, r.want.Hidden, argv)
	if err != nil {
		return out, fmt.Errorf("go %s: %w: %s", args[0], err, tail(stderr))
	}
	return out, nil
}

// downloaded is what 'go mod download -json' says of one module.
type downloaded struct{ Path, Version, GoMod, Error string }

func (r *resolving) download(ctx context.Context, dir string, what ...string) ([]downloaded, error) {
	out, err := r.gocmd(ctx, dir, append([]string{"mod", "download", "-json"}, what...)...)
	var all []downloaded
	for d := json.NewDecoder(strings.NewReader(string(out))); d.More(); {
		var m downloaded
		if jerr := d.Decode(&m); jerr != nil {
			return nil, errors.Join(err, fmt.Errorf("go mod download: %w", jerr))
		}
		if m.Error != "" {
			return nil, fail.As(fail.Failed, "try 'go mod download' with it; a newer Go, a private module or a replaced directory may be what is missing", errors.New(strings.ReplaceAll(m.Error, "\n", "; ")))
		}
		all = append(all, m)
	}
	if err != nil {
		return nil, fail.As(fail.Failed, "try 'go mod download all' beside it; a newer Go, a private module or a replaced directory may be what is missing", err)
	}
	return all, nil
}

// one downloads a module, and what it needs as the module that is built.
func (r *resolving) one(ctx context.Context, spec, dir string) error {
	path, version, ok := strings.Cut(spec, "@")
	if !ok || module.CheckPath(path) != nil || version == "" || strings.HasPrefix(version, "-") || strings.ContainsAny(version, " @\n") {
		return fail.As(fail.Usage, `write "MODULE@VERSION"; the version may be "latest"`, errors.New("names no version of a module"))
	}
	got, err := r.download(ctx, r.want.Work, spec)
	if err != nil {
		return err
	}
	if len(got) != 1 || got[0].Path != path {
		return fail.Refuse("do not use this proxy", errors.New("go answered with another module"))
	}
	b, err := os.ReadFile(got[0].GoMod)
	if err != nil {
		return err
	}
	if err := r.all(ctx, b, dir); err != nil {
		return err
	}
	// The head may have moved since.
	_, err = r.download(ctx, r.want.Work, got[0].Path+"@"+got[0].Version)
	return err
}

// file downloads what a go.mod comes to, and adds the go.sum beside it to sums.
func (r *resolving) file(ctx context.Context, name, dir string, sums *[]string) error {
	b, err := os.ReadFile(name)
	if err != nil {
		return fail.As(fail.Usage, "paths in a request start where it lies", err)
	}
	sum, err := os.ReadFile(strings.TrimSuffix(name, filepath.Ext(name)) + ".sum")
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	*sums = append(*sums, string(sum))
	return r.all(ctx, b, dir)
}

// all downloads the whole graph of a go.mod, twice.
func (r *resolving) all(ctx context.Context, gomod []byte, dir string) error {
	for range 2 {
		// Without go.sum everything is looked up.
		if err := os.WriteFile(filepath.Join(dir, "go.mod"), gomod, 0o600); err != nil {
			return err
		}
		if err := os.RemoveAll(filepath.Join(dir, "go.sum")); err != nil {
			return err
		}
		if _, err := r.download(ctx, dir, "all"); err != nil {
			return err
		}
	}
	return nil
}

func tail(b []byte) string {
	s := strings.TrimSpace(string(b))
	if len(s) > 300 {
		s = strings.ToValidUTF8(s[len(s)-300:], "")
	}
	return strings.ReplaceAll(s, "\n", "; ")
}
