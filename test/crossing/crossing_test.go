// Package crossing_test plays whole crossings between two sites: low, media,
// high. Attacks are edits of the media, of a site's files, or of the clock.
package crossing_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"enisle/internal/app"
	"enisle/internal/crossing"
	"enisle/internal/fail"
	"enisle/internal/site/trust"
)

// TestMain lets the confined children of the program run: they are this very
// binary, started with a hidden verb.
func TestMain(m *testing.M) {
	if done, err := app.Hidden(context.Background(), os.Args[1:]); done {
		if err == nil {
			os.Exit(0)
		}
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// world is two paired sites in one directory.
type world struct {
	t   *testing.T
	dir string
	now time.Time // zero: the real clock
}

// newWorld makes and pairs the sites and enrols alice, bob (approvers), adam
// and eve (admins) at the island.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, dir: t.TempDir()}
	w.must(w.init("low", trust.Low, "outside"))
	w.must(w.init("high", trust.High, "island"))
	w.pair("high", "low")
	w.pair("low", "high")
	for _, name := range []string{"alice", "bob", "adam", "eve"} {
		w.keygen(name)
		role := trust.Approver
		if name == "adam" || name == "eve" {
			role = trust.Admin
		}
		w.must(w.enrol("high", name, role))
	}
	w.request("hello", 300_000)
	return w
}

func (w *world) path(name ...string) string {
	return filepath.Join(append([]string{w.dir}, name...)...)
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) app(site string) *app.App {
	a := &app.App{Dir: w.path(site)}
	if !w.now.IsZero() {
		a.Now = func() time.Time { return w.now }
	}
	return a
}

func (w *world) as(site, name string) *app.App {
	a := w.app(site)
	a.As, a.KeyFile = name, w.path(name+".key")
	return a
}

func (w *world) init(dir, side, name string) error {
	_, err := w.app(dir).Init(w.t.Context(), side, name, "standard", app.Secrets{})
	return err
}

func (w *world) pair(from, to string) {
	w.t.Helper()
	id, b, err := w.app(from).Identity(w.t.Context())
	w.must(err)
	w.must(os.WriteFile(w.path(from+".id"), b, 0o600))
	_, err = w.app(to).Pair(w.t.Context(), w.path(from+".id"), id.Fingerprint())
	w.must(err)
}

func (w *world) keygen(name string) {
	w.t.Helper()
	_, err := app.Keygen(w.path(name+".key"), "")
	w.must(err)
}

func (w *world) enrol(site, name string, roles ...string) error {
	_, err := w.app(site).AddPerson(w.t.Context(), name, roles, w.path(name+".key.pub"))
	return err
}

// request asks for two files: a small one and one of n random bytes.
func (w *world) request(text string, n int) {
	w.t.Helper()
	b := make([]byte, n)
	rng := rand.NewChaCha8([32]byte{byte(n), byte(len(text))})
	_, _ = rng.Read(b)
	w.must(os.WriteFile(w.path("big.bin"), b, 0o600))
	w.must(os.WriteFile(w.path("note.txt"), []byte(text), 0o600))
	w.must(os.WriteFile(w.path("enisle.yaml"), []byte("name: test\nbring:\n  files: [ big.bin, note.txt ]\n"), 0o600))
}

func (w *world) collect() {
	w.t.Helper()
	_, err := w.app("low").Collect(w.t.Context(), w.path("enisle.yaml"), crossing.CollectOptions{})
	w.must(err)
}

func (w *world) pack(to string, volume int64) string {
	w.t.Helper()
	w.collect()
	out, err := w.app("low").Pack(w.t.Context(), crossing.PackOptions{To: w.path(to), VolumeSize: volume})
	w.must(err)
	return out.ID
}

func (w *world) importFrom(media string) (string, error) {
	out, err := w.app("high").Import(w.t.Context(), w.path(media))
	return out.ID, err
}

func (w *world) inspect(id string) {
	w.t.Helper()
	j, err := w.app("high").Inspect(w.t.Context(), id)
	w.must(err)
	if !j.Decision.Allow {
		w.t.Fatalf("the policy refuses: %v", j.Decision.Reasons)
	}
}

func (w *world) approve(id, name string) error {
	_, err := w.as("high", name).Decide(w.t.Context(), id, crossing.Approve, crossing.ApproveOptions{Channel: "stable"})
	return err
}

func (w *world) release(id string) (crossing.Released, error) {
	return w.app("high").Release(w.t.Context(), id, "stable")
}

// cross brings a shipment from collect to release.
func (w *world) cross(media string) string {
	w.t.Helper()
	id := w.pack(media, 0)
	_, err := w.importFrom(media)
	w.must(err)
	w.inspect(id)
	w.must(w.approve(id, "alice"))
	w.must(w.approve(id, "bob"))
	_, err = w.release(id)
	w.must(err)
	return id
}

// refused checks that err is a refusal with a hint, whose text holds want.
func refused(t *testing.T, err error, want string) {
	t.Helper()
	if !fail.IsRefused(err) || fail.ExitCode(err) != 3 || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want a refusal (exit 3) that says %q", err, want)
	}
	if fail.HintOf(err) == "" {
		t.Errorf("%v: gives no hint", err)
	}
	if err != nil && strings.Contains(err.Error(), "\n") {
		t.Errorf("%v: is not one sentence", err)
	}
}

