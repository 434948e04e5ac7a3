package gateway_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"enisle/internal/infer/engine"
	"enisle/internal/infer/engine/llamacpp/llamacpptest"
	"enisle/internal/infer/gateway"
	"enisle/internal/infer/openai"
)

func TestMain(m *testing.M) { llamacpptest.Main(m) }

// fake is an engine behind a Unix socket that answers as a test says.
type fake struct {
	names     []string
	transport http.RoundTripper
	traits    engine.Traits
	context   int // 0 means 100
}

func (f *fake) Models() (list []engine.Model) {
	for _, n := range f.names {
		list = append(list, engine.Model{ID: n, Context: cmp.Or(f.context, 100), Since: time.Unix(1700000000, 0)})
	}
	return list
}

func (f *fake) Traits() engine.Traits {
	if f.traits.Paths == nil {
		f.traits.Paths = []string{"/v1/chat/completions", "/v1/completions", "/v1/messages", "/v1/responses"}
	}
	return f.traits
}
func (f *fake) Transport() http.RoundTripper     { return f.transport }
func (f *fake) Health(ctx context.Context) error { return nil }
func (f *fake) Close() error                     { return nil }

func newFake(t *testing.T, h http.HandlerFunc, names ...string) *fake {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	s := &http.Server{Handler: h}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}
	return &fake{names: names, transport: &http.Transport{DialContext: dial}}
}

type downTransport struct{}

func (downTransport) RoundTrip(*http.Request) (*http.Response, error) { return nil, engine.ErrDown }

// records keeps what is recorded.
type records struct {
	mu      sync.Mutex
	openErr error
	opened  []gateway.Opening
	closed  []gateway.Closing
	judged  []gateway.Judgement
}

func (r *records) Open(_ context.Context, o gateway.Opening) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.opened = append(r.opened, o)
	return r.openErr
}

func (r *records) Close(_ context.Context, c gateway.Closing) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closed = append(r.closed, c)
	return errors.New("the disk is full") // which must not disturb anybody
}

func (r *records) Judge(_ context.Context, j gateway.Judgement) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.judged = append(r.judged, j)
	return nil
}

func (r *records) wait(t *testing.T) (gateway.Opening, gateway.Closing) {
	t.Helper()
	for range 200 {
		r.mu.Lock()
		n := len(r.closed)
		if n > 0 {
			defer r.mu.Unlock()
			o, c := r.opened[len(r.opened)-1], r.closed[n-1]
			if o.ID != c.ID {
				t.Errorf("opened as %s, closed as %s", o.ID, c.ID)
			}
			return o, c
		}
		r.mu.Unlock()
		time.Sleep(10 * time.Millisecond)
	}
	t.Fatal("no call was recorded")
	return gateway.Opening{}, gateway.Closing{}
}

func serve(t *testing.T, opt gateway.Options, engines ...engine.Engine) *httptest.Server {
	t.Helper()
	opt.Engines = func() []engine.Engine { return engines }
	s := httptest.NewServer(gateway.New(opt))
	t.Cleanup(s.Close)
	return s
}

func post(t *testing.T, s *httptest.Server, body string) (*http.Response, string) {
	t.Helper()
	resp, err := http.Post(s.URL+"/v1/chat/completions", "application/json", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Fatal(err)
	}
	return resp, string(b)
}

const hello = `{"model":"m","messages":[{"role":"user","content":"hello"}]`

func whole(w http.ResponseWriter, _ *http.Request) {
	fmt.Fprint(w, `{"id":"x","choices":[{"index":0,"message":{"role":"assistant","content":"hi"}}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}`)
}

func events(list ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		for _, e := range list {
			fmt.Fprintf(w, "%s\n\n", e)
		}
	}
}

const (
	piece  = `data: {"choices":[{"index":0,"delta":{"content":"hi"}}]}`
	counts = `data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}`
	last   = `data: [DONE]`
)

