package gateway

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"

	"enisle/internal/infer/engine"
	"enisle/internal/infer/guard"
	"enisle/internal/infer/openai"
)

const (
	maxAnswer  = 16 << 20 // bytes of an answer that is not streamed
	maxRefusal = 64 << 10 // bytes of an engine's error

	maxFailures = 2 // engines that are there and fail at the same request, after which no other is asked
)

// call is one request on its way.
type call struct {
	*request
	g      *gateway
	user   User
	began  time.Time
	model  engine.Model
	as     string // what the engine that is asked calls it
	ruling guard.Ruling
	end    Closing
	out    *shaper // what the client gets
	share  share   // of the memory of all calls

	all    []engine.Engine // of the model, whether they may answer this call or not
	line   *line           // of the model
	ticket *ticket         // its place there

	failures int  // engines that failed at it, though they are well or were there
	onRecord bool // its opening is
	tooMuch  bool // the answer was more than is passed on
	told     bool // the engine said in the answer that it failed
}

// call answers one request.
func (g *gateway) call(w http.ResponseWriter, r *http.Request, rt *route, id string) {
	c := &call{g: g, user: g.opt.Who(r), began: time.Now(), end: Closing{ID: id, Outcome: Refused, Status: http.StatusOK}, share: share{of: &g.room}}
	defer c.share.free()
	ctx, cancel := context.WithTimeout(r.Context(), g.opt.MaxTime)
	defer cancel()
	var err error
	if c.request, err = g.read(w, r, rt, &c.share); err != nil {
		openai.WriteError(w, err)
		return
	}
	engines, m := g.serving(c.request.model)
	if len(engines) == 0 || !c.user.mayAsk(m.ID) {
		openai.WriteError(w, g.notServed(c.request.model, c.user, g.list(c.user)))
		return
	}
	c.model, c.all = m, engines
	c.out = newShaper(w, g.opt.Shape, c.stream, g.opt.MaxStall)
	defer c.out.stop()
	err = c.admitted(ctx, w, r, engines)
	switch {
	case err == nil:
	case r.Context().Err() != nil:
		c.end.Outcome, c.end.Status = Left, statusOf(err)
	default:
		c.end.Status = statusOf(err)
		c.fail(w, err)
	}
	c.closed(ctx)
	c.out.over()
}

// fail tells the client what went wrong: as the answer, or in the stream if that has
// begun.
func (c *call) fail(w http.ResponseWriter, err error) {
	var e *openai.Error
	if !errors.As(err, &e) {
		c.g.opt.Log.Error("call", "id", c.end.ID, "err", err)
		e = openai.Errorf(http.StatusInternalServerError, "internal_error", "internal error")
	}
	if e.Code != nil {
		c.end.Code = *e.Code
	}
	if c.out.begun() {
		c.out.event(errorEvent(c.route, e))
		c.out.finish()
		return
	}
	openai.WriteError(w, e)
}

// errorEvent is an error in a stream, in the shape of its API.
func errorEvent(rt *route, e *openai.Error) []byte {
	name := ""
	if rt.path == "/v1/messages" || rt.path == "/v1/responses" {
		name = "event: error\n"
	}
	return slices.Concat([]byte(name+"data: "), e.MarshalBody(), []byte("\n\n"))
}

// admitted lets the guard, the quota and the record have their say, and then has the
// request answered.
func (c *call) admitted(ctx context.Context, w http.ResponseWriter, r *http.Request, engines []engine.Engine) error {
	g := c.g
	body, blocked := c.guarded()
	reserved := c.tokens(c.model.Context)
	if c.user.Tokens > 0 {
		c.limitTo(c.model.Context, c.user.Tokens)
		reserved = c.most()
	}
	// Whatever becomes of it, that it was asked is on record first.
	if err := c.opened(ctx, r, reserved); err != nil {
		g.opt.Log.ErrorContext(ctx, "call not recorded", "id", c.end.ID, "err", err)
		return openai.Errorf(http.StatusServiceUnavailable, "not_recorded", "the call cannot be recorded, so it is not served").Retry(g.opt.RetryAfter)
	}
	if blocked != nil {
		c.end.Outcome = Blocked
		return blocked
	}
	engines = slices.DeleteFunc(slices.Clone(engines), func(e engine.Engine) bool { return !slices.Contains(e.Traits().Paths, c.route.path) })
	if len(engines) == 0 {
		return openai.Errorf(http.StatusNotFound, "not_supported", "the engine of %s does not offer %s", c.model.ID, c.route.path)
	}
	engines = slices.DeleteFunc(engines, func(e engine.Engine) bool { return !mayShare(e.Traits(), c.user) })
	if len(engines) == 0 {
		return openai.Errorf(http.StatusForbidden, "not_shared", "the engine of %s cannot keep users' prompts apart, and is not for you", c.model.ID)
	}
	settle, err := c.reserved(reserved)
	if err != nil {
		return err
	}
	used := int64(0)
	defer func() { settle(used) }()
	err = c.queued(ctx, w, r, engines, body, c.tokens(c.model.Context))
	used = int64(c.end.Usage.Total)
	return err
}

