package app

import (
	"context"
	"errors"
	"fmt"
	"html/template"
	"net/http"
	"strings"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"enisle/internal/crossing"
	"enisle/internal/ecosystem"
	"enisle/internal/face/server"
	"enisle/internal/site"
)

// mirrors builds the handler of a release once and keeps it while a channel
// points at it.
type mirrors struct {
	site       *site.Site
	ecosystems []ecosystem.Ecosystem

	mu      sync.Mutex
	current map[string]mirror // by channel; guarded by mu
}

type mirror struct {
	served  *crossing.Served
	handler http.Handler
}

var _ server.Mirrors = (*mirrors)(nil)

func newMirrors(s *site.Site, ecosystems []ecosystem.Ecosystem) *mirrors {
	return &mirrors{site: s, ecosystems: ecosystems, current: map[string]mirror{}}
}

// Channel returns the handler of the release that a channel points at now.
func (m *mirrors) Channel(ctx context.Context, name string) (http.Handler, error) {
	if err := crossing.CheckChannel(name); err != nil {
		return nil, missing{err}
	}
	view, err := crossing.ChannelView(ctx, m.site, name)
	if err != nil {
		if errors.Is(err, crossing.ErrNoRelease) {
			return nil, missing{err}
		}
		return nil, err
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if cur, ok := m.current[name]; ok && cur.served.View() == view {
		return cur.handler, nil
	}
	v, err := crossing.ServedBy(ctx, m.site, name)
	if err != nil {
		return nil, err
	}
	h, err := m.build(&v)
	if err != nil {
		return nil, err
	}
	m.current[name] = mirror{&v, h}
	return h, nil
}

// missing is an error that clients see as 404.
type missing struct{ error }

func (missing) NotFound() bool  { return true }
func (e missing) Unwrap() error { return e.error }

func (m *mirrors) build(v *crossing.Served) (http.Handler, error) {
	mux := http.NewServeMux()
	for _, eco := range m.ecosystems {
		h, err := eco.Handler(v)
		if err != nil {
			return nil, fmt.Errorf("mirror %s: %w", eco.Name(), err)
		}
		mux.Handle("/"+eco.Name()+"/", http.StripPrefix("/"+eco.Name(), h))
	}
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { welcome(w, m.site.Identity.Name, v) })
	return mux, nil
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
}

func newMetrics() *metrics {
	m := &metrics{prometheus.NewRegistry(), prometheus.NewCounterVec(prometheus.CounterOpts{
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
	switch path {
	case "pypi", "npm", "files", "v1", "c", "healthz", "readyz", "metrics":
	default:
		path = "other"
	}
	m.answers.WithLabelValues(path, http.StatusText(status)).Inc()
}
