package safetensors_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"

	"enisle/internal/model/safetensors"
)

func source(name, dtype string, content string, shape ...uint64) safetensors.Source {
	return safetensors.Source{Name: name, Type: dtype, Shape: shape, Copy: func(_ context.Context, w io.Writer) error {
		_, err := io.WriteString(w, content)
		return err
	}}
}

// The whole file, as version 0.8 of the reference implementation writes it.
func TestWrittenAsTheReferenceImplementationWrites(t *testing.T) {
	p, err := safetensors.Lay(map[string]string{"format": "pt"}, []safetensors.Source{
		source("b", "U8", "xyz", 3), source("z", "F32", "12345678", 2, 1), source("a", "F32", "abcd"), source("<é>", "BOOL", "", 0),
	})
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	if err := p.Write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	want := `{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[],"data_offsets":[0,4]},"z":{"dtype":"F32","shape":[2,1],"data_offsets":[4,12]},` +
		`"b":{"dtype":"U8","shape":[3],"data_offsets":[12,15]},"<é>":{"dtype":"BOOL","shape":[0],"data_offsets":[15,15]}}`
	for len(want)%8 != 0 {
		want += " "
	}
	if got := b.String()[8:]; got != want+"abcd12345678xyz" {
		t.Errorf("got  %q\nwant %q", got, want)
	}
	if uint64(b.Len()) != p.Size {
		t.Errorf("%d bytes, and %d were planned", b.Len(), p.Size)
	}
	h, err := safetensors.Read(t.Context(), bytes.NewReader(b.Bytes()), int64(b.Len()))
	if err != nil || len(h.Tensors) != 4 {
		t.Errorf("%+v, %v", h, err)
	}
}

func TestWriteRefuses(t *testing.T) {
	for name, tc := range map[string]struct {
		tensors []safetensors.Source
		want    string
	}{
		"a name twice":         {[]safetensors.Source{source("a", "U8", "x", 1), source("a", "I8", "x", 1)}, "stands twice"},
		"no name":              {[]safetensors.Source{source("", "U8", "x", 1)}, "is none"},
		"the reserved name":    {[]safetensors.Source{source("__metadata__", "U8", "x", 1)}, "stands twice"},
		"a type it has not":    {[]safetensors.Source{source("a", "QI8", "x", 1)}, "not known"},
		"a shape too large":    {[]safetensors.Source{source("a", "F64", "", 1<<40, 1<<40)}, "overflows"},
		"too few bytes":        {[]safetensors.Source{source("a", "U8", "x", 2)}, "missing"},
		"too many bytes":       {[]safetensors.Source{source("a", "U8", "xyz", 2)}, "more bytes"},
		"a name that is a NUL": {[]safetensors.Source{source("\x00", "U8", "x", 1)}, "is none"},
	} {
		p, err := safetensors.Lay(nil, tc.tensors)
		if err == nil {
			err = p.Write(t.Context(), io.Discard)
		}
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}
