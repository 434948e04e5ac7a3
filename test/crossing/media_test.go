package crossing_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/fail"
	"enisle/internal/site/store"
)

// discs packs a shipment of several volumes and puts each on a medium of its own,
// with header and bill.
func (w *world) discs(large int, volume int64) (dirs []string) {
	w.t.Helper()
	w.request("many discs", large)
	w.collect()
	w.pack("all", volume)
	return w.spread("all")
}

// imported checks that everything arrived whole, and nothing else.
func (w *world) imported(id string) {
	w.t.Helper()
	w.inspect(id)
	w.must(w.approve(id, "alice"))
	w.must(w.approve(id, "bob"))
	_, err := w.release(id)
	w.must(err)
	_, err = w.app("high").Check(w.t.Context(), true, func(string) {})
	w.must(err)
	left, err := filepath.Glob(w.path("high/quarantine/*/*"))
	if err != nil || len(left) != 0 {
		w.t.Errorf("left in quarantine: %v, %v", left, err)
	}
}

// Volumes come from several drives at the same time.
func TestSeveralDrives(t *testing.T) {
	w := newWorld(t)
	dirs := w.discs(20<<20, 3<<20)
	if len(dirs) < 5 {
		t.Fatalf("%d discs", len(dirs))
	}
	if _, err := w.app("high").Verify(t.Context(), "", dirs...); err != nil {
		t.Error(err)
	}
	out, err := w.app("high").Import(t.Context(), dirs...)
	w.must(err)
	w.imported(out.ID)
}

// Volumes come one after the other, in any order, a large blob in its pieces.
func TestOneDiscAfterTheOther(t *testing.T) {
	for _, order := range []string{"forth", "back", "shuffled"} {
		t.Run(order, func(t *testing.T) {
			w := newWorld(t)
			dirs := w.discs(20<<20, 3<<20)
			_, err := w.app("high").Import(t.Context(), dirs[0])
			refused(t, err, fmt.Sprintf("volume 2 of %d is missing", len(dirs)))
			w.nothingHere()
			at := rand.Perm(len(dirs))
			for i := range at {
				switch order {
				case "forth":
					at[i] = i
				case "back":
					at[i] = len(dirs) - 1 - i
				}
			}
			for i, n := range at[:len(at)-1] {
				out, err := w.app("high").ImportMore(t.Context(), dirs[n])
				if fail.ExitCode(err) != 4 || len(out.Missing) != len(dirs)-1-i {
					t.Fatalf("disc %d: %+v, %v", n+1, out, err)
				}
				w.nothingHere()
			}
			// The same disc again brings nothing new, and loses nothing.
			if _, err := w.app("high").ImportMore(t.Context(), dirs[at[0]]); fail.ExitCode(err) != 4 {
				t.Fatal(err)
			}
			out, err := w.app("high").Import(t.Context(), dirs[at[len(at)-1]])
			w.must(err)
			w.imported(out.ID)
		})
	}
}

// A damaged disc is named; when it was copied again the import goes on.
func TestADamagedDiscIsNamed(t *testing.T) {
	w := newWorld(t)
	dirs := w.discs(20<<20, 3<<20)
	name := filepath.Join("disc3", "volume-0003.enisle")
	w.flip(name, 1<<20, 2)
	_, err := w.app("high").Import(t.Context(), dirs...)
	refused(t, err, "volume 3, frame 1: damaged")
	w.nothingHere()
	w.flip(name, 1<<20, 2)
	out, err := w.app("high").Import(t.Context(), dirs...)
	w.must(err)
	w.imported(out.ID)
}

// Media of two shipments are not mixed.
func TestDiscsOfTwoShipmentsAreNotMixed(t *testing.T) {
	w := newWorld(t)
	dirs := w.discs(10<<20, 3<<20)
	w.pack("again", 3<<20)
	_, err := w.app("high").Import(t.Context(), append(dirs, w.path("again"))...)
	refused(t, err, "differs from one medium to another")
	// A volume under a good header.
	b, err := os.ReadFile(w.path("again/volume-0002.enisle"))
	w.must(err)
	w.must(os.WriteFile(filepath.Join(dirs[1], "volume-0002.enisle"), b, 0o600))
	_, err = w.app("high").Import(t.Context(), dirs...)
	refused(t, err, "volume 2")
	w.nothingHere()
}

// A blob that nobody asked for does not come in with the first disc of all.
func TestStrangersOnALaterDiscAreRefused(t *testing.T) {
	w := newWorld(t)
	w.request("x", 10)
	hi := []byte("hi")
	a := artifact.Artifact{Ref: artifact.Ref{Kind: "files", Name: "x"}, Files: []artifact.File{{Path: "x", Size: 2, Digest: artifact.Sum(hi)}}}
	m, err := store.EncodeManifest(a)
	w.must(err)
	ix, err := store.EncodeIndex("x", []store.Entry{{Ref: a.Ref, Manifest: artifact.Sum(m), Size: int64(len(m))}})
	w.must(err)
	w.forgeVolumes("media", 512<<10, ix, m, store.EmptyConfig(), hi, bytes.Repeat([]byte("stowaway"), 120_000))
	files, err := filepath.Glob(w.path("media/volume-*"))
	w.must(err)
	if len(files) < 2 {
		t.Fatalf("%d volumes", len(files))
	}
	var dirs []string
	for i, f := range files {
		dir := w.path(fmt.Sprintf("d%d", i))
		w.must(os.Mkdir(dir, 0o755))
		for _, name := range []string{"header.json", "BILL.txt"} {
			b, err := os.ReadFile(w.path("media", name))
			w.must(err)
			w.must(os.WriteFile(filepath.Join(dir, name), b, 0o600))
		}
		w.must(os.Rename(f, filepath.Join(dir, filepath.Base(f))))
		dirs = append(dirs, dir)
	}
	last := len(dirs) - 1
	for i := last; i > 0; i-- {
		if _, err := w.app("high").ImportMore(t.Context(), dirs[i]); fail.ExitCode(err) != 4 {
			t.Fatalf("disc %d: %v", i, err)
		}
	}
	_, err = w.app("high").Import(t.Context(), dirs[0])
	refused(t, err, "not part of the signed content")
	w.nothingHere()
}
