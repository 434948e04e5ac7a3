package llamacpp_test

import (
	"net/http"
	"strings"
	"testing"

	"enisle/internal/infer/engine/llamacpp"
	"enisle/internal/infer/engine/llamacpp/llamacpptest"
	"enisle/internal/infer/openai"
)

// The ways to choose a token that clients of llama.cpp, vLLM and Ollama know have their
// effect: where only the likeliest is left it is taken, however hot, and what may not be
// repeated is not.
func TestWaysToChoose(t *testing.T) {
	e := llamacpptest.Start(t, llamacpp.Options{})
	said := func(options string) string {
		status, c, body := ask(t, e, `{"messages":[{"role":"user","content":"Invent a name."}],"seed":7,"max_tokens":12,`+options+`}`)
		if status != http.StatusOK {
			t.Fatalf("%s: %d %s", options, status, body)
		}
		return string(c.Choices[0].Message.Content)
	}
	likeliest, hot := said(`"temperature":0`), said(`"temperature":2`)
	if likeliest == hot {
		t.Fatalf("both %q", hot)
	}
	for options, want := range map[string]string{
		`"temperature":2,"top_k":1`:                        likeliest,
		`"temperature":2,"min_p":1`:                        likeliest,
		`"temperature":2,"top_k":-1,"min_p":0`:             hot,
		`"temperature":2,"typical_p":1,"repeat_penalty":1`: hot,
	} {
		if got := said(options); got != want {
			t.Errorf("%s: %q, not %q", options, got, want)
		}
	}
	if got := said(`"temperature":2,"typical_p":0.05`); got == hot {
		t.Errorf("typical_p: %q", got)
	}
	if _, c, body := askAt[openai.Completion](t, e, "/v1/completions", `{"prompt":"1, 2, 3, 4,","max_tokens":null,"temperature":0,"stop":["20"]}`); c.Usage == nil || c.Usage.Completion <= 16 {
		t.Errorf("bounded by nothing: %s", body)
	}
	for options, repeats := range map[string]bool{"": true, `,"repeat_penalty":10`: false, `,"repetition_penalty":10`: false, `,"repeat_penalty":10,"repeat_last_n":0`: true} {
		prompt := strings.Repeat("The cat sat on the mat. ", 8) + "The cat sat"
		status, c, body := askAt[openai.Completion](t, e, "/v1/completions", `{"prompt":"`+prompt+`","temperature":0,"max_tokens":4`+options+`}`)
		if status != http.StatusOK || strings.HasPrefix(*c.Choices[0].Text, " on the mat") != repeats {
			t.Errorf("%s: %d %s", options, status, body)
		}
	}
}
