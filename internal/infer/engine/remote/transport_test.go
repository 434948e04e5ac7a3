package remote

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"enisle/internal/socket"
)

// speaking is a server that has do answer every connection, and counts them.
func speaking(t *testing.T, do func(n int, r *bufio.Reader, c net.Conn)) (tr *transport, dialled *atomic.Int32) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	dialled = &atomic.Int32{}
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				do(int(dialled.Add(1)), bufio.NewReader(c), c)
			}()
		}
	}()
	tr = newTransport(func(ctx context.Context) (net.Conn, error) {
		c, err := new(net.Dialer).DialContext(ctx, "tcp", l.Addr().String())
		if err != nil {
			return nil, err
		}
		return socket.Of(c), nil
	})
	t.Cleanup(tr.Close)
	return tr, dialled
}

func asks(t *testing.T, tr *transport, ctx context.Context, body string) (string, error) {
	t.Helper()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://engine/v1/x", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := tr.RoundTrip(r)
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(resp.Body)
	return string(b), errors.Join(err, resp.Body.Close())
}

// echo answers requests with their bodies until the connection ends.
func echo(r *bufio.Reader, c net.Conn, most int) {
	for range most {
		req, err := http.ReadRequest(r)
		if err != nil {
			return
		}
		b, err := io.ReadAll(req.Body)
		if err != nil {
			return
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s", len(b), b)
	}
}

func TestConnectionsAreUsedAgain(t *testing.T) {
	tr, dialled := speaking(t, func(_ int, r *bufio.Reader, c net.Conn) { echo(r, c, 1000) })
	for i := range 20 {
		want := strings.Repeat("x", i*1000)
		if got, err := asks(t, tr, t.Context(), want); got != want || err != nil {
			t.Fatalf("%d: %d bytes, %v", i, len(got), err)
		}
	}
	if n := dialled.Load(); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// What was closed while it lay idle is not noticed by the caller; what broke in the
// middle of an answer is.
func TestAClosedConnectionIsReplaced(t *testing.T) {
	tr, dialled := speaking(t, func(_ int, r *bufio.Reader, c net.Conn) { echo(r, c, 1) })
	for range 5 {
		if got, err := asks(t, tr, t.Context(), "hello"); got != "hello" || err != nil {
			t.Fatalf("%q, %v", got, err)
		}
	}
	if n := dialled.Load(); n != 5 {
		t.Errorf("%d connections", n)
	}
	asked := atomic.Int32{}
	tr, _ = speaking(t, func(_ int, r *bufio.Reader, c net.Conn) {
		echo(r, c, 1)
		if _, err := http.ReadRequest(r); err == nil {
			asked.Add(1)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Len")
		}
	})
	if _, err := asks(t, tr, t.Context(), "a"); err != nil {
		t.Fatal(err)
	}
	if got, err := asks(t, tr, t.Context(), "b"); err == nil || asked.Load() != 1 {
		t.Errorf("half an answer: %q, asked %d times", got, asked.Load())
	}
}

func TestHostileAnswers(t *testing.T) {
	for name, tc := range map[string]struct{ answer, want string }{
		"an endless head":       {"HTTP/1.1 200 OK\r\nX: " + strings.Repeat("x", 200<<10), "too long"},
		"endless early answers": {strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 1000), "does not come"},
		"another protocol":      {"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "does not come"},
		"no protocol":           {"hello\r\n\r\n", "malformed"},
		"nothing":               {"", "EOF"},
		"less than it promised": {"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort", "unexpected EOF"},
		"two lengths":           {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "Content-Length"},
		"broken chunks":         {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nx", "invalid"},
	} {
		t.Run(name, func(t *testing.T) {
			tr, _ := speaking(t, func(_ int, r *bufio.Reader, c net.Conn) {
				if _, err := http.ReadRequest(r); err == nil {
					_, _ = io.WriteString(c, tc.answer)
				}
			})
			if got, err := asks(t, tr, t.Context(), "x"); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%q, %v, want %s", got, err, tc.want)
			}
		})
	}
}

// What an engine says unasked, behind an answer, is not the next one's, whenever it comes.
func TestAnAnswerBehindTheAnswerIsNobodys(t *testing.T) {
	for _, later := range []time.Duration{0, 20 * time.Millisecond} {
		behind(t, later)
	}
}

func behind(t *testing.T, later time.Duration) {
	t.Helper()
	tr, dialled := speaking(t, func(n int, r *bufio.Reader, c net.Conn) {
		for {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			answer, more := fmt.Sprintf("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n%d", n), "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nsecret"
			if later == 0 {
				answer += more
			}
			_, _ = io.WriteString(c, answer)
			if later > 0 {
				time.Sleep(later)
				_, _ = io.WriteString(c, more)
			}
		}
	})
	for i := range 3 {
		if got, err := asks(t, tr, t.Context(), "x"); got != fmt.Sprint(i+1) || err != nil {
			t.Errorf("%q, %v", got, err)
		}
		time.Sleep(3 * later)
	}
	if n := dialled.Load(); n != 3 {
		t.Errorf("%d connections", n)
	}
}

// Who leaves ends the connection, before the answer and in it.
func TestLeavingEndsTheConnection(t *testing.T) {
	for _, begun := range []bool{false, true} {
		gone := make(chan error, 1)
		tr, _ := speaking(t, func(_ int, r *bufio.Reader, c net.Conn) {
			req, err := http.ReadRequest(r)
			if err != nil {
				return
			}
			_, _ = io.Copy(io.Discard, req.Body)
			if begun {
				_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
			}
			_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
			_, err = r.ReadByte()
			gone <- err
		})
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Millisecond, cancel)
		if _, err := asks(t, tr, ctx, "x"); err == nil {
			t.Error("an answer that was left is whole")
		}
		if err := <-gone; err == nil || errors.Is(err, context.DeadlineExceeded) || strings.Contains(err.Error(), "timeout") {
			t.Errorf("begun %v: the engine sees %v", begun, err)
		}
	}
}

// An engine that refuses a large request before it has read it is heard.
func TestAnEarlyRefusalIsHeard(t *testing.T) {
	tr, _ := speaking(t, func(_ int, r *bufio.Reader, c net.Conn) {
		if _, err := http.ReadRequest(r); err == nil {
			_, _ = io.WriteString(c, "HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno")
			_, _ = io.CopyN(io.Discard, r, 1<<20)
			time.Sleep(100 * time.Millisecond)
		}
	})
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://engine/", bytes.NewReader(make([]byte, 900<<10)))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := tr.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("status %d", resp.StatusCode)
	}
}
