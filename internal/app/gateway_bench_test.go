package app

import (
	"bytes"
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"enisle/internal/face/server"
	"enisle/internal/infer/engine"
	"enisle/internal/infer/gateway"
	"enisle/internal/infer/guard"
)

// canned is an engine that costs nothing.
type canned struct{ answer []byte }

func (canned) Models() []engine.Model { return []engine.Model{{ID: "m"}} }
func (canned) Traits() engine.Traits {
	return engine.Traits{Kind: "vllm", Paths: []string{"/v1/chat/completions"}, Parallel: 1000, Separate: engine.Salted}
}
func (c canned) Transport() http.RoundTripper { return c }
func (canned) Close() error                   { return nil }
func (canned) Health(context.Context) error   { return nil }
func (c canned) RoundTrip(r *http.Request) (*http.Response, error) {
	_, _ = io.Copy(io.Discard, r.Body)
	return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(bytes.NewReader(c.answer)), ContentLength: int64(len(c.answer)), Request: r}, nil
}

// nowhere takes what is written.
type nowhere struct{ h http.Header }

func (n nowhere) Header() http.Header       { return n.h }
func (nowhere) Write(b []byte) (int, error) { return len(b), nil }
func (nowhere) WriteHeader(int)             {}
func (nowhere) Flush()                      {}
func (nowhere) SetWriteDeadline(any) error  { return nil }

func benchGateway(b *testing.B, answer []byte) http.Handler {
	b.Helper()
	f, err := openCalls(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close() })
	rec, err := newCalls(f, false, "")
	if err != nil {
		b.Fatal(err)
	}
	go rec.keep(b.Context())
	table, err := openQuota(b.TempDir())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = table.Close() })
	q, err := newQuota(table)
	if err != nil {
		b.Fatal(err)
	}
	e := &canned{answer}
	g, err := guard.New(guard.Options{Random: rand.Reader})
	if err != nil {
		b.Fatal(err)
	}
	return server.New(server.Options{Gateway: gateway.New(gateway.Options{
		Engines:  func() []engine.Engine { return []engine.Engine{e} },
		Who:      func(*http.Request) gateway.User { return gateway.User{Name: "ada", Tokens: 1 << 50} },
		Recorder: rec, Quota: q, Guard: g, Metrics: prometheus.NewRegistry(),
	})})
}

// What a call costs in the gateway itself, with records and quota, without any network.
func BenchmarkGatewayCall(b *testing.B) {
	text := strings.Repeat("The island has one bridge. ", 40)
	h := benchGateway(b, fmt.Appendf(nil, `{"id":"x","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":%q}}],"usage":{"prompt_tokens":250,"completion_tokens":240,"total_tokens":490}}`, text))
	body := fmt.Sprintf(`{"model":"m","messages":[{"role":"system","content":"Be brief."},{"role":"user","content":%q}],"temperature":0.2}`, text)
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		h.ServeHTTP(nowhere{http.Header{}}, r)
	}
}

// What a chunk of a stream costs.
func BenchmarkGatewayChunk(b *testing.B) {
	const chunks = 1000
	var s strings.Builder
	for range chunks {
		s.WriteString(`data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":" bridge"},"finish_reason":null}]}` + "\n\n")
	}
	h := benchGateway(b, []byte(s.String()+"data: [DONE]\n\n"))
	body := `{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}`
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest("POST", "/v1/chat/completions", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		h.ServeHTTP(nowhere{http.Header{}}, r)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/chunks, "ns/chunk")
}
