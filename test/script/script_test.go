// Package script_test runs the command line as people and scripts do.
package script_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"enisle/internal/app"
	"enisle/internal/cli"
)

func TestMain(m *testing.M) {
	if done, err := app.Hidden(context.Background(), os.Args[1:]); done {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if len(os.Args) > 1 && os.Args[1] == app.ServeVerb {
		os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
	}
	testscript.Main(m, map[string]func(){
		"enisle": func() { os.Exit(cli.Main(os.Args[1:], os.Stdin, os.Stdout, os.Stderr)) },
	})
}

func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{Dir: "testdata/script"})
}

// The shortest complete crossing of the contract, word for word, and what it
// serves in the end.
func TestTheShortestCrossing(t *testing.T) {
	dir, bin := shortest(t)
	url := serve(t, dir, bin)
	for _, a := range []struct{ path, want string }{
		{"/files/hello.txt", "hello from outside"},
		{"/healthz", `"status":"ok"`},
		{"/", "files/hello.txt"},
		{"/v1/models", `"object":"list"`},
		{"/pypi/simple/", "<html>"},
		{"/metrics", "enisle_http_answers_total"}, // counts those before
	} {
		if got := get(t, url+a.path); !strings.Contains(got, a.want) {
			t.Errorf("%s: %.200q, want %q", a.path, got, a.want)
		}
	}
}

// shortest runs the script of the contract in a new directory with a built
// program, and returns both.
func shortest(t *testing.T) (dir, program string) {
	t.Helper()
	dir = t.TempDir()
	bin := filepath.Join(dir, "bin")
	if err := os.Mkdir(bin, 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("go", "build", "-o", filepath.Join(bin, "enisle"), "enisle/cmd/enisle").CombinedOutput(); err != nil {
		t.Fatalf("build: %v: %s", err, out)
	}
	script, err := os.ReadFile("testdata/shortest.sh")
	if err != nil {
		t.Fatal(err)
	}
	for name, content := range map[string]string{"hello.txt": "hello from outside\n", "enisle.yaml": "name: shortest\nbring:\n  files: [ hello.txt ]\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	env := append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	cmd := exec.Command("sh", "-eu", "-c", string(script))
	cmd.Dir, cmd.Env = dir, env
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return dir, filepath.Join(bin, "enisle")
}

// serve starts the site and returns its address; it is stopped with the test.
func serve(t *testing.T, dir, bin string) string {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	cmd := exec.CommandContext(ctx, bin, "-C", "high", "serve", "--listen", "127.0.0.1:0", "-q")
	cmd.Dir = dir
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cancel()
		if err := cmd.Wait(); err != nil && cmd.ProcessState.ExitCode() != 0 {
			t.Errorf("serve ended with %v: %s", err, stderr.String())
		}
	})
	var url string
	if _, err := fmt.Fscanln(out, &url); err != nil {
		t.Fatalf("no address: %v: %s", err, stderr.String())
	}
	return url
}

// get waits until the address answers.
func get(t *testing.T, url string) string {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); ; {
		resp, err := http.Get(url) //nolint:gosec // loopback
		if err == nil {
			b, err := io.ReadAll(resp.Body)
			if err := resp.Body.Close(); err != nil {
				t.Error(err)
			}
			if err != nil || resp.StatusCode != http.StatusOK {
				t.Errorf("%s: %s, %v: %s", url, resp.Status, err, b)
			}
			return string(b)
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
		time.Sleep(50 * time.Millisecond)
	}
}
