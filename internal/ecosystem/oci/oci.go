// Package oci brings images of containers and whatever else registries hold, and
// serves them to unmodified clients.
//
// The protocol is in ocidist; this package knows entries of requests, targets and
// the settings of clients, and nothing of sites or shipments.
package oci

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"runtime"
	"strings"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/ocidist"
	"enisle/internal/fail"
)

// Kind is the kind of images.
const Kind = "oci"

// Ecosystem is the world of registries. The zero value serves.
type Ecosystem struct {
	Get ocidist.Getter // needed for collecting
	// Beside are repositories that are shown besides the images: what other
	// ecosystems serve by this protocol.
	Beside []Beside
}

// Beside is another ecosystem that is served by this protocol.
type Beside struct {
	Kind         string
	Repositories func(ecosystem.Release) []*ocidist.Repository
}

var (
	_ ecosystem.Ecosystem    = (*Ecosystem)(nil)
	_ ecosystem.Prefixed     = (*Ecosystem)(nil)
	_ ecosystem.Wanter       = (*Ecosystem)(nil)
	_ ecosystem.Configured   = (*Ecosystem)(nil)
	_ ecosystem.Impersonator = (*Ecosystem)(nil)
)

// Name returns "oci".
func (*Ecosystem) Name() string { return Kind }

// Prefix returns "v2", as the protocol wants it.
func (*Ecosystem) Prefix() string { return "v2" }

// Origins returns the registry that an image came from.
func (*Ecosystem) Origins(a artifact.Artifact) map[string]string { return ocidist.Origins(a) }

// everything is the platform that means all of them.
const everything = "all"

// Resolve asks registries what the images consist of. An entry is an image with
// its host, or {image: …, platforms: [linux/amd64], registry: URL}.
func (e *Ecosystem) Resolve(ctx context.Context, want ecosystem.Want) ([]artifact.Artifact, error) {
	if e.Get == nil && len(want.Items)+len(want.Alone) > 0 {
		return nil, errors.New("there is no way out to ask by")
	}
	var out []artifact.Artifact
	seen := map[artifact.Ref]bool{}
	items := want.Items
	for _, ref := range want.Alone {
		sep := ":"
		if strings.Contains(ref.Version, ":") {
			sep = "@"
		}
		host, path, _ := strings.Cut(ref.Name, "/")
		items = append(items, strings.Replace(host, "_", ":", 1)+"/"+path+sep+ref.Version)
	}
	for i, it := range items {
		o, err := order(it, want.Target)
		if err != nil {
			return nil, err
		}
		a := artifact.Artifact{Ref: artifact.Ref{Kind: Kind, Name: o.Name(), Version: o.Version()}, By: "enisle", Index: o.Address()}
		if seen[a.Ref] {
			return nil, fail.As(fail.Usage, "name all its platforms in one entry", fmt.Errorf("%s is asked for twice", a.Ref))
		}
		seen[a.Ref] = true
		if a.Files, err = ocidist.Pull(ctx, e.Get, o, want.Work, fmt.Sprintf("oci-%d", i)); err != nil {
			return nil, fmt.Errorf("%s: %w", a.Ref, err)
		}
		out = append(out, a)
	}
	return out, nil
}

// order reads one entry.
func order(item any, target ecosystem.Target) (o ocidist.Order, err error) {
	image, ok := item.(string)
	if m, isMap := item.(map[string]any); isMap {
		image, ok = m["image"].(string)
		for key, v := range m {
			switch key {
			case "image":
			case "registry":
				if o.Registry, err = Address(v); err != nil {
					return o, err
				}
			case "platforms":
				if o.Platforms, err = platforms(v); err != nil {
					return o, err
				}
				if o.Platforms == nil {
					target = ecosystem.Target{OS: everything}
				}
			default:
				return o, fail.As(fail.Usage, "it may have image, platforms and registry", fmt.Errorf("an image has no %.80q", key))
			}
		}
	}
	if !ok {
		return o, fail.As(fail.Usage, `write "registry.example/team/app:1.4" or {image: …, platforms: [linux/amd64]}`, fmt.Errorf("unknown entry %.200v", item))
	}
	if o.Reference, err = ocidist.ParseReference(image); err != nil {
		return o, err
	}
	if len(o.Platforms) == 0 && target.OS != everything {
		p := ocidist.Platform{OS: target.OS, Arch: target.Arch}
		if p.OS == "" {
			p.OS = runtime.GOOS
		}
		if p.Arch == "" {
			p.Arch = runtime.GOARCH
		}
		o.Platforms = []ocidist.Platform{p}
	}
	return o, nil
}

