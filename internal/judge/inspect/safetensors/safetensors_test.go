package safetensors

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
)

// notes keeps what a scanner says.
type notes struct{ findings, facts []string }

func (n *notes) Report(rule string, sev inspect.Severity, detail string) {
	n.findings = append(n.findings, fmt.Sprint(sev, " ", rule, ": ", detail))
}

func (n *notes) Note(kind, value string)                                 { n.facts = append(n.facts, kind+": "+value) }
func (*notes) Descend(context.Context, string, io.ReaderAt, int64) error { return nil }

// sparse makes a file with a header and so many bytes of nothing behind it.
func sparse(t testing.TB, header string, data int64) inspect.Subject {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "m.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	b := append(binary.LittleEndian.AppendUint64(nil, uint64(len(header))), header...)
	if _, err := f.Write(b); err != nil {
		t.Fatal(err)
	}
	size := int64(len(b)) + data
	if err := f.Truncate(size); err != nil {
		t.Skipf("no sparse files here: %v", err)
	}
	return inspect.Subject{Ref: artifact.Ref{Kind: "model", Name: "m"}, Path: "m.safetensors", Size: size, ReaderAt: f, Head: b[:min(len(b), 4096)]}
}

func TestHostileHeadersAreRefused(t *testing.T) {
	for header, want := range map[string]string{
		`{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`:                                                     "",
		`{"a":{"dtype":"U8","dtype":"I8","shape":[4],"data_offsets":[0,4]}}`:                                        "twice",
		`{"a":{"DTYPE":"U8","shape":[4],"data_offsets":[0,4]}}`:                                                     "key",
		`{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4],"x":1}}`:                                               "key",
		`{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`: "twice",
		`{"a":{"dtype":"U8","shape":[3],"data_offsets":[0,3]}}`:                                                     "room for 4",
		`{"a":{"dtype":"U8","shape":[3],"data_offsets":[1,4]}}`:                                                     "begins at 1",
		`{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}}`: "begins at 0",
		`{"a":{"dtype":"Q9","shape":[4],"data_offsets":[0,4]}}`:                                                     "not known",
		`{"a":{"dtype":"F64","shape":[4294967296,4294967296],"data_offsets":[0,4]}}`:                                "overflows",
		`{"a":{"dtype":"U8","shape":[-4],"data_offsets":[0,4]}}`:                                                    "tensor",
		`{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,18446744073709551615]}}`:                                  "not those of its shape",
		`{"a":[1]}`: "no JSON object",
		`[]`:        "begin",
		`{"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]}} x`: "behind",
	} {
		n := &notes{}
		if err := New().Scan(t.Context(), sparse(t, header, 4), n); err != nil {
			t.Fatal(err)
		}
		said := strings.Join(n.findings, "; ")
		if want == "" && said != "" || !strings.Contains(said, want) || want != "" && !strings.HasPrefix(said, "refuse") {
			t.Errorf("%s: %q, want %q", header, said, want)
		}
	}
}

// BenchmarkStructureOf100GB reads the structure of a model of 100 GB, of which only
// the header is on disk.
func BenchmarkStructureOf100GB(b *testing.B) {
	const tensors, each = 2000, 50_000_000
	var h strings.Builder
	for i := range tensors {
		fmt.Fprintf(&h, `%c"t%d":{"dtype":"U8","shape":[%d],"data_offsets":[%d,%d]}`, "{,"[min(i, 1)], i, each, i*each, (i+1)*each)
	}
	s := sparse(b, h.String()+"}", tensors*each)
	for b.Loop() {
		n := &notes{}
		if err := New().Scan(b.Context(), s, n); err != nil || len(n.findings) > 0 {
			b.Fatal(err, n.findings)
		}
	}
}
