package gateway

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"enisle/internal/infer/engine"
	"enisle/internal/infer/guard"
)

// A judge is asked about calls that have ended, over the same engines, and makes way for
// people: a judgement begins only where a place is left over, on this machine only while
// no engine of it works for anybody, and is broken off when somebody would have to wait.
// What does not fit, in number, memory or time, is not judged, and that is on record. The
// calls themselves never wait for it.

const (
	maxJudging = 256              // judgements that wait
	maxOfOne   = 64               // of them, of one user: nobody keeps those of others out
	maxJudged  = 32 << 10         // bytes of a call that are judged
	maxPieces  = 16               // of them, that a judge is asked about
	maxAge     = 10 * time.Minute // of a judgement that waits
	busyRest   = 5 * time.Second  // after an engine said that it is busy
	lookAgain  = 100 * time.Millisecond
	lastWords  = 2 * time.Second // for which judgements under way may go on at the end: less than this process has
)

// Why a call was not judged.
const (
	notFull     = "full" // too many wait
	notRoom     = "no-room"
	notInTime   = "late"
	notServed   = "not-served" // no engine has the judge's model
	notShared   = "not-shared" // none that keeps tenants apart
	notAnswered = "failed"     // the engine
	notAnyMore  = "stopped"    // this process ends
)

var (
	errWay  = errors.New("a person's call comes first") // constant
	errBusy = errors.New("the engine is busy")          // constant
	errStop = errors.New("the gateway ends")            // constant
)

// judging are the judgements that wait and run.
type judging struct {
	g      *gateway
	active atomic.Int32  // judgements that run or are about to: people look here first
	wake   chan struct{} // something may begin

	mu      sync.Mutex // taken before those of the gateway and its lines; guards what follows
	waiting []*judgement
	running map[*judgement]context.CancelCauseFunc
	looping bool
	closed  bool
	ended   sync.WaitGroup  // those that run
	missing map[string]bool // judges that are not served, as was logged
}

func (j *judging) init(g *gateway) {
	j.g, j.wake, j.running, j.missing = g, make(chan struct{}, 1), map[*judgement]context.CancelCauseFunc{}, map[string]bool{}
}

// judgement is one call that is judged.
type judgement struct {
	call   string // its ID
	user   User
	policy *guard.JudgePolicy
	texts  []judgedText // the newest first
	share  share
	since  time.Time
	after  time.Time // not to be begun before

	pieces []judgedText // what is asked; nil: not begun
	next   int          // of them
	line   *line        // of the judge's model
	ticket *ticket      // its place there
	local  bool         // its engine shares this machine
	out    Judgement
}

// judgedText is a text with where it is from, a source or "answer".
type judgedText struct{ of, text string }

// heard is the answer's guard, and keeps what a judge is asked of it.
type heard struct {
	guard.Answer
	lane string
	text []byte
	cut  bool // there was more
	s    *share
}

// Add hands on what it keeps.
func (h *heard) Add(lane string, text []byte) (int, string) {
	if h.lane != lane && len(h.text) > 0 {
		h.keep([]byte("\n"))
	}
	h.lane = lane
	h.keep(text)
	return h.Answer.Add(lane, text)
}

func (h *heard) keep(text []byte) {
	n := min(len(text), maxJudged-len(h.text))
	if h.cut = h.cut || n < len(text); h.cut && n == 0 {
		return
	}
	if h.s.take(n) != nil {
		h.cut = true
		return
	}
	h.text = append(h.text, text[:n]...)
}

// listen keeps the answer where a judge reads it.
func (c *call) listen() {
	if p := c.ruling.Judge; p != nil && p.ReadsAnswer() && c.ruling.Answer != nil {
		c.ruling.Answer = &heard{Answer: c.ruling.Answer, s: &c.share}
	}
}

// toJudge reports whether the call will be judged: an engine answered it, and chance, or
// what was found, chose it.
func (c *call) toJudge() bool {
	p := c.ruling.Judge
	if p == nil || c.end.First == 0 || c.end.Outcome == Blocked {
		return false
	}
	if !p.Takes(len(c.ruling.Findings)+len(c.end.Findings) > 0, rand.Float64()) { //nolint:gosec // it is a sample
		return false
	}
	h, ok := c.ruling.Answer.(*heard)
	return ok && len(h.text) > 0 || slices.ContainsFunc(c.spans, func(s span) bool { return s.Text != "" && p.ReadsSpan(s.Source) })
}

