package crossing

import (
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"enisle/internal/fail"
)

// A pipe or a device under a local name is a mistake, and nothing to wait for.
func TestOnlyRegularFilesAreOpened(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{pipe, "/dev/zero", t.TempDir(), filepath.Join(t.TempDir(), "gone")} {
		done := make(chan error, 1)
		go func() { _, _, err := openLocal(name); done <- err }()
		select {
		case err := <-done:
			if fail.KindOf(err) != fail.Usage {
				t.Errorf("%s: %v", name, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: it waits", name)
		}
	}
}
