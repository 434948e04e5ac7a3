// Package server is the one HTTP front of a site: it routes requests to the
// mirrors and the gateway it is given, and says how the site is.
//
// It accepts connections and holds no dialler. What is behind a path, and of
// which release, is decided by whoever gives it a Mirrors; it parses nothing of
// what is served.
package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path"
	"strings"
	"sync/atomic"
	"time"

	"enisle/internal/face/http1"
	"enisle/internal/fail"
)

// Mirrors gives the handler of a channel for one request: the mirrors of one
// immutable release, rooted at /. A request is served by one handler from its
// first byte to its last, whatever happens to the channel meanwhile.
type Mirrors interface {
	Channel(r *http.Request, name string) (http.Handler, error)
}

// Access decides who may ask for what. An error with a method Unauthorized that says
// true is answered 401, any other as its kind.
type Access interface {
	// Admit returns the request with who makes it in its context. channel is only of
	// the role Mirror.
	Admit(r *http.Request, role, channel string) (*http.Request, error)
}

// What may be asked for.
const (
	RoleMirror    = "mirror"
	RoleInference = "inference"
	RoleMonitor   = "monitor"
)

// Options say what is served; Mirrors is needed.
type Options struct {
	Mirrors Mirrors
	Access  Access                          // nil: everybody may ask for everything
	Gateway http.Handler                    // below /v1/; nil: no inference here
	Beside  []string                        // further paths of the gateway
	Metrics http.Handler                    // /metrics; nil: none
	Ready   func(ctx context.Context) error // nil error: all that should serve does
	About   func() map[string]string        // facts for /healthz
	Default string                          // channel without a prefix; "" means stable
	Log     *slog.Logger                    // nil means discard
	Count   func(path string, status int)   // told of every answer, path as its first element
}

// New returns the handler of the site.
func New(opt Options) http.Handler {
	if opt.Default == "" {
		opt.Default = "stable"
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	s := &server{opt}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", s.healthz)
	mux.HandleFunc("GET /readyz", s.readyz)
	if opt.Metrics != nil {
		mux.Handle("GET /metrics", s.admit(RoleMonitor, "", opt.Metrics))
	}
	var called http.Handler // for paths below /v1/
	if opt.Gateway != nil {
		called = s.admit(RoleInference, "", s.sameOrigin(opt.Gateway))
		for _, path := range append([]string{"/v1/"}, opt.Beside...) {
			mux.Handle(path, called)
		}
	}
	mux.HandleFunc("/c/{channel}/", func(w http.ResponseWriter, r *http.Request) {
		name := r.PathValue("channel")
		http.StripPrefix("/c/"+name, s.mirror(name)).ServeHTTP(w, r)
	})
	mux.Handle("/", s.mirror(opt.Default))
	return s.observe(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Calls are many and short: mux would come to the same by a longer way.
		if p := r.URL.Path; called != nil && strings.HasPrefix(p, "/v1/") && path.Clean(p) == p {
			called.ServeHTTP(w, r)
			return
		}
		mux.ServeHTTP(w, r)
	}))
}

type server struct{ opt Options }

// admit lets through who may.
func (s *server) admit(role, channel string, next http.Handler) http.Handler {
	if s.opt.Access == nil {
		return next
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		known, err := s.opt.Access.Admit(r, role, channel)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		next.ServeHTTP(w, known)
	})
}

// sameOrigin refuses what a page of another origin has a browser send: that comes with the
// certificate of its user, or where nobody needs a key, from within.
func (s *server) sameOrigin(next http.Handler) http.Handler {
	var origins http.CrossOriginProtection
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := origins.Check(r); err != nil {
			s.fail(w, r, fail.Refuse("call the site from a program, or from a page that it serves", errors.New("a web page of another origin may not call models")))
			return
		}
		next.ServeHTTP(w, r)
	})
}

func (s *server) mirror(channel string) http.Handler {
	return s.admit(RoleMirror, channel, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h, err := s.opt.Mirrors.Channel(r, channel)
		if err != nil {
			s.fail(w, r, err)
			return
		}
		h.ServeHTTP(w, r)
	}))
}

// fail answers an error; what is refused or missing says so and no more.
func (s *server) fail(w http.ResponseWriter, r *http.Request, err error) {
	status := fail.Status(err)
	var nothing interface{ NotFound() bool }
	if errors.As(err, &nothing) && nothing.NotFound() {
		status = http.StatusNotFound
	}
	var unknown interface{ Unauthorized() bool }
	if errors.As(err, &unknown) && unknown.Unauthorized() {
		status = http.StatusUnauthorized
		// Package clients answer this with their user's name and password.
		w.Header().Set("WWW-Authenticate", `Basic realm="enisle", charset="UTF-8"`)
	}
	if status >= http.StatusInternalServerError {
		s.opt.Log.ErrorContext(r.Context(), "request", "path", r.URL.Path, "err", err)
	}
	answer(w, status, problem(r, status, err))
}

