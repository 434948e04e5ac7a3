package crossing_test

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"enisle/internal/site/ledger"
)

// moments is how often each verb is killed: few for every day, many to soak.
func moments() int {
	if os.Getenv("ENISLE_SOAK") != "" {
		return 50
	}
	return 8
}

// program builds the real program once for a test.
func program(t *testing.T) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), "enisle")
	if out, err := exec.Command("go", "build", "-o", bin, "enisle/cmd/enisle").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	return bin
}

// snapshot maps every file below a directory to the hash of its content.
func snapshot(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(p)
		rel, _ := filepath.Rel(dir, p)
		out[rel] = fmt.Sprintf("%x", sha256.Sum256(b))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func names(m map[string]string) []string { return slices.Sorted(maps.Keys(m)) }

// restore puts a copy of the sites, as they were, in the place of what is there.
func (w *world) restore(from string) {
	w.t.Helper()
	for _, d := range []string{"low", "high", "media"} {
		w.must(os.RemoveAll(w.path(d)))
		if _, err := os.Stat(filepath.Join(from, d)); err == nil {
			w.must(os.CopyFS(w.path(d), os.DirFS(filepath.Join(from, d))))
		}
	}
}

func (w *world) save() string {
	w.t.Helper()
	to := w.t.TempDir()
	for _, d := range []string{"low", "high", "media"} {
		if _, err := os.Stat(w.path(d)); err == nil {
			w.must(os.CopyFS(filepath.Join(to, d), os.DirFS(w.path(d))))
		}
	}
	return to
}

// Kill each verb at random moments over its undisturbed duration: the rerun
// finishes, keeps what was complete, and ends where an undisturbed run ends.
func TestKilledAtAnyMoment(t *testing.T) {
	bin := program(t)
	w := newWorld(t)
	w.request("killed", 48<<20)
	w.collect()
	rng := rand.New(rand.NewPCG(uint64(time.Now().UnixNano()), 1))
	id := ""
	for _, verb := range []string{"pack", "import", "release"} {
		args := map[string][]string{
			"pack":    {"-C", "low", "pack", "--to", "media", "--media", "12MB", "-q"},
			"import":  {"-C", "high", "import", "media", "-q"},
			"release": {"-C", "high", "release", id, "--channel", "stable", "-q"},
		}[verb]
		before := w.save()
		took := w.run(bin, args)
		want := w.save()
		t.Logf("%s takes %v undisturbed", verb, took)
		for n := range moments() {
			w.restore(before)
			moment := time.Duration(rng.Int64N(int64(took)))
			complete := w.killedAt(bin, args, moment)
			w.run(bin, args)
			w.compare(fmt.Sprintf("%s killed after %v (%d)", verb, moment, n), want, complete)
			if t.Failed() {
				return
			}
		}
		w.restore(before)
		w.run(bin, args)
		switch verb {
		case "pack":
			m, err := w.app("high").Verify(t.Context(), "", w.path("media"))
			w.must(err)
			id = m.Header.ID
		case "import":
			w.inspect(id)
			w.must(w.approve(id, "alice"))
			w.must(w.approve(id, "bob"))
		}
	}
}

func (w *world) run(bin string, args []string) time.Duration {
	w.t.Helper()
	cmd := exec.Command(bin, args...)
	cmd.Dir = w.dir
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		w.t.Fatalf("%v: %v: %s", args, err, out)
	}
	return time.Since(began)
}

// killedAt kills a run and returns the volumes that stood complete then.
func (w *world) killedAt(bin string, args []string, moment time.Duration) map[string]string {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), moment)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, args...) // killed by SIGKILL
	cmd.Dir = w.dir
	_ = cmd.Run() // that it was killed is the point
	if _, err := os.Stat(w.path("media")); err != nil {
		return nil
	}
	volumes := snapshot(w.t, w.path("media"))
	maps.DeleteFunc(volumes, func(n, _ string) bool { return !strings.HasSuffix(n, ".enisle") })
	return volumes
}

func (w *world) compare(what, want string, complete map[string]string) {
	w.t.Helper()
	media := snapshot(w.t, w.path("media"))
	for n, sum := range complete {
		if media[n] != sum {
			w.t.Errorf("%s: %s was complete and was written again", what, n)
		}
	}
	for _, dir := range []string{"low", "high", "media"} {
		got, ref := snapshot(w.t, w.path(dir)), snapshot(w.t, filepath.Join(want, dir))
		if !slices.Equal(names(got), names(ref)) {
			w.t.Errorf("%s: %s has other files than an undisturbed run:\n%v\n%v", what, dir, diff(got, ref), diff(ref, got))
		}
		for n, sum := range got {
			// Blobs, and so releases, are the same to the bit; they are named by digest.
			if h, ok := strings.CutPrefix(filepath.ToSlash(n), "blobs/sha256/"); ok && h != sum {
				w.t.Errorf("%s: blob %s is not what its name says", what, n)
			}
			if h, ok := strings.CutPrefix(filepath.ToSlash(n), "quarantine/sha256/"); ok && h != sum {
				w.t.Errorf("%s: blob %s is not what its name says", what, n)
			}
		}
	}
	for _, s := range []string{"low", "high"} {
		w.settled(what, s)
	}
}

func diff(a, b map[string]string) (out []string) {
	for _, n := range names(a) {
		if _, ok := b[n]; !ok {
			out = append(out, n)
		}
	}
	return out
}

// settled checks that the ledger is whole and every intent has an outcome.
func (w *world) settled(what, site string) {
	w.t.Helper()
	if _, _, err := w.app(site).VerifyLedger(w.t.Context()); err != nil {
		w.t.Errorf("%s: ledger of %s: %v", what, site, err)
	}
	open := map[int64]string{}
	w.must(w.app(site).Records(w.t.Context(), func(r ledger.Record) error {
		if r.Phase == ledger.Intent {
			open[r.Index] = r.Act
		} else {
			delete(open, *r.Intent)
		}
		return nil
	}))
	if len(open) != 0 {
		w.t.Errorf("%s: %s has open intents %v", what, site, open)
	}
}
