package gateway

import (
	"context"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

// turns runs a queue of one place on a clock of its own: at each step the call under way
// ends and the next begins. It returns whose calls ran, in order.
func turns(t *testing.T, l *line, n int, waiting map[string][]*ticket) (order []string) {
	t.Helper()
	for range n {
		ran := ""
		for user, list := range waiting {
			for i, k := range list {
				select {
				case <-k.ready:
					ran = user
					waiting[user] = append(list[:i:i], list[i+1:]...)
					l.done(k, int64(k.cost), int64(k.cost))
				default:
					continue
				}
				break
			}
			if ran != "" {
				break
			}
		}
		if ran == "" {
			t.Fatal("nobody's turn")
		}
		order = append(order, ran)
	}
	return order
}

func join(t *testing.T, l *line, user string, weight float64, tokens int64) *ticket {
	t.Helper()
	k, refused := l.join(user, weight, tokens, of(l, 1), time.Now())
	if refused != nil {
		t.Fatal(refused.why)
	}
	return k
}

// Users get turns by their weights, however many calls they have in the queue.
func TestTurnsAreFair(t *testing.T) {
	l := newLine(1000)
	waiting := map[string][]*ticket{}
	for range 100 {
		waiting["crowd"] = append(waiting["crowd"], join(t, l, "crowd", 1, 100))
	}
	turns(t, l, 10, waiting)
	for range 10 {
		waiting["one"] = append(waiting["one"], join(t, l, "one", 1, 100))
	}
	for range 30 {
		waiting["heavy"] = append(waiting["heavy"], join(t, l, "heavy", 3, 100))
	}
	count := map[string]int{}
	for _, u := range turns(t, l, 26, waiting) {
		count[u]++
	}
	if count["one"] < 4 || count["crowd"] > 7 || count["heavy"] < 13 || count["heavy"] > 17 {
		t.Errorf("of 26 turns: %v, want about 5, 5 and 15", count)
	}
}

// Long calls cost more turns than short ones.
func TestTokensAreWhatIsShared(t *testing.T) {
	l := newLine(1000)
	waiting := map[string][]*ticket{}
	for range 40 {
		waiting["long"] = append(waiting["long"], join(t, l, "long", 1, 1000))
		waiting["short"] = append(waiting["short"], join(t, l, "short", 1, 100))
	}
	count := map[string]int{}
	for _, u := range turns(t, l, 33, waiting) {
		count[u]++
	}
	if count["long"] > 4 || count["short"] < 29 {
		t.Errorf("of 33 turns: %v, want 3 and 30", count)
	}
}

// Whoever gives up in the queue loses nothing but the place, and nobody else does.
func TestWhoLeavesTheQueueIsForgotten(t *testing.T) {
	l := newLine(4)
	first := join(t, l, "a", 1, 10)
	<-first.ready
	second := join(t, l, "b", 1, 10)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.wait(ctx, second, 10); err == nil {
		t.Fatal("it waited")
	}
	third := join(t, l, "c", 1, 10)
	l.done(first, 10, 10)
	<-third.ready
	l.done(third, 10, 10)
	if waiting, running := l.state(); waiting != 0 || running != 0 || l.backlog != 0 {
		t.Errorf("%d wait, %d run, %v tokens", waiting, running, l.backlog)
	}
}

func TestTheQueueIsBounded(t *testing.T) {
	l := newLine(8)
	join(t, l, "a", 1, 10) // runs
	for range 2 {
		join(t, l, "a", 1, 10)
	}
	if _, refused := l.join("a", 1, 10, of(l, 1), time.Now()); refused == nil || refused.after < time.Second {
		t.Errorf("a user takes more than a quarter of the queue: %+v", refused)
	}
	for _, u := range []string{"b", "c", "d"} {
		join(t, l, u, 1, 10)
		join(t, l, u, 1, 10)
	}
	if _, refused := l.join("e", 1, 10, of(l, 1), time.Now()); refused == nil {
		t.Error("the queue grows without end")
	}
}

// With many clients that come, wait, give up and go, no place is lost or given twice.
func TestNoPlaceIsLost(t *testing.T) {
	l := newLine(10_000)
	var wg sync.WaitGroup
	var mu sync.Mutex
	now, most := 0, 0
	for i := range 400 {
		wg.Go(func() {
			user := string(rune('a' + i%7))
			k, refused := l.join(user, 1, 50, of(l, 4), time.Now())
			if refused != nil {
				t.Error(refused.why)
				return
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(rand.IntN(20))*time.Millisecond)
			defer cancel()
			if l.wait(ctx, k, 50) != nil {
				return
			}
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			time.Sleep(time.Duration(rand.IntN(500)) * time.Microsecond)
			mu.Lock()
			now--
			mu.Unlock()
			l.done(k, 50, int64(rand.IntN(100)))
		})
	}
	wg.Wait()
	if waiting, running := l.state(); waiting != 0 || running != 0 || most > 4 || most < 2 {
		t.Errorf("%d wait, %d run, %d at once", waiting, running, most)
	}
}
