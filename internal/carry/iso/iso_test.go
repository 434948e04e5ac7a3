package iso_test

import (
	"bytes"
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

// The kernel mounts it, with and without Rock Ridge and Joliet, and finds every
// byte.
func TestTheKernelMountsIt(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("mounting takes root")
	}
	for _, size := range []int64{5, 2048, 100_001, 9<<30 + 12345} {
		for _, insert := range []bool{true, false} {
			name := image(t, size, insert)
			for options, names := range map[string][3]string{
				"":                {"volume-0001.enisle", "header.json", "BILL.txt"},
				",norock":         {"volume-0001.enisle", "header.json", "BILL.txt"},
				",norock,nojoliet": {"volume_0001.enisle", "header.json", "bill.txt"},
			} {
				check(t, name, options, names, size)
			}
		}
	}
}

func check(t *testing.T, image, options string, names [3]string, size int64) {
	t.Helper()
	dir := t.TempDir()
	if out, err := exec.Command("mount", "-o", "loop,ro"+options, "-t", "iso9660", image, dir).CombinedOutput(); err != nil {
		t.Fatalf("mount: %v: %s", err, out)
	}
	defer func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	}()
	f, err := os.Open(filepath.Join(dir, names[0]))
	if err != nil {
		t.Fatalf("%s: %v", options, err)
	}
	defer func() { _ = f.Close() }()
	st, err := f.Stat()
	if err != nil || st.Size() != size {
		t.Errorf("%s: %d bytes of %d: %v", options, st.Size(), size, err)
	}
	for _, at := range []int64{0, size - 5} {
		b := make([]byte, 5)
		if _, err := f.ReadAt(b, at); err != nil && err != io.EOF || string(b) != "bytes" {
			t.Errorf("%s: at %d: %q, %v", options, at, b, err)
		}
	}
	for i, want := range []string{string(bytes.Repeat([]byte("h"), 3000)), "bill"} {
		b, err := os.ReadFile(filepath.Join(dir, names[i+1]))
		if err != nil || string(b) != want {
			t.Errorf("%s: %s: %d bytes, %v", options, names[i+1], len(b), err)
		}
	}
	all, err := os.ReadDir(dir)
	if err != nil || len(all) != 3 {
		t.Errorf("%s: %v, %v", options, all, err)
	}
}
