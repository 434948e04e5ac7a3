package crossing_test

import (
	"archive/tar"
	"archive/zip"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"enisle/internal/crossing"
	"enisle/internal/judge/inspect"
	"enisle/internal/judge/policy"
	"enisle/internal/judge/vuln/vulntest"
	"enisle/internal/site/trust"
)

// layer writes a tar that is a layer of Debian 12 with openssl of a version.
func (w *world) layer(version string) {
	w.t.Helper()
	f, err := os.Create(w.path("layer.tar"))
	w.must(err)
	t := tar.NewWriter(f)
	for name, text := range map[string]string{
		"etc/os-release":      "ID=debian\nVERSION_ID=\"12\"\n",
		"var/lib/dpkg/status": "Package: libssl3\nStatus: install ok installed\nSource: openssl\nVersion: " + version + "\nArchitecture: amd64\n",
	} {
		w.must(t.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(text)), Typeflag: tar.TypeReg}))
		_, err = t.Write([]byte(text))
		w.must(err)
	}
	w.must(t.Close())
	w.must(f.Close())
}

// osv writes an export of Debian: n advisories that are about nothing here, and
// those given.
func (w *world) osv(n int, modified time.Time, advisories ...map[string]any) {
	w.t.Helper()
	w.must(os.RemoveAll(w.path("osv")))
	w.must(os.MkdirAll(w.path("osv", "Debian"), 0o755))
	f, err := os.Create(w.path("osv", "Debian", "all.zip"))
	w.must(err)
	z := zip.NewWriter(f)
	for i := range n {
		advisories = append(advisories, advisory(fmt.Sprintf("DSA-%d-1", 1000+i), "Debian:12", fmt.Sprint("other", i), "9", 5))
	}
	for _, a := range advisories {
		a["modified"] = modified
		e, err := z.Create(a["id"].(string) + ".json")
		w.must(err)
		w.must(json.NewEncoder(e).Encode(a))
	}
	w.must(z.Close())
	w.must(f.Close())
}

func advisory(id, ecosystem, name, fixed string, impact int) map[string]any {
	vector := "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"
	if impact < 9 {
		vector = "CVSS:3.1/AV:N/AC:H/PR:L/UI:R/S:U/C:L/I:L/A:N"
	}
	return map[string]any{
		"id": id, "summary": "a flaw", "severity": []any{map[string]any{"type": "CVSS_V3", "score": vector}},
		"affected": []any{map[string]any{
			"package": map[string]any{"ecosystem": ecosystem, "name": name},
			"ranges":  []any{map[string]any{"type": "ECOSYSTEM", "events": []any{map[string]any{"introduced": "0"}, map[string]any{"fixed": fixed}}}},
		}},
	}
}

// asks writes a request.
func (w *world) asks(name, bring string) {
	w.t.Helper()
	w.must(os.WriteFile(w.path("enisle.yaml"), []byte("name: "+name+"\nbring:\n"+bring), 0o600))
	w.must(os.RemoveAll(w.path("enisle.lock")))
}

const bringLayer, bringData = "  files: [ {path: layer.tar} ]\n", "  vulndb: [ {name: osv, from: osv} ]\n"

// arrives packs, imports and inspects.
func (w *world) arrives(media string) crossing.Judged {
	w.t.Helper()
	id := w.pack(media, 0)
	_, err := w.importFrom(media)
	w.must(err)
	j, err := w.app("high").Inspect(w.t.Context(), id)
	w.must(err)
	return j
}

func (w *world) released(j crossing.Judged) {
	w.t.Helper()
	w.must(w.approve(j.Report.Shipment, "alice"))
	w.must(w.approve(j.Report.Shipment, "bob"))
	_, err := w.release(j.Report.Shipment)
	w.must(err)
}

func rules(r inspect.Report) (out []string) {
	for _, f := range r.Findings {
		if f.Scanner == "vuln" || f.Scanner == "vulndb" {
			out = append(out, string(f.Severity)+" "+f.Rule)
		}
	}
	return out
}

