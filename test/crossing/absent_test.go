package crossing_test

import (
	"os"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/crossing"
	"enisle/internal/site"
)

// Why something is not served is known from the moment it arrives: it waits, it is in
// another channel, it was recalled and why. What was rejected was never here.
func TestWhySomethingIsNotServed(t *testing.T) {
	w := newWorld(t)
	w.cross("one")
	s, err := site.Open(t.Context(), w.path("high"), site.Options{ReadOnly: true, Released: true})
	w.must(err)
	t.Cleanup(func() { w.must(s.Close()) })
	stable, err := crossing.ServedBy(t.Context(), s, "stable")
	w.must(err)
	says := func(name, want string) {
		t.Helper()
		if got := stable.Why(t.Context(), artifact.Ref{Kind: "files", Name: name}); !strings.Contains(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	says("extra.txt", "it is not held here")
	says("../../etc/passwd", "it is not held here")
	says("big.bin", "is released here")

	w.must(os.WriteFile(w.path("extra.txt"), []byte("more"), 0o600))
	w.must(os.WriteFile(w.path("enisle.yaml"), []byte("name: more\nbring:\n  files: [ extra.txt ]\n"), 0o600))
	id := w.pack("two", 0)
	says("extra.txt", "it is not held here")
	_, err = w.importFrom("two")
	w.must(err)
	says("extra.txt", "extra.txt arrived with shipment "+id+" and waits for approval")
	says("EXTRA.txt", "waits for approval")
	says("*/none/extra.txt", "it is not held here")

	w.inspect(id)
	for _, name := range []string{"alice", "bob"} {
		_, err := w.as("high", name).Decide(t.Context(), id, crossing.Approve, crossing.ApproveOptions{Channel: "candidate"})
		w.must(err)
	}
	_, err = w.app("high").Release(t.Context(), id, "candidate")
	w.must(err)
	says("extra.txt", "extra.txt is released to the channel candidate only")

	_, err = w.as("high", "alice").Recall(t.Context(), "files/extra.txt", "it holds\r\nX-Evil: a flaw – see the list")
	w.must(err)
	says("extra.txt", "extra.txt was recalled by alice on 20")
	says("extra.txt", ": it holds  X-Evil: a flaw ? see the list")

	w.must(os.WriteFile(w.path("bad.txt"), []byte("bad"), 0o600))
	w.must(os.WriteFile(w.path("enisle.yaml"), []byte("name: bad\nbring:\n  files: [ bad.txt ]\n"), 0o600))
	id = w.pack("three", 0)
	_, err = w.importFrom("three")
	w.must(err)
	says("bad.txt", "waits for approval")
	w.inspect(id)
	_, err = w.as("high", "alice").Decide(t.Context(), id, crossing.Reject, crossing.ApproveOptions{Channel: "stable", Reason: "nobody knows it"})
	w.must(err)
	says("bad.txt", "it is not held here")
}
