package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
	"enisle/internal/site/store"
)

func TestMain(m *testing.M) {
	if done, err := Hidden(context.Background(), os.Args[1:]); done {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// A child that dies costs the file it was reading, which is refused and named;
// the next is read by another child.
func TestAScannerThatDiesIsAFinding(t *testing.T) {
	t.Setenv("TMPDIR", t.TempDir())
	dir := filepath.Join(t.TempDir(), "blobs")
	if err := store.Create(dir); err != nil {
		t.Fatal(err)
	}
	blobs, err := store.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = blobs.Close() })
	var all []artifact.Artifact
	for i, content := range []string{"hello\n", "cos\nsystem\n(S'id'\ntR.", "good bye\n"} {
		d, err := blobs.Put([]byte(content))
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("f%d.txt", i)
		all = append(all, artifact.Artifact{Ref: artifact.Ref{Kind: "files", Name: name}, Files: []artifact.File{{Path: name, Size: int64(len(content)), Digest: d}}})
	}
	c := &confined{}
	c.limits.Time = 1 << 36
	r := inspect.Runner{Scanners: Scanners(), Elsewhere: c.file}
	report := func(before func(n int)) inspect.Report {
		t.Helper()
		n := 0
		rep, err := r.Inspect(t.Context(), all, func(d artifact.Digest) (inspect.Blob, error) {
			n++
			before(n)
			return blobs.Open(d)
		}, func(int64) {})
		if err != nil {
			t.Fatal(err)
		}
		return rep
	}
	rep := report(func(int) {})
	if found := rep.Of(inspect.Refuse); len(found) != 1 || !strings.Contains(found[0].Detail, "os.system") || rep.Files != 3 {
		t.Errorf("%+v", rep)
	}
	rep = report(func(n int) {
		if n == 3 {
			if err := c.cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
			_, _ = c.cmd.Process.Wait()
		}
	})
	found := rep.Of(inspect.Refuse)
	if len(found) != 2 || found[1].Artifact != "files/f2.txt" || !strings.Contains(found[1].Detail, "died") {
		t.Errorf("%+v", found)
	}
	if rep = report(func(int) {}); len(rep.Of(inspect.Refuse)) != 1 {
		t.Errorf("after it: %+v", rep.Findings)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Inspect(ctx, all, func(d artifact.Digest) (inspect.Blob, error) { return blobs.Open(d) }, func(int64) {}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if err := c.end(); err != nil {
		t.Error(err)
	}
	if left, err := filepath.Glob(filepath.Join(os.TempDir(), "enisle-inspect-*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}