func TestRequestsAreReadStrictly(t *testing.T) {
	s := serve(t, gateway.Options{MaxBody: 2000}, newFake(t, whole, "m"))
	for name, tc := range map[string]struct {
		body   string
		status int
		code   string
	}{
		"a good one":               {hello + `}`, 200, ""},
		"unknown fields":           {hello + `,"user":"me","metadata":{"a":1}}`, 200, ""},
		"nothing":                  {``, 400, "invalid_json"},
		"no object":                {`[1]`, 400, "invalid_json"},
		"half an object":           {`{"model":"m"`, 400, "invalid_json"},
		"something after it":       {hello + `} {}`, 400, "invalid_json"},
		"a field twice":            {hello + `,"model":"other"}`, 400, "invalid_json"},
		"no model":                 {`{"messages":[]}`, 400, "invalid_value"},
		"a model that is a number": {`{"model":1,"messages":[]}`, 400, "invalid_type"},
		"a stream that is a word":  {hello + `,"stream":"yes"}`, 400, "invalid_type"},
		"no messages":              {`{"model":"m"}`, 400, "invalid_value"},
		"another model":            {`{"model":"other","messages":[]}`, 404, "model_not_found"},
		"too much":                 {hello + `,"user":"` + strings.Repeat("x", 3000) + `"}`, 413, "request_too_large"},
	} {
		t.Run(name, func(t *testing.T) {
			resp, body := post(t, s, tc.body)
			if resp.StatusCode != tc.status {
				t.Fatalf("status %d, want %d: %s", resp.StatusCode, tc.status, body)
			}
			if !strings.HasPrefix(resp.Header.Get("X-Request-Id"), "req_") {
				t.Errorf("request id: got %q", resp.Header.Get("X-Request-Id"))
			}
			if tc.code == "" {
				return
			}
			e := openai.ParseError(resp.StatusCode, []byte(body))
			if e == nil || e.Code == nil || *e.Code != tc.code || e.Type == "" || e.Message == "" {
				t.Errorf("got %s, want code %s", body, tc.code)
			}
		})
	}
}