// reserved takes the tokens that the call may need from what its user has left today.
func (c *call) reserved(tokens int64) (settle func(used int64), err error) {
	if c.user.Tokens == 0 {
		return func(int64) {}, nil
	}
	if c.g.opt.Quota == nil {
		return nil, openai.Errorf(http.StatusServiceUnavailable, "no_quota", "quotas cannot be counted here")
	}
	settle, again, ok := c.g.opt.Quota.Reserve(c.user.Name, tokens, c.user.Tokens, c.began)
	if !ok {
		return nil, openai.Errorf(http.StatusTooManyRequests, "quota_exceeded", "this call may take %d tokens, more than are left of today's %d", tokens, c.user.Tokens).Retry(again)
	}
	return settle, nil
}

// guarded returns the body that goes on, or why none does.
func (c *call) guarded() ([]edit, error) {
	if c.g.opt.Guard == nil {
		return nil, nil
	}
	p := guard.Prompt{Route: c.route.path, Model: c.model.ID, Tools: c.tools, Descriptions: c.descriptions, Unread: c.unread, Spans: make([]guard.Span, len(c.spans))}
	for i, s := range c.spans {
		p.Spans[i] = s.Span
	}
	began := time.Now()
	c.ruling = c.g.opt.Guard.Prompt(&p)
	c.g.metrics.guarded.Observe(time.Since(began).Seconds())
	c.listen()
	if c.ruling.Block != "" {
		return nil, openai.Errorf(http.StatusBadRequest, "content_filter", "the guard of this site refuses the prompt: %s", c.ruling.Block)
	}
	var edits []edit
	for i, text := range c.ruling.Rewrite {
		if i < 0 || i >= len(c.spans) {
			return nil, errors.New("the guard rewrites what is not there")
		}
		b, err := jsontext.AppendQuote(make([]byte, 0, len(text)+len(text)/8+16), text)
		if err != nil {
			return nil, err
		}
		edits = append(edits, edit{c.spans[i].start, c.spans[i].end, b})
	}
	return edits, nil
}

// opened writes the opening record.
func (c *call) opened(ctx context.Context, r *http.Request, reserved int64) error {
	if c.g.opt.Recorder == nil {
		return nil
	}
	err := c.g.opt.Recorder.Open(ctx, Opening{
		ID: c.end.ID, At: c.began, User: c.user.Name, Project: c.user.Project, From: r.RemoteAddr, Route: c.route.path,
		Model: c.model.ID, Weights: c.model.Weights, Streamed: c.stream, Input: digest(c.body), Bytes: len(c.body),
		Reserved: reserved, Findings: c.ruling.Findings, Content: c.body,
	})
	c.onRecord = err == nil
	return err
}

// digest names content by its hash.
func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return digestOf(sum[:])
}

func digestOf(sum []byte) string {
	var buf [len("sha256:") + 2*sha256.Size]byte
	return string(hex.AppendEncode(append(buf[:0], "sha256:"...), sum))
}

// closed writes the closing record and counts the call.
func (c *call) closed(ctx context.Context) {
	c.end.Duration = time.Since(c.began)
	c.g.metrics.observe(c)
	if c.ruling.Answer != nil {
		c.end.Findings = c.ruling.Answer.Findings()
	}
	if c.end.Judged = c.toJudge(); c.end.Judged {
		defer c.judge() // when its end is on record
	}
	if !c.onRecord {
		return
	}
	if err := c.g.opt.Recorder.Close(context.WithoutCancel(ctx), c.end); err != nil {
		c.g.opt.Log.ErrorContext(ctx, "end of a call not recorded", "id", c.end.ID, "err", err)
	}
}

