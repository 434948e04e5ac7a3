package onnx

import (
	"bytes"
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

// num and msg write a field; msg takes what stands inside.
func num(field int, v uint64) string {
	return string(binary.AppendUvarint(binary.AppendUvarint(nil, uint64(field)<<3), v))
}

func msg(field int, in ...string) string {
	body := strings.Join(in, "")
	return string(binary.AppendUvarint(binary.AppendUvarint(nil, uint64(field)<<3|2), uint64(len(body)))) + body
}

// modelOf writes a model around the content of its graph.
func modelOf(graph ...string) string {
	return num(1, 8) + msg(2, "test") + msg(7, graph...) + msg(8, num(2, 17))
}

func op(name, domain string, attributes ...string) string {
	return msg(1, msg(4, name), msg(7, domain), strings.Join(attributes, ""))
}

// outside writes a tensor of four bytes that are in another file.
func outside(pairs ...string) string {
	var b strings.Builder
	b.WriteString(num(1, 4) + num(2, 2) + msg(8, "w"))
	for i := 0; i < len(pairs); i += 2 {
		b.WriteString(msg(13, msg(1, pairs[i]), msg(2, pairs[i+1])))
	}
	return msg(5, b.String()+num(14, 1))
}

// inside writes a tensor with its data.
func inside(dtype uint64, data string, dims ...uint64) string {
	b := num(2, dtype)
	for _, d := range dims {
		b += num(1, d)
	}
	return msg(5, b+data)
}

// nested writes graphs in attributes of nodes of graphs.
func nested(n int, inner string) string {
	for range n {
		inner = op("If", "", msg(5, msg(6, inner)))
	}
	return inner
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
	if len(n.facts) == 0 {
		t.Error("it was taken and nothing was noted")
	}
	return n
}

func TestModels(t *testing.T) {
	for name, tc := range map[string]struct{ content, want string }{
		"an honest model":                       {modelOf(op("Add", ""), inside(1, msg(9, "12345678"), 2)), ""},
		"an honest model of classic learning":   {modelOf(op("TreeEnsembleClassifier", "ai.onnx.ml")), ""},
		"data in another file":                  {modelOf(outside("location", "m.onnx_data", "offset", "0", "length", "4")), ""},
		"data in a directory":                   {modelOf(outside("location", "weights/m.bin")), ""},
		"numbers one by one":                    {modelOf(inside(7, num(7, 1)+num(7, 2), 2)), ""},
		"numbers packed":                        {modelOf(inside(7, msg(7, "\x01\xac\x02"), 2)), ""},
		"halves of bytes":                       {modelOf(inside(22, msg(9, "ab"), 3)), ""},
		"a function of its own":                 {modelOf(op("Mine", "own")) + msg(25, msg(1, "Mine"), msg(10, "own"), msg(7, msg(4, "Add"))), ""},
		"a graph in a graph":                    {modelOf(nested(3, op("Add", ""))), ""},
		"a path up":                             {modelOf(outside("location", "../../etc/passwd")), "refuse external-data"},
		"a path up, later":                      {modelOf(outside("location", "a/../../etc/passwd")), "refuse external-data"},
		"a path up, of Windows":                 {modelOf(outside("location", `..\..\secret`)), "refuse external-data"},
		"an absolute path":                      {modelOf(outside("location", "/etc/passwd")), "refuse external-data"},
		"a drive":                               {modelOf(outside("location", `C:secret`)), "refuse external-data"},
		"an address of the network":             {modelOf(outside("location", "http://a/b")), "refuse external-data"},
		"a share of the network":                {modelOf(outside("location", `\\host\share`)), "refuse external-data"},
		"a NUL":                                 {modelOf(outside("location", "a\x00/../b")), "refuse external-data"},
		"an encoded path":                       {modelOf(outside("location", "%2e%2e/b")), "refuse external-data"},
		"an address of memory":                  {modelOf(outside("location", "*/_ORT_MEM_ADDR_/*", "offset", "140000000")), "refuse external-data"},
		"a home":                                {modelOf(outside("location", "~/.ssh/id")), "refuse external-data"},
		"no location":                           {modelOf(outside("offset", "0")), "refuse external-data"},
		"two locations":                         {modelOf(outside("location", "a", "location", "../b")), "refuse external-data"},
		"an attribute of the reader":            {modelOf(outside("location", "a", "__class__", "x")), "refuse external-data"},
		"a negative offset":                     {modelOf(outside("location", "a", "offset", "-1")), "refuse external-data"},
		"an offset with a sign":                 {modelOf(outside("location", "a", "offset", "+1")), "refuse external-data"},
		"an offset that overflows":              {modelOf(outside("location", "a", "offset", "99999999999999999999")), "refuse external-data"},
		"a length that is not the tensor's":     {modelOf(outside("location", "a", "length", "4096")), "refuse tensor"},
		"a base elsewhere":                      {modelOf(outside("location", "a", "basepath", "/etc")), "refuse external-data"},
		"another file without the mark":         {modelOf(msg(5, num(1, 4)+num(2, 2)+msg(9, "abcd")+msg(13, msg(1, "location"), msg(2, "/etc/passwd")))), "refuse external-data"},
		"another file and data":                 {modelOf(msg(5, num(1, 4)+num(2, 2)+msg(9, "abcd")+msg(13, msg(1, "location"), msg(2, "a"))+num(14, 1))), "refuse tensor"},
		"a path up in a nested graph":           {modelOf(nested(4, outside("location", "../a"))), "refuse external-data"},
		"a path up in an attribute":             {modelOf(op("Constant", "", msg(5, outside("location", "../a")))), "refuse external-data"},
		"a path up in a function":               {modelOf(op("Add", "")) + msg(25, msg(7, msg(4, "If"), msg(5, msg(6, outside("location", "../a"))))), "refuse external-data"},
		"a path up in a sparse tensor":          {modelOf(msg(15, msg(1, outside("location", "../a")[2:]))), "refuse external-data"},
		"a path up in the training":             {modelOf(op("Add", "")) + msg(20, msg(1, outside("location", "../a"))), "refuse external-data"},
		"an operator of Python":                 {modelOf(op("PyOp", "ai.onnx.contrib")), "refuse operator"},
		"an operator of Python in a function":   {modelOf(op("Add", "")) + msg(25, msg(7, msg(4, "PythonOp"), msg(7, "com.microsoft"))), "refuse operator"},
		"an extension":                          {modelOf(op("BertTokenizer", "ai.onnx.contrib")), "refuse operator"},
		"what is compiled for an accelerator":   {modelOf(op("EPContext", "com.microsoft")), "refuse operator"},
		"an operator of a stranger":             {modelOf(op("Evil", "com.stranger")), "warn custom-domain"},
		"a stranger's beside a function":        {modelOf(op("Other", "own")) + msg(25, msg(1, "Mine"), msg(10, "own")), "warn custom-domain"},
		"too few bytes":                         {modelOf(inside(1, msg(9, "1234567"), 2)), "refuse tensor"},
		"too many bytes":                        {modelOf(inside(1, msg(9, "123456789"), 2)), "refuse tensor"},
		"no bytes":                              {modelOf(inside(1, "", 2)), "refuse tensor"},
		"dimensions that overflow":              {modelOf(inside(1, msg(9, ""), 1<<40, 1<<40)), "refuse tensor"},
		"a negative dimension":                  {modelOf(inside(1, msg(9, ""), 1<<63|1)), "refuse tensor"},
		"a type that is not known":              {modelOf(inside(99, msg(9, "a"), 1)), "refuse tensor"},
		"no type":                               {modelOf(inside(0, msg(9, "a"), 1)), "refuse tensor"},
		"data twice":                            {modelOf(inside(1, msg(9, "1234")+msg(4, "1234"), 1)), "refuse tensor"},
		"data of another type":                  {modelOf(inside(1, num(5, 1), 1)), "refuse tensor"},
		"numbers that are too few":              {modelOf(inside(7, msg(7, "\x01"), 2)), "refuse tensor"},
		"many dimensions":                       {modelOf(inside(2, msg(9, "a"), make([]uint64, 100)...)), "refuse broken"},
		"two graphs":                            {modelOf(op("Add", "")) + msg(7, op("Add", "")), "refuse broken"},
		"a field twice":                         {modelOf(msg(1, msg(4, "Add"), msg(4, "Evil"))), "refuse broken"},
		"a field that ONNX does not have":       {modelOf(op("Add", "")) + msg(31, "x"), "refuse broken"},
		"a field of a large number":             {modelOf(op("Add", "")) + msg(1<<20, "x"), "refuse broken"},
		"a segment":                             {modelOf(msg(5, num(2, 2)+msg(3, "")+msg(9, "a"))), "refuse broken"},
		"a long number":                         {modelOf(op("Add", "")) + "\x28\x81\x00", "refuse broken"},
		"a number without end":                  {modelOf(op("Add", "")) + "\x28" + strings.Repeat("\xff", 11), "refuse broken"},
		"a group":                               {modelOf(op("Add", "")) + "\x2b\x2c", "refuse broken"},
		"junk at the end":                       {modelOf(op("Add", "")) + "\x00\x00\x00", "refuse broken"},
		"a zip at the end":                      {modelOf(op("Add", "")) + "PK\x03\x04aaaa", "refuse broken"},
		"cut short":                             {modelOf(op("Add", ""))[:20], "refuse broken"},
		"a length beyond the message around it": {modelOf("\x0a\x7f"), "refuse broken"},
		"graphs without end":                    {modelOf(nested(40, op("Add", ""))), "refuse broken"},
		"no operators' version":                 {num(1, 8) + msg(7, op("Add", "")), "refuse broken"},
		"no version":                            {msg(7, op("Add", "")) + msg(8, num(2, 17)), "refuse broken"},
		"nothing":                               {"", "refuse broken"},
		"text":                                  {"hello", "refuse broken"},
	} {
		t.Run(name, func(t *testing.T) {
			n := scan(t, "m.onnx", tc.content)
			if said := strings.Join(n.findings, "; "); tc.want == "" && said != "" || !strings.HasPrefix(said, tc.want) {
				t.Errorf("%q, want %q", said, tc.want)
			}
		})
	}
}

func TestModelsByOtherNames(t *testing.T) {
	evil := modelOf(outside("location", "../a"))
	reordered := msg(8, num(2, 17)) + msg(7, outside("location", "../a")) + num(1, 8)
	for name, tc := range map[string]struct {
		path, content string
		refused, want bool
	}{
		"a model called otherwise":            {"weights.dat", evil, true, true},
		"its fields in another order":         {"weights.dat", reordered, true, true},
		"a model as the data of another":      {"m.onnx_data", evil, true, true},
		"the data of a model":                 {"m.onnx_data", "\x01\x02\x03\x04", false, true},
		"a model in capitals":                 {"M.ONNX", "x", true, true},
		"what is none":                        {"weights.dat", "\x08\x07hello", false, false},
		"text that begins as numbers do":      {"a.txt", "\nabc", false, false},
		"a message of another kind":           {"a.bin", msg(1, "a") + msg(2, "b"), false, false},
		"a graph behind many other fields":    {"notes.txt", strings.Repeat(msg(14, msg(1, "a")), 20_000) + evil, true, true},
		"a model, and junk, called otherwise": {"weights.dat", evil + "\x00", true, true},
	} {
		t.Run(name, func(t *testing.T) {
			n := scan(t, tc.path, tc.content)
			if got := len(n.facts) > 0; got != tc.want {
				t.Errorf("taken: %v, want %v", got, tc.want)
			}
			if got := strings.Contains(strings.Join(n.findings, ""), "refuse"); got != tc.refused {
				t.Errorf("%v", n.findings)
			}
		})
	}
}

func TestManyRefusalsAreCounted(t *testing.T) {
	n := scan(t, "m.onnx", modelOf(strings.Repeat(outside("location", "../a"), 500)))
	if len(n.findings) != maxRefusals+1 {
		t.Errorf("%d findings", len(n.findings))
	}
}

// BenchmarkModelOf100GB walks a model of 100 GB, of which only the fields are on disk.
func BenchmarkModelOf100GB(b *testing.B) {
	const tensors, each = 2000, 50_000_000
	f, err := os.Create(filepath.Join(b.TempDir(), "m.onnx"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	head := func(field, size int) []byte {
		return binary.AppendUvarint(binary.AppendUvarint(nil, uint64(field)<<3|2), uint64(size))
	}
	fields := []byte(num(1, each) + num(2, 2))
	raw := head(9, each)
	one := len(fields) + len(raw) + each
	start := head(5, one)
	at := int64(0)
	write := func(p []byte) {
		if _, err := f.WriteAt(p, at); err != nil {
			b.Fatal(err)
		}
		at += int64(len(p))
	}
	write([]byte(num(1, 8)))
	write(head(7, tensors*(len(start)+one)))
	for range tensors {
		write(bytes.Join([][]byte{start, fields, raw}, nil))
		at += each
	}
	write([]byte(msg(8, num(2, 17))))
	s := inspect.Subject{Ref: artifact.Ref{Kind: "model", Name: "m"}, Path: "m.onnx", Size: at, ReaderAt: f, Head: []byte(num(1, 8))}
	for b.Loop() {
		n := &notes{}
		if err := New().Scan(b.Context(), s, n); err != nil || len(n.findings) > 0 {
			b.Fatal(err, n.findings)
		}
	}
}

func FuzzScan(f *testing.F) {
	f.Add([]byte(modelOf(op("Add", ""), inside(1, msg(9, "12345678"), 2))))
	f.Add([]byte(modelOf(nested(3, outside("location", "../a")))))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := inspect.Subject{Ref: artifact.Ref{Kind: "model", Name: "m"}, Path: "m.onnx", Size: int64(len(b)), ReaderAt: bytes.NewReader(b), Head: b}
		if err := New().Scan(t.Context(), s, &notes{}); err != nil {
			t.Fatal(err)
		}
	})
}
