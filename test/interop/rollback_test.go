package interop

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem/ecosystemtest"
	"enisle/internal/ecosystem/pypi"
)

// pairs is an index of two packages that fit each other only in the same version.
func pairs(t *testing.T) *ecosystemtest.Release {
	t.Helper()
	rel := &ecosystemtest.Release{}
	for _, v := range []string{"1.0", "2.0"} {
		for name, headers := range map[string]string{"pair_a": "Requires-Dist: pair_b ==" + v + "\n", "pair_b": ""} {
			file, content, err := ecosystemtest.Wheel(name, v, headers)
			if err != nil {
				t.Fatal(err)
			}
			rel.Add(artifact.Ref{Kind: pypi.Kind, Name: pypi.Normalise(name), Version: v}, artifact.File{Path: file, Published: published}, content)
		}
	}
	return rel
}

// installer asks as pip does, over a connection of its own.
type installer struct {
	http.Client
	base string
}

func newInstaller(base string) *installer {
	return &installer{http.Client{Transport: &http.Transport{MaxConnsPerHost: 1}, Timeout: 20 * time.Second}, base}
}

func (c *installer) close() { c.CloseIdleConnections() }

func (c *installer) get(ctx context.Context, at string) ([]byte, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at, nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("User-Agent", `pip/25.0 {"ci":null}`)
	req.Header.Set("Accept", "application/vnd.pypi.simple.v1+json")
	res, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(res.Body)
	if err = errors.Join(err, res.Body.Close()); err == nil && res.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s: %.200s", at, res.Status, b)
	}
	return b, err
}

type listed struct {
	Filename, URL string
	Hashes        map[string]string
}

// list returns the wheels of a project, by version.
func (c *installer) list(ctx context.Context, project string) (map[string]listed, error) {
	at := c.base + "/pypi/simple/" + project + "/"
	b, err := c.get(ctx, at)
	if err != nil {
		return nil, err
	}
	var page struct{ Files []listed }
	if err := json.Unmarshal(b, &page); err != nil {
		return nil, err
	}
	base, err := url.Parse(at)
	if err != nil {
		return nil, err
	}
	out := map[string]listed{}
	for _, f := range page.Files {
		ref, err := base.Parse(f.URL)
		if err != nil {
			return nil, err
		}
		f.URL = ref.String()
		out[strings.Split(f.Filename, "-")[1]] = f
	}
	return out, nil
}

// install takes pair-a in the only version there is, and what it needs, and returns
// the version.
func (c *installer) install(ctx context.Context, pause time.Duration) (version string, err error) {
	first, err := c.list(ctx, "pair-a")
	if err != nil {
		return "", err
	}
	if len(first) != 1 {
		return "", fmt.Errorf("%d versions of pair-a: two releases at once", len(first))
	}
	for v, f := range first {
		version = v
		time.Sleep(pause)
		meta, err := c.get(ctx, f.URL+".metadata")
		if err != nil {
			return "", err
		}
		if !strings.Contains(string(meta), "pair_b =="+v) {
			return "", fmt.Errorf("the metadata of %s is of another", f.Filename)
		}
		time.Sleep(pause)
		second, err := c.list(ctx, "pair-b")
		if err != nil {
			return "", err
		}
		need, ok := second[v]
		if !ok {
			return "", fmt.Errorf("pair-a %s is listed, and pair-b only as %v: a mixed state", v, second)
		}
		for _, f := range []listed{f, need} {
			time.Sleep(pause)
			b, err := c.get(ctx, f.URL)
			if err != nil {
				return "", err
			}
			if sum := sha256.Sum256(b); hex.EncodeToString(sum[:]) != f.Hashes["sha256"] {
				return "", fmt.Errorf("%s: another file than was listed", f.Filename)
			}
		}
	}
	return version, nil
}

