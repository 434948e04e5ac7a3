package http1

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// begin serves h and returns where.
func begin(t *testing.T, h http.Handler, set func(*http.Server)) (*Server, string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: time.Minute}
	if set != nil {
		set(srv)
	}
	s := New(srv, slog.New(slog.DiscardHandler))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
	return s, l.Addr().String()
}

func dial(t *testing.T, at string) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if err := c.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	return c
}

// plainlyRead counts the answers that were given here.
func plainlyRead(h http.Handler, n *atomic.Int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, here := w.(*response); here {
			n.Add(1)
		}
		h.ServeHTTP(w, r)
	})
}

// handler does what its path says.
func handler(w http.ResponseWriter, r *http.Request) {
	rc := http.NewResponseController(w)
	switch r.URL.Path {
	case "/echo":
		b, err := io.ReadAll(r.Body)
		w.Header().Set("Content-Type", "text/x")
		fmt.Fprintf(w, "%d %v %s %s", len(b), err, r.Host, b[:min(len(b), 100)])
	case "/long":
		for range 100 {
			_, _ = w.Write(bytes.Repeat([]byte{'a'}, 1000))
		}
	case "/piece":
		_, _ = w.Write(bytes.Repeat([]byte{'b'}, 100_000))
	case "/stream":
		w.Header().Set("Content-Type", "text/event-stream")
		for i := range 10 {
			fmt.Fprintf(w, "data: %d\n\n", i)
			_ = rc.Flush()
		}
	case "/announced":
		w.Header().Set("Content-Length", "5")
		_, _ = io.WriteString(w, "12345")
		if _, err := io.WriteString(w, "6"); !errors.Is(err, http.ErrContentLength) {
			panic(err)
		}
	case "/nothing":
	case "/204":
		w.WriteHeader(http.StatusNoContent)
	case "/418":
		w.Header().Set("X-Lines", "a\r\nb")
		w.Header().Set("Bad Name", "x")
		http.Error(w, "no", http.StatusTeapot)
	case "/unread":
		_, _ = io.WriteString(w, "early")
	case "/html":
		_, _ = io.WriteString(w, "<html>")
	case "/close":
		w.Header().Set("Connection", "close")
		_, _ = io.WriteString(w, "bye")
	case "/after": // the head is made when it begins
		h := w.Header()
		h.Set("X-A", "1")
		w.WriteHeader(http.StatusAccepted)
		h.Set("X-A", "2")
		h.Set("X-B", "2")
		_, _ = io.WriteString(w, "x")
	case "/names":
		w.Header()["X_A.b"] = []string{"1"}
		w.Header()["X A"] = []string{"1"}
		w.Header()["X-A: 1\r\nX-B"] = []string{"1"}
	case "/encoded":
		w.Header().Set("Content-Encoding", "gzip")
		_, _ = io.WriteString(w, "<html>")
	case "/without":
		w.Header()["Content-Type"] = nil
		w.Header()["Date"] = nil
		_, _ = io.WriteString(w, "<html>")
	case "/304":
		w.Header().Set("Content-Type", "text/x")
		w.Header().Set("Content-Length", "7")
		w.WriteHeader(http.StatusNotModified)
		if n, err := w.Write(nil); n != 0 || err != nil {
			panic(err)
		}
	case "/late": // what was not read when the answer began is not the end of the request
		_ = rc.Flush()
		_, err := io.ReadAll(r.Body)
		fmt.Fprint(w, err)
	case "/short":
		w.Header().Set("Content-Length", "50")
		_, _ = io.WriteString(w, "too little")
	case "/aborted":
		_, _ = io.WriteString(w, "half")
		_ = rc.Flush()
		panic(http.ErrAbortHandler)
	default:
		http.NotFound(w, r)
	}
}

