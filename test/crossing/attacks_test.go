package crossing_test

import (
	"bytes"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"enisle/internal/app"
	"enisle/internal/artifact"
	"enisle/internal/crossing"
	"enisle/internal/fail"
	"enisle/internal/site"
	"enisle/internal/site/state"
	"enisle/internal/site/trust"
)

func flip(t *testing.T, file string, at int64) {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if at < 0 {
		at += int64(len(b))
	}
	b[at] ^= 1
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestTamperedMediaAreRefused(t *testing.T) {
	w := newWorld(t)
	w.pack("other", 100_000)
	w.request("hello again", 310_000)
	w.pack("media", 100_000)
	for name, tc := range map[string]struct {
		do   func(dir string) error
		want string
	}{
		"a bit of a volume":            {func(d string) error { flip(t, d+"/volume-0002.enisle", 50_000); return nil }, "volume 2, frame 1"},
		"a bit of the bill":            {func(d string) error { flip(t, d+"/BILL.txt", 30); return nil }, "BILL.txt"},
		"a bit of the header":          {func(d string) error { flip(t, d+"/header.json", 3000); return nil }, "header"},
		"a bit of the signature":       {func(d string) error { flip(t, d+"/header.json", -20); return nil }, "header"},
		"a missing volume":             {func(d string) error { return os.Remove(d + "/volume-0003.enisle") }, "volume 3 of"},
		"a volume of another shipment": {func(d string) error { return copyFile(w.path("other/volume-0001.enisle"), d+"/volume-0001.enisle") }, "volume 1, frame"},
		"the header of another":        {func(d string) error { return copyFile(w.path("other/header.json"), d+"/header.json") }, "bill"},
		"a cut volume":                 {func(d string) error { return os.Truncate(d+"/volume-0001.enisle", 40_000) }, "volume 1, frame 1"},
		"an extra volume":              {func(d string) error { return copyFile(d+"/volume-0001.enisle", d+"/volume-0099.enisle") }, "extra"},
		"a link":                       {func(d string) error { return os.Symlink("/etc/passwd", d+"/volume-0098.enisle") }, "not a regular file"},
		"a pipe":                       {func(d string) error { return unix.Mkfifo(d+"/volume-0097.enisle", 0o600) }, "not a regular file"},
		"a device": {func(d string) error {
			err := unix.Mknod(d+"/volume-0096.enisle", unix.S_IFCHR|0o600, int(unix.Mkdev(1, 3)))
			if errors.Is(err, unix.EPERM) {
				return unix.Mkfifo(d+"/volume-0096.enisle", 0o600)
			}
			return err
		}, "not a regular file"},
		"names that differ in case": {func(d string) error { return copyFile(d+"/header.json", d+"/HEADER.json") }, "differ only in case"},
		"an unknown file":           {func(d string) error { return os.WriteFile(d+"/..x", nil, 0o600) }, "does not belong"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := errors.Join(os.CopyFS(dir, os.DirFS(w.path("media"))), tc.do(dir)); err != nil {
				t.Fatal(err)
			}
			_, err := w.app("high").Import(t.Context(), dir)
			refused(t, err, tc.want)
			_, err = w.app("high").Verify(t.Context(), "", dir)
			refused(t, err, tc.want)
			w.nothingHere()
		})
	}
	if _, err := w.importFrom("media"); err != nil {
		t.Errorf("after all that the good one: %v", err)
	}
}

// Every single flipped bit of a real shipment is refused: 2,000 random positions,
// every fourth of them in the header, which is small and full of text.
func TestEveryFlippedBitOfAShipmentIsRefused(t *testing.T) {
	w := newWorld(t)
	w.request("bits", 150_000)
	w.pack("media", 80_000)
	files, err := filepath.Glob(w.path("media/*"))
	if err != nil || len(files) < 4 {
		t.Fatalf("%v, %v", files, err)
	}
	rng := rand.New(rand.NewPCG(7, 8))
	content := map[string][]byte{}
	for _, f := range files {
		content[f], err = os.ReadFile(f)
		w.must(err)
	}
	for n := range 2000 {
		f := files[rng.IntN(len(files))]
		if n%4 == 0 {
			f = w.path("media/header.json")
		}
		b := bytes.Clone(content[f])
		at, bit := rng.IntN(len(b)), byte(1)<<rng.IntN(8)
		b[at] ^= bit
		w.must(os.WriteFile(f, b, 0o600))
		if _, err := w.app("high").Verify(t.Context(), "", w.path("media")); !fail.IsRefused(err) {
			t.Fatalf("%s, byte %d, bit %d: %v", filepath.Base(f), at, bit, err)
		}
		w.must(os.WriteFile(f, content[f], 0o600))
	}
	if _, err := w.app("high").Verify(t.Context(), "", w.path("media")); err != nil {
		t.Errorf("with every bit back: %v", err)
	}
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}

