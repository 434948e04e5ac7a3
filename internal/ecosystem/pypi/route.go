package pypi

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/fail"
)

// route is an entry {index: URL, packages: ["acme-core>=1", "acme-*"]}: what its packages
// name comes from its index, and from no other.
type route struct {
	index string
	specs []string
	names []*regexp.Regexp // of the specs, and patterns that bring nothing by themselves
}

const routeHint = `write {index: https://index.example/simple/, packages: ["acme-core>=1", "acme-*"]}`

func parseRoute(v map[string]any) (r route, ok bool, err error) {
	address, isIndex := v["index"].(string)
	if !isIndex {
		return r, false, nil
	}
	bad := func(format string, args ...any) (route, bool, error) {
		return r, true, fail.As(fail.Usage, routeHint, fmt.Errorf(format, args...))
	}
	list, isList := v["packages"].([]any)
	if u, err := url.Parse(address); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil {
		return bad("%.100q is no address of an index; credentials belong into netrc or pip's settings", address)
	}
	if !isList || len(list) == 0 || len(v) != 2 {
		return bad("an index has a list of packages")
	}
	r.index = strings.TrimRight(address, "/") + "/"
	for _, e := range list {
		s, _ := e.(string)
		if name := strings.ReplaceAll(s, "*", ""); name != s {
			if err := checkSpec("x" + name); err != nil || name == "" || specName("x"+name) != Normalise("x"+name) {
				return bad("%.80q is no pattern of names", s)
			}
		} else if err := checkSpec(s); err != nil {
			return r, true, err
		} else {
			r.specs = append(r.specs, s)
			s = specName(s)
		}
		r.names = append(r.names, regexp.MustCompile("^"+strings.ReplaceAll(regexp.QuoteMeta(Normalise(s)), `\*`, ".*")+"$")) // quoted: it compiles
	}
	return r, true, nil
}

// mine reports whether a project comes from the route's index.
func (r route) mine(name string) bool {
	for _, n := range r.names {
		if n.MatchString(name) {
			return true
		}
	}
	return false
}

// routed is a file that came from the index of a route.
type routed struct {
	artifact.Artifact
	at string
}

// byRoutes has pip bring what the routes name from their indexes, without what it depends
// on, and returns it by project.
func (p *Ecosystem) byRoutes(ctx context.Context, want ecosystem.Want, w wants, s settings) (map[string]routed, error) {
	out := map[string]routed{}
	for i, r := range w.routes {
		if len(r.specs) == 0 {
			continue
		}
		dir := filepath.Join(want.Work, "route-"+strconv.Itoa(i))
		report := filepath.Join(dir, "report.json")
		if err := os.Mkdir(dir, 0o755); err != nil {
			return nil, err
		}
		// What the user's settings add is not asked: PIP_EXTRA_INDEX_URL, PIP_FIND_LINKS and files.
		only := []string{"env", "-u", "PIP_EXTRA_INDEX_URL", "-u", "PIP_FIND_LINKS", "-u", "PIP_NO_INDEX", "PIP_CONFIG_FILE=" + os.DevNull}
		from := []string{"--index-url", r.index, "--no-deps", "--only-binary", ":all:"}
		if s.Cert != "" {
			from = append(from, "--cert", s.Cert)
		}
		argv := append(append(append(only, pipCommand(s.Exe, "install")...), "--dry-run", "--ignore-installed", "--report", report), from...)
		if _, stderr, err := p.opt.Runner.Run(ctx, want.Work, want.Hidden, append(argv, r.specs...)); err != nil {
			return nil, unresolved("pip", stderr, err)
		}
		b, err := os.ReadFile(report)
		if err != nil {
			return nil, err
		}
		found, err := fromPip(b, nil)
		if err != nil {
			return nil, err
		}
		var exact []string
		for _, a := range found {
			if !r.mine(a.Ref.Name) {
				return nil, fail.Refuse("do not use this index", fmt.Errorf("%s answered with %s", r.index, a.Ref))
			}
			a.Index = fetch.Clean(r.index)
			out[a.Ref.Name] = routed{a, filepath.Join(dir, a.Files[0].Path)}
			exact = append(exact, a.Ref.Name+"=="+a.Ref.Version)
		}
		argv = append(append(append(only, pipCommand(s.Exe, "download")...), "--dest", dir), from...)
		if _, stderr, err := p.opt.Runner.Run(ctx, want.Work, want.Hidden, append(argv, exact...)); err != nil {
			return nil, unresolved("pip", stderr, err)
		}
		for _, a := range found {
			b, err := os.ReadFile(out[a.Ref.Name].at)
			if err != nil || artifact.Sum(b) != a.Files[0].Digest {
				return nil, fail.Refuse("try again; if it stays so, do not use this index", errors.Join(fmt.Errorf("%s: the file is not what the index says", a.Ref), err))
			}
		}
	}
	return out, nil
}

// astray refuses what belongs to a route and came another way.
func (w wants) astray(a artifact.Artifact) error {
	for _, r := range w.routes {
		if r.mine(a.Ref.Name) && a.Index != fetch.Clean(r.index) {
			return fail.Refuse("name it under 'packages' of its index", fmt.Errorf("%s belongs to %s, and would have come from elsewhere", a.Ref, fetch.Clean(r.index)))
		}
	}
	return nil
}
