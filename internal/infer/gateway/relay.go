package gateway

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"net/http"
	"strings"

	"enisle/internal/infer/guard"
	"enisle/internal/infer/openai"
)

const (
	maxEvent = 1 << 20 // bytes of an event of a stream
	maxHeld  = 8 << 20 // bytes of a stream that the guard keeps back at a time
	bufSize  = 8 << 10 // bytes that are read of a stream at once
)

var (
	errDeep  = errors.New("an answer is nested too deeply")             // constant
	errEvent = fmt.Errorf("an event is longer than %d bytes", maxEvent) // constant
)

// broken is what clients are told when an engine stops in the middle.
func broken() error {
	return openai.Errorf(http.StatusBadGateway, "engine_error", "the engine stopped in the middle of the answer")
}

// usage is how the three APIs count.
type usage struct {
	openai.Usage
	Input  int `json:"input_tokens"`
	Output int `json:"output_tokens"`
}

func (u usage) sum() openai.Usage {
	out := u.Usage
	out.Prompt, out.Completion = max(out.Prompt, u.Input), max(out.Completion, u.Output)
	out.Total = max(out.Total, out.Prompt+out.Completion)
	return out
}

// count takes what an answer says of its tokens; without it they are guessed.
func (c *call) count(u *usage, bytesOut int) {
	if u != nil {
		got := u.sum()
		c.end.Usage.Prompt = max(c.end.Usage.Prompt, got.Prompt)
		c.end.Usage.Completion = max(c.end.Usage.Completion, got.Completion)
		c.end.Usage.Total = max(got.Total, c.end.Usage.Prompt+c.end.Usage.Completion)
	}
	if c.end.Usage.Total == 0 && bytesOut > 0 {
		c.end.Guessed = true
		c.end.Usage = openai.Usage{Prompt: c.textBytes/4 + 1, Completion: bytesOut/4 + 1, Total: c.textBytes/4 + bytesOut/4 + 2}
	}
}

// whole passes on an answer in one piece.
func (c *call) whole(ctx context.Context, resp *http.Response) error {
	b, err := readAll(io.LimitReader(resp.Body, maxAnswer+1), min(resp.ContentLength, maxAnswer))
	if ctx.Err() != nil {
		c.end.Outcome = Left
		return ctx.Err()
	}
	var head struct {
		Usage *usage `json:"usage"`
		named
	}
	if err != nil || len(b) > maxAnswer || !jsonKind(b) || json.Unmarshal(b, &head) != nil && b[0] == '{' {
		c.end.Outcome = Broken
		return broken()
	}
	if other := c.another(head.named); other != nil {
		return other
	}
	c.count(head.Usage, len(b))
	if why := c.read(b); why != "" {
		c.end.Outcome = Blocked
		return openai.Errorf(http.StatusForbidden, "content_filter", "the guard of this site keeps the answer back: %s", why)
	}
	c.end.Outcome = Answered
	c.output(b)
	if err := c.out.whole(ctx, b); err != nil {
		c.end.Outcome = Left
	}
	return nil
}

// named is where an answer says which model gave it.
type named struct {
	Model   string `json:"model"`
	Message struct {
		Model string `json:"model"`
	} `json:"message"`
	Response struct {
		Model string `json:"model"`
	} `json:"response"`
}

// another refuses an answer by another model than was asked: its weights are not those
// that are on record.
func (c *call) another(n named) error {
	for _, name := range []string{n.Model, n.Message.Model, n.Response.Model} {
		if name != "" && name != c.request.model && name != c.as {
			c.g.opt.Log.Warn("an engine answers for another model", "asked", c.as, "answers", name)
			c.end.Outcome = Broken
			return openai.Errorf(http.StatusBadGateway, "engine_error", "the engine answers for another model than was asked")
		}
	}
	return nil
}

// jsonKind reports whether something is an object or an array.
func jsonKind(b []byte) bool {
	b = bytes.TrimLeft(b, " \t\r\n")
	return len(b) > 0 && (b[0] == '{' || b[0] == '[')
}

// output notes what the engine answered.
func (c *call) output(b []byte) {
	if c.g.opt.Recorder == nil {
		return
	}
	sum := sha256.Sum256(b)
	c.end.Output, c.end.Content = "sha256:"+hex.EncodeToString(sum[:]), b
}

