package app

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"io"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"enisle/internal/artifact"
	"enisle/internal/crossing"
	"enisle/internal/ecosystem"
	"enisle/internal/face/server"
	"enisle/internal/site"
)

// mirrors builds the handler of a release once and keeps it while a channel
// points at it, and for a while after.
//
// A client that installs asks several times: for what there is, then for files. A
// flip in between must not show it two releases. So pip, uv and npm stay with the
// release that their connection or session began with, for at most pinned; and a
// file that was listed is given for at most graced, even after a flip. What is
// recalled is gone at once, for everybody.
type mirrors struct {
	site       *site.Site
	ecosystems []ecosystem.Ecosystem
	pulls      *pulls
	misses     *misses

	mu      sync.Mutex
	current map[string][]mirror // by channel, what it points at first, then what it pointed at
	pins    map[string]pin      // by connection or session
	before  map[string]pin      // those of the minute before
	turned  time.Time
	views   map[string]seenView // by channel
}

// seenView is what a channel served when the state had a version.
type seenView struct {
	version uint32
	view    crossing.View
}

type mirror struct {
	served  *crossing.Served
	handler http.Handler
	left    time.Time // when the channel was seen pointing elsewhere
}

// pin is the release that an installing client began with.
type pin struct {
	view  crossing.View
	since time.Time
}

const (
	pinned  = time.Minute
	graced  = 10 * time.Minute
	maxKept = 8       // handlers of a channel
	maxPins = 200_000 // in a minute; then new clients are not pinned
)

var _ server.Mirrors = (*mirrors)(nil)

func newMirrors(s *site.Site, ecosystems []ecosystem.Ecosystem, p *pulls, ms *misses) *mirrors {
	return &mirrors{site: s, ecosystems: ecosystems, pulls: p, misses: ms, current: map[string][]mirror{}, pins: map[string]pin{}, views: map[string]seenView{}}
}