func TestOlderReplayedExpiredAndForeignShipmentsAreRefused(t *testing.T) {
	w := newWorld(t)
	w.pack("one", 0)
	w.request("second", 2000)
	w.pack("two", 0)
	_, err := w.importFrom("two")
	w.must(err)
	_, err = w.importFrom("one")
	refused(t, err, "replay")

	w.request("third", 3000)
	w.pack("three", 0)
	w.now = time.Now().AddDate(0, 4, 0)
	_, err = w.importFrom("three")
	refused(t, err, "expired")
	w.now = time.Now().Add(-time.Hour)
	_, err = w.importFrom("three")
	refused(t, err, "clock")
	w.now = time.Time{}

	w.must(w.init("elsewhere", trust.High, "elsewhere"))
	w.pair("low", "elsewhere")
	_, err = w.app("elsewhere").Import(t.Context(), w.path("three"))
	refused(t, err, "not for elsewhere")
	w.must(w.init("stranger", trust.High, "stranger"))
	_, err = w.app("stranger").Import(t.Context(), w.path("three"))
	refused(t, err, "not paired")
	_, err = w.importFrom("three")
	w.must(err)
}

func TestAMissedShipmentIsNoted(t *testing.T) {
	w := newWorld(t)
	w.pack("one", 0)
	_, err := w.importFrom("one")
	w.must(err)
	w.request("second", 2000)
	w.pack("two", 0)
	w.request("third", 3000)
	w.pack("three", 0)
	out, err := w.app("high").Import(t.Context(), w.path("three"))
	w.must(err)
	if len(out.Notes) != 1 || !strings.Contains(out.Notes[0], "2 to 2") {
		t.Errorf("notes %q, want the gap", out.Notes)
	}
}

// A shipment sealed by somebody who has the low site's place but not its key.
func TestAnUnknownSignatureIsRefused(t *testing.T) {
	w := newWorld(t)
	w.pack("media", 0)
	var e trust.Envelope
	b, err := os.ReadFile(w.path("media/header.json"))
	w.must(err)
	w.must(json.Unmarshal(b, &e))
	k, err := trust.GenerateKey()
	w.must(err)
	forged, err := trust.Sign(e.PayloadType, e.Payload, k)
	w.must(err)
	w.must(os.WriteFile(w.path("media/header.json"), forged, 0o600))
	_, err = w.importFrom("media")
	refused(t, err, "not known")
}

func TestEnrolmentEndsWithTheFirstImport(t *testing.T) {
	w := newWorld(t)
	w.must(copyFile(w.path("alice.key.pub"), w.path("mallory.key.pub")))
	refused(t, w.enrol("high", "mallory", trust.Approver), "one key is one person")
	w.pack("media", 0)
	id, err := w.importFrom("media")
	w.must(err)
	w.keygen("carol")
	refused(t, w.enrol("high", "carol", trust.Approver), "sealed")
	w.inspect(id)
	refused(t, w.approve(id, "carol"), "enrolled")

	// Two admins can still enrol; one cannot.
	_, err = w.as("high", "adam").AddPerson(t.Context(), "carol", []string{trust.Approver}, w.path("carol.key.pub"))
	w.must(err)
	refused(t, w.approve(id, "carol"), "enrolled")
	_, err = w.as("high", "adam").SignRoot(t.Context(), "")
	refused(t, err, "one person counts once")
	_, err = w.as("high", "alice").SignRoot(t.Context(), "")
	refused(t, err, "not enrolled as admin")
	_, err = w.as("high", "eve").SignRoot(t.Context(), artifact.Sum(nil))
	refused(t, err, "what would be signed")
	shown, err := w.app("high").ShowTrust(t.Context())
	w.must(err)
	if p := shown.Proposed; p == nil || len(p.Changes) != 1 || !strings.Contains(p.Changes[0], "enrol carol as approver") {
		t.Fatalf("the admins are shown %+v", p)
	}
	// Nobody slips another change under the one that waits.
	_, err = w.as("high", "adam").Revoke(t.Context(), "bob")
	refused(t, err, "another change is proposed")
	signed, err := w.as("high", "eve").SignRoot(t.Context(), shown.Proposed.Digest)
	if err != nil || signed.Missing != 0 {
		t.Fatalf("%d missing, %v", signed.Missing, err)
	}
	w.must(w.approve(id, "carol"))
}

