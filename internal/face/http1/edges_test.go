package http1

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

func post(path, body string) string {
	return fmt.Sprintf("POST %s HTTP/1.1\r\nHost: h.example\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
}

// answerOf sends a request and returns the text of its answer.
func answerOf(t *testing.T, nc net.Conn, in *bufio.Reader, request string) string {
	t.Helper()
	if _, err := io.WriteString(nc, request); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// Close, and a client that takes nothing, end the context of a request.
func TestContextsEnd(t *testing.T) {
	begun, ended := make(chan struct{}, 1), make(chan error, 1)
	s, at := begin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		begun <- struct{}{}
		if r.URL.Path == "/stall" {
			rc := http.NewResponseController(w)
			_ = rc.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
			for {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					break
				}
			}
		}
		select {
		case <-r.Context().Done():
			ended <- nil
		case <-time.After(5 * time.Second):
			ended <- errors.New("it goes on")
		}
	}), nil)
	_, _ = io.WriteString(dial(t, at), post("/stall", ""))
	<-begun
	if err := <-ended; err != nil {
		t.Error("a client that takes nothing:", err)
	}
	_, _ = io.WriteString(dial(t, at), post("/wait", ""))
	<-begun
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error("Close:", err)
	}
}

// Goroutines that a handler leaves behind, with the body of the request and the answer,
// take nothing of the requests that follow and add nothing to their answers.
func TestGoroutinesLeftBehind(t *testing.T) {
	var left sync.WaitGroup
	_, at := begin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/echo" {
			handler(w, r)
			return
		}
		left.Go(func() {
			for b := make([]byte, 7); ; {
				if _, err := r.Body.Read(b); err != nil {
					return
				}
			}
		})
		left.Go(func() {
			for range 50 {
				if _, err := io.WriteString(w, "late"); err != nil {
					return
				}
				_ = http.NewResponseController(w).Flush()
			}
		})
		left.Go(func() {
			for range 50 {
				_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(time.Minute))
				_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(time.Minute))
			}
		})
	}), nil)
	for i := range 300 {
		nc := dial(t, at)
		in := bufio.NewReader(nc)
		body := strings.Repeat("x", i*10)
		if i%3 == 2 { // half of it comes never
			_, _ = io.WriteString(nc, strings.TrimSuffix(post("/now", body), body[:len(body)/2]))
		} else {
			_, _ = io.WriteString(nc, post("/now", body)+post("/echo", "second"))
		}
		resp, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil || strings.ReplaceAll(string(b), "late", "") != "" {
			t.Fatalf("%q %v", b, err)
		}
		if resp.Close {
			_ = nc.Close()
			continue
		}
		if resp, err = http.ReadResponse(in, nil); err != nil {
			_ = nc.Close()
			continue // it was closed, for somebody read still
		}
		if b, err = io.ReadAll(resp.Body); err != nil || string(b) != "6 <nil> h.example second" {
			t.Fatalf("%q %v", b, err)
		}
		_ = nc.Close()
	}
	left.Wait()
}

// Who writes to an answer that is over gets an error.
func TestLateWrites(t *testing.T) {
	var kept atomic.Pointer[http.ResponseWriter]
	_, at := begin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		old := kept.Swap(&w)
		if old == nil {
			return
		}
		_, err := io.WriteString(*old, "late")
		rc := http.NewResponseController(*old)
		fmt.Fprint(w, err != nil, rc.Flush() != nil, rc.SetReadDeadline(time.Time{}) != nil, rc.SetWriteDeadline(time.Unix(1, 0)) != nil)
	}), nil)
	nc := dial(t, at)
	in := bufio.NewReader(nc)
	answerOf(t, nc, in, post("/", ""))
	if got := answerOf(t, nc, in, post("/", "")); got != "true true true true" {
		t.Error(got)
	}
}