// Channel returns the handler of the release that a channel points at now, or of the
// one that this client began with.
func (m *mirrors) Channel(r *http.Request, name string) (http.Handler, error) {
	if err := crossing.CheckChannel(name); err != nil {
		return nil, missing{err}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	view, err := m.view(r.Context(), name)
	if err != nil {
		if errors.Is(err, crossing.ErrNoRelease) {
			return nil, missing{err}
		}
		return nil, err
	}
	if err := m.follow(r.Context(), name, view); err != nil {
		return nil, err
	}
	all := m.current[name]
	i := 0
	if want, ok := m.pinned(r, name, view); ok {
		i = max(0, slices.IndexFunc(all, func(c mirror) bool { return c.served.View() == want }))
	}
	h := all[i].handler
	if rest := slices.Delete(slices.Clone(all), i, i+1); len(rest) > 0 {
		h = before{h, rest}
	}
	return h, nil
}

// view returns what a channel serves now. The state is asked only when it has changed.
func (m *mirrors) view(ctx context.Context, name string) (crossing.View, error) {
	version := m.site.State.Version()
	if s, ok := m.views[name]; ok && s.version == version {
		return s.view, nil
	}
	v, err := crossing.ChannelView(ctx, m.site, name)
	if err == nil {
		m.views[name] = seenView{version, v} // read before it was asked: never newer than what it says
	}
	return v, err
}

// follow puts the release that the channel points at first, and forgets what it
// pointed at too long ago, or from before a recall.
func (m *mirrors) follow(ctx context.Context, name string, view crossing.View) error {
	all, now := m.current[name], time.Now()
	if len(all) > 0 && all[0].served.View() == view {
		for len(all) > 1 && now.Sub(all[len(all)-1].left) > graced {
			all = all[:len(all)-1]
		}
		m.current[name] = all
		return nil
	}
	var next mirror
	if i := slices.IndexFunc(all, func(c mirror) bool { return c.served.View() == view }); i >= 0 {
		next = all[i]
	} else {
		v, err := crossing.ServedBy(ctx, m.site, name)
		if err != nil {
			return err
		}
		h, err := m.build(&v, name)
		if err != nil {
			return err
		}
		next = mirror{served: &v, handler: h}
	}
	view = next.served.View()
	kept := []mirror{next}
	for i, c := range all {
		if i == 0 {
			c.left = now
		}
		if c.served.View() != view && c.served.View().Recalls == view.Recalls && now.Sub(c.left) <= graced && len(kept) < maxKept {
			kept = append(kept, c)
		}
	}
	m.current[name] = kept
	return nil
}

// session names the installation that a request is part of, if its client is one
// that installs: npm says which, pip and uv keep their connection.
func session(r *http.Request) string {
	agent, _, _ := strings.Cut(r.UserAgent(), "/")
	host, _, _ := net.SplitHostPort(r.RemoteAddr)
	switch id := r.Header.Get("Npm-Session"); {
	case agent == "npm" && id != "" && len(id) <= 64:
		return host + " npm " + id
	case agent == "pip" || agent == "uv":
		if n := server.Connection(r.Context()); n > 0 {
			return fmt.Sprintf("connection %d", n)
		}
	}
	return ""
}

// pinned returns the view that the client began with, and remembers it.
func (m *mirrors) pinned(r *http.Request, channel string, now crossing.View) (crossing.View, bool) {
	key := session(r)
	if key == "" {
		return now, false
	}
	key += " " + channel
	// Pins live for a minute: those of the last minute and of the one before are enough,
	// and forgetting costs nothing.
	if time.Since(m.turned) > pinned {
		m.before, m.pins, m.turned = m.pins, map[string]pin{}, time.Now()
	}
	p, ok := m.pins[key]
	if !ok {
		p, ok = m.before[key]
	}
	if ok && time.Since(p.since) < pinned && p.view.Recalls == now.Recalls {
		return p.view, true
	}
	if len(m.pins) < maxPins {
		m.pins[key] = pin{now, time.Now()}
	}
	return now, true
}

// before gives a file of a release that the channel pointed at a moment ago, where
// the present one has none at this place.
type before struct {
	http.Handler
	releases []mirror
}

func (f before) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	first := &held{ResponseWriter: w, header: http.Header{}, keep: func(status int, _ http.Header) bool { return status != http.StatusNotFound }}
	f.Handler.ServeHTTP(first, r)
	if first.sent {
		return
	}
	for _, b := range f.releases {
		next := &held{ResponseWriter: w, header: http.Header{}, keep: func(status int, h http.Header) bool {
			return status < 400 && etagged(h) != ""
		}}
		b.handler.ServeHTTP(next, r)
		if next.sent {
			return
		}
	}
	for k, v := range first.header {
		w.Header()[k] = v
	}
	w.WriteHeader(http.StatusNotFound)
	// The client may be gone; there is nobody left to tell.
	_, _ = w.Write(first.body)
}

// held is an answer that is sent only if its head is one to keep.
type held struct {
	http.ResponseWriter
	header  http.Header
	keep    func(status int, h http.Header) bool
	decided bool
	sent    bool
	body    []byte // of an answer that is not sent, at most 64 KiB
}

func (h *held) Header() http.Header { return h.header }

func (h *held) WriteHeader(status int) {
	if h.decided {
		return
	}
	if h.decided = true; !h.keep(status, h.header) {
		return
	}
	h.sent = true
	for k, v := range h.header {
		h.ResponseWriter.Header()[k] = v
	}
	h.ResponseWriter.WriteHeader(status)
}

func (h *held) Write(b []byte) (int, error) {
	h.WriteHeader(http.StatusOK)
	if h.sent {
		return h.ResponseWriter.Write(b)
	}
	h.body = append(h.body, b[:min(len(b), 64<<10-len(h.body))]...)
	return len(b), nil
}

// ReadFrom keeps the way by which files are sent without being copied.
func (h *held) ReadFrom(r io.Reader) (int64, error) {
	if h.WriteHeader(http.StatusOK); h.sent {
		return io.Copy(h.ResponseWriter, r)
	}
	return io.Copy(struct{ io.Writer }{h}, r)
}

// Unwrap lets http.ResponseController reach the real writer.
func (h *held) Unwrap() http.ResponseWriter { return h.ResponseWriter }

// etagged returns the digest that an answer names as its content; empty: none. Where
// a protocol wants another entity tag, the digest stands in a header of its own.
func etagged(h http.Header) artifact.Digest {
	name := h.Get(ecosystem.DigestHeader)
	if tag := h.Get("ETag"); name == "" && len(tag) == 66 && tag[0] == '"' && tag[65] == '"' {
		name = "sha256:" + tag[1:65]
	}
	if name == "" {
		return ""
	}
	d, err := artifact.ParseDigest(name)
	if err != nil {
		return ""
	}
	return d
}

