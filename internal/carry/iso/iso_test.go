package iso_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"enisle/internal/carry/iso"
)

// image makes an image around a file of size bytes that is sparse but for its
// first and last bytes.
func image(t *testing.T, size int64, insert bool) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "disc.iso")
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	front := int64(iso.Front)
	if insert {
		front = 0
	}
	for _, at := range []int64{0, size - 5} {
		if _, err := f.WriteAt([]byte("bytes"), front+at); err != nil {
			t.Fatal(err)
		}
	}
	if insert {
		if ok, err := iso.Insert(f); err != nil || !ok {
			t.Skipf("this file system cannot insert: %v", err)
		}
	}
	err = iso.Finish(f, "volume-0001.enisle", size, []iso.File{{Name: "header.json", Content: bytes.Repeat([]byte("h"), 3000)}, {Name: "BILL.txt", Content: []byte("bill")}},
		iso.Label{Volume: "outside-1-0badcafe", Made: time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)})
	if err != nil {
		t.Fatal(err)
	}
	return name
}

// Independent readers find every byte, by Rock Ridge, Joliet and plain names.
func TestOthersReadIt(t *testing.T) {
	for _, tool := range []string{"bsdtar", "xorriso"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not here: %v", tool, err)
		}
	}
	for _, size := range []int64{5, 2048, 100_001, 9<<30 + 12345} {
		for _, insert := range []bool{true, false} {
			name := image(t, size, insert)
			for options, names := range map[string][3]string{
				"rockridge":          {"volume-0001.enisle", "header.json", "BILL.txt"},
				"!rockridge":         {"volume-0001.enisle", "header.json", "BILL.txt"},
				"!rockridge,!joliet": {"VOLUME_0001.ENISLE", "HEADER.JSON", "BILL.TXT"},
			} {
				check(t, name, options, names, size)
			}
			report(t, name, size)
		}
	}
}

// report asks xorriso, which reads extents by itself.
func report(t *testing.T, image string, size int64) {
	t.Helper()
	out, err := exec.Command("xorriso", "-abort_on", "WARNING", "-indev", image, "-lsl", "/").CombinedOutput()
	if err != nil || !bytes.Contains(out, fmt.Appendf(nil, "%d Nov 24", size)) || !bytes.Contains(out, []byte("'volume-0001.enisle'")) {
		t.Errorf("xorriso: %v: %s", err, out)
	}
	if bytes.Contains(out, []byte("WARNING")) {
		t.Errorf("xorriso: %s", out)
	}
}

func check(t *testing.T, image, options string, names [3]string, size int64) {
	t.Helper()
	read := func(name string) *exec.Cmd {
		return exec.Command("bsdtar", "--options", options, "-xOf", image, name)
	}
	for i, want := range []string{string(bytes.Repeat([]byte("h"), 3000)), "bill"} {
		b, err := read(names[i+1]).Output()
		if err != nil || string(b) != want {
			t.Errorf("%s: %s: %d bytes, %v", options, names[i+1], len(b), err)
		}
	}
	if size > 1<<30 && (options != "rockridge" || os.Getenv("ENISLE_SOAK") == "") {
		return // it takes a minute; xorriso has seen the size
	}
	c := read(names[0])
	out, err := c.StdoutPipe()
	if err == nil {
		err = c.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	first := make([]byte, 5)
	n, err := io.ReadFull(out, first)
	total, last := int64(n), first
	for buf := make([]byte, 1<<20); err == nil; {
		n, err = out.Read(buf)
		total += int64(n)
		if both := append(bytes.Clone(last), buf[:n]...); len(both) > 5 {
			last = both[len(both)-5:]
		}
	}
	if err := c.Wait(); err != nil || total != size || string(first) != "bytes" || string(last) != "bytes" {
		t.Errorf("%s: %d bytes of %d, %q to %q, %v", options, total, size, first, last, err)
	}
	all, err := exec.Command("bsdtar", "--options", options, "-tf", image).Output()
	if err != nil || len(bytes.Fields(all)) != 4 {
		t.Errorf("%s: %q, %v", options, all, err)
	}
}
