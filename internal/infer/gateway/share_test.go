package gateway_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"enisle/internal/infer/engine"
	"enisle/internal/infer/gateway"
)

// as asks as a user, who is named by a header here.
func as(t *testing.T, s *httptest.Server, user, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", s.URL+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-User", user)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return 0, err.Error()
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b)
}

func byHeader(r *http.Request) gateway.User { return gateway.User{Name: r.Header.Get("X-User")} }

// Somebody with a hundred long calls at once does not make another's short ones wait for
// more than twice as long as half of the engine would.
func TestACrowdDoesNotStarveOthers(t *testing.T) {
	const slots = 4
	var mu sync.Mutex
	running, most := 0, 0
	e := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Max int `json:"max_tokens"`
		}
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil {
			t.Error(err)
		}
		mu.Lock()
		running++
		most = max(most, running)
		mu.Unlock()
		time.Sleep(time.Duration(q.Max) * 100 * time.Microsecond) // 10,000 tokens a second
		mu.Lock()
		running--
		mu.Unlock()
		fmt.Fprintf(w, `{"choices":[],"usage":{"prompt_tokens":2,"completion_tokens":%d,"total_tokens":%d}}`, q.Max, q.Max+2)
	}, "m")
	e.traits = engine.Traits{Paths: []string{"/v1/chat/completions"}, Parallel: slots, Separate: engine.Stateless}
	s := serve(t, gateway.Options{Who: byHeader, MaxWaiting: 1000}, e)
	long, short := hello+`,"max_tokens":2000}`, hello+`,"max_tokens":300}`
	median := func(n int) time.Duration {
		var all []time.Duration
		for range n {
			began := time.Now()
			if status, body := as(t, s, "one", short); status != 200 {
				t.Fatalf("%d %s", status, body)
			}
			all = append(all, time.Since(began))
		}
		slices.Sort(all)
		return all[n/2]
	}
	alone := median(15)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 100 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					if status, body := as(t, s, "crowd", long); status != 200 {
						t.Errorf("%d %s", status, body)
						return
					}
				}
			}
		})
	}
	time.Sleep(500 * time.Millisecond)
	beside := median(15)
	close(stop)
	wg.Wait()
	t.Logf("median of short calls alone %v, beside a hundred long ones %v; %d at once", alone, beside, most)
	if beside > 4*alone { // half of the engine is twice as long; and twice that
		t.Errorf("alone %v, beside the crowd %v", alone, beside)
	}
	if most > slots {
		t.Errorf("%d calls at once, the engine takes %d", most, slots)
	}
}

// An engine that keeps prompts and cannot keep users apart is for one of them.
func TestEnginesThatCannotKeepUsersApart(t *testing.T) {
	for name, tc := range map[string]struct {
		owner string
		want  map[string]int
	}{
		"for nobody":   {"", map[string]int{"ada": 403, "eve": 403, "": 200}},
		"for one":      {"ada", map[string]int{"ada": 200, "eve": 403}},
		"for everyone": {"*", map[string]int{"ada": 200, "eve": 200}},
	} {
		t.Run(name, func(t *testing.T) {
			e := newFake(t, whole, "m")
			e.traits = engine.Traits{Paths: []string{"/v1/chat/completions"}, Separate: engine.Shared, For: tc.owner}
			s := serve(t, gateway.Options{Who: byHeader}, e)
			for user, want := range tc.want {
				if status, body := as(t, s, user, hello+"}"); status != want {
					t.Errorf("%q: %d %s", user, status, body)
				}
			}
		})
	}
}

// Salts are those of the tenant: the same for the same one, another for another, at
// another model, and after a start.
func TestSalts(t *testing.T) {
	var got []string
	f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Salt string `json:"cache_salt"`
		}
		_ = json.NewDecoder(r.Body).Decode(&q)
		got = append(got, q.Salt)
		whole(w, r)
	}, "m", "n")
	f.traits.Separate = engine.Salted
	first, second := serve(t, gateway.Options{Who: byHeader}, f), serve(t, gateway.Options{Who: byHeader}, f)
	as(t, first, "ada", hello+"}")
	as(t, first, "ada", hello+`,"cache_salt":"mine"}`)
	as(t, first, "eve", hello+"}")
	as(t, first, "ada", strings.Replace(hello, `"m"`, `"n"`, 1)+"}")
	as(t, second, "ada", hello+"}")
	if len(got) != 5 || got[0] == "" || got[0] != got[1] || got[0] == got[2] || got[0] == got[3] || got[0] == got[4] {
		t.Errorf("%q", got)
	}
}

// What engines do wrong is an error of one shape, and memory stays bounded.
func TestHostileRequestsAndEngines(t *testing.T) {
	other := func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"model":"other","choices":[]}`) }
	for name, tc := range map[string]struct {
		from http.HandlerFunc
		body string
		want int
	}{
		"another model's name":              {other, hello + "}", 502},
		"in a stream":                       {events(`data: {"model":"other","choices":[]}`), hello + `,"stream":true}`, 502},
		"two values":                        {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{} {}`) }, hello + "}", 502},
		"an answer without end":             {func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"a":"`, strings.Repeat("x", 20<<20)) }, hello + "}", 502},
		"nested without end":                {whole, `{"model":"m","messages":` + strings.Repeat("[", 100_000) + `}`, 400},
		"nested in a field unheard of":      {whole, hello + `,"x":` + strings.Repeat(`{"a":`, 1000) + "1" + strings.Repeat("}", 1000) + `}`, 400},
		"a million tiny messages":           {whole, `{"model":"m","messages":[` + strings.Repeat(`{"role":"user","content":"x"},`, 100_000) + `{}]}`, 400},
		"UTF-8 that is broken":              {whole, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"\xff\"}]}", 400},
		"half a surrogate":                  {whole, `{"model":"m","messages":[{"role":"user","content":"\ud800"}]}`, 400},
		"a field twice, deep inside":        {whole, `{"model":"m","messages":[{"role":"user","content":"a","content":"b"}]}`, 400},
		"a bound that is no number":         {whole, hello + `,"max_tokens":"all"}`, 400},
		"a bound that is none":              {whole, hello + `,"max_tokens":1e300}`, 200},
		"a stream whose options are a list": {whole, hello + `,"stream":true,"stream_options":[1]}`, 400},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, gateway.Options{}, newFake(t, tc.from, "m"))
			resp, body := post(t, s, tc.body)
			if resp.StatusCode != tc.want || tc.want != 200 && !strings.Contains(body, `"error":{"message"`) {
				t.Errorf("%d %.300s, want %d", resp.StatusCode, body, tc.want)
			}
		})
	}
	var m runtime.MemStats
	runtime.GC()
	if runtime.ReadMemStats(&m); m.HeapAlloc > 200<<20 {
		t.Errorf("%d MiB are held afterwards", m.HeapAlloc>>20)
	}
}
