package http1

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

const (
	maxHold = 4 << 10 // bytes of an answer that are kept until its length is known
	maxOut  = 8 << 10 // bytes that go out together
)

var errOver = errors.New("the handler has ended") // constant

// response writes the answer to one request. Goroutines of a handler may share it, if
// they take turns; one that is left behind when the handler ends gets errors.
type response struct {
	c      *conn
	body   *body // of the request
	header http.Header
	over   atomic.Bool // the handler has ended

	mu      sync.Mutex // guards what follows, and what of the connection is written
	status  int        // 0: none yet
	length  int64      // that was announced; -1: none was
	written int64
	made    bool // the head is
	typed   bool // it says of what type it is, or must not
	dated   bool
	chunked bool
	last    bool // the connection is closed after it
	err     error
}

// Header is what goes before the answer.
func (w *response) Header() http.Header { return w.header }

// WriteHeader begins an answer. Those before the final one are not sent.
func (w *response) WriteHeader(status int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.over.Load() {
		w.start(status)
	}
}

// start notes the fields of the head: those that are set later are none of it.
func (w *response) start(status int) {
	if status < 100 || status > 999 {
		panic(fmt.Sprintf("invalid status %d", status)) // as in net/http: it is a mistake of the handler
	}
	if w.status != 0 || status < http.StatusOK {
		return
	}
	w.status = status
	if s := w.header.Get("Content-Length"); s != "" {
		n, ok := plainLength(s)
		if w.length = n; !ok {
			w.length = -1
		}
	}
	h := w.header
	_, w.typed = h["Content-Type"]
	w.typed = w.typed || h.Get("Content-Encoding") != "" // what that hides is not of the type it looks
	_, w.dated = h["Date"]
	w.last = strings.EqualFold(h.Get("Connection"), "close")
	w.note()
}

// Write adds to the answer.
func (w *response) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over.Load() {
		return 0, errOver
	}
	w.start(http.StatusOK)
	if w.err != nil || len(p) == 0 {
		return 0, w.err
	}
	if !bodyAllowed(w.status) {
		return 0, http.ErrBodyNotAllowed
	}
	if w.length >= 0 && w.written+int64(len(p)) > w.length {
		return 0, http.ErrContentLength
	}
	w.written += int64(len(p))
	if !w.made && len(w.c.held)+len(p) <= maxHold {
		w.c.held = append(w.c.held, p...)
		return len(p), nil
	}
	w.begin(false, p)
	if w.put(p); w.err != nil {
		return 0, w.err
	}
	return len(p), nil
}

// FlushError sends what was written so far.
func (w *response) FlushError() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.over.Load() {
		return errOver
	}
	w.start(http.StatusOK)
	w.begin(false, nil)
	w.push()
	return w.err
}

// Flush is FlushError for those who do not look.
func (w *response) Flush() { _ = w.FlushError() }

// SetReadDeadline bounds how long is waited for the body of the request. Far deadlines
// are put off for some seconds.
func (w *response) SetReadDeadline(t time.Time) error {
	if w.over.Load() {
		return errOver
	}
	return w.c.toRead.at(t)
}

// SetWriteDeadline bounds how long is waited for the client to take the answer. Far
// deadlines are put off for some seconds.
func (w *response) SetWriteDeadline(t time.Time) error {
	if w.over.Load() {
		return errOver
	}
	return w.c.toWrite.at(t)
}

func bodyAllowed(status int) bool {
	return status >= http.StatusOK && status != http.StatusNoContent && status != http.StatusNotModified
}

// begin makes the head, and puts what was held behind it, which next follows.
func (w *response) begin(whole bool, next []byte) {
	if w.made {
		return
	}
	w.made = true
	held := w.c.held
	switch {
	case !bodyAllowed(w.status):
		w.length = -1
	case w.length < 0 && whole:
		w.length = int64(len(held))
	case w.length < 0:
		w.chunked = true
	}
	left, known := w.body.settle()
	w.last = w.last || left > 0 || !known || w.c.s.closing.Load()
	if len(held) > 0 {
		next = held
	}
	w.head(next)
	if w.c.held = held[:0]; len(held) > 0 {
		w.put(held)
	}
}

