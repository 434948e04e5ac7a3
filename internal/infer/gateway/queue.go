package gateway

import (
	"container/heap"
	"context"
	"sync"
	"time"

	"enisle/internal/infer/engine"
)

// A model has as many places as its engines work on at a time, and a queue before them.
// Not every engine may answer every call: a call gets a place of one that may, and those
// behind it do not wait for it where it waits for an engine that they need not.
// Who is next is decided by start-time fair queueing: each user's calls are charged
// their tokens over the user's weight on a clock of their own, and the smallest goes
// first. So a user with a hundred calls and one with a single call share the engines
// as two users, not as a hundred and one calls.

const (
	// lately is how long a user counts as there after a call: others leave a place
	// free for as long.
	lately = time.Minute
	// lowShare is by how much calls of low priority count for more.
	lowShare = 10
)

// ticket is one call that waits or is under way.
type ticket struct {
	user   string
	cost   float64         // tokens over weight
	start  float64         // on the queue's clock
	own    []engine.Engine // that may answer it
	ready  chan struct{}
	index  int // in the heap; -1: not there
	taken  bool
	seat   *seat // where its place is; nil: nowhere
	spare  bool  // it is no person's
	before int   // calls that were ahead when it came
}

// flow is one user at one model.
type flow struct {
	finish  float64 // of the last call, on the queue's clock
	running int
	waiting int
	seen    time.Time
}

// line is the queue before one model.
type line struct {
	maxWaiting, maxOfUser int

	mu      sync.Mutex
	seats   []*seat
	running int
	spare   int // of them, that no person's call has
	clock   float64
	waiting tickets
	flows   map[string]*flow
	backlog float64 // tokens of what waits and runs
	rate    float64 // tokens a second that were worked off lately; 0: unknown
	ended   time.Time
}

func newLine(maxWaiting int) *line {
	return &line{maxWaiting: maxWaiting, maxOfUser: max(1, maxWaiting/4), flows: map[string]*flow{}}
}

// full says why a call cannot wait, and when to come again.
type full struct {
	why   string
	after time.Duration
}

// join puts a call into the queue for a place of one of its own engines.
func (l *line) join(user string, weight float64, tokens int64, own []engine.Engine, now time.Time) (*ticket, *full) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f := l.flows[user]
	if f == nil {
		f = &flow{}
		l.flows[user] = f
	}
	f.seen = now
	switch {
	case len(l.waiting) >= l.maxWaiting:
		return nil, &full{"the queue of this model is full", l.drain()}
	case f.waiting >= l.maxOfUser && l.maxWaiting > 1:
		return nil, &full{"too many of your calls wait for this model", l.drain()}
	}
	t := &ticket{user: user, cost: float64(tokens) / max(weight, 0.001), own: own, ready: make(chan struct{}), index: -1, before: len(l.waiting)}
	t.start = max(l.clock, f.finish)
	f.finish = t.start + t.cost
	f.waiting++
	l.backlog += float64(tokens)
	heap.Push(&l.waiting, t)
	l.dispatch(now)
	return t, nil
}

// wait returns when it is the call's turn; an error of ctx takes it out of the queue.
func (l *line) wait(ctx context.Context, t *ticket, tokens int64) error {
	select {
	case <-t.ready:
		return nil
	case <-ctx.Done():
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t.taken { // it was its turn at the same moment
		l.leave(t, tokens, 0, time.Now())
	} else {
		heap.Remove(&l.waiting, t.index)
		f := l.flows[t.user]
		f.waiting--
		f.finish -= t.cost // it used nothing
		l.backlog -= float64(tokens)
	}
	return ctx.Err()
}

// done ends a call that had its turn: it was charged tokens and used others.
func (l *line) done(t *ticket, tokens, used int64) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leave(t, tokens, used, now)
}

func (l *line) leave(t *ticket, tokens, used int64, now time.Time) {
	f := l.flows[t.user]
	f.running--
	f.seen = now
	f.finish -= t.cost * (1 - float64(used)/float64(max(tokens, 1)))
	l.running--
	t.sit(nil)
	l.backlog -= float64(tokens)
	if !l.ended.IsZero() && used > 0 {
		// How fast the engines work is learnt from what they worked off while they had
		// something to do.
		rate := float64(used) / max(now.Sub(l.ended).Seconds(), 0.001)
		if l.rate == 0 {
			l.rate = rate
		}
		l.rate += (rate - l.rate) / 8
	}
	if l.ended = now; l.running == 0 && len(l.waiting) == 0 {
		l.ended = time.Time{}
	}
	l.dispatch(now)
	l.forget(now)
}

