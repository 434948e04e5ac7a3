package repo

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"context"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
	"enisle/internal/judge/inspect/archive"
	"enisle/internal/judge/inspect/pickle"
)

// inside inspects an archive of one member and returns what is said of it.
func inside(t *testing.T, path string, content []byte) (said []inspect.Finding) {
	t.Helper()
	r := inspect.Runner{Scanners: []inspect.Scanner{archive.New(), pickle.New(), New()}}
	a := artifact.Artifact{Ref: artifact.Ref{Kind: "model", Name: "m"}, Files: []artifact.File{{Path: path, Size: int64(len(content)), Digest: artifact.Sum(content)}}}
	rep, err := r.Inspect(context.Background(), []artifact.Artifact{a}, func(artifact.Digest) (inspect.Blob, error) { return blob{bytes.NewReader(content)}, nil }, func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	return append(rep.Of(inspect.Refuse), rep.Of(inspect.Warn)...)
}

func zipped(t *testing.T, name, content string) []byte {
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

func TestTorchScript(t *testing.T) {
	const code = "m/code/__torch__/net.py"
	call := func(body string) string {
		return "def forward(self, x: Tensor) -> Tensor:\n  " + body + "\n  return x\n"
	}
	for name, tc := range map[string]struct {
		member, content string
		want            inspect.Severity
	}{
		"what computes":                       {code, call("_0 = torch.relu(ops.quantized.linear(x, getattr(self, \"0\")))"), inspect.Warn},
		"an operator of another library":      {code, call("_0 = ops.mylib.thing(x)"), inspect.Refuse},
		"the same, spaced":                    {code, call("_0 = ops . \\\n mylib . thing(x)"), inspect.Refuse},
		"a word in a comment":                 {code, call("# saved"), inspect.Warn},
		"torch.save":                          {code, call(`torch.save(x, "f")`), inspect.Refuse},
		"torch.save, spaced":                  {code, call("torch . \\\n save (x)"), inspect.Refuse},
		"torch.save under another name":       {code, call("f = torch.save"), inspect.Refuse},
		"a file that torchvision reads":       {code, call(`x = ops.image.read_file("f")`), inspect.Refuse},
		"a file that torchaudio writes":       {code, call(`ops.torchaudio.sox_io_save_audio_file("f", x, 1)`), inspect.Refuse},
		"aten::save":                          {code, call(`ops.aten.save(x, "f")`), inspect.Refuse},
		"aten::save by its name":              {code, call(`getattr(torch, "save")(x, "f")`), inspect.Refuse},
		"aten::save by a name that is joined": {code, call(`getattr(torch, "sa" "ve")(x, "f")`), inspect.Refuse},
		"aten::from_file":                     {code, call(`_0 = torch.from_file("/etc/passwd")`), inspect.Refuse},
		"behind a text of many lines":         {code, call(`_0 = """a"b"""; torch.save(x, "")`), inspect.Refuse},
		"a call of Python":                    {code, call("_0 = ^f()(x)"), inspect.Refuse},
		"prim::PythonOp":                      {code, call("_0 = ops.prim.PythonOp(x)"), inspect.Refuse},
		"a remote call":                       {code, call("_0 = ops.prim.rpc_sync(x)"), inspect.Refuse},
		"a library":                           {code, call(`torch.ops.load_library("x.so")`), inspect.Refuse},
		"code for phones":                     {"m/bytecode.pkl", "\x80\x02X\x09\x00\x00\x00aten::add.", inspect.Warn},
		"code for phones that saves":          {"m/bytecode.pkl", "\x80\x02X\x0a\x00\x00\x00aten::save.", inspect.Refuse},
		"code for phones of another library":  {"m/bytecode.pkl", "\x80\x02X\x0a\x00\x00\x00mylib::add.", inspect.Refuse},
		"code outside of its own names":       {"m/code/other.py", "torch.save(x)", inspect.Refuse},
		"Python under its name":               {"m/__torch__.py", "import os\n", inspect.Refuse},
		"a class of its code":                 {"m/data.pkl", "c__torch__.net\nNet\n)\x81.", ""},
		"a class elsewhere":                   {"m/other.pkl", "c__torch__.net\nNet\n)\x81.", inspect.Refuse},
		"a class of another module":           {"m/data.pkl", "c__torch__x\nNet\n)\x81.", inspect.Refuse},
		"constants":                           {"m/constants.pkl", "\x80\x02(X\x01\x00\x00\x000Qt.", ""},
		"constants that run":                  {"m/constants.pkl", "cos\nsystem\n(X\x02\x00\x00\x00idtR.", inspect.Refuse},
	} {
		t.Run(name, func(t *testing.T) {
			got := inside(t, "m.pt", zipped(t, tc.member, tc.content))
			if tc.want == "" && len(got) > 0 || tc.want != "" && (len(got) == 0 || got[0].Severity != tc.want) {
				t.Errorf("%+v, want %s", got, tc.want)
			}
		})
	}
	if got := inside(t, "__torch__.py", []byte("import os\n")); len(got) != 1 || got[0].Severity != inspect.Refuse {
		t.Errorf("%+v", got)
	}
}

// An archive of NeMo is a tar, packed or not, and its configuration a member.
func TestNeMo(t *testing.T) {
	content := "encoder:\n  _target_: os.system\n"
	var plain, packed bytes.Buffer
	w := tar.NewWriter(&plain)
	if err := w.WriteHeader(&tar.Header{Name: "./model_config.yaml", Mode: 0o644, Size: int64(len(content))}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(content)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	z := gzip.NewWriter(&packed)
	if _, err := z.Write(plain.Bytes()); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	for _, b := range [][]byte{plain.Bytes(), packed.Bytes()} {
		if got := inside(t, "m.nemo", b); len(got) != 1 || got[0].Rule != "target" || got[0].Severity != inspect.Refuse {
			t.Errorf("%+v", got)
		}
	}
}
