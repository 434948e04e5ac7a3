package tensorflow

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"io"
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

// msg writes a field that holds what stands inside.
func msg(field int, in ...string) string {
	body := strings.Join(in, "")
	return string(binary.AppendUvarint(binary.AppendUvarint(nil, uint64(field)<<3|2), uint64(len(body)))) + body
}

func op(name string, more ...string) string {
	return msg(1, msg(1, "n"), msg(2, name), strings.Join(more, ""))
}

// saved writes a saved model around the content of its graph.
func saved(graph string) string {
	return "\x08\x01" + msg(2, msg(1, msg(5, "2.15.0")), msg(2, graph))
}

func scan(t testing.TB, path, content string) *notes {
	t.Helper()
	n := &notes{}
	s := inspect.Subject{Ref: artifact.Ref{Kind: "model", Name: "m"}, Path: path, Size: int64(len(content)), ReaderAt: strings.NewReader(content), Head: []byte(content[:min(len(content), 4096)])}
	if !New().Wants(s) {
		return n
	}
	if err := New().Scan(t.Context(), s, n); err != nil {
		t.Fatal(err)
	}
	return n
}

func TestGraphs(t *testing.T) {
	for name, tc := range map[string]struct{ graph, want string }{
		"what computes":                  {op("MatMul") + op("Relu"), ""},
		"what restores":                  {op("RestoreV2"), ""},
		"a function of its own":          {op("Mine") + msg(2, msg(1, msg(1, msg(1, "Mine")), msg(3, msg(2, "Relu")))), ""},
		"a file that is read":            {op("ReadFile"), "refuse operation"},
		"a file that is written":         {op("MatMul") + op("WriteFile"), "refuse operation"},
		"Python":                         {op("PyFunc"), "refuse operation"},
		"Python, eager":                  {op("EagerPyFunc"), "refuse operation"},
		"a log that is a file":           {op("PrintV2"), "refuse operation"},
		"a debugger":                     {op("DebugIdentityV3"), "refuse operation"},
		"files of data":                  {op("TFRecordDataset"), "refuse operation"},
		"a descriptor of types":          {op("DecodeProtoV2"), "refuse operation"},
		"a file in a function":           {op("Relu") + msg(2, msg(1, msg(1, msg(1, "f")), msg(3, msg(2, "WriteFile")))), "refuse operation"},
		"a file by the name of a call":   {op("PartitionedCall", msg(5, msg(1, "f"), msg(2, msg(10, msg(1, "ReadFile"))))), "refuse operation"},
		"a file in a list of calls":      {op("Case", msg(5, msg(1, "b"), msg(2, msg(1, msg(9, msg(1, "ReadFile")))))), "refuse operation"},
		"a tensor that is dumped":        {op("DumpTensor"), "refuse operation"},
		"a copy for a debugger":          {op("CopyHost"), "refuse operation"},
		"a memory that is a file":        {op("ImmutableConst"), "refuse operation"},
		"a vocabulary":                   {op("InitializeTableFromTextFileV2"), "warn vocabulary"},
		"an operation that is not known": {op("StrangersOp"), "warn custom-operation"},
		"cut short":                      {op("MatMul") + "\x0a\x7f", "refuse broken"},
		"a field that graphs have not":   {op("MatMul") + msg(30, ""), "refuse broken"},
		"an operation as a number":       {msg(1, "\x10\x01"), "refuse broken"},
		"nothing":                        {"", "refuse broken"},
	} {
		t.Run(name, func(t *testing.T) {
			for path, content := range map[string]string{"saved_model.pb": saved(tc.graph), "frozen.pb": tc.graph, "m.meta": msg(2, tc.graph)} {
				n := scan(t, path, content)
				if said := strings.Join(n.findings, "; "); tc.want == "" && said != "" || !strings.HasPrefix(said, tc.want) {
					t.Errorf("%s: %q, want %q", path, said, tc.want)
				}
			}
		})
	}
}

