package gateway_test

import (
	"context"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"enisle/internal/infer/engine"
	"enisle/internal/infer/gateway"
	"enisle/internal/infer/guard"
)

// counted is a quota that remembers what was used.
type counted struct {
	mu   sync.Mutex
	used []int64
}

func (q *counted) Reserve(string, int64, int64, time.Time) (func(int64), time.Duration, bool) {
	return func(used int64) {
		q.mu.Lock()
		defer q.mu.Unlock()
		q.used = append(q.used, used)
	}, 0, true
}

// wait returns what the one call used.
func (q *counted) wait(t *testing.T) int64 {
	t.Helper()
	for range 500 {
		q.mu.Lock()
		if len(q.used) > 0 {
			defer q.mu.Unlock()
			return q.used[0]
		}
		q.mu.Unlock()
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("nothing was settled")
	return 0
}

// Who takes a stream and leaves before its last event has used what he took, whatever the
// first event said, and the prompt even if nothing came yet.
func TestStreamsThatAreLeftAreCounted(t *testing.T) {
	prompt := strings.Repeat("word ", 800)
	for name, tc := range map[string]struct {
		path, body string
		events     []string
		atLeast    int64
	}{
		"counts at the beginning": {
			"/v1/messages", `{"model":"m","max_tokens":4000,"stream":true,"messages":[{"role":"user","content":"x"}]}`,
			append([]string{`data: {"type":"message_start","message":{"model":"m","usage":{"input_tokens":9,"output_tokens":1}}}`},
				strings.Split(strings.TrimSuffix(strings.Repeat(`data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"word "}}`+"|", 1000), "|"), "|")...),
			1000,
		},
		"nothing yet": {"/v1/completions", `{"model":"m","stream":true,"prompt":"` + prompt + `"}`, []string{": hello"}, 900},
	} {
		t.Run(name, func(t *testing.T) {
			q := &counted{}
			f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				events(tc.events...)(w, r)
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			}, "m")
			f.traits.Separate = engine.Stateless
			s := serve(t, gateway.Options{Quota: q, Who: func(*http.Request) gateway.User { return gateway.User{Name: "u", Tokens: 1 << 30} }}, f)
			ctx, cancel := context.WithCancel(t.Context())
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+tc.path, strings.NewReader(tc.body))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			for n, b := 0, make([]byte, 4096); n < len(strings.Join(tc.events, "\n\n")); {
				some, err := resp.Body.Read(b)
				if n += some; err != nil {
					t.Fatal(err)
				}
			}
			cancel()
			resp.Body.Close()
			if used := q.wait(t); used < tc.atLeast {
				t.Errorf("%d tokens were used, want %d", used, tc.atLeast)
			}
		})
	}
}

// A bound of nothing is none to some engines, and an answer goes on as long as there is
// Arguments of calls are written into the prompt with all their members, whatever these
// Texts that come as tokens to be embedded are as little read, and as much to do, as
// An error that an engine which is well says in a stream is about the request, as one is
// that it says before.
func TestErrorsInStreamsTripNothing(t *testing.T) {
	s := serve(t, gateway.Options{}, newFake(t, func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		if r.URL.Path == "/v1/responses" {
			events(`data: {"type":"response.failed","response":{"error":{"code":"server_error","message":"I cannot do that"}}}`)(w, r)
			return
		}
		if strings.Contains(string(b), `"stream":true`) {
			events(piece, `data: {"error":{"message":"I cannot do that","code":500}}`)(w, r)
			return
		}
		whole(w, r)
	}, "m"))
	for range 4 {
		if _, got := post(t, s, hello+`,"stream":true}`); !strings.Contains(got, "I cannot do that") {
			t.Error(got)
		}
	}
	for range 4 {
		if _, got := postTo(t, s.URL+"/v1/responses", `{"model":"m","input":"x","stream":true}`); !strings.Contains(got, "I cannot do that") {
			t.Error(got)
		}
	}
	if resp, got := post(t, s, hello+`}`); resp.StatusCode != 200 {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
}

// dropping is an engine's transport that takes requests and says nothing.
type dropping struct{ asked *atomic.Int32 }

func (d dropping) RoundTrip(*http.Request) (*http.Response, error) {
	d.asked.Add(1)
	return nil, io.ErrUnexpectedEOF
}

// moody is an engine's transport that breaks off, or that says nothing until the caller
// leaves.
type moody struct {
	asked *atomic.Int32
	hang  *atomic.Bool
}

func (m moody) RoundTrip(r *http.Request) (*http.Response, error) {
	hang := m.hang.Load()
	m.asked.Add(1)
	if hang {
		<-r.Context().Done()
		return nil, r.Context().Err()
	}
	return nil, io.ErrUnexpectedEOF
}

// Who leaves does not make an engine look as if it were well: it rests after as many
// failures as without that.
func TestLeavingIsNoSuccess(t *testing.T) {
	var asked atomic.Int32
	var hang atomic.Bool
	s := serve(t, gateway.Options{}, &fake{names: []string{"m"}, transport: moody{&asked, &hang}})
	for range 2 {
		post(t, s, hello+`}`)
	}
	hang.Store(true)
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	go func() {
		for asked.Load() < 3 && ctx.Err() == nil {
			time.Sleep(time.Millisecond)
		}
		leave()
	}()
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/v1/chat/completions", strings.NewReader(hello+`}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if resp, err := http.DefaultClient.Do(r); err == nil {
		_ = resp.Body.Close()
		t.Fatal("it was answered")
	}
	hang.Store(false)
	for range 2 {
		post(t, s, hello+`}`)
	}
	if n := asked.Load(); n != 4 { // the third failure was that of the call after the one that left
		t.Errorf("the engine was asked %d times", n)
	}
}

