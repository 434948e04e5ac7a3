package template

import (
	"bytes"
	"context"
	"io"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
)

// heard counts what refuses.
type heard struct{ refused int }

func (h *heard) Report(_ string, sev inspect.Severity, _ string) {
	if sev == inspect.Refuse {
		h.refused++
	}
}
func (*heard) Note(string, string)                                       {}
func (*heard) Descend(context.Context, string, io.ReaderAt, int64) error { return nil }

// Wherever a loader takes a template from, it is read as that loader reads it.
func TestWhereTemplatesStand(t *testing.T) {
	const good, bad = "{{ messages[0].content }}", "{{ cycler.__init__.__globals__ }}"
	for name, c := range map[string]struct {
		file, content string
		refused       bool
	}{
		"a text":                     {"tokenizer_config.json", `{"chat_template":"` + good + `"}`, false},
		"a bad one":                  {"tokenizer_config.json", `{"chat_template":"` + bad + `"}`, true},
		"none":                       {"tokenizer_config.json", `{"chat_template":null,"model_max_length":1e30}`, false},
		"several":                    {"tokenizer_config.json", `{"chat_template":[{"name":"default","template":"` + good + `"},{"name":"tool_use","template":"` + bad + `"}]}`, true},
		"several by name":            {"chat_template.json", `{"chat_template":{"default":"` + good + `"}}`, false},
		"the same key twice":         {"tokenizer_config.json", `{"chat_template":"` + bad + `","chat_template":"` + good + `"}`, true},
		"a key that only looks like": {"tokenizer_config.json", `{"chat_template":"` + bad + `","Chat_Template":"` + good + `"}`, true},
		"behind a mark of order":     {"tokenizer_config.json", "\xef\xbb\xbf" + `{"chat_template":"` + bad + `"}`, true},
		"beside a number of Python":  {"tokenizer_config.json", `{"x":NaN,"chat_template":"` + bad + `"}`, true},
		"of a processor":             {"processor_config.json", `{"chat_template":"` + bad + `"}`, true},
		"in capitals":                {"x/CHAT_TEMPLATE.JINJA", bad, true},
		"by its other names":         {"x/tools.j2", bad, true},
		"a number":                   {"tokenizer_config.json", `{"chat_template":3}`, true},
	} {
		s := inspect.Subject{Ref: artifact.Ref{Kind: "model", Name: "m"}, Path: c.file, Size: int64(len(c.content)), ReaderAt: bytes.NewReader([]byte(c.content)), Head: []byte(c.content)}
		var h heard
		if !New().Wants(s) || New().Scan(t.Context(), s, &h) != nil || h.refused > 0 != c.refused {
			t.Errorf("%s: %d refusals", name, h.refused)
		}
	}
}