// queued waits for the call's turn and has it answered.
func (c *call) queued(ctx context.Context, w http.ResponseWriter, r *http.Request, engines []engine.Engine, edits []edit, reserved int64) error {
	l := c.g.line(c.model.ID)
	weight := float64(max(c.user.Weight, 1))
	if r.Header.Get("X-Enisle-Priority") == "low" {
		weight /= lowShare
	}
	l.serve(c.g.chooser.seats(c.all, time.Now()))
	t, refused := l.join(c.user.Name, weight, reserved, engines, c.began)
	if refused != nil {
		return openai.Errorf(http.StatusTooManyRequests, "overloaded", "%s", refused.why).Retry(refused.after)
	}
	c.line, c.ticket = l, t
	c.g.judging.makeWay(l, engines)
	c.out.open() // where the form hides when an answer begins
	if err := c.wait(ctx, r, l, t, reserved); err != nil {
		l.mu.Lock()
		after := l.drain()
		l.mu.Unlock()
		return openai.Errorf(http.StatusServiceUnavailable, "queue_timeout", "it was not this call's turn for %s; %d were before it", c.maxWait(r), t.before).Retry(after)
	}
	c.end.Queued = time.Since(c.began)
	defer func() { l.done(t, reserved, max(int64(c.end.Usage.Total), 1)) }()
	if !c.out.begun() {
		w.Header().Set("X-Enisle-Queue", strconv.Itoa(t.before))
		w.Header().Set("X-Enisle-Queue-Ms", strconv.FormatInt(c.end.Queued.Milliseconds(), 10))
		if c.model.Weights != "" {
			w.Header().Set("X-Enisle-Weights", c.model.Weights)
		}
	}
	return c.forward(ctx, r, engines, edits, reserved)
}

// wait waits for the call's turn.
func (c *call) wait(ctx context.Context, r *http.Request, l *line, t *ticket, reserved int64) error {
	select {
	case <-t.ready:
		return nil
	default:
	}
	wait, cancel := context.WithTimeout(ctx, c.maxWait(r))
	defer cancel()
	return l.wait(wait, t, reserved)
}

// maxWait is how long the call may wait: the site's bound, or less if the client says so.
func (c *call) maxWait(r *http.Request) time.Duration {
	if s, err := strconv.ParseFloat(r.Header.Get("X-Enisle-Deadline"), 64); err == nil && s > 0 {
		return time.Duration(min(s*float64(time.Second), float64(c.g.opt.MaxWait)))
	}
	return c.g.opt.MaxWait
}

// forward gives the request to the first engine that takes it, and passes on what it
// answers. Once a byte of an answer was passed on, no other engine is asked.
func (c *call) forward(ctx context.Context, r *http.Request, engines []engine.Engine, edits []edit, reserved int64) error {
	g := c.g
	var keys []uint64
	if len(engines) > 1 {
		keys = chain(c.user.tenant(), c.model.ID, c.spans)
	}
	order, after := g.chooser.order(engines, keys, time.Now())
	if len(order) == 0 {
		return openai.Errorf(http.StatusServiceUnavailable, "engine_down", "the engines of this model failed a moment ago").Retry(max(after, time.Second))
	}
	var last error // order is not empty
	for i := range order {
		e := c.line.choose(c.ticket, order[i:])
		traits := e.Traits()
		m := modelOf(e, c.model)
		c.as = m.Upstream
		body := rewritten(c.body, append(slices.Clone(edits), g.owned(c.request, m, traits, c.user)...))
		c.end.Engine = traits.Kind
		again, err := c.try(ctx, e, body, reserved, keys)
		if !again || ctx.Err() != nil {
			if ctx.Err() != nil && r.Context().Err() == nil && err != nil {
				err = openai.Errorf(http.StatusGatewayTimeout, "timeout", "the answer took longer than %s", g.opt.MaxTime)
			}
			return err
		}
		last = err
	}
	return last
}

// try is ask, and has the chooser know how it went, whatever happens.
func (c *call) try(ctx context.Context, e engine.Engine, body []byte, reserved int64, keys []uint64) (again bool, err error) {
	good := false
	began := time.Now()
	h := c.g.chooser.begin(e, reserved, keys, began)
	before := h.heard.Load()
	defer func() {
		now := time.Now()
		hung := h.heard.Load() == before && c.late(ctx, now.Sub(began))
		switch {
		case hung && !good:
			c.g.opt.Log.WarnContext(ctx, "engine sent nothing until the deadline", "model", c.model.ID, "after", now.Sub(began))
			fallthrough
		case good || ctx.Err() == nil:
			c.g.chooser.end(e, reserved, good, now)
		default: // the client left, or could wait no longer: that says nothing
			c.g.chooser.left(e, reserved)
		}
	}()
	again, good, err = c.ask(ctx, e, body, h)
	return again, err
}

// late reports whether a call that an engine had for so long reached its deadline by the
// engine's fault: it was not left; the deadline is the site's, which no client sets; and
// the engine had it for at least half of the time until then. An upload, the queue and
// other engines may have taken the rest.
func (c *call) late(ctx context.Context, had time.Duration) bool {
	return errors.Is(ctx.Err(), context.DeadlineExceeded) && had >= c.g.opt.MaxTime/2
}