// Every answer is what net/http's would be.
func TestAnswersAsNetHTTPDoes(t *testing.T) {
	var here atomic.Int64
	_, at := begin(t, plainlyRead(http.HandlerFunc(handler), &here), nil)
	theirs := httptest.NewServer(http.HandlerFunc(handler))
	t.Cleanup(theirs.Close)
	paths := []string{"/echo", "/long", "/piece", "/stream", "/announced", "/nothing", "/204", "/418", "/unread", "/html", "/close", "/missing", "/after", "/names", "/encoded", "/without", "/304", "/late", "/short", "/aborted"}
	ask := func(at, path string, body []byte) string {
		c := dial(t, at)
		fmt.Fprintf(c, "POST %s HTTP/1.1\r\nHost: h.example\r\nContent-Length: %d\r\n\r\n%s", path, len(body), body)
		resp, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			return err.Error()
		}
		b, err := io.ReadAll(resp.Body)
		resp.Header["Date"] = []string{strconv.Itoa(len(resp.Header["Date"]))}
		return fmt.Sprint(resp.Status, resp.ContentLength, resp.TransferEncoding, resp.Close, resp.Header, len(b), string(b[:min(len(b), 200)]), err)
	}
	for _, path := range paths {
		for _, body := range []string{"", "small", strings.Repeat("x", 100_000)} {
			if path != "/echo" && path != "/unread" && len(body) > 10 {
				continue
			}
			got, want := ask(at, path, []byte(body)), ask(strings.TrimPrefix(theirs.URL, "http://"), path, []byte(body))
			if path == "/unread" && len(body) > 10 { // net/http would read a lot before it answers
				want = strings.Replace(want, "[] false map[", "[] true map[", 1)
			}
			if got != want {
				t.Errorf("%s with %d bytes:\n%s\nin net/http\n%s", path, len(body), got, want)
			}
		}
	}
	if here.Load() == 0 {
		t.Error("nothing was answered here")
	}
}

// Requests of all forms follow each other on a connection, in any order and all at once.
func TestFormsFollowEachOther(t *testing.T) {
	var here atomic.Int64
	_, at := begin(t, plainlyRead(http.HandlerFunc(handler), &here), nil)
	plain := func(s string) string {
		return fmt.Sprintf("POST /echo HTTP/1.1\r\nHost: h.example\r\nContent-Length: %d\r\n\r\n%s", len(s), s)
	}
	chunked := "POST /echo HTTP/1.1\r\nHost: h.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
	for name, c := range map[string]struct {
		requests []string
		here     int64
		bodies   []string
	}{
		"plain":        {[]string{plain("a"), plain("bc"), plain(strings.Repeat("d", 5000))}, 3, []string{"1 <nil> h.example a", "2 <nil> h.example bc", "5000 <nil> h.example " + strings.Repeat("d", 100)}},
		"then another": {[]string{plain("a"), chunked, plain("b"), "GET /html HTTP/1.1\r\nHost: h.example\r\n\r\n"}, 1, []string{"1 <nil> h.example a", "3 <nil> h.example abc", "1 <nil> h.example b", "<html>"}},
		"another":      {[]string{chunked, plain("a")}, 0, []string{"3 <nil> h.example abc", "1 <nil> h.example a"}},
	} {
		for _, apart := range []bool{false, true} {
			here.Store(0)
			nc := dial(t, at)
			in := bufio.NewReader(nc)
			if !apart {
				_, _ = io.WriteString(nc, strings.Join(c.requests, ""))
			}
			for i, want := range c.bodies {
				if apart {
					_, _ = io.WriteString(nc, c.requests[i])
				}
				resp, err := http.ReadResponse(in, nil)
				if err != nil {
					t.Fatal(name, i, err)
				}
				if b, err := io.ReadAll(resp.Body); err != nil || string(b) != want {
					t.Fatalf("%s %d: %q %v", name, i, b, err)
				}
			}
			if here.Load() != c.here && apart {
				t.Errorf("%s: %d of %d answered here", name, here.Load(), c.here)
			}
		}
	}
}

