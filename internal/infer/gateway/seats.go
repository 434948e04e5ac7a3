package gateway

import (
	"slices"

	"enisle/internal/infer/engine"
)

// seat is one engine of a model, as the queue before that knows it.
type seat struct {
	engine engine.Engine
	places int // calls that it works on at a time; 0: it is gone
	rests  bool
	taken  int            // places, by calls under way; more than there are where other engines failed
	spare  int            // of them, that no person's call has
	users  map[string]int // who has the others
}

// sit moves a call to a place of a seat, or to none.
func (t *ticket) sit(at *seat) {
	if at != t.seat {
		t.seat.add(t, -1)
		at.add(t, 1)
		t.seat = at
	}
}

func (s *seat) add(t *ticket, n int) {
	switch {
	case s == nil:
		return
	case t.spare:
		s.spare += n
	default:
		if s.users[t.user] += n; s.users[t.user] == 0 {
			delete(s.users, t.user)
		}
	}
	s.taken += n
}

// serve tells the queue of all engines of its model.
func (l *line) serve(all []seat) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.seats {
		s.places, s.rests = 0, true
	}
	for _, now := range all {
		s := l.seat(now.engine)
		if s == nil {
			s = &seat{engine: now.engine, users: map[string]int{}}
			l.seats = append(l.seats, s)
		}
		s.places, s.rests = now.places, now.rests
	}
	l.seats = slices.DeleteFunc(l.seats, func(s *seat) bool { return s.places == 0 && s.taken == 0 })
}

// seat returns that of an engine, or nil. It is called with mu.
func (l *line) seat(e engine.Engine) *seat {
	for _, s := range l.seats {
		if s.engine == e {
			return s
		}
	}
	return nil
}

// free reports whether an engine has a place, or is gone, so that there is none to wait for.
// It is called with mu.
func (l *line) free() bool {
	return len(l.seats) == 0 || slices.ContainsFunc(l.seats, func(s *seat) bool { return s.places == 0 || s.taken < s.places })
}

// roomFor is what some engines have together.
type roomFor struct {
	places, taken, spare int
	users                int   // places that the user has
	seat                 *seat // with the most free places; nil: none has one
}

// roomOf sums up the engines that do not rest, or all where all do: their calls are told
// so at once. It is called with mu.
func (l *line) roomOf(own []engine.Engine, user string) (r roomFor) {
	for _, rests := range []bool{false, true} {
		for _, s := range l.seats {
			if s.rests != rests || !slices.Contains(own, s.engine) {
				continue
			}
			r.places, r.taken, r.spare, r.users = r.places+s.places, r.taken+s.taken, r.spare+s.spare, r.users+s.users[user]
			if left := s.places - s.taken; left > 0 && (r.seat == nil || left > r.seat.places-r.seat.taken) {
				r.seat = s
			}
		}
		if r.places > 0 {
			break
		}
	}
	return r
}

// choose returns the engine that is asked next, the first in order that has a place for the
// call, and gives it that; where none has one, the first. The others stay behind it.
func (l *line) choose(t *ticket, order []engine.Engine) engine.Engine {
	l.mu.Lock()
	defer l.mu.Unlock()
	at := max(0, slices.IndexFunc(order, func(e engine.Engine) bool {
		s := l.seat(e)
		return s != nil && (s == t.seat || s.taken < s.places)
	}))
	e := order[at]
	copy(order[1:], order[:at])
	order[0] = e
	t.sit(l.seat(e))
	return e
}
