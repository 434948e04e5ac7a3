package asset

import (
	"bytes"
	"context"
	"io"
	"slices"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
)

// heard collects what is reported; not safe for several at once.
type heard struct{ rules []string }

func (h *heard) Report(rule string, _ inspect.Severity, _ string)        { h.rules = append(h.rules, rule) }
func (*heard) Note(string, string)                                       {}
func (*heard) Descend(context.Context, string, io.ReaderAt, int64) error { return nil }

func subject(kind, name, content string) inspect.Subject {
	return inspect.Subject{Ref: artifact.Ref{Kind: kind, Name: "m"}, Path: name, Size: int64(len(content)), ReaderAt: bytes.NewReader([]byte(content)), Head: []byte(content)}
}

func TestPlainData(t *testing.T) {
	const (
		png    = "\x89PNG\r\n\x1a\n\x00\x00\x00\x01tEXtxcrc_\x00\x00\x00\x00IENDcrc_"
		run    = "cos\nsystem\n(S'id'\ntR."
		pieces = "\x0a\x03\x0a\x01a\x0a\x03\x0a\x01b\x0a\x03\x0a\x01c\x0a\x03\x0a\x01d\x12\x00"
	)
	for name, c := range map[string]struct {
		kind, file, content string
		known, bad          bool
	}{
		"a picture":                        {"model", "a.png", png, true, false},
		"a picture and more":               {"model", "a.png", png + run, true, true},
		"a picture that is cut":            {"model", "a.png", png[:30], true, true},
		"a picture by another name":        {"model", "a.bin", png, false, false},
		"a picture in a package":           {"pypi", "a.png", png, false, false},
		"a photograph":                     {"model", "a.jpg", "\xff\xd8\xff\xe0x\xff\xd9", true, false},
		"a photograph without an end":      {"model", "a.jpg", "\xff\xd8\xff\xe0" + run, true, true},
		"a moving picture":                 {"model", "a.gif", "GIF89ax;", true, false},
		"a moving picture and more":        {"model", "a.gif", "GIF89ax;" + run, true, true},
		"sound":                            {"model", "a.wav", "RIFF\x04\x00\x00\x00WAVE", true, false},
		"sound and more":                   {"model", "a.wav", "RIFF\x04\x00\x00\x00WAVE" + run, true, true},
		"a table":                          {"model", "a.parquet", "PAR1xPAR1", true, false},
		"a table and more":                 {"model", "a.parquet", "PAR1xPAR1" + run, true, true},
		"pieces of a tokenizer":            {"model", "tokenizer.model", pieces, true, false},
		"pieces, and what is none":         {"model", "tokenizer.model", pieces + run, false, false},
		"a pickle called so":               {"model", "tokenizer.model", run, false, false},
		"a line before a pickle":           {"model", "tokenizer.model", "\n" + run, false, false},
		"fasttext":                         {"model", "lid.bin", "\xba\x16\x4f\x2f\x0c\x00\x00\x00", true, false},
		"boosted trees":                    {"model", "m.ubj", "{L\x00\x00\x00\x00\x00\x00\x00\x07learner", true, false},
		"a text called like boosted trees": {"model", "m.ubj", "{L", false, false},
	} {
		s := subject(c.kind, c.file, c.content)
		if got := New().Wants(s); got != c.known {
			t.Errorf("%s: known: %t", name, got)
			continue
		}
		var h heard
		if c.known && (New().Scan(t.Context(), s, &h) != nil || slices.Contains(h.rules, "end") != c.bad) {
			t.Errorf("%s: %v", name, h.rules)
		}
	}
}

func FuzzScan(f *testing.F) {
	f.Add("a.png", []byte("\x89PNG\r\n\x1a\n\x00\x00\x00\x01tEXtxcrc_"))
	f.Add("a.model", []byte("\x0a\x03\x0a\x01a"))
	f.Fuzz(func(t *testing.T, name string, b []byte) {
		if s := subject("model", name, string(b)); New().Wants(s) {
			_ = New().Scan(t.Context(), s, &heard{})
		}
	})
}