func TestVulnerabilitiesAreMatched(t *testing.T) {
	w := newWorld(t)
	now := time.Now().UTC().Truncate(time.Second)
	critical := func() map[string]any { return advisory("DSA-1-1", "Debian:12", "openssl", "3.0.11-1~deb12u2", 9) }
	other := func() map[string]any { return advisory("DSA-2-1", "Debian:13", "openssl", "3.5.0-1", 9) }

	// Without any data there is nothing to match against, and the report says so.
	w.layer("3.0.11-1~deb12u1")
	w.asks("layers", bringLayer)
	j := w.arrives("m1")
	if len(rules(j.Report)) != 0 || len(j.Report.Databases) != 0 {
		t.Errorf("%v %v", rules(j.Report), j.Report.Databases)
	}
	w.released(j)

	// Data arrives and is released; it is not old, and the layer is judged again.
	w.osv(50, now.Add(-24*time.Hour), critical(), other())
	w.asks("data", bringData)
	data := w.arrives("m2")
	if got := rules(data.Report); !slices.Equal(got, []string{"info data"}) || !data.Report.Databases[0].Dated.Equal(now.Add(-24*time.Hour)) || !data.Decision.Allow {
		t.Fatalf("%v %+v %+v", got, data.Report.Databases, data.Decision)
	}
	w.released(data)
	again, err := w.app("high").Rematch(t.Context(), j.Report.Shipment)
	w.must(err)
	if got := rules(again.Report); !slices.Equal(got, []string{"warn vulnerability"}) || again.Decision.Allow {
		t.Fatalf("%v %+v", got, again.Decision)
	}
	f := again.Report.Of(inspect.Warn)[0]
	if f.Score != 9.8 || !strings.Contains(f.Detail, "DSA-1-1") || !strings.Contains(f.Detail, "mended in 3.0.11-1~deb12u2") || f.Artifact != "files/layer.tar" {
		t.Errorf("%+v", f)
	}

	// A mended layer passes; the same advisory says nothing of it, nor that of another release.
	w.layer("3.0.11-1~deb12u2")
	w.asks("layers", bringLayer)
	if j = w.arrives("m3"); len(rules(j.Report)) != 0 || len(j.Report.Databases) != 1 || !j.Decision.Allow {
		t.Fatalf("%v %+v", rules(j.Report), j.Decision)
	}

	// New data adds; what is released counts on, even for what comes with it.
	w.osv(60, now.Add(-time.Hour), advisory("DSA-3-1", "Debian:12", "openssl", "3.0.12-1", 9))
	w.asks("both", bringLayer+bringData)
	w.layer("3.0.11-1~deb12u1")
	j = w.arrives("m4")
	if got := rules(j.Report); !slices.Equal(got, []string{"warn vulnerability", "warn vulnerability", "info data"}) {
		t.Errorf("%v", got)
	}

	// Older or smaller data is refused, and cannot make anything look clean.
	w.osv(50, now.Add(-48*time.Hour))
	w.asks("data", bringData)
	if got := rules(w.arrives("m5").Report); !slices.Equal(got, []string{"refuse older", "info data"}) {
		t.Errorf("%v", got)
	}
	w.osv(20, now.Add(-time.Minute))
	w.asks("data", bringData)
	if got := rules(w.arrives("m6").Report); !slices.Equal(got, []string{"refuse shrunk", "info data"}) {
		t.Errorf("%v", got)
	}
}

func TestStaleDataIsRefused(t *testing.T) {
	w := newWorld(t)
	w.layer("3.0.11-1")
	w.osv(10, time.Now().Add(-60*24*time.Hour).UTC().Truncate(time.Second))
	w.asks("both", bringLayer+bringData)
	j := w.arrives("m1")
	if j.Decision.Allow || !strings.Contains(j.Decision.Reasons[0], "stale-data") {
		t.Errorf("%+v", j.Decision)
	}
}

func TestDataFromTheFutureIsDatedByItsShipment(t *testing.T) {
	w := newWorld(t)
	w.osv(10, time.Now().Add(1000*24*time.Hour).UTC().Truncate(time.Second))
	w.asks("data", bringData)
	j := w.arrives("m1")
	if age := time.Since(j.Report.Databases[0].Dated); age < 0 || age > time.Hour {
		t.Errorf("dated %s", j.Report.Databases[0].Dated)
	}
}

func TestWhatIsNoExportIsNotCollected(t *testing.T) {
	w := newWorld(t)
	w.asks("data", bringData)
	collect := func() error {
		_, err := w.app("low").Collect(t.Context(), w.path("enisle.yaml"), crossing.CollectOptions{})
		return err
	}
	if err := collect(); err == nil || !strings.Contains(err.Error(), "no export lies in") {
		t.Errorf("no directory: %v", err)
	}
	w.osv(0, time.Now())
	refused(t, collect(), "no advisory about Debian")
	w.must(os.WriteFile(w.path("osv", "Debian", "all.zip"), []byte("PK"), 0o600))
	refused(t, collect(), "not an export")
	w.osv(3, time.Now(), map[string]any{"id": "", "affected": []any{}})
	refused(t, collect(), "no advisory: id or time is missing")
	w.asks("data", "  vulndb: [ osv ]\n")
	if err := collect(); err == nil || !strings.Contains(err.Error(), "nothing says where") {
		t.Errorf("no origin: %v", err)
	}
}

// TestRealisticData brings what the generator makes, all ecosystems.
func TestRealisticData(t *testing.T) {
	w := newWorld(t)
	w.must(vulntest.Write(w.path("osv"), 2000, time.Now()))
	t.Setenv("ENISLE_OSV", w.path("osv"))
	w.asks("data", "  vulndb: [ osv ]\n")
	j := w.arrives("m1")
	all, err := vulntest.Ecosystems()
	w.must(err)
	if got := len(j.Report.Of(inspect.Info)); got != len(all) || !j.Decision.Allow || j.Report.Files != len(all) {
		t.Errorf("%d ecosystems: %+v", got, j.Report.Findings)
	}
	names, _ := filepath.Glob(w.path("osv", "*"))
	if len(names) != len(all) {
		t.Errorf("%v", names)
	}
}