// A saved model has operations that save it, and a graph alone has nothing to save.
func TestWhatSaves(t *testing.T) {
	for path, tc := range map[string]struct{ content, want string }{
		"saved_model.pb": {saved(op("SaveV2") + op("MergeV2Checkpoints")), ""},
		"m.meta":         {msg(2, op("SaveV2")), ""},
		"frozen.pb":      {op("Relu") + op("SaveV2"), "refuse operation"},
		"merged.pb":      {op("MergeV2Checkpoints"), "refuse operation"},
	} {
		if said := strings.Join(scan(t, path, tc.content).findings, "; "); tc.want == "" && said != "" || !strings.HasPrefix(said, tc.want) {
			t.Errorf("%s: %q, want %q", path, said, tc.want)
		}
	}
}

func TestWhatStandsBesideAGraph(t *testing.T) {
	table := strings.Repeat("x", 48) + "\x57\xfb\x80\x8b\x24\x75\x47\xdb"
	lambda := `{"class_name":"Lambda","config":{"function":{"class_name":"__tuple__","items":["4wEA",null,null]}}}`
	for name, tc := range map[string]struct{ path, content, want string }{
		"variables":               {"variables/variables.data-00000-of-00001", "\x00\x01", ""},
		"their table":             {"variables/variables.index", table, ""},
		"a graph as text":         {"saved_model.pbtxt", "node {}", "refuse text"},
		"labels as text":          {"label_map.pbtxt", "item { id: 1 name: 'cat' }", ""},
		"metadata of Keras":       {"keras_metadata.pb", msg(1, msg(5, `{"class_name":"Dense","config":{}}`)), ""},
		"metadata with code":      {"keras_metadata.pb", msg(1, msg(5, lambda)), "refuse lambda"},
		"metadata in the objects": {"saved_model.pb", "\x08\x01" + msg(2, msg(2, op("Relu")), msg(7, msg(1, msg(4, msg(1, "_tf_keras_layer"), msg(3, lambda))))), "refuse lambda"},
		"a fingerprint":           {"fingerprint.pb", "\x08\x01", ""},
		"another message":         {"x.pb", msg(9, "a"), "refuse broken"},
		"a saved model elsewhere": {"x.pb", saved(op("ReadFile")), "refuse operation"},
	} {
		n := scan(t, tc.path, tc.content)
		if said := strings.Join(n.findings, "; "); len(n.facts) == 0 && tc.want == "" || tc.want == "" && said != "" || !strings.HasPrefix(said, tc.want) {
			t.Errorf("%s: %q, want %q", name, said, tc.want)
		}
	}
	if n := scan(t, "x.index", "text"); len(n.findings)+len(n.facts) > 0 {
		t.Errorf("%v", n)
	}
}

// buffer writes FlatBuffers front to back: every offset points forward.
type buffer struct{ b []byte }

func (w *buffer) u32(v uint32) int {
	w.b = binary.LittleEndian.AppendUint32(w.b, v)
	return len(w.b) - 4
}

// here makes an offset that was left open point at what comes next.
func (w *buffer) here(at int) { binary.LittleEndian.PutUint32(w.b[at:], uint32(len(w.b)-at)) }

// table writes a table with fields of four bytes and returns where they are.
func (w *buffer) table(fields ...int) map[int]int {
	most := 0
	for _, f := range fields {
		most = max(most, f)
	}
	vtable := len(w.b)
	size := 4 + 2*(most+1)
	pad := size % 4
	w.b = binary.LittleEndian.AppendUint16(w.b, uint16(size))
	w.b = binary.LittleEndian.AppendUint16(w.b, uint16(4+4*len(fields)))
	for f := range most + 1 {
		off := 0
		for i, is := range fields {
			if is == f {
				off = 4 + 4*i
			}
		}
		w.b = binary.LittleEndian.AppendUint16(w.b, uint16(off))
	}
	w.b = append(w.b, make([]byte, pad)...)
	w.u32(uint32(len(w.b) - vtable))
	out := map[int]int{}
	for _, f := range fields {
		out[f] = w.u32(0)
	}
	return out
}

