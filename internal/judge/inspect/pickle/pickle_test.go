package pickle

import (
	"bytes"
	"context"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
	"enisle/internal/judge/inspect/archive"
)

type blob struct{ *bytes.Reader }

func (b blob) Close() error { return nil }
func (b blob) Size() int64  { return b.Reader.Size() }

// judge runs archive and pickle scanners over one file, as the product does.
func judge(t *testing.T, name string, content []byte) []inspect.Finding {
	t.Helper()
	r := inspect.Runner{Scanners: []inspect.Scanner{archive.New(), New()}}
	a := artifact.Artifact{
		Ref:   artifact.Ref{Kind: "model", Name: "m"},
		Files: []artifact.File{{Path: name, Size: int64(len(content)), Digest: artifact.Sum(content)}},
	}
	rep, err := r.Inspect(context.Background(), []artifact.Artifact{a}, func(artifact.Digest) (inspect.Blob, error) {
		return blob{bytes.NewReader(content)}, nil
	}, func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	return rep.Of(inspect.Refuse)
}

func TestOnlyPicklesThatRebuildPlainThingsPass(t *testing.T) {
	const proto2, proto4 = "\x80\x02", "\x80\x04"
	for name, tc := range map[string]struct {
		file, pickle string
		want         string // part of the detail of a refusal; empty: none
	}{
		"none":                               {"a.pkl", "N.", ""},
		"a list of numbers":                  {"a.pkl", proto2 + "]q\x00(K\x01K\x02e.", ""},
		"an ordered dict":                    {"a.pkl", proto2 + "ccollections\nOrderedDict\n)R.", ""},
		"two streams":                        {"a.pkl", proto2 + "K\x01." + proto2 + "K\x02.", ""},
		"a call of os.system":                {"a.pkl", "cos\nsystem\n(S'id'\ntR.", "os.system"},
		"the same named .txt":                {"a.txt", "cos\nsystem\n(S'id'\ntR.", "os.system"},
		"the same, broken after the payload": {"a.txt", "cos\nsystem\n(S'id'\ntR\xff\xff", "os.system"},
		"the same as the data of a model":    {"m.onnx.data", "cos\nsystem\n(S'id'\ntR.", "os.system"},
		"a class of TorchScript outside":     {"a.pkl", "c__torch__.net\nNet\n)\x81.", "__torch__"},
		"in the second stream":               {"a.pkl", proto2 + "K\x01." + "cos\nsystem\n(S'id'\ntR.", "os.system"},
		"by INST":                            {"a.pkl", "(S'id'\nios\nsystem\n.", "os.system"},
		"by OBJ":                             {"a.pkl", "(cos\nsystem\nS'id'\no.", "os.system"},
		"by STACK_GLOBAL":                    {"a.pkl", proto4 + "\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R.", "os.system"},
		"by STACK_GLOBAL through the memo":   {"a.pkl", proto4 + "\x8c\x02os\x94\x8c\x06system\x94h\x00h\x01\x93)R.", "os.system"},
		"a computed name":                    {"a.pkl", proto4 + "K\x01K\x02\x93)R.", "computes"},
		"a call of what is not a name":       {"a.pkl", proto2 + "K\x01)R.", "not an imported name"},
		"state for what it did not make":     {"a.pkl", proto2 + "ccollections\nOrderedDict\n}b.", "did not make"},
		"an extension number":                {"a.pkl", proto2 + "\x82\x01)R.", "a number that only the reader knows"},
		"a persistent name":                  {"a.pkl", "Pid\n.", "outside"},
		"a submodule of an allowed one":      {"a.pkl", "ctorch.utils.data\nload\n)R.", "torch.utils.data"},
		"importlib":                          {"a.pkl", "cimportlib\nimport_module\n(S'os'\ntR.", "importlib"},
		"getattr":                            {"a.pkl", "c__builtin__\ngetattr\n)R.", "getattr"},
		"bytes behind the end":               {"a.pkl", "N.xyz", "not known"},
		"cut short":                          {"a.pkl", proto2 + "X\xff\xff\xff\x7fabc", "cut short"},
		"empty":                              {"a.pkl", "", "cut short"},
		"an opcode across a frame":           {"a.pkl", proto4 + "\x95\x03\x00\x00\x00\x00\x00\x00\x00K\x01X\x01\x00\x00\x00a0.", "two readers"},
		"a stop inside a frame":              {"a.pkl", proto4 + "\x95\x0a\x00\x00\x00\x00\x00\x00\x00N.AAAAAAAAAAA", "two readers"},
		"a frame in a frame":                 {"a.pkl", proto4 + "\x95\x20\x00\x00\x00\x00\x00\x00\x00\x95\x02\x00\x00\x00\x00\x00\x00\x00N.", "two readers"},
		"an unset memo":                      {"a.pkl", proto2 + "h\x07.", "never set"},
		"a text that is no pickle":           {"README.md", "copyright\nnobody\n(c) 2026\n", ""},
		"a file of another kind called .bin": {"a.bin", "hello world, not a pickle", "never set"},
		"plain numpy numbers":                {"a.npy", npy("'<f4'") + "\x00\x00\x80?", ""},
		"numpy text and dates":               {"a.npy", npy("'<U3'") + "aaaabbbbcccc", ""},
		"numpy records":                      {"a.npy", npy("[('x', '<f8'), ('y', '|S3', (2,))]") + "01234567aaabbb", ""},
		"numpy objects by a long name":       {"a.npy", npy("'object'") + "cos\nsystem\n(S'id'\ntR.", "os.system"},
		"numpy objects by an escape":         {"a.npy", npy(`'|\x4f'`) + "cos\nsystem\n(S'id'\ntR.", "not as numpy writes it"},
		"numpy objects in a record":          {"a.npy", npy("[('x', '<f8'), ('y', '|O')]") + "cos\nsystem\n(S'id'\ntR.", "os.system"},
		"numpy with a key twice":             {"a.npy", npy("'<f8', 'fortran_order': False, 'shape': (1,), 'descr': '|O'") + "cos\nsystem\n(S'id'\ntR.", "not as numpy writes it"},
		"a tar that is a pickle":             {"a.pkl", ustar("cos\nsystem\n(S'id'\ntR."), "os.system"},
		"the same under a plain name":        {"a.dat", ustar("cos\nsystem\n(S'id'\ntR."), "os.system"},
		"a GGUF that is a pickle":            {"a.dat", "GGUF\x03\x00\x00\x00\x000cos\nsystem\n(S'id'\ntR.", "os.system"},
		"behind a None":                      {"a.dat", "N0cos\nsystem\n(S'id'\ntR.", "os.system"},
		"behind a number":                    {"a.dat", "K\x010cos\nsystem\n(S'id'\ntR.", "os.system"},
		"behind a number in text":            {"a.txt", "I1\n0cos\nsystem\n(S'id'\ntR.", "os.system"},
		"behind 17 MiB of text":              {"a.dat", strings.Repeat("S'"+strings.Repeat("x", 1<<16)+"'\n0", 272) + "cos\nsystem\n(S'id'\ntR.", "os.system"},
		"numpy objects that call":            {"a.npy", npy("'|O'") + "cos\nsystem\n(S'id'\ntR.", "os.system"},
	} {
		t.Run(name, func(t *testing.T) {
			found := judge(t, tc.file, []byte(tc.pickle))
			if tc.want == "" {
				if len(found) > 0 {
					t.Errorf("refused: %+v", found)
				}
				return
			}
			for _, f := range found {
				if strings.Contains(f.Detail, tc.want) {
					return
				}
			}
			t.Errorf("got %+v, want a refusal with %q", found, tc.want)
		})
	}
}

// ustar is a header block of a tar whose name field begins with something else.
func ustar(start string) string {
	block := make([]byte, 1024)
	copy(block, start)
	copy(block[257:], "ustar\x0000")
	return string(block)
}

func npy(descr string) string {
	h := "{'descr': " + descr + ", 'fortran_order': False, 'shape': (1,), }"
	h += strings.Repeat(" ", 117-len(h)) + "\n"
	return "\x93NUMPY\x01\x00\x76\x00" + h
}

// The files of picklescan: every malicious one is refused; of the others those
// that are refused are named here with the reason.
func TestKnownMaliciousFiles(t *testing.T) {
	dir := os.Getenv("ENISLE_TESTDATA")
	if dir == "" {
		t.Skip("ENISLE_TESTDATA is not set: the known malicious files are not here")
	}
	files, err := filepath.Glob(filepath.Join(dir, "models", "pickle", "*"))
	if err != nil || len(files) < 30 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	unreadable := map[string]bool{
		"benign_password_protected.zip": true, // cannot be read, so it is not clean
		"broken_model.pkl":              true,
		"bad_pytorch.pt":                true,
		"not_a_pickle.bin":              true,
	}
	attacks := map[string]bool{"pytorch_magic_bypass.pt": true, "sys_module_override_sploit.pkl": true}
	for _, file := range files {
		name := filepath.Base(file)
		if strings.HasPrefix(name, "LICENSE") {
			continue
		}
		t.Run(name, func(t *testing.T) {
			b, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			found := judge(t, name, b)
			bad := strings.HasPrefix(name, "malicious") || unreadable[name] || attacks[name]
			if bad != (len(found) > 0) {
				t.Errorf("refused %v, want %v: %+v", len(found) > 0, bad, found)
			}
		})
	}
}

func FuzzMachine(f *testing.F) {
	for _, s := range []string{"N.", "cos\nsystem\n(S'id'\ntR.", "\x80\x04\x95\x02\x00\x00\x00\x00\x00\x00\x00N.", "\x80\x02]q\x00(K\x01K\x02e."} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(_ *testing.T, b []byte) {
		s := inspect.Subject{Path: "a.pkl", Size: int64(len(b)), ReaderAt: bytes.NewReader(b), Head: b[:min(len(b), 4096)]}
		Scanner{}.Wants(s)
		_ = Scanner{}.Scan(context.Background(), s, sinkRun{})
	})
}

type sinkRun struct{}

func (sinkRun) Report(string, inspect.Severity, string)                   {}
func (sinkRun) Note(string, string)                                       {}
func (sinkRun) Descend(context.Context, string, io.ReaderAt, int64) error { return nil }
