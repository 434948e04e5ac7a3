// Package huggingface brings models and datasets from hubs that speak Hugging
// Face's protocol, and serves them to unmodified clients.
//
// A repository is taken at one commit. Its name, the git hashes and the LFS hashes
// stay what they are at the hub, so that what clients cache is the same inside and
// outside. The package names no hub, and knows nothing of sites or shipments.
package huggingface

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
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/fail"
)

// Kind is the kind of repositories of hubs.
const Kind = "hf"

// Getter fetches small documents of a hub.
type Getter interface {
	Document(ctx context.Context, url string, header http.Header, limit int64) ([]byte, http.Header, error)
}

// Ecosystem is the world of hubs. The zero value serves.
type Ecosystem struct {
	Get Getter // needed for collecting
	// Endpoint is the address of the hub where an entry names none.
	Endpoint string
}

var (
	_ ecosystem.Ecosystem    = (*Ecosystem)(nil)
	_ ecosystem.Prefixed     = (*Ecosystem)(nil)
	_ ecosystem.Wanter       = (*Ecosystem)(nil)
	_ ecosystem.Configured   = (*Ecosystem)(nil)
	_ ecosystem.Kinded       = (*Ecosystem)(nil)
	_ ecosystem.Impersonator = (*Ecosystem)(nil)
)

// Name returns "huggingface", as requests call it.
func (*Ecosystem) Name() string { return "huggingface" }

// Prefix returns "hf", the kind.
func (*Ecosystem) Prefix() string { return Kind }

// Kind returns "hf".
func (*Ecosystem) Kind() string { return Kind }

// Origins returns the hub that a repository came from.
func (*Ecosystem) Origins(a artifact.Artifact) map[string]string {
	if a.Index == "" {
		return nil
	}
	return map[string]string{a.Index: ""}
}

// Names of repositories and of what is asked of them; constant.
var (
	idForm     = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._-]{0,95}/)?[A-Za-z0-9][A-Za-z0-9._-]{0,95}$`)
	commitForm = regexp.MustCompile(`^[0-9a-f]{40}$`)
	revForm    = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9._/+-]{0,199}$`)
)

// id is a repository: models and datasets have names of their own.
type id struct {
	dataset bool
	name    string // org/name, or name
}

// path is the repository in addresses and in names of artifacts.
func (i id) path() string {
	if i.dataset {
		return "datasets/" + i.name
	}
	return i.name
}

// api is the repository in addresses of the API.
func (i id) api() string {
	if i.dataset {
		return "/api/datasets/" + i.name
	}
	return "/api/models/" + i.name
}

// parseID reads what path writes.
func parseID(s string) (id, bool) {
	rest, dataset := strings.CutPrefix(s, "datasets/")
	ok := idForm.MatchString(rest) && !strings.Contains(rest, "..") && !strings.Contains(rest, "--")
	for _, taken := range []string{"datasets", "spaces", "api", "kernels"} {
		ok = ok && rest != taken && !strings.HasPrefix(rest, taken+"/")
	}
	return id{dataset, rest}, ok
}

// order is an entry of a request.
type order struct {
	id
	endpoint         string
	revision         string
	include, exclude []string
}

func (e *Ecosystem) order(item any) (o order, err error) {
	bad := func(why string, args ...any) (order, error) {
		return o, fail.As(fail.Usage, `write "org/name@main" or {repo: "org/name", revision: main, include: ["*.json"], type: dataset}`, fmt.Errorf(why, args...))
	}
	o.endpoint, o.revision = e.Endpoint, "main"
	repo, ok := item.(string)
	if m, isMap := item.(map[string]any); isMap {
		repo, ok = m["repo"].(string)
		for key, v := range m {
			s, isString := v.(string)
			switch key {
			case "repo":
			case "revision":
				o.revision = s
			case "endpoint":
				o.endpoint = s
			case "type":
				if o.dataset = s == "dataset"; !o.dataset && s != "model" {
					return bad("repositories of the type %.80v are not brought", v)
				}
			case "include", "exclude":
				list, err := patterns(v)
				if err != nil {
					return bad("%s: %w", key, err)
				}
				if isString = true; key == "include" {
					o.include = list
				} else {
					o.exclude = list
				}
			default:
				return bad("a repository has no %.80q", key)
			}
			if !isString {
				return bad("%s is %.80v", key, v)
			}
		}
	}
	if name, revision, pinned := strings.Cut(repo, "@"); pinned {
		repo, o.revision = name, revision
	}
	i, valid := parseID(repo)
	if !ok || !valid {
		return bad("%.200v names no repository", item)
	}
	o.id = id{o.dataset || i.dataset, i.name}
	if !revForm.MatchString(o.revision) || strings.Contains(o.revision, "..") {
		return bad("%.80q is no revision", o.revision)
	}
	o.endpoint = strings.TrimRight(o.endpoint, "/")
	if o.endpoint == "" {
		return o, fail.As(fail.Usage, "set HF_ENDPOINT, or write {repo: …, endpoint: https://hub.example}", fmt.Errorf("%s: no hub is named", o.path()))
	}
	if u, err := url.Parse(o.endpoint); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return o, fail.As(fail.Usage, "write it as https://hub.example", fmt.Errorf("%.120q is no address of a hub", fetch.Clean(o.endpoint)))
	}
	return o, nil
}

