package crossing_test

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"enisle/internal/fail"
	"enisle/internal/site/trust"
)

// Whoever is an approver or an admin outside is nobody inside, though the low
// root that says so crossed the gap under good signatures.
func TestALowRootGivesNoRoleInside(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"mallory", "trent"} {
		w.keygen(name)
		w.must(w.enrol("low", name, trust.Approver, trust.Admin, trust.Officer, trust.Importer))
	}
	id := w.pack("media", 0)
	_, err := w.importFrom("media")
	w.must(err)
	w.inspect(id)
	for _, name := range []string{"mallory", "trent"} {
		refused(t, w.approve(id, name), "nobody called")
		_, err := w.as("high", name).Revoke(t.Context(), "alice")
		refused(t, err, "nobody called")
	}
	_, err = w.release(id)
	refused(t, err, "signature 1 of 2")
	root, err := w.app("high").ShowTrust(t.Context())
	w.must(err)
	if len(root.Root.People) != 4 {
		t.Errorf("%d people are enrolled inside, want the four of before", len(root.Root.People))
	}
}

// A clock forty years ahead outside: the shipment is refused inside, and leaves no
// date there that would bar honest ones.
func TestAShipmentFromTheFutureIsRefused(t *testing.T) {
	w := newWorld(t)
	honest := w.pack("honest", 0)
	w.request("later", 2000)
	w.now = time.Now().AddDate(40, 0, 0)
	w.pack("later", 0)
	w.now = time.Time{}
	_, err := w.importFrom("later")
	refused(t, err, "clock")
	_, err = w.app("high").Verify(t.Context(), "", w.path("later"))
	refused(t, err, "clock")
	w.nothingHere()
	if got, err := w.importFrom("honest"); err != nil || got != honest {
		t.Errorf("the honest one after it: %q, %v", got, err)
	}
}

// What is exchanged on the medium while it is read is either not noticed, because
// what was opened is what is read, or refused; it is never taken.
func TestWhatIsExchangedWhileItIsReadIsNotTaken(t *testing.T) {
	w := newWorld(t)
	id := w.pack("media", 100_000)
	w.request("somebody else's", 310_000)
	w.pack("other", 100_000)
	w.must(os.CopyFS(w.path("again"), os.DirFS(w.path("media"))))
	for name, exchange := range map[string]func(file string) error{
		"renamed over": func(f string) error {
			b, err := os.ReadFile(w.path("other", f))
			return errors.Join(err, os.WriteFile(w.path("x"), b, 0o600), os.Rename(w.path("x"), w.path("media", f)))
		},
		"written over": func(f string) error { return copyFile(w.path("other", f), w.path("media", f)) },
		"cut to none":  func(f string) error { return os.Truncate(w.path("media", f), 0) },
		"taken away":   func(f string) error { return os.Remove(w.path("media", f)) },
	} {
		t.Run(name, func(t *testing.T) {
			w.must(os.RemoveAll(w.path("media")))
			w.must(os.CopyFS(w.path("media"), os.DirFS(w.path("again"))))
			high := w.app("high")
			exchanged := false
			high.Progress = func(string, int64) func(int64) {
				return func(int64) {
					if exchanged {
						return
					}
					exchanged = true
					for _, f := range []string{"volume-0002.enisle", "volume-0003.enisle", "header.json", "BILL.txt"} {
						w.must(exchange(f))
					}
				}
			}
			out, err := high.Import(t.Context(), w.path("media"))
			switch {
			case !exchanged:
				t.Error("nothing was exchanged")
			case err == nil && out.ID != id:
				t.Errorf("another shipment was taken: %s", out.ID)
			case err != nil && fail.ExitCode(err) != 3 && fail.ExitCode(err) != 4:
				t.Errorf("exit %d: %v", fail.ExitCode(err), err)
			case err != nil && !strings.Contains(err.Error(), "volume "):
				t.Errorf("names no volume: %v", err)
			}
		})
	}
	out, err := w.app("high").Import(t.Context(), w.path("again"))
	if err != nil || out.ID != id {
		t.Fatalf("the good one after it: %+v, %v", out, err)
	}
	w.inspect(id)
	w.must(w.approve(id, "alice"))
	w.must(w.approve(id, "bob"))
	_, err = w.release(id)
	w.must(err)
	_, err = w.app("high").Check(t.Context(), true, func(string) {})
	w.must(err)
}
