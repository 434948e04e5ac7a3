package crossing_test

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"enisle/internal/crossing"
)

// stored counts the bytes of the island's blobs.
func (w *world) stored(dir string) (n int64) {
	w.t.Helper()
	names, err := filepath.Glob(w.path("high", dir, "sha256", "*"))
	w.must(err)
	for _, name := range names {
		st, err := os.Stat(name)
		w.must(err)
		n += st.Size()
	}
	return n
}

func TestGCKeepsWhatKeptReleasesNeed(t *testing.T) {
	w := newWorld(t)
	w.now = time.Now()
	w.cross("m1") // 300,000 bytes and a note
	for i, media := range []string{"m2", "m3", "m4"} {
		w.now = w.now.Add(2 * time.Hour)
		w.request("the same note", 400_000+i)
		w.cross(media)
	}
	w.now = w.now.Add(2 * time.Hour)
	w.request("what waits", 500_000)
	waiting := w.pack("m5", 0)
	_, err := w.importFrom("m5")
	w.must(err)
	w.request("what was rejected", 600_000)
	bad := w.pack("m6", 0)
	_, err = w.importFrom("m6")
	w.must(err)
	w.inspect(bad)
	_, err = w.as("high", "alice").Decide(t.Context(), bad, crossing.Reject, crossing.ApproveOptions{Channel: "stable", Reason: "not wanted"})
	w.must(err)

	gc := func(opt crossing.GCOptions) crossing.Collection {
		t.Helper()
		out, err := w.app("high").GC(t.Context(), opt)
		w.must(err)
		return out
	}
	before := w.stored("blobs")
	out := gc(crossing.GCOptions{Keep: 1, DryRun: true})
	if out.Files == 0 || w.stored("blobs") != before {
		t.Errorf("a dry run: %+v", out)
	}
	out = gc(crossing.GCOptions{Keep: 1})
	if !slices.Equal(out.Kept, []int64{3, 4}) || !slices.Equal(out.Dropped, []int64{1, 2}) {
		t.Errorf("%+v", out)
	}
	// 300,000 + note + 400,000 of the releases, 600,000 and a note that were rejected.
	if freed := before - w.stored("blobs"); freed < 700_000 || freed > 710_000 {
		t.Errorf("%d bytes were freed in the store", freed)
	}
	if n := w.stored("quarantine"); n < 500_000 || n > 520_000 {
		t.Errorf("%d bytes are in quarantine", n)
	}
	if again := gc(crossing.GCOptions{Keep: 1}); again.Files != 0 {
		t.Errorf("a second time: %+v", again)
	}
	// What is kept is whole, and served; what is not cannot be rolled back to.
	_, err = w.app("high").Rollback(t.Context(), "stable", 3)
	w.must(err)
	if bad, err := w.app("high").Check(t.Context(), true, func(string) {}); err != nil {
		t.Errorf("%+v, %v", bad, err)
	}
	_, err = w.app("high").Rollback(t.Context(), "stable", 1)
	refused(t, err, "not held whole")
	// What waits can be released; what was dropped comes back when it is imported again.
	w.inspect(waiting)
	w.must(w.approve(waiting, "alice"))
	w.must(w.approve(waiting, "bob"))
	_, err = w.release(waiting)
	w.must(err)
	_, err = w.importFrom("m1")
	w.must(err)
	_, err = w.app("high").Rollback(t.Context(), "stable", 1)
	w.must(err)
	_, err = w.as("high", "alice").Recall(t.Context(), "files/note.txt", "after a collection")
	w.must(err)
}

// What a channel left within the hour is kept, whatever is asked for.
func TestGCLeavesThoseWhoStillRead(t *testing.T) {
	w := newWorld(t)
	w.cross("m1")
	w.request("another", 400_000)
	w.cross("m2")
	out, err := w.app("high").GC(t.Context(), crossing.GCOptions{})
	if err != nil || out.Files != 0 || !slices.Equal(out.Kept, []int64{1, 2}) {
		t.Errorf("%+v, %v", out, err)
	}
}

