package app

import (
	"cmp"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/crossing"
	"enisle/internal/ecosystem"
)

// Lockfiles carry absolute addresses, and many clients have those of their registries
// built in. Where the island's own names lead such addresses to the mirror, it answers
// in the place of the hosts that the released artifacts came from, as their provenance
// says: files at the very paths they were fetched from, and the registries' own pages
// out of the release. Nothing is configured, and no host is known beforehand.

// impersonation answers for the origins of one release.
type impersonation struct {
	own      http.Handler
	served   *crossing.Served
	files    map[string]artifact.File // by host and path
	prefixes []origin                 // longest first
	hosts    map[string]bool
}

// origin is a registry: what lies below at is answered by a handler below path.
type origin struct {
	at, path string
	handler  http.Handler
}

// impersonate wraps what a release is served by. handlers are by ecosystem.
func impersonate(own http.Handler, v *crossing.Served, ecosystems []ecosystem.Ecosystem, handlers map[string]http.Handler) http.Handler {
	i := impersonation{own: own, served: v, files: map[string]artifact.File{}, hosts: map[string]bool{}}
	byName := map[string]ecosystem.Impersonator{}
	for _, e := range ecosystems {
		if imp, ok := e.(ecosystem.Impersonator); ok {
			byName[e.Name()] = imp
		}
	}
	seen := map[string]bool{}
	for _, a := range v.Artifacts("") {
		for _, f := range a.Files {
			if host, path, ok := hostPath(f.Origin); ok && a.From == "" {
				i.files[host+path], i.hosts[host] = f, true
			}
		}
		imp, ok := byName[a.Ref.Kind]
		if !ok {
			continue
		}
		for at, path := range imp.Origins(a) {
			host, below, ok := hostPath(at)
			if key := host + below; ok && !seen[key] {
				seen[key], i.hosts[host] = true, true
				i.prefixes = append(i.prefixes, origin{strings.TrimSuffix(key, "/"), path, handlers[a.Ref.Kind]})
			}
		}
	}
	slices.SortFunc(i.prefixes, func(a, b origin) int { return cmp.Or(len(b.at)-len(a.at), strings.Compare(a.at, b.at)) })
	return i
}

// hostPath splits an address of the web into its host and its escaped path.
func hostPath(address string) (host, path string, ok bool) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "" {
		return "", "", false
	}
	return strings.ToLower(u.Hostname()), u.EscapedPath(), true
}

// ServeHTTP answers for a host that was impersonated, and is otherwise the mirror.
func (i impersonation) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	host := strings.ToLower(r.Host)
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	if !i.hosts[host] {
		i.own.ServeHTTP(w, r)
		return
	}
	key := host + r.URL.EscapedPath()
	if f, ok := i.files[key]; ok {
		i.file(w, r, f)
		return
	}
	for _, o := range i.prefixes {
		rest, ok := strings.CutPrefix(key, o.at)
		if !ok || rest != "" && rest[0] != '/' {
			continue
		}
		next := r.Clone(r.Context())
		if next.URL.RawPath = o.path + rest; next.URL.RawPath == "" {
			next.URL.RawPath = "/"
		}
		var err error
		if next.URL.Path, err = url.PathUnescape(next.URL.RawPath); err == nil {
			o.handler.ServeHTTP(w, next)
			return
		}
	}
	http.Error(w, "not found: nothing of "+host+" at this path is in the release", http.StatusNotFound)
}

func (i impersonation) file(w http.ResponseWriter, r *http.Request, f artifact.File) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		http.Error(w, "this mirror is read only", http.StatusMethodNotAllowed)
		return
	}
	b, err := i.served.Open(f.Digest)
	if err != nil {
		http.Error(w, "not held", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("ETag", `"`+f.Digest.Hex()+`"`)
	http.ServeContent(w, r, "", time.Time{}, b)
	_ = b.Close() // only read from
}

// impersonatedHosts are the hosts that a release could answer for, in order.
func impersonatedHosts(v *crossing.Served, ecosystems []ecosystem.Ecosystem) []string {
	i, ok := impersonate(nil, v, ecosystems, nil).(impersonation)
	if !ok {
		return nil
	}
	out := []string{}
	for h := range i.hosts {
		out = append(out, h)
	}
	slices.Sort(out)
	return out
}