// judge puts the call before the judge, later.
func (c *call) judge() {
	g, p := c.g, c.ruling.Judge
	j := &judgement{call: c.end.ID, user: c.user, policy: p, since: time.Now(), share: share{of: &g.room}, out: Judgement{ID: c.end.ID, Judge: p.Model, Verdict: guard.NotJudged}}
	room := maxJudged
	add := func(of, text string, cut bool) {
		if j.out.Cut = j.out.Cut || cut || len(text) > room; len(text) > room {
			text = strings.Clone(text[:room])
		}
		if room -= len(text); text != "" {
			j.texts = append(j.texts, judgedText{of, text})
		}
	}
	if h, ok := c.ruling.Answer.(*heard); ok {
		add("answer", string(h.text), h.cut)
	}
	for _, s := range slices.Backward(c.spans) {
		if p.ReadsSpan(s.Source) {
			add(s.Source.String(), s.Text, false)
		}
	}
	g.judging.add(j, maxJudged-room)
}

// add lets a judgement wait, or records that it cannot.
func (j *judging) add(n *judgement, bytes int) {
	why := ""
	j.mu.Lock()
	switch {
	case j.closed:
		why = notAnyMore
	case len(j.waiting) >= maxJudging || j.of(n.user) >= maxOfOne:
		why = notFull
	case n.share.take(bytes) != nil:
		why = notRoom
	default:
		j.waiting = append(j.waiting, n)
		j.loop()
	}
	j.mu.Unlock()
	if why != "" {
		j.finish(n, guard.NotJudged, why)
	}
}

// of returns how many judgements of a user's calls wait. It is called with mu.
func (j *judging) of(u User) (n int) {
	for _, w := range j.waiting {
		if w.user.Name == u.Name {
			n++
		}
	}
	return n
}

// loop begins what waits until nothing does. It is called with mu.
func (j *judging) loop() {
	if j.look(); j.looping {
		return
	}
	j.looping = true
	j.ended.Go(func() {
		for j.round() {
			select {
			case <-j.wake:
			case <-time.After(lookAgain):
			}
		}
	})
}