// A deadline that is set while something waits ends it.
func TestDeadlinesApplyAtOnce(t *testing.T) {
	ended := make(chan error, 1)
	_, at := begin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		over := make(chan error, 1)
		if r.URL.Path == "/read" {
			go func() { _, err := io.ReadAll(r.Body); over <- err }()
			time.Sleep(50 * time.Millisecond)
			_ = rc.SetReadDeadline(time.Now())
		} else {
			go func() {
				var err error
				for err == nil {
					_, err = w.Write(make([]byte, 1<<20))
				}
				over <- err
			}()
			time.Sleep(100 * time.Millisecond)
			_ = rc.SetWriteDeadline(time.Now())
		}
		select {
		case err := <-over:
			ended <- err
		case <-time.After(5 * time.Second):
			ended <- errors.New("it waits")
			panic(http.ErrAbortHandler)
		}
	}), nil)
	for path, body := range map[string]string{"/read": "abc", "/write": ""} {
		_, _ = io.WriteString(dial(t, at), strings.TrimSuffix(post(path, body), "c"))
		var late net.Error
		if err := <-ended; !errors.As(err, &late) || !late.Timeout() {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// The server's own limits hold where a handler sets none, in each request anew.
func TestLimitsOfTheServer(t *testing.T) {
	ended := make(chan error, 1)
	_, at := begin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, err := io.ReadAll(r.Body)
		if r.URL.Path == "/write" {
			for err == nil {
				_, err = w.Write(make([]byte, 1<<20))
			}
		}
		ended <- err
	}), func(s *http.Server) { s.ReadTimeout, s.WriteTimeout = 100*time.Millisecond, 100*time.Millisecond })
	for path, body := range map[string]string{"/read": "abc", "/write": ""} {
		nc := dial(t, at)
		answerOf(t, nc, bufio.NewReader(nc), post("/", "abc"))
		if err := <-ended; err != nil {
			t.Error(err)
		}
		_, _ = io.WriteString(nc, strings.TrimSuffix(post(path, body), "c"))
		select {
		case err := <-ended:
			var late net.Error
			if !errors.As(err, &late) || !late.Timeout() {
				t.Errorf("%s: %v", path, err)
			}
		case <-time.After(5 * time.Second):
			t.Error(path, "waits")
		}
	}
}

// How a connection was begun is known in all of its requests, whoever reads them.
func TestOneContextForAConnection(t *testing.T) {
	type key struct{}
	var number atomic.Int64
	_, at := begin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ctx := r.Context()
		fmt.Fprint(w, ctx.Value(key{}), ctx.Value(http.LocalAddrContextKey), ctx.Value(http.ServerContextKey) != nil)
	}), func(s *http.Server) {
		s.ConnContext = func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, key{}, number.Add(1))
		}
	})
	nc := dial(t, at)
	in := bufio.NewReader(nc)
	for _, r := range []string{post("/", ""), "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n", post("/", "")} {
		if got, want := answerOf(t, nc, in, r), "1 "+at+" true"; got != want {
			t.Errorf("%q: %q, not %q", r, got, want)
		}
	}
}

// A handler that ends its goroutine, or answers what is no status, ends its connection.
func TestHandlersThatDoNotReturn(t *testing.T) {
	_, at := begin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/exit" {
			runtime.Goexit()
		}
		w.WriteHeader(map[string]int{"/low": 99, "/high": 1000}[r.URL.Path])
	}), nil)
	for _, path := range []string{"/exit", "/low", "/high"} {
		nc := dial(t, at)
		_, _ = io.WriteString(nc, post(path, ""))
		if b, err := io.ReadAll(nc); err != nil || len(b) > 0 {
			t.Errorf("%s: %q %v", path, b, err)
		}
	}
}

// broken is a connection that cannot be read without a panic.
type broken struct{ *net.TCPConn }

func (broken) Read([]byte) (int, error) { panic("no") }