// What comes in drops is read, by one or the other.
func TestDrops(t *testing.T) {
	_, at := begin(t, http.HandlerFunc(handler), nil)
	nc := dial(t, at)
	for _, b := range []byte("POST /echo HTTP/1.1\r\nHost: h.example\r\nContent-Length: 3\r\n\r\nabc") {
		if _, err := nc.Write([]byte{b}); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatal(resp, err)
	}
}

// A client that leaves ends what is done for it, before the answer and within it; one
// that has sent half a body, too.
func TestClientsThatLeave(t *testing.T) {
	ended := make(chan error, 1)
	begun := make(chan struct{}, 1)
	_, at := begin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/within" {
			_, _ = io.WriteString(w, "x")
			_ = http.NewResponseController(w).Flush()
		}
		begun <- struct{}{}
		if r.URL.Path == "/half" {
			_, err := io.ReadAll(r.Body)
			ended <- err
			return
		}
		select {
		case <-r.Context().Done():
			ended <- r.Context().Err()
		case <-time.After(10 * time.Second):
			ended <- nil
		}
	}), nil)
	for path, want := range map[string]error{"/before": context.Canceled, "/within": context.Canceled, "/half": io.ErrUnexpectedEOF} {
		nc := dial(t, at)
		fmt.Fprintf(nc, "POST %s HTTP/1.1\r\nHost: h.example\r\nContent-Length: 3\r\n\r\nab", path)
		if path != "/half" {
			_, _ = io.WriteString(nc, "c")
		}
		<-begun
		if err := nc.Close(); err != nil {
			t.Fatal(err)
		}
		if err := <-ended; !errors.Is(err, want) {
			t.Errorf("%s: %v", path, err)
		}
	}
}

// Who says nothing, sends slowly or takes nothing is not waited for.
func TestDeadlines(t *testing.T) {
	ended := make(chan error, 1)
	_, at := begin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		if r.URL.Path == "/slow" {
			_ = rc.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
			_, err := io.ReadAll(r.Body)
			ended <- err
			return
		}
		if r.URL.Path == "/stall" {
			_ = rc.SetWriteDeadline(time.Now().Add(50 * time.Millisecond))
			var err error
			for err == nil {
				_, err = w.Write(make([]byte, 1<<20))
			}
			ended <- err
		}
	}), func(s *http.Server) { s.ReadHeaderTimeout, s.IdleTimeout = 100*time.Millisecond, 100*time.Millisecond })
	for _, path := range []string{"/slow", "/stall"} {
		nc := dial(t, at)
		fmt.Fprintf(nc, "POST %s HTTP/1.1\r\nHost: h.example\r\nContent-Length: 3\r\n\r\n", path)
		if path == "/stall" {
			_, _ = io.WriteString(nc, "abc")
		}
		var late net.Error
		if err := <-ended; !errors.As(err, &late) || !late.Timeout() {
			t.Errorf("%s: %v", path, err)
		}
	}
	silent, between := dial(t, at), dial(t, at)
	_, _ = io.WriteString(between, "POST /nothing HTTP/1.1\r\nHost: h.example\r\nContent-Length: 0\r\n\r\n")
	for _, nc := range []net.Conn{silent, between} {
		if _, err := io.Copy(io.Discard, nc); err != nil {
			t.Error(err) // it is closed, not reset
		}
	}
}

// A handler that panics ends its own connection only.
func TestPanics(t *testing.T) {
	_, at := begin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/panic" {
			panic("no")
		}
	}), nil)
	nc := dial(t, at)
	_, _ = io.WriteString(nc, "POST /panic HTTP/1.1\r\nHost: h.example\r\nContent-Length: 0\r\n\r\n")
	if b, err := io.ReadAll(nc); err != nil || len(b) > 0 {
		t.Errorf("%q %v", b, err)
	}
	resp, err := http.Post("http://"+at+"/", "", strings.NewReader("x"))
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Error(resp, err)
	}
}

