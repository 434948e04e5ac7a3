package app

import (
	"cmp"
	"net"
	"net/http"
	"net/url"
	"regexp"
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

//
// Where files came from is what the low site says. So a file is never given where a
// registry of another kind answers: it would be taken for one of its pages. And what
// the mirror has under its own paths it has under every name.

// impersonation answers for the origins of one release.
type impersonation struct {
	own      http.Handler
	served   ecosystem.Release
	files    map[string]artifact.File // by host and path
	prefixes []origin                 // longest first
	mounts   map[string]string        // first element of the mirror's own paths → kind
	hosts    map[string]bool
}

// origin is a registry: what lies below at is answered by a handler below path.
type origin struct {
	at, path, kind string
	handler        http.Handler
}

// impersonate wraps what a release is served by. handlers are by ecosystem.
func impersonate(own http.Handler, v ecosystem.Release, ecosystems []ecosystem.Ecosystem, handlers map[string]http.Handler) http.Handler {
	i := impersonation{own: own, served: v, files: map[string]artifact.File{}, mounts: map[string]string{}, hosts: map[string]bool{}}
	byName := map[string]ecosystem.Impersonator{}
	for _, e := range ecosystems {
		i.mounts[ecosystem.PrefixOf(e)] = e.Name()
		if imp, ok := e.(ecosystem.Impersonator); ok {
			byName[e.Name()] = imp
		}
	}
	seen := map[string]bool{}
	for _, a := range v.Artifacts("") {
		imp, ok := byName[a.Ref.Kind]
		if !ok {
			continue
		}
		for at, path := range imp.Origins(a) {
			host, below, ok := hostPath(at)
			if key := host + below; ok && !seen[key] {
				seen[key], i.hosts[host] = true, true
				i.prefixes = append(i.prefixes, origin{strings.TrimSuffix(key, "/"), path, a.Ref.Kind, handlers[a.Ref.Kind]})
			}
		}
	}
	slices.SortFunc(i.prefixes, func(a, b origin) int { return cmp.Or(len(b.at)-len(a.at), strings.Compare(a.at, b.at)) })
	for _, a := range v.Artifacts("") {
		for _, f := range a.Files {
			host, path, ok := hostPath(f.Origin)
			if !ok || a.From != "" || i.ofAnother(a.Ref.Kind, host, path) {
				continue
			}
			i.files[host+path], i.hosts[host] = f, true
		}
	}
	return i
}

// ofAnother reports whether a path is that of a registry of another kind, at a host or
// on the mirror itself.
func (i impersonation) ofAnother(kind, host, path string) bool {
	if of, ok := i.mounts[firstElement(path)]; ok && of != kind {
		return true
	}
	for _, o := range i.prefixes {
		if o.holds(host + path) {
			return o.kind != kind
		}
	}
	return false
}

// holds reports whether a host and path lie below the registry.
func (o origin) holds(key string) bool {
	rest, ok := strings.CutPrefix(key, o.at)
	return ok && (rest == "" || rest[0] == '/')
}

// firstElement is that of a path.
func firstElement(path string) string {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	return first
}

// hostPath splits an address of the web into its host and its escaped path.
func hostPath(address string) (host, path string, ok bool) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || !hostForm.MatchString(u.Hostname()) {
		return "", "", false
	}
	return strings.ToLower(u.Hostname()), u.EscapedPath(), true
}

// hostForm is a name or an address; no pattern, which a certificate would be for;
// constant.
var hostForm = regexp.MustCompile(`^[A-Za-z0-9_.:-]{1,253}$`)

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
	_, mine := i.mounts[firstElement(r.URL.Path)]
	for _, o := range i.prefixes {
		if !o.holds(key) {
			continue
		}
		next := r.Clone(r.Context())
		if next.URL.RawPath = o.path + strings.TrimPrefix(key, o.at); next.URL.RawPath == "" {
			next.URL.RawPath = "/"
		}
		var err error
		if next.URL.Path, err = url.PathUnescape(next.URL.RawPath); err != nil {
			continue
		}
		if !mine {
			o.handler.ServeHTTP(w, next)
			return
		}
		first := &held{ResponseWriter: w, header: http.Header{}, keep: func(status int, _ http.Header) bool { return status != http.StatusNotFound }}
		if o.handler.ServeHTTP(first, next); first.sent {
			return
		}
	}
	if mine {
		i.own.ServeHTTP(w, r)
		return
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
