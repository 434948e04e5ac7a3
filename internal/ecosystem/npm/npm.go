// Package npm brings npm packages: resolved by npm itself outside, served to
// unmodified clients inside.
//
// A package by its exact version comes alone; a requirement comes with all that npm
// resolves it to; and the lockfiles of npm, pnpm and yarn 1 say exactly what they are.
// It knows nothing of sites or shipments.
package npm

import (
	"context"
	"crypto/sha512"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"path"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"golang.org/x/mod/semver"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/fail"
)

// Kind is the kind of npm packages.
const Kind = "npm"

// Ecosystem is npm. The zero value serves.
type Ecosystem struct {
	Runner ecosystem.Runner // runs npm; needed for collecting
	Index  Getter           // for publish times; nil: they stay unknown
	// Audit answers which of some packages, each with versions, are known to be
	// vulnerable, from what a release has; nil: nothing is known.
	Audit func(rel ecosystem.Release, versions map[string][]string) (map[string][]Advisory, error)
}

// Advisory is a known vulnerability, as npm's audit reads it.
type Advisory struct {
	ID                 uint32 `json:"id"` // npm wants a number
	URL                string `json:"url"`
	Title              string `json:"title"`
	Severity           string `json:"severity"`            // low, moderate, high, critical
	VulnerableVersions string `json:"vulnerable_versions"` // a range of semver
}

var (
	_ ecosystem.Ecosystem  = (*Ecosystem)(nil)
	_ ecosystem.Downloader = (*Ecosystem)(nil)
)

// Name returns "npm".
func (*Ecosystem) Name() string { return Kind }

// Resolve asks npm what NAME@VERSION is: address and sha512.
func (e *Ecosystem) Resolve(ctx context.Context, want ecosystem.Want) ([]artifact.Artifact, error) {
	by, stderr, err := e.Runner.Run(ctx, want.Work, want.Hidden, []string{"npm", "--version"})
	if err != nil {
		return nil, fail.As(fail.Failed, "install npm", fmt.Errorf("npm: %w: %s", err, tail(stderr)))
	}
	client := "npm " + strings.TrimSpace(string(by))
	var exact, open []string
	var out []artifact.Artifact
	for _, it := range want.Items {
		if m, ok := it.(map[string]any); ok {
			file, isFile := m["lockfile"].(string)
			if !isFile || len(m) != 1 {
				return nil, fail.As(fail.Usage, lockHint, fmt.Errorf("unknown entry %v", it))
			}
			found, err := e.fromLock(ctx, want, file, client)
			if err != nil {
				return nil, err
			}
			out = append(out, found...)
			continue
		}
		spec, ok := it.(string)
		if !ok || !specForm.MatchString(spec) {
			return nil, fail.As(fail.Usage, `write "NAME@VERSION", "NAME", "NAME@^1.2" or {lockfile: package-lock.json}`, fmt.Errorf("%.80v names no package", it))
		}
		if _, version, _ := strings.Cut(spec[1:], "@"); semver.IsValid("v"+version) && strings.Count(version, ".") == 2 {
			exact = append(exact, spec)
		} else {
			open = append(open, spec)
		}
	}
	for _, ref := range want.Alone {
		version := ref.Version
		if version == "" {
			version = "latest"
		}
		exact = append(exact, ref.Name+"@"+version)
	}
	for _, spec := range exact {
		a, err := e.view(ctx, want, spec)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", spec, err)
		}
		a.By = client
		out = append(out, a)
	}
	if len(open) > 0 {
		found, err := e.closure(ctx, want, open, client)
		if err != nil {
			return nil, err
		}
		out = append(out, found...)
	}
	return once(out)
}

// specForm is a name, and after @ a version, a range or a tag; constant.
var specForm = regexp.MustCompile(`^(@[a-z0-9][a-z0-9._-]*/)?[A-Za-z0-9][A-Za-z0-9._-]*(@[A-Za-z0-9^~<>=.*+|_ -]+)?$`)

