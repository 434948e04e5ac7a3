package gateway

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// Who sees only encrypted traffic still sees how long its records are and when they
// come, and can tell topics by it (arXiv 2511.03675). The forms below tell less.

// Shape is in which form answers are sent. The zero value sends them as they come.
type Shape struct {
	Mode  Mode
	Every time.Duration // between records of Batch and Constant; 0 means 100 ms
	Size  int           // bytes of a record, of Pad and Constant; 0 means 512
}

// Mode is a form.
type Mode string

// The forms.
const (
	Off      Mode = ""         // each event when it comes
	Batch    Mode = "batch"    // what came in the same time together
	Pad      Mode = "pad"      // each event made up to a multiple of Size
	Constant Mode = "constant" // a record of Size bytes at every tick, from the request on; the number of ticks is rounded up
)

// Modes lists the forms by name.
func Modes() []string { return []string{"off", "batch", "pad", "constant"} }

const (
	minTicks  = 16      // of a constant stream; then powers of two
	maxQueued = 4 << 20 // bytes that wait for ticks
	fastParts = 16
)

var errSlow = errors.New("the client reads too slowly") // constant

// shaper writes an answer in a form.
type shaper struct {
	w      http.ResponseWriter
	rc     *http.ResponseController
	shape  Shape
	stream bool
	stall  time.Duration
	last   []byte // of an answer that is not streamed: what is still to be sent

	mu      sync.Mutex // what follows is guarded by it where ticks are used
	started bool
	dirty   bool
	parts   int // that were written
	err     error
	queue   bytes.Buffer
	ending  bool
	ended   chan struct{}
	halt    chan struct{}
	began   time.Time
	until   time.Time // the deadline of writes
	ticks   int
}

func newShaper(w http.ResponseWriter, shape Shape, stream bool, stall time.Duration) *shaper {
	if shape.Every <= 0 {
		shape.Every = 100 * time.Millisecond
	}
	if shape.Size <= 0 {
		shape.Size = 512
	}
	return &shaper{w: w, rc: http.NewResponseController(w), shape: shape, stream: stream, stall: stall, began: time.Now()}
}

func (s *shaper) ticking() bool { return s.shape.Mode == Batch || s.shape.Mode == Constant }

// open begins a stream. It is called when a call begins to wait, which matters only
// to the constant form, and when the engine answers.
func (s *shaper) open() {
	if !s.stream || s.started {
		return
	}
	if s.shape.Mode == Constant {
		s.start()
	}
}

// begun reports whether the client was sent anything.
func (s *shaper) begun() bool { return s.started }

// start sends the head of a stream.
func (s *shaper) start() {
	if s.started {
		return
	}
	s.started = true
	h := s.w.Header()
	h.Set("Content-Type", "text/event-stream")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Accel-Buffering", "no") // nginx would hold the stream back
	s.w.WriteHeader(http.StatusOK)
	if s.ticking() {
		s.ended, s.halt = make(chan struct{}), make(chan struct{})
		go s.tick()
	}
}

// event sends whole events.
func (s *shaper) event(b []byte) {
	s.start()
	if s.ticking() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.queue.Write(b); s.queue.Len() > maxQueued && s.err == nil {
			s.err = errSlow
		}
		return
	}
	s.write(b)
	if s.shape.Mode == Pad {
		if rest := len(b) % s.shape.Size; rest > 0 {
			s.write(comment(s.shape.Size - rest))
		}
	}
}

// write adds to what is sent together. It looks at the clock for the first part of that,
// and for some of what follows so fast that it is not flushed in between.
func (s *shaper) write(b []byte) {
	if s.err == nil && (!s.dirty || s.parts%fastParts == 0) {
		s.err = s.patience()
	}
	if s.parts++; s.err == nil {
		_, s.err = s.w.Write(b)
		s.dirty = true
	}
}

// patience gives the client time for what is sent next, half of stall at least.
func (s *shaper) patience() error {
	now := time.Now()
	if s.until.Sub(now) > s.stall/2 {
		return nil
	}
	s.until = now.Add(s.stall)
	return supported(s.rc.SetWriteDeadline(s.until))
}

