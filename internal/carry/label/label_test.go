package label_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/carry/label"
)

var sample = label.Label{ // constant
	Title: "outside-12-0badcafe  disc 1",
	Lines: []string{"volume 1 of 3", "from outside to <island> & others", "seal S-1"},
	Code:  "EN1:outside-12-0badcafe:disc 1:00112233445566778899aabbccddeeff",
}

// An independent reader finds the code in both forms.
func TestTheCodeIsRead(t *testing.T) {
	if _, err := exec.LookPath("zbarimg"); err != nil {
		t.Skipf("zbarimg is not here: %v", err)
	}
	dir := t.TempDir()
	read := func(name string) {
		t.Helper()
		out, err := exec.Command("zbarimg", "--quiet", "--raw", filepath.Join(dir, name)).Output()
		if err != nil || strings.TrimSpace(string(out)) != sample.Code {
			t.Errorf("%s: %q, %v", name, out, err)
		}
	}
	b, err := sample.PNG()
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "label.png"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	read("label.png")
	b, err = sample.SVG()
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "label.svg"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	if _, err := exec.LookPath("rsvg-convert"); err != nil {
		t.Skipf("rsvg-convert is not here: %v", err)
	}
	if out, err := exec.Command("rsvg-convert", "-z", "4", "-o", filepath.Join(dir, "drawn.png"), filepath.Join(dir, "label.svg")).CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	read("drawn.png")
}

// Names on it cannot break the drawing.
func TestTheDrawingIsXML(t *testing.T) {
	b, err := sample.SVG()
	if err != nil {
		t.Fatal(err)
	}
	d, text := xml.NewDecoder(bytes.NewReader(b)), ""
	for {
		tok, err := d.Token()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if c, ok := tok.(xml.CharData); ok {
			text += string(c) + "\n"
		}
	}
	for _, want := range append(sample.Lines, sample.Title) {
		if !strings.Contains(text, want) {
			t.Errorf("%q is not on it", want)
		}
	}
}