// What somebody did stays provable after the person is gone, and a proposal can
// be taken back.
func TestRevokedPeopleStayInTheRecord(t *testing.T) {
	w := newWorld(t)
	w.keygen("carol")
	w.must(w.enrol("high", "carol", trust.Importer))
	// Before sealing, somebody acts with a key and is then revoked.
	_, err := w.as("high", "carol").SetPolicy(t.Context(), "strict")
	w.must(err)
	_, err = w.as("high", "adam").SetPolicy(t.Context(), "standard")
	w.must(err)
	_, err = w.app("high").Revoke(t.Context(), "carol")
	w.must(err)
	_, _, err = w.app("high").VerifyLedger(t.Context())
	w.must(err)
	w.pack("media", 0)
	_, err = w.importFrom("media")
	w.must(err)
	_, err = w.as("high", "adam").Revoke(t.Context(), "alice")
	w.must(err)
	refused(t, w.as("high", "bob").WithdrawRoot(t.Context()), "not enrolled as admin")
	w.must(w.as("high", "eve").WithdrawRoot(t.Context()))
	if err := w.as("high", "eve").WithdrawRoot(t.Context()); fail.KindOf(err) != fail.Usage {
		t.Errorf("withdrawing nothing: %v", err)
	}
	// Two admins are the least: nobody could change anything any more.
	_, err = w.as("high", "adam").Revoke(t.Context(), "eve")
	refused(t, err, "1 would be left as admin")
	w.keygen("dave")
	_, err = w.as("high", "adam").AddPerson(t.Context(), "dave", []string{trust.Admin}, w.path("dave.key.pub"))
	w.must(err)
	_, err = w.as("high", "eve").SignRoot(t.Context(), "")
	w.must(err)
	_, err = w.as("high", "adam").Revoke(t.Context(), "eve")
	w.must(err)
	_, err = w.as("high", "eve").SignRoot(t.Context(), "")
	w.must(err)
	_, _, err = w.app("high").VerifyLedger(t.Context())
	w.must(err)
	_, err = w.as("high", "eve").Revoke(t.Context(), "bob")
	refused(t, err, "nobody called \"eve\"")
}

func TestOnePersonIsNeverTwo(t *testing.T) {
	w := newWorld(t)
	id := w.pack("media", 0)
	_, err := w.importFrom("media")
	w.must(err)
	refused(t, w.approve(id, "alice"), "was not inspected")
	w.inspect(id)
	w.must(w.approve(id, "alice"))
	refused(t, w.approve(id, "alice"), "one person counts once")
	_, err = w.release(id)
	refused(t, err, "signature 2 of 2")
	stolen := w.as("high", "bob")
	stolen.KeyFile = w.path("alice.key")
	_, err = stolen.Decide(t.Context(), id, crossing.Approve, crossing.ApproveOptions{Channel: "stable"})
	refused(t, err, "not the one bob enrolled")
	refused(t, w.approve(id, "adam"), "not enrolled as approver")
	_, err = w.as("high", "bob").Decide(t.Context(), id, crossing.Approve, crossing.ApproveOptions{Channel: "stable", Expect: artifact.Sum(nil)})
	refused(t, err, "what would be signed")
	w.nothingReleased()
}

// Who imported stands in the ledger; the state cannot forget it.
func TestWhoImportedIsRecordedForGood(t *testing.T) {
	w := newWorld(t)
	w.keygen("carol")
	w.must(w.enrol("high", "carol", trust.Approver, trust.Importer))
	id := w.pack("media", 0)
	_, err := w.as("high", "carol").Import(t.Context(), w.path("media"))
	w.must(err)
	w.inspect(id)
	refused(t, w.approve(id, "carol"), "packed or imported")
	w.sql("UPDATE shipments SET importer = ''")
	refused(t, w.approve(id, "carol"), "packed or imported")
}

// sql changes the island's state behind its back.
func (w *world) sql(query string) {
	w.t.Helper()
	w.sqlAt("high", query)
}

func (w *world) sqlAt(site, query string) {
	w.t.Helper()
	db, err := sql.Open("sqlite", w.path(site, "state/state.db"))
	w.must(err)
	_, err = db.ExecContext(w.t.Context(), query)
	w.must(errors.Join(err, db.Close()))
}

