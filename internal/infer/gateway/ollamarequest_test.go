package gateway_test

import (
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"enisle/internal/infer/gateway"
)

// What clients of Ollama ask reaches the engine in its own words, and what would be
// answered in another way than they mean is refused.
func TestOllamaRequests(t *testing.T) {
	const turns = `"messages":[{"role":"user","content":"hi"}]`
	for name, tc := range map[string]struct {
		path, body string
		status     int
		want       []string // in what the engine gets, or of the error
		not        string
	}{
		"how tokens are chosen": {
			"/api/chat", `{"model":"m",` + turns + `,"options":{"temperature":0,"top_k":7,"top_p":0.5,"min_p":0.1,"typical_p":0.9,"repeat_last_n":-1,"repeat_penalty":1.5,"presence_penalty":0.2,"frequency_penalty":0.3,"seed":4,"num_predict":9,"stop":["x"]}}`,
			200,
			[]string{`"temperature":0`, `"top_k":7`, `"top_p":0.5`, `"min_p":0.1`, `"typical_p":0.9`, `"repeat_last_n":-1`, `"repeat_penalty":1.5`, `"repetition_penalty":1.5`, `"presence_penalty":0.2`, `"frequency_penalty":0.3`, `"seed":4`, `"max_tokens":9`, `"stop":["x"]`},
			"",
		},
		"how a server runs":    {"/api/chat", `{"model":"m",` + turns + `,"options":{"num_ctx":2048,"num_gpu":1,"num_thread":8,"num_predict":-1,"stop":null}}`, 200, []string{`"content":"hi"`}, "num_|max_tokens|stop"},
		"no thoughts":          {"/api/chat", `{"model":"m",` + turns + `,"think":false}`, 200, []string{`"chat_template_kwargs":{"enable_thinking":false}`}, "reasoning_effort"},
		"thoughts":             {"/api/generate", `{"model":"m","prompt":"hi","think":true}`, 200, []string{`"chat_template_kwargs":{"enable_thinking":true}`}, "reasoning_effort"},
		"some thoughts":        {"/api/chat", `{"model":"m",` + turns + `,"think":"low"}`, 200, []string{`"enable_thinking":true`, `"reasoning_effort":"low"`}, ""},
		"thoughts of before":   {"/api/chat", `{"model":"m","messages":[{"role":"assistant","content":"a","thinking":"hm"},{"role":"user","content":"hi"}]}`, 200, []string{`"reasoning_content":"hm"`}, ""},
		"what clients leave":   {"/api/generate", `{"model":"m","prompt":"hi","suffix":"","template":"","context":null,"think":null,"logprobs":null}`, 200, []string{`"content":"hi"`}, "suffix|template|context|think|logprobs"},
		"probabilities":        {"/api/chat", `{"model":"m",` + turns + `,"logprobs":true,"top_logprobs":2}`, 200, []string{`"logprobs":true`, `"top_logprobs":2`}, ""},
		"sizes of embeddings":  {"/api/embed", `{"model":"m","input":["a"],"dimensions":64}`, 200, []string{`"dimensions":64`}, ""},
		"a middle":             {"/api/generate", `{"model":"m","prompt":"hi","suffix":"there"}`, 400, []string{"suffix is not supported"}, ""},
		"a middle of nothing":  {"/api/generate", `{"model":"m","suffix":"there"}`, 400, []string{"suffix is not supported"}, ""},
		"a template":           {"/api/generate", `{"model":"m","prompt":"hi","template":"{{.Prompt}}"}`, 400, []string{"template is not supported"}, ""},
		"a context":            {"/api/generate", `{"model":"m","prompt":"hi","context":[1,2]}`, 400, []string{"context is not supported"}, ""},
		"thoughts of what":     {"/api/chat", `{"model":"m",` + turns + `,"think":{"a":1}}`, 400, []string{"think is true, false"}, ""},
		"raw probabilities":    {"/api/generate", `{"model":"m","prompt":"hi","raw":true,"logprobs":true}`, 400, []string{"/v1/completions"}, ""},
		"raw thoughts":         {"/api/generate", `{"model":"m","prompt":"hi","raw":true,"think":true}`, 400, []string{"think is not supported"}, ""},
		"an option that is no": {"/api/chat", `{"model":"m",` + turns + `,"options":{"top_k":"many"}}`, 400, []string{"cannot be read"}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			var got string
			f := newFake(t, func(w http.ResponseWriter, r *http.Request) {
				b, _ := io.ReadAll(r.Body)
				got = string(b)
				if strings.HasSuffix(r.URL.Path, "embeddings") {
					_, _ = io.WriteString(w, `{"data":[{"embedding":[1]}]}`)
					return
				}
				fmt.Fprint(w, "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"hello\"}}]}\n\ndata: [DONE]\n\n")
			}, "m")
			f.traits.Paths = []string{"/v1/chat/completions", "/v1/embeddings"}
			s := serve(t, gateway.Options{}, f)
			status, said := postTo(t, s.URL+tc.path, tc.body)
			if status != tc.status {
				t.Fatalf("%d %s", status, said)
			}
			if tc.status != 200 {
				got = said
			}
			for _, want := range tc.want {
				if !strings.Contains(got, want) {
					t.Errorf("no %s in %s", want, got)
				}
			}
			for _, not := range strings.Split(tc.not, "|") {
				if not != "" && strings.Contains(got, not) {
					t.Errorf("%s in %s", not, got)
				}
			}
		})
	}
}

// Thoughts and probabilities come back, streamed and whole, by the names of every engine.
func TestOllamaThoughts(t *testing.T) {
	for _, name := range []string{"reasoning_content", "reasoning"} {
		s := serve(t, gateway.Options{}, newFake(t, func(w http.ResponseWriter, r *http.Request) {
			b, _ := io.ReadAll(r.Body)
			const probs = `"logprobs":{"content":[{"token":"four","logprob":-0.5}]}`
			if !strings.Contains(string(b), `"stream":true`) {
				fmt.Fprintf(w, `{"choices":[{"index":0,"message":{"content":"four",%q:"two and two"},%s}]}`, name, probs)
				return
			}
			w.Header().Set("Content-Type", "text/event-stream")
			fmt.Fprintf(w, "data: {\"choices\":[{\"index\":0,\"delta\":{%q:\"two and two\"}}]}\n\ndata: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"four\"},%s}]}\n\ndata: [DONE]\n\n", name, probs)
		}, "m"))
		for path, ask := range map[string]string{"/api/chat": `"messages":[{"role":"user","content":"2+2"}]`, "/api/generate": `"prompt":"2+2"`} {
			for _, stream := range []string{"true", "false"} {
				status, said := postTo(t, s.URL+path, `{"model":"m","logprobs":true,"stream":`+stream+`,`+ask+`}`)
				if status != 200 || strings.Count(said, `"thinking":"two and two"`) != 1 || strings.Count(said, `"logprobs":[{"logprob":-0.5,"token":"four"}]`) != 1 || !strings.Contains(said, `four"`) {
					t.Errorf("%s %s, stream %s: %d %s", name, path, stream, status, said)
				}
			}
		}
	}
}
