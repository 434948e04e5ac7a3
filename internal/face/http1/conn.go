package http1

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"runtime"
	"sync"
	"sync/atomic"
	"time"
)

// The states of a connection.
const (
	idle int32 = iota
	busy
	closed
)

const (
	handshakeTime = 10 * time.Second // of TLS, where ReadHeaderTimeout is none
	lastWait      = 500 * time.Millisecond
	lastBytes     = 256 << 10 // of a request that nobody read, before its connection is closed
)

// conn is a connection whose requests are read here.
type conn struct {
	net.Conn
	s       *Server
	id      uint64 // at the watcher; 0: it is not watched
	base    context.Context
	remote  string
	tls     *tls.ConnectionState
	state   atomic.Int32
	toRead  deadline
	toWrite deadline
	buf     [maxHead]byte
	from    int // what of buf was read of the connection, and is nobody's yet
	to      int
	out     []byte // what is about to be written
	held    []byte // an answer whose head is not yet made

	mu     sync.Mutex
	gone   bool               // the client is; guarded by mu
	cancel context.CancelFunc // of the request that is answered; guarded by mu
}

// deadline is one of the two of a connection, set when it is about to matter: most are
// replaced before that.
type deadline struct {
	apply func(time.Time) error
	want  time.Time
	set   time.Time
}

// coarse is to what deadlines that are at least twice as far away are put off, so that
// those of many requests are the same.
const coarse = 4 * time.Second

// in sets the deadline to a time from now; none if that is 0.
func (d *deadline) in(wait time.Duration) {
	if d.want = (time.Time{}); wait > 0 {
		d.at(time.Now().Add(wait))
	}
}

func (d *deadline) at(t time.Time) {
	if d.want = t; !t.IsZero() && time.Until(t) >= 2*coarse {
		d.want = t.Truncate(coarse).Add(coarse)
	}
}

// hold makes it so, before something is done that may wait.
func (d *deadline) hold() error {
	if d.want.Equal(d.set) {
		return nil
	}
	d.set = d.want
	return d.apply(d.want)
}

// serve answers requests until the connection ends or is somebody else's.
func (c *conn) serve() {
	defer c.s.forget(c)
	if !c.greet() {
		_ = c.Close()
		return
	}
	c.toRead.in(c.s.srv.ReadHeaderTimeout)
	for {
		r, plain := c.request()
		switch {
		case c.from == c.to && r == nil:
			_ = c.Close() // it ended, or said nothing for too long
			return
		case !plain:
			c.leave()
			return
		}
		if !c.state.CompareAndSwap(idle, busy) {
			return // closed meanwhile
		}
		again := c.answer(r)
		if !again || !c.state.CompareAndSwap(busy, idle) || c.s.closing.Load() {
			_ = c.Close()
			return
		}
		c.toRead.in(c.s.srv.IdleTimeout)
	}
}

// greet agrees with the client on TLS, where that is used, and has it watched.
func (c *conn) greet() bool {
	under := c.Conn
	if secured, ok := c.Conn.(*tls.Conn); ok {
		under = secured.NetConn()
		wait := c.s.srv.ReadHeaderTimeout
		if wait <= 0 {
			wait = handshakeTime
		}
		ctx, cancel := context.WithTimeout(c.base, wait)
		defer cancel()
		if err := secured.HandshakeContext(ctx); err != nil {
			var plain tls.RecordHeaderError
			if errors.As(err, &plain) && plain.Conn != nil && looksLikeHTTP(plain.RecordHeader) {
				_, _ = io.WriteString(plain.Conn, "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\n\r\nuse https here\n") // as a favour
			}
			return false
		}
		state := secured.ConnectionState()
		c.tls = &state
	}
	if err := c.s.watch.add(c, under); err != nil {
		c.s.log.Warn("connection not served", "err", err)
		return false
	}
	return true
}