func (w *world) nothingReleased() {
	w.t.Helper()
	if _, err := w.app("high").Served(w.t.Context(), "stable"); !errors.Is(err, crossing.ErrNoRelease) {
		w.t.Errorf("something is served: %v", err)
	}
}

// Whatever changes between signing and releasing voids the signatures.
func TestWhatChangesAfterSigningVoidsIt(t *testing.T) {
	for name, tc := range map[string]struct {
		do   func(w *world, id string)
		want string
	}{
		"a new report": {func(w *world, id string) { w.now = time.Now().Add(time.Minute); w.inspect(id) }, "signature 1 of 2"},
		"a revoked approver": {func(w *world, _ string) {
			_, err := w.as("high", "adam").Revoke(w.t.Context(), "bob")
			w.must(err)
			_, err = w.as("high", "eve").SignRoot(w.t.Context(), "")
			w.must(err)
		}, "signature 1 of 2"}, // the root is another: alice's signature is void too
		"time": {func(w *world, _ string) { w.now = time.Now().AddDate(0, 0, 31) }, "days old"},
		"a policy that is swapped": {func(w *world, _ string) {
			files, err := filepath.Glob(w.path("high/policies/*.yaml"))
			w.must(err)
			b, err := os.ReadFile(files[0])
			w.must(err)
			w.must(os.WriteFile(files[0], bytes.Replace(b, []byte("default: 2"), []byte("default: 3"), 1), 0o600))
		}, "policy"},
		"another policy in force": {func(w *world, _ string) {
			_, err := w.as("high", "adam").SetPolicy(w.t.Context(), "strict")
			w.must(err)
			_, err = w.as("high", "eve").SignRoot(w.t.Context(), "")
			w.must(err)
		}, "know who releases"},
		"content that is changed in quarantine": {func(w *world, _ string) {
			files, err := filepath.Glob(w.path("high/quarantine/sha256/*"))
			w.must(err)
			for _, f := range files {
				b, err := os.ReadFile(f)
				w.must(err)
				if len(b) > 100_000 {
					b[5] ^= 1
					w.must(os.WriteFile(f, b, 0o600))
				}
			}
		}, "damaged on disk"},
		"a rejection that the state forgot": {func(w *world, id string) {
			_, err := w.as("high", "alice").Decide(w.t.Context(), id, crossing.Reject, crossing.ApproveOptions{Channel: "stable"})
			w.must(err)
			w.sql("UPDATE shipments SET status = 'quarantined'")
		}, "rejected"},
		"another header in the state": {func(w *world, _ string) {
			w.sql("UPDATE shipments SET envelope = (SELECT envelope FROM approvals LIMIT 1)")
		}, "its header is another"},
		"a report that is swapped": {func(w *world, id string) { w.swapReport(id) }, "report"},
		"a rejection": {func(w *world, id string) {
			_, err := w.as("high", "alice").Decide(w.t.Context(), id, crossing.Reject, crossing.ApproveOptions{Channel: "stable"})
			w.must(err)
		}, "rejected"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			id := w.pack("media", 0)
			_, err := w.importFrom("media")
			w.must(err)
			w.inspect(id)
			w.must(w.approve(id, "alice"))
			w.must(w.approve(id, "bob"))
			tc.do(w, id)
			_, err = w.release(id)
			refused(t, err, tc.want)
		})
	}
}

func TestAnApprovalIsForOneChannel(t *testing.T) {
	w := newWorld(t)
	id := w.pack("media", 0)
	_, err := w.importFrom("media")
	w.must(err)
	w.inspect(id)
	w.must(w.approve(id, "alice"))
	w.must(w.approve(id, "bob"))
	_, err = w.app("high").Release(t.Context(), id, "candidate")
	refused(t, err, "signature 1 of 2")
	_, err = w.release(id)
	w.must(err)
}

// swapReport puts a report that the site did not sign in the place of its own.
func (w *world) swapReport(id string) {
	w.t.Helper()
	s, err := site.Open(w.t.Context(), w.path("high"), site.Options{})
	w.must(err)
	k, err := trust.GenerateKey()
	w.must(err)
	env, err := trust.Sign("application/vnd.enisle.report.v1+json", []byte(`{}`), k)
	w.must(err)
	d, err := s.Held.Put(env)
	w.must(err)
	w.must(s.State.Update(w.t.Context(), func(tx *state.Tx) error { return tx.AddReport(id, d, time.Now()) }))
	w.must(s.Close())
}

