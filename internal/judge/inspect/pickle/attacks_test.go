package pickle

import (
	"archive/zip"
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
	"enisle/internal/judge/inspect/asset"
)

// short is a string of protocol 4.
func short(s string) string { return "\x8c" + string(rune(len(s))) + s }

// npArray is how joblib begins an array of a type and a shape of one number.
func npArray(dtype string, n byte, align bool) string {
	s := "\x80\x04cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}(" + short("shape") + "K" + string([]byte{n}) + "\x85" +
		short("dtype") + "cnumpy\ndtype\n" + short(dtype) + "\x89\x88\x87R"
	if align {
		s += short("numpy_array_alignment_bytes") + "K\x10"
	}
	return s + "ub"
}

// Every way to make a pickle do something, by its own name. Each is refused, and
// where a name is what gives it away, that name is said.
func TestAttacks(t *testing.T) {
	const p2, p4 = "\x80\x02", "\x80\x04"
	const run = "cos\nsystem\n(S'id'\ntR."
	nested := "B" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(run)))) + run
	var z bytes.Buffer
	w := zlib.NewWriter(&z)
	_, _ = w.Write([]byte(run))
	_ = w.Close()
	call := func(module, name string) string { return "c" + module + "\n" + name + "\n(S'x'\ntR." }
	cases := map[string][3]string{ // file, content, what is said
		"a name hidden by an octal escape":     {"a.pkl", p4 + "S'\\157s'\nS'sys\\164em'\n\x93(S'id'\ntR.", "os.system"},
		"a name hidden by a hex escape":        {"a.pkl", p4 + "S'\\x6fs'\nS'system'\n\x93(S'id'\ntR.", "os.system"},
		"a name hidden by a unicode escape":    {"a.pkl", p4 + "V\\u006fs\nVsystem\n\x93(S'id'\ntR.", "os.system"},
		"a name of 17 parts":                   {"a.pkl", p4 + short("torch") + short("serialization.os.system") + "\x93" + short("id") + "\x85R.", "serialization.os.system"},
		"a name under numpy":                   {"a.pkl", p4 + short("numpy") + short("f2py.crackfortran.os.system") + "\x93" + short("id") + "\x85R.", "os.system"},
		"a name behind a decoy that is popped": {"a.pkl", p4 + short("os") + "\x94" + short("collections") + "0" + short("system") + "\x93" + short("id") + "\x85R.", "os.system"},
		"a name doubled":                       {"a.pkl", p4 + short("os") + "2" + "0" + short("system") + "\x93" + short("id") + "\x85R.", "os.system"},
		"a name from a tuple's memo":           {"a.pkl", p4 + short("os") + "q\x05" + short("system") + "q\x060" + "0h\x05h\x06\x93)R.", "os.system"},
		"a memo number in another base":        {"a.pkl", "S'os'\np0x10\n0g16\nS'system'\n\x93)R.", "os.system"},
		"a call by OBJ that is popped":         {"a.pkl", "(cos\nsystem\nS'id'\no0N.", "os.system"},
		"a call by INST in a list":             {"a.pkl", "((S'id'\nios\nsystem\nl.", "os.system"},
		"a call by NEWOBJ_EX":                  {"a.pkl", p4 + "cos\nsystem\n" + short("id") + "\x85}\x92.", "os.system"},
		"attributes by a slot state":           {"a.pkl", p2 + "ccollections\nOrderedDict\n)RN}(U\x09__class__cbuiltins\nint\nu\x86b.", "__class__"},
		"attributes that are special":          {"a.pkl", p2 + "cargparse\nNamespace\n)\x81}(U\x0a__reduce__K\x01ub.", "__reduce__"},
		"a state for an imported class":        {"a.pkl", p2 + "ccollections\nOrderedDict\n}(U\x01xK\x01ub.", "did not make"},
		"items for an array":                   {"a.pkl", p2 + "cnumpy\nndarray\n)\x81K\x01K\x02s.", "not a plain container"},
		"items for an imported class":          {"a.pkl", p2 + "cargparse\nNamespace\nK\x01K\x02s.", "not a plain container"},
		"a list that is none":                  {"a.pkl", p2 + "cuuid\nUUID\n)\x81K\x01a.", "not a plain container"},
		"a default that calls":                 {"a.pkl", p2 + "ccollections\ndefaultdict\ncnumpy\nmatrix\n\x85R.", "plain type"},
		"a default of a name on no list":       {"a.pkl", p2 + "ccollections\ndefaultdict\ncos\ngetpid\n\x85R.", "os.getpid"},
		"a tensor's type that calls":           {"a.pkl", p2 + "ctorch._tensor\n_rebuild_from_type_v2\n(ccollections\nOrderedDict\nctorch\nTensor\n)}tR.", "none of a tensor"},
		"a tensor's type on no list":           {"a.pkl", p2 + "ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nctorch\nTensor\n(S'id'\nt}tR.", "os.system"},
		"a class on no list, reconstructed":    {"a.pkl", "ccopy_reg\n_reconstructor\n(csubprocess\nPopen\nc__builtin__\nobject\nNtR.", "subprocess.Popen"},
		"a function, reconstructed":            {"a.pkl", "ccopyreg\n_reconstructor\n(S'x'\nc__builtin__\nobject\nNtR.", "no class on the list"},
		"an object made of nothing listed":     {"a.pkl", "ccopyreg\n__newobj__\n(S'x'\ntR.", "no class on the list"},
		"a codec that runs":                    {"a.pkl", p2 + "c_codecs\nencode\n(X\x01\x00\x00\x00aX\x03\x00\x00\x00zip" + "tR.", "codec"},
		"bytes that are unpickled again":       {"a.pkl", p2 + "ctorch.storage\n_load_from_bytes\n" + nested + "\x85R.", "os.system"},
		"bytes that are computed":              {"a.pkl", p2 + "ctorch.storage\n_load_from_bytes\nc_codecs\nencode\n(X\x01\x00\x00\x00aX\x06\x00\x00\x00latin1tR\x85R.", "computes"},
		"a type that is called":                {"a.pkl", p2 + "ctorch\nFloatStorage\n)R.", "no function"},
		"an object that is called":             {"a.pkl", p2 + "ccollections\nOrderedDict\n)R)R.", "not an imported name"},
		"arguments that are computed":          {"a.pkl", p2 + "ccollections\nOrderedDict\n]R.", "computes"},
		"an index of a class on no list":       {"a.pkl", p2 + "cpandas.core.indexes.base\n_new_Index\n(S'x'\n}tR.", "no index"},
		"pandas that evaluates":                {"a.pkl", call("pandas.core.computation.eval", "eval"), "eval"},
		"pandas that reads a pickle":           {"a.pkl", call("pandas.io.pickle", "read_pickle"), "read_pickle"},
		"numpy that loads":                     {"a.pkl", call("numpy", "load"), "numpy.load"},
		"numpy that runs tests":                {"a.pkl", call("numpy.testing._private.utils", "runstring"), "runstring"},
		"numpy that finds a ufunc":             {"a.pkl", call("numpy.core", "_ufunc_reconstruct"), "_ufunc_reconstruct"},
		"joblib that loads":                    {"a.pkl", call("joblib", "load"), "joblib.load"},
		"scikit-learn's joblib":                {"a.pkl", call("sklearn.externals.joblib", "load"), "load"},
		"torch that loads":                     {"a.pkl", call("torch", "load"), "torch.load"},
		"torch that fetches":                   {"a.pkl", call("torch.hub", "load_state_dict_from_url"), "torch.hub"},
		"torch's own unpickler":                {"a.pkl", call("torch._weights_only_unpickler", "load"), "load"},
		"a package of torch":                   {"a.pkl", call("torch.package.package_importer", "PackageImporter"), "PackageImporter"},
		"TorchScript that compiles":            {"a.pkl", call("torch.jit", "CompilationUnit"), "CompilationUnit"},
		"a code object":                        {"a.pkl", call("marshal", "loads"), "marshal.loads"},
		"a function of a code object":          {"a.pkl", call("types", "FunctionType"), "FunctionType"},
		"cloudpickle":                          {"a.pkl", call("cloudpickle.cloudpickle", "_make_function"), "_make_function"},
		"dill":                                 {"a.pkl", call("dill._dill", "_create_function"), "_create_function"},
		"resolve_name":                         {"a.pkl", call("pkgutil", "resolve_name"), "resolve_name"},
		"operator.attrgetter":                  {"a.pkl", call("operator", "attrgetter"), "attrgetter"},
		"operator.methodcaller":                {"a.pkl", call("operator", "methodcaller"), "methodcaller"},
		"itertools.starmap":                    {"a.pkl", call("itertools", "starmap"), "starmap"},
		"builtins.map":                         {"a.pkl", call("builtins", "map"), "builtins.map"},
		"builtins.open":                        {"a.pkl", call("builtins", "open"), "builtins.open"},
		"a file of Python 2":                   {"a.pkl", call("__builtin__", "file"), "__builtin__.file"},
		"a timer":                              {"a.pkl", call("timeit", "timeit"), "timeit"},
		"a debugger":                           {"a.pkl", call("pdb", "run"), "pdb.run"},
		"a profiler":                           {"a.pkl", call("cProfile", "run"), "cProfile.run"},
		"ctypes":                               {"a.pkl", call("ctypes", "CDLL"), "ctypes.CDLL"},
		"a web browser":                        {"a.pkl", call("webbrowser", "open"), "webbrowser.open"},
		"a shelf":                              {"a.pkl", call("shelve", "open"), "shelve.open"},
		"a logging configuration":              {"a.pkl", call("logging.config", "listen"), "logging.config"},
		"a mail":                               {"a.pkl", call("smtplib", "SMTP"), "smtplib"},
		"a module put in the place of another": {"a.pkl", "csys\nmodules\n(S'os'\nN" + "s.", "sys.modules"},
		"a path that is called":                {"a.pkl", call("pathlib", "Path.write_text"), "write_text"},
		"a stream behind a harmless one":       {"a.pkl", p4 + "N." + p4 + "K\x01." + run, "os.system"},
		"a compressed joblib file":             {"a.joblib", z.String(), "os.system"},
		"numbers of an array that are opcodes": {"a.joblib", npArray("u1", byte(len(run)), false) + run + ".", "two readers"},
		"objects of an array":                  {"a.joblib", npArray("O8", 1, false) + run + ".", "os.system"},
		"an array longer than the file":        {"a.joblib", npArray("f8", 200, false) + ".", "cut short"},
		"an array of a type that is not known": {"a.joblib", npArray("Q9z", 1, true) + "\x00.", "not known"},
		"an array without a shape":             {"a.joblib", "\x80\x04cjoblib.numpy_pickle\nNumpyArrayWrapper\n)\x81}b.", "neither shape nor type"},
		"a file outside of the file":           {"a.joblib", "\x80\x03cjoblib.numpy_pickle_compat\nNDArrayWrapper\n)\x81}b.", "NDArrayWrapper"},
		"a length that is negative":            {"a.pkl", p2 + "\x8b\xff\xff\xff\xff.", "negative"},
		"a string of 2^63 bytes":               {"a.pkl", p4 + "\x8d\x00\x00\x00\x00\x00\x00\x00\x80.", "cut short"},
		"a mark that is taken for a value":     {"a.pkl", "(\x85.", "more than there is"},
		"a special attribute behind 70 others": {"a.pkl", p2 + "cargparse\nNamespace\n)\x81}(" + strings.Repeat("U\x01xK\x01", 70) + "U\x09__class__K\x01ub.", "special name"},
		"bytes that begin like bzip2":          {"a.pkl", "BZh\x00\x00" + strings.Repeat("A", 0x685a) + "0" + run, "os.system"},
		"a stream behind numbers, as text":     {"a.th", "L119547037146038801333356L\n.I1001\n.(d." + run, "os.system"},
		"a stream behind many, any name":       {"a.params", strings.Repeat("I1\n.", 40) + run, "os.system"},
		"a text with a strange space behind":   {"a.weights", "S'x'\v\n0" + run, "os.system"},
		"a number that a zero byte ends":       {"a.weights", "I1\x00rest\n0" + run, "os.system"},
		"a tuple in itself, sixty times":       {"a.pkl", p2 + ")" + strings.Repeat("2\x86", 60) + ".", "bomb"},
		"a list in itself, sixty times":        {"a.pkl", p2 + "](K\x01K\x02e" + strings.Repeat("q\x00(h\x00h\x00h\x00l", 60) + ".", "bomb"},
		"bytes without an end":                 {"a.pkl", p2 + "cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.", "bomb"},
		"a list of a range":                    {"a.pkl", p2 + "cbuiltins\nlist\ncbuiltins\nrange\n\x8a\x06\x00\x00\x00\x00\x00\x01\x85R\x85R.", "bomb"},
		"getattr of anything":                  {"a.pkl", p2 + "cbuiltins\ngetattr\ncnumpy\ndtype\nU\x05xxxxx\x86R.", "getattr"},
		"getattr of a zone's other name":       {"a.pkl", p2 + "cbuiltins\ngetattr\nczoneinfo\nZoneInfo\nU\x08no_cache\x86R.", "getattr"},
		"a distribution that compiles itself":  {"a.pkl", p2 + "cscipy.stats._continuous_distns\nuniform_gen\n)\x81}U\x13_parse_arg_templateU\x02idsb.", "code"},
		"trees from a path":                    {"a.pkl", p2 + "clightgbm.basic\nBooster\n(NU\x01xtR.", "path"},
		"trees from a path that it computes":   {"a.pkl", p2 + "cxgboost.core\nBooster\n}c_codecs\nencode\n(U\x02/xtR\x86R.", "arguments"},
		"trees from a path by its name":        {"a.pkl", p4 + "clightgbm.basic\nBooster\n)}" + short("model_file") + short("/x") + "s\x92.", "arguments"},
		"a zone's name by NEWOBJ":              {"a.pkl", p2 + "cbuiltins\ngetattr\ncnumpy\nndarray\nU\x06tofile\x86\x81.", "any name"},
		"another function by its name":         {"a.pkl", p2 + "cnumpy.core\n_ufunc_reconstruct\n(U\x02osU\x03abstR.", "any name"},
		"a function of numpy that is called":   {"a.pkl", call("numpy", "log1p"), "no function"},
		"a score that is called":               {"a.pkl", call("sklearn.metrics._classification", "f1_score"), "no function"},
		"a distance by a function":             {"a.pkl", call("sklearn.metrics._dist_metrics", "PyFuncDistance"), "PyFuncDistance"},
		"a table of pandas that reads":         {"a.pkl", call("pandas", "HDFStore"), "HDFStore"},
		"a method of a table of pandas":        {"a.pkl", call("pandas", "DataFrame.eval"), "DataFrame.eval"},
		"trained arguments that start":         {"a.pkl", call("transformers.training_args", "TrainingArguments"), "path"},
	}
	if len(cases) < 60 {
		t.Errorf("only %d cases", len(cases))
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			found := judge(t, c[0], []byte(c[1]))
			for _, f := range found {
				if strings.Contains(f.Detail, c[2]) {
					return
				}
			}
			t.Errorf("got %+v, want a refusal that says %q", found, c[2])
		})
	}
}

