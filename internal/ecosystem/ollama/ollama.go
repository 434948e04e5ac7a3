// Package ollama brings models from registries that speak Ollama's dialect of the
// registries' protocol, and offers every released GGUF model in it.
//
// The registry of images shows what it offers: both are served under /v2/, as
// clients want it. The package knows nothing of sites or shipments.
package ollama

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"regexp"
	"strings"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/ocidist"
	"enisle/internal/fail"
)

// Kind is the kind of models of Ollama.
const Kind = "ollama"

// Ecosystem is the world of Ollama. The zero value serves.
type Ecosystem struct {
	Get ocidist.Getter // needed for collecting
	// Registry is the address of the registry where an entry names none.
	Registry string
}

var (
	_ ecosystem.Ecosystem    = (*Ecosystem)(nil)
	_ ecosystem.Prefixed     = (*Ecosystem)(nil)
	_ ecosystem.Wanter       = (*Ecosystem)(nil)
	_ ecosystem.Configured   = (*Ecosystem)(nil)
	_ ecosystem.Impersonator = (*Ecosystem)(nil)
)

// Name returns "ollama".
func (*Ecosystem) Name() string { return Kind }

// Prefix returns "v2": the registry of images shows the models.
func (*Ecosystem) Prefix() string { return "v2" }

// Handler returns nil: Repositories are shown by the registry of images.
func (*Ecosystem) Handler(ecosystem.Release) (http.Handler, error) { return nil, nil }

// Origins returns the registry that a model came from.
func (*Ecosystem) Origins(a artifact.Artifact) map[string]string { return ocidist.Origins(a) }

// library is where models without a namespace are.
const library = "library"

// modelForm is NAMESPACE/MODEL:TAG as Ollama reads it, each at most 80 bytes;
// constant.
var modelForm = regexp.MustCompile(`^(?:([A-Za-z0-9_][A-Za-z0-9_-]{0,79})/)?([A-Za-z0-9_][A-Za-z0-9_.-]{0,79})(?::([A-Za-z0-9_][A-Za-z0-9_.-]{0,79}))?$`)

// order reads an entry: "llama3:8b", "team/model:tag", or {model: …, registry: URL}.
func (e *Ecosystem) order(item any) (o ocidist.Order, err error) {
	bad := func(why string, args ...any) (ocidist.Order, error) {
		return o, fail.As(fail.Usage, `write "model:tag", "team/model:tag" or {model: …, registry: https://registry.example}`, fmt.Errorf(why, args...))
	}
	o.Registry = e.Registry
	model, ok := item.(string)
	if m, isMap := item.(map[string]any); isMap {
		model, ok = m["model"].(string)
		for key, v := range m {
			switch key {
			case "model":
			case "registry":
				if o.Registry, ok = v.(string); !ok {
					return bad("its registry is %.80v", v)
				}
			default:
				return bad("a model has no %.80q", key)
			}
		}
	}
	m := modelForm.FindStringSubmatch(model)
	if !ok || m == nil || strings.Contains(model, "..") {
		return bad("%.200v names no model", item)
	}
	if o.Registry == "" {
		return o, fail.As(fail.Usage, "set OLLAMA_REGISTRY, or write {model: …, registry: https://registry.example}", fmt.Errorf("%s: no registry is named", model))
	}
	u, err := url.Parse(o.Registry)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return bad("%s: its registry is no address", model)
	}
	o.Host, o.Path, o.Tag, o.Bare = u.Host, m[1]+"/"+m[2], m[3], true
	if m[1] == "" {
		o.Path = library + "/" + m[2]
	}
	if o.Tag == "" {
		o.Tag = latest
	}
	return o, nil
}

// latest is the tag that is meant where none is named.
const latest = "latest"

// Resolve asks the registry what the models consist of.
func (e *Ecosystem) Resolve(ctx context.Context, want ecosystem.Want) ([]artifact.Artifact, error) {
	if len(want.Alone) > 0 {
		return nil, fail.As(fail.Usage, "bring the model under ollama as well", errors.New("files are only taken out of models that are brought"))
	}
	if e.Get == nil && len(want.Items) > 0 {
		return nil, errors.New("there is no way out to ask by")
	}
	var out []artifact.Artifact
	seen := map[artifact.Ref]bool{}
	for i, it := range want.Items {
		o, err := e.order(it)
		if err != nil {
			return nil, err
		}
		a := artifact.Artifact{Ref: artifact.Ref{Kind: Kind, Name: o.Path, Version: o.Tag}, By: "enisle", Index: o.Address()}
		if seen[a.Ref] {
			return nil, fail.As(fail.Usage, "name it once", fmt.Errorf("%s is asked for twice", a.Ref))
		}
		seen[a.Ref] = true
		if a.Files, err = ocidist.Pull(ctx, e.Get, o, want.Work, fmt.Sprintf("ollama-%d", i)); err != nil {
			return nil, fmt.Errorf("%s: %w", a.Ref, err)
		}
		out = append(out, a)
	}
	return out, nil
}

// wantedForm is a manifest that Ollama asks for; constant.
var wantedForm = regexp.MustCompile(`^/([^/]+)/([^/]+)/manifests/([^/]+)$`)

// Wanted names the model that a manifest was asked for.
func (*Ecosystem) Wanted(path string) (item string, ok bool) {
	m := wantedForm.FindStringSubmatch(path)
	if m == nil {
		return "", false
	}
	item = m[1] + "/" + m[2] + ":" + m[3]
	if !modelForm.MatchString(item) || strings.Contains(item, "..") {
		return "", false
	}
	return strings.TrimPrefix(item, library+"/"), true
}

// Clients lists ollama.
func (*Ecosystem) Clients() []string { return []string{"ollama"} }

// Config returns the command that pulls: ollama has no setting for a mirror, the
// address stands before the model.
func (*Ecosystem) Config(_, base string) string {
	scheme, host, _ := strings.Cut(base, "://")
	insecure := ""
	if scheme == "http" {
		insecure = "--insecure "
	}
	return "ollama pull " + insecure + host + "/" + library + "/MODEL:TAG\n"
}