func TestWhoImportsDoesNotApprove(t *testing.T) {
	w := newWorld(t)
	w.keygen("carol")
	w.must(w.enrol("high", "carol", trust.Approver, trust.Importer))
	id := w.pack("media", 0)
	_, err := w.as("high", "carol").Import(t.Context(), w.path("media"))
	w.must(err)
	w.inspect(id)
	refused(t, w.approve(id, "carol"), "cannot approve")
}

func TestACollectorMustSealWhereThereAreSome(t *testing.T) {
	w := newWorld(t)
	w.keygen("carol")
	w.must(w.enrol("low", "carol", trust.Collector))
	w.collect()
	_, err := w.app("low").Pack(t.Context(), crossing.PackOptions{To: w.path("media")})
	refused(t, err, "collector")
	_, err = w.as("low", "carol").Pack(t.Context(), crossing.PackOptions{To: w.path("media")})
	w.must(err)
	_, err = w.importFrom("media")
	w.must(err)
}

func TestALedgerCutBackIsRefused(t *testing.T) {
	w := newWorld(t)
	old := t.TempDir()
	w.must(os.CopyFS(old, os.DirFS(w.path("high/ledger"))))
	w.cross("media")
	w.must(errors.Join(os.RemoveAll(w.path("high/ledger")), os.CopyFS(w.path("high/ledger"), os.DirFS(old))))
	_, _, err := w.app("high").VerifyLedger(t.Context())
	refused(t, err, "cut back")
	_, err = w.release("x")
	refused(t, err, "cut back")
	// Even with the database forgetting: the signed statements remember.
	db, err := state.Open(t.Context(), w.path("high/state/state.db"), false)
	w.must(err)
	head, err := os.ReadFile(filepath.Join(old, "checkpoint"))
	w.must(err)
	w.must(db.Update(t.Context(), func(tx *state.Tx) error { return tx.SetMeta("ledger.head", string(head)) }))
	w.must(db.Close())
	_, _, err = w.app("high").VerifyLedger(t.Context())
	refused(t, err, "cut back")
}

// A state that is gone or replaced does not let old shipments in again.
func TestAStateThatIsGoneIsRefused(t *testing.T) {
	w := newWorld(t)
	empty, err := os.ReadFile(w.path("high/state/state.db"))
	w.must(err)
	w.cross("media")
	w.must(os.Remove(w.path("high/state/state.db")))
	_, err = w.importFrom("media")
	refused(t, err, "state")
	_, err = w.app("high").Shipments(t.Context())
	refused(t, err, "state")
	if _, err := os.Stat(w.path("high/state/state.db")); err == nil {
		t.Error("a new state was made in its place")
	}
	db, err := state.Create(t.Context(), w.path("high/state/state.db"))
	w.must(errors.Join(err, db.Close()))
	_, err = w.importFrom("media")
	refused(t, err, "it was replaced")
	// An old copy knows an old head.
	w.must(os.WriteFile(w.path("high/state/state.db"), empty, 0o600))
	_, err = w.importFrom("media")
	refused(t, err, "it was cut back")
}

// A clock that was wrong for a while does not close a site for good.
func TestAdminsVouchForTheClock(t *testing.T) {
	w := newWorld(t)
	id := w.pack("media", 0)
	_, err := w.importFrom("media")
	w.must(err)
	sign := func(name string) error { _, err := w.as("high", name).SignRoot(t.Context(), ""); return err }
	clock := func(name string) error { _, err := w.as("high", name).SetClock(t.Context()); return err }
	works := func() error { _, err := w.app("high").Inspect(t.Context(), id); return err }
	now := time.Now()

	// Ten years ahead: nothing is done, and nothing bears that time.
	w.now = now.AddDate(10, 0, 0)
	refused(t, works(), "nothing vouches")
	w.now = time.Time{}
	if err := works(); err != nil {
		t.Errorf("with the clock right again: %v", err)
	}
	// One admin is not enough, and a proposal is not for ever.
	w.must(clock("adam"))
	w.now = now.AddDate(10, 0, 0)
	refused(t, works(), "nothing vouches")
	refused(t, sign("eve"), "the proposed time is")
	w.must(w.as("high", "eve").WithdrawRoot(t.Context()))
	// Both believe the wrong clock, and work under it.
	w.must(clock("adam"))
	refused(t, works(), "nothing vouches")
	w.must(sign("eve"))
	if err := works(); err != nil {
		t.Errorf("after both vouched: %v", err)
	}
	// The clock is put right: it stands before the newest record, until both say so.
	w.now = time.Time{}
	refused(t, works(), "newest record")
	w.must(clock("eve"))
	refused(t, works(), "newest record")
	w.must(sign("adam"))
	if err := works(); err != nil {
		t.Errorf("after both put it right: %v", err)
	}
	_, _, err = w.app("high").VerifyLedger(t.Context())
	w.must(err)
}

