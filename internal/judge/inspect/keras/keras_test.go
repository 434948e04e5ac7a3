package keras

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
	"enisle/internal/judge/inspect/archive"
)

type blob struct{ *bytes.Reader }

func (blob) Close() error  { return nil }
func (b blob) Size() int64 { return b.Reader.Size() }

// look inspects one file and returns what is said of it, what refuses first.
func look(t testing.TB, kind, path string, content []byte) (said string, facts []inspect.Fact) {
	t.Helper()
	r := inspect.Runner{Scanners: []inspect.Scanner{archive.New(), New()}}
	a := artifact.Artifact{Ref: artifact.Ref{Kind: kind, Name: "m"}, Files: []artifact.File{{Path: path, Size: int64(len(content)), Digest: artifact.Sum(content)}}}
	rep, err := r.Inspect(context.Background(), []artifact.Artifact{a}, func(artifact.Digest) (inspect.Blob, error) { return blob{bytes.NewReader(content)}, nil }, func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	for _, sev := range []inspect.Severity{inspect.Refuse, inspect.Warn, inspect.Info} {
		for _, f := range rep.Of(sev) {
			said += fmt.Sprintf("%s %s %s: %s; ", f.Severity, f.Rule, f.File, f.Detail)
		}
	}
	return said, rep.Facts
}

func zipped(t testing.TB, name, content string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.CreateHeader(&zip.FileHeader{Name: name})
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

// layer is a model with one object in it.
func layer(object string) string {
	return `{"module":"keras","class_name":"Sequential","config":{"layers":[` + object + `]},"registered_name":null}`
}

func TestConfigurations(t *testing.T) {
	for name, tc := range map[string]struct{ object, want string }{
		"a layer":                         {`{"module":"keras.layers","class_name":"Dense","config":{"units":2,"activation":"relu"},"registered_name":null}`, ""},
		"a layer without its module":      {`{"class_name":"Dense","config":{}}`, ""},
		"a layer of Keras in TensorFlow":  {`{"module":"tf_keras.src.layers.core.dense","class_name":"Dense","config":{}}`, ""},
		"a model of Keras 2":              {`{"module":"keras.src.engine.functional","class_name":"Functional","config":{}}`, ""},
		"an operation":                    {`{"module":"keras.src.ops.numpy","class_name":"Add","config":{},"registered_name":"Add"}`, ""},
		"a tensor":                        {`{"class_name":"__keras_tensor__","config":{"shape":[1]}}`, ""},
		"an activation":                   {`{"module":"builtins","class_name":"function","config":"gelu","registered_name":"gelu"}`, ""},
		"a loss by its module":            {`{"module":"keras.src.losses.losses","class_name":"function","config":"mean_squared_error"}`, ""},
		"an operation of TensorFlow":      {`{"class_name":"TFOpLambda","config":{"function":"math.multiply"}}`, ""},
		"a vocabulary in the model":       {`{"module":"keras.layers","class_name":"StringLookup","config":{"vocabulary":["a","b"]}}`, ""},
		"a registered class":              {`{"module":null,"class_name":"MyLayer","config":{},"registered_name":"mine>MyLayer"}`, "warn custom-object"},
		"a registered class of old":       {`{"class_name":"mine>MyLayer","config":{}}`, "warn custom-object"},
		"a class that Keras has not":      {`{"class_name":"MyLayer","config":{}}`, "warn custom-object"},
		"a lambda":                        {`{"module":"keras.layers","class_name":"Lambda","config":{}}`, "refuse lambda"},
		"a lambda by its source module":   {`{"module":"keras.src.layers.core.lambda_layer","class_name":"Lambda","config":{}}`, "refuse lambda"},
		"a lambda, escaped":               {`{"module":"keras.layers","cl\u0061ss_name":"Lam\u0062da","config":{}}`, "refuse lambda"},
		"a lambda of a package":           {`{"class_name":"keras>Lambda","config":{}}`, "refuse lambda"},
		"a lambda of old":                 {`{"class_name":"Lambda","config":{"function":["4wEA",null,null],"function_type":"lambda"}}`, "refuse lambda"},
		"a lambda as a value":             {`{"module":"keras.layers","class_name":"Dense","config":{"activation":{"class_name":"__lambda__","config":{"value":"4wEA"}}}}`, "refuse lambda"},
		"a lambda without its class":      {`{"module":"keras.layers","class_name":"Dense","config":{"function_type":"lambda"}}`, "refuse lambda"},
		"a module of torch":               {`{"module":"keras.layers","class_name":"TorchModuleWrapper","config":{"module":"gASV"}}`, "refuse lambda"},
		"a layer of JAX":                  {`{"module":"keras.layers","class_name":"JaxLayer","config":{}}`, "refuse lambda"},
		"a layer of a saved model":        {`{"module":"keras.layers","class_name":"TFSMLayer","config":{"filepath":"/x"}}`, "refuse lambda"},
		"a type of any module":            {`{"class_name":"__typespec__","spec_name":"system","module":"os","config":[]}`, "refuse lambda"},
		"another module (CVE-2025-1550)":  {`{"module":"os","class_name":"function","config":"system","registered_name":"system"}`, "refuse function"},
		"a class of another module":       {`{"module":"subprocess","class_name":"Popen","config":{}}`, "refuse module"},
		"a function for a class":          {`{"module":"builtins","class_name":"eval","config":{}}`, "refuse class"},
		"builtins":                        {`{"module":"builtins","class_name":"function","config":"eval","registered_name":"eval"}`, "refuse function"},
		"a class of builtins":             {`{"module":"builtins","class_name":"Exception","config":{}}`, "refuse module"},
		"a download (CVE-2025-8747)":      {`{"module":"keras.utils","class_name":"function","config":"get_file"}`, "refuse function"},
		"a download as a class":           {`{"module":"keras.utils","class_name":"get_file","config":{}}`, "refuse class"},
		"a download by its source module": {`{"module":"keras.src.utils.file_utils","class_name":"function","config":"get_file"}`, "refuse function"},
		"a download by a dotted name":     {`{"module":"keras","class_name":"utils.get_file","config":{}}`, "refuse class"},
		"a dotted function":               {`{"module":"keras.activations","class_name":"function","config":"os.system"}`, "refuse function"},
		"safety off (CVE-2025-9906)":      {`{"module":"keras.config","class_name":"function","config":"enable_unsafe_deserialization"}`, "refuse function"},
		"safety off, of the root":         {`{"module":"keras","class_name":"enable_unsafe_deserialization","config":{}}`, "refuse class"},
		"a loader":                        {`{"module":"keras.models","class_name":"function","config":"load_model"}`, "refuse function"},
		"a loader among the functions":    {`{"module":"keras.activations","class_name":"function","config":"deserialize"}`, "refuse function"},
		"an operation that calls":         {`{"module":"keras.ops","class_name":"function","config":"map"}`, "refuse function"},
		"a class of the savers":           {`{"module":"keras.src.saving.saving_lib","class_name":"DiskIOStore","config":{}}`, "refuse module"},
		"a module that begins as Keras":   {`{"module":"keras_evil.layers","class_name":"Dense","config":{}}`, "refuse module"},
		"a module with a path in it":      {`{"module":"keras.layers/../os","class_name":"Dense","config":{}}`, "refuse module"},
		"a module in capitals":            {`{"module":"Keras.layers","class_name":"Dense","config":{}}`, "refuse module"},
		"a module that is no text":        {`{"module":["os"],"class_name":"Dense","config":{}}`, "refuse module"},
		"a class that is no text":         {`{"module":"keras.layers","class_name":["Lambda"],"config":{}}`, "refuse class"},
		"a module without a class":        {`{"module":"os","config":{}}`, "refuse module"},
		"deep in the arguments":           {`{"class_name":"Dense","config":{},"inbound_nodes":[{"args":[{"x":[{"module":"os","class_name":"X","config":{}}]}]}]}`, "refuse module"},
		"in what it is compiled with":     {`{"class_name":"Dense","config":{},"compile_config":{"loss":{"module":"os","class_name":"function","config":"system"}}}`, "refuse function"},
		"files by TensorFlow":             {`{"class_name":"TFOpLambda","config":{"function":"io.write_file"}}`, "refuse operation"},
		"Python by TensorFlow":            {`{"class_name":"TFOpLambda","config":{"function":"py_function"}}`, "refuse operation"},
		"raw operations of TensorFlow":    {`{"class_name":"TFOpLambda","config":{"function":"raw_ops.ReadFile"}}`, "refuse operation"},
		"a vocabulary from a path":        {`{"module":"keras.layers","class_name":"StringLookup","config":{"vocabulary":"/etc/passwd"}}`, "refuse path"},
		"a key that stands twice":         {`{"class_name":"Dense","class_name":"Lambda","config":{}}`, "refuse config"},
		"a number that JSON has not":      {`{"class_name":"Dense","config":{"x":NaN,"y":[-Infinity]}}`, ""},
		"no end":                          {`{"class_name":"Dense"`, "refuse config"},
	} {
		t.Run(name, func(t *testing.T) {
			for path, content := range map[string][]byte{
				"m.keras":           zipped(t, "config.json", layer(tc.object)),
				"architecture.json": []byte(layer(tc.object)),
				"architecture.txt":  []byte(" " + layer(tc.object)),
				"architecture":      []byte(`{"models":[` + layer(tc.object) + `]}`),
			} {
				said, facts := look(t, "model", path, content)
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

func TestOtherJSONIsLeftAlone(t *testing.T) {
	for _, content := range []string{`{"architectures":["X"]}`, `{"class_name":1}`, `[{"class_name":"Lambda"}]`, `{"a":"\u0061"}`, `{"a":1}{"b":2}`} {
		if said, facts := look(t, "model", "x.json", []byte(content)); said != "" || len(facts) > 0 {
			t.Errorf("%s: %s", content, said)
		}
	}
}

// A configuration in YAML, as Keras wrote it before 2.6, or as text in JSON.
func TestOtherForms(t *testing.T) {
	const lambda = "class_name: Sequential\nconfig:\n  layers:\n  - class_name: Lambda\n    module: null\n    config: {function_type: lambda}\n"
	for path, tc := range map[string]struct{ content, want string }{
		"a.yaml":    {lambda, "refuse lambda"},
		"a.txt":     {lambda, "refuse lambda"},
		"model":     {"x:\n  - " + strings.ReplaceAll(lambda, "\n", "\n    "), "refuse lambda"},
		"b.yaml":    {"class_name: Dense\nmodule: null\nconfig: {units: 1}\n", ""},
		"c.yml":     {"class_name: Dense\nmodule: os\nconfig: {units: 1}\n", "refuse module"},
		"text.json": {`"{\"class_name\":\"Lambda\",\"config\":{}}"`, "refuse lambda"},
		"d.txt":     {"class_name: [\n", "refuse config"},
		"card.md":   {lambda, ""},
	} {
		if said, _ := look(t, "model", path, []byte(tc.content)); tc.want == "" && said != "" || !strings.HasPrefix(said, tc.want) {
			t.Errorf("%s: %q, want %q", path, said, tc.want)
		}
	}
}

// What h5py and Keras wrote (test/corpus/hostile.py).
func TestHostileFilesOfTheRealLibraries(t *testing.T) {
	for file, want := range map[string]string{
		"lambda.keras":      "refuse lambda m.keras!config.json",
		"lambda.h5":         "refuse lambda",
		"lambda-long.h5":    "refuse lambda",
		"lambda-dense.h5":   "refuse lambda",
		"lambda-deep.h5":    "refuse lambda",
		"external-link.h5":  "refuse hdf5 m.h5: its structure cannot be followed: /: \"w\" is a link into another file",
		"soft-link.h5":      "refuse hdf5 m.h5: its structure cannot be followed: a link that is not",
		"external-data.h5":  "refuse hdf5 m.h5: its structure cannot be followed: /w: its data are in other files",
		"virtual.h5":        "refuse hdf5 m.h5: its structure cannot be followed: /w: a virtual dataset",
		"virtual-latest.h5": "refuse hdf5 m.h5: its structure cannot be followed: /w: a virtual dataset",
		"user-block.h5":     "refuse hdf5 m.h5: its structure cannot be followed: it does not begin",
		"many-links.h5":     "refuse hdf5 m.h5: its structure cannot be followed: /: \"group-00",
	} {
		b, err := os.ReadFile(filepath.Join("testdata", file))
		if err != nil {
			t.Fatal(err)
		}
		said, _ := look(t, "model", "m"+filepath.Ext(file), b)
		if !strings.HasPrefix(said, want) {
			t.Errorf("%s: %s", file, said)
		}
		if filepath.Ext(file) != ".h5" {
			continue
		}
		// Every cut and every junk is refused.
		for _, n := range []int{1, len(b) / 2, len(b) - 1} {
			if said, _ := look(t, "model", "m.h5", b[:n]); !strings.HasPrefix(said, "refuse hdf5") {
				t.Errorf("%s, %d bytes: %s", file, n, said)
			}
		}
		if said, _ := look(t, "model", "weights.bin", append(bytes.Clone(b), 0)); strings.HasPrefix(string(b), "\x89HDF") && !strings.HasPrefix(said, "refuse hdf5") {
			t.Errorf("%s and junk: %s", file, said)
		}
	}
}

func FuzzScan(f *testing.F) {
	files, err := filepath.Glob("testdata/*.h5")
	if err != nil || len(files) == 0 {
		f.Fatal(err, files)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		if len(b) < 12_000 { // longer ones take minutes to be made smaller
			f.Add(b)
		}
	}
	f.Add([]byte(layer(`{"class_name":"Lambda"}`)))
	f.Fuzz(func(t *testing.T, b []byte) {
		look(t, "model", "m.h5", b)
		look(t, "model", "m.json", b)
	})
}