// read has the guard read a whole answer.
func (c *call) read(b []byte) (why string) {
	if c.ruling.Answer == nil || !c.route.generates {
		return ""
	}
	var a reader
	pieces, err := a.read(b)
	if err != nil {
		return "it can not be read"
	}
	calls := toolCalls{}
	for _, p := range pieces {
		calls.add(p)
		if _, why := c.ruling.Answer.Add(p.lane, p.text); why != "" {
			return why
		}
	}
	if why := calls.rule(c.ruling.Answer); why != "" {
		return why
	}
	return c.ruling.Answer.End()
}

// toolCalls gathers the calls of tools in an answer, by where they stand.
type toolCalls map[string]*toolCall

type toolCall struct {
	name      string
	arguments bytes.Buffer
}

func (t toolCalls) add(p piece) {
	if !p.tool && !p.name {
		return
	}
	at := p.lane
	if i := strings.LastIndexByte(at, '.'); i >= 0 {
		at = at[:i]
	}
	// Names and arguments of streamed calls come in events of their own.
	for _, wrap := range []string{".content_block", ".delta", ".item", ".function"} {
		at = strings.TrimSuffix(at, wrap)
	}
	k := t[at]
	if k == nil {
		k = &toolCall{}
		t[at] = k
	}
	// The last events of a call say again what was streamed.
	switch {
	case p.name && k.name != string(p.text):
		k.name += string(p.text)
	case p.tool && !bytes.Equal(k.arguments.Bytes(), p.text):
		k.arguments.Write(p.text)
	}
}

func (t toolCalls) rule(a guard.Answer) string {
	for _, k := range t {
		if why := a.Call(k.name, k.arguments.String()); why != "" {
			return why
		}
	}
	return ""
}

// held is an event that waits for the guard.
type held struct {
	raw   []byte
	lanes []mark // all must be safe
}

type mark struct {
	lane string
	upTo int
}

// stream is one streamed answer on its way.
type stream struct {
	*call
	reader   reader
	template template
	lengths  map[string]int // of lanes
	safe     map[string]int
	waiting  []held
	size     int // bytes that wait
	tools    toolCalls
	sum      hash.Hash
	all      bytes.Buffer // for recorders that seal it
	bytesOut int
	ended    bool // the answer said that it is whole
	named    bool // the answer said by which model it is, or had its chance to
}

// relay passes on a stream, event by event.
func (c *call) relay(ctx context.Context, body io.Reader) error {
	in := c.g.buffers.Get().(*bufio.Reader) //nolint:forcetypeassert // the pool holds nothing else
	in.Reset(body)
	defer func() { in.Reset(nil); c.g.buffers.Put(in) }()
	s := &stream{call: c, sum: sha256.New(), tools: toolCalls{}}
	if c.ruling.Answer != nil {
		s.lengths, s.safe = map[string]int{}, map[string]int{}
	}
	c.out.open()
	err := s.events(ctx, in)
	c.count(nil, s.bytesOut)
	c.end.Output = "sha256:" + hex.EncodeToString(s.sum.Sum(nil))
	c.end.Content = s.all.Bytes()
	return err
}

