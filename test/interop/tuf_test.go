package interop

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"enisle/internal/fail"
	"enisle/internal/site/trust"
	"enisle/internal/site/tuf"
)

var pythonTUF = []string{"tuf==7.0.1", "securesystemslib[crypto]==1.6.0"} // constant

// Repositories that python-tuf made are followed through rotations, and refused
// after every attack; what was trusted before stays trusted.
func TestRepositoriesOfPythonTUF(t *testing.T) {
	python := pythonWith(t, "tuf.api.metadata", pythonTUF...)
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
	// A pipe on the medium is not waited for.
	hostile := filepath.Join(t.TempDir(), "metadata")
	if err := errors.Join(os.Mkdir(hostile, 0o755), unix.Mkfifo(filepath.Join(hostile, "timestamp.json"), 0o600)); err != nil {
		t.Fatal(err)
	}
	waits := tuf.Client{Dir: filepath.Join(t.TempDir(), "trusted")}
	if err := waits.Init(root); err != nil {
		t.Fatal(err)
	}
	if err := waits.Refresh(hostile); err == nil || !strings.Contains(err.Error(), "no regular file") {
		t.Errorf("a pipe: %v", err)
	}
	// A clock that goes back does not bring back what expired.
	c := tuf.Client{Dir: filepath.Join(t.TempDir(), "trusted"), Now: func() time.Time { return time.Now().AddDate(0, 2, 0) }}
	if err := c.Init(root); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := c.Refresh(filepath.Join(base, "metadata")); !fail.IsRefused(err) || !strings.Contains(err.Error(), "expired") {
			t.Errorf("after it expired: %v", err)
		}
		c.Now = nil
	}
}

// python-tuf follows what we publish: the next version, and another root when keys
// change; and refuses it when a target was changed, or when it does not trust the
// root.
func TestPythonTUFFollowsOurs(t *testing.T) {
	python := pythonWith(t, "tuf.api.metadata", pythonTUF...)
	dir := t.TempDir()
	var keys []crypto.Signer
	for range 3 {
		k, err := trust.GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k.Signer())
	}
	p384, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader) // as tokens have them
	if err != nil {
		t.Fatal(err)
	}
	keys = append(keys, p384)
	targets, repository := filepath.Join(dir, "rules"), filepath.Join(dir, "repository")
	server := httptest.NewServer(http.FileServer(http.Dir(repository)))
	defer server.Close()
	publish := func(content string, signers, old []crypto.Signer) error {
		if err := errors.Join(os.MkdirAll(filepath.Join(targets, "more"), 0o755), os.WriteFile(filepath.Join(targets, "more", "x.json"), []byte(content), 0o600)); err != nil {
			return err
		}
		_, err := tuf.Publish(t.Context(), tuf.Publication{Repository: repository, Targets: targets, Keys: signers, Old: old, Threshold: 2, Lasts: time.Hour, Now: time.Now()})
		return err
	}
	first := filepath.Join(repository, "metadata", "1.root.json")
	follow := func(client, root string) (string, error) {
		out, err := exec.CommandContext(t.Context(), python, "testdata/tuf_client.py", filepath.Join(dir, client), root, server.URL, "more/x.json").CombinedOutput()
		return string(out), err
	}
	for i, step := range []struct{ now, old []crypto.Signer }{{keys[:2], nil}, {keys[:2], nil}, {keys[1:3], keys[:1]}, {keys[2:], keys[1:2]}} {
		content := fmt.Sprintf("content %d", i)
		if err := publish(content, step.now, step.old); err != nil {
			t.Fatal(err)
		}
		for _, client := range []string{"follows", fmt.Sprintf("new-%d", i)} {
			if out, err := follow(client, first); err != nil || out != content {
				t.Fatalf("step %d, %s: %v: %s", i, client, err, out)
			}
		}
	}
	if err := publish("stolen", keys[:2], nil); !fail.IsRefused(err) {
		t.Errorf("keys that lost their roles published: %v", err)
	}
	found, err := filepath.Glob(filepath.Join(repository, "targets", "more", "*"))
	if err != nil || len(found) == 0 {
		t.Fatal(err)
	}
	for _, f := range found {
		if err := os.WriteFile(f, []byte("changed 3"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if out, err := follow("changed", first); err == nil {
		t.Errorf("a changed target was taken: %s", out)
	}
}
