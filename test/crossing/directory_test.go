package crossing_test

import (
	"os"
	"testing"

	"enisle/internal/crossing"
)

// A directory is one artifact with all files below it; a link in it is refused,
// and a changed file is a changed request.
func TestADirectoryIsOneArtifact(t *testing.T) {
	w := newWorld(t)
	w.must(os.MkdirAll(w.path("own/sub"), 0o755))
	w.must(os.WriteFile(w.path("own/a.txt"), []byte("a"), 0o600))
	w.must(os.WriteFile(w.path("own/sub/b.txt"), []byte("b"), 0o600))
	w.must(os.WriteFile(w.path("enisle.yaml"), []byte("name: test\nbring:\n  files: [ {path: own, as: files/own} ]\n"), 0o600))
	w.must(os.Symlink("/etc/passwd", w.path("own/sub/link")))
	_, err := w.app("low").Collect(t.Context(), w.path("enisle.yaml"), crossing.CollectOptions{})
	refused(t, err, "link is neither a file nor a directory")
	w.must(os.Remove(w.path("own/sub/link")))
	first := w.cross("one")
	w.must(os.WriteFile(w.path("own/sub/b.txt"), []byte("c"), 0o600))
	if second := w.cross("two"); second == first {
		t.Error("a changed file was not collected again")
	}
	served, err := w.app("high").Served(t.Context(), "stable")
	if err != nil || len(served) != 1 || len(served[0].Files) != 2 || served[0].Files[1].Path != "sub/b.txt" || served[0].Files[1].Size != 1 {
		t.Errorf("%+v, %v", served, err)
	}
}
