package gateway_test

import (
	"net/http"
	"strings"
	"testing"

	"enisle/internal/infer/gateway"
)

// What all calls hold together is bounded, requests and answers, and given back.
func TestCallsShareABoundedRoom(t *testing.T) {
	asked, answer := make(chan struct{}), make(chan struct{})
	s := serve(t, gateway.Options{MaxHeld: 25_000}, newFake(t, func(w http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-answer
		whole(w, r)
	}, "m"))
	large := hello + `,"user":"` + strings.Repeat("x", 5000) + `"}`
	done := make(chan int)
	go func() {
		resp, _ := post(t, s, large)
		done <- resp.StatusCode
	}()
	<-asked
	if resp, body := post(t, s, large); resp.StatusCode != http.StatusServiceUnavailable || resp.Header.Get("Retry-After") == "" || !strings.Contains(body, "overloaded") {
		t.Errorf("beside a large call: %d %s", resp.StatusCode, body)
	}
	close(answer)
	if status := <-done; status != http.StatusOK {
		t.Errorf("the first: %d", status)
	}
	go func() { <-asked }()
	if resp, body := post(t, s, large); resp.StatusCode != http.StatusOK {
		t.Errorf("after it: %d %s", resp.StatusCode, body)
	}
	s = serve(t, gateway.Options{MaxHeld: 25_000}, newFake(t, func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte(`{"choices":[{"message":{"content":"` + strings.Repeat("x", 9000) + `"}}]}`))
	}, "m"))
	if resp, body := post(t, s, hello+`}`); resp.StatusCode != http.StatusServiceUnavailable || !strings.Contains(body, "overloaded") {
		t.Errorf("a large answer: %d %s", resp.StatusCode, body)
	}
}
