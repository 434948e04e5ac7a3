package npm

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"
	"gopkg.in/yaml.v3"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/fail"
)

const (
	maxLock     = 64 << 20  // bytes of a lockfile
	maxDocument = 256 << 20 // bytes of a package document
	atOnce      = 8         // documents that are asked for at once
)

// locked is one package as a lockfile names it.
type locked struct {
	name, version, resolved, integrity string
	os, cpu                            []string // what it is for; empty: all
}

const lockHint = "write {lockfile: package-lock.json}, {lockfile: pnpm-lock.yaml} or {lockfile: yarn.lock}"

// fromLock returns the packages of a lockfile that the target may need.
func (e *Ecosystem) fromLock(ctx context.Context, want ecosystem.Want, file, by string) ([]artifact.Artifact, error) {
	at := filepath.Join(want.Dir, file)
	st, err := os.Stat(at)
	if err == nil && st.Size() > maxLock {
		err = errors.New("larger than a lockfile may be")
	}
	if err != nil {
		return nil, fail.As(fail.Usage, lockHint, fmt.Errorf("lockfile %s: %w", file, err))
	}
	b, err := os.ReadFile(at)
	if err != nil {
		return nil, err
	}
	var all []locked
	switch base := path.Base(filepath.ToSlash(file)); {
	case base == "package-lock.json", base == "npm-shrinkwrap.json":
		all, err = packageLock(b)
	case base == "pnpm-lock.yaml":
		all, err = pnpmLock(b)
	case base == "yarn.lock":
		all, err = yarnLock(b)
	default:
		err = fail.As(fail.Usage, lockHint, errors.New("its name is that of no lockfile"))
	}
	if err != nil {
		return nil, fmt.Errorf("lockfile %s: %w", file, err)
	}
	return e.artifacts(ctx, want, all, by)
}

// registry asks npm which registry this machine uses.
func (e *Ecosystem) registry(ctx context.Context, want ecosystem.Want) (string, error) {
	out, stderr, err := e.Runner.Run(ctx, want.Work, want.Hidden, []string{"npm", "config", "get", "registry"})
	if err != nil {
		return "", fail.As(fail.Failed, "try 'npm config get registry'", fmt.Errorf("npm: %w: %s", err, tail(stderr)))
	}
	u := strings.TrimSpace(string(out))
	if p, err := url.Parse(u); err != nil || p.Host == "" {
		return "", fail.As(fail.Failed, "set it with 'npm config set registry URL'", fmt.Errorf("npm's registry is %.80q", u))
	}
	return strings.TrimSuffix(u, "/"), nil
}

// closure lets npm resolve what requirements come to, without running anything of
// theirs.
func (e *Ecosystem) closure(ctx context.Context, want ecosystem.Want, specs []string, by string) ([]artifact.Artifact, error) {
	dir := filepath.Join(want.Work, "closure")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	deps := map[string]string{}
	for _, s := range specs {
		name, version := s, "latest"
		if i := strings.LastIndex(s, "@"); i > 0 {
			name, version = s[:i], s[i+1:]
		}
		if _, twice := deps[name]; twice {
			return nil, fail.As(fail.Usage, "name it once, or bring a lockfile", fmt.Errorf("%s is asked for twice", name))
		}
		deps[name] = version
	}
	b, err := json.Marshal(map[string]any{"name": "closure", "version": "0.0.0", "private": true, "dependencies": deps})
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, "package.json"), b, 0o600); err != nil {
		return nil, err
	}
	argv := []string{"npm", "install", "--package-lock-only", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", dir}
	if _, stderr, err := e.Runner.Run(ctx, want.Work, want.Hidden, argv); err != nil {
		return nil, fail.As(fail.Failed, "try the same with npm itself", fmt.Errorf("npm could not resolve it: %w: %s", err, tail(stderr)))
	}
	lock, err := os.ReadFile(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		return nil, err
	}
	all, err := packageLock(lock)
	if err != nil {
		return nil, err
	}
	return e.artifacts(ctx, want, all, by)
}

