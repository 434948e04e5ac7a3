package interop

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"enisle/internal/fail"
	"enisle/internal/site/tuf"
)

// Repositories that python-tuf made are followed through rotations, and refused
// after every attack; what was trusted before stays trusted.
func TestRepositoriesOfPythonTUF(t *testing.T) {
	python := pythonWith(t, "tuf.api.metadata", "tuf==7.0.1", "securesystemslib[crypto]==1.6.0")
	top := t.TempDir()
	run(t, "", python, "testdata/tuf_repository.py", top)
	names, err := filepath.Glob(filepath.Join(top, "*-*"))
	if err != nil || len(names) < 15 {
		t.Fatalf("%d scenarios, %v", len(names), err)
	}
	base := filepath.Join(top, "base")
	root, err := os.ReadFile(filepath.Join(base, "metadata", "1.root.json"))
	if err != nil {
		t.Fatal(err)
	}
	for _, dir := range names {
		t.Run(filepath.Base(dir), func(t *testing.T) {
			c := tuf.Client{Dir: filepath.Join(t.TempDir(), "trusted")}
			if err := errors.Join(c.Init(root), c.Refresh(filepath.Join(base, "metadata"))); err != nil {
				t.Fatal(err)
			}
			for _, name := range []string{"rules.json", "more/x.json"} {
				to := t.TempDir()
				at, err := c.Download(filepath.Join(dir, "metadata"), name, filepath.Join(dir, "targets"), to)
				if strings.HasPrefix(filepath.Base(dir), "refuse-") {
					if code := fail.ExitCode(err); code != 3 && code != 4 || fail.HintOf(err) == "" {
						t.Errorf("%s: %q, %v, exit %d", name, at, err, code)
					}
					if got, _ := os.ReadDir(to); len(got) != 0 {
						t.Errorf("%s: left %v", name, got)
					}
					continue
				}
				b, err := os.ReadFile(at)
				if err != nil || string(b) != "{\"rules\": \"one\"}\n" {
					t.Errorf("%s: %q, %v", name, b, err)
				}
			}
		})
	}
	// A clock that goes back does not bring back what expired.
	c := tuf.Client{Dir: filepath.Join(t.TempDir(), "trusted"), Now: func() time.Time { return time.Now().AddDate(0, 2, 0) }}
	if err := errors.Join(c.Init(root)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Refresh(filepath.Join(base, "metadata")); !fail.IsRefused(err) || !strings.Contains(err.Error(), "expired") {
			t.Errorf("after it expired: %v", err)
		}
		c.Now = nil
	}
}
