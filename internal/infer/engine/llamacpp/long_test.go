package llamacpp_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"enisle/internal/infer/engine/llamacpp"
	"enisle/internal/infer/engine/llamacpp/llamacpptest"
)

// What is much too long is refused before the model is kept from all others to find out
// by how much.
func TestTextsThatAreMuchTooLong(t *testing.T) {
	e := llamacpptest.Start(t, llamacpp.Options{})
	long := strings.Repeat("!", 3<<20)
	for path, body := range map[string]string{
		"/v1/completions":      `{"prompt":["x","` + long + `"]}`,
		"/v1/chat/completions": `{"messages":[{"role":"user","content":"x"},{"role":"user","content":"` + long + `"}]}`,
	} {
		began := time.Now()
		status, _, said := askAt[any](t, e, path, body)
		if took := time.Since(began); status != http.StatusBadRequest || !strings.Contains(said, "context_length_exceeded") || took > 10*time.Second {
			t.Errorf("%s: %d after %s: %.200s", path, status, took, said)
		}
	}
	// One that is a little too long is counted.
	if status, _, said := askAt[any](t, e, "/v1/completions", `{"prompt":"`+strings.Repeat("one ", 5000)+`"}`); status != http.StatusBadRequest || !strings.Contains(said, "5001 tokens") {
		t.Errorf("%d %.200s", status, said)
	}
}
