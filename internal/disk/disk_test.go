package disk

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

func content(n int) []byte {
	b := make([]byte, n)
	r := rand.NewChaCha8([32]byte{})
	_, _ = r.Read(b)
	return b
}

func open(t *testing.T, name string) *os.File {
	t.Helper()
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return f
}

// TestAppend goes on at every kind of offset, in pieces of every kind of size.
func TestAppend(t *testing.T) {
	want := content(9<<20 + 77)
	for _, at := range []int{0, 1, block - 1, block, block + 1, buffer, buffer + 5, len(want)} {
		name := filepath.Join(t.TempDir(), "f")
		// Behind the offset stands what an interrupted run left.
		if err := os.WriteFile(name, append(bytes.Clone(want[:at]), "left behind"...), 0o600); err != nil {
			t.Fatal(err)
		}
		a, err := Append(open(t, name), int64(at))
		if err != nil {
			t.Fatal(err)
		}
		for p := want[at:]; len(p) > 0; {
			n := min(len(p), 1+rand.IntN(3<<20))
			if m, err := a.Write(p[:n]); m != n || err != nil {
				t.Fatal(m, err)
			}
			p = p[n:]
		}
		if a.Size() != int64(len(want)) {
			t.Errorf("at %d: size %d, want %d", at, a.Size(), len(want))
		}
		if err := a.Finish(nil); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(name); err != nil || !bytes.Equal(got, want) {
			t.Errorf("at %d: what was read back differs (%v)", at, err)
		}
	}
}

// TestFullDisk expects the reason, not that the rest of a direct write was odd.
func TestFullDisk(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=6m"); err != nil {
		t.Skipf("mounting a small file system: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	a, err := Append(open(t, filepath.Join(dir, "f")), 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = a.Write(content(9 << 20))
	if !errors.Is(err, unix.ENOSPC) {
		t.Errorf("writing to a full disk: %v", err)
	}
}

// TestForget looks at the page cache itself.
func TestForget(t *testing.T) {
	f := open(t, filepath.Join(t.TempDir(), "f"))
	if _, err := f.Write(content(8 << 20)); err != nil {
		t.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	resident := func() (n int) {
		m, err := unix.Mmap(int(f.Fd()), 0, 8<<20, unix.PROT_READ, unix.MAP_SHARED)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = unix.Munmap(m) }()
		pages := make([]byte, (8<<20)/os.Getpagesize())
		if _, _, errno := unix.Syscall(unix.SYS_MINCORE, uintptr(unsafe.Pointer(&m[0])), uintptr(len(m)), uintptr(unsafe.Pointer(&pages[0]))); errno != 0 {
			t.Fatal(errno)
		}
		for _, p := range pages {
			n += int(p & 1)
		}
		return n
	}
	before := resident()
	if before == 0 {
		t.Skip("nothing was cached: there is nothing to see")
	}
	if err := Forget(f); err != nil {
		t.Fatal(err)
	}
	if after := resident(); after*10 > before {
		t.Errorf("%d pages are cached still, of %d", after, before)
	}
}
