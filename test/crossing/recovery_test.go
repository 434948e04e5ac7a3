package crossing_test

import (
	"bytes"
	"os"
	"testing"

	"enisle/internal/app"
	"enisle/internal/fail"
)

// An island with a recovery key loses everything: the backup makes it again, with
// the same keys; where only the age key is lost, the recovery key opens shipments.
func TestAnIslandIsRestored(t *testing.T) {
	w := newWorld(t)
	w.must(os.RemoveAll(w.path("high")))
	w.must(os.RemoveAll(w.path("low")))
	to, err := app.KeygenRecovery(w.path("recovery.key"), "")
	w.must(err)
	_, err = w.app("high").Init(t.Context(), "high", "island", "standard", app.Secrets{Recovery: []string{to}})
	w.must(err)
	w.must(w.init("low", "low", "outside"))
	w.pair("high", "low")
	w.pair("low", "high")
	for _, name := range []string{"alice", "bob"} {
		w.must(w.enrol("high", name, "approver"))
	}
	first := w.cross("one")
	w.must(w.app("high").Backup(t.Context(), w.path("backup"), nil, true))
	before := snapshot(t, w.path("high"))
	w.must(os.RemoveAll(w.path("high")))

	// Neither another key nor a damaged or cut backup makes anything.
	_, err = app.KeygenRecovery(w.path("other.key"), "")
	w.must(err)
	refused(t, w.app("high").Restore(t.Context(), w.path("backup"), w.path("other.key")), "backup:")
	b, err := os.ReadFile(w.path("backup"))
	w.must(err)
	for _, change := range []func([]byte) []byte{
		func(b []byte) []byte { b[len(b)/2] ^= 1; return b },
		func(b []byte) []byte { return b[:len(b)-20] },
		func(b []byte) []byte { return b[:len(b)/3] },
	} {
		w.must(os.WriteFile(w.path("damaged"), change(bytes.Clone(b)), 0o600))
		if err := w.app("high").Restore(t.Context(), w.path("damaged"), w.path("recovery.key")); !fail.IsRefused(err) {
			t.Errorf("a damaged backup: %v", err)
		}
	}
	if _, err := os.Stat(w.path("high")); !os.IsNotExist(err) {
		t.Fatalf("something stands there: %v", err)
	}

	w.must(w.app("high").Restore(t.Context(), w.path("backup"), w.path("recovery.key")))
	after := snapshot(t, w.path("high"))
	for n, sum := range before {
		if got, ok := after[n]; !ok || got != sum && len(n) > 5 && n[:5] == "keys/" {
			t.Errorf("%s is not as it was", n)
		}
	}
	_, err = w.app("high").Check(t.Context(), true, func(string) {})
	w.must(err)
	if served, err := w.app("high").Served(t.Context(), "stable"); err != nil || len(served) == 0 {
		t.Errorf("serves %d, %v", len(served), err)
	}

	// The next shipment arrives; the site's own age key is gone, the safe's is not.
	w.request("another", 100)
	second := w.pack("two", 0)
	w.must(os.WriteFile(w.path("high/keys/age.key"), []byte("gone"), 0o600))
	if _, err := w.importFrom("two"); err == nil {
		t.Error("imported without a key")
	}
	out, err := w.app("high").ImportWith(t.Context(), w.path("recovery.key"), false, w.path("two"))
	if err != nil || out.ID != second || second == first {
		t.Errorf("%s: %v", out.ID, err)
	}
}
