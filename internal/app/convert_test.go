package app

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/fail"
	"enisle/internal/model/safetensors"
)

const fixtures = "../model/torch/testdata"

// What comes out is read by the strict parser, and holds the bits that torch says.
func TestConvertedBitByBit(t *testing.T) {
	var all map[string][]struct {
		Name, Type, SHA256 string
		Shape              []uint64
	}
	b, err := os.ReadFile(filepath.Join(fixtures, "expected.json"))
	if err == nil {
		err = json.Unmarshal(b, &all)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"t24-types.pt", "t24-checkpoint.pt", "t24-checkpoint-legacy.pth", "t113-views-legacy.pth", "t215-new-types.pt", "t24-big-endian-4.pt", "t24-numpy.pt", "t24-one.pt"} {
		out := filepath.Join(t.TempDir(), "out.safetensors")
		got, err := (&App{}).Convert(t.Context(), ConvertOptions{In: filepath.Join(fixtures, file), Out: out})
		if err != nil {
			t.Errorf("%s: %v", file, err)
			continue
		}
		raw, err := os.ReadFile(out)
		if err != nil {
			t.Fatal(err)
		}
		h, err := safetensors.Read(t.Context(), bytes.NewReader(raw), int64(len(raw)))
		if err != nil {
			t.Fatalf("%s: %v", file, err)
		}
		sum := sha256.Sum256(raw)
		if want := "sha256:" + hex.EncodeToString(sum[:]); string(got.OutputDigest) != want || got.Size != int64(len(raw)) {
			t.Errorf("%s: %s of %d bytes, want %s of %d", file, got.OutputDigest, got.Size, want, len(raw))
		}
		if h.Meta["format"] != "pt" {
			t.Errorf("%s: metadata %v", file, h.Meta)
		}
		found := map[string]string{}
		for _, x := range h.Tensors {
			sum := sha256.Sum256(raw[h.DataStart+x.Begin : h.DataStart+x.End])
			found[x.Name] = x.Type + hex.EncodeToString(sum[:])
		}
		for _, w := range all[file] {
			if found[w.Name] != w.Type+w.SHA256 {
				t.Errorf("%s: %s is %s, want %s", file, w.Name, found[w.Name], w.Type+w.SHA256)
			}
		}
		if len(h.Tensors) != len(all[file]) {
			t.Errorf("%s: %d tensors, want %d", file, len(h.Tensors), len(all[file]))
		}
	}
}

func TestConvertOptions(t *testing.T) {
	dir := t.TempDir()
	out := filepath.Join(dir, "out.safetensors")
	in := filepath.Join(fixtures, "t24-checkpoint.pt")
	a := &App{}
	dry, err := a.Convert(t.Context(), ConvertOptions{In: in, DryRun: true})
	if err != nil || dry.Output != "" || len(dry.Tensors) < 10 || len(dry.LeftOut) == 0 {
		t.Fatalf("%+v, %v", dry, err)
	}
	got, err := a.Convert(t.Context(), ConvertOptions{In: in, Out: out, Key: "state_dict"})
	if err != nil || got.Elsewhere == 0 || got.Tensors[0].Name != "0.weight" || got.Output != out {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := a.Convert(t.Context(), ConvertOptions{In: in, Out: out}); !fail.IsRefused(err) || !strings.Contains(err.Error(), "exists") {
		t.Errorf("an existing file: %v", err)
	}
	if _, err := a.Convert(t.Context(), ConvertOptions{In: in, Out: out, Force: true}); err != nil {
		t.Errorf("by force: %v", err)
	}
	if _, err := a.Convert(t.Context(), ConvertOptions{In: out, Out: out, Force: true}); fail.KindOf(err) != fail.Usage {
		t.Errorf("onto itself: %v", err)
	}
	if _, err := a.Convert(t.Context(), ConvertOptions{In: in, Out: filepath.Join(dir, "none"), Key: "weights"}); !fail.IsRefused(err) || !strings.Contains(fail.HintOf(err), "state_dict") {
		t.Errorf("another key: %v, hint %s", err, fail.HintOf(err))
	}
	only(t, dir, "out.safetensors")
}

// What the scanners refuse is never converted, nor what only they let pass; and
// nothing is left behind.
func TestConvertRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, tc := range map[string]struct {
		file func(*testing.T, string)
		want string
	}{
		"evil.pt":      {archived(t, "\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R."), "would import posix.system"},
		"evil.bin":     {written("\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R."), "would import posix.system"},
		"empty.pth":    {written(""), ""},
		"scalars.pt":   {archived(t, "\x80\x02}X\x01\x00\x00\x00aK\x01s."), "it holds no tensor"},
		"namespace.pt": {archived(t, "\x80\x02cargparse\nNamespace\n)\x81}b."), "argparse.Namespace"},
		"module.pt":    {copied("../../test/corpus/benign/t-torch-module-GRU.pt"), "torch.nn.modules.rnn.GRU"},
		"sparse.pt":    {copied("../../test/corpus/benign/t-torch-sparse.pt"), "sparse"},
		"quantised.pt": {copied("../../test/corpus/benign/t-torch-quantised.pt"), "quantised"},
	} {
		in := filepath.Join(t.TempDir(), name)
		tc.file(t, in)
		_, err := (&App{}).Convert(t.Context(), ConvertOptions{In: in, Out: filepath.Join(dir, "out.safetensors")})
		if !fail.IsRefused(err) || !strings.Contains(err.Error(), tc.want) || fail.HintOf(err) == "" {
			t.Errorf("%s: %v, hint %q, want %q", name, err, fail.HintOf(err), tc.want)
		}
	}
	only(t, dir)
}

func written(content string) func(*testing.T, string) {
	return func(t *testing.T, name string) {
		t.Helper()
		if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func copied(from string) func(*testing.T, string) {
	return func(t *testing.T, name string) {
		t.Helper()
		b, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		written(string(b))(t, name)
	}
}

func archived(t *testing.T, pickle string) func(*testing.T, string) {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	f, err := w.CreateHeader(&zip.FileHeader{Name: "archive/data.pkl"})
	if err == nil {
		_, err = io.WriteString(f, pickle)
	}
	if err != nil || w.Close() != nil {
		t.Fatal(err)
	}
	return written(b.String())
}

// only checks that a directory holds these files and no other.
func only(t *testing.T, dir string, want ...string) {
	t.Helper()
	var got []string
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("the directory holds %v, want %v", got, want)
	}
}