func patterns(v any) (out []string, err error) {
	list, ok := v.([]any)
	if s, one := v.(string); one {
		list, ok = []any{s}, true
	}
	for _, e := range list {
		s, isString := e.(string)
		if !isString || s == "" || len(s) > 500 {
			return nil, fmt.Errorf("%.80v is no pattern", e)
		}
		if strings.HasSuffix(s, "/") {
			s += "*" // a directory, as the hub's own client reads it
		}
		out = append(out, s)
	}
	if !ok {
		return nil, fmt.Errorf("%.80v is no list of patterns", v)
	}
	return out, nil
}

// takes reports whether a file is asked for; without include, all are.
func (o order) takes(path string) bool {
	any := func(list []string) bool {
		for _, p := range list {
			if match(p, path) {
				return true
			}
		}
		return false
	}
	return (len(o.include) == 0 || any(o.include)) && !any(o.exclude)
}

// match reads * and ? as the hub's own client does: both also match a slash.
// The time is bounded by the product of the lengths.
func match(pattern, s string) bool {
	star, mark, i, j := -1, 0, 0, 0
	for j < len(s) {
		switch {
		case i < len(pattern) && pattern[i] == '*':
			star, mark = i, j
			i++
		case i < len(pattern) && (pattern[i] == '?' || pattern[i] == s[j]):
			i++
			j++
		case star >= 0:
			mark++
			i, j = star+1, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[i:], "*") == ""
}

// Resolve pins each repository to a commit and lists its files.
func (e *Ecosystem) Resolve(ctx context.Context, want ecosystem.Want) ([]artifact.Artifact, error) {
	if len(want.Alone) > 0 {
		return nil, fail.As(fail.Usage, "bring the repository under huggingface as well", errors.New("files are only taken out of repositories that are brought"))
	}
	if e.Get == nil && len(want.Items) > 0 {
		return nil, errors.New("there is no way out to ask by")
	}
	var out []artifact.Artifact
	seen := map[artifact.Ref]bool{}
	for n, it := range want.Items {
		o, err := e.order(it)
		if err != nil {
			return nil, err
		}
		p := &puller{Getter: e.Get, order: o, work: want.Work, dir: fmt.Sprintf("hf-%d", n)}
		a, err := p.pull(ctx)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", o.path(), err)
		}
		if seen[a.Ref] {
			return nil, fail.As(fail.Usage, "name all its files in one entry", fmt.Errorf("%s is asked for twice", a.Ref))
		}
		seen[a.Ref] = true
		out = append(out, a)
	}
	return out, nil
}

// Clients lists the hub's own.
func (*Ecosystem) Clients() []string { return []string{"hf"} }

// Config returns what the hub's libraries and all that use them read.
func (*Ecosystem) Config(_, base string) string { return "HF_ENDPOINT=" + base + "/hf\n" }

// Wanted names the repository that a description was asked for, or a file that is
// the point of one: libraries also try for many that few repositories have.
func (*Ecosystem) Wanted(path string) (item string, ok bool) {
	c, ok := parseCall(path, nil)
	if !ok || !revForm.MatchString(c.revision) || strings.Contains(c.revision, "..") || c.what == "list" || c.what == "refs" || c.what == "commits" {
		return "", false
	}
	if c.what == "resolve" && c.path != "config.json" && c.path != "README.md" && !strings.HasSuffix(c.path, ".gguf") {
		return "", false
	}
	return c.id.path() + "@" + c.revision, true
}
