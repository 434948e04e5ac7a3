package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"

	"enisle/internal/infer/openai"
)

const (
	maxEvent = 1 << 20 // bytes of an event of a stream
	maxHeld  = 8 << 20 // bytes of a stream that the guard keeps back at a time
	maxLanes = 4096    // texts of an answer that the guard follows
	maxTexts = 1 << 18 // pieces of text of an answer, or of an event of a stream
	bufSize  = 4 << 10 // bytes that are read of a stream at once
)

var (
	errTexts  = fmt.Errorf("an answer has more than %d texts", maxTexts)   // constant
	errAnswer = fmt.Errorf("an answer is longer than %d bytes", maxAnswer) // constant
	errDeep   = errors.New("an answer is nested too deeply")               // constant
	errEvent  = fmt.Errorf("an event is longer than %d bytes", maxEvent)   // constant
	errLine   = errors.New("a line is none of an event stream")            // constant
)

// broken is what clients are told when an engine stops in the middle.
func broken() error {
	return openai.Errorf(http.StatusBadGateway, "engine_error", "the engine stopped in the middle of the answer")
}

// broke ends a call whose answer cannot be passed on. One that is only too much is what
// the client asked for, and no fault of the engine.
func (c *call) broke(err error) error {
	c.end.Outcome = Broken
	c.tooMuch = errors.Is(err, errAnswer) || errors.Is(err, errTexts) || errors.Is(err, errEvent) || errors.Is(err, errDeep)
	return broken()
}

// whole passes on an answer in one piece.
func (c *call) whole(ctx context.Context, resp *http.Response) error {
	b, err := readAll(counted{io.LimitReader(resp.Body, maxAnswer+1), &c.share}, min(resp.ContentLength, maxAnswer))
	if ctx.Err() != nil {
		c.abandoned()
		c.end.Outcome = Left
		return ctx.Err()
	}
	if errors.Is(err, errNoRoom) {
		return c.g.noRoom()
	}
	a := reader{quiet: !c.route.generates}
	if err == nil && len(b) <= maxAnswer {
		err = a.read(b)
	} else if err == nil {
		err = errAnswer
	}
	if err != nil {
		return c.broke(err)
	}
	if other := c.another(a.head.models[:]); other != nil {
		return other
	}
	c.count(a.head.usage, len(b))
	if why := c.read(a.pieces); why != "" {
		c.end.Outcome = Blocked
		return openai.Errorf(http.StatusBadRequest, "content_filter", "the guard of this site keeps the answer back: %s", why)
	}
	c.end.Outcome = Answered
	if err := c.out.whole(ctx, b); err != nil {
		c.end.Outcome = Left
	}
	c.output(b)
	return nil
}

// output notes what the engine answered.
func (c *call) output(b []byte) {
	if c.g.opt.Recorder == nil {
		return
	}
	c.end.Output, c.end.Content = digest(b), b
}

// read has the guard read a whole answer.
func (c *call) read(pieces []piece) (why string) {
	if c.ruling.Answer == nil || !c.route.generates {
		return ""
	}
	calls, lanes := toolCalls{}, map[string]bool{}
	for _, p := range pieces {
		calls.add(p)
		if lanes[p.lane] = true; len(lanes) > maxLanes {
			return "it has too many parts"
		}
		if _, why := c.ruling.Answer.Add(p.lane, p.text); why != "" {
			return why
		}
	}
	if why := calls.rule(c.ruling.Answer); why != "" {
		return why
	}
	return c.ruling.Answer.End()
}

// laneState is how far a lane has come, and how much of it may be shown.
type laneState struct {
	name         string
	length, safe int
}

// mark says up to where a lane must be safe for an event to be shown.
type mark struct {
	lane *laneState
	upTo int
}

func (m mark) safe() bool { return m.lane == nil || m.lane.safe >= m.upTo }

// held is an event that waits for the guard: so many bytes of what is kept back. Most
// events add to one lane.
type held struct {
	size  int
	first mark
	more  []mark
}

func (h held) safe() bool {
	for _, m := range h.more {
		if !m.safe() {
			return false
		}
	}
	return h.first.safe()
}

// stream is one streamed answer on its way.
type stream struct {
	*call
	reader   reader
	template template
	known    *laneState // of the template
	lanes    map[string]*laneState
	waiting  []held
	kept     []byte // the events that wait, one after the other
	tools    toolCalls
	sum      hash.Hash
	all      bytes.Buffer // for recorders that seal it
	textOut  int          // bytes of text
	ended    bool         // the answer said that it is whole
}

