package crossing_test

import (
	"os"
	"slices"
	"testing"

	"enisle/internal/app"
	"enisle/internal/artifact"
)

// What is recalled is not served in any channel, nor released or rolled back to
// again; the rest is, and so is a corrected version.
func TestWhatIsRecalledIsNotServed(t *testing.T) {
	w := newWorld(t)
	id := w.cross("one")
	w.request("a second version", 400_000)
	w.cross("two")
	serves := func(name string) bool {
		t.Helper()
		all, err := w.app("high").Served(t.Context(), "stable")
		w.must(err)
		return slices.ContainsFunc(all, func(a artifact.Artifact) bool { return a.Ref.String() == name })
	}
	recall := func(by, ref, why string) (app.Recalled, error) {
		return w.as("high", by).Recall(t.Context(), ref, why)
	}
	_, err := w.app("high").Recall(t.Context(), "files/note.txt", "a bad note")
	if err == nil {
		t.Error("recalled by nobody")
	}
	if _, err := recall("alice", "files/none.txt", "a bad note"); err == nil {
		t.Error("recalled what is not here")
	}
	if _, err := recall("alice", "files/note.txt", ""); err == nil {
		t.Error("recalled without a reason")
	}
	out, err := recall("alice", "files/note.txt", "a bad note")
	w.must(err)
	if len(out.Shipments) != 2 || len(out.Releases) != 2 || !slices.Equal(out.Channels, []string{"stable"}) {
		t.Errorf("%+v", out)
	}
	if serves("files/note.txt") || !serves("files/big.bin") {
		t.Error("it is served, or what was not recalled is not")
	}
	_, err = w.app("high").Rollback(t.Context(), "stable", 1)
	w.must(err)
	if serves("files/note.txt") {
		t.Error("rolling back serves it again")
	}
	for _, ch := range []string{"stable", "candidate"} {
		_, err = w.app("high").Release(t.Context(), id, ch)
		if err == nil && ch == "candidate" {
			t.Error("it is released to another channel")
		}
	}
	w.request("a corrected version", 400_000)
	w.cross("three")
	if !serves("files/note.txt") {
		t.Error("the corrected version is not served")
	}
	all, err := w.app("high").Recalls(t.Context())
	if err != nil || len(all) != 2 || all[0].By != "alice" {
		t.Errorf("%+v, %v", all, err)
	}
	_, _, err = w.app("high").VerifyLedger(t.Context())
	w.must(err)
}

// The files of what was recalled are not released under another name either.
func TestRecalledFilesDoNotComeBackUnderAnotherName(t *testing.T) {
	w := newWorld(t)
	w.cross("one")
	_, err := w.as("high", "alice").Recall(t.Context(), "files/note.txt", "a bad note")
	w.must(err)
	w.must(copyFile(w.path("note.txt"), w.path("harmless.txt")))
	w.must(os.WriteFile(w.path("enisle.yaml"), []byte("name: again\nbring:\n  files: [ harmless.txt ]\n"), 0o600))
	id := w.pack("two", 0)
	_, err = w.importFrom("two")
	w.must(err)
	w.inspect(id)
	w.must(w.approve(id, "alice"))
	w.must(w.approve(id, "bob"))
	_, err = w.release(id)
	refused(t, err, "files/note.txt was recalled by alice")
}
