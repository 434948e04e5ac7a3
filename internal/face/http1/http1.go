// Package http1 serves HTTP/1.1. Requests of one plain form, which is that of calls to
// models, it reads and answers itself, for a fraction of what net/http takes. A request
// of any other form, and all that follows on its connection, is net/http's, byte for byte
// as it came: what could be understood in two ways is not understood here.
//
// The plain form (head.go) is a POST with all of its head in what one read of the
// connection returns. How a request goes on, in the deadlines, the context and the
// errors that a handler sees, is as net/http has it.
package http1

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Server answers like the http.Server that it was made of.
type Server struct {
	handler http.Handler
	about   func(context.Context, net.Conn) context.Context
	srv     *http.Server // of what is left
	left    *leftovers
	log     *slog.Logger
	watch   *watcher // set by Serve, with mu
	base    context.Context
	closing atomic.Bool
	running sync.WaitGroup        // connections that are read here
	stamp   atomic.Pointer[stamp] // of the second that was asked for last

	mu       sync.Mutex
	listener net.Listener       // guarded by mu
	conns    map[*conn]struct{} // guarded by mu
}

// New returns a server with the handler, the contexts and the time limits of srv, which is
// its own from then on. ReadTimeout does not count the head of a request.
func New(srv *http.Server, log *slog.Logger) *Server {
	s := &Server{
		handler: srv.Handler, about: srv.ConnContext, srv: srv, log: log, conns: map[*conn]struct{}{},
		left: &leftovers{next: make(chan *leftover), over: make(chan struct{})},
	}
	if s.about == nil {
		s.about = func(ctx context.Context, _ net.Conn) context.Context { return ctx }
	}
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil { // net/http does not see it behind the bytes that were read
			r.TLS, _ = r.Context().Value(tlsKey{}).(*tls.ConnectionState)
		}
		s.handler.ServeHTTP(w, r)
	})
	srv.ConnContext = func(ctx context.Context, nc net.Conn) context.Context {
		from, ok := nc.(interface{ origin() *leftover })
		if !ok {
			return ctx // it is none of ours
		}
		l := from.origin()
		return context.WithValue(l.base, tlsKey{}, l.tls) // what is known about it, it keeps
	}
	return s
}

// tlsKey is where the context of a connection keeps what was agreed on.
type tlsKey struct{}

// Serve answers connections from l until Shutdown or Close, after which its error is
// http.ErrServerClosed. It is called once.
func (s *Server) Serve(l net.Listener) error {
	if err := s.open(l); err != nil {
		return errors.Join(err, l.Close())
	}
	go s.watch.run()
	ended := make(chan error, 1)
	go func() { ended <- s.srv.Serve(s.left) }()
	err := s.accept(l)
	_ = s.left.Close() // it cannot fail
	if other := <-ended; !errors.Is(other, http.ErrServerClosed) && !errors.Is(other, net.ErrClosed) {
		err = errors.Join(err, other)
	}
	return err
}

// open makes what is needed for connections, unless it is too late for them.
func (s *Server) open(l net.Listener) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.closing.Load():
		return http.ErrServerClosed
	case s.listener != nil:
		return errors.New("it serves already")
	}
	if s.watch, err = newWatcher(); err != nil {
		return err
	}
	s.listener, s.left.addr, s.base = l, l.Addr(), context.Background()
	if s.srv.BaseContext != nil {
		s.base = s.srv.BaseContext(l)
	}
	s.base = context.WithValue(s.base, http.ServerContextKey, s.srv)
	return nil
}

// accept takes connections. Where there is no room for more of them it tries again.
func (s *Server) accept(l net.Listener) error {
	var pause time.Duration
	for {
		nc, err := l.Accept()
		if s.closing.Load() {
			if err == nil {
				_ = nc.Close()
			}
			return http.ErrServerClosed
		}
		var passing interface{ Temporary() bool }
		if err != nil && errors.As(err, &passing) && passing.Temporary() {
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.log.Warn("connection not accepted", "err", err, "again_in", pause)
			time.Sleep(pause)
			continue
		}
		if err != nil {
			return err
		}
		pause = 0
		if c := s.conn(nc); c != nil {
			go c.serve()
		}
	}
}

// conn begins to follow a connection; nil: it came too late.
func (s *Server) conn(nc net.Conn) *conn {
	base := context.WithValue(s.about(s.base, nc), http.LocalAddrContextKey, nc.LocalAddr())
	c := &conn{s: s, Conn: nc, base: base}
	if from := nc.RemoteAddr(); from != nil {
		c.remote = from.String()
	}
	c.toRead.apply, c.toWrite.apply = nc.SetReadDeadline, nc.SetWriteDeadline
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closing.Load() {
		_ = nc.Close()
		return nil
	}
	s.conns[c] = struct{}{}
	s.running.Add(1)
	return c
}

// forget ends that.
func (s *Server) forget(c *conn) {
	s.watch.remove(c)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, c)
	s.running.Done()
}

// stop has no more connections accepted, and closes those that fit.
func (s *Server) stop(fits func(*conn) bool) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closing.Store(true)
	var err error
	if s.listener != nil {
		if err = s.listener.Close(); errors.Is(err, net.ErrClosed) {
			err = nil
		}
	}
	for c := range s.conns {
		if fits(c) {
			go func() { _ = c.Close() }() // of TLS it may take seconds; nobody waits for more of it
		}
	}
	return err
}

// unwatch ends what Serve began.
func (s *Server) unwatch() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watch != nil {
		s.watch.close()
	}
}

// Shutdown lets running requests finish and returns when they have, or when ctx ends.
func (s *Server) Shutdown(ctx context.Context) error {
	err := s.stop(func(c *conn) bool { return c.state.CompareAndSwap(idle, closed) })
	err = errors.Join(err, s.srv.Shutdown(ctx))
	done := make(chan struct{})
	go func() { s.running.Wait(); close(done) }()
	select {
	case <-done:
		s.unwatch()
	case <-ctx.Done():
		err = errors.Join(err, ctx.Err())
	}
	return err
}

// Close ends all connections at once, and the contexts of their requests.
func (s *Server) Close() error {
	err := s.stop(func(c *conn) bool { c.state.Store(closed); c.left(); return true })
	s.unwatch()
	return errors.Join(err, s.srv.Close())
}