// A request that engines die of is not given to all of them.
func TestDeadlyRequestsAreNotTriedEverywhere(t *testing.T) {
	var asked atomic.Int32
	var all []engine.Engine
	for range 5 {
		all = append(all, &fake{names: []string{"m"}, transport: dropping{&asked}})
	}
	s := serve(t, gateway.Options{}, all...)
	if resp, got := post(t, s, hello+`}`); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" || asked.Load() != 2 {
		t.Errorf("%d %s, after %d engines were asked", resp.StatusCode, got, asked.Load())
	}
}

// panicking is an engine's transport with a mistake in it.
type panicking struct {
	next  http.RoundTripper
	calls *atomic.Int32
}

func (p panicking) RoundTrip(r *http.Request) (*http.Response, error) {
	switch p.calls.Add(1) {
	case 1, 2, 3:
		return nil, engine.ErrDown
	case 4:
		panic("a mistake")
	}
	return p.next.RoundTrip(r)
}

// A panic while an engine is tried again does not take it away for good.
func TestAPanicLosesNoEngine(t *testing.T) {
	f := newFake(t, whole, "m")
	f.transport = panicking{f.transport, new(atomic.Int32)}
	s := httptest.NewUnstartedServer(gateway.New(gateway.Options{Engines: func() []engine.Engine { return []engine.Engine{f} }}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.Start()
	defer s.Close()
	for range 3 {
		post(t, s, hello+`}`)
	}
	time.Sleep(1100 * time.Millisecond) // it rests
	if resp, err := http.Post(s.URL+"/v1/chat/completions", "application/json", strings.NewReader(hello+`}`)); err == nil {
		resp.Body.Close()
		t.Errorf("answered %d", resp.StatusCode)
	}
	for range 60 {
		if resp, _ := post(t, s, hello+`}`); resp.StatusCode == 200 {
			return
		}
		time.Sleep(100 * time.Millisecond)
	}
	t.Error("it is not asked any more")
}

// An answer in one piece has the fields of the API in Ollama's protocol as well, and who
// What a request asks for beyond the context does not count in the queue, nor against the
// engine that works on it.
func TestNobodyHasToDoMoreThanTheContext(t *testing.T) {
	rec := &records{}
	s := serve(t, gateway.Options{Recorder: rec}, newFake(t, whole, "m"))
	post(t, s, hello+`,"max_tokens":2000000000,"n":2}`)
	if o, _ := rec.wait(t); o.Reserved < 200 || o.Reserved > 220 {
		t.Errorf("reserved %d", o.Reserved)
	}
}

// A stream without end does not fill the memory, read by a guard or not.
func TestStreamsWithoutEnd(t *testing.T) {
	call := `data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":"%d` + strings.Repeat("x", 500_000) + `"}}]}}]}` + "\n\n"
	var most uint64
	look := func() {
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		most = max(most, m.HeapAlloc)
	}
	for name, tc := range map[string]struct {
		guard guard.Guard
		send  string
		times int
	}{
		"calls of tools that nobody reads": {nil, call, 200},
		"empty lines behind what is held":  {standardGuard(t, ""), strings.Repeat("\n", 1<<20), 7},
	} {
		t.Run(name, func(t *testing.T) {
			most = 0
			look()
			before := most
			s := serve(t, gateway.Options{Guard: tc.guard}, newFake(t, func(w http.ResponseWriter, _ *http.Request) {
				fmt.Fprint(w, `data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"name":"f","arguments":""}}]}}]}`+"\n\n")
				for n := range tc.times {
					if _, err := fmt.Fprint(w, strings.Replace(tc.send, "%d", strconv.Itoa(n), 1)); err != nil {
						return
					}
					look()
				}
				fmt.Fprint(w, last+"\n\n")
			}, "m"))
			resp, err := http.Post(s.URL+"/v1/chat/completions", "application/json", strings.NewReader(hello+`,"stream":true}`))
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			_, _ = io.Copy(io.Discard, resp.Body)
			if held := most - before; held > 50<<20 {
				t.Errorf("%d MiB were held", held>>20)
			}
		})
	}
}

// Who has an engine work on an answer in one piece and leaves before it is there does not
// get more of it than who waits.
func TestWorkForNobodyIsCounted(t *testing.T) {
	for name, tc := range map[string]struct {
		bound string
		least int
		most  int
	}{"by the time it took": {`,"max_tokens":2000`, 20, 500}, "to its bound": {`,"max_tokens":3`, 3, 3}} {
		t.Run(name, func(t *testing.T) {
			rec := &records{}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			s := serve(t, gateway.Options{Recorder: rec}, newFake(t, func(_ http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				time.AfterFunc(1200*time.Millisecond, cancel)
				<-r.Context().Done()
			}, "m"))
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+"/v1/chat/completions", strings.NewReader(hello+tc.bound+`}`))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			if resp, err := http.DefaultClient.Do(r); err == nil {
				resp.Body.Close()
				t.Fatal("it was answered")
			}
			if _, c := rec.wait(t); c.Outcome != gateway.Left || !c.Guessed || c.Usage.Completion < tc.least || c.Usage.Completion > tc.most || c.Usage.Total != c.Usage.Prompt+c.Usage.Completion {
				t.Errorf("%+v", c)
			}
		})
	}
}