// relay passes on a stream, event by event.
func (c *call) relay(ctx context.Context, body io.Reader) error {
	in := c.g.buffers.Get().(*bufio.Reader) //nolint:forcetypeassert // the pool holds nothing else
	in.Reset(body)
	defer func() { in.Reset(nil); c.g.buffers.Put(in) }()
	s := &stream{call: c, sum: sha256.New(), tools: toolCalls{}}
	if c.ruling.Answer != nil {
		s.lanes = map[string]*laneState{}
	}
	c.out.open()
	err := s.follow(ctx, events{in: in})
	if c.end.Outcome == Answered {
		c.count(nil, s.textOut+1)
	} else {
		c.partly(s.textOut)
	}
	c.end.Output = digestOf(s.sum.Sum(nil))
	c.end.Content = s.all.Bytes()
	return err
}

// follow passes on all events.
func (s *stream) follow(ctx context.Context, from events) error {
	for {
		raw, data, err := from.next()
		if ctx.Err() != nil {
			s.end.Outcome = Left
			return ctx.Err()
		}
		if errors.Is(err, io.EOF) && s.ended {
			return s.finish()
		}
		if err != nil {
			s.g.opt.Log.WarnContext(ctx, "stream broke", "model", s.model.ID, "err", err)
			return s.broke(err)
		}
		done, err := s.event(raw, data)
		if err != nil || done {
			return err
		}
		if from.in.Buffered() == 0 {
			s.out.flush()
		}
		if s.out.gone() != nil {
			s.end.Outcome = Left
			return s.out.gone()
		}
	}
}

// event takes one event.
func (s *stream) event(raw, data []byte) (done bool, err error) {
	s.sum.Write(raw)
	if s.g.opt.Keep && s.all.Len() < maxAnswer {
		if s.share.take(len(raw)) != nil {
			return true, s.g.noRoom()
		}
		s.all.Write(raw)
	}
	if text, ok := s.template.glance(data); ok { // like the one before, which was read in full
		s.textOut += len(text)
		if s.ruling.Answer == nil {
			s.out.event(raw)
			return false, nil
		}
		return false, s.guard(raw, data, text, true)
	}
	if string(data) == "[DONE]" {
		if err := s.ready(); err != nil {
			return true, err
		}
		s.out.event(raw)
		return true, s.finish()
	}
	if len(data) == 0 {
		return false, s.pass(raw, held{})
	}
	keep, err := s.look(data)
	if err != nil {
		return true, err
	}
	if s.reader.head.failed {
		if err := s.ready(); err != nil {
			return true, err
		}
		s.end.Outcome, s.told = Broken, true
		if !s.mayShow(data) {
			return true, broken()
		}
		s.out.event(raw)
		s.out.finish()
		return true, nil
	}
	if !keep {
		return false, nil
	}
	return false, s.guard(raw, data, nil, false)
}

// look reads an event, and says whether the client is to have it.
func (s *stream) look(data []byte) (keep bool, err error) {
	if bytes.Contains(data, []byte(`"message_stop"`)) || bytes.Contains(data, []byte(`"response.completed"`)) || bytes.Contains(data, []byte(`"response.incomplete"`)) {
		s.ended = true
	}
	s.told = s.told || bytes.Contains(data, []byte(`"response.failed"`))
	if err := s.reader.read(data); err != nil {
		return false, s.broke(err)
	}
	h := &s.reader.head
	if err := s.another(h.models[:]); err != nil {
		return false, err
	}
	if h.usage != nil {
		s.count(h.usage, 0)
	}
	return !s.route.counts || h.usage == nil || s.wantUsage || h.choice, nil
}

// guard has an event read and passes on what may be shown. plain is its one text, if it
// is like the one before.
func (s *stream) guard(raw, data, plain []byte, known bool) error {
	var h held
	if known {
		if err := s.add(&h, s.known, plain); err != nil {
			return err
		}
		return s.pass(raw, h)
	}
	pieces := s.reader.pieces
	for _, p := range pieces {
		s.textOut += len(p.text)
	}
	if s.template.learn(data, pieces); s.ruling.Answer != nil {
		s.known = s.lane(s.template.lane)
	}
	if s.ruling.Answer == nil {
		return s.pass(raw, h)
	}
	for _, p := range pieces {
		if p.tool || p.name {
			s.tools.add(p)
		}
		if len(p.text) == 0 {
			continue
		}
		if err := s.add(&h, s.lane(p.lane), p.text); err != nil {
			return err
		}
	}
	return s.pass(raw, h)
}

func (s *stream) lane(name string) *laneState {
	l := s.lanes[name]
	if l == nil {
		l = &laneState{name: name}
		s.lanes[name] = l
	}
	return l
}

// add has the guard read what an event adds to a lane.
func (s *stream) add(h *held, l *laneState, text []byte) error {
	if len(s.lanes) > maxLanes {
		return s.blocked("it has too many parts")
	}
	l.length += len(text)
	safe, why := s.ruling.Answer.Add(l.name, text)
	if l.safe = safe; why != "" {
		return s.blocked(why)
	}
	if m := (mark{l, l.length}); h.first.lane == nil {
		h.first = m
	} else {
		h.more = append(h.more, m)
	}
	return nil
}