// nothingHere checks that the island shows and serves nothing.
func (w *world) nothingHere() {
	w.t.Helper()
	rows, err := w.app("high").Shipments(w.t.Context())
	if err != nil || len(rows) != 0 {
		w.t.Errorf("%d shipments are shown, %v", len(rows), err)
	}
	if _, err := w.app("high").Served(w.t.Context(), "stable"); !errors.Is(err, crossing.ErrNoRelease) {
		w.t.Errorf("something is served: %v", err)
	}
}

func TestACrossing(t *testing.T) {
	w := newWorld(t)
	id := w.cross("media")
	served, err := w.app("high").Served(t.Context(), "stable")
	w.must(err)
	if len(served) != 2 || served[0].Ref.String() != "files/big.bin" {
		t.Errorf("served %v", served)
	}
	if again, err := w.importFrom("media"); err != nil || again != id {
		t.Errorf("the same shipment again: %q, %v", again, err)
	}
	out, err := w.release(id)
	if err != nil || !out.Already || out.Number != 1 {
		t.Errorf("release again: %+v, %v", out, err)
	}
	if _, _, err := w.app("high").VerifyLedger(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestRollbackAndForward(t *testing.T) {
	w := newWorld(t)
	w.cross("one")
	w.request("a new text", 1000)
	w.cross("two")
	names := func() string {
		served, err := w.app("high").Served(t.Context(), "stable")
		w.must(err)
		return fmt.Sprint(served[0].Files[0].Size)
	}
	if names() != "1000" {
		t.Errorf("after the second release: %s", names())
	}
	back, err := w.app("high").Rollback(t.Context(), "stable", 0)
	if err != nil || back.Number != 1 || names() != "300000" {
		t.Errorf("rolled back to %+v, %s, %v", back, names(), err)
	}
	forth, err := w.app("high").Rollback(t.Context(), "stable", 2)
	if err != nil || forth.Number != 2 || names() != "1000" {
		t.Errorf("and to %+v, %s, %v", forth, names(), err)
	}
	if _, err := w.app("high").Rollback(t.Context(), "stable", 9); fail.ExitCode(err) != 2 {
		t.Errorf("to a release that is not there: %v", err)
	}
}

// A channel goes back only to where it was, and only with what still stands.
func TestRollbackIsJudged(t *testing.T) {
	w := newWorld(t)
	first := w.cross("one")
	w.request("a new text", 1000)
	w.collect()
	second := w.pack("two", 0)
	_, err := w.importFrom("two")
	w.must(err)
	w.inspect(second)
	for _, who := range []string{"alice", "bob"} {
		_, err := w.as("high", who).Decide(t.Context(), second, crossing.Approve, crossing.ApproveOptions{Channel: "candidate"})
		w.must(err)
	}
	_, err = w.app("high").Release(t.Context(), second, "candidate")
	w.must(err)
	// What was approved for the other channel only does not come in by the back door.
	if _, err := w.app("high").Rollback(t.Context(), "stable", 2); fail.ExitCode(err) != 2 {
		t.Errorf("rolled to a release of another channel: %v", err)
	}
	w.must(w.approve(second, "alice"))
	w.must(w.approve(second, "bob"))
	_, err = w.release(second)
	w.must(err)
	_, err = w.app("high").Rollback(t.Context(), "stable", 0)
	w.must(err)
	// It turns out to be bad: nobody gets it again.
	_, err = w.as("high", "bob").Decide(t.Context(), second, crossing.Reject, crossing.ApproveOptions{Channel: "stable", Reason: "broken"})
	w.must(err)
	_, err = w.app("high").Rollback(t.Context(), "stable", 3)
	refused(t, err, "was rejected")
	_, err = w.release(second)
	refused(t, err, "was rejected")

	// An approver is revoked: what only they and one other approved needs two
	// people again before it is served anew.
	w.request("a third text", 2000)
	w.cross("three")
	w.keygen("carol")
	_, err = w.as("high", "adam").AddPerson(t.Context(), "carol", []string{trust.Approver}, w.path("carol.key.pub"))
	w.must(err)
	_, err = w.as("high", "eve").SignRoot(t.Context(), "")
	w.must(err)
	_, err = w.as("high", "adam").Revoke(t.Context(), "bob")
	w.must(err)
	_, err = w.as("high", "eve").SignRoot(t.Context(), "")
	w.must(err)
	_, err = w.app("high").Rollback(t.Context(), "stable", 1)
	refused(t, err, "signature 1 of 2")
	w.must(w.approve(first, "alice"))
	w.must(w.approve(first, "carol"))
	_, err = w.app("high").Rollback(t.Context(), "stable", 1)
	w.must(err)
}

func TestAnUnchangedRequestUsesTheLock(t *testing.T) {
	w := newWorld(t)
	w.collect()
	out, err := w.app("low").Collect(t.Context(), w.path("enisle.yaml"), crossing.CollectOptions{})
	if err != nil || !out.FromLock || out.Fetched != 0 {
		t.Errorf("%+v, %v", out, err)
	}
	w.must(os.WriteFile(w.path("note.txt"), []byte("changed"), 0o600))
	out, err = w.app("low").Collect(t.Context(), w.path("enisle.yaml"), crossing.CollectOptions{})
	if err != nil || out.FromLock {
		t.Errorf("a changed file: %+v, %v", out, err)
	}
}

func TestTheBillNamesNothingUnlessAsked(t *testing.T) {
	w := newWorld(t)
	w.pack("media", 0)
	out, err := w.app("low").Pack(t.Context(), crossing.PackOptions{To: w.path("clear"), ClearBOM: true})
	w.must(err)
	for media, want := range map[string]bool{"media": false, "clear": true} {
		all := ""
		files, _ := filepath.Glob(w.path(media) + "/*")
		for _, f := range files {
			b, err := os.ReadFile(f)
			w.must(err)
			all += string(b)
		}
		if strings.Contains(all, "note.txt") != want {
			t.Errorf("%s: names in clear text: want %v", media, want)
		}
		if !strings.Contains(all, "outside") || !strings.Contains(all, "island") {
			t.Errorf("%s: the bill names no sender or recipient", media)
		}
	}
	if out.Sequence != 2 {
		t.Errorf("sequence %d, want 2", out.Sequence)
	}
}