func TestOtherWaysIn(t *testing.T) {
	s := serve(t, gateway.Options{}, newFake(t, whole, "m", "org/m"))
	for name, tc := range map[string]struct {
		method, path, kind string
		status             int
		want               string
	}{
		"the list":                    {"GET", "/v1/models", "", 200, `{"id":"org/m","object":"model","created":1700000000,"owned_by":"enisle","context":100}`},
		"one model":                   {"GET", "/v1/models/m", "", 200, `"id":"m"`},
		"one whose name has parts":    {"GET", "/v1/models/org/m", "", 200, `"id":"org/m"`},
		"one that is not there":       {"GET", "/v1/models/x", "", 404, "model_not_found"},
		"a chat that is got":          {"GET", "/v1/chat/completions", "", 405, "method_not_allowed"},
		"a form, as a browser posts":  {"POST", "/v1/chat/completions", "text/plain", 415, "unsupported_media_type"},
		"somewhere else":              {"POST", "/v1/audio", "application/json", 404, "unknown_url"},
		"what its engine does not do": {"POST", "/v1/embeddings", "application/json", 404, "not_supported"},
	} {
		t.Run(name, func(t *testing.T) {
			req, err := http.NewRequest(tc.method, s.URL+tc.path, strings.NewReader(hello+"}"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", tc.kind)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, _ := io.ReadAll(resp.Body)
			if resp.StatusCode != tc.status || !strings.Contains(string(b), tc.want) {
				t.Errorf("%d %s, want %d with %s", resp.StatusCode, b, tc.status, tc.want)
			}
		})
	}
}

// What goes on is what came, byte for byte, but for what belongs to the site.
func TestRequestsGoOnAsTheyCame(t *testing.T) {
	const odd = "{ \"x\" : 1e400,\t\"model\":\"m\",\n \"chat_template_kwargs\":{\"a\":[1.0,{\"b\":\"\\u00e9\\/\"}]},\"messages\":[{\"role\":\"user\",\"content\":\"h\\u0069\"}] , \"cache_salt\":\"theirs\" }"
	for name, tc := range map[string]struct {
		traits engine.Traits
		body   string
		want   string
	}{
		"nothing is changed":     {engine.Traits{}, odd, odd},
		"a stream counts":        {engine.Traits{}, hello + `,"stream":true}`, `{"stream_options":{"include_usage":true},` + hello[1:] + `,"stream":true}`},
		"its options stay":       {engine.Traits{}, hello + `,"stream":true,"stream_options":{"x":1}}`, hello + `,"stream":true,"stream_options":{"include_usage":true,"x":1}}`},
		"salt is not theirs":     {engine.Traits{Separate: engine.Salted}, odd, "SALT"},
		"nor what is the site's": {engine.Traits{Owned: []string{"priority", "kv"}}, `{"priority":1,"kv":{"a":1},` + hello[1:] + `, "kv2":3,"priority2":1}`, `{` + hello[1:] + `, "kv2":3,"priority2":1}`},
		"in the middle":          {engine.Traits{Owned: []string{"priority", "kv"}}, hello + `,"priority":1 ,"kv":{"a":1} , "z":3}`, hello + `,"z":3}`},
		"at the end":             {engine.Traits{Owned: []string{"priority", "kv"}}, hello + `,"priority":1 ,"kv":{"a":1} }`, hello + ` }`},
		"under another spelling": {engine.Traits{Owned: []string{"priority"}}, hello + `,"prior\u0069ty":1}`, hello + `}`},
		"slots are not theirs":   {engine.Traits{Separate: engine.Uncached}, hello + `,"id_slot":3,"cache_prompt":true}`, hello + `,"cache_prompt":false}`},
	} {
		t.Run(name, func(t *testing.T) {
			var got string
			f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				got = string(b)
				whole(w, r)
			}, "m")
			f.traits = tc.traits
			post(t, serve(t, gateway.Options{}, f), tc.body)
			if tc.want == "SALT" {
				if !regexp.MustCompile(`"cache_salt":"[0-9a-f]{32}" }$`).MatchString(got) {
					t.Errorf("got %s", got)
				}
			} else if got != tc.want {
				t.Errorf("got  %s\nwant %s", got, tc.want)
			}
		})
	}
}

func TestStreams(t *testing.T) {
	for name, tc := range map[string]struct {
		options string
		from    http.HandlerFunc
		want    string
		outcome gateway.Outcome
		tokens  int
	}{
		"counts that were not asked for stay here": {``, events(piece, counts, last), piece + "\n\n" + last + "\n\n", gateway.Answered, 5},
		"counts that were asked for go on":         {`,"stream_options":{"include_usage":true}`, events(piece, counts, last), piece + "\n\n" + counts + "\n\n" + last + "\n\n", gateway.Answered, 5},
		"comments and other fields go on":          {``, events(": hello", "event: x\nid: 1\n"+piece, last), ": hello\n\nevent: x\nid: 1\n" + piece + "\n\n" + last + "\n\n", gateway.Answered, 0},
		"a stream that ends early says so":         {``, events(piece), `"code":"engine_error"`, gateway.Broken, 0},
		"an error in the stream goes on":           {``, events(piece, `data: {"error":{"message":"m","type":"t","param":null,"code":null}}`), `"message":"m"`, gateway.Broken, 0},
		"an event without end is cut": {``, func(w http.ResponseWriter, _ *http.Request) {
			fmt.Fprint(w, "data: ", strings.Repeat("x", 2<<20))
		}, `"code":"engine_error"`, gateway.Broken, 0},
	} {
		t.Run(name, func(t *testing.T) {
			rec := &records{}
			s := serve(t, gateway.Options{Recorder: rec}, newFake(t, tc.from, "m"))
			resp, body := post(t, s, hello+`,"stream":true`+tc.options+`}`)
			kind := "text/event-stream"
			if strings.Contains(name, "is cut") { // before a byte was sent
				kind = "application/json"
			}
			if resp.Header.Get("Content-Type") != kind || !strings.Contains(body, tc.want) {
				t.Errorf("got %s %q, want %q", resp.Header.Get("Content-Type"), body, tc.want)
			}
			if o, c := rec.wait(t); c.Outcome != tc.outcome || c.Usage.Total != tc.tokens && !c.Guessed || !o.Streamed {
				t.Errorf("recorded %+v, want %s with %d tokens", c, tc.outcome, tc.tokens)
			}
		})
	}
}