// A hundred clients install, and a few real ones, while the channel flips fifty
// times between two releases that have no file in common. Nobody sees anything of
// both, nobody an error, and whoever begins after a flip sees what it brought.
func TestNobodySeesAMixedStateWhileTheChannelFlips(t *testing.T) {
	python := client(t, "python3")
	alone(t)
	outside := serve(t, pypi.New(pypi.Options{}), pairs(t), "")
	t.Setenv("PIP_INDEX_URL", outside.URL+"/pypi/simple/")
	dir, enisle := sites(t, []byte("x"))
	for _, name := range []string{"alice", "bob"} {
		enisle("keygen", "--no-passphrase", "--out", name+".key")
		enisle("-C", "high", "person", "add", name, "--role", "approver", "--key", name+".key.pub")
	}
	for _, v := range []string{"1.0", "2.0"} {
		request := fmt.Sprintf("name: x\nbring:\n  pypi: [ pair-a==%s ]\n", v)
		if err := os.WriteFile(filepath.Join(dir, "enisle.yaml"), []byte(request), 0o600); err != nil {
			t.Fatal(err)
		}
		enisle("-C", "low", "collect")
		id := strings.TrimSpace(enisle("-C", "low", "pack", "--to", "m"+v))
		enisle("-C", "high", "import", "m"+v)
		enisle("-C", "high", "inspect", id)
		for _, name := range []string{"alice", "bob"} {
			enisle("-C", "high", "approve", id, "--as", name, "--key", name+".key")
		}
		enisle("-C", "high", "release", id)
	}
	base := island2(t, dir)

	const clients, flips = 100, 50
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var wg sync.WaitGroup
	var done [3]atomic.Int64 // installations of either version, and by pip
	problem := make(chan error, clients+4)
	for i := range clients {
		wg.Go(func() {
			for ctx.Err() == nil {
				c := newInstaller(base)
				v, err := c.install(context.WithoutCancel(ctx), time.Duration(i%10)*20*time.Millisecond)
				c.close()
				if err != nil {
					problem <- err
					return
				}
				done[int(v[0]-'1')].Add(1)
			}
		})
	}
	for i := range 2 {
		wg.Go(func() {
			for n := 0; ctx.Err() == nil; n++ {
				to := filepath.Join(dir, fmt.Sprintf("pip%d-%d", i, n))
				cmd := exec.Command(python, "-m", "pip", "install", "--no-cache-dir", "--index-url", base+"/pypi/simple/", "--target", to, "pair-a")
				if out, err := cmd.CombinedOutput(); err != nil {
					problem <- fmt.Errorf("pip: %w: %s", err, out)
					return
				}
				done[2].Add(1)
			}
		})
	}
	var slowest time.Duration
	to := 1
	for range flips {
		began := time.Now()
		enisle("-C", "high", "rollback", "--to", fmt.Sprint(to))
		flipped := time.Now()
		c := newInstaller(base)
		got, err := c.list(ctx, "pair-a")
		c.close()
		if _, ok := got[fmt.Sprintf("%d.0", to)]; !ok || err != nil {
			t.Fatalf("after the flip to %d there is %v, %v", to, got, err)
		}
		slowest = max(slowest, time.Since(began))
		to = 3 - to
		// The rate is that of somebody who tries hard, not that of a loop.
		time.Sleep(max(0, 200*time.Millisecond-time.Since(flipped)))
	}
	stop()
	wg.Wait()
	close(problem)
	n := 0
	for err := range problem {
		if n++; n <= 5 {
			t.Error(err)
		}
	}
	if n > 0 || done[0].Load() < 100 || done[1].Load() < 100 || done[2].Load() < 2 {
		t.Errorf("%d of the clients failed; installed %d times the one, %d the other, %d by pip", n, done[0].Load(), done[1].Load(), done[2].Load())
	}
	t.Logf("%d flips; installed %d and %d times, %d by pip; the slowest flip was seen after %s", flips, done[0].Load(), done[1].Load(), done[2].Load(), slowest)

	// It stands on record who has what, once a day.
	var pulled []struct {
		Client, File string
		Days         int
	}
	if err := json.Unmarshal([]byte(enisle("-C", "high", "pulls", "pypi/pair-b@2.0", "--json")), &pulled); err != nil {
		t.Fatal(err)
	}
	if len(pulled) != 1 || pulled[0].Client != "127.0.0.1" || pulled[0].Days != 1 {
		t.Errorf("%+v", pulled)
	}
}

// island2 serves the high site and returns its address.
func island2(t *testing.T, dir string) string {
	t.Helper()
	cmd := exec.Command(filepath.Join(dir, "enisle"), "-C", "high", "serve", "--listen", "127.0.0.1:0", "-q")
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		if err := cmd.Wait(); err != nil {
			t.Errorf("serve: %v: %s", err, stderr.String())
		}
	})
	buf := make([]byte, 200)
	n, err := out.Read(buf)
	if err != nil {
		t.Fatalf("serve: %v: %s", err, stderr.String())
	}
	go func() { _, _ = io.Copy(io.Discard, out) }()
	return strings.TrimSpace(string(buf[:n]))
}
