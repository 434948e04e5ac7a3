package gateway_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"enisle/internal/infer/engine"
	"enisle/internal/infer/gateway"
)

// mute is an engine that is well, takes every request, and answers in the way that a test
// sets: all of it at once, or nothing until the caller gives up.
type mute struct {
	fake
	asked  atomic.Int32
	silent atomic.Bool
	head   bool // of the answers that never come
}

func newMute(silent bool) *mute {
	m := &mute{fake: fake{names: []string{"m"}, traits: engine.Traits{Parallel: 8, Separate: engine.Stateless, Paths: []string{"/v1/chat/completions"}}}}
	m.silent.Store(silent)
	m.transport = m
	return m
}

// RoundTrip implements http.RoundTripper.
func (m *mute) RoundTrip(r *http.Request) (*http.Response, error) {
	m.asked.Add(1)
	w := httptest.NewRecorder()
	b, err := io.ReadAll(r.Body)
	switch {
	case err != nil:
		return nil, err
	case !m.silent.Load() && strings.Contains(string(b), `"stream":true`):
		events(piece, last)(w, r)
	case !m.silent.Load():
		whole(w, r)
	case m.head:
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, ContentLength: -1, Body: never{r.Context()}}, nil
	default:
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return w.Result(), nil
}

// never is a body that never comes.
type never struct{ ctx context.Context }

func (n never) Read([]byte) (int, error) { <-n.ctx.Done(); return 0, n.ctx.Err() }
func (n never) Close() error             { return nil }

// ask asks a gateway without a wire between, and returns what it says and how long it took.
func ask(ctx context.Context, h http.Handler, body io.Reader) (status int, text string, took time.Duration) {
	began := time.Now()
	r := httptest.NewRequestWithContext(ctx, "POST", "/v1/chat/completions", body)
	r.Header.Set("Content-Type", "application/json")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String(), time.Since(began)
}

// until asks for one call's time and expects a status.
func until(t *testing.T, h http.Handler, body string, want int, atMost time.Duration) {
	t.Helper()
	if status, text, took := ask(t.Context(), h, strings.NewReader(body)); status != want || took > atMost {
		t.Errorf("%d after %v: %s; want %d", status, took, text, want)
	}
}

func gatewayOf(opt gateway.Options, engines ...engine.Engine) http.Handler {
	opt.Engines = func() []engine.Engine { return engines }
	return gateway.New(opt)
}

// An engine that takes requests and never answers rests after three of them, while another
// answers, is tried again with one call, and is asked as before when it answers that.
func TestEnginesThatHangRest(t *testing.T) {
	for name, tc := range map[string]struct {
		head bool
		body string
	}{
		"no head":                {false, hello + "}"},
		"a head and no answer":   {true, hello + "}"},
		"a stream without head":  {false, hello + `,"stream":true}`},
		"a stream without event": {true, hello + `,"stream":true}`},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				hangs, well := newMute(true), newMute(false)
				hangs.head = tc.head
				h := gatewayOf(gateway.Options{}, hangs, well)
				for range 3 {
					status, text, took := ask(t.Context(), h, strings.NewReader(tc.body))
					if took != 10*time.Minute || !strings.Contains(text, `"timeout"`) || status == http.StatusOK && !tc.head {
						t.Fatalf("%d after %v: %s", status, took, text)
					}
				}
				until(t, h, tc.body, 200, 0)
				if a, b := hangs.asked.Load(), well.asked.Load(); a != 3 || b != 1 {
					t.Fatalf("the one that hangs was asked %d times, the other %d", a, b)
				}
				time.Sleep(2 * time.Second)
				go ask(t.Context(), h, strings.NewReader(tc.body)) // tries it
				synctest.Wait()
				time.Sleep(5 * time.Minute)
				until(t, h, tc.body, 200, 0)
				if a, b := hangs.asked.Load(), well.asked.Load(); a != 4 || b != 2 {
					t.Errorf("while it is tried it was asked %d times, the other %d", a, b)
				}
				time.Sleep(6 * time.Minute) // it failed at that as well
				hangs.silent.Store(false)
				for range 3 {
					until(t, h, tc.body, 200, 0)
				}
				if a, b := hangs.asked.Load(), well.asked.Load(); a != 7 || b != 2 {
					t.Errorf("that it answers again: it was asked %d times, the other %d", a, b)
				}
			})
		})
	}
}

