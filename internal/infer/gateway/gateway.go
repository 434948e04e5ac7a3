// Package gateway is the OpenAI API in front of engines.
//
// The way of one call: it is read strictly (parser.go), the guard rules on it, tokens
// are reserved, its opening record is written, it waits for its turn (queue.go), an
// engine is chosen (choose.go), the answer is passed on while the guard reads it
// (relay.go) in a form that tells an eavesdropper no more than is wanted (shape.go), and
// its closing record is written. A judge may be asked about it then (judge.go). What goes
// on is what came, byte for byte, but for the few fields that belong to the site.
//
// It never dials: an engine brings its own transport. It writes no prompt and no answer
// anywhere.
package gateway

import (
	"bufio"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"enisle/internal/infer/engine"
	"enisle/internal/infer/guard"
	"enisle/internal/infer/openai"
)

// User is who makes a call.
type User struct {
	Name    string // empty: everybody
	Project string
	Weight  int      // share beside others; 0 means 1
	Tokens  int64    // a day; 0: no limit
	Models  []string // that may be asked; none named: all
}

// tenant is whose calls may share what an engine remembers.
func (u User) tenant() string {
	if u.Project != "" {
		return "project " + u.Project
	}
	return "user " + u.Name
}

func (u User) mayAsk(model string) bool {
	return len(u.Models) == 0 || slices.Contains(u.Models, model)
}

// Quota counts the tokens of users who have a limit.
type Quota interface {
	// Reserve takes tokens from what the user has left today, or says false and when
	// there will be some again. settle gives back what was not used; it is called once.
	Reserve(user string, tokens, limit int64, now time.Time) (settle func(used int64), again time.Duration, ok bool)
}

// Options say what is behind the gateway. Engines is needed; for the others
// the zero value works.
type Options struct {
	Engines    func() []engine.Engine     // asked at every request
	Coming     func() []string            // names of models that are being loaded; nil: none
	Who        func(r *http.Request) User // nil: everybody is the same user
	Guard      guard.Guard                // nil: nothing is read
	Quota      Quota                      // nil: users with a limit are refused
	Recorder   Recorder                   // nil: nothing is recorded
	Keep       bool                       // the recorder is given streamed answers as well, not their hashes alone
	Shape      Shape                      // of what is streamed
	Metrics    prometheus.Registerer
	MaxBody    int64         // bytes of a request; 0 means 4 MiB
	MaxHeld    int64         // bytes that all calls hold together; 0 means 512 MiB
	MaxWaiting int           // calls that wait for a model; 0 means 256
	MaxWait    time.Duration // until a call is begun; 0 means a minute
	MaxTime    time.Duration // of one call; 0 means ten minutes
	MaxUpload  time.Duration // until a request is there; 0 means a minute
	MaxStall   time.Duration // for which a client may take nothing; 0 means 30 seconds
	RetryAfter time.Duration // told to clients when no engine is up; 0 means five seconds
	Log        *slog.Logger
}

type gateway struct {
	opt     Options
	routes  map[string]*route
	metrics metrics
	chooser *chooser
	room    room
	buffers sync.Pool // of *bufio.Reader
	salt    [32]byte  // for the caches of engines; another at every start
	judging judging

	mu    sync.Mutex
	lines map[string]*line  // by model; guarded by mu
	salts map[string][]byte // by tenant and model; guarded by mu
}