// forget drops users that are not there any more.
func (l *line) forget(now time.Time) {
	if len(l.flows) < 1000 && l.running+len(l.waiting) > 0 {
		return
	}
	for name, f := range l.flows {
		if f.running == 0 && f.waiting == 0 && (f.finish <= l.clock || l.running+len(l.waiting) == 0) && now.Sub(f.seen) > lately {
			delete(l.flows, name)
		}
	}
}

// dispatch gives free places to the calls that are next. The last place is not given to
// a user that holds all others while somebody else was there lately: a newcomer would
// have to wait for one of many long calls to end. Places are those of the call's engines.
func (l *line) dispatch(now time.Time) {
	var passed []*ticket
	for len(l.waiting) > 0 && l.free() {
		t := heap.Pop(&l.waiting).(*ticket) //nolint:forcetypeassert // it holds nothing else
		f := l.flows[t.user]
		r := l.roomOf(t.own, t.user)
		people := r.taken - r.spare
		last := r.places > 1 && people == r.places-1 && r.users == people && l.others(t.user, now)
		if last || r.places > 0 && r.seat == nil { // whose engines are gone is told so
			passed = append(passed, t)
			continue
		}
		if l.ended.IsZero() {
			l.ended = now
		}
		f.waiting--
		f.running++
		l.running++
		l.clock = max(l.clock, t.start)
		t.taken = true
		t.sit(r.seat)
		close(t.ready)
	}
	for _, t := range passed {
		heap.Push(&l.waiting, t)
	}
}

// others reports whether another user was there lately.
func (l *line) others(user string, now time.Time) bool {
	for name, f := range l.flows {
		if name != user && now.Sub(f.seen) < lately {
			return true
		}
	}
	return false
}

// drain estimates how long what waits takes, in whole seconds from 1 to 60.
func (l *line) drain() time.Duration {
	if l.rate <= 0 {
		return 5 * time.Second
	}
	s := l.backlog / l.rate / 2 // half of it is gone by then, and with it the place is free
	return time.Duration(min(max(s, 1), 60)) * time.Second
}

// state returns how many calls wait and run.
func (l *line) state() (waiting, running int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.waiting), l.running - l.spare
}

// spareShare is which part of the places may be taken by what can wait.
const spareShare = 8

// takeSpare takes a place of these engines for work that makes way for people, if nobody
// waits and a place stays free, or the only one is. Else it returns nil.
func (l *line) takeSpare(own []engine.Engine) *ticket {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.roomOf(own, "")
	if len(l.waiting) > 0 || r.seat == nil || r.taken > 0 && r.taken+1 >= r.places || r.spare >= max(r.places/spareShare, 1) {
		return nil
	}
	l.running++
	l.spare++
	t := &ticket{own: own, spare: true}
	t.sit(r.seat)
	return t
}

// giveSpare gives it back.
func (l *line) giveSpare(t *ticket) {
	l.mu.Lock()
	defer l.mu.Unlock()
	t.sit(nil)
	l.running--
	l.spare--
	if l.running == 0 && len(l.waiting) == 0 {
		l.ended = time.Time{}
	}
	l.dispatch(time.Now())
}

// tickets is a heap by start, and for equal starts by cost.
type tickets []*ticket

func (t tickets) Len() int { return len(t) }
func (t tickets) Less(i, j int) bool {
	if t[i].start != t[j].start {
		return t[i].start < t[j].start
	}
	return t[i].cost < t[j].cost
}
func (t tickets) Swap(i, j int) { t[i], t[j] = t[j], t[i]; t[i].index, t[j].index = i, j }
func (t *tickets) Push(x any) {
	k := x.(*ticket) //nolint:forcetypeassert // the heap holds nothing else
	k.index = len(*t)
	*t = append(*t, k)
}

func (t *tickets) Pop() any {
	old := *t
	k := old[len(old)-1]
	old[len(old)-1] = nil
	*t, k.index = old[:len(old)-1], -1
	return k
}
