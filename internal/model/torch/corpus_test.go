package torch_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Of the corpus that the scanners are tried with, what torch wrote is read, or is
// refused for a reason that is known.
func TestTheCorpusIsReadOrRefusedByName(t *testing.T) {
	files, err := filepath.Glob("../../../test/corpus/benign/t-torch-*")
	if err != nil || len(files) < 38 {
		t.Fatalf("%d files, %v", len(files), err)
	}
	for _, f := range files {
		want := ""
		for part, why := range map[string]string{
			"-module-": "a module, whose code would be needed", "-quantised": "a quantised tensor", "-sparse": "a sparse tensor",
			"-ints": "a key of a dict is torch.dtype",
		} {
			if strings.Contains(filepath.Base(f), part) {
				want = why
			}
		}
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		c, err := read(t, b)
		switch {
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: %v, want %q", filepath.Base(f), err, want)
		case want == "" && err != nil:
			t.Errorf("%s: %v", filepath.Base(f), err)
		case want == "":
			check(t, c)
		}
	}
}