// A disk that fills up in the middle stops with exit 4 and loses nothing.
func TestAFullDiskIsResumed(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	w := newWorld(t)
	small := w.path("small")
	w.must(os.Mkdir(small, 0o700))
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=6m"); err != nil {
		t.Skipf("mounting a small file system is not allowed here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(small, 0) })
	w.must(errors.Join(os.CopyFS(small, os.DirFS(w.path("high")))))
	w.must(filepath.Walk(small, func(p string, fi os.FileInfo, err error) error {
		if err == nil && strings.HasSuffix(p, ".key") {
			err = os.Chmod(p, 0o600)
		}
		return err
	}))
	w.request("large", 20<<20)
	w.pack("media", 0)
	island := &app.App{Dir: small}
	_, err := island.Import(t.Context(), w.path("media"))
	if fail.ExitCode(err) != 4 {
		t.Fatalf("got %v (exit %d), want exit 4", err, fail.ExitCode(err))
	}
	w.must(unix.Mount("tmpfs", small, "tmpfs", unix.MS_REMOUNT, "size=64m"))
	if _, err := island.Import(t.Context(), w.path("media")); err != nil {
		t.Errorf("with room: %v", err)
	}
	if _, _, err := island.VerifyLedger(t.Context()); err != nil {
		t.Error(err)
	}
}

// A medium that does not keep what was written is found out before anybody
// signs that the shipment is good.
func TestAMediumThatLiesIsNotSealed(t *testing.T) {
	w := newWorld(t)
	w.collect()
	a := w.app("low")
	a.Progress = func(label string, _ int64) func(int64) {
		if label == "reading back" {
			w.flip("media/volume-0001.enisle", 100_000, 3)
		}
		return func(int64) {}
	}
	_, err := a.Pack(t.Context(), crossing.PackOptions{To: w.path("media"), ReadBack: true})
	refused(t, err, "volume 1, frame 1: damaged")
	if _, err := os.Stat(w.path("media/header.json")); err == nil {
		t.Error("it was sealed")
	}
	w.pack("another", 0)
	_, err = w.importFrom("another")
	w.must(err)
}

// flip changes one bit of a file.
func (w *world) flip(name string, at int64, bit int) {
	w.t.Helper()
	f, err := os.OpenFile(w.path(name), os.O_RDWR, 0)
	w.must(err)
	b := make([]byte, 1)
	_, err = f.ReadAt(b, at)
	w.must(err)
	b[0] ^= 1 << bit
	_, err = f.WriteAt(b, at)
	w.must(errors.Join(err, f.Close()))
}

// What cannot end is not begun.
func TestPreflight(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting a small file system needs root")
	}
	w := newWorld(t)
	small := w.path("small")
	w.must(os.Mkdir(small, 0o700))
	if err := unix.Mount("tmpfs", small, "tmpfs", 0, "size=6m"); err != nil {
		t.Skipf("mounting a small file system is not allowed here: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(small, 0) })
	w.request("large", 20<<20)
	w.collect()
	_, err := w.app("low").Pack(t.Context(), crossing.PackOptions{To: filepath.Join(small, "media")})
	if fail.ExitCode(err) != 4 || !strings.Contains(fmt.Sprint(err), "bytes are free") {
		t.Errorf("packing 20 MiB into 6: %v", err)
	}
	if files, err := filepath.Glob(filepath.Join(small, "media", "*")); err != nil || len(files) != 0 {
		t.Errorf("something was begun: %v, %v", files, err)
	}
	w.pack("media", 0)
	w.must(os.CopyFS(filepath.Join(small, "high"), os.DirFS(w.path("high"))))
	high := w.app("high")
	high.Dir = filepath.Join(small, "high")
	_, err = high.Import(t.Context(), w.path("media"))
	if fail.ExitCode(err) != 4 || !strings.Contains(fmt.Sprint(err), "bytes are free") {
		t.Errorf("importing 20 MiB into 6: %v", err)
	}
}
