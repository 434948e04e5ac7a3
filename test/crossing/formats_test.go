package crossing_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/judge/inspect"
)

// Models of every format that is read cross if the real libraries wrote them, and
// none that reaches out does: in the process that judges for real.
func TestModelsOfEveryFormat(t *testing.T) {
	w := newWorld(t)
	bring := func(files []string) {
		t.Helper()
		w.must(os.RemoveAll(w.path("m")))
		w.must(os.MkdirAll(w.path("m"), 0o755))
		for _, f := range files {
			b, err := os.ReadFile(f)
			w.must(err)
			w.must(os.WriteFile(w.path("m/"+filepath.Base(f)), b, 0o600))
		}
		w.must(os.WriteFile(w.path("enisle.yaml"), []byte("name: test\nbring:\n  files: [ {path: m, as: model/m} ]\n"), 0o600))
	}
	var honest []string
	for _, name := range []string{"l-plain.onnx", "l-keras-dense.keras", "k-keras-dense.h5", "l-skops-pipeline.skops", "m-dense.tflite", "m-frozen-dense.pb", "m-savedmodel-words.zip", "u-torchscript-script.pt"} {
		honest = append(honest, "../corpus/benign/"+name)
	}
	bring(honest)
	w.cross("one")

	hostile, err := filepath.Glob("../../internal/judge/inspect/*/testdata/*.*")
	w.must(err)
	bring(hostile)
	id := w.pack("two", 0)
	_, err = w.importFrom("two")
	w.must(err)
	j, err := w.app("high").Inspect(t.Context(), id)
	w.must(err)
	refused := map[string]bool{}
	for _, f := range j.Report.Of(inspect.Refuse) {
		name, _, _ := strings.Cut(f.File, "!")
		refused[name] = true
	}
	for _, f := range hostile {
		if !refused[filepath.Base(f)] {
			t.Errorf("%s passes", f)
		}
	}
	if j.Decision.Allow || len(hostile) < 25 {
		t.Errorf("allowed: %v, %d files", j.Decision.Allow, len(hostile))
	}
}
