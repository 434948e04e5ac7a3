package crossing_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"enisle/internal/carry/custody"
	"enisle/internal/crossing"
)

// happened signs an event of the medium as somebody.
func (w *world) happened(site, who, what string, change func(*crossing.CustodyOptions)) error {
	opt := crossing.CustodyOptions{Log: w.path("disc.jsonl"), What: what, Fields: custody.Fields{Place: "dock", Seal: "S-1"}}
	if change != nil {
		change(&opt)
	}
	_, err := w.as(site, who).AddCustody(w.t.Context(), opt)
	return err
}

// A medium is sealed outside, handed over, received and opened inside, and wiped:
// its log, which stands on the medium, tells it with real signatures of people of
// both sides. What does not fit is refused, and every changed bit.
func TestCustodyFromSealToWipe(t *testing.T) {
	w := newWorld(t)
	w.keygen("carol")
	w.must(w.enrol("low", "carol", "collector"))
	// Another alice, outside, is not the one inside.
	w.must(os.Rename(w.path("alice.key"), w.path("inside.key")))
	w.must(os.Rename(w.path("alice.key.pub"), w.path("inside.key.pub")))
	w.keygen("alice")
	w.must(w.enrol("low", "alice", "collector"))
	w.collect()
	packed, err := w.as("low", "carol").Pack(t.Context(), crossing.PackOptions{To: w.path("media")})
	w.must(err)
	first := func(o *crossing.CustodyOptions) { o.Shipment, o.Medium = packed.ID, "disc 1" }
	to := func(o *crossing.CustodyOptions) { o.To = "alice@island" }
	w.must(w.happened("low", "carol", custody.Sealed, first))
	w.must(w.happened("low", "carol", custody.Written, nil))
	w.must(w.happened("low", "carol", custody.HandedOver, to))
	refused(t, w.happened("low", "carol", custody.Opened, nil), "handed-over cannot be opened")
	refused(t, w.happened("low", "alice", custody.Received, nil), "alice@island has it, not alice@outside")
	for _, f := range []string{"alice.key", "alice.key.pub"} {
		w.must(os.Rename(w.path(strings.Replace(f, "alice", "inside", 1)), w.path(f)))
	}
	w.must(unix.Mkfifo(w.path("pipe"), 0o600))
	if _, err := w.app("low").Custody(t.Context(), w.path("pipe")); err == nil {
		t.Error("a pipe was read as a log")
	}
	log, err := os.ReadFile(w.path("disc.jsonl"))
	w.must(err)
	w.must(os.WriteFile(w.path("media/custody.jsonl"), log, 0o600))
	// The people outside are known inside once a shipment of theirs is here.
	_, err = w.app("high").Custody(t.Context(), w.path("disc.jsonl"))
	if err == nil || !strings.Contains(err.Error(), "nobody who is enrolled") {
		t.Errorf("before the import: %v", err)
	}
	out, err := w.app("high").Import(t.Context(), w.path("media"))
	w.must(err)
	if len(out.Ignored) != 1 {
		t.Errorf("ignored: %v", out.Ignored)
	}
	refused(t, w.happened("high", "bob", custody.Received, nil), "alice@island has it, not bob@island")
	refused(t, w.happened("high", "alice", custody.Received, func(o *crossing.CustodyOptions) { o.Fields.Seal = "S-2" }), "say in a note")
	w.must(w.happened("high", "alice", custody.Received, nil))
	w.must(w.happened("high", "alice", custody.Opened, nil))
	clean := custody.Sanitised{Method: "destroy", Technique: "shredded", Tool: "shredder 1", Verification: "seen", Validator: "bob"}
	w.must(w.happened("high", "alice", custody.Wiped, func(o *crossing.CustodyOptions) { o.Sanitised = &clean }))
	story, err := w.app("high").Custody(t.Context(), w.path("disc.jsonl"))
	w.must(err)
	if len(story.Events) != 6 || story.Shipment != packed.ID || !strings.Contains(crossing.Story(story), "shredded") {
		t.Errorf("%s", crossing.Story(story))
	}
	names, err := w.app("high").Labels(t.Context(), w.path("disc.jsonl"), w.path("labels"))
	w.must(err)
	for _, n := range names {
		if st, err := os.Stat(n); err != nil || st.Size() == 0 {
			t.Errorf("%s: %v", filepath.Base(n), err)
		}
	}

	// Every flipped bit of the log is noticed.
	log, err = os.ReadFile(w.path("disc.jsonl"))
	w.must(err)
	for at := 0; at < len(log); at += 23 {
		b := bytes.Clone(log)
		b[at] ^= 1
		w.must(os.WriteFile(w.path("disc.jsonl"), b, 0o600))
		if _, err := w.app("high").Custody(t.Context(), w.path("disc.jsonl")); err == nil {
			t.Fatalf("byte %d was changed, and nobody noticed", at)
		}
	}
}