// Shutdown waits for what runs, and closes what does not.
func TestShutdown(t *testing.T) {
	begun, finish := make(chan struct{}), make(chan struct{})
	s, at := begin(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-finish
		_, _ = io.WriteString(w, "done")
	}), nil)
	waits, nc := dial(t, at), dial(t, at)
	_, _ = io.WriteString(nc, "POST / HTTP/1.1\r\nHost: h.example\r\nContent-Length: 0\r\n\r\n")
	<-begun
	over := make(chan error, 1)
	go func() { over <- s.Shutdown(t.Context()) }()
	if _, err := io.Copy(io.Discard, waits); err != nil {
		t.Error(err)
	}
	select {
	case err := <-over:
		t.Fatal("it did not wait", err)
	default:
	}
	close(finish)
	resp, err := http.ReadResponse(bufio.NewReader(nc), nil)
	if err != nil || !resp.Close {
		t.Fatal(resp, err)
	}
	if b, err := io.ReadAll(resp.Body); err != nil || string(b) != "done" {
		t.Errorf("%q %v", b, err)
	}
	if err := <-over; err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", at); err == nil {
		_ = c.Close()
		t.Error("it still listens")
	}
}

// What was agreed on in TLS is seen in requests of all forms.
func TestTLS(t *testing.T) {
	var here atomic.Int64
	own := httptest.NewUnstartedServer(nil)
	own.StartTLS() // for its certificate
	own.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: own.TLS.Certificates, MinVersion: tls.VersionTLS12})
	if err != nil {
		t.Fatal(err)
	}
	s := New(&http.Server{Handler: plainlyRead(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || !r.TLS.HandshakeComplete {
			w.WriteHeader(http.StatusTeapot)
		}
	}), &here), ReadHeaderTimeout: time.Second}, slog.New(slog.DiscardHandler))
	ended := make(chan error, 1)
	go func() { ended <- s.Serve(l) }()
	c := own.Client()
	for _, method := range []string{"POST", "GET", "POST"} {
		r, err := http.NewRequestWithContext(t.Context(), method, "https://"+l.Addr().String()+"/", strings.NewReader("x"))
		if err != nil {
			t.Fatal(err)
		}
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if _ = resp.Body.Close(); resp.StatusCode != http.StatusOK {
			t.Error(method, resp.Status)
		}
	}
	if here.Load() != 1 {
		t.Errorf("%d answered here", here.Load())
	}
	if resp, err := http.Get("http://" + l.Addr().String()); err != nil || resp.StatusCode != http.StatusBadRequest {
		t.Error("without TLS:", resp, err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if err := <-ended; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

// Many clients at once, which leave when they like, do not disturb each other.
func TestManyClients(t *testing.T) {
	s, at := begin(t, http.HandlerFunc(handler), nil)
	var wg sync.WaitGroup
	for i := range 30 {
		wg.Go(func() {
			c := &http.Client{Transport: &http.Transport{}}
			defer c.CloseIdleConnections()
			for j := range 40 {
				want := fmt.Sprintf("%d-%d", i, j)
				ctx, cancel := context.WithCancel(t.Context())
				r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+at+[]string{"/echo", "/stream"}[j%2], strings.NewReader(want))
				if err != nil {
					t.Error(err)
				}
				resp, err := c.Do(r)
				if err != nil {
					t.Error(err)
					cancel()
					return
				}
				if j%5 == 4 {
					cancel()
				} else if b, err := io.ReadAll(resp.Body); err != nil || j%2 == 0 && !strings.HasSuffix(string(b), want) {
					t.Errorf("%q %v", b, err)
				}
				_ = resp.Body.Close()
				cancel()
			}
		})
	}
	wg.Wait()
	for range 100 {
		s.mu.Lock()
		n := len(s.conns)
		s.mu.Unlock()
		if n == 0 {
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
	t.Error("connections are kept that nobody uses")
}