// modelOf returns a model as one engine has it.
func modelOf(e engine.Engine, m engine.Model) engine.Model {
	for _, has := range e.Models() {
		if has.ID == m.ID {
			return has
		}
	}
	return m
}

// ask has one engine answer. again says that another may be asked, good that this one
// did what it should.
func (c *call) ask(ctx context.Context, e engine.Engine, body []byte, h *health) (again, good bool, err error) {
	g := c.g
	out := &http.Request{
		Method: http.MethodPost, URL: &url.URL{Scheme: "http", Host: "engine", Path: c.route.path}, Host: "engine", Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(body)), ContentLength: int64(len(body)),
		GetBody: func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(body)), nil },
	}
	resp, err := e.Transport().RoundTrip(out.WithContext(ctx))
	if err != nil {
		if ctx.Err() != nil {
			c.abandoned()
		} else {
			g.opt.Log.WarnContext(ctx, "engine not reached", "model", c.model.ID, "err", err)
		}
		if !errors.Is(err, engine.ErrDown) { // it may have died of the request
			c.failures++
		}
		return c.failures < maxFailures, false, openai.Errorf(http.StatusServiceUnavailable, "engine_down", "no engine runs this model").Retry(g.opt.RetryAfter)
	}
	defer func() { _ = resp.Body.Close() }() // whatever is left of the answer is not wanted
	in := &listened{ReadCloser: resp.Body, from: h}
	resp.Body = in
	if resp.StatusCode != http.StatusOK {
		refusal := c.refusal(resp)
		busy := refusal.Status == http.StatusTooManyRequests
		failed := refusal.Status >= http.StatusInternalServerError
		// 500 of an engine that is well is about the request: no client makes it rest for all,
		// or keeps all engines of a model busy with what they cannot do.
		well := resp.StatusCode == http.StatusInternalServerError && e.Health(ctx) == nil
		if well {
			c.failures++
		}
		return busy || failed && c.failures < maxFailures, !failed || well, refusal
	}
	c.end.First = time.Since(c.began)
	if c.stream {
		err = c.relay(ctx, resp.Body)
	} else {
		err = c.whole(ctx, resp)
	}
	good = c.end.Outcome != Broken || c.tooMuch || c.told && e.Health(ctx) == nil // as above
	if ctx.Err() != nil && !in.some {                                             // a head alone is no answer
		good = false
	}
	return false, good, err
}

// refusal turns an engine's error into the client's.
func (c *call) refusal(resp *http.Response) *openai.Error {
	b, err := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	if err != nil {
		b = nil
	}
	after, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil || after < 1 || after > 3600 {
		after = int(c.g.opt.RetryAfter / time.Second)
	}
	retry := time.Duration(max(after, 1)) * time.Second
	switch {
	case resp.StatusCode == http.StatusTooManyRequests:
		return openai.Errorf(http.StatusTooManyRequests, "overloaded", "the model is busy").Retry(retry)
	case resp.StatusCode == http.StatusInternalServerError && blind(b):
		return openai.Errorf(http.StatusBadRequest, "not_supported", "the model %s reads no pictures", c.model.ID).On("image_url")
	case resp.StatusCode >= http.StatusInternalServerError:
		return openai.Errorf(http.StatusServiceUnavailable, "engine_error", "the engine could not answer").Retry(retry)
	case resp.StatusCode >= http.StatusBadRequest:
		if e := openai.ParseError(resp.StatusCode, b); e != nil && c.mayShow(e.MarshalBody()) {
			return e
		}
		return openai.Errorf(resp.StatusCode, "engine_refused", "the engine refused the request")
	}
	return openai.Errorf(http.StatusBadGateway, "engine_error", "the engine answered %d", resp.StatusCode)
}

// blind reports whether llama.cpp's server says, as 500, that its model reads no pictures:
// to try again is of no use.
func blind(body []byte) bool {
	e := openai.ParseError(http.StatusInternalServerError, body)
	return e != nil && strings.HasPrefix(e.Message, "image input is not supported")
}

// mayShow reports whether the guard lets an engine's error go to the client: it may quote
// what the model was given. Nothing else of the answer is read after it.
func (c *call) mayShow(body []byte) bool {
	if c.ruling.Answer == nil {
		return true
	}
	var a reader
	if a.read(body) != nil {
		return false
	}
	for _, p := range a.pieces {
		if _, why := c.ruling.Answer.Add(p.lane, p.text); why != "" {
			return false
		}
	}
	return c.ruling.Answer.End() == ""
}

func statusOf(err error) int {
	var e *openai.Error
	if errors.As(err, &e) {
		return e.Status
	}
	return http.StatusInternalServerError
}