// packageLock reads lockfiles of npm, of versions 2 and 3.
func packageLock(b []byte) (all []locked, err error) {
	var lock struct {
		Version  int `json:"lockfileVersion"`
		Packages map[string]struct {
			Name      string   `json:"name"`
			Version   string   `json:"version"`
			Resolved  string   `json:"resolved"`
			Integrity string   `json:"integrity"`
			Link      bool     `json:"link"`
			InBundle  bool     `json:"inBundle"`
			OS        []string `json:"os"`
			CPU       []string `json:"cpu"`
		} `json:"packages"`
	}
	if err := json.Unmarshal(b, &lock); err != nil {
		return nil, err
	}
	if lock.Version < 2 || lock.Version > 3 {
		return nil, fail.As(fail.Usage, "run 'npm install --package-lock-only' with npm 7 or newer", fmt.Errorf("lockfileVersion %d is not read", lock.Version))
	}
	for at, p := range lock.Packages {
		i := strings.LastIndex(at, "node_modules/")
		if i < 0 || p.Link || p.InBundle {
			continue // the project itself, its workspaces, and what lies in another tarball
		}
		name := p.Name
		if name == "" {
			name = at[i+len("node_modules/"):]
		}
		all = append(all, locked{name, p.Version, p.Resolved, p.Integrity, p.OS, p.CPU})
	}
	return all, nil
}

// pnpmLock reads lockfiles of pnpm, of versions 6 and 9: they name no addresses but
// for what is not of the registry.
func pnpmLock(b []byte) (all []locked, err error) {
	var lock struct {
		Version  any `yaml:"lockfileVersion"`
		Packages map[string]struct {
			Resolution struct {
				Integrity string `yaml:"integrity"`
				Tarball   string `yaml:"tarball"`
			} `yaml:"resolution"`
			OS  []string `yaml:"os"`
			CPU []string `yaml:"cpu"`
		} `yaml:"packages"`
	}
	if err := yaml.Unmarshal(b, &lock); err != nil {
		return nil, err
	}
	for key, p := range lock.Packages {
		key, _, _ = strings.Cut(strings.TrimPrefix(key, "/"), "(") // peers stand in parentheses
		i := strings.LastIndex(key, "@")
		if i < 1 {
			return nil, fail.As(fail.Usage, "run 'pnpm install --lockfile-only' with pnpm 8 or newer", fmt.Errorf("package %.80q has no version", key))
		}
		name, version := key[:i], key[i+1:]
		all = append(all, locked{name, version, p.Resolution.Tarball, p.Resolution.Integrity, p.OS, p.CPU})
	}
	return all, nil
}

// yarnLock reads lockfiles of yarn 1.
func yarnLock(b []byte) (all []locked, err error) {
	if !bytes.Contains(b[:min(len(b), 400)], []byte("yarn lockfile v1")) {
		return nil, fail.As(fail.Usage, "bring the package-lock.json that 'npm install --package-lock-only' writes", errors.New("only lockfiles of yarn 1 are read"))
	}
	var now locked
	flush := func() {
		if now.version != "" {
			all = append(all, now)
		}
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		l := lines.Text()
		switch {
		case strings.HasPrefix(l, "#") || strings.TrimSpace(l) == "":
		case l[0] != ' ':
			flush()
			first, _, _ := strings.Cut(strings.Trim(strings.TrimSuffix(l, ":"), `"`), ",")
			first = strings.Trim(first, `"`)
			now = locked{name: first[:max(1, strings.LastIndex(first, "@"))]}
			if _, alias, ok := strings.Cut(first, "@npm:"); ok {
				now.name = alias[:max(1, strings.LastIndex(alias, "@"))]
			}
		case strings.HasPrefix(l, "  ") && !strings.HasPrefix(l, "   "):
			key, value, _ := strings.Cut(strings.TrimSpace(l), " ")
			value = strings.Trim(value, `"`)
			switch key {
			case "version":
				now.version = value
			case "resolved":
				now.resolved, _, _ = strings.Cut(value, "#")
			case "integrity":
				now.integrity = value
			}
		}
	}
	flush()
	return all, lines.Err()
}

// fits reports whether a list of systems, as package.json has it, holds one.
func fits(list []string, one string) bool {
	if len(list) == 0 || slices.Contains(list, "any") {
		return true
	}
	if slices.Contains(list, "!"+one) {
		return false
	}
	return slices.Contains(list, one) || !slices.ContainsFunc(list, func(s string) bool { return !strings.HasPrefix(s, "!") })
}

