package sandbox

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestExec(t *testing.T) {
	needLandlock(t, abiTruncate)
	dir := tree(t, "site/secret", "work/in", "cache/x")
	at := func(n string) string { return filepath.Join(dir, n) }
	t.Setenv("ENISLE_PASSPHRASE", "not for clients")
	e := Exec{Cache: []string{at("cache")}}
	run := func(args ...string) (string, error) {
		out, _, err := e.Run(t.Context(), at("work"), []string{at("site")}, append([]string{Self, probeVerb}, args...))
		return strings.TrimSpace(string(out)), err
	}
	if out, err := run("read", at("site/secret")); err == nil {
		t.Errorf("the secret was read: %s", out)
	}
	for _, p := range []string{"out", at("work/out"), at("cache/new")} {
		if out, err := run("write", p); err != nil {
			t.Errorf("write %s: %v %s", p, err, out)
		}
	}
	if out, err := run("write", at("elsewhere")); err == nil {
		t.Errorf("written outside: %s", out)
	}
	if _, err := run("flood"); err == nil || !strings.Contains(err.Error(), "longer than") {
		t.Errorf("flood: got %v", err)
	}
	if out, err := run("fork"); err != nil || !gone(out) {
		t.Errorf("left behind: process %s, %v", out, err)
	}
	out, err := run("env")
	if err != nil || strings.Contains(out, "ENISLE_PASSPHRASE") || !strings.Contains(out, "TMPDIR="+os.TempDir()) {
		t.Errorf("environment: %v %s", err, out)
	}
	for _, l := range strings.Split(out, "\n") {
		if tmp, ok := strings.CutPrefix(l, "TMPDIR="+os.TempDir()+"/enisle-run-"); ok {
			if _, err := os.Stat(os.TempDir() + "/enisle-run-" + tmp); err == nil {
				t.Errorf("the temporary directory is still there")
			}
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if _, _, err := e.Run(ctx, at("work"), nil, []string{Self, probeVerb, "spin"}); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("deadline: got %v", err)
	}
}

func TestRealClientsStart(t *testing.T) {
	dir := tree(t, "site/secret", "work/in")
	for _, argv := range [][]string{{"python3", "-m", "pip", "--version"}, {"npm", "--version"}, {"go", "version"}, {"cargo", "--version"}, {"git", "--version"}} {
		t.Run(argv[0], func(t *testing.T) {
			if _, err := exec.LookPath(argv[0]); err != nil {
				t.Skipf("%s is not installed", argv[0])
			}
			out, errs, err := Exec{}.Run(t.Context(), filepath.Join(dir, "work"), []string{filepath.Join(dir, "site")}, argv)
			if err != nil {
				t.Errorf("%v\n%s%s", err, out, errs)
			}
		})
	}
}
