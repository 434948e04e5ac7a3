package http1

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"sync"
	"testing"
	"time"
)

func descriptors(t *testing.T) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// A server that was ended before it served does not serve, and keeps nothing open.
func TestEndedBeforeItBegan(t *testing.T) {
	before := descriptors(t)
	for name, end := range map[string]func(*Server) error{
		"Close":    (*Server).Close,
		"Shutdown": func(s *Server) error { return s.Shutdown(context.Background()) },
	} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := New(&http.Server{Handler: http.HandlerFunc(handler)}, slog.New(slog.DiscardHandler))
		if err := end(s); err != nil {
			t.Error(name, err)
		}
		if err := s.Serve(l); !errors.Is(err, http.ErrServerClosed) {
			t.Error(name, err)
		}
	}
	if now := descriptors(t); now > before {
		t.Errorf("%d descriptors, %d before", now, before)
	}
}

// It may be ended at any moment of its beginning.
func TestEndedWhileItBegins(t *testing.T) {
	for i := range 200 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := New(&http.Server{Handler: http.HandlerFunc(handler)}, slog.New(slog.DiscardHandler))
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(l) }()
		if i%2 == 0 {
			runtime.Gosched()
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	}
}

// slow takes its time to be closed, as TLS does whose client takes nothing.
type slow struct{ *net.TCPConn }

func (c slow) Close() error {
	time.Sleep(300 * time.Millisecond)
	return c.TCPConn.Close()
}

// Clients that do not let go of their connections do not add up.
func TestShutdownDoesNotQueue(t *testing.T) {
	s, at := serveWrapped(t, &http.Server{Handler: http.HandlerFunc(handler)}, func(c net.Conn) net.Conn { return slow{c.(*net.TCPConn)} })
	for range 20 {
		nc := dial(t, at)
		answerOf(t, nc, bufio.NewReader(nc), post("/nothing", ""))
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Error(err)
	}
}

// A server that is ended at any moment, in the middle of requests of all forms and of
// connections that change hands, leaves nothing behind.
func TestEndedAtAnyMoment(t *testing.T) {
	before, routines := descriptors(t), runtime.NumGoroutine()
	for i := range 60 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := New(&http.Server{Handler: http.HandlerFunc(handler)}, slog.New(slog.DiscardHandler))
		ended := make(chan error, 1)
		go func() { ended <- s.Serve(l) }()
		var clients sync.WaitGroup
		for j := range 8 {
			clients.Go(func() {
				for {
					nc, err := net.Dial("tcp", l.Addr().String())
					if err != nil {
						return // it is over
					}
					_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
					_, _ = io.WriteString(nc, post("/echo", "abc")+post("/stream", ""))
					if j%2 == 0 {
						_, _ = io.WriteString(nc, "GET /html HTTP/1.1\r\nHost: h.example\r\nConnection: close\r\n\r\n")
					} else if j%4 == 1 {
						_ = nc.(*net.TCPConn).CloseWrite()
					}
					if j%4 != 3 {
						_, _ = io.Copy(io.Discard, nc)
					}
					_ = nc.Close()
				}
			})
		}
		time.Sleep(time.Duration(i) * time.Millisecond / 4)
		if i%2 == 0 {
			err = s.Shutdown(t.Context())
		} else {
			err = s.Close()
		}
		if err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		clients.Wait()
		s.running.Wait()
		if len(s.conns) > 0 || s.watch != nil && len(s.watch.conns) > 0 { // nil: it was too late to begin
			t.Errorf("%d connections are kept", len(s.conns))
		}
	}
	for range 100 { // what closes may take a moment
		if descriptors(t) <= before && runtime.NumGoroutine() <= routines {
			return
		}
		time.Sleep(20 * time.Millisecond)
	}
	t.Errorf("%d descriptors, %d before; %d goroutines, %d before", descriptors(t), before, runtime.NumGoroutine(), routines)
}