// artifacts makes one artifact of every package, each once, with the time when the
// registry published it.
func (e *Ecosystem) artifacts(ctx context.Context, want ecosystem.Want, all []locked, by string) (out []artifact.Artifact, err error) {
	goos, arch := want.Target.OS, want.Target.Arch
	if goos == "" {
		goos = runtime.GOOS
	}
	if arch == "" {
		arch = runtime.GOARCH
	}
	cpu := map[string]string{"amd64": "x64", "386": "ia32"}[arch]
	if cpu == "" {
		cpu = arch
	}
	if goos == "windows" {
		goos = "win32"
	}
	seen := map[string]string{}
	registry := ""
	for _, l := range all {
		if !fits(l.os, goos) || !fits(l.cpu, cpu) {
			continue
		}
		if l.resolved == "" { // it is where the registry has everything
			if registry == "" {
				if registry, err = e.registry(ctx, want); err != nil {
					return nil, err
				}
			}
			l.resolved = registry + "/" + l.name + "/-/" + path.Base(l.name) + "-" + l.version + ".tgz"
		}
		a, err := l.artifact(by)
		if err != nil {
			return nil, err
		}
		key := a.Ref.String()
		if sum, twice := seen[key]; twice {
			if sum != a.Files[0].Hashes["sha512"] {
				return nil, fail.Refuse("make the lockfile again", fmt.Errorf("%s stands in it with two contents", key))
			}
			continue
		}
		seen[key] = a.Files[0].Hashes["sha512"]
		out = append(out, a)
	}
	if len(out) == 0 {
		return nil, fail.As(fail.Usage, lockHint, errors.New("it names no package for the target"))
	}
	return out, e.publishTimes(ctx, out)
}

func (l locked) artifact(by string) (a artifact.Artifact, err error) {
	a = artifact.Artifact{Ref: artifact.Ref{Kind: Kind, Name: l.name, Version: l.version}, By: by}
	if err := a.Ref.Check(); err != nil {
		return a, err
	}
	u, err := url.Parse(l.resolved)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return a, fail.Refuse("bring a version that a registry offers", fmt.Errorf("%s is taken from %.80q, not from a registry", a.Ref, l.resolved))
	}
	sum := []byte(nil)
	for _, one := range strings.Fields(l.integrity) {
		if b64, ok := strings.CutPrefix(one, "sha512-"); ok {
			if sum, err = base64.StdEncoding.DecodeString(b64); err != nil || len(sum) != sha512.Size {
				return a, fail.Refuse("make the lockfile again", fmt.Errorf("%s: integrity %.80q", a.Ref, l.integrity))
			}
		}
	}
	if sum == nil {
		return a, fail.Refuse("make the lockfile again with a newer client: it must state sha512", fmt.Errorf("%s has no sha512", a.Ref))
	}
	a.Files = []artifact.File{{
		Path: path.Base(l.name) + "-" + l.version + ".tgz", Size: -1, Origin: fetch.Clean(l.resolved), Hashes: map[string]string{"sha512": hex.EncodeToString(sum)},
	}}
	return a, nil
}

// Getter fetches documents of a registry.
type Getter interface {
	GetJSON(ctx context.Context, address, accept string, limit int64) ([]byte, error)
}

// publishTimes asks the registry that a tarball comes from when its versions were
// published: clients that wait for a version to be some days old need to know. What
// cannot be learnt stays unknown.
func (e *Ecosystem) publishTimes(ctx context.Context, all []artifact.Artifact) error {
	if e.Index == nil {
		return nil
	}
	byName := map[string][]int{}
	for i, a := range all {
		byName[a.Ref.Name] = append(byName[a.Ref.Name], i)
	}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for _, list := range byName {
		g.Go(func() error {
			registry, _, ok := strings.Cut(all[list[0]].Files[0].Origin, "/-/")
			if !ok {
				return nil
			}
			b, err := e.Index.GetJSON(ctx, registry, "application/json", maxDocument)
			var doc struct {
				Time map[string]string `json:"time"`
			}
			if err != nil || json.Unmarshal(b, &doc) != nil {
				return ctx.Err()
			}
			for _, i := range list {
				if t, err := time.Parse(time.RFC3339, doc.Time[all[i].Ref.Version]); err == nil {
					all[i].Files[0].Published = t.UTC().Truncate(time.Second)
				}
			}
			return nil
		})
	}
	return g.Wait()
}