// problem is an error in the shapes that clients read: npm's and our own, or that of
// registries of images and of cargo, or that of the OpenAI API.
func problem(r *http.Request, status int, err error) any {
	message, hint := err.Error(), fail.HintOf(err)
	if status == http.StatusInternalServerError {
		message, hint = "internal error", "" // the log has it
	}
	if strings.HasPrefix(r.RequestURI, "/v1/") {
		if hint != "" { // clients of this API show the message alone
			message += ": " + hint
		}
		kind := map[int]string{http.StatusUnauthorized: "authentication_error", http.StatusForbidden: "permission_error"}[status]
		return map[string]any{"error": map[string]any{"message": message, "type": kind, "code": problemCode(status), "param": nil}}
	}
	return map[string]any{
		"error": message, "hint": hint,
		"errors": []map[string]string{{"code": problemCode(status), "message": message, "detail": message}},
	}
}

// problemCode is a code of the distribution specification, in capitals there.
func problemCode(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return "UNAUTHORIZED"
	case http.StatusForbidden:
		return "DENIED"
	case http.StatusNotFound:
		return "NAME_UNKNOWN"
	}
	return "UNKNOWN"
}

func answer(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	// The client may be gone; there is nobody left to tell.
	_ = json.NewEncoder(w).Encode(v)
}

// healthz says that the process lives and how it is isolated.
func (s *server) healthz(w http.ResponseWriter, _ *http.Request) {
	facts := map[string]string{"status": "ok"}
	if s.opt.About != nil {
		for k, v := range s.opt.About() {
			facts[k] = v
		}
	}
	answer(w, http.StatusOK, facts)
}

// readyz says whether what should be served is.
func (s *server) readyz(w http.ResponseWriter, r *http.Request) {
	if s.opt.Ready != nil {
		if err := s.opt.Ready(r.Context()); err != nil {
			answer(w, http.StatusServiceUnavailable, map[string]string{"status": "not ready", "why": err.Error()})
			return
		}
	}
	answer(w, http.StatusOK, map[string]string{"status": "ready"})
}

// observe counts and logs every answer.
func (s *server) observe(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{ResponseWriter: w, status: http.StatusOK}
		begin := time.Now()
		next.ServeHTTP(rec, r)
		if s.opt.Count != nil {
			first, _, _ := strings.Cut(strings.TrimPrefix(r.URL.Path, "/"), "/")
			s.opt.Count(first, rec.status)
		}
		if s.opt.Log.Enabled(r.Context(), slog.LevelDebug) {
			s.opt.Log.DebugContext(r.Context(), "served", "method", r.Method, "path", r.URL.Path, "status", rec.status, "took", time.Since(begin))
		}
	})
}

// recorder remembers the status of an answer.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	r.status = status
	r.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the real writer, to flush.
func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// small is what is copied, in bytes: it goes out together with the header, in one write.
const small = 32 << 10

// ReadFrom keeps the way by which files are sent without being copied, but for small
// ones, which it costs more than it saves.
func (r *recorder) ReadFrom(src io.Reader) (int64, error) {
	if l, ok := src.(*io.LimitedReader); ok && l.N <= small {
		return io.Copy(struct{ io.Writer }{r.ResponseWriter}, src)
	}
	return io.Copy(r.ResponseWriter, src)
}

// Flush sends what was written so far.
func (r *recorder) Flush() { _ = http.NewResponseController(r.ResponseWriter).Flush() }

// Serve answers connections from l until ctx ends, then lets running requests
// finish for at most ten seconds. Anything but a loopback or Unix listener must
// come with TLS; that is the caller's to see to: see CheckListener.
func Serve(ctx context.Context, l net.Listener, h http.Handler, log *slog.Logger) error {
	var connections atomic.Uint64
	srv := http1.New(&http.Server{
		Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute, MaxHeaderBytes: 64 << 10,
		BaseContext: func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, connection{}, connections.Add(1))
		},
	}, log)
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(l) }()
	select {
	case err := <-ended:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
	}
	stop, cancel := context.WithTimeout(context.WithoutCancel(ctx), 10*time.Second)
	defer cancel()
	if err := srv.Shutdown(stop); err != nil {
		return fmt.Errorf("serve: %w", errors.Join(err, srv.Close()))
	}
	return nil
}

// connection is where a request's context keeps the number of its connection.
type connection struct{}

// Connection returns the number of the connection that a request came over, which no
// other has; 0 if it is not known. Addresses are no such thing: ports are used again.
func Connection(ctx context.Context) uint64 {
	n, _ := ctx.Value(connection{}).(uint64)
	return n
}

// CheckListener refuses to serve without TLS on anything but loopback.
func CheckListener(addr net.Addr, tls bool) error {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok || tcp.IP.IsLoopback() || tls {
		return nil
	}
	return fail.Refuse("give --tls-cert and --tls-key, or listen on 127.0.0.1", fmt.Errorf("%s is not loopback and has no TLS", addr))
}
