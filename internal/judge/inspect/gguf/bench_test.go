package gguf

import (
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"strconv"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
)

// sparse is a file with a beginning and nothing but zeros behind it.
type sparse struct {
	head []byte
	size int64
}

func (s sparse) ReadAt(p []byte, off int64) (int, error) {
	if off >= s.size {
		return 0, io.EOF
	}
	n := min(int64(len(p)), s.size-off)
	clear(p[:n])
	if off < int64(len(s.head)) {
		copy(p[:n], s.head[off:])
	}
	if n < int64(len(p)) {
		return int(n), io.EOF
	}
	return int(n), nil
}

type silent struct{ refused []string }

func (s *silent) Report(rule string, sev inspect.Severity, detail string) {
	if sev == inspect.Refuse {
		s.refused = append(s.refused, rule+": "+detail)
	}
}
func (*silent) Note(string, string)                                       {}
func (*silent) Descend(context.Context, string, io.ReaderAt, int64) error { return nil }

// large makes a model of 1,000 tensors of 100 MB, with a vocabulary of 150,000 words.
func large() sparse {
	var b bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			if s, ok := v.(string); ok {
				_ = binary.Write(&b, binary.LittleEndian, uint64(len(s)))
				b.WriteString(s)
				continue
			}
			_ = binary.Write(&b, binary.LittleEndian, v)
		}
	}
	const tensors, words, elements = 1000, 150_000, 26_214_400 // of F32: 100 MiB
	b.WriteString("GGUF")
	put(uint32(3), uint64(tensors), uint64(2))
	put("general.architecture", uint32(8), "llama")
	put("tokenizer.ggml.tokens", uint32(9), uint32(8), uint64(words))
	for i := range words {
		put("word" + strconv.Itoa(i))
	}
	for i := range tensors {
		put("blk."+strconv.Itoa(i)+".weight", uint32(2), uint64(5120), uint64(elements/5120), uint32(0), uint64(i)*elements*4)
	}
	for b.Len()%32 != 0 {
		b.WriteByte(0)
	}
	return sparse{b.Bytes(), int64(b.Len()) + tensors*elements*4}
}

// BenchmarkStructureOf100GB reads the whole structure of a model of 105 GB.
func BenchmarkStructureOf100GB(b *testing.B) {
	f := large()
	for b.Loop() {
		var r silent
		s := inspect.Subject{Ref: artifact.Ref{Kind: "model", Name: "m"}, Path: "m.gguf", Size: f.size, ReaderAt: f, Head: f.head[:4096]}
		if err := New().Scan(context.Background(), s, &r); err != nil || len(r.refused) > 0 {
			b.Fatalf("%v, %v", err, r.refused)
		}
	}
}
