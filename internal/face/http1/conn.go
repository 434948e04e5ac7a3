package http1

import (
	"cmp"
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
	lastBodyWait  = 5 * time.Second // for the rest of a request that is at most lastBytes
	lastBytes     = 256 << 10       // of a request that nobody read, before its connection is closed
	maxEmpty      = 4               // CR and LF that old clients put behind a body, as in net/http
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
	fields  []byte // of that head
	path    string // that was asked for last; empty: nothing was

	mu     sync.Mutex
	gone   bool               // the client is; guarded by mu
	cancel context.CancelFunc // of the request that is answered; guarded by mu
}

// deadline is one of the two of a connection, set when something waits: most are replaced
// before that. Handlers set it from any goroutine.
type deadline struct {
	apply func(time.Time) error

	mu    sync.Mutex // guards what follows
	want  time.Time
	set   time.Time
	waits int // operations that may wait now
}

// coarse is to what deadlines that are at least twice as far away are put off, so that
// those of many requests are the same.
const coarse = 4 * time.Second

// in sets the deadline to a time from now; none if that is 0.
func (d *deadline) in(wait time.Duration) error {
	if wait <= 0 {
		return d.at(time.Time{})
	}
	return d.at(time.Now().Add(wait))
}

// at sets the deadline: at once if something waits already, or else when it does.
func (d *deadline) at(t time.Time) error {
	if !t.IsZero() && time.Until(t) >= 2*coarse {
		t = t.Truncate(coarse).Add(coarse)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.want = t; d.waits == 0 {
		return nil
	}
	return d.make()
}

// hold makes it so, before something is done that may wait; release is called after it.
func (d *deadline) hold() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waits++
	return d.make()
}

func (d *deadline) release() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.waits--
}

// lift leaves none.
func (d *deadline) lift() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.want = time.Time{}
	return d.make()
}

// make is called with mu.
func (d *deadline) make() error {
	if d.want.Equal(d.set) {
		return nil
	}
	d.set = d.want
	return d.apply(d.want)
}

