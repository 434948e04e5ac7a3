//go:build !noengine

package worker

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"enisle/internal/infer/openai"
)

func TestText(t *testing.T) {
	for name, tc := range map[string]struct {
		stops  []string
		tokens []string
		want   string // pieces, joined by |
		stop   bool
	}{
		"pieces pass through":                          {nil, []string{"he", "llo"}, "he|llo", false},
		"a character in two tokens comes whole":        {nil, []string{"a\xe6\x97", "\xa5b"}, "a|日b", false},
		"one in four tokens comes whole":               {nil, []string{"\xf0", "\x9f", "\x99", "\x82"}, "🙂", false},
		"one that never ends is replaced":              {nil, []string{"a\xf0\x9f"}, "a|\uFFFD", false},
		"bytes that are none are replaced":             {nil, []string{"a\xffb"}, "a\uFFFDb", false},
		"a stop sequence ends it":                      {[]string{"END"}, []string{"one END two"}, "one ", true},
		"a stop sequence in pieces ends it":            {[]string{"END"}, []string{"one E", "N", "D two", "more"}, "one ", true},
		"what only looked like one is sent":            {[]string{"END"}, []string{"E", "N", "X"}, "ENX", false},
		"what may still become one is sent at the end": {[]string{"END"}, []string{"a", "EN"}, "a|EN", false},
		"the first of two counts":                      {[]string{"b", "ab"}, []string{"xab"}, "x", true},
		"it may begin anew inside itself":              {[]string{"aab"}, []string{"a", "a", "a", "b"}, "a", true},
	} {
		t.Run(name, func(t *testing.T) {
			var got []string
			x := newText(tc.stops, func(s string) error { got = append(got, s); return nil })
			for _, tok := range tc.tokens {
				if err := x.token([]byte(tok)); err != nil {
					if !errors.Is(err, errStopped) {
						t.Fatal(err)
					}
					break
				}
			}
			stopped, err := x.flush()
			if s := strings.Join(got, "|"); err != nil || s != tc.want || stopped != tc.stop {
				t.Errorf("got %q, stopped %v, %v, want %q, %v", s, stopped, err, tc.want, tc.stop)
			}
		})
	}
}

func FuzzText(f *testing.F) {
	f.Add("some text", "te", 2)
	f.Add("日本🙂", "本", 1)
	f.Fuzz(func(t *testing.T, s, stop string, step int) {
		if stop == "" || step < 1 {
			return
		}
		var got strings.Builder
		x := newText([]string{stop}, func(p string) error {
			if !utf8.ValidString(p) {
				t.Errorf("the piece %q is not text", p)
			}
			got.WriteString(p)
			return nil
		})
		for rest := s; rest != ""; {
			n := min(step, len(rest))
			if x.token([]byte(rest[:n])) != nil {
				break
			}
			rest = rest[n:]
		}
		if _, err := x.flush(); err != nil {
			t.Fatal(err)
		}
		before, _, _ := strings.Cut(s, stop)
		if utf8.ValidString(s) && utf8.ValidString(stop) && got.String() != before {
			t.Errorf("%q up to %q: got %q, want %q", s, stop, got.String(), before)
		}
	})
}

// A field of another type is named, without a word of how the program holds it.
func TestFieldsOfAnotherType(t *testing.T) {
	_, err := readRequest(strings.NewReader(`{"messages":[{"role":"user","content":"x"}],"temperature":"warm"}`), true)
	var e *openai.Error
	if !errors.As(err, &e) || e.Param == nil || *e.Param != "temperature" || strings.Contains(e.Message, "Go ") {
		t.Errorf("got %v", err)
	}
}

func FuzzReadRequest(f *testing.F) {
	for _, s := range []string{
		`{"messages":[{"role":"user","content":"x"}]}`, `{"messages":[{"role":"user","content":[{"type":"text","text":"x"}]}],"stop":"a"}`,
		`{"messages":null,"stop":["a"],"seed":-1}`, `{`, `{"prompt":"x"}`, `{"prompt":["x","y"],"logprobs":null}`,
	} {
		f.Add(s, true)
		f.Add(s, false)
	}
	f.Fuzz(func(t *testing.T, s string, chat bool) {
		r, err := readRequest(strings.NewReader(s), chat)
		var e *openai.Error
		if err != nil && (!errors.As(err, &e) || e.Status != http.StatusBadRequest) {
			t.Errorf("got %v, want a refusal", err)
		}
		if err == nil && (chat && len(r.Messages) == 0 || !chat && len(r.Prompts) == 0 || r.chat() != chat) {
			t.Error("nothing to answer was let through")
		}
	})
}