// A waiver lets pass what was known when two people signed it. What becomes known of
// the same artifact later is refused again.
func TestAWaiverHidesNothingThatIsFoundLater(t *testing.T) {
	w := newWorld(t)
	w.keygen("olga")
	w.must(w.enrol("high", "olga", trust.Officer))
	now := time.Now().UTC().Truncate(time.Second)
	w.layer("3.0.11-1~deb12u1")
	first := advisory("DSA-1-1", "Debian:12", "openssl", "3.0.11-1~deb12u2", 9)
	w.osv(50, now.Add(-24*time.Hour), first)
	w.asks("data", bringData)
	w.released(w.arrives("m1"))
	w.asks("layers", bringLayer)
	j := w.arrives("m2")
	if j.Decision.Allow {
		t.Fatal("it passes without a waiver")
	}
	waived, err := w.as("high", "alice").Waive(t.Context(), j.Report.Shipment, crossing.WaiveOptions{Rule: "critical-vulnerability", Artifact: "files/layer.tar", Reason: "nothing here listens"})
	w.must(err)
	_, err = w.as("high", "olga").SignWaiver(t.Context(), waived.Digest)
	w.must(err)
	w.released(j)

	w.osv(60, now.Add(-time.Hour), first, advisory("DSA-3-1", "Debian:12", "openssl", "3.0.12-1", 9))
	w.asks("data", bringData)
	w.released(w.arrives("m3"))
	again, err := w.app("high").Rematch(t.Context(), j.Report.Shipment)
	w.must(err)
	open := slices.DeleteFunc(again.Decision.Violations, func(v policy.Violation) bool { return v.Waiver != "" })
	if again.Decision.Allow || len(open) != 1 || !strings.Contains(open[0].Found, "DSA-3-1") {
		t.Errorf("%+v", again.Decision)
	}
}

// Data is held against what every channel serves: what is newer on candidate is not
// forgotten because stable has older.
func TestDataIsHeldAgainstEveryChannel(t *testing.T) {
	w := newWorld(t)
	now := time.Now().UTC().Truncate(time.Second)
	w.osv(50, now.Add(-72*time.Hour))
	w.asks("data", bringData)
	w.released(w.arrives("m1"))
	w.osv(50, now.Add(-24*time.Hour))
	w.asks("data", bringData)
	j := w.arrives("m2")
	for _, name := range []string{"alice", "bob"} {
		_, err := w.as("high", name).Decide(t.Context(), j.Report.Shipment, crossing.Approve, crossing.ApproveOptions{Channel: "candidate"})
		w.must(err)
	}
	_, err := w.app("high").Release(t.Context(), j.Report.Shipment, "candidate")
	w.must(err)
	w.osv(50, now.Add(-48*time.Hour))
	w.asks("data", bringData)
	if got := rules(w.arrives("m3").Report); !slices.Equal(got, []string{"refuse older", "info data"}) {
		t.Errorf("%v", got)
	}
}

// A report that was matched against new data says when its files were read.
func TestMatchingAgainReadsNothing(t *testing.T) {
	w := newWorld(t)
	w.now = time.Now().UTC().Truncate(time.Second)
	w.layer("3.0.11-1")
	w.asks("layers", bringLayer)
	j := w.arrives("m1")
	read := w.now
	for range 2 {
		w.now = w.now.Add(20 * time.Hour)
		again, err := w.app("high").Rematch(t.Context(), j.Report.Shipment)
		w.must(err)
		if !again.Report.Scanned.Equal(read) || !again.Report.Made.Equal(w.now) {
			t.Errorf("read %s, made %s", again.Report.Scanned, again.Report.Made)
		}
	}
}

// Taking the data away makes nothing look clean.
func TestDataThatIsTakenAwayHidesNothing(t *testing.T) {
	w := newWorld(t)
	now := time.Now().UTC().Truncate(time.Second)
	w.layer("3.0.11-1~deb12u1")
	w.asks("layers", bringLayer)
	j := w.arrives("m1")
	w.released(j)
	w.osv(50, now.Add(-24*time.Hour), advisory("DSA-1-1", "Debian:12", "openssl", "3.0.11-1~deb12u2", 9))
	w.asks("data", bringData)
	w.released(w.arrives("m2"))
	_, err := w.app("high").Rollback(t.Context(), "stable", 1)
	w.must(err)
	again, err := w.app("high").Rematch(t.Context(), j.Report.Shipment)
	w.must(err)
	if got := rules(again.Report); again.Decision.Allow || !slices.Equal(got, []string{"refuse no-data"}) {
		t.Errorf("%v %+v", got, again.Decision)
	}
}
