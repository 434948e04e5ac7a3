package gateway_test

import (
	"encoding/json"
	"strings"
	"testing"

	"enisle/internal/infer/engine/llamacpp"
	"enisle/internal/infer/engine/llamacpp/llamacpptest"
	"enisle/internal/infer/gateway"
	"enisle/internal/infer/openai"
)

// The real model behind the gateway: whole, streamed, refused, and gone.
func TestRealModel(t *testing.T) {
	e := llamacpptest.Start(t, llamacpp.Options{})
	rec := &records{}
	s := serve(t, gateway.Options{Recorder: rec}, e)
	const ask = `{"model":"smollm2","messages":[{"role":"system","content":"Answer in one sentence."},{"role":"user","content":"What is the capital of France?"}],"temperature":0,"max_tokens":32`
	resp, body := post(t, s, ask+`}`)
	var c openai.Completion
	if err := json.Unmarshal([]byte(body), &c); err != nil || resp.StatusCode != 200 || len(c.Choices) != 1 {
		t.Fatalf("%d %s: %v", resp.StatusCode, body, err)
	}
	text := string(c.Choices[0].Message.Content)
	if !strings.Contains(text, "Paris") {
		t.Errorf("got %q", text)
	}
	_, stream := post(t, s, ask+`,"stream":true}`)
	if got := join(t, stream); got != text {
		t.Errorf("streamed %q, in one piece %q", got, text)
	}
	if _, r := rec.wait(t); r.Usage != *c.Usage || r.Outcome != gateway.Answered {
		t.Errorf("recorded %+v, want %+v", r, *c.Usage)
	}
	if resp, body := post(t, s, ask+`,"n":2}`); resp.StatusCode != 400 || !strings.Contains(body, "unsupported_parameter") {
		t.Errorf("two answers: %d %s", resp.StatusCode, body)
	}
	if err := e.Close(); err != nil {
		t.Fatal(err)
	}
	if resp, body := post(t, s, ask+`}`); resp.StatusCode != 503 || resp.Header.Get("Retry-After") == "" {
		t.Errorf("after the engine ended: %d %s", resp.StatusCode, body)
	}
}

// join returns the text of a stream.
func join(t *testing.T, stream string) string {
	t.Helper()
	var b strings.Builder
	for l := range strings.Lines(stream) {
		data, ok := strings.CutPrefix(strings.TrimSpace(l), "data: ")
		if !ok || data == "[DONE]" {
			continue
		}
		var c openai.Completion
		if err := json.Unmarshal([]byte(data), &c); err != nil || len(c.Choices) != 1 {
			t.Fatalf("%s: %v", data, err)
		}
		if c.Choices[0].Delta.Content != nil {
			b.WriteString(*c.Choices[0].Delta.Content)
		}
	}
	return b.String()
}
