package gateway_test

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"enisle/internal/infer/gateway"
)

// slowly records ends, which takes it some time.
type slowly struct {
	records
	done atomic.Int32
}

func (s *slowly) Close(context.Context, gateway.Closing) error {
	time.Sleep(50 * time.Millisecond)
	s.done.Add(1)
	return nil
}

// Whoever has all of an answer, streamed or not, knows that its end is on record: if all is
// killed then, nothing of it is lost.
func TestAnAnswerThatIsThereIsOnRecord(t *testing.T) {
	for name, n := range map[string]int{"short": 1, "long": 100_000, "streamed": 0} {
		t.Run(name, func(t *testing.T) {
			rec := &slowly{}
			text := strings.Repeat("x", n)
			s := serve(t, gateway.Options{Recorder: rec}, newFake(t, func(w http.ResponseWriter, r *http.Request) {
				if n == 0 {
					events(piece, last)(w, r)
					return
				}
				fmt.Fprintf(w, `{"choices":[{"index":0,"message":{"role":"assistant","content":%q}}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}`, text)
			}, "m"))
			for call := range int32(3) {
				resp, body := post(t, s, fmt.Sprintf(`%s,"stream":%v}`, hello, n == 0))
				if resp.StatusCode != http.StatusOK || !strings.Contains(body, text) || rec.done.Load() != call+1 {
					t.Errorf("%d, %d bytes, of %d answers the end is on record", resp.StatusCode, len(body), rec.done.Load())
				}
			}
		})
	}
}

// What an engine does not count is guessed from the text of a stream, not from what stands
// around it.
func TestStreamsAreGuessedFromTheirText(t *testing.T) {
	for name, end := range map[string]string{"whole": "data: [DONE]", "broken": "data: {"} {
		t.Run(name, func(t *testing.T) {
			rec := &records{}
			s := serve(t, gateway.Options{Recorder: rec}, newFake(t, events(strings.Repeat(`data: {"id":"chatcmpl-1","choices":[{"index":0,"delta":{"content":"four"}}]}`+"\n\n", 100)+end), "m"))
			post(t, s, hello+`,"stream":true}`)
			if _, c := rec.wait(t); !c.Guessed || c.Usage.Completion < 95 || c.Usage.Completion > 105 {
				t.Errorf("a hundred tokens are taken for %+v", c.Usage)
			}
		})
	}
}