// Arrays of numpy, whose header decides whether anything is unpickled.
func TestArrays(t *testing.T) {
	const run = "cos\nsystem\n(S'id'\ntR."
	npy := func(descr, shape, data string) string {
		head := "{'descr': " + descr + ", 'fortran_order': False, 'shape': " + shape + ", }\n"
		return "\x93NUMPY\x01\x00" + string([]byte{byte(len(head)), byte(len(head) >> 8)}) + head + data
	}
	for name, c := range map[string]struct {
		content string
		bad     bool
	}{
		"numbers":                       {npy("'<i4'", "(2,)", "12345678"), false},
		"one number":                    {npy("'<f8'", "()", "12345678"), false},
		"none":                          {npy("'<f8'", "(0, 3)", ""), false},
		"texts":                         {npy("'<U2'", "(1,)", "12345678"), false},
		"times":                         {npy("'<M8[ns]'", "(1,)", "12345678"), false},
		"a record":                      {npy("[('a', '<i4'), ('b', '<f4', (1,))]", "(1,)", "12345678"), false},
		"a record in a record":          {npy("[('a', [('x', '<f4'), ('y', '<i2', (2,))])]", "(1,)", "12345678"), false},
		"a record with a title":         {npy("[(('Title', 'a'), '<i8')]", "(1,)", "12345678"), false},
		"a name of other letters":       {npy("[('gr\u00f6\u00dfe', '<i8')]", "(1,)", "12345678"), false},
		"two arrays":                    {npy("'<i4'", "(1,)", "1234") + npy("'<i4'", "(1,)", "1234"), false},
		"objects":                       {npy("'|O'", "(1,)", run), true},
		"objects behind numbers":        {npy("'<i4'", "(1,)", "1234") + npy("'|O'", "(1,)", run), true},
		"a pickle behind numbers":       {npy("'<i4'", "(1,)", "1234") + run, true},
		"objects in a record":           {npy("[('a', [('b', '|O')])]", "(1,)", run), true},
		"objects in a record of arrays": {npy("[('a', '|O', (2,))]", "(1,)", run), true},
		"numbers that are not there":    {npy("'<i4'", "(9,)", "1234"), true},
		"a shape that overflows":        {npy("'<i8'", "(9223372036854775807, 9223372036854775807)", ""), true},
		"a type by its whole name":      {npy("'object'", "(1,)", run), true},
	} {
		if found := judge(t, "a.npy", []byte(c.content)); len(found) > 0 != c.bad {
			t.Errorf("%s: %+v", name, found)
		}
	}
}