// New returns the handler of the API. Paths that it does not know get an error in the
// same shape.
func New(opt Options) *Handler {
	if opt.MaxBody <= 0 {
		opt.MaxBody = 4 << 20
	}
	if opt.MaxHeld <= 0 {
		opt.MaxHeld = 512 << 20
	}
	if opt.MaxWaiting <= 0 {
		opt.MaxWaiting = 256
	}
	if opt.MaxWait <= 0 {
		opt.MaxWait = time.Minute
	}
	if opt.MaxTime <= 0 {
		opt.MaxTime = 10 * time.Minute
	}
	if opt.MaxStall <= 0 {
		opt.MaxStall = 30 * time.Second
	}
	if opt.MaxUpload <= 0 {
		opt.MaxUpload = time.Minute
	}
	if opt.RetryAfter <= 0 {
		opt.RetryAfter = 5 * time.Second
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Who == nil {
		opt.Who = func(*http.Request) User { return User{} }
	}
	g := &gateway{opt: opt, routes: makeRoutes(), chooser: newChooser(), lines: map[string]*line{}, salts: map[string][]byte{}}
	g.room.limit = opt.MaxHeld
	g.buffers.New = func() any { return bufio.NewReaderSize(nil, bufSize) }
	_, _ = rand.Read(g.salt[:]) // never fails, see crypto/rand
	g.metrics = newMetrics(opt.Metrics, g, opt.Log)
	g.judging.init(g)
	mux := http.NewServeMux()
	mux.HandleFunc("/v1/models", only(http.MethodGet, g.models))
	mux.HandleFunc("/v1/models/{id...}", only(http.MethodGet, g.model))
	calls := map[string]http.Handler{}
	for path, rt := range g.routes {
		calls[path] = only(http.MethodPost, func(w http.ResponseWriter, r *http.Request, id string) { g.call(w, r, rt, id) })
	}
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		openai.WriteError(w, openai.Errorf(http.StatusNotFound, "unknown_url", "there is nothing at this address"))
	})
	h := &Handler{g, calls, mux}
	g.ollama(mux, h)
	return h
}

// Handler answers the API. Close it when no call is under way any more.
type Handler struct {
	g     *gateway
	calls map[string]http.Handler // by path: what is asked most
	other http.Handler
}

// ServeHTTP answers one request.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if call := h.calls[r.URL.Path]; call != nil {
		call.ServeHTTP(w, r)
		return
	}
	h.other.ServeHTTP(w, r)
}

// Close ends what follows calls: judgements under way have two seconds more, the others
// are recorded as not judged.
func (h *Handler) Close() { h.g.judging.close() }

// only refuses other methods and names every request.
func only(method string, next func(http.ResponseWriter, *http.Request, string)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		id := "req_" + rand.Text()
		w.Header().Set("X-Request-Id", id)
		if r.Method != method {
			w.Header().Set("Allow", method)
			openai.WriteError(w, openai.Errorf(http.StatusMethodNotAllowed, "method_not_allowed", "use %s here", method))
			return
		}
		next(w, r, id)
	}
}

// entry is a model in the list: what clients know, and what is served for it.
type entry struct {
	openai.Model
	Weights string `json:"weights,omitempty"`
	Context int    `json:"context,omitempty"`
	Size    int64  `json:"-"` // bytes; 0: unknown
}

// list returns the models that a user may ask, by name.
func (g *gateway) list(u User) (out []entry) {
	for _, e := range g.opt.Engines() {
		for _, m := range e.Models() {
			if u.mayAsk(m.ID) && !slices.ContainsFunc(out, func(o entry) bool { return o.ID == m.ID }) {
				out = append(out, entry{openai.Model{ID: m.ID, Object: "model", Created: m.Since.Unix(), OwnedBy: "enisle"}, m.Weights, m.Context, m.Size})
			}
		}
	}
	slices.SortFunc(out, func(a, b entry) int { return strings.Compare(a.ID, b.ID) })
	return out
}

func (g *gateway) models(w http.ResponseWriter, r *http.Request, _ string) {
	writeJSON(w, struct {
		Object string  `json:"object"`
		Data   []entry `json:"data"`
	}{"list", append([]entry{}, g.list(g.opt.Who(r))...)})
}

func (g *gateway) model(w http.ResponseWriter, r *http.Request, _ string) {
	all := g.list(g.opt.Who(r))
	i := slices.IndexFunc(all, func(e entry) bool { return e.ID == r.PathValue("id") })
	if i < 0 {
		openai.WriteError(w, g.notServed(r.PathValue("id"), g.opt.Who(r), all))
		return
	}
	writeJSON(w, all[i])
}

// maxNamed is how many models an error names.
const maxNamed = 5

// notServed says why nobody can be asked for a model: it is being loaded, and clients try
// again, or it is not here.
func (g *gateway) notServed(name string, u User, all []entry) *openai.Error {
	if g.opt.Coming != nil && u.mayAsk(name) && slices.Contains(g.opt.Coming(), name) {
		return openai.Errorf(http.StatusServiceUnavailable, "engine_loading", "the model %.80q is being loaded", name).Retry(g.opt.RetryAfter)
	}
	return unknownModel(name, all)
}

