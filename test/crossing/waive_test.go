package crossing_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/crossing"
	"enisle/internal/site/trust"
)

const reason = "looked at by hand: a fixture of a test"

// What two people waive is released, is part of what approvers sign, and ends.
func TestTwoPeopleWaive(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"olga", "ian"} {
		w.keygen(name)
	}
	w.must(w.enrol("high", "olga", trust.Officer))
	w.must(w.enrol("high", "ian", trust.Importer, trust.Approver))
	w.must(os.WriteFile(w.path("note.txt"), []byte("cos\nsystem\n(S'id'\ntR."), 0o600))
	w.must(os.Rename(w.path("note.txt"), w.path("note.pkl")))
	w.must(os.WriteFile(w.path("enisle.yaml"), []byte("name: test\nbring:\n  files: [ note.pkl ]\n"), 0o600))
	id := w.pack("media", 0)
	_, err := w.as("high", "ian").Import(t.Context(), w.path("media"))
	w.must(err)
	j, err := w.app("high").Inspect(t.Context(), id)
	w.must(err)
	if j.Decision.Allow {
		t.Fatal("a pickle that calls a shell passes")
	}
	refused(t, w.approve(id, "alice"), "rule refused-finding")
	opt := crossing.WaiveOptions{Rule: "refused-finding", Artifact: "files/note.pkl", Reason: reason, Days: 30}
	waive := func(name string, change func(*crossing.WaiveOptions)) (crossing.Waived, error) {
		o := opt
		change(&o)
		return w.as("high", name).Waive(t.Context(), id, o)
	}
	same := func(*crossing.WaiveOptions) {}
	for want, try := range map[string]func() (crossing.Waived, error){
		"packed or imported": func() (crossing.Waived, error) { return waive("ian", same) },
		"not enrolled as":    func() (crossing.Waived, error) { return waive("adam", same) },
		"none that can be": func() (crossing.Waived, error) {
			return waive("alice", func(o *crossing.WaiveOptions) { o.Rule = "malicious-package" })
		},
		"no more than 90": func() (crossing.Waived, error) { return waive("alice", func(o *crossing.WaiveOptions) { o.Days = 91 }) },
	} {
		_, err := try()
		refused(t, err, want)
	}
	for _, change := range []func(*crossing.WaiveOptions){
		func(o *crossing.WaiveOptions) { o.Reason = "ok" },
		func(o *crossing.WaiveOptions) { o.Artifact = "files/other.pkl" },
		func(o *crossing.WaiveOptions) { o.File = "other.pkl" },
	} {
		if _, err := waive("alice", change); err == nil {
			t.Error("waived what is not there, or without a reason")
		}
	}
	first, err := waive("alice", same)
	w.must(err)
	sign := func(name string) (crossing.Waived, error) {
		return w.as("high", name).SignWaiver(t.Context(), first.Digest)
	}
	refused(t, w.approve(id, "alice"), "rule refused-finding") // one person is not two
	_, err = sign("alice")
	refused(t, err, "one person counts once")
	_, err = sign("ian")
	refused(t, err, "packed or imported")
	_, err = w.as("high", "olga").SignWaiver(t.Context(), artifact.Sum(nil))
	if err == nil || !strings.Contains(err.Error(), "no waiver") {
		t.Errorf("%v", err)
	}
	second, err := sign("olga")
	if err != nil || second.Counts != "" || len(second.By) != 2 {
		t.Fatalf("%+v, %v", second, err)
	}
	r, err := w.app("high").Review(t.Context(), id, "stable")
	w.must(err)
	if len(r.Subject.Waivers) != 1 || r.Subject.Waivers[0] != string(first.Digest) || !r.Judged.Decision.Allow {
		t.Fatalf("%+v", r.Subject)
	}
	w.must(w.approve(id, "alice"))
	w.must(w.approve(id, "bob"))

	// It ends before the release: the approvals leaned on it.
	w.now = time.Now().AddDate(0, 0, 29)
	if r, err = w.app("high").Review(t.Context(), id, "stable"); err != nil || len(r.Approvals) != 2 {
		t.Fatalf("%v, %v", r.Approvals, err)
	}
	w.now = time.Now().AddDate(0, 0, 40)
	_, err = w.release(id)
	refused(t, err, "rule refused-finding")
	w.now = time.Time{}

	// Whoever is revoked waives nothing any more.
	keep := w.save()
	_, err = w.as("high", "adam").Revoke(t.Context(), "olga")
	w.must(err)
	_, err = w.as("high", "eve").SignRoot(t.Context(), "")
	w.must(err)
	_, err = w.release(id)
	refused(t, err, "rule refused-finding")
	w.restore(keep)
	_, err = w.release(id)
	w.must(err)
	all, err := w.app("high").Waivers(t.Context())
	if err != nil || len(all) != 1 || all[0].Reason != reason {
		t.Errorf("%+v, %v", all, err)
	}
	_, _, err = w.app("high").VerifyLedger(t.Context())
	w.must(err)
}
