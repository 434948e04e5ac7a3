package hdf5

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// files are what h5py wrote: honest ones of the corpus, by name.
func files(t testing.TB) map[string][]byte {
	t.Helper()
	names, err := filepath.Glob("../../../test/corpus/benign/*.h5")
	if err != nil || len(names) < 10 {
		t.Fatal(err, names)
	}
	out := map[string][]byte{}
	for _, n := range names {
		b, err := os.ReadFile(n)
		if err != nil {
			t.Fatal(err)
		}
		out[filepath.Base(n)] = b
	}
	return out
}

func TestEveryTextIsFound(t *testing.T) {
	for name, b := range files(t) {
		if !strings.Contains(name, "h5py-") {
			continue
		}
		texts := map[string]bool{}
		sum, err := Read(t.Context(), bytes.NewReader(b), int64(len(b)), func(a Attribute) error {
			for _, v := range a.Text {
				texts[a.Object+"@"+a.Name+"="+v] = true
			}
			return nil
		})
		if err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if sum.Groups != 41 || sum.Datasets != 3 || sum.Attributes != 100 {
			t.Errorf("%s: %+v", name, sum)
		}
		for _, want := range []string{"/layer_39@name=text 39", "/layer_7@many=ccc", "/@fact18=bytes"} {
			if !texts[want] {
				t.Errorf("%s: %q is missing", name, want)
			}
		}
	}
}

func TestCutAndChangedFilesEnd(t *testing.T) {
	for name, b := range files(t) {
		for n := 0; n < len(b); n += 1 + len(b)/50 {
			if _, err := Read(t.Context(), bytes.NewReader(b[:n]), int64(n), func(Attribute) error { return nil }); err == nil {
				t.Errorf("%s: %d of %d bytes are read", name, n, len(b))
			}
		}
		for n := 0; n < len(b); n += 1 + len(b)/200 {
			c := bytes.Clone(b)
			c[n] ^= 0xff
			_, _ = Read(t.Context(), bytes.NewReader(c), int64(len(c)), func(Attribute) error { return nil })
		}
	}
}

func FuzzRead(f *testing.F) {
	small, err := filepath.Glob("../../judge/inspect/keras/testdata/*.h5")
	if err != nil || len(small) == 0 {
		f.Fatal(err, small)
	}
	for _, name := range small {
		b, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		if len(b) < 12_000 { // longer ones take minutes to be made smaller
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		_, _ = Read(t.Context(), bytes.NewReader(b), int64(len(b)), func(Attribute) error { return nil })
	})
}