// tableAt writes a table that an offset which was left open points at.
func (w *buffer) tableAt(from int, fields ...int) map[int]int {
	out := w.table(fields...)
	self := len(w.b) - 4 - 4*len(fields)
	binary.LittleEndian.PutUint32(w.b[from:], uint32(self-from))
	return out
}

// lite writes a model with one operation of a name, and one node.
func lite(custom string, builtin, opcode uint32) string {
	w := &buffer{}
	root := w.u32(0)
	w.b = append(w.b, "TFL3"...)
	m := w.tableAt(root, modelCodes, modelGraphs, modelBuffers)
	w.here(m[modelCodes])
	w.u32(1)
	c := w.tableAt(w.u32(0), 0, 1, 3)
	binary.LittleEndian.PutUint32(w.b[c[0]:], min(builtin, 127))
	binary.LittleEndian.PutUint32(w.b[c[3]:], builtin)
	w.here(c[1])
	w.u32(uint32(len(custom)))
	w.b = append(w.b, custom...)
	w.b = append(w.b, make([]byte, 4-len(custom)%4)...)
	w.here(m[modelBuffers])
	w.u32(1)
	w.tableAt(w.u32(0), 0)
	w.b = w.b[:len(w.b)-4]
	w.u32(4) // the vector of no bytes that the buffer has
	w.u32(0)
	w.here(m[modelGraphs])
	w.u32(1)
	g := w.tableAt(w.u32(0), 3)
	w.here(g[3])
	w.u32(1)
	n := w.tableAt(w.u32(0), 0)
	binary.LittleEndian.PutUint32(w.b[n[0]:], opcode)
	return string(w.b)
}

func TestLite(t *testing.T) {
	for name, tc := range map[string]struct{ content, want string }{
		"an operation that is built in":  {lite("", 9, 0), ""},
		"a newer one":                    {lite("", 150, 0), ""},
		"an operation of TensorFlow":     {lite("FlexErf", builtinCustom, 0), ""},
		"a file by TensorFlow":           {lite("FlexWriteFile", builtinCustom, 0), "refuse operation"},
		"Python by TensorFlow":           {lite("FlexPyFunc", builtinCustom, 0), "refuse operation"},
		"an operation of a library":      {lite("MyOp", builtinCustom, 0), "warn custom-operation"},
		"an operation without its name":  {lite("", builtinCustom, 0), "refuse broken"},
		"an operation that is not known": {lite("", 5000, 0), "refuse broken"},
		"a node of another operation":    {lite("", 9, 7), "refuse broken"},
		"cut short":                      {lite("", 9, 0)[:60], "refuse broken"},
		"an offset out of the file":      {"\xff\xff\xff\x7fTFL3aaaa", "refuse broken"},
		"an offset to itself":            {"\x00\x00\x00\x00TFL3aaaa", "refuse broken"},
		"something else":                 {"hello, world", "refuse broken"},
		"nothing":                        {"", "refuse broken"},
	} {
		t.Run(name, func(t *testing.T) {
			n := scan(t, "m.tflite", tc.content)
			if said := strings.Join(n.findings, "; "); tc.want == "" && (said != "" || len(n.facts) != 2) || !strings.HasPrefix(said, tc.want) {
				t.Errorf("%q, want %q; %v", said, tc.want, n.facts)
			}
		})
	}
	if n := scan(t, "weights.dat", lite("FlexReadFile", builtinCustom, 0)); len(n.findings) != 1 {
		t.Errorf("by another name: %v", n.findings)
	}
}

func FuzzScan(f *testing.F) {
	f.Add([]byte(saved(op("Case", msg(5, msg(1, "b"), msg(2, msg(1, msg(9, msg(1, "ReadFile")))))))))
	f.Add([]byte(lite("FlexErf", builtinCustom, 0)))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, path := range []string{"saved_model.pb", "x.pb", "m.tflite"} {
			s := inspect.Subject{Ref: artifact.Ref{Kind: "model", Name: "m"}, Path: path, Size: int64(len(b)), ReaderAt: bytes.NewReader(b), Head: b}
			if err := New().Scan(t.Context(), s, &notes{}); err != nil {
				t.Fatal(err)
			}
		}
	})
}