// unknownModel says that a model is not here, and what is. A name that is somebody
// else's to know is answered like one that does not exist.
func unknownModel(name string, all []entry) *openai.Error {
	near := slices.Clone(all)
	slices.SortStableFunc(near, func(a, b entry) int { return likeness(name, b.ID) - likeness(name, a.ID) })
	var names []string
	for _, e := range near[:min(len(near), maxNamed)] {
		names = append(names, e.ID)
	}
	hint := "no model is served yet"
	if len(names) > 0 {
		hint = "closest here: " + strings.Join(names, ", ")
	}
	return openai.Errorf(http.StatusNotFound, "model_not_found", "the model %.80q is not on this island, which reaches no other: %s", name, hint).On("model")
}

// likeness counts the parts that two names have in common.
func likeness(a, b string) (n int) {
	parts := func(s string) []string {
		return strings.FieldsFunc(strings.ToLower(s), func(r rune) bool { return strings.ContainsRune("/-_.: ", r) })
	}
	for _, p := range parts(a) {
		for _, q := range parts(b) {
			if p == q {
				n += 2
			} else if strings.HasPrefix(p, q) || strings.HasPrefix(q, p) {
				n++
			}
		}
	}
	return n
}

// serving returns the engines that run a model, and the model.
func (g *gateway) serving(name string) (out []engine.Engine, m engine.Model) {
	all := g.opt.Engines()
	for _, e := range all {
		for _, has := range e.Models() {
			if has.ID == name {
				out, m = append(out, e), has
			}
		}
	}
	g.chooser.keep(all)
	return out, m
}

// line returns the queue before a model that exists.
func (g *gateway) line(model string) *line {
	g.mu.Lock()
	defer g.mu.Unlock()
	l := g.lines[model]
	if l == nil {
		l = newLine(g.opt.MaxWaiting)
		g.lines[model] = l
	}
	return l
}

// owned returns the changes that make a request the site's: what the engine remembers
// is kept apart by tenant, tokens are counted, and what belongs to the site is not the
// client's to say.
func (g *gateway) owned(q *request, m engine.Model, t engine.Traits, u User) []edit {
	var edits []edit
	owned := t.Owned
	switch t.Separate {
	case engine.Salted:
		edits = append(edits, q.set("cache_salt", g.saltOf(u.tenant()+"\x00"+q.model)))
		for _, f := range q.media { // pictures are kept beside that cache
			edits = append(edits, edit{f.start, f.end, g.salted(u.tenant() + "\x00" + q.model + "\x00" + f.name)})
		}
	case engine.Uncached:
		edits = append(edits, q.set("cache_prompt", []byte("false")))
		owned = append(slices.Clone(owned), "id_slot")
	case engine.Stateless, engine.Shared:
	}
	if m.Upstream != "" && m.Upstream != q.model {
		name, err := json.Marshal(m.Upstream)
		if err != nil {
			name = []byte(`""`) // a string; cannot fail
		}
		edits = append(edits, q.set("model", name))
	}
	if q.bound {
		edits = append(edits, q.set(q.route.limit, strconv.AppendInt(nil, int64(q.limit), 10)))
	}
	if q.stream && q.route.counts && !q.wantUsage {
		edits = append(edits, q.countUsage())
	}
	return append(edits, q.drop(owned)...)
}

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		openai.WriteError(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(b) // the client may have gone
}

// maxSalts bounds how many salts are remembered.
const maxSalts = 10_000

// saltOf returns the salt of a tenant at a model, as JSON.
func (g *gateway) saltOf(of string) []byte {
	g.mu.Lock()
	defer g.mu.Unlock()
	if s, ok := g.salts[of]; ok {
		return s
	}
	s := g.salted(of)
	if len(g.salts) >= maxSalts {
		clear(g.salts)
	}
	g.salts[of] = s
	return s
}

// salted is a secret hash, as JSON.
func (g *gateway) salted(of string) []byte {
	mac := hmac.New(sha256.New, g.salt[:])
	mac.Write([]byte(of))
	return []byte(`"` + hex.EncodeToString(mac.Sum(nil)[:16]) + `"`)
}

// mayShare reports whether a user's calls may go to an engine: one that keeps tenants
// apart in no way is for one of them, unless it is accepted that it is for all.
func mayShare(t engine.Traits, u User) bool {
	return t.Separate != engine.Shared || u.Name == "" || t.For == "*" || t.For != "" && (t.For == u.Name || t.For == u.Project)
}