// What people pickle beside weights, and what stands for numbers in it.
func TestWhatPeoplePickle(t *testing.T) {
	const p2, p4 = "\x80\x02", "\x80\x04"
	for name, content := range map[string]string{
		"a zone":                  p2 + "cbuiltins\ngetattr\nczoneinfo\nZoneInfo\nU\x07_unpickle\x86R(U\x03UTCK\x01tR.",
		"arguments of a training": p2 + "ctransformers.training_args\nTrainingArguments\n)\x81}U\x0doutput_dir_x_U\x01xsb.",
		"a scorer":                p2 + "csklearn.metrics._scorer\n_Scorer\n)\x81}U\x0b_score_funccsklearn.metrics._classification\nf1_score\nsb.",
		"a table of pandas 3":     p2 + "cpandas\nDataFrame\n)\x81}U\x01xK\x01sb.",
		"boosted trees":           p2 + "cxgboost.core\nBooster\n)\x81}U\x06handleNsb.",
		"a callback as a key":     p2 + "}cpytorch_lightning.callbacks.model_checkpoint\nModelCheckpoint\n}s.",
		"a list held many times":  p4 + "](](K\x01eq\x00" + strings.Repeat("h\x00", 1000) + "e.",
	} {
		if found := judge(t, "a.pkl", []byte(strings.Replace(content, "U\x07_unpickle", "U\x09_unpickle", 1))); len(found) > 0 {
			t.Errorf("%s: %+v", name, found)
		}
	}
}

