package crossing_test

import (
	"os"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/crossing"
	"enisle/internal/site/trust"
)

// Where the low root wants two collectors, one of them seals nothing that an
// island takes.
func TestTwoCollectorsSeal(t *testing.T) {
	w := newWorld(t)
	for _, name := range []string{"carol", "dave", "frank"} {
		w.keygen(name)
	}
	thresholds := func() error {
		_, err := w.app("low").SetThresholds(t.Context(), trust.Thresholds{Collectors: 2})
		return err
	}
	w.must(w.enrol("low", "carol", trust.Collector))
	refused(t, thresholds(), "1 are enrolled as collector")
	w.must(w.enrol("low", "dave", trust.Collector))
	w.must(w.enrol("low", "frank", trust.Importer))
	w.must(thresholds())
	w.collect()
	pack := func() (crossing.Packed, error) {
		return w.as("low", "carol").Pack(t.Context(), crossing.PackOptions{To: w.path("media")})
	}
	out, err := pack()
	if err != nil || out.Missing != 1 {
		t.Fatalf("%+v, %v", out, err)
	}
	_, err = w.importFrom("media")
	refused(t, err, "signature 2 of 2")

	sign := func(name string, opt crossing.SignOptions) (crossing.Cosigned, error) {
		return w.as("low", name).Sign(t.Context(), out.ID, opt)
	}
	_, err = sign("carol", crossing.SignOptions{})
	refused(t, err, "one person counts once")
	_, err = sign("frank", crossing.SignOptions{})
	refused(t, err, "not enrolled as collector")
	_, err = sign("dave", crossing.SignOptions{Expect: artifact.Sum(nil)})
	refused(t, err, "what would be signed")
	signed, err := sign("dave", crossing.SignOptions{})
	if err != nil || signed.Have != 2 || signed.Need != 2 {
		t.Fatalf("%+v, %v", signed, err)
	}
	// The medium learns it by packing there again, or by signing again with --to.
	_, err = w.importFrom("media")
	refused(t, err, "signature 2 of 2")
	old, err := os.ReadFile(w.path("media/header.json"))
	w.must(err)
	if again, err := pack(); err != nil || !again.Already || again.Missing != 0 {
		t.Fatalf("%+v, %v", again, err)
	}
	w.must(os.WriteFile(w.path("media/header.json"), old, 0o600))
	_, err = sign("dave", crossing.SignOptions{To: w.path("media")})
	w.must(err)
	id, err := w.importFrom("media")
	w.must(err)
	if id != out.ID {
		t.Errorf("imported %s, packed %s", id, out.ID)
	}
	w.must(os.RemoveAll(w.path("media")))
	w.must(os.MkdirAll(w.path("media"), 0o755))
	if _, err := sign("dave", crossing.SignOptions{To: w.path("media")}); err == nil {
		t.Error("a header was written where no shipment stands")
	}
}
