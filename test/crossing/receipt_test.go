package crossing_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/crossing"
	"enisle/internal/fail"
	"enisle/internal/site/trust"
)

// size returns the bytes of a medium.
func (w *world) size(media string) (n int64) {
	files, err := filepath.Glob(w.path(media, "*"))
	w.must(err)
	for _, f := range files {
		st, err := os.Stat(f)
		w.must(err)
		n += st.Size()
	}
	return n
}

// More and more is known: only what is new is carried, and it is released as a
// whole.
func TestOnlyWhatIsNewIsCarried(t *testing.T) {
	w := newWorld(t)
	w.request("hello", 20<<20)
	first := w.cross("one")
	full := w.size("one")

	// Nobody told the low side anything: everything is carried.
	w.must(os.WriteFile(w.path("note.txt"), []byte("another note"), 0o600))
	w.collect()
	packed := w.packed("two", crossing.PackOptions{})
	if len(packed.Base) != 0 || w.size("two") < full {
		t.Errorf("without a receipt: builds on %v, %d bytes of %d", packed.Base, w.size("two"), full)
	}

	// The island's receipt: the large file stays out.
	got, err := w.app("high").Receipt(t.Context(), "")
	w.must(err)
	if len(got.Envelope) > 8<<10 {
		t.Errorf("a receipt of %d bytes", len(got.Envelope))
	}
	told, err := w.app("low").AddReceipt(t.Context(), got.Envelope)
	if err != nil || told.Site != "island" || told.Held != 1 {
		t.Fatalf("%+v, %v", told, err)
	}
	packed = w.packed("three", crossing.PackOptions{})
	if len(packed.Base) != 1 || packed.Base[0] != first || w.size("three")*100 > full {
		t.Errorf("builds on %v, %d bytes of %d", packed.Base, w.size("three"), full)
	}
	// Number 2 never arrives; 3 does, with what it builds on.
	id, err := w.importFrom("three")
	w.must(err)
	w.inspect(id)
	w.must(w.approve(id, "alice"))
	w.must(w.approve(id, "bob"))
	_, err = w.release(id)
	w.must(err)
	_, err = w.app("high").Check(t.Context(), true, func(string) {})
	w.must(err)
	served, err := w.app("high").Served(t.Context(), "stable")
	w.must(err)
	if len(served) == 0 {
		t.Error("nothing is served")
	}

	// The code: nothing changed, next to nothing is carried.
	got, err = w.app("high").Receipt(t.Context(), "outside")
	w.must(err)
	w.forget()
	_, err = got.Print(w.path("page"))
	w.must(err)
	if scanned, err := exec.Command("zbarimg", "--quiet", "--raw", w.path("page/receipt.png")).Output(); errors.Is(err, exec.ErrNotFound) {
		t.Log("not scanned: zbarimg is not here")
	} else if err != nil || strings.TrimSpace(string(scanned)) != got.Code {
		t.Errorf("scanned %q, %v, want %q", scanned, err, got.Code)
	}
	told, err = w.app("low").AddReceiptCode(t.Context(), strings.ToLower(strings.ReplaceAll(got.Code, "-", " ")))
	if err != nil || told.Held != 2 {
		t.Fatalf("%s: %+v, %v", got.Code, told, err)
	}
	packed = w.packed("four", crossing.PackOptions{})
	if packed.Payload > 2000 || w.size("four") > 64<<10 {
		t.Errorf("unchanged, and yet %d bytes are carried in %d", packed.Payload, w.size("four"))
	}
	if _, err := w.importFrom("four"); err != nil {
		t.Error(err)
	}
	// And all of it if asked for.
	packed = w.packed("five", crossing.PackOptions{Full: true})
	if len(packed.Base) != 0 || w.size("five") < full {
		t.Errorf("full: builds on %v, %d bytes of %d", packed.Base, w.size("five"), full)
	}
}

// packed packs with options.
func (w *world) packed(to string, opt crossing.PackOptions) crossing.Packed {
	w.t.Helper()
	opt.To = w.path(to)
	out, err := w.app("low").Pack(w.t.Context(), opt)
	w.must(err)
	return out
}

// forget makes the low side forget what it was told.
func (w *world) forget() {
	w.t.Helper()
	w.sqlAt("low", "DELETE FROM meta WHERE key LIKE 'told.%'")
}

func TestWhatAShipmentBuildsOnMustBeHere(t *testing.T) {
	w := newWorld(t)
	first := w.cross("one")
	got, err := w.app("high").Receipt(t.Context(), "")
	w.must(err)
	_, err = w.app("low").AddReceipt(t.Context(), got.Envelope)
	w.must(err)
	w.must(os.WriteFile(w.path("note.txt"), []byte("another note"), 0o600))
	w.collect()
	w.pack("two", 0)

	// An island that lost it says which.
	w.sql("DELETE FROM shipments")
	_, err = w.importFrom("two")
	refused(t, err, first)
	w.nothingQuarantined()
}

func (w *world) nothingQuarantined() {
	w.t.Helper()
	files, err := filepath.Glob(w.path("high/quarantine/sha256/*"))
	if err != nil || len(files) != 0 {
		w.t.Errorf("in quarantine: %v, %v", files, err)
	}
}

func TestReceiptsOfOthersAreRefused(t *testing.T) {
	w := newWorld(t)
	w.cross("one")
	got, err := w.app("high").Receipt(t.Context(), "")
	w.must(err)
	add := func(b []byte) error { _, err := w.app("low").AddReceipt(t.Context(), b); return err }

	for _, at := range []int{20, len(got.Envelope) / 2, len(got.Envelope) - 20} {
		b := bytes.Clone(got.Envelope)
		b[at] ^= 4
		refused(t, add(b), "")
	}
	refused(t, add([]byte("{}")), "receipt")
	refused(t, add(bytes.Repeat([]byte("x"), 5<<20)), "larger")

	// Signed by somebody else, and of a site that is not paired.
	e, err := trust.Parse(got.Envelope)
	w.must(err)
	k, err := trust.GenerateKey()
	w.must(err)
	b, err := trust.Sign(crossing.ReceiptType, e.Payload, k)
	w.must(err)
	refused(t, add(b), "island itself")
	var r crossing.Receipt
	w.must(json.Unmarshal(e.Payload, &r))
	r.Site.Name, r.Site.Fingerprint = "elsewhere", k.Public.ID()
	payload, err := json.Marshal(r)
	w.must(err)
	b, err = trust.Sign(crossing.ReceiptType, payload, k)
	w.must(err)
	refused(t, add(b), "not paired")

	// An older one after a newer.
	newer, err := w.app("high").Receipt(t.Context(), "")
	w.must(err)
	w.must(add(newer.Envelope))
	w.must(add(newer.Envelope))
	refused(t, add(got.Envelope), "made before")

	// A typing error in the code.
	code := []byte(got.Code)
	code[12] ^= 1
	if _, err := w.app("low").AddReceiptCode(t.Context(), string(code)); !fail.IsRefused(err) && fail.KindOf(err) != fail.Usage {
		t.Errorf("a mistyped code: %v", err)
	}
}