func (s *stream) events(ctx context.Context, in *bufio.Reader) error {
	var raw, data []byte
	for {
		var err error
		raw, data, err = nextEvent(in, raw[:0], data[:0])
		if ctx.Err() != nil {
			s.end.Outcome = Left
			return ctx.Err()
		}
		if errors.Is(err, io.EOF) && s.ended {
			return s.finish()
		}
		if err != nil {
			s.g.opt.Log.WarnContext(ctx, "stream broke", "model", s.model.ID, "err", err)
			s.end.Outcome = Broken
			return broken()
		}
		done, err := s.event(raw, data)
		if err != nil || done {
			return err
		}
		if in.Buffered() == 0 {
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
	if s.g.opt.Recorder != nil && s.all.Len() < maxAnswer {
		s.all.Write(raw)
	}
	s.bytesOut += len(data) / 8 // most of an event is not text
	if string(data) == "[DONE]" {
		if err := s.ready(); err != nil {
			return true, err
		}
		s.out.event(raw)
		return true, s.finish()
	}
	if !s.named && len(data) > 0 {
		s.named = true
		var n named
		if json.Unmarshal(data, &n) == nil {
			if err := s.another(n); err != nil {
				return true, err
			}
		}
	}
	keep, failed := s.look(data)
	if failed {
		if err := s.ready(); err != nil {
			return true, err
		}
		s.out.event(raw)
		s.out.finish()
		s.end.Outcome = Broken
		return true, nil
	}
	if !keep {
		return false, nil
	}
	if s.ruling.Answer == nil || len(data) == 0 {
		s.pass(held{raw: raw})
		return false, nil
	}
	return false, s.guard(raw, data)
}

// look reads the counts out of an event, and says whether the client is to have it and
// whether it is an error.
func (s *stream) look(data []byte) (keep, failed bool) {
	if bytes.Contains(data, []byte(`"message_stop"`)) || bytes.Contains(data, []byte(`"response.completed"`)) || bytes.Contains(data, []byte(`"response.incomplete"`)) {
		s.ended = true
	}
	hasUsage, hasError := bytes.Contains(data, []byte(`"usage"`)), bytes.Contains(data, []byte(`"error"`))
	if !hasUsage && !hasError {
		return true, false
	}
	var e struct {
		Choices []json.RawMessage `json:"choices"`
		Usage   *usage            `json:"usage"`
		Error   json.RawMessage   `json:"error"`
		Message struct {
			Usage *usage `json:"usage"`
		} `json:"message"` // of Anthropic's first event
		Response struct {
			Usage *usage `json:"usage"`
		} `json:"response"` // of the last event of responses
	}
	if json.Unmarshal(data, &e) != nil {
		return true, false
	}
	for _, u := range []*usage{e.Usage, e.Message.Usage, e.Response.Usage} {
		if u != nil {
			s.count(u, 0)
		}
	}
	failed = len(e.Error) > 0 && !bytes.Equal(e.Error, []byte("null"))
	mine := s.route.counts && e.Usage != nil && !s.wantUsage && len(e.Choices) == 0
	return !mine, failed
}

// guard has an event read and passes on what may be shown.
func (s *stream) guard(raw, data []byte) error {
	var marks []mark
	add := func(lane string, text []byte) error {
		s.lengths[lane] += len(text)
		safe, why := s.ruling.Answer.Add(lane, text)
		if s.safe[lane] = safe; why != "" {
			return s.blocked(why)
		}
		marks = append(marks, mark{lane, s.lengths[lane]})
		return nil
	}
	if text, ok := s.template.glance(data); ok {
		if err := add(s.template.lane, text); err != nil {
			return err
		}
	} else {
		pieces, err := s.reader.read(data)
		if err != nil {
			s.end.Outcome = Broken
			return broken()
		}
		s.template.learn(data, pieces)
		for _, p := range pieces {
			if p.tool || p.name {
				s.tools.add(p)
			}
			if len(p.text) > 0 {
				if err := add(p.lane, p.text); err != nil {
					return err
				}
			}
		}
	}
	s.pass(held{raw, marks})
	if s.size > maxHeld {
		return s.blocked("it is too long to be read")
	}
	return nil
}

// pass sends an event on, or keeps it until the guard has read enough. Events keep
// their order. From the first call of a tool on, all wait for the end: half a call is
// no call, and the guard rules on whole ones.
func (s *stream) pass(h held) {
	if s.safe != nil {
		if len(s.waiting) > 0 || len(s.tools) > 0 || !s.mayShow(h) {
			h.raw = bytes.Clone(h.raw)
			s.waiting, s.size = append(s.waiting, h), s.size+len(h.raw)
			n := 0
			for len(s.tools) == 0 && n < len(s.waiting) && s.mayShow(s.waiting[n]) {
				s.out.event(s.waiting[n].raw)
				s.size -= len(s.waiting[n].raw)
				n++
			}
			s.waiting = append(s.waiting[:0], s.waiting[n:]...)
			return
		}
	}
	s.out.event(h.raw)
}

func (s *stream) mayShow(h held) bool {
	for _, m := range h.lanes {
		if s.safe[m.lane] < m.upTo {
			return false
		}
	}
	return true
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
	for _, h := range s.waiting {
		s.out.event(h.raw)
	}
	s.waiting = nil
	return nil
}

func (s *stream) blocked(why string) error {
	s.end.Outcome = Blocked
	return openai.Errorf(http.StatusForbidden, "content_filter", "the guard of this site ends the answer here: %s", why)
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

// nextEvent reads one event into raw, as it came with the empty line behind it, and its
// data into data. io.EOF in the middle of one is io.ErrUnexpectedEOF.
func nextEvent(in *bufio.Reader, raw, data []byte) (_, _ []byte, err error) {
	some := false
	for {
		start := len(raw)
		for {
			part, err := in.ReadSlice('\n')
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
		line := bytes.TrimRight(raw[start:], "\r\n")
		if len(line) == 0 {
			return raw, data, nil
		}
		rest, ok := bytes.CutPrefix(line, []byte("data:"))
		if !ok {
			continue // a name, or a comment
		}
		if some {
			data = append(data, '\n')
		}
		data, some = append(data, bytes.TrimPrefix(rest, []byte(" "))...), true
	}
}
