package gguf_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"enisle/internal/model/gguf"
)

// small is a model of one tensor, in either order of bytes.
func small(order binary.ByteOrder, version uint32) []byte {
	var b bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			if s, ok := v.(string); ok {
				_ = binary.Write(&b, order, uint64(len(s)))
				v = []byte(s)
			}
			_ = binary.Write(&b, order, v)
		}
	}
	b.WriteString(gguf.Magic)
	put(version, uint64(1), uint64(3))
	put("general.architecture", uint32(8), "llama")
	put("general.alignment", uint32(4), uint32(64))
	put("tokenizer.chat_template", uint32(8), "{{ x }}")
	put("w", uint32(1), uint64(8), uint32(0), uint64(0))
	b.Write(make([]byte, 64-b.Len()%64+8*4))
	return b.Bytes()
}

// Version 3 is written in either order of bytes, and says which by its own number.
func TestBothOrdersOfBytes(t *testing.T) {
	for name, tc := range map[string]struct {
		order   binary.ByteOrder
		version uint32
		want    bool
	}{
		"little":               {binary.LittleEndian, 3, true},
		"big":                  {binary.BigEndian, 3, true},
		"version 2":            {binary.LittleEndian, 2, true},
		"big, of a version":    {binary.BigEndian, 2, false},
		"a version nobody has": {binary.BigEndian, 4, false},
	} {
		t.Run(name, func(t *testing.T) {
			b := small(tc.order, tc.version)
			h, _, err := gguf.Read(t.Context(), bytes.NewReader(b), int64(len(b)))
			if (err == nil) != tc.want {
				t.Fatalf("%v, want %v", err, tc.want)
			}
			if err != nil {
				return
			}
			if err := h.Layout(int64(len(b))); err != nil || h.Arch != "llama" || h.Align != 64 || len(h.Templates) != 1 || h.Tensors[0].Len != 32 {
				t.Errorf("%+v, %v", h, err)
			}
			if err := h.Layout(int64(len(b)) - 1); err == nil {
				t.Error("a tensor that is cut short passes")
			}
		})
	}
}