// Names written otherwise mean the same where CPython reads them the same.
func TestStringsAreReadAsPythonReadsThem(t *testing.T) {
	for in, want := range map[string]string{
		`'os'`: "os", `"os"`: "os", `'\157\163'`: "os", `'\x6fs'`: "os", `'a\'b'`: "a'b", `'a\\b'`: `a\b`, `'\q'`: `\q`, `'\0'`: "\x00", `'\n'`: "\n", `'\1234'`: "S4",
	} {
		if got, err := pythonString(in); err != nil || got != want {
			t.Errorf("%s: %q, %v, want %q", in, got, err, want)
		}
	}
	for _, bad := range []string{`os`, `'os`, `'`, ``, `'a\'`, `'\x6'`, `'\xzz'`, `"os'`} {
		if got, err := pythonString(bad); err == nil {
			t.Errorf("%s: %q", bad, got)
		}
	}
	for in, want := range map[string]string{"os": "os", `\u006fs`: "os", `\U0000006fs`: "os", "\xe9": "é", `\n`: `\n`} {
		if got, err := rawUnicode(in); err != nil || got != want {
			t.Errorf("%q: %q, %v, want %q", in, got, err, want)
		}
	}
}

func TestManyValuesStayWithinBounds(t *testing.T) {
	var b strings.Builder
	b.WriteString("\x80\x02]q\x00(")
	for i := range 200_000 {
		fmt.Fprintf(&b, "K\x01K\x02\x86r%s", string(binary.LittleEndian.AppendUint32(nil, uint32(i+1))))
	}
	b.WriteString("e.")
	if found := judge(t, "a.pkl", []byte(b.String())); len(found) > 0 {
		t.Errorf("%+v", found)
	}
}