func TestSoak(t *testing.T) {
	w := newWorld(t)
	w.now = time.Now()
	b, err := os.ReadFile("../../internal/judge/policy/standard.yaml")
	w.must(err)
	w.must(os.WriteFile(w.path("soak.yaml"), []byte(strings.Replace(string(b), "hours: 0 ", "hours: 24 ", 1)), 0o600))
	_, err = w.as("high", "adam").SetPolicy(t.Context(), w.path("soak.yaml"))
	w.must(err)
	id := w.pack("m1", 0)
	_, err = w.importFrom("m1")
	w.must(err)
	w.inspect(id)
	for _, name := range []string{"alice", "bob"} {
		for _, channel := range []string{"candidate", "stable"} {
			_, err := w.as("high", name).Decide(t.Context(), id, crossing.Approve, crossing.ApproveOptions{Channel: channel})
			w.must(err)
		}
	}
	_, err = w.release(id)
	refused(t, err, "it was not on the candidate channel; 24 hours are asked for")
	_, err = w.app("high").Release(t.Context(), id, "candidate")
	w.must(err)
	w.now = w.now.Add(23 * time.Hour)
	w.sql("UPDATE moves SET at = '2020-01-01T00:00:00Z'") // whoever may write the state says that it was there for years
	_, err = w.release(id)
	refused(t, err, "it was on the candidate channel for 23h0m0s")
	w.now = w.now.Add(time.Hour + time.Minute)
	out, err := w.release(id)
	if err != nil || out.Number == 0 {
		t.Errorf("%+v, %v", out, err)
	}
}

// For how long the candidate channel had something is what the record says, not the
// state: what was taken from it meanwhile begins again.
func TestSoakIsReadInTheRecord(t *testing.T) {
	w := newWorld(t)
	w.now = time.Now()
	b, err := os.ReadFile("../../internal/judge/policy/standard.yaml")
	w.must(err)
	w.must(os.WriteFile(w.path("soak.yaml"), []byte(strings.Replace(string(b), "hours: 0 ", "hours: 24 ", 1)), 0o600))
	_, err = w.as("high", "adam").SetPolicy(t.Context(), w.path("soak.yaml"))
	w.must(err)
	tried := func(media string) string {
		t.Helper()
		id := w.pack(media, 0)
		_, err := w.importFrom(media)
		w.must(err)
		w.inspect(id)
		for _, name := range []string{"alice", "bob"} {
			for _, channel := range []string{"candidate", "stable"} {
				_, err := w.as("high", name).Decide(t.Context(), id, crossing.Approve, crossing.ApproveOptions{Channel: channel})
				w.must(err)
			}
		}
		_, err = w.app("high").Release(t.Context(), id, "candidate")
		w.must(err)
		return id
	}
	first := tried("m1")
	w.request("another", 400_000)
	w.now = w.now.Add(time.Minute)
	second := tried("m2") // takes the place of the first
	w.now = w.now.Add(30 * time.Hour)
	w.sql("DELETE FROM moves WHERE release > 1")
	w.sql("UPDATE channels SET release = 1")
	_, err = w.release(first)
	refused(t, err, "was not on the candidate channel")
	_, err = w.release(second)
	refused(t, err, "was not on the candidate channel") // the state says that it is not
	w.sql("UPDATE channels SET release = 2")
	_, err = w.release(second)
	w.must(err)
}

// A shipment that was rejected may hold files whose content is that of a manifest or a
// list that a kept release needs: they are not taken with it.
func TestGCKeepsManifestsThatWereSentAsFiles(t *testing.T) {
	w := newWorld(t)
	w.cross("m1")
	names, err := filepath.Glob(w.path("high/blobs/sha256/*"))
	w.must(err)
	bring := []string{}
	for i, name := range names {
		if b := w.read(name); len(b) < 100_000 {
			file := "copy" + strconv.Itoa(i) + ".txt"
			w.must(os.WriteFile(w.path(file), b, 0o600))
			bring = append(bring, file)
		}
	}
	w.must(os.WriteFile(w.path("enisle.yaml"), []byte("name: copies\nbring:\n  files: [ "+strings.Join(bring, ", ")+" ]\n"), 0o600))
	bad := w.pack("m2", 0)
	_, err = w.importFrom("m2")
	w.must(err)
	_, err = w.app("high").Inspect(t.Context(), bad)
	w.must(err)
	_, err = w.as("high", "alice").Decide(t.Context(), bad, crossing.Reject, crossing.ApproveOptions{Channel: "stable", Reason: "not wanted"})
	w.must(err)
	_, err = w.app("high").GC(t.Context(), crossing.GCOptions{})
	w.must(err)
	if all, err := w.app("high").Served(t.Context(), "stable"); err != nil || len(all) != 2 {
		t.Errorf("%d artifacts are served: %v", len(all), err)
	}
	if _, err := w.app("high").Check(t.Context(), true, func(string) {}); err != nil {
		t.Error(err)
	}
}
