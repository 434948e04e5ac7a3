package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

func TestAnEmptyJournalOfACrashIsTidied(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.db")
	for range 2 {
		db, err := Open(t.Context(), file, false)
		if err != nil {
			t.Fatal(err)
		}
		if err := db.Close(); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(file + "-journal"); !errors.Is(err, fs.ErrNotExist) {
			t.Fatalf("a journal is left: %v", err)
		}
		if err := os.WriteFile(file+"-journal", nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}
