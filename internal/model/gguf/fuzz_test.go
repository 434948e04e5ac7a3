package gguf_test

import (
	"bytes"
	"encoding/binary"
	"testing"

	"enisle/internal/model/gguf"
)

// FuzzRead reads headers: every length is held against the file.
func FuzzRead(f *testing.F) {
	head := []byte(gguf.Magic)
	head = binary.LittleEndian.AppendUint32(head, 3)
	head = binary.LittleEndian.AppendUint64(head, 1)
	head = binary.LittleEndian.AppendUint64(head, 0)
	head = append(binary.LittleEndian.AppendUint64(head, 1), 'a')
	head = binary.LittleEndian.AppendUint32(head, 1)
	head = binary.LittleEndian.AppendUint64(head, 8)
	head = binary.LittleEndian.AppendUint32(head, 0)
	head = binary.LittleEndian.AppendUint64(head, 0)
	f.Add(append(head, make([]byte, 64)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, _, err := gguf.Read(t.Context(), bytes.NewReader(b), int64(len(b)))
		if err == nil {
			_ = h.Layout(int64(len(b)))
		}
	})
}