// missing is an error that clients see as 404.
type missing struct{ error }

func (missing) NotFound() bool  { return true }
func (e missing) Unwrap() error { return e.error }

func (m *mirrors) build(v *crossing.Served, channel string) (http.Handler, error) {
	all := worlds{by: map[string]http.Handler{}}
	handlers := map[string]http.Handler{}
	for _, eco := range m.ecosystems {
		h, err := eco.Handler(v)
		if err != nil {
			return nil, fmt.Errorf("mirror %s: %w", eco.Name(), err)
		}
		if h == nil {
			continue // another one shows it
		}
		h = m.misses.watch(h, m.sharing(eco))
		for _, e := range m.sharing(eco) {
			handlers[e.Name()] = h
		}
		all.by[ecosystem.PrefixOf(eco)] = http.StripPrefix("/"+ecosystem.PrefixOf(eco), h)
	}
	all.home = ecosystem.ReadOnly(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { welcome(w, m.site.Identity.Name, v) }))
	return m.pulls.watch(impersonate(all, v, m.ecosystems, handlers), v, channel), nil
}

// worlds are the mirrors of all package worlds, by the first element of their paths.
type worlds struct {
	by   map[string]http.Handler
	home http.Handler
}

// ServeHTTP expects a clean path, as the server's own multiplexer makes it.
func (m worlds) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	first := firstElement(r.URL.Path)
	h, ok := m.by[first]
	switch {
	case r.URL.Path == "/":
		m.home.ServeHTTP(w, r)
	case !ok:
		http.NotFound(w, r)
	case len(r.URL.Path) == 1+len(first):
		w.Header().Set("Location", first+"/")
		w.WriteHeader(http.StatusMovedPermanently)
	default:
		h.ServeHTTP(w, r)
	}
}

// sharing lists an ecosystem and those that it shows besides its own.
func (m *mirrors) sharing(eco ecosystem.Ecosystem) []ecosystem.Ecosystem {
	all := []ecosystem.Ecosystem{eco}
	for _, e := range m.ecosystems {
		if e.Name() != eco.Name() && ecosystem.PrefixOf(e) == ecosystem.PrefixOf(eco) {
			all = append(all, e)
		}
	}
	return all
}

// welcome lists what a release holds, for people.
func welcome(w http.ResponseWriter, name string, v *crossing.Served) {
	page := template.Must(template.New("").Parse(strings.TrimSpace(`
<!doctype html><meta charset="utf-8"><title>{{.Name}}</title>
<h1>{{.Name}}</h1><p>release {{.Number}}</p>
<ul>{{range .Artifacts}}<li>{{.Ref}}</li>{{end}}</ul>`)))
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Header().Set("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'")
	// The client may be gone; there is nobody left to tell.
	_ = page.Execute(w, map[string]any{"Name": name, "Number": v.Number(), "Artifacts": v.Artifacts("")})
}

// metrics is what serve counts.
type metrics struct {
	registry *prometheus.Registry
	answers  *prometheus.CounterVec
	paths    map[string]bool // first elements that are served
}

func newMetrics(ecosystems []ecosystem.Ecosystem) *metrics {
	paths := map[string]bool{"v1": true, "api": true, "c": true, "healthz": true, "readyz": true, "metrics": true}
	for _, e := range ecosystems {
		paths[ecosystem.PrefixOf(e)] = true
	}
	m := &metrics{paths: paths, registry: prometheus.NewRegistry(), answers: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "enisle_http_answers_total", Help: "Answers given, by first element of the path and status.",
	}, []string{"path", "status"})}
	m.registry.MustRegister(m.answers, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return m
}

func (m *metrics) handler() http.Handler {
	return promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{})
}

// count counts one answer; paths nobody serves are counted together, so that a
// scanner cannot make series without end.
func (m *metrics) count(path string, status int) {
	if !m.paths[path] {
		path = "other"
	}
	m.answers.WithLabelValues(path, strconv.Itoa(status)).Inc()
}
