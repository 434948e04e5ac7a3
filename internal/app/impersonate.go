package app

import (
	"cmp"
	"encoding/json"
	"io"
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
// registry of another kind answers: it would be taken for one of its pages. What was
// recorded of a build is such pages, and says so by its kind. And what the mirror has
// under its own paths it has under every name.

// impersonation answers for the origins of one release.
type impersonation struct {
	own      http.Handler
	served   ecosystem.Release
	files    map[string]given           // by host, path and query
	prefixes []origin                   // longest first
	mounts   map[string]map[string]bool // kinds by first element of the mirror's own paths
	hosts    map[string]bool
}

// given is a file, and of what type it was where it came from, if that was recorded.
type given struct {
	artifact.File
	kind string
}

// maxTypes is the largest list of types that is read, in bytes.
const maxTypes = 64 << 20

// recordedTypes reads of what type recorded files are, by path.
func recordedTypes(v ecosystem.Release, a artifact.Artifact) map[string]string {
	out := map[string]string{}
	if a.Ref.Kind != crossing.RecordedKind {
		return out
	}
	for _, f := range a.Files {
		if f.Path != crossing.RecordedTypes || f.Size > maxTypes {
			continue
		}
		b, err := v.Open(f.Digest)
		if err != nil {
			return out
		}
		_ = json.NewDecoder(io.LimitReader(b, maxTypes)).Decode(&out) // without it, files are of no type
		_ = b.Close()                                                 // only read from
	}
	return out
}

// origin is a registry: what lies below at is answered by a handler below path.
type origin struct {
	at, path, kind string
	handler        http.Handler
}

// impersonate wraps what a release is served by. handlers are by ecosystem.
func impersonate(own http.Handler, v ecosystem.Release, ecosystems []ecosystem.Ecosystem, handlers map[string]http.Handler) http.Handler {
	i := impersonation{own: own, served: v, files: map[string]given{}, mounts: map[string]map[string]bool{}, hosts: map[string]bool{}}
	byKind := map[string]ecosystem.Ecosystem{}
	for _, e := range ecosystems {
		byKind[ecosystem.KindOf(e)] = e
		at := ecosystem.PrefixOf(e)
		if i.mounts[at] == nil {
			i.mounts[at] = map[string]bool{}
		}
		i.mounts[at][ecosystem.KindOf(e)] = true
	}
	seen := map[string]bool{}
	for _, a := range v.Artifacts("") {
		eco := byKind[a.Ref.Kind]
		imp, ok := eco.(ecosystem.Impersonator)
		if !ok {
			continue
		}
		for at, path := range imp.Origins(a) {
			host, below, ok := hostPath(at)
			key := strings.TrimSuffix(host+below, "/")
			if one := eco.Name() + " " + key + " " + path; ok && !seen[one] {
				seen[one], i.hosts[host] = true, true
				i.prefixes = append(i.prefixes, origin{key, path, a.Ref.Kind, handlers[eco.Name()]})
			}
		}
	}
	slices.SortFunc(i.prefixes, func(a, b origin) int { return cmp.Or(len(b.at)-len(a.at), strings.Compare(a.at, b.at)) })
	for _, a := range v.Artifacts("") {
		types := recordedTypes(v, a)
		for _, f := range a.Files {
			if host, path, ok := hostPath(f.Origin); ok && a.From == "" && !i.ofAnother(a.Ref.Kind, host, path) {
				i.files[host+path], i.hosts[host] = given{f, types[f.Path]}, true
			}
		}
	}
	return i
}

// ofAnother reports whether a path is that of a registry of another kind, at a host or
// on the mirror itself.
func (i impersonation) ofAnother(kind, host, path string) bool {
	if kind == crossing.RecordedKind {
		return false
	}
	path, _, _ = strings.Cut(path, "?")
	if of, ok := i.mounts[firstElement(path)]; ok && !of[kind] {
		return true
	}
	another := false
	for _, o := range i.prefixes {
		if o.holds(host + path) {
			if o.kind == kind {
				return false
			}
			another = true
		}
	}
	return another
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
	host = strings.ToLower(u.Hostname())
	if ip := net.ParseIP(host); ip != nil && ip.IsLoopback() || host == "localhost" {
		return "", "", false // a registry on the collector's own machine; here it is the mirror itself
	}
	path = u.EscapedPath()
	if path == "" {
		path = "/"
	}
	if u.RawQuery != "" {
		path += "?" + u.RawQuery
	}
	return host, path, true
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
	// The registry's own answer says more than the bytes; where it has none, there may
	// still be a file at the path.
	key := host + r.URL.EscapedPath()
	f, isFile := i.files[key+"?"+r.URL.RawQuery]
	if !isFile {
		f, isFile = i.files[key]
	}
	var matching []origin
	for _, o := range i.prefixes {
		if o.holds(key) {
			matching = append(matching, o)
		}
	}
	_, mine := i.mounts[firstElement(r.URL.Path)]
	for n, o := range matching {
		next := r.Clone(r.Context())
		if next.URL.RawPath = o.path + strings.TrimPrefix(key, o.at); next.URL.RawPath == "" {
			next.URL.RawPath = "/"
		}
		var err error
		if next.URL.Path, err = url.PathUnescape(next.URL.RawPath); err != nil {
			break
		}
		if n == len(matching)-1 && !isFile && !mine {
			o.handler.ServeHTTP(w, next)
			return
		}
		first := &held{ResponseWriter: w, header: http.Header{}, keep: func(status int, _ http.Header) bool { return status != http.StatusNotFound }}
		if o.handler.ServeHTTP(first, next); first.sent {
			return
		}
	}
	if isFile {
		i.file(w, r, f)
		return
	}
	if mine {
		i.own.ServeHTTP(w, r)
		return
	}
	http.Error(w, "not found: nothing of "+host+" at this path is in the release", http.StatusNotFound)
}

func (i impersonation) file(w http.ResponseWriter, r *http.Request, f given) {
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
	w.Header().Set("Content-Type", cmp.Or(f.kind, "application/octet-stream"))
	w.Header().Set("Content-Security-Policy", "default-src 'none'; sandbox") // a stranger's page is for clients, not for people
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
