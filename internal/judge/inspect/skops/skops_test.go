package skops

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
	"enisle/internal/judge/inspect/archive"
)

type blob struct{ *bytes.Reader }

func (blob) Close() error  { return nil }
func (b blob) Size() int64 { return b.Reader.Size() }

// look inspects one file and returns what is said of it.
func look(t testing.TB, path string, content []byte) (said string, facts []inspect.Fact) {
	t.Helper()
	r := inspect.Runner{Scanners: []inspect.Scanner{archive.New(), New()}}
	a := artifact.Artifact{Ref: artifact.Ref{Kind: "model", Name: "m"}, Files: []artifact.File{{Path: path, Size: int64(len(content)), Digest: artifact.Sum(content)}}}
	rep, err := r.Inspect(context.Background(), []artifact.Artifact{a}, func(artifact.Digest) (inspect.Blob, error) { return blob{bytes.NewReader(content)}, nil }, func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range rep.Findings {
		if f.Scanner == "skops" {
			said += fmt.Sprintf("%s %s: %s; ", f.Severity, f.Rule, f.Detail)
		}
	}
	return said, rep.Facts
}

func zipped(t testing.TB, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create("schema.json")
	if err == nil {
		_, err = w.Write([]byte(content))
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// built writes a node.
func built(loader, module, class, more string) string {
	return fmt.Sprintf(`{"__class__":%q,"__module__":%q,"__loader__":%q%s}`, class, module, loader, more)
}

func TestNodes(t *testing.T) {
	for name, tc := range map[string]struct{ node, want string }{
		"an estimator":                         {built("ObjectNode", "sklearn.linear_model._logistic", "LogisticRegression", ""), ""},
		"a tree":                               {built("TreeNode", "sklearn.tree._tree", "Tree", ""), ""},
		"a loss":                               {built("LossNode", "_loss", "CyHalfBinomialLoss", ""), ""},
		"an array":                             {built("NdArrayNode", "numpy", "ndarray", `,"type":"numpy","file":"1.npy"`), ""},
		"a sparse matrix":                      {built("SparseMatrixNode", "scipy.sparse._csr", "csr_matrix", ""), ""},
		"a type":                               {built("TypeNode", "numpy", "float64", ""), ""},
		"a function that computes":             {built("FunctionNode", "numpy", "log1p", ""), ""},
		"a function of scikit-learn":           {built("FunctionNode", "sklearn.feature_selection._univariate_selection", "f_classif", ""), ""},
		"a class of a stranger":                {built("ObjectNode", "evil.mod", "Thing", ""), "refuse class"},
		"a class of the system":                {built("ObjectNode", "subprocess", "Popen", ""), "refuse class"},
		"a helper of scikit-learn":             {built("ObjectNode", "sklearn.utils._testing", "TempMemmap", ""), "refuse class"},
		"joblib in scikit-learn":               {built("ObjectNode", "sklearn.externals.joblib", "Parallel", ""), "refuse class"},
		"joblib":                               {built("ObjectNode", "joblib.memory", "Memory", ""), "refuse class"},
		"a function as a class":                {built("ObjectNode", "sklearn.metrics", "get_scorer", ""), "refuse class"},
		"a module that begins as scikit-learn": {built("ObjectNode", "sklearn_evil.x", "Thing", ""), "refuse class"},
		"a dotted class":                       {built("ObjectNode", "sklearn.svm", "_base.os.System", ""), "refuse class"},
		"a function of the system":             {built("FunctionNode", "os", "system", ""), "refuse function"},
		"builtins":                             {built("FunctionNode", "builtins", "eval", ""), "refuse function"},
		"a function of numpy that reads":       {built("FunctionNode", "numpy", "fromfile", ""), "refuse function"},
		"a function of numpy that unpickles":   {built("FunctionNode", "numpy", "load", ""), "refuse function"},
		"a function of numpy that calls":       {built("FunctionNode", "numpy", "apply_along_axis", ""), "refuse function"},
		"a method (CVE-2025-54413)":            {built("MethodNode", "sklearn.linear_model._logistic", "LogisticRegression", `,"content":{"func":"fit"}`), "refuse loader"},
		"an operator (CVE-2025-54412)":         {built("OperatorFuncNode", "operator", "call", ""), "refuse loader"},
		"an operator that calls methods":       {built("OperatorFuncNode", "operator", "methodcaller", ""), "refuse loader"},
		"an operator of another module":        {built("OperatorFuncNode", "os", "itemgetter", ""), "refuse loader"},
		"a partial function":                   {built("PartialNode", "functools", "partial", ""), "refuse loader"},
		"a reduced constructor":                {built("ConstructorFromReduceNode", "sklearn.tree._tree", "Tree", ""), "refuse loader"},
		"a loader that is not known":           {built("EvilNode", "builtins", "dict", ""), "refuse loader"},
		"a list that is something else":        {built("ListNode", "subprocess", "Popen", ""), "refuse mismatch"},
		"a dict that is something else":        {built("DictNode", "os", "system", ""), "refuse mismatch"},
		"a tuple that is something else":       {built("TupleNode", "builtins", "exec", ""), "refuse mismatch"},
		"a loss that is something else":        {built("LossNode", "os", "system", ""), "refuse mismatch"},
		"a tree that is something else":        {built("TreeNode", "builtins", "eval", ""), "refuse mismatch"},
		"a type that is something else":        {built("TypeNode", "os", "system", ""), "refuse mismatch"},
		"an array that is something else":      {built("NdArrayNode", "os", "ndarray", ""), "refuse mismatch"},
		"a random state that is something":     {built("RandomStateNode", "os", "RandomState", ""), "refuse mismatch"},
		"a function of protocol 0":             {built("FunctionNode", "numpy", "mean", `,"content":{"module_path":"numpy","function":"mean"}`), ""},
		"one that is something else":           {built("FunctionNode", "numpy", "mean", `,"content":{"module_path":"os","function":"system"}`), "refuse function"},
		"one that is no text":                  {built("FunctionNode", "numpy", "mean", `,"content":{"module_path":["os"],"function":"system"}`), "refuse function"},
		"what a module has imported":           {built("FunctionNode", "sklearn.metrics.pairwise", "partial", ""), "refuse function"},
		"what the tests of a module have":      {built("FunctionNode", "sklearn.metrics.tests.test_score", "run", ""), "refuse function"},
		"no loader":                            {`{"__class__":"x","__module__":"os"}`, "refuse schema"},
		"a class that is no text":              {`{"__class__":["x"],"__module__":"os","__loader__":"ObjectNode"}`, "refuse schema"},
		"escaped":                              {`{"__cl\u0061ss__":"system","__module__":"o\u0073","__load\u0065r__":"FunctionNode"}`, "refuse function"},
		"twice":                                {`{"__class__":"dict","__class__":"system","__module__":"os","__loader__":"DictNode"}`, "refuse schema"},
	} {
		t.Run(name, func(t *testing.T) {
			doc := built("ObjectNode", "sklearn.pipeline", "Pipeline", `,"content":{"steps":[`+tc.node+`]},"protocol":2`)
			for path, content := range map[string][]byte{"m.skops": zipped(t, doc), "schema.json": []byte(doc), "m.zip": zipped(t, doc)} {
				said, facts := look(t, path, content)
				if tc.want == "" && said != "" || !strings.HasPrefix(said, tc.want) {
					t.Errorf("%s: %q, want %q", path, said, tc.want)
				}
				if len(facts) == 0 {
					t.Errorf("%s: nothing was noted", path)
				}
			}
		})
	}
}

func TestWhatIsNoArchiveOrNoSchema(t *testing.T) {
	for name, tc := range map[string]struct {
		path, want string
		content    []byte
	}{
		"a pickle":          {"m.skops", "refuse no-archive", []byte("\x80\x04N.")},
		"nothing":           {"m.skops", "refuse no-archive", nil},
		"a schema of air":   {"m.skops", "refuse schema", zipped(t, `{}`)},
		"a broken schema":   {"m.skops", "refuse schema", zipped(t, `{"__loader__":`)},
		"a schema in UTF16": {"m.skops", "refuse schema", zipped(t, "\xff\xfe{\x00}\x00")},
		"other JSON":        {"x.json", "", []byte(`{"type":"object"}`)},
	} {
		if said, _ := look(t, tc.path, tc.content); tc.want == "" && said != "" || !strings.HasPrefix(said, tc.want) {
			t.Errorf("%s: %q, want %q", name, said, tc.want)
		}
	}
}

func FuzzScan(f *testing.F) {
	f.Add([]byte(built("ObjectNode", "sklearn.pipeline", "Pipeline", `,"content":{"a":[`+built("MethodNode", "os", "x", "")+`]}`)))
	f.Fuzz(func(t *testing.T, b []byte) { look(t, "m.skops!schema.json", b) })
}