// look has loop look at once.
func (j *judging) look() {
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

// round begins what can begin, and reports whether something still waits.
func (j *judging) round() bool {
	j.mu.Lock()
	dropped := j.begin()
	j.looping = len(j.waiting) > 0
	again := j.looping
	j.mu.Unlock()
	for n, why := range dropped {
		j.finish(n, guard.NotJudged, why)
	}
	return again
}

// begin begins every judgement that can be, and returns those that never will be, with
// the reasons. It is called with mu.
func (j *judging) begin() (dropped map[*judgement]string) {
	dropped = map[*judgement]string{}
	busy := map[string]bool{} // judges that take no more now
	j.waiting = slices.DeleteFunc(j.waiting, func(n *judgement) bool {
		if time.Since(n.since) > maxAge {
			dropped[n] = notInTime
			return true
		}
		if busy[n.policy.Model] || time.Now().Before(n.after) {
			return false
		}
		engines, m, why := j.engines(n)
		if why != "" {
			dropped[n] = why
			return true
		}
		// People look at active after they joined a line, and here it is set before lines are
		// looked at: one of the two sees the other.
		j.active.Add(1)
		if n.ticket = nil; !n.local || !j.g.atWork() {
			n.ticket = n.line.takeSpare(engines)
		}
		if n.ticket == nil {
			j.active.Add(-1)
			busy[n.policy.Model] = true
			return false
		}
		ctx, cancel := context.WithCancelCause(context.Background())
		j.running[n] = cancel
		j.ended.Go(func() { j.run(ctx, n, engines, m) })
		return true
	})
	return dropped
}

// engines returns those that may be asked for a judgement. It is called with mu.
func (j *judging) engines(n *judgement) (engines []engine.Engine, m engine.Model, why string) {
	all, m := j.g.serving(n.policy.Model)
	engines = slices.DeleteFunc(slices.Clone(all), func(e engine.Engine) bool { return !slices.Contains(e.Traits().Paths, judgePath) })
	if gone := len(engines) == 0; gone != j.missing[n.policy.Model] {
		j.missing[n.policy.Model] = gone
		if gone {
			j.g.opt.Log.Warn("no engine has the model that judges: calls are not judged", "model", n.policy.Model)
		} else {
			j.g.opt.Log.Info("the model that judges is there again", "model", n.policy.Model)
		}
	}
	if len(engines) == 0 {
		return nil, m, notServed
	}
	n.line = j.g.line(m.ID)
	n.line.serve(j.g.chooser.seats(all, time.Now()))
	engines = slices.DeleteFunc(engines, func(e engine.Engine) bool { return !mayShare(e.Traits(), n.user) })
	if len(engines) == 0 {
		return nil, m, notShared
	}
	n.local = slices.ContainsFunc(engines, isLocal)
	return engines, m, ""
}

func isLocal(e engine.Engine) bool { return e.Traits().Local }

// atWork reports whether an engine of this machine works for somebody.
func (g *gateway) atWork() bool {
	for _, e := range g.opt.Engines() {
		if !isLocal(e) {
			continue
		}
		for _, m := range e.Models() {
			if waiting, running := g.line(m.ID).state(); waiting+running > 0 {
				return true
			}
		}
	}
	return false
}

// makeWay breaks off judgements that a call which has joined a line would wait for, or
// share processors with.
func (j *judging) makeWay(l *line, engines []engine.Engine) {
	if j.active.Load() == 0 {
		return
	}
	local := slices.ContainsFunc(engines, isLocal)
	j.mu.Lock()
	defer j.mu.Unlock()
	for n, cancel := range j.running {
		waiting := 0
		if n.line == l {
			waiting, _ = l.state()
		}
		if waiting > 0 || n.local && local {
			cancel(errWay)
		}
	}
}

// run asks the judge and has the judgement recorded, or wait again: for people, or for an
// engine that is busy. What an engine fails at is not asked again.
func (j *judging) run(ctx context.Context, n *judgement, engines []engine.Engine, m engine.Model) {
	verdict, why, err := j.g.judged(ctx, n, engines, m)
	n.line.giveSpare(n.ticket)
	j.active.Add(-1)
	j.mu.Lock()
	delete(j.running, n)
	if errors.Is(err, errBusy) {
		n.after = time.Now().Add(busyRest)
	}
	again := err != nil && !j.closed && (errors.Is(err, errBusy) || errors.Is(context.Cause(ctx), errWay))
	if again {
		j.waiting = slices.Insert(j.waiting, 0, n)
		j.loop()
	}
	if err != nil {
		if verdict, why = guard.NotJudged, notAnswered; j.closed {
			why = notAnyMore
		}
	}
	j.look()
	j.mu.Unlock()
	if !again {
		j.finish(n, verdict, why)
	}
}

// finish records what became of a judgement.
func (j *judging) finish(n *judgement, v guard.Verdict, why string) {
	n.share.free()
	n.out.At, n.out.Verdict, n.out.Why = time.Now(), v, why
	n.out.Duration = n.out.At.Sub(n.since)
	j.g.metrics.judgedOne(&n.out)
	if v == guard.Attack {
		j.g.opt.Log.Warn("a judge takes a call for an attack", "id", n.call, "judge", n.out.Judge, "where", n.out.Where)
	}
	if j.g.opt.Recorder == nil {
		return
	}
	if err := j.g.opt.Recorder.Judge(context.Background(), n.out); err != nil {
		j.g.opt.Log.Error("judgement not recorded", "id", n.call, "err", err)
	}
}

// state returns how many judgements wait and run.
func (j *judging) state() (waiting, running int) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.waiting), len(j.running)
}

func (j *judging) close() {
	j.mu.Lock()
	j.closed = true
	waiting := j.waiting
	j.waiting = nil
	j.look()
	j.mu.Unlock()
	for _, n := range waiting {
		j.finish(n, guard.NotJudged, notAnyMore)
	}
	over := make(chan struct{})
	go func() { j.ended.Wait(); close(over) }()
	select {
	case <-over:
		return
	case <-time.After(lastWords):
	}
	j.mu.Lock()
	for cancel := range maps.Values(j.running) {
		cancel(errStop)
	}
	j.mu.Unlock()
	<-over
}
