package gateway

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"testing"
	"time"

	"enisle/internal/infer/engine"
)

// named is an engine of which only the name matters.
type named struct {
	engine.Engine
	name string
}

// Engines of the queues in these tests; constant.
var (
	one = &named{name: "one"}
	two = &named{name: "two"}
)

// of gives a queue one engine with so many places.
func of(l *line, places int) []engine.Engine {
	l.serve([]seat{{engine: one, places: places}})
	return []engine.Engine{one}
}

func enter(t *testing.T, l *line, user string, own ...engine.Engine) *ticket {
	t.Helper()
	k, refused := l.join(user, 1, 10, own, time.Now())
	if refused != nil {
		t.Fatal(refused.why)
	}
	return k
}

// A call waits for an engine of its own, and no other waits behind it for one that it need
// not have; each is next when its own engine is free.
func TestPlacesAreThoseOfACallsOwnEngines(t *testing.T) {
	l := newLine(100)
	l.serve([]seat{{engine: one, places: 2}, {engine: two, places: 1}})
	first, second := enter(t, l, "a", two), enter(t, l, "b", two)
	if !first.taken || second.taken {
		t.Fatalf("two calls for one place: %v, %v", first.taken, second.taken)
	}
	c, d, e := enter(t, l, "c", one, two), enter(t, l, "d", one, two), enter(t, l, "e", one, two)
	if !c.taken || !d.taken || e.taken || c.seat.engine != one || d.seat.engine != one {
		t.Fatalf("behind a call that waits for another engine: %v, %v, %v", c.taken, d.taken, e.taken)
	}
	l.done(c, 10, 10)
	if !e.taken || second.taken {
		t.Fatalf("a place of the one: %v, %v", e.taken, second.taken)
	}
	f := enter(t, l, "f", one, two)
	if l.done(first, 10, 10); !second.taken || f.taken {
		t.Errorf("a place of the other: %v, %v", second.taken, f.taken)
	}
}

// The last place is kept among a call's own engines, however many others are free.
func TestTheLastPlaceIsOneOfTheCallsOwn(t *testing.T) {
	l := newLine(100)
	l.serve([]seat{{engine: one, places: 4}, {engine: two, places: 2}})
	l.done(enter(t, l, "new", one), 10, 10)
	a, b := enter(t, l, "crowd", two), enter(t, l, "crowd", two)
	if !a.taken || b.taken {
		t.Errorf("a user with the others: %v, %v", a.taken, b.taken)
	}
	if k := enter(t, l, "new", two); !k.taken {
		t.Error("who comes then does not get the place")
	}
	if l.done(a, 10, 10); !b.taken {
		t.Error("nor does the first user, the next")
	}
}

// Engines that rest have no place for calls that others answer. Calls of which all engines
// rest, or are gone, do not wait to be told.
func TestPlacesOfEnginesThatRest(t *testing.T) {
	l := newLine(100)
	l.serve([]seat{{engine: one, places: 1}, {engine: two, places: 4, rests: true}})
	a, b, c := enter(t, l, "a", one, two), enter(t, l, "b", one, two), enter(t, l, "c", two)
	if !a.taken || a.seat.engine != one || b.taken || !c.taken {
		t.Fatalf("while one rests: %v, %v, %v", a.taken, b.taken, c.taken)
	}
	l.serve([]seat{{engine: one, places: 1}, {engine: two, places: 4}})
	if d := enter(t, l, "d", one, two); !b.taken || !d.taken {
		t.Errorf("when it does not: %v, %v", b.taken, d.taken)
	}
	last := enter(t, l, "e", one)
	l.serve(nil)
	if l.done(a, 10, 10); !last.taken {
		t.Error("a call waits for an engine that is gone")
	}
}

// Whatever calls come and go, no engine has more of them than it takes, none waits while a
// place of its own is free for it, and none is left over.
func TestNoPlaceOfAnyEngineIsLost(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	l := newLine(10_000)
	all := []seat{{places: 1}, {places: 2}, {places: 5}}
	for i := range all {
		all[i].engine = &named{name: strconv.Itoa(i)}
	}
	l.serve(all)
	var under, waiting []*ticket
	step := func() {
		waiting = slices.DeleteFunc(waiting, func(k *ticket) bool {
			if k.taken {
				under = append(under, k)
			}
			return k.taken
		})
		for _, s := range l.seats {
			if s.taken > s.places {
				t.Fatalf("an engine of %d places has %d calls", s.places, s.taken)
			}
		}
		for _, k := range waiting {
			if r := l.roomOf(k.own, k.user); r.seat != nil && (r.taken != r.places-1 || r.users != r.taken) {
				t.Fatalf("a call waits beside a place: %+v", r)
			}
		}
	}
	for range 20_000 {
		if r.IntN(2) == 0 && len(waiting) < 100 {
			var own []engine.Engine
			for len(own) == 0 {
				for _, s := range all {
					if r.IntN(2) == 0 {
						own = append(own, s.engine)
					}
				}
			}
			waiting = append(waiting, enter(t, l, strconv.Itoa(r.IntN(4)), own...))
		} else if len(under) > 0 {
			i := r.IntN(len(under))
			l.choose(under[i], under[i].own) // as calls do
			l.done(under[i], 10, 10)
			under = slices.Delete(under, i, i+1)
		}
		step()
	}
	for len(under) > 0 {
		l.done(under[0], 10, 10)
		under = under[1:]
		step()
	}
	if n, running := l.state(); n != 0 || running != 0 || len(waiting) != 0 {
		t.Errorf("%d wait, %d run", n, running)
	}
	for _, s := range l.seats {
		if s.taken != 0 || len(s.users) != 0 {
			t.Errorf("%+v", s)
		}
	}
}
