package app

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/artifact"
)

// A line that somebody put into the record does not hide who pulled what behind it.
func TestALongLineHidesNoPull(t *testing.T) {
	dir := t.TempDir()
	d := artifact.Sum([]byte("x"))
	line := func(client string) string {
		return fmt.Sprintf(`{"at":"2026-11-25T00:00:00Z","client":%q,"ref":"files/x","file":"x","digest":%q,"channel":"stable","release":1}`+"\n", client, d)
	}
	text := line("10.0.0.1") + strings.Repeat("x", 3<<20) + "\n" + line("10.0.0.2") + line("10.0.0.3")[:40]
	if err := os.MkdirAll(filepath.Join(dir, "access"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, pullsFile), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := pulledBy(dir, map[artifact.Digest]bool{d: true})
	if err != nil || len(out) != 2 || out[1].Client != "10.0.0.2" {
		t.Errorf("%+v, %v", out, err)
	}
}

// Clients that ask for names without end do not fill the disk.
func TestMissesEnd(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "misses"))
	if err != nil {
		t.Fatal(err)
	}
	m := misses{to: f, seen: map[seenMiss]bool{}, used: maxPullsFile - 10_000}
	for i := range 1000 {
		m.add("npm", fmt.Sprintf("name-%d@latest", i))
	}
	b, err := os.ReadFile(f.Name())
	if n := bytes.Count(b, []byte("\n")); err != nil || n == 0 || len(b) > 10_000 || b[len(b)-1] != '\n' {
		t.Errorf("%d bytes, %d lines, %v", len(b), n, err)
	}
}