// head makes the head of an answer that begins with text.
func (w *response) head(text []byte) {
	b := append(w.c.out[:0], "HTTP/1.1 "...)
	b = strconv.AppendInt(b, int64(w.status), 10)
	b = append(append(append(b, ' '), http.StatusText(w.status)...), "\r\n"...)
	if !w.dated {
		b = append(append(append(b, "Date: "...), w.c.s.date()...), "\r\n"...)
	}
	if !w.typed && len(text) > 0 {
		b = append(append(append(b, "Content-Type: "...), http.DetectContentType(text)...), "\r\n"...)
	}
	if w.chunked {
		b = append(b, "Transfer-Encoding: chunked\r\n"...)
	} else if w.length >= 0 {
		b = append(strconv.AppendInt(append(b, "Content-Length: "...), w.length, 10), "\r\n"...)
	}
	if w.last {
		b = append(b, "Connection: close\r\n"...)
	}
	w.c.out = append(append(b, w.c.fields...), "\r\n"...)
}

// note writes down the handler's fields, in order of their names.
func (w *response) note() {
	var room [24]string
	names := room[:0]
	for name := range w.header {
		switch name {
		case "Content-Length", "Transfer-Encoding", "Connection", "Trailer":
		case "Content-Type":
			if w.status != http.StatusNotModified {
				names = append(names, name)
			}
		default:
			if isToken(name) { // or else it would be no field
				names = append(names, name)
			}
		}
	}
	slices.Sort(names)
	b := w.c.fields[:0]
	for _, name := range names {
		for _, v := range w.header[name] {
			b = append(append(append(b, name...), ": "...), oneLine(v)...)
			b = append(b, "\r\n"...)
		}
	}
	w.c.fields = b
}

// isToken reports whether s may name a field (RFC 9110, 5.6.2).
func isToken(s string) bool {
	for i := range len(s) {
		if !alphanumeric(s[i]) && strings.IndexByte("!#$%&'*+-.^_`|~", s[i]) < 0 {
			return false
		}
	}
	return s != ""
}

// oneLine has a value end where its line does.
func oneLine(v string) string {
	if !strings.ContainsAny(v, "\r\n") {
		return v
	}
	return strings.NewReplacer("\r", " ", "\n", " ").Replace(v)
}

// put appends a part of the answer. What is long goes out.
func (w *response) put(p []byte) {
	if len(p) == 0 || w.err != nil {
		return
	}
	b := w.c.out
	if w.chunked {
		b = append(strconv.AppendInt(b, int64(len(p)), 16), "\r\n"...)
	}
	if w.c.out = b; len(b)+len(p) > maxOut {
		w.push()
	}
	if len(p) > maxOut {
		w.write(p)
		b = w.c.out
	} else {
		b = append(w.c.out, p...)
	}
	if w.chunked {
		b = append(b, "\r\n"...)
	}
	w.c.out = b
}

// push sends what was put.
func (w *response) push() {
	if len(w.c.out) > 0 {
		w.write(w.c.out)
		w.c.out = w.c.out[:0]
	}
}

// write sends b. A client that cannot be sent anything has left.
func (w *response) write(b []byte) {
	if w.err != nil {
		return
	}
	if w.err = w.c.write(b); w.err != nil {
		w.c.left()
	}
}

// finish ends the answer. A goroutine that the handler left behind in the middle of a
// write is waited for.
func (w *response) finish() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.over.Store(true)
	w.start(http.StatusOK)
	w.begin(true, nil)
	if w.chunked && w.err == nil {
		w.c.out = append(w.c.out, "0\r\n\r\n"...)
	}
	w.push()
	if w.length > w.written {
		w.last = true // the client waits for more than there is
	}
}

// stamp is the time of a second, as fields of HTTP have it.
type stamp struct {
	second int64
	text   string
}

// date is the time of now.
func (s *Server) date() string {
	now := time.Now()
	if last := s.stamp.Load(); last != nil && last.second == now.Unix() {
		return last.text
	}
	last := &stamp{now.Unix(), now.UTC().Format(http.TimeFormat)}
	s.stamp.Store(last)
	return last.text
}
