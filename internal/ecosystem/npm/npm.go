// Package npm brings npm packages: resolved by npm itself outside, served to
// unmodified clients inside.
//
// It takes single packages by exact version, without what they depend on:
// enough for an engine that arrives as a package. It knows nothing of sites or
// shipments.
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
	"slices"
	"strings"
	"time"

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
	var out []artifact.Artifact
	items := slices.Clone(want.Items)
	for _, ref := range want.Alone {
		version := ref.Version
		if version == "" {
			version = "latest"
		}
		items = append(items, ref.Name+"@"+version)
	}
	for _, it := range items {
		spec, ok := it.(string)
		if !ok {
			return nil, fail.Refuse(`write "NAME@VERSION"; dependency closures of npm are not resolved yet`, fmt.Errorf("unknown entry %v", it))
		}
		i := strings.LastIndex(spec, "@")
		if i < 1 || strings.HasPrefix(spec, "-") || strings.ContainsAny(spec, " :\\\n") || strings.Count(spec, "/") > 1 || strings.Contains(spec, "/") && spec[0] != '@' {
			return nil, fail.As(fail.Usage, `write "NAME@VERSION"`, fmt.Errorf("%.80q names no version of a package", spec))
		}
		a, err := e.view(ctx, want, spec)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", spec, err)
		}
		a.By = "npm " + strings.TrimSpace(string(by))
		out = append(out, a)
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