// once drops what was asked for in two ways.
func once(all []artifact.Artifact) (out []artifact.Artifact, err error) {
	seen := map[artifact.Ref]string{}
	for _, a := range all {
		sum, twice := seen[a.Ref]
		if twice && sum != a.Files[0].Hashes["sha512"] {
			return nil, fail.Refuse("make the lockfiles again", fmt.Errorf("%s is asked for with two contents", a.Ref))
		}
		if !twice {
			seen[a.Ref] = a.Files[0].Hashes["sha512"]
			out = append(out, a)
		}
	}
	return out, nil
}

func (e *Ecosystem) view(ctx context.Context, want ecosystem.Want, spec string) (artifact.Artifact, error) {
	var a artifact.Artifact
	stdout, stderr, err := e.Runner.Run(ctx, want.Work, want.Hidden, []string{"npm", "view", spec, "name", "version", "dist", "time", "--json"})
	if err != nil {
		return a, fail.As(fail.Failed, "try 'npm view' with it", fmt.Errorf("npm: %w: %s", err, tail(stderr)))
	}
	var v struct {
		Name    string `json:"name"`
		Version string `json:"version"`
		Dist    struct {
			Tarball   string `json:"tarball"`
			Integrity string `json:"integrity"`
		} `json:"dist"`
		Time map[string]string `json:"time"`
	}
	if err := json.Unmarshal(stdout, &v); err != nil {
		return a, fail.As(fail.Usage, "name one exact version", fmt.Errorf("npm answered with something else than one version: %w", err))
	}
	if asked := spec[:strings.LastIndex(spec, "@")]; v.Name != asked {
		return a, fail.Refuse("do not use this registry", fmt.Errorf("the registry answered with the package %.80q", v.Name))
	}
	b64, ok := strings.CutPrefix(v.Dist.Integrity, "sha512-")
	sum, err := base64.StdEncoding.DecodeString(b64)
	if !ok || err != nil || len(sum) != sha512.Size {
		return a, fail.Refuse("bring it from a registry that states sha512", fmt.Errorf("its integrity is %.80q", v.Dist.Integrity))
	}
	if u, err := url.Parse(v.Dist.Tarball); err != nil || u.Path == "" {
		return a, errors.New("the registry names no tarball")
	}
	published, err := time.Parse(time.RFC3339, v.Time[v.Version])
	if err != nil {
		published = time.Time{} // provenance only
	}
	a.Ref = artifact.Ref{Kind: Kind, Name: v.Name, Version: v.Version}
	a.Files = []artifact.File{{
		Path: path.Base(v.Name) + "-" + v.Version + ".tgz", Size: -1, Origin: fetch.Clean(v.Dist.Tarball),
		Hashes: map[string]string{"sha512": hex.EncodeToString(sum)}, Published: published.UTC().Truncate(time.Second),
	}}
	return a, a.Ref.Check()
}

// Download lets npm fetch one tarball, with whatever credentials it has.
func (e *Ecosystem) Download(ctx context.Context, want ecosystem.Want, a artifact.Artifact, f artifact.File) (string, error) {
	spec := a.Ref.Name + "@" + a.Ref.Version
	stdout, stderr, err := e.Runner.Run(ctx, want.Work, want.Hidden, []string{"npm", "pack", spec, "--pack-destination", want.Work, "--ignore-scripts", "--json"})
	if err != nil {
		return "", fmt.Errorf("npm pack: %w: %s", err, tail(stderr))
	}
	var packed []struct {
		Filename string `json:"filename"`
	}
	if err := json.Unmarshal(stdout, &packed); err != nil || len(packed) != 1 {
		return "", fmt.Errorf("npm pack: answered with something else than one file for %s", f.Path)
	}
	return filepath.Join(want.Work, path.Base(packed[0].Filename)), nil
}

func tail(b []byte) string {
	s := strings.TrimSpace(string(b))
	if len(s) > 300 {
		s = s[len(s)-300:]
	}
	return strings.ReplaceAll(s, "\n", "; ")
}