// pass sends an event on, or keeps it until the guard has read enough. Events keep
// their order. From the first call of a tool on, all wait for the end: half a call is
// no call, and the guard rules on whole ones.
func (s *stream) pass(raw []byte, h held) error {
	if s.lanes == nil || len(s.waiting) == 0 && len(s.tools) == 0 && h.safe() {
		s.out.event(raw)
		return nil
	}
	if h.size = len(raw); s.share.take(h.size) != nil {
		return s.g.noRoom()
	}
	s.waiting, s.kept = append(s.waiting, h), append(s.kept, raw...)
	n, size := 0, 0
	for len(s.tools) == 0 && n < len(s.waiting) && s.safe(s.waiting[n]) {
		size += s.waiting[n].size
		n++
	}
	s.release(n, size)
	if len(s.kept) > maxHeld || len(s.waiting) > maxTexts {
		return s.blocked("it is too long to be read")
	}
	return nil
}

// safe reports whether an event that waits may be shown by now: other lanes may have gone
// on from where its own ended.
func (s *stream) safe(h held) bool {
	if h.safe() {
		return true
	}
	for _, m := range append(h.more, h.first) {
		if m.lane != nil {
			m.lane.safe = s.ruling.Answer.Safe(m.lane.name)
		}
	}
	return h.safe()
}

// release sends the first n events of those that wait.
func (s *stream) release(n, size int) {
	if n == 0 {
		return
	}
	s.out.event(s.kept[:size])
	s.share.give(size)
	s.kept = append(s.kept[:0], s.kept[size:]...)
	s.waiting = append(s.waiting[:0], s.waiting[n:]...)
}

// ready lets go of what waits, once all of the answer is known.
func (s *stream) ready() error {
	if s.ruling.Answer == nil {
		return nil
	}
	why := s.tools.rule(s.ruling.Answer)
	if why == "" {
		why = s.ruling.Answer.End()
	}
	if why != "" {
		return s.blocked(why)
	}
	s.release(len(s.waiting), len(s.kept))
	return nil
}

func (s *stream) blocked(why string) error {
	s.end.Outcome = Blocked
	return openai.Errorf(http.StatusBadRequest, "content_filter", "the guard of this site ends the answer here: %s", why)
}

// finish ends a stream that is whole.
func (s *stream) finish() error {
	if err := s.ready(); err != nil {
		return err
	}
	s.out.finish()
	if s.end.Outcome = Answered; s.out.gone() != nil {
		s.end.Outcome = Left
	}
	return nil
}

// events reads a stream of them.
type events struct {
	in        *bufio.Reader
	raw, data []byte // of one that is not in one piece in the buffer
}

// next returns one event as it came, with the empty line behind it, and its data, both
// until it is called again. io.EOF in the middle of one is io.ErrUnexpectedEOF.
func (e *events) next() (raw, data []byte, err error) {
	if raw, data = e.glance(); raw != nil {
		return raw, data, nil
	}
	return e.read()
}

// glance returns an event of one line of data that is all in the buffer, as most are.
func (e *events) glance() (raw, data []byte) {
	const field = "data: "
	b, _ := e.in.Peek(e.in.Buffered()) // as much as there is
	i := bytes.IndexByte(b, '\n')
	if i < len(field) || i+1 == len(b) || b[i+1] != '\n' || string(b[:len(field)]) != field || bytes.IndexByte(b[:i], '\r') >= 0 {
		return nil, nil
	}
	_, _ = e.in.Discard(i + 2) // it is there
	return b[:i+2], b[len(field):i]
}

// read reads an event line by line.
func (e *events) read() (raw, data []byte, err error) {
	raw, data = e.raw[:0], e.data[:0]
	defer func() { e.raw, e.data = raw, data }()
	some := false
	for {
		start := len(raw)
		for {
			part, err := e.in.ReadSlice('\n')
			raw = append(raw, part...)
			if len(raw) > maxEvent {
				return raw, data, errEvent
			}
			if err == nil {
				break
			}
			if errors.Is(err, bufio.ErrBufferFull) {
				continue
			}
			if errors.Is(err, io.EOF) && len(raw) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return raw, data, err
		}
		line := bytes.TrimSuffix(raw[start:len(raw)-1], []byte("\r"))
		if len(line) == 0 {
			return raw, data, nil
		}
		name, rest, _ := bytes.Cut(line, []byte(":"))
		if bytes.IndexByte(line, '\r') >= 0 { // which ends a line for clients
			return raw, data, errLine
		}
		switch string(name) {
		case "data":
		case "", "event", "id", "retry": // "" is a comment
			continue
		default: // or what only looks like none of it
			return raw, data, errLine
		}
		if some {
			data = append(data, '\n')
		}
		data, some = append(data, bytes.TrimPrefix(rest, []byte(" "))...), true
	}
}
