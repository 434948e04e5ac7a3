package gateway_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"enisle/internal/infer/gateway"
)

// Half of a secret at the end of one text of an answer and half at the beginning of
// another: the answer is kept back, streamed or not, and the first half is not shown.
func TestHalvesOfSecretsStayInside(t *testing.T) {
	const first, second = "AKIAIOSF", "ODNN7EXAMPLE"
	for name, tc := range map[string]struct {
		path   string
		stream []string
		whole  string
	}{
		"thoughts and answer": {"/v1/chat/completions", []string{
			`data: {"choices":[{"index":0,"delta":{"reasoning_content":"It is ` + first + `"}}]}`,
			`data: {"choices":[{"index":0,"delta":{"content":"` + second + ` as you asked."}}]}`, "data: [DONE]",
		}, `{"choices":[{"index":0,"message":{"content":"` + second + ` as you asked.","reasoning_content":"It is ` + first + `"}}]}`},
		"two choices": {"/v1/chat/completions", []string{
			`data: {"choices":[{"index":0,"delta":{"content":"It is "}}]}`,
			`data: {"choices":[{"index":1,"delta":{"content":"` + second + ` "}}]}`,
			`data: {"choices":[{"index":0,"delta":{"content":"` + first + `"}}]}`,
			`data: {"choices":[{"index":1,"delta":{"content":" as you asked."}}]}`, "data: [DONE]",
		}, `{"choices":[{"index":0,"message":{"content":"It is ` + first + `"}},{"index":1,"message":{"content":"` + second + ` as you asked."}}]}`},
		"text and a call": {"/v1/chat/completions", []string{
			`data: {"choices":[{"index":0,"delta":{"content":"It is ` + first + `"}}]}`,
			`data: {"choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f","arguments":"{\"a\":\"` + second + `\"}"}}]}}]}`, "data: [DONE]",
		}, `{"choices":[{"index":0,"message":{"content":"It is ` + first + `","tool_calls":[{"id":"c","function":{"name":"f","arguments":"{\"a\":\"` + second + `\"}"}}]}}]}`},
		"two blocks": {"/v1/messages", []string{
			"event: content_block_delta\n" + `data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"It is ` + first + `"}}`,
			"event: content_block_delta\n" + `data: {"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":"` + second + ` "}}`,
			"event: message_stop\n" + `data: {"type":"message_stop"}`,
		}, `{"type":"message","content":[{"type":"text","text":"It is ` + first + `"},{"type":"text","text":"` + second + ` "}]}`},
	} {
		t.Run(name, func(t *testing.T) {
			for _, stream := range []bool{true, false} {
				s := serve(t, gateway.Options{Guard: standardGuard(t, "")}, newFake(t, func(w http.ResponseWriter, r *http.Request) {
					if !stream {
						fmt.Fprint(w, tc.whole)
						return
					}
					events(tc.stream...)(w, r)
				}, "m"))
				resp, err := http.Post(s.URL+tc.path, "application/json", strings.NewReader(fmt.Sprintf(`{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hello"}],"stream":%t}`, stream)))
				if err != nil {
					t.Fatal(err)
				}
				b, err := io.ReadAll(resp.Body)
				if err != nil {
					t.Fatal(err)
				}
				_ = resp.Body.Close()
				if got := string(b); !strings.Contains(got, "aws-key") || strings.Contains(got, first) {
					t.Errorf("streamed %t: %s", stream, got)
				}
			}
		})
	}
}

// What a model thinks often ends without white space. What it says then is not kept back
// for that: the client sees it while it is said.
func TestThoughtsThatEnd(t *testing.T) {
	for name, tc := range map[string]struct {
		path          string
		thought, says string
	}{
		"chat":      {"/v1/chat/completions", `{"choices":[{"index":0,"delta":{"reasoning_content":%q}}]}`, `{"choices":[{"index":0,"delta":{"content":%q}}]}`},
		"messages":  {"/v1/messages", `{"type":"content_block_delta","index":0,"delta":{"type":"thinking_delta","thinking":%q}}`, `{"type":"content_block_delta","index":1,"delta":{"type":"text_delta","text":%q}}`},
		"responses": {"/v1/responses", `{"type":"response.reasoning_text.delta","output_index":0,"content_index":0,"delta":%q}`, `{"type":"response.output_text.delta","output_index":1,"content_index":0,"delta":%q}`},
	} {
		t.Run(name, func(t *testing.T) {
			seen := make(chan struct{})
			s := serve(t, gateway.Options{Guard: standardGuard(t, "")}, newFake(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Set("Content-Type", "text/event-stream")
				for _, text := range []string{"I think", " it", " is done."} {
					fmt.Fprintf(w, "data: "+tc.thought+"\n\n", text)
				}
				for _, text := range []string{"The", " answer", " is", " 42", " or", " so"} {
					fmt.Fprintf(w, "data: "+tc.says+"\n\n", text)
				}
				_ = http.NewResponseController(w).Flush()
				select {
				case <-seen:
				case <-r.Context().Done():
				}
			}, "m"))
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.URL+tc.path, strings.NewReader(`{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hello"}],"input":"hello"}`))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "application/json")
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			lines := bufio.NewScanner(resp.Body)
			for lines.Scan() {
				if strings.Contains(lines.Text(), " is\"") {
					close(seen)
					return
				}
			}
			t.Error("the answer is kept back:", lines.Err())
		})
	}
}
