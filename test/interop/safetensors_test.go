package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/app"
)

// compareSafetensors holds the file against what torch said of its tensors, and
// writes it again: the bytes must be the same, but for the order of the metadata.
const compareSafetensors = `
import hashlib, json, struct, sys
from safetensors import safe_open, deserialize, serialize
got, file, expected = sys.argv[1:4]
want = {t["name"]: t for t in json.load(open(expected))[file]}
raw = open(got, "rb").read()
parts = dict(deserialize(raw))
assert parts.keys() == want.keys(), (sorted(parts), sorted(want))
for name, t in parts.items():
    w = want[name]
    assert t["dtype"] == w["type"] and list(t["shape"]) == w["shape"], (name, t["dtype"], t["shape"], w)
    assert hashlib.sha256(bytes(t["data"])).hexdigest() == w["sha256"], name
with safe_open(got, "np") as f:
    assert f.metadata()["format"] == "pt" and set(f.keys()) == want.keys()
    plain = [n for n, t in want.items() if t["type"] in ("F64", "F32", "F16", "I64", "I32", "I16", "I8", "U8", "BOOL")]
    for name in plain:
        a = f.get_tensor(name)
        assert list(a.shape) == want[name]["shape"]
        assert hashlib.sha256(a.tobytes()).hexdigest() == want[name]["sha256"], name
size = struct.unpack("<Q", raw[:8])[0]
names = [n for n in json.loads(raw[8:8 + size]) if n != "__metadata__"]
if len(f.metadata()) == 1:
    alias = {"BOOL": "bool", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "BF16": "bfloat16", "C64": "complex64"}
    kinds = {"F": "float", "I": "int", "U": "uint"}
    spelled = lambda d: alias.get(d) or kinds[d[0]] + d[1:]
    again = serialize({n: {"dtype": spelled(t["dtype"]), "shape": t["shape"], "data": bytes(t["data"])} for n, t in parts.items()}, {"format": "pt"})
    assert again == raw, "the reference implementation writes other bytes"
    print("same bytes")
print(len(parts), "tensors equal")
`

// The reference implementation reads what we convert, with the bits that torch
// says, and writes the same file.
func TestConvertedFilesAreThoseOfTheReferenceImplementation(t *testing.T) {
	python := pythonWith(t, "safetensors.numpy", "safetensors==0.7.0", "numpy==2.3.5")
	const dir = "../../internal/model/torch/testdata"
	files, err := filepath.Glob(filepath.Join(dir, "t*-*.p*"))
	if err != nil || len(files) < 60 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	script := filepath.Join(t.TempDir(), "compare.py")
	if err := os.WriteFile(script, []byte(compareSafetensors), 0o600); err != nil {
		t.Fatal(err)
	}
	same := 0
	for _, file := range files {
		out := filepath.Join(t.TempDir(), "out.safetensors")
		if _, err := (&app.App{}).Convert(t.Context(), app.ConvertOptions{In: file, Out: out}); err != nil {
			t.Errorf("%s: %v", filepath.Base(file), err)
			continue
		}
		said, err := exec.CommandContext(t.Context(), python, script, out, filepath.Base(file), filepath.Join(dir, "expected.json")).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v\n%s", filepath.Base(file), err, said)
		}
		same += strings.Count(string(said), "same bytes")
	}
	if same < 40 {
		t.Errorf("%d files are the same byte by byte, want 40 at least", same)
	}
}
