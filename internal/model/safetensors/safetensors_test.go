package safetensors_test

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"enisle/internal/model/safetensors"
)

func file(header string, data int) []byte {
	b := binary.LittleEndian.AppendUint64(nil, uint64(len(header)))
	return append(append(b, header...), make([]byte, data)...)
}

func TestRead(t *testing.T) {
	b := file(`{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[2],"data_offsets":[8,16]},"a":{"dtype":"BF16","shape":[2,2],"data_offsets":[0,8]}}  `, 16)
	h, err := safetensors.Read(t.Context(), bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if len(h.Tensors) != 2 || h.Tensors[0].Name != "a" || h.Tensors[1].End != 16 || h.Meta["format"] != "pt" || h.DataStart != uint64(len(b)-16) {
		t.Errorf("%+v", h)
	}
}

func TestReadRefuses(t *testing.T) {
	const a = `"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}`
	for name, c := range map[string]struct {
		file []byte
		want string
	}{
		"empty":        {nil, "does not begin"},
		"huge header":  {append(bytes.Repeat([]byte{0xff}, 8), '{'), "does not begin"},
		"no object":    {file(`[]     `, 0), "does not begin"},
		"twice":        {file(`{`+a+`,`+a+`}`, 4), "twice"},
		"overlap":      {file(`{`+a+`,"b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}}`, 6), "begins at 2"},
		"gap":          {file(`{`+a+`,"b":{"dtype":"U8","shape":[4],"data_offsets":[5,9]}}`, 9), "begins at 5"},
		"short":        {file(`{`+a+`}`, 3), "have 4 bytes"},
		"more behind":  {file(`{`+a+`}`, 5), "have 4 bytes"},
		"wrong size":   {file(`{"a":{"dtype":"F32","shape":[4],"data_offsets":[0,4]}}`, 4), "not those of its shape"},
		"overflow":     {file(`{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0]}}`, 0), "overflows"},
		"backwards":    {file(`{"a":{"dtype":"U8","shape":[4],"data_offsets":[4,0]}}`, 4), "not those of its shape"},
		"negative":     {file(`{"a":{"dtype":"U8","shape":[-4],"data_offsets":[0,4]}}`, 4), "tensor"},
		"unknown type": {file(`{"a":{"dtype":"X1","shape":[4],"data_offsets":[0,4]}}`, 4), "not known"},
		"text behind":  {file(`{`+a+`}x`, 4), "behind the header"},
		"cut":          {file(`{`+a, 4), "EOF"},
	} {
		_, err := safetensors.Read(t.Context(), bytes.NewReader(c.file), int64(len(c.file)))
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(file(`{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`, 4))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := safetensors.Read(t.Context(), bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		end := uint64(0)
		for _, x := range h.Tensors {
			end = x.End
		}
		if h.DataStart+end != uint64(len(b)) {
			t.Errorf("accepted %d of %d bytes", h.DataStart+end, len(b))
		}
	})
}
