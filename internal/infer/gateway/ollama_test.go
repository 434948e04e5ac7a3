package gateway_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"enisle/internal/infer/engine"
	"enisle/internal/infer/gateway"
)

// does not take it is not waited for.
func TestOllamaWhole(t *testing.T) {
	long := strings.Repeat("word ", 800_000)
	s := httptest.NewUnstartedServer(gateway.New(gateway.Options{MaxStall: 300 * time.Millisecond, Engines: func() []engine.Engine {
		return []engine.Engine{newFake(t, func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			if text := "hi"; strings.Contains(string(b), "long") {
				fmt.Fprintf(w, `{"choices":[{"index":0,"message":{"content":%q}}]}`, long)
			} else {
				fmt.Fprintf(w, `{"choices":[{"index":0,"message":{"content":%q}}]}`, text)
			}
		}, "m")}
	}}))
	var ended atomic.Int32
	next := s.Config.Handler
	s.Config.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { defer ended.Add(1); next.ServeHTTP(w, r) })
	s.Start()
	defer s.Close()
	const ask = `{"model":"m","stream":false,"messages":[{"role":"user","content":"%s"}]}`
	resp, err := http.Post(s.URL+"/api/chat", "application/json", strings.NewReader(fmt.Sprintf(ask, "hello")))
	if err != nil {
		t.Fatal(err)
	}
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != 200 || resp.Header.Get("Content-Type") != "application/json" || resp.Header.Get("X-Request-Id") == "" || !strings.Contains(string(b), `"hi"`) {
		t.Errorf("%d %v %s", resp.StatusCode, resp.Header, b)
	}
	c, err := net.Dial("tcp", s.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.(*net.TCPConn).SetReadBuffer(4096)
	body := fmt.Sprintf(ask, "long")
	fmt.Fprintf(c, "POST /api/chat HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	for range 500 {
		if ended.Load() == 2 {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	t.Error("it is waited for")
}