func TestEventsAreNotHeldBack(t *testing.T) {
	next := make(chan struct{})
	s := serve(t, gateway.Options{}, newFake(t, func(w http.ResponseWriter, r *http.Request) {
		events(piece)(w, r)
		_ = http.NewResponseController(w).Flush()
		<-next
		events(last)(w, r)
	}, "m"))
	resp, err := http.Post(s.URL+"/v1/chat/completions", "application/json", strings.NewReader(hello+`,"stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, len(piece))
	if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != piece {
		t.Errorf("got %q, %v", buf, err)
	}
	close(next)
}

func TestEnginesInTrouble(t *testing.T) {
	say := func(status int, header, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			if header != "" {
				w.Header().Set("Retry-After", header)
			}
			w.WriteHeader(status)
			fmt.Fprint(w, body)
		}
	}
	down := &fake{names: []string{"m"}, transport: downTransport{}}
	for name, tc := range map[string]struct {
		engines []engine.Engine
		status  int
		code    string
		retry   string
	}{
		"none is up":              {[]engine.Engine{down}, 503, "engine_down", "5"},
		"the second one is up":    {[]engine.Engine{down, newFake(t, whole, "m")}, 200, "", ""},
		"the first one is busy":   {[]engine.Engine{newFake(t, say(429, "7", ""), "m"), newFake(t, whole, "m")}, 200, "", ""},
		"all are busy":            {[]engine.Engine{newFake(t, say(429, "7", ""), "m")}, 429, "overloaded", "7"},
		"it fails":                {[]engine.Engine{newFake(t, say(500, "", `{"error":{"message":"secret path"}}`), "m")}, 503, "engine_error", "5"},
		"it refuses":              {[]engine.Engine{newFake(t, say(400, "", `{"error":{"message":"too long","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}`), "m")}, 400, "context_length_exceeded", ""},
		"it answers with no JSON": {[]engine.Engine{newFake(t, say(200, "", `<html>`), "m")}, 502, "engine_error", ""},
		"it redirects":            {[]engine.Engine{newFake(t, say(302, "", ``), "m")}, 502, "engine_error", ""},
	} {
		t.Run(name, func(t *testing.T) {
			rec := &records{}
			s := serve(t, gateway.Options{Recorder: rec}, tc.engines...)
			resp, body := post(t, s, hello+`}`)
			if resp.StatusCode != tc.status || !strings.Contains(body, tc.code) || resp.Header.Get("Retry-After") != tc.retry || strings.Contains(body, "secret") {
				t.Errorf("%d %q retry %q, want %d %s %q", resp.StatusCode, body, resp.Header.Get("Retry-After"), tc.status, tc.code, tc.retry)
			}
			if o, c := rec.wait(t); c.Status != tc.status || o.Model != "m" || c.ID != resp.Header.Get("X-Request-Id") {
				t.Errorf("recorded %+v", c)
			}
		})
	}
}

func TestOverload(t *testing.T) {
	release := make(chan struct{})
	entered := make(chan struct{}, 3)
	s := serve(t, gateway.Options{MaxWaiting: 1}, newFake(t, func(w http.ResponseWriter, r *http.Request) {
		entered <- struct{}{}
		<-release
		whole(w, r)
	}, "m"))
	ended := make(chan int)
	ask := func() {
		resp, err := http.Post(s.URL+"/v1/chat/completions", "application/json", strings.NewReader(hello+"}"))
		if err != nil {
			ended <- 0
			return
		}
		_ = resp.Body.Close()
		ended <- resp.StatusCode
	}
	go ask()
	<-entered
	go ask() // it waits
	time.Sleep(100 * time.Millisecond)
	if resp, body := post(t, s, hello+"}"); resp.StatusCode != 429 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("the third: %d %s", resp.StatusCode, body)
	}
	close(release)
	for range 2 {
		if status := <-ended; status != 200 {
			t.Errorf("got %d", status)
		}
	}
	if resp, body := post(t, s, hello+"}"); resp.StatusCode != 200 {
		t.Errorf("afterwards: %d %s", resp.StatusCode, body)
	}
}

// A call that cannot be recorded does not reach an engine.
func TestNothingIsServedWithoutARecord(t *testing.T) {
	rec := &records{openErr: errors.New("no space")}
	s := serve(t, gateway.Options{Recorder: rec}, newFake(t, func(http.ResponseWriter, *http.Request) { t.Error("the engine was asked") }, "m"))
	if resp, body := post(t, s, hello+"}"); resp.StatusCode != 503 || !strings.Contains(body, "not_recorded") || resp.Header.Get("Retry-After") == "" {
		t.Errorf("%d %s", resp.StatusCode, body)
	}
}

func TestClientsThatLeave(t *testing.T) {
	for name, stream := range map[string]string{"a stream": `,"stream":true`, "an answer in one piece": ``} {
		t.Run(name, func(t *testing.T) {
			told := make(chan struct{})
			entered := make(chan struct{})
			rec := &records{}
			s := serve(t, gateway.Options{Recorder: rec}, newFake(t, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				if stream != "" {
					events(piece)(w, r)
					_ = http.NewResponseController(w).Flush()
				}
				close(entered)
				<-r.Context().Done()
				close(told)
			}, "m"))
			ctx, cancel := context.WithCancel(t.Context())
			req, err := http.NewRequestWithContext(ctx, "POST", s.URL+"/v1/chat/completions", strings.NewReader(hello+stream+"}"))
			if err != nil {
				t.Fatal(err)
			}
			req.Header.Set("Content-Type", "application/json")
			go func() {
				if resp, err := http.DefaultClient.Do(req); err == nil {
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
				}
			}()
			<-entered
			cancel()
			select {
			case <-told:
			case <-time.After(5 * time.Second):
				t.Fatal("the engine was not told")
			}
			if _, c := rec.wait(t); c.Outcome != gateway.Left {
				t.Errorf("recorded %+v, want %s", c, gateway.Left)
			}
		})
	}
}

func TestMetrics(t *testing.T) {
	reg := prometheus.NewPedanticRegistry()
	s := serve(t, gateway.Options{Metrics: reg}, newFake(t, whole, "m"))
	post(t, s, hello+"}")
	post(t, s, `{"model":"invented","messages":[]}`)
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]float64{}
	for _, f := range families {
		for _, m := range f.Metric {
			for _, l := range m.Label {
				if l.GetValue() == "invented" {
					t.Errorf("%s counts a model that is not there", f.GetName())
				}
			}
			got[f.GetName()] += m.GetCounter().GetValue() + m.GetGauge().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	for name, want := range map[string]float64{"enisle_chat_calls_total": 1, "enisle_chat_tokens_total": 5, "enisle_chat_seconds": 1, "enisle_chat_under_way": 0} {
		if got[name] != want {
			t.Errorf("%s: got %v, want %v", name, got[name], want)
		}
	}
}

func FuzzRequest(f *testing.F) {
	for _, s := range []string{hello + "}", `{"model":"m","messages":[],"stream":true}`, `{"a":1,"a":2}`, `[]`, `{`, "{\"model\":\"\xff\"}"} {
		f.Add(s)
	}
	h := gateway.New(gateway.Options{Engines: func() []engine.Engine {
		return []engine.Engine{&fake{names: []string{"m"}, transport: downTransport{}}}
	}})
	f.Fuzz(func(t *testing.T, body string) {
		r := httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if e := openai.ParseError(w.Code, w.Body.Bytes()); e == nil || w.Code < 400 || (w.Code >= 500 && w.Code != 503) {
			t.Errorf("%q: %d %s", body, w.Code, w.Body)
		}
	})
}