func looksLikeHTTP(head [5]byte) bool {
	switch string(head[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
		return true
	}
	return false
}

// request reads the head of the next request. It is of the plain form, or what was read
// stays in buf.
func (c *conn) request() (r *http.Request, plain bool) {
	if c.from == c.to {
		c.from, c.to = 0, 0
		if c.toRead.hold() != nil {
			return nil, false
		}
		n, err := c.Read(c.buf[:])
		if c.to = n; n == 0 || err != nil && !errors.Is(err, io.EOF) {
			c.to = 0
			return nil, false
		}
	}
	n := headOf(c.buf[c.from:c.to])
	if n < 0 {
		return nil, false
	}
	if r, plain = parse(c.buf[c.from : c.from+n-len("\r\n")]); plain {
		c.from += n
	}
	return r, plain
}

// leave gives the connection to net/http.
func (c *conn) leave() {
	c.s.watch.remove(c)
	c.toRead.want, c.toWrite.want = time.Time{}, time.Time{}
	if c.toRead.hold() != nil || c.toWrite.hold() != nil {
		_ = c.Close()
		return
	}
	l := &leftover{Conn: c.Conn, read: append([]byte(nil), c.buf[c.from:c.to]...), tls: c.tls}
	if !c.state.CompareAndSwap(idle, closed) || !c.s.left.give(l) {
		_ = c.Close()
	}
}

// answer has one request answered and says whether there may be another.
func (c *conn) answer(r *http.Request) (again bool) {
	ctx, cancel := context.WithCancel(c.base)
	defer cancel()
	c.begin(cancel)
	defer c.begin(nil)
	c.toRead.want = time.Time{}
	c.toWrite.want = time.Time{}
	b := &body{c: c, left: r.ContentLength}
	r.Body, r.RemoteAddr, r.TLS = b, c.remote, c.tls
	if b.left == 0 {
		r.Body = http.NoBody
	}
	w := &response{c: c, body: b, header: make(http.Header, 8), length: -1}
	if !c.handle(w, r.WithContext(ctx)) {
		return false
	}
	b.over.Store(true)
	if w.finish(); w.err != nil {
		return false
	}
	if w.last || b.left > 0 {
		c.farewell()
		return false
	}
	return true
}

// begin says what is to end when the client leaves; nil: nothing any more.
func (c *conn) begin(cancel context.CancelFunc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.cancel = cancel; c.gone && cancel != nil {
		cancel()
	}
}

// left is called when the client has gone.
func (c *conn) left() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.gone = true; c.cancel != nil {
		c.cancel()
	}
}

// handle calls the handler. One that panics ends its connection, and nothing else.
func (c *conn) handle(w http.ResponseWriter, r *http.Request) (well bool) {
	defer func() {
		if err := recover(); err != nil && err != http.ErrAbortHandler { //nolint:errorlint // it is a value that was thrown
			stack := make([]byte, 16<<10)
			c.s.log.Error("panic", "path", r.URL.Path, "err", err, "stack", string(stack[:runtime.Stack(stack, false)]))
		}
	}()
	c.s.handler.ServeHTTP(w, r)
	return true
}

// farewell gives the client time to read the answer: one that still sends would lose it
// if the connection were closed at once.
func (c *conn) farewell() {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	if c.toRead.in(lastWait); c.toRead.hold() == nil {
		_, _ = io.CopyN(io.Discard, c.Conn, lastBytes) // whatever it is
	}
}

// body is that of a request.
type body struct {
	c    *conn
	left int64 // bytes that were not read
	over atomic.Bool
}

// Read reads of it; at its end it returns io.EOF with the last bytes.
func (b *body) Read(p []byte) (n int, err error) {
	c := b.c
	switch {
	case b.over.Load():
		return 0, http.ErrBodyReadAfterClose
	case b.left == 0:
		return 0, io.EOF
	case int64(len(p)) > b.left:
		p = p[:b.left]
	}
	if c.from < c.to {
		n = copy(p, c.buf[c.from:c.to])
		c.from += n
	} else if err = c.toRead.hold(); err == nil {
		n, err = c.Read(p)
	}
	if b.left -= int64(n); b.left == 0 {
		return n, io.EOF
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// skip leaves the rest of it, if that is here.
func (b *body) skip() {
	if n := int64(b.c.to - b.c.from); b.left <= n {
		b.c.from += int(b.left)
		b.left = 0
	}
}

// Close leaves the rest of it.
func (b *body) Close() error {
	b.over.Store(true)
	return nil
}
