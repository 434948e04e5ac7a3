package remote

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"enisle/internal/socket"
)

// transport speaks HTTP/1.1 to an engine on the goroutine of the call: http.Transport
// hands every request to a goroutine that writes and one that reads, which costs a call
// more time than everything else on its way. What is read and written is net/http's.
type transport struct {
	dial func(ctx context.Context) (net.Conn, error)

	mu     sync.Mutex
	idle   []*conn            // the one that was used last at the end; guarded by mu
	busy   map[*conn]struct{} // guarded by mu
	closed bool
}

func newTransport(dial func(context.Context) (net.Conn, error)) *transport {
	return &transport{dial: dial, busy: map[*conn]struct{}{}}
}

const (
	maxIdle   = 64
	maxHeader = 64 << 10 // bytes of an answer's head
	maxEarly  = 5        // answers of 1xx before the answer
)

var errHeader = errors.New("the head of the answer is too long") // constant

// conn is a connection, and what was read of it.
type conn struct {
	net.Conn
	r    *bufio.Reader
	w    *bufio.Writer
	left int // bytes that may still be read; negative: any number
	some bool
	at   time.Time // when it became idle
}

// Read reads from the connection itself, for c.r.
func (c *conn) Read(b []byte) (int, error) {
	if c.left == 0 {
		return 0, errHeader
	}
	if c.left > 0 && len(b) > c.left {
		b = b[:c.left]
	}
	n, err := c.Conn.Read(b)
	if c.left > 0 {
		c.left -= n
	}
	c.some = c.some || n > 0
	return n, err
}

// take returns an idle connection, or nil.
func (t *transport) take(now time.Time) (c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	old := 0
	for old < len(t.idle) && now.Sub(t.idle[old].at) > idleTime {
		_ = t.idle[old].Close() // nobody asks on it any more
		old++
	}
	t.idle = append(t.idle[:0], t.idle[old:]...)
	for n := len(t.idle); n > 0; n-- {
		c, t.idle = t.idle[n-1], t.idle[:n-1]
		if c.quiet() {
			t.busy[c] = struct{}{}
			return c
		}
		_ = c.Close() // it was closed, or says what nobody asked for
	}
	return nil
}

// connect returns a new connection.
func (t *transport) connect(ctx context.Context) (*conn, error) {
	nc, err := t.dial(ctx)
	if err != nil {
		return nil, err
	}
	c := &conn{Conn: nc}
	c.r, c.w = bufio.NewReaderSize(c, 16<<10), bufio.NewWriter(nc)
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil, errors.Join(net.ErrClosed, c.Close())
	}
	t.busy[c] = struct{}{}
	return c, nil
}

// drop closes a connection that a call was on.
func (t *transport) drop(c *conn) {
	_ = c.Close() // nobody waits for more of it
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.busy, c)
}

// quiet reports whether there is nothing to be read from a connection and the other side
// has not closed it.
func (c *conn) quiet() bool {
	under := c.Conn
	if t, ok := under.(interface{ NetConn() net.Conn }); ok { // TLS
		under = t.NetConn()
	}
	s, ok := under.(*socket.Conn)
	return ok && s.Quiet()
}

// give keeps a connection for the next call.
func (t *transport) give(c *conn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	delete(t.busy, c)
	// What an engine says unasked is the beginning of somebody else's answer.
	if t.closed || len(t.idle) >= maxIdle || c.r.Buffered() > 0 {
		_ = c.Close()
		return
	}
	c.at = time.Now()
	t.idle = append(t.idle, c)
}

// Close closes all connections, and ends the calls that are on them.
func (t *transport) Close() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.closed = true
	for _, c := range t.idle {
		_ = c.Close()
	}
	for c := range t.busy {
		go func() { _ = c.Close() }() // of TLS it may take seconds, and calls are not to go on for that long
	}
	t.idle = nil
}

// RoundTrip carries a request. One that meets a connection which was closed while it lay
// idle is sent again, over a new one: no byte of an answer was seen.
func (t *transport) RoundTrip(r *http.Request) (*http.Response, error) {
	if c := t.take(time.Now()); c != nil {
		resp, err := t.ask(c, r)
		if err == nil || c.some || r.Context().Err() != nil || r.Body != nil && r.GetBody == nil {
			return resp, err
		}
		if r.GetBody != nil {
			if r.Body, err = r.GetBody(); err != nil {
				return nil, err
			}
		}
	}
	c, err := t.connect(r.Context())
	if err != nil {
		return nil, err
	}
	return t.ask(c, r)
}

// ask sends a request and reads the head of its answer.
func (t *transport) ask(c *conn, r *http.Request) (*http.Response, error) {
	// Who leaves ends what the engine does for him.
	stop := context.AfterFunc(r.Context(), func() { _ = c.Close() })
	resp, err := c.answer(r)
	if err != nil {
		stop()
		t.drop(c)
		return nil, errors.Join(err, r.Context().Err())
	}
	b := &answer{ReadCloser: resp.Body, t: t, c: c, stop: stop, again: !resp.Close && !r.Close}
	if resp.Body == http.NoBody {
		b.done(true)
	}
	resp.Body = b
	return resp, nil
}

// send writes a request. Its fields are the gateway's own, none a client's.
func (c *conn) send(r *http.Request) error {
	b := append(append(append(c.w.AvailableBuffer(), r.Method...), ' '), r.URL.RequestURI()...)
	b = append(append(append(b, " HTTP/1.1\r\nHost: "...), r.Host...), "\r\n"...)
	for name, all := range r.Header {
		for _, v := range all {
			b = append(append(append(append(b, name...), ": "...), v...), "\r\n"...)
		}
	}
	if r.Body != nil {
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), r.ContentLength, 10), "\r\n"...)
	}
	_, err := c.w.Write(append(b, "\r\n"...))
	if err == nil && r.Body != nil {
		var n int64
		if n, err = io.Copy(c.w, r.Body); err == nil && n != r.ContentLength {
			err = io.ErrUnexpectedEOF
		}
	}
	return errors.Join(err, c.w.Flush())
}

func (c *conn) answer(r *http.Request) (*http.Response, error) {
	c.some, c.left = false, maxHeader
	err := c.send(r)
	for early := 0; ; early++ {
		resp, rerr := http.ReadResponse(c.r, r) // an engine may refuse what it does not read to its end
		if rerr != nil {
			return nil, errors.Join(err, rerr)
		}
		if resp.StatusCode >= http.StatusOK {
			c.left = -1
			resp.Close = resp.Close || err != nil
			return resp, nil
		}
		if early >= maxEarly || resp.StatusCode == http.StatusSwitchingProtocols {
			return nil, errors.New("the engine does not come to its answer")
		}
	}
}

// answer is the body of one; read to its end, it leaves the connection to the next call.
type answer struct {
	io.ReadCloser
	t     *transport
	c     *conn
	stop  func() bool
	again bool
	over  bool
}

func (a *answer) Read(b []byte) (int, error) {
	if a.over {
		return 0, io.EOF
	}
	n, err := a.ReadCloser.Read(b)
	if err != nil {
		a.done(errors.Is(err, io.EOF))
	}
	return n, err
}

// done ends the use of the connection.
func (a *answer) done(whole bool) {
	if a.over {
		return
	}
	a.over = true
	if left := a.stop(); whole && left && a.again {
		a.t.give(a.c)
		return
	}
	a.t.drop(a.c)
}

// Close leaves the rest of an answer.
func (a *answer) Close() error {
	a.done(false)
	return nil
}