// What says nothing of an engine makes it rest as little as what speaks for it.
func TestSilenceThatIsNotHeldAgainstEngines(t *testing.T) {
	for name, tc := range map[string]struct {
		opt  gateway.Options
		call func(*testing.T, http.Handler, *mute)
	}{
		"clients that leave before the deadline": {gateway.Options{}, func(t *testing.T, h http.Handler, _ *mute) {
			ctx, cancel := context.WithCancel(t.Context())
			go func() { time.Sleep(10*time.Minute - time.Second); cancel() }()
			ask(ctx, h, strings.NewReader(hello+"}"))
		}},
		"clients with a deadline of their own": {gateway.Options{}, func(t *testing.T, h http.Handler, _ *mute) {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			ask(ctx, h, strings.NewReader(hello+"}"))
		}},
		"requests that took most of their time to come": {gateway.Options{MaxTime: time.Minute}, func(t *testing.T, h http.Handler, _ *mute) {
			if _, text, took := ask(t.Context(), h, &late{strings.NewReader(hello + "}"), 40 * time.Second}); took != time.Minute {
				t.Errorf("%v %s", took, text)
			}
		}},
		"answers to others meanwhile": {gateway.Options{}, func(t *testing.T, h http.Handler, e *mute) {
			var wg sync.WaitGroup
			wg.Go(func() { ask(t.Context(), h, strings.NewReader(hello+"}")) })
			time.Sleep(5 * time.Minute)
			e.silent.Store(false)
			until(t, h, hello+"}", 200, 0)
			e.silent.Store(true)
			wg.Wait()
		}},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				e := newMute(true)
				h := gatewayOf(tc.opt, e)
				for range 5 {
					tc.call(t, h, e)
				}
				e.silent.Store(false)
				until(t, h, hello+"}", 200, 0)
			})
		})
	}
}

// late is a body that comes after some time.
type late struct {
	io.Reader
	after time.Duration
}

func (l *late) Read(b []byte) (int, error) {
	time.Sleep(l.after)
	l.after = 0
	return l.Reader.Read(b)
}

// Calls that were silent together are not held against an engine that answered others
// while they waited, though none of those has ended.
func TestAStreamSpeaksForItsEngine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newMute(true)
		in, out := io.Pipe()
		e.transport = trip(func(r *http.Request) (*http.Response, error) {
			if r.ContentLength > int64(len(hello)+1) { // the one that streams
				return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, ContentLength: -1, Body: in}, nil
			}
			return e.RoundTrip(r)
		})
		h := gatewayOf(gateway.Options{}, e)
		var silent, stream sync.WaitGroup
		for range 4 {
			silent.Go(func() { until(t, h, hello+"}", 504, 10*time.Minute) })
		}
		time.Sleep(5 * time.Minute)
		stream.Go(func() { until(t, h, hello+`,"stream":true}`, 200, 10*time.Minute) })
		if _, err := io.WriteString(out, piece+"\n\n"); err != nil {
			t.Error(err)
		}
		silent.Wait()
		e.silent.Store(false)
		until(t, h, hello+"}", 200, 0)
		if _, err := io.WriteString(out, last+"\n\n"); err != nil {
			t.Error(err)
		}
		stream.Wait()
	})
}

type trip func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f trip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// A single engine rests as well; while one call tries it others are told at once, but a
// call that takes long does not keep them out for as long.
func TestASingleEngineThatHangs(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e := newMute(true)
		h := gatewayOf(gateway.Options{}, e)
		for range 3 {
			until(t, h, hello+"}", 504, 10*time.Minute)
		}
		until(t, h, hello+"}", 503, 0)
		time.Sleep(time.Second)
		var tries sync.WaitGroup
		tries.Go(func() { until(t, h, hello+"}", 504, 10*time.Minute) })
		synctest.Wait()
		e.silent.Store(false)
		time.Sleep(29 * time.Second)
		until(t, h, hello+"}", 503, 0)
		time.Sleep(time.Second)
		until(t, h, hello+"}", 200, 0)
		until(t, h, hello+"}", 200, 0)
		tries.Wait()
		until(t, h, hello+"}", 200, 0)
		if n := e.asked.Load(); n != 7 {
			t.Errorf("it was asked %d times", n)
		}
	})
}

// Calls of one route wait for the engines that serve it, those of another go to an engine
// that has a place, be it the one with more to do, and places do not depend on who came last.
func TestEnginesOfOneModelThatDifferInRoutes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		small, large := newMute(true), newMute(true)
		small.traits.Paths, small.traits.Parallel = []string{"/v1/chat/completions", "/v1/completions"}, 1
		large.traits.Parallel = 3
		h := gatewayOf(gateway.Options{}, small, large)
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		send := func(path, body string) {
			all.Go(func() {
				r := httptest.NewRequestWithContext(ctx, "POST", path, strings.NewReader(body))
				r.Header.Set("Content-Type", "application/json")
				h.ServeHTTP(httptest.NewRecorder(), r)
			})
			synctest.Wait()
		}
		want := func(when string, a, b int32) {
			t.Helper()
			if x, y := small.asked.Load(), large.asked.Load(); x != a || y != b {
				t.Errorf("%s: asked %d and %d times, want %d and %d", when, x, y, a, b)
			}
		}
		const text = `{"model":"m","prompt":"hello","max_tokens":1}`
		send("/v1/completions", text)
		want("the first", 1, 0)
		send("/v1/completions", text)
		want("one for which there is no place", 1, 0)
		for range 3 {
			send("/v1/chat/completions", hello+`,"max_tokens":90}`)
		}
		want("others behind it", 1, 3)
		send("/v1/chat/completions", hello+"}")
		want("one more", 1, 3)
		cancel()
		all.Wait()
	})
}