// platforms reads a list; nil if it says all of them.
func platforms(v any) (out []ocidist.Platform, err error) {
	list, ok := v.([]any)
	if !ok || len(list) == 0 {
		return nil, fail.As(fail.Usage, "write platforms: [linux/amd64], or [all]", fmt.Errorf("platforms is %.80v", v))
	}
	for _, e := range list {
		s, _ := e.(string)
		if s == everything {
			return nil, nil
		}
		p, err := ocidist.ParsePlatform(s)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	return out, nil
}

// Address reads the address of a registry.
func Address(v any) (string, error) {
	s, _ := v.(string)
	u, err := url.Parse(s)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return "", fail.As(fail.Usage, "write it as https://registry.example", fmt.Errorf("%.80v is no address of a registry", v))
	}
	return s, nil
}

// Handler returns the registry of one release.
func (e *Ecosystem) Handler(rel ecosystem.Release) (http.Handler, error) {
	all := ocidist.Repositories(rel, Kind)
	kinds := []string{Kind}
	for _, b := range e.Beside {
		all, kinds = append(all, b.Repositories(rel)...), append(kinds, b.Kind)
	}
	return ocidist.New(rel, kinds, all), nil
}

// wantedForm is a manifest asked for by the name of its registry; constant.
var wantedForm = regexp.MustCompile(`^/(([a-z0-9-]+\.)+[a-z0-9-]+)(_[0-9]{1,5})?(/[a-z0-9._/-]{1,200})/manifests/([A-Za-z0-9_][A-Za-z0-9._-]{0,127}|sha256:[0-9a-f]{64})$`)

// Wanted names the image that a manifest was asked for, if its name says from
// which registry.
func (*Ecosystem) Wanted(path string) (item string, ok bool) {
	m := wantedForm.FindStringSubmatch(path)
	if m == nil || strings.HasPrefix(m[5], "sha256-") {
		return "", false
	}
	sep := ":"
	if strings.Contains(m[5], ":") {
		sep = "@"
	}
	item = m[1] + strings.Replace(m[3], "_", ":", 1) + m[4] + sep + m[5]
	if _, err := ocidist.ParseReference(item); err != nil {
		return "", false
	}
	return item, true
}

// Clients lists those that need settings; crane, skopeo and oras are given the
// address with each image.
func (*Ecosystem) Clients() []string { return []string{"docker", "podman", "containerd"} }

// Config returns daemon.json, registries.conf or the hosts.toml of all hosts.
func (*Ecosystem) Config(client, base string) string {
	host := base
	plain := false
	if u, err := url.Parse(base); err == nil {
		host, plain = u.Host+u.Path, u.Scheme == "http"
	}
	switch client {
	case "docker":
		insecure := ""
		if plain {
			insecure = fmt.Sprintf(",\n  \"insecure-registries\": [%q]", host)
		}
		return fmt.Sprintf("{\n  \"registry-mirrors\": [%q]%s\n}\n", base, insecure)
	case "podman":
		return fmt.Sprintf("unqualified-search-registries = [%q]\n\n[[registry]]\nlocation = %q\ninsecure = %t\n", host, host, plain)
	}
	return fmt.Sprintf("server = %q\n\n[host.%q]\n  capabilities = [\"pull\", \"resolve\"]\n", base, base)
}
