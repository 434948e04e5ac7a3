package interop

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// compareSafetensors holds each file against what torch said of its tensors, and
// writes it again, to the same bytes, where there is one word of metadata: the order
// of more is not defined.
const compareSafetensors = `
import hashlib, json, os, sys
import numpy as np
from safetensors import TensorSpec, safe_open, deserialize, serialize
outputs, expected = sys.argv[1:3]
kinds = {"F": "float", "I": "int", "U": "uint"}
alias = {"BOOL": "bool", "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "BF16": "bfloat16", "C64": "complex64"}
plain = ("F64", "F32", "F16", "I64", "I32", "I16", "I8", "U8", "BOOL")
equal = same = 0
for file, tensors in json.load(open(expected)).items():
    want = {t["name"]: t for t in tensors}
    got = os.path.join(outputs, file)
    raw = open(got, "rb").read()
    parts = dict(deserialize(raw))
    assert parts.keys() == want.keys(), (file, sorted(parts), sorted(want))
    for name, t in parts.items():
        w = want[name]
        assert t["dtype"] == w["type"] and list(t["shape"]) == w["shape"], (file, name, t["dtype"], t["shape"], w)
        assert hashlib.sha256(bytes(t["data"])).hexdigest() == w["sha256"], (file, name)
        equal += 1
    with safe_open(got, "np") as f:
        meta = f.metadata()
        assert meta["format"] == "pt" and set(f.keys()) == want.keys()
        for name, w in want.items():
            if w["type"] in plain:
                a = f.get_tensor(name)
                assert list(a.shape) == w["shape"] and hashlib.sha256(a.tobytes()).hexdigest() == w["sha256"], (file, name)
    if len(meta) == 1:
        spelled = lambda d: alias.get(d) or kinds[d[0]] + d[1:]
        held = {n: np.frombuffer(bytes(t["data"]) + b"\0", np.uint8) for n, t in parts.items()}
        again = bytes(serialize({n: TensorSpec(dtype=spelled(t["dtype"]), shape=t["shape"], data_ptr=held[n].ctypes.data, data_len=held[n].nbytes - 1)
                                 for n, t in parts.items()}, metadata=meta))
        assert again == raw, (file, "the reference implementation writes other bytes", raw[:400], again[:400])
        same += 1
print(equal, same)
`

// The reference implementation reads what we convert, with the bits that torch
// says, and writes the same file.
func TestConvertedFilesAreThoseOfTheReferenceImplementation(t *testing.T) {
	python := pythonWith(t, "safetensors.numpy", "safetensors==0.8.0", "numpy==2.3.5")
	const dir = "../../internal/model/torch/testdata"
	files, err := filepath.Glob(filepath.Join(dir, "t*-*.p*"))
	if err != nil || len(files) < 60 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	script := filepath.Join(t.TempDir(), "compare.py")
	if err := os.WriteFile(script, []byte(compareSafetensors), 0o600); err != nil {
		t.Fatal(err)
	}
	enisle := filepath.Join(t.TempDir(), "enisle")
	run(t, "", "go", "build", "-o", enisle, "enisle/cmd/enisle")
	outputs := t.TempDir()
	for _, file := range files {
		run(t, "", enisle, "convert", file, "--to", filepath.Join(outputs, filepath.Base(file)))
	}
	var equal, same int
	if _, err := fmt.Sscan(run(t, "", python, script, outputs, filepath.Join(dir, "expected.json")), &equal, &same); err != nil || equal < 400 || same < 40 {
		t.Errorf("%d tensors are equal, and %d files the same byte by byte: %v", equal, same, err)
	}
	t.Logf("%d tensors are equal, %d files the same byte by byte", equal, same)
}