// supported leaves out that a writer, of a test, has no deadlines.
func supported(err error) error {
	if errors.Is(err, http.ErrNotSupported) {
		return nil
	}
	return err
}

// comment is n bytes that clients of event streams pass over.
func comment(n int) []byte {
	b := bytes.Repeat([]byte{'.'}, n)
	if n > 1 {
		b[0] = ':'
	}
	b[n-1] = '\n'
	return b
}

// flush sends what was written so far.
func (s *shaper) flush() {
	if s.ticking() || !s.dirty || s.err != nil {
		return
	}
	s.push()
}

func (s *shaper) push() {
	s.dirty = false
	if s.err = s.patience(); s.err == nil {
		s.err = s.rc.Flush()
	}
}

// gone returns why the client cannot be sent anything more.
func (s *shaper) gone() error {
	if !s.ticking() {
		return s.err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// finish ends a stream and returns when all of it was sent.
func (s *shaper) finish() {
	s.start()
	if !s.ticking() {
		s.flush()
		return
	}
	s.mu.Lock()
	s.ending = true
	s.mu.Unlock()
	<-s.ended
}

// stop ends the ticks of a stream, whole or not. What the client asks next over the same
// connection has another deadline.
func (s *shaper) stop() {
	if s.halt != nil {
		close(s.halt)
		<-s.ended
	}
	if !s.until.IsZero() {
		_ = s.rc.SetWriteDeadline(time.Time{}) // a connection that is gone has no next
	}
}

// tick writes a record at every tick.
func (s *shaper) tick() {
	defer close(s.ended)
	t := time.NewTicker(s.shape.Every)
	defer t.Stop()
	for {
		select {
		case <-s.halt:
			return
		case <-t.C:
		}
		s.mu.Lock()
		over := s.record()
		s.mu.Unlock()
		if over {
			return
		}
	}
}

// record writes one record and reports whether it was the last.
func (s *shaper) record() (over bool) {
	if s.err != nil {
		return true
	}
	if s.shape.Mode == Batch {
		if s.queue.Len() > 0 {
			s.write(s.queue.Next(s.queue.Len()))
			s.push()
		}
		return s.ending || s.err != nil
	}
	b := append(make([]byte, 0, s.shape.Size), s.queue.Next(s.shape.Size)...)
	if rest := s.shape.Size - len(b); rest > 0 {
		b = append(b, comment(rest)...)
	}
	s.write(b)
	s.push()
	s.ticks++
	return s.err != nil || s.ending && s.queue.Len() == 0 && s.ticks >= minTicks && s.ticks&(s.ticks-1) == 0
}

// whole sends an answer in one piece. In the forms that hide sizes it is made up with
// spaces to a power of two; in the constant one it is sent when as many ticks have
// passed. Its last byte is left to over.
func (s *shaper) whole(ctx context.Context, b []byte) error {
	if s.shape.Mode == Pad || s.shape.Mode == Constant {
		size := s.shape.Size
		for size < len(b) {
			size *= 2
		}
		b = append(bytes.Clone(b), bytes.Repeat([]byte{' '}, size-len(b))...)
	}
	if s.shape.Mode == Constant {
		n := minTicks
		for time.Duration(n)*s.shape.Every < time.Since(s.began) {
			n *= 2
		}
		select {
		case <-time.After(time.Until(s.began.Add(time.Duration(n) * s.shape.Every))):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	s.w.Header().Set("Content-Type", "application/json")
	s.w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	s.started = true
	if err := s.patience(); err != nil {
		return err
	}
	last := max(len(b)-1, 0)
	s.last = b[last:]
	_, err := s.w.Write(b[:last])
	return err
}

// over sends the last byte of an answer that is not streamed: whoever has all of it knows
// that its end is on record. Who left before that one byte was answered all the same.
func (s *shaper) over() {
	if len(s.last) == 0 || s.patience() != nil {
		return
	}
	if _, err := s.w.Write(s.last); err == nil {
		_ = s.rc.Flush() // to wait for the server to do it would be without a bound in time
	}
}
