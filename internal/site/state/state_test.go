package state

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"enisle/internal/fail"
)

func TestAnEmptyJournalOfACrashIsTidied(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.db")
	if _, err := Open(t.Context(), file, false); !fail.IsRefused(err) {
		t.Errorf("a state that is gone: %v", err)
	}
	made, err := Create(t.Context(), file)
	if err := errors.Join(err, made.Close()); err != nil {
		t.Fatal(err)
	}
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

func TestAFileThatIsNoDatabaseIsRefused(t *testing.T) {
	file := filepath.Join(t.TempDir(), "state.db")
	if err := os.WriteFile(file, []byte("this is not a database, it is a text of some length, and so on and so on"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, readOnly := range []bool{true, false} {
		db, err := Open(t.Context(), file, readOnly)
		if err == nil {
			err = db.View(t.Context(), func(tx *Tx) error { _, err := tx.Meta("x"); return err })
		}
		if !fail.IsRefused(err) {
			t.Errorf("read only %t: %v", readOnly, err)
		}
	}
}