// BenchmarkTensors reads a pickle of 16 GB of bytes, of which only the opcodes are
// on disk; what is skipped is counted as read.
func BenchmarkTensors(b *testing.B) {
	f, err := os.Create(filepath.Join(b.TempDir(), "m.pkl"))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	const each, count = 64 << 20, 256
	at := int64(0)
	put := func(s string) {
		if _, err := f.WriteAt([]byte(s), at); err != nil {
			b.Fatal(err)
		}
		at += int64(len(s))
	}
	put("\x80\x04](")
	for range count {
		put("\x8e" + string(binary.LittleEndian.AppendUint64(nil, each)))
		at += each
	}
	put("e.")
	b.SetBytes(at)
	s := inspect.Subject{Ref: artifact.Ref{Kind: "model", Name: "m"}, Path: "m.pkl", Size: at, ReaderAt: f, Head: []byte("\x80\x04]")}
	for b.Loop() {
		if err := New().Scan(b.Context(), s, sinkRun{}); err != nil {
			b.Fatal(err)
		}
	}
}

// A storage that the archive holds less of than the pickle says is memory of somebody else.
func TestStoragesOfAnArchive(t *testing.T) {
	data := "\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x017U\x03cpuK\x04tQK\x00K\x04\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR."
	for name, tc := range map[string]struct {
		members map[string]string
		bad     bool
	}{
		"whole":         {map[string]string{"m/data.pkl": data, "m/data/7": strings.Repeat("x", 16)}, false},
		"cut short":     {map[string]string{"m/data.pkl": data, "m/data/7": strings.Repeat("x", 15)}, true},
		"missing":       {map[string]string{"m/data.pkl": data, "m/data/8": strings.Repeat("x", 16)}, true},
		"of constants":  {map[string]string{"m/constants.pkl": data, "m/constants/7": strings.Repeat("x", 16)}, false},
		"another place": {map[string]string{"m/constants.pkl": data, "m/data/7": strings.Repeat("x", 16)}, true},
	} {
		var b bytes.Buffer
		z := zip.NewWriter(&b)
		for file, content := range tc.members {
			w, err := z.Create(file)
			if err == nil {
				_, err = w.Write([]byte(content))
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		if err := z.Close(); err != nil {
			t.Fatal(err)
		}
		if found := judge(t, "m.pt", b.Bytes()); tc.bad != (len(found) > 0) {
			t.Errorf("%s: %+v", name, found)
		}
	}
}

// A pickle behind the beginning of a file of plain data is found by loaders that skip it.
func TestPicklesInPlainData(t *testing.T) {
	const run = "cos\nsystem\n(S'id'\ntR."
	const run4 = "\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x02id\x85R."
	for name, c := range map[string]struct {
		file, content string
		bad           bool
	}{
		"a document":                  {"a.pdf", "%PDF-1.4\n1 0 obj\nconsectetur\nadipiscing\nelit\n%%EOF\n", false},
		"a document and a pickle":     {"a.pdf", "%PDF-1.4\n" + run + "\n%%EOF\n", true},
		"the same of protocol 4":      {"a.pdf", "%PDF-1.4\n" + run4, true},
		"by INST":                     {"a.pdf", "%PDF-1.4\n(S'id'\nios\nsystem\n.", true},
		"in a picture":                {"a.jpg", "\xff\xd8\xff\xe0" + run4 + "\xff\xd9", true},
		"far behind":                  {"a.ogg", "OggS" + strings.Repeat("\x80\x04abc", 300_000) + run4, true},
		"across what is read at once": {"a.ogg", "OggS" + strings.Repeat("x", 1<<20-10) + run4, true},
		"a picture":                   {"a.jpg", "\xff\xd8\xff\xe0" + strings.Repeat("\x80\x04\x8c\x02ab", 99) + "\xff\xd9", false},
	} {
		r := inspect.Runner{Scanners: []inspect.Scanner{New(), asset.New()}}
		a := artifact.Artifact{Ref: artifact.Ref{Kind: "model", Name: "m"}, Files: []artifact.File{{Path: c.file, Size: int64(len(c.content)), Digest: artifact.Sum([]byte(c.content))}}}
		rep, err := r.Inspect(t.Context(), []artifact.Artifact{a}, func(artifact.Digest) (inspect.Blob, error) {
			return blob{bytes.NewReader([]byte(c.content))}, nil
		}, func(int64) {})
		if found := rep.Of(inspect.Refuse); err != nil || c.bad != (len(found) > 0) {
			t.Errorf("%s: %+v, %v", name, found, err)
		}
	}
}

// State that a library would run, and what is asked of memory without the bytes for it.
func TestStatesAndRoom(t *testing.T) {
	const p2, p4 = "\x80\x02", "\x80\x04"
	uni := func(s string) string {
		return "X" + string(binary.LittleEndian.AppendUint32(nil, uint32(len(s)))) + s
	}
	huge := "\x8a\x06\x00\x00\x00\x00\x00\x10"         // 2^44
	wide := "\x8a\x08\x00\x00\x00\x00\x00\x00\x00\x01" // a number of eight bytes
	long := "\x8b\x09\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x00"
	gen := "cscipy.stats._continuous_distns\nuniform_gen\n)\x81"
	parser := func(shape, in, out, extra string) string {
		return "\ndef _parse_args(self, " + shape + " " + in + "):\n    return (" + shape + "), " + out + extra +
			"\n\ndef _parse_args_rvs(self, " + shape + " " + in + ", size=None):\n    return self._argcheck_rvs(" + shape + " " + out + ", size=size)\n\n" +
			"def _parse_args_stats(self, " + shape + " " + in + ", moments='mv'):\n    return (" + shape + "), " + out + ", moments\n"
	}
	none := parser("", "loc=0, scale=1", "loc, scale", "")
	array := func(shape, dtype, body string) string {
		return p2 + "cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K\x01" + shape + "cnumpy\ndtype\nU\x02" + dtype + "K\x00K\x01\x87R\x89" + body + "tb."
	}
	tensor := func(numel, offset, size, stride string) string { // in the legacy form
		return "\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19.\x80\x02M\xe9\x03.\x80\x02}.\x80\x02ctorch._utils\n_rebuild_tensor_v2\n((U\x07storagectorch\nFloatStorage\nU\x010U\x03cpu" +
			numel + "NtQ" + offset + "(" + size + "t(" + stride + "t\x89ccollections\nOrderedDict\n)RtR.\x80\x02]."
	}
	for name, c := range map[string]struct{ file, content, want string }{
		"a distribution":                         {"a.pkl", p2 + gen + "}" + uni("_parse_arg_template") + uni(none) + "sb.", ""},
		"one with shapes":                        {"a.pkl", p2 + gen + "}" + uni("_parse_arg_template") + uni(parser("a, b_2, ", "loc=0, scale=1", "loc, scale", "")) + "sb.", ""},
		"a discrete one":                         {"a.pkl", p2 + gen + "}" + uni("_parse_arg_template") + uni(parser("n, ", "loc=0", "loc, 1", "")) + "sb.", ""},
		"a distribution with code":               {"a.pkl", p2 + gen + "}" + uni("_parse_arg_template") + uni("import os") + "sb.", "code"},
		"code behind what scipy writes":          {"a.pkl", p2 + gen + "}" + uni("_parse_arg_template") + uni(none+"import os\n") + "sb.", "code"},
		"code as a shape":                        {"a.pkl", p2 + gen + "}" + uni("_parse_arg_template") + uni(parser("a=exec(''), ", "loc=0, scale=1", "loc, scale", "")) + "sb.", "code"},
		"code in what is returned":               {"a.pkl", p2 + gen + "}" + uni("_parse_arg_template") + uni(parser("", "loc=0, scale=1", "loc, scale", ", exec('')")) + "sb.", "code"},
		"a default that calls":                   {"a.pkl", p2 + gen + "}" + uni("_parse_arg_template") + uni(parser("", "loc=0, scale=exec('')", "loc, scale", "")) + "sb.", "code"},
		"code that is computed":                  {"a.pkl", p2 + gen + "}" + uni("_parse_arg_template") + "cbuiltins\nstr\n" + uni("import os") + "\x85Rsb.", "code"},
		"code by a key that is computed":         {"a.pkl", p2 + gen + "}cbuiltins\nstr\n" + uni("_parse_arg_template") + "\x85R" + uni("import os") + "sb.", "computes"},
		"code behind 40 keys":                    {"a.pkl", p2 + gen + "}(" + strings.Repeat("K\x01K\x01", 40) + uni("_parse_arg_template") + uni("import os") + "ub.", "code"},
		"code in a list of pairs":                {"a.pkl", p2 + gen + "](" + uni("_parse_arg_template") + uni("import os") + "\x86eb.", "code"},
		"code in a pair of states":               {"a.pkl", p2 + gen + "(" + uni("_parse_arg_template") + uni("import os") + "\x86K\x01K\x01\x86tb.", "code"},
		"code that a dict gets later":            {"a.pkl", p2 + "}q\x01" + gen + "h\x01" + uni("_parse_arg_template") + uni("import os") + "sb.", "code"},
		"a distribution called with shapes":      {"a.pkl", p2 + "cscipy.stats._continuous_distns\nuniform_gen\n(" + uni("x") + "tR.", "path"},
		"a function that is vectorised":          {"a.pkl", p2 + "cnumpy\nvectorize\n)\x81}" + uni("pyfunc") + "cbuiltins\nstr\nsb.", "not known"},
		"a method of a distribution":             {"a.pkl", p2 + "cbuiltins\ngetattr\n" + gen + uni("_entropy") + "\x86R.", ""},
		"another method of it":                   {"a.pkl", p2 + "cbuiltins\ngetattr\n" + gen + uni("__class__") + "\x86R.", "any name"},
		"a method of it that is called":          {"a.pkl", p2 + "cbuiltins\ngetattr\n" + gen + uni("_entropy") + "\x86R)R.", "no function"},
		"a formula of statsmodels":               {"a.pkl", p2 + "cstatsmodels.base.data\nPandasData\n)\x81}(" + uni("restore_design_info") + "\x88" + uni("formula") + uni("y ~ x") + "ub.", "code"},
		"the same by its new name":               {"a.pkl", p2 + "cstatsmodels.base.data\nPandasData\n)\x81}(" + uni("restore_model_spec") + "\x88ub.", "code"},
		"statsmodels that reads":                 {"a.pkl", p2 + "cstatsmodels.iolib.smpickle\nload_pickle\n(" + uni("x") + "tR.", "load_pickle"},
		"a class of torch's with weights":        {"a.pkl", p2 + "ctorch\nScriptObject\n)\x81)" + uni("__torch__.torch.classes.quantized.LinearPackedParamsBase") + "\x86b.", ""},
		"a class of another library":             {"a.pkl", p2 + "ctorch\nScriptObject\n)\x81)" + uni("__torch__.torch.classes.evil.Thing") + "\x86b.", "not known"},
		"a rate's method":                        {"a.pkl", p2 + "cbuiltins\ngetattr\nctorch.optim.lr_scheduler\nOneCycleLR\n)\x81" + uni("_annealing_cos") + "\x86R.", ""},
		"another method of a rate":               {"a.pkl", p2 + "cbuiltins\ngetattr\nctorch.optim.lr_scheduler\nOneCycleLR\n)\x81" + uni("load_state_dict") + "\x86R.", "any name"},
		"getattr that is handed on":              {"a.pkl", p2 + "]cbuiltins\ngetattr\na.", "hands"},
		"an attribute by a slot, computed":       {"a.pkl", p2 + "cargparse\nNamespace\n)\x81N}cbuiltins\nstr\n" + uni("__class__") + "\x85RK\x01s\x86b.", "computes"},
		"an iterator":                            {"a.pkl", p4 + "cbuiltins\niter\n](K\x01K\x02e\x85RK\x01b.", ""},
		"one of a range":                         {"a.pkl", p4 + "cbuiltins\niter\ncbuiltins\nrange\nK\x00K\x05K\x01\x87R\x85RK\x01b.", ""},
		"an iterator that calls":                 {"a.pkl", p4 + "cbuiltins\niter\ncbuiltins\nlist\nN\x86R.", "no plain container"},
		"an array":                               {"a.pkl", array("K\x02\x85", "f4", "U\x0812345678"), ""},
		"an array without its numbers":           {"a.pkl", array(huge+"\x85", "f4", "U\x0812345678"), "bomb"},
		"an array of a few more":                 {"a.pkl", array("M\x00\x02\x85", "f4", "U\x0812345678"), "bomb"},
		"objects without their values":           {"a.pkl", array(huge+"\x85", "O8", "](K\x01e"), "bomb"},
		"a shape that overflows":                 {"a.pkl", array(huge+huge+huge+"\x87", "f4", "U\x0812345678"), "bomb"},
		"a shape of a wide number":               {"a.pkl", array(wide+"\x85", "f4", "U\x0812345678"), "bomb"},
		"a reconstruction of a shape":            {"a.pkl", p2 + "cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\n" + huge + "\x85U\x01b\x87R.", "bomb"},
		"an array that is called":                {"a.pkl", p2 + "cnumpy\nndarray\n" + huge + "\x85\x85R.", "bomb"},
		"an array by NEWOBJ with strides":        {"a.pkl", p2 + "cnumpy\nndarray\n(" + huge + "\x85U\x02f4NK\x00K\x00\x85t\x81.", "bomb"},
		"a scalar without a value":               {"a.pkl", p2 + "cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nU\x0bV2000000000K\x00K\x01\x87R\x85R.", "without its value"},
		"a void of a length":                     {"a.pkl", p2 + "cnumpy\nvoid\n" + huge + "\x85R.", "bomb"},
		"a tensor of a length":                   {"a.pkl", p2 + "ctorch\nTensor\n" + huge + "\x85R.", "bomb"},
		"bytes of a wide number":                 {"a.pkl", p2 + "cbuiltins\nbytearray\n" + wide + "\x85R.", "bomb"},
		"bytes of a long number":                 {"a.pkl", p2 + "cbuiltins\nbytes\n" + long + "\x85R.", "bomb"},
		"bytes of a number that is made":         {"a.pkl", p2 + "cbuiltins\nbytearray\ncbuiltins\nint\nU\x0c100000000000\x85R\x85R.", "bomb"},
		"a fraction with an exponent":            {"a.pkl", p2 + "cfractions\nFraction\nU\x0b1e999999999\x85R.", "fraction"},
		"a table of a long index":                {"a.pkl", p2 + "cpandas.core.series\nSeries\n(K\x00tR.", "bomb"},
		"an index of a long range":               {"a.pkl", p2 + "cpandas.core.indexes.base\n_new_Index\ncpandas.core.indexes.base\nIndex\n}U\x04datacbuiltins\nrange\n" + huge + "\x85Rs\x86R.", "bomb"},
		"the same list copied again and again":   {"a.pkl", p2 + "](" + strings.Repeat("K\x01", 4000) + "eq\x000](" + strings.Repeat("cbuiltins\nlist\nh\x00\x85R", 40000) + "e.", "bomb"},
		"masked numbers of a shape":              {"a.pkl", p2 + "cnumpy.ma.core\n_mareconstruct\n(cnumpy.ma.core\nMaskedArray\ncnumpy\nndarray\n" + huge + "\x85U\x01btR.", "bomb"},
		"a tensor":                               {"a.pt", tensor("K\x04", "K\x00", "K\x02K\x02", "K\x02K\x01"), ""},
		"one that repeats a little":              {"a.pt", tensor("K\x01", "K\x00", "K\x09K\x09", "K\x00K\x00"), ""},
		"one that repeats without end":           {"a.pt", tensor("K\x01", "K\x00", huge+"K\x01", "K\x00K\x01"), "repeats"},
		"one outside of its storage":             {"a.pt", tensor("K\x04", "K\x01", "K\x02K\x02", "K\x02K\x01"), "outside"},
		"one of strides that overflow":           {"a.pt", tensor("K\x04", "K\x00", "K\x03", wide), "outside"},
		"strides that are computed":              {"a.pt", tensor("K\x04", "K\x00", "K\x02", "G\x00\x00\x00\x00\x00\x00\x00\x00"), "computes"},
		"joblib's array of nothing, without end": {"a.joblib", npArray("S0", 200, false) + ".", ""},
		"numbers of no width, without end":       {"a.npy", "\x93NUMPY\x01\x00\x4c\x00" + fmt.Sprintf("%-75s\n", "{'descr': '|S0', 'fortran_order': False, 'shape': (99999999999,), }"), "overflows"},
		"an array by a named shape":              {"a.pkl", p4 + "cnumpy\nndarray\n)}" + short("shape") + huge + "s\x92.", "by their names"},
		"an array by copyreg":                    {"a.pkl", p2 + "ccopyreg\n__newobj__\ncnumpy\nndarray\n" + huge + "\x85\x86R.", "bomb"},
		"bytes by copyreg":                       {"a.pkl", p2 + "ccopyreg\n_reconstructor\ncbuiltins\nbytes\ncbuiltins\nbytes\n" + huge + "\x87R.", "bomb"},
		"a state of an array that is none":       {"a.pkl", p2 + "cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R}b.", "numpy does not write"},
		"a tensor's type with a size":            {"a.pkl", p2 + "ctorch._tensor\n_rebuild_from_type_v2\n(ctorch._utils\n_rebuild_tensor_v2\nctorch\nTensor\n(NK\x00" + huge + "\x85K\x01\x85\x89}t}tR.", "computes"},
	} {
		t.Run(name, func(t *testing.T) {
			found := judge(t, c.file, []byte(c.content))
			if c.want == "" && len(found) > 0 {
				t.Errorf("refused: %+v", found)
			}
			for _, f := range found {
				if c.want != "" && strings.Contains(f.Detail, c.want) {
					return
				}
			}
			if c.want != "" {
				t.Errorf("got %+v, want a refusal that says %q", found, c.want)
			}
		})
	}
}