// read reads what the client sends next.
func (c *conn) read(p []byte) (int, error) {
	if c.tls != nil { // TLS may have to answer, by the deadline of now
		defer c.toWrite.release()
		if err := c.toWrite.hold(); err != nil {
			return 0, err
		}
	}
	defer c.toRead.release()
	if err := c.toRead.hold(); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// write sends b.
func (c *conn) write(b []byte) error {
	defer c.toWrite.release()
	if err := c.toWrite.hold(); err != nil {
		return err
	}
	_, err := c.Conn.Write(b)
	return err
}

// serve answers requests until the connection ends or is somebody else's. Whoever panics
// ends this connection, and nothing else.
func (c *conn) serve() {
	defer c.s.forget(c)
	given := false
	defer func() {
		if err := recover(); err != nil && err != http.ErrAbortHandler { //nolint:errorlint // it is a value that was thrown
			stack := make([]byte, 16<<10)
			c.s.log.Error("panic", "path", c.path, "err", err, "stack", string(stack[:runtime.Stack(stack, false)]))
		}
		if !given {
			_ = c.Close()
		}
	}()
	under, ok := c.greet()
	if !ok {
		return
	}
	if err := c.s.watch.add(c, under); err != nil {
		c.s.log.Warn("connection left to net/http", "err", err) // which watches in its own way
		given = c.leave()
		return
	}
	srv := c.s.srv
	_ = c.toRead.in(cmp.Or(srv.ReadHeaderTimeout, srv.ReadTimeout)) // nothing waits yet
	for {
		r, plain := c.request()
		switch {
		case c.from == c.to && r == nil:
			return // it ended, or said nothing for too long
		case !plain:
			given = c.leave()
			return
		}
		if !c.state.CompareAndSwap(idle, busy) {
			return // closed meanwhile
		}
		if !c.answer(r) || !c.state.CompareAndSwap(busy, idle) || c.s.closing.Load() {
			return
		}
		_ = c.toRead.in(cmp.Or(srv.IdleTimeout, srv.ReadTimeout)) // as above
	}
}

// greet agrees with the client on TLS, where that is used. It returns the connection
// under that.
func (c *conn) greet() (under net.Conn, ok bool) {
	under = c.Conn
	if secured, ok := c.Conn.(*tls.Conn); ok {
		under = secured.NetConn()
		wait := cmp.Or(c.s.srv.ReadHeaderTimeout, c.s.srv.ReadTimeout)
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
			return under, false
		}
		state := secured.ConnectionState()
		c.tls = &state
	}
	return under, true
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
	for empty := 0; ; empty++ {
		if c.from == c.to && !c.fill() {
			return nil, false
		}
		if b := c.buf[c.from]; c.path == "" || empty == maxEmpty || b != '\r' && b != '\n' {
			break
		}
		c.from++
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

// fill reads into buf, and reports whether anything came.
func (c *conn) fill() bool {
	n, err := c.read(c.buf[:])
	if err != nil && !errors.Is(err, io.EOF) {
		n = 0
	}
	c.from, c.to = 0, n
	return n > 0
}

// leave gives the connection to net/http, and reports whether that has it.
func (c *conn) leave() bool {
	c.s.watch.remove(c)
	if c.toRead.lift() != nil || c.toWrite.lift() != nil {
		return false
	}
	l := &leftover{Conn: c.Conn, read: append([]byte(nil), c.buf[c.from:c.to]...), tls: c.tls, base: c.base}
	return c.state.CompareAndSwap(idle, closed) && c.s.left.give(l)
}

// answer has one request answered and says whether there may be another.
func (c *conn) answer(r *http.Request) (again bool) {
	ctx, cancel := context.WithCancel(c.base)
	defer cancel()
	c.begin(cancel)
	defer c.begin(nil)
	if c.toRead.in(c.s.srv.ReadTimeout) != nil || c.toWrite.in(c.s.srv.WriteTimeout) != nil {
		return false
	}
	b := &body{c: c, left: r.ContentLength}
	r.Body, r.RemoteAddr, r.TLS = b, c.remote, c.tls
	if b.left == 0 {
		r.Body = http.NoBody
	}
	w := &response{c: c, body: b, header: make(http.Header, 8), length: -1}
	// A goroutine that the handler leaves behind reads and writes no more, however it ended.
	defer b.over.Store(true)
	defer w.over.Store(true)
	c.path = r.URL.Path
	r = r.WithContext(ctx)
	c.s.handler.ServeHTTP(w, r)
	b.over.Store(true)
	if r.MultipartForm != nil {
		_ = r.MultipartForm.RemoveAll() // as net/http does; it says nothing to anybody
	}
	if w.finish(); w.err != nil {
		return false
	}
	if left, known := b.settle(); w.last || left > 0 || !known {
		c.farewell(left)
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

// farewell gives the client time to read the answer: one that still sends would lose it
// if the connection were closed at once. left is what it has not sent of its request.
func (c *conn) farewell(left int64) {
	half, ok := c.Conn.(interface{ CloseWrite() error })
	if !ok || half.CloseWrite() != nil {
		return
	}
	wait := lastWait
	if left > 0 && left <= lastBytes {
		wait = lastBodyWait
	}
	if c.toRead.in(wait) == nil {
		_, _ = io.CopyN(io.Discard, readerFunc(c.read), lastBytes) // whatever it is
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// body is that of a request.
type body struct {
	c    *conn
	over atomic.Bool // it is closed

	mu   sync.Mutex // of whoever reads; it guards left, and what of the connection is read
	left int64      // bytes that were not read
}

// Read reads of it; at its end it returns io.EOF with the last bytes.
func (b *body) Read(p []byte) (n int, err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
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
	} else {
		n, err = c.read(p)
	}
	if b.left -= int64(n); b.left == 0 {
		return n, io.EOF
	}
	if errors.Is(err, io.EOF) {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

// settle leaves the rest of it, if that is here, and returns how much there still is to
// come. It is not known while somebody reads.
func (b *body) settle() (left int64, known bool) {
	if !b.mu.TryLock() {
		return 0, false
	}
	defer b.mu.Unlock()
	if n := int64(b.c.to - b.c.from); b.left > 0 && b.left <= n {
		b.over.Store(true) // who reads on does not take this for its end
		b.c.from += int(b.left)
		b.left = 0
	}
	return b.left, true
}

// Close leaves the rest of it.
func (b *body) Close() error {
	b.over.Store(true)
	return nil
}