// What goes wrong in reading one connection ends that one.
func TestPanicsOfAConnection(t *testing.T) {
	var n atomic.Int64
	s, at := serveWrapped(t, &http.Server{Handler: http.HandlerFunc(handler)}, func(c net.Conn) net.Conn {
		if n.Add(1) == 1 {
			return broken{c.(*net.TCPConn)}
		}
		return c
	})
	if b, err := io.ReadAll(dial(t, at)); err != nil || len(b) > 0 {
		t.Errorf("%q %v", b, err)
	}
	nc := dial(t, at)
	if got := answerOf(t, nc, bufio.NewReader(nc), post("/echo", "a")); got != "1 <nil> h.example a" {
		t.Errorf("%q", got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// CR and LF behind a body, as old clients send them, are no request.
func TestEmptyLinesBetween(t *testing.T) {
	_, at := begin(t, http.HandlerFunc(handler), nil)
	for name, next := range map[string]string{
		"one":        "\r\n" + post("/echo", "b"),
		"two":        "\r\n\r\n" + post("/echo", "b"),
		"before GET": "\r\nGET /echo HTTP/1.1\r\nHost: h.example\r\nContent-Length: 1\r\n\r\nb",
	} {
		nc := dial(t, at)
		in := bufio.NewReader(nc)
		answerOf(t, nc, in, post("/echo", "a"))
		_, _ = io.WriteString(nc, "\r") // alone
		time.Sleep(5 * time.Millisecond)
		if got := answerOf(t, nc, in, next[1:]); got != "1 <nil> h.example b" {
			t.Errorf("%s: %q", name, got)
		}
	}
	nc := dial(t, at)
	_, _ = io.WriteString(nc, post("/echo", "a")+"\r\n\r\n\r\n"+post("/echo", "b"))
	if b, err := io.ReadAll(nc); err != nil || !strings.Contains(string(b), "400 Bad Request") {
		t.Errorf("three: %q %v", b, err)
	}
}

// wrapped is a listener whose connections are something else.
type wrapped struct {
	net.Listener
	by func(net.Conn) net.Conn
}

func (l wrapped) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return l.by(c), nil
}

// serveWrapped is begin for such connections. Whoever calls it ends the server.
func serveWrapped(t *testing.T, srv *http.Server, by func(net.Conn) net.Conn) (*Server, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := New(srv, slog.New(slog.DiscardHandler))
	go func() { _ = s.Serve(wrapped{l, by}) }() // its end is what Shutdown and Close are for
	return s, l.Addr().String()
}

// Connections that cannot be watched are net/http's.
func TestWhatCannotBeWatched(t *testing.T) {
	var here atomic.Int64
	s, at := serveWrapped(t, &http.Server{Handler: plainlyRead(http.HandlerFunc(handler), &here)}, func(c net.Conn) net.Conn { return struct{ net.Conn }{c} })
	nc := dial(t, at)
	if got := answerOf(t, nc, bufio.NewReader(nc), post("/echo", "a")); got != "1 <nil> h.example a" || here.Load() > 0 {
		t.Errorf("%q, %d here", got, here.Load())
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// nowhere is a connection that does not know where it comes from.
type nowhere struct{ *net.TCPConn }

func (nowhere) RemoteAddr() net.Addr { return nil }

func TestConnectionsFromNowhere(t *testing.T) {
	s, at := serveWrapped(t, &http.Server{Handler: http.HandlerFunc(handler)}, func(c net.Conn) net.Conn { return nowhere{c.(*net.TCPConn)} })
	nc := dial(t, at)
	if got := answerOf(t, nc, bufio.NewReader(nc), post("/echo", "a")); got != "1 <nil> h.example a" {
		t.Errorf("%q", got)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}

// Files of forms are gone with their requests.
func TestFilesOfForms(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	_, at := begin(t, http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		if err := r.ParseMultipartForm(1); err != nil {
			t.Error(err)
		}
		if all, err := os.ReadDir(dir); err != nil || len(all) != 1 {
			t.Error(all, err)
		}
	}), nil)
	body := "--b\r\nContent-Disposition: form-data; name=a; filename=a\r\n\r\n" + strings.Repeat("x", 100<<10) + "\r\n--b--\r\n"
	nc := dial(t, at)
	answerOf(t, nc, bufio.NewReader(nc), strings.Replace(post("/", body), "Host", "Content-Type: multipart/form-data; boundary=b\r\nHost", 1))
	if all, err := os.ReadDir(dir); err != nil || len(all) > 0 {
		t.Error(all, err)
	}
}

// A client that sends its request slowly and reads only then gets an answer that was given
// before.
func TestEarlyAnswers(t *testing.T) {
	_, at := begin(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusUnauthorized) }), nil)
	nc := dial(t, at)
	body := strings.Repeat("x", 100<<10)
	head := strings.TrimSuffix(post("/", body), body)
	_, err := io.WriteString(nc, head)
	for sent := 0; err == nil && sent < len(body); sent += 10 << 10 {
		time.Sleep(100 * time.Millisecond)
		_, err = io.WriteString(nc, body[sent:sent+10<<10])
	}
	if err != nil {
		t.Fatal("the rest is not taken:", err)
	}
	if resp, err := http.ReadResponse(bufio.NewReader(nc), nil); err != nil || resp.StatusCode != http.StatusUnauthorized {
		t.Error(resp, err)
	}
}
