package local_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/fail"
	"enisle/internal/infer/engine"
	"enisle/internal/infer/engine/child"
	"enisle/internal/infer/engine/local"
	"enisle/internal/sandbox"
)

// The test binary is also the program that is started: one that behaves as the file of
// its weights says. A real server is tried by 'make soak'.
func TestMain(m *testing.M) {
	switch {
	case len(os.Args) > 1 && os.Args[1] == sandbox.Verb:
		fmt.Fprintln(os.Stderr, sandbox.Enter(os.Args[2:]))
		os.Exit(125)
	case slices.Contains(os.Args, "--alias"):
		fmt.Fprintln(os.Stderr, program())
		os.Exit(1)
	}
	os.Exit(m.Run())
}

func argument(name string) string { return os.Args[slices.Index(os.Args, name)+1] }

func program() error {
	how, err := os.ReadFile(argument("-m"))
	if err != nil {
		return err
	}
	switch string(how) {
	case "eats":
		b := make([]byte, 2<<30)
		for i := 0; i < len(b); i += 4096 {
			b[i] = 1
		}
		return errors.New("it had its fill")
	case "breaks":
		return errors.New("the weights make no sense")
	case "waits":
		time.Sleep(time.Hour)
	case "stays":
		signal.Ignore(syscall.SIGTERM)
	}
	l, err := net.Listen("unix", argument("--host"))
	if err != nil {
		return err
	}
	fmt.Println("listening")
	http.HandleFunc("/health", func(http.ResponseWriter, *http.Request) {})
	http.HandleFunc("/v1/models", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, `{"data":[{"id":%q}]}`, argument("--alias"))
	})
	http.HandleFunc("/v1/chat/completions", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Println("asked")
		fmt.Fprintf(w, "%s", strings.Join(os.Args[1:], " "))
	})
	return http.Serve(l, nil)
}

// events are what is recorded.
type events struct {
	mu  sync.Mutex
	all []string
}

func (e *events) add(text string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.all = append(e.all, text)
}

func (e *events) String() string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return strings.Join(e.all, "\n")
}

var processForm = regexp.MustCompile(`ready after .*, process ([0-9]+)`)

// pids are the processes that became ready, oldest first.
func (e *events) pids(t *testing.T) (out []int) {
	t.Helper()
	for _, m := range processForm.FindAllStringSubmatch(e.String(), -1) {
		var pid int
		if _, err := fmt.Sscan(m[1], &pid); err != nil {
			t.Fatal(err)
		}
		out = append(out, pid)
	}
	return out
}

func named(t *testing.T, name, content string) child.NamedFile {
	t.Helper()
	p := filepath.Join(t.TempDir(), "blob")
	if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(p)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return child.NamedFile{Name: name, File: f, Digest: artifact.Sum([]byte(content))}
}

func self(t *testing.T) child.NamedFile {
	t.Helper()
	b, err := os.ReadFile(sandbox.Self)
	if err != nil {
		t.Fatal(err)
	}
	return named(t, "bin/llama-server", string(b))
}

// options are those of an engine whose program behaves as how says.
func options(t *testing.T, how string) (local.Options, *events) {
	t.Helper()
	var said events
	temp, err := os.MkdirTemp("", "enisle-test-") // short, since it is to hold a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if left, _ := os.ReadDir(temp); len(left) > 0 {
			t.Errorf("left behind: %v", left)
		}
		_ = os.RemoveAll(temp)
	})
	dir := filepath.Join(temp, "own")
	return local.Options{
		Name: "own", Kind: "llama-server", Program: []child.NamedFile{self(t)}, Model: []child.NamedFile{named(t, "m.gguf", how)},
		Serves: engine.Model{ID: "tiny", Weights: "sha256:w"}, Dir: dir, TempDir: temp, Threads: 1, MaxMemory: 1 << 30, Record: said.add,
		Dial: func(ctx context.Context) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, local.SocketName))
		},
	}, &said
}

func start(t *testing.T, opt local.Options) *local.Engine {
	t.Helper()
	e, err := local.Start(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("never: %s", what)
		}
	}
}

func gone(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

func TestItComesBackAfterGrowingPauses(t *testing.T) {
	opt, said := options(t, "serves")
	opt.Task, opt.Parallel = local.Embeddings, 3
	e := start(t, opt)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://engine/v1/chat/completions", strings.NewReader("{}"))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := e.Transport().RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, _ := resp.Body.Read(b)
	_ = resp.Body.Close()
	for _, want := range []string{"--alias tiny", "-c 12288 -np 3 -t 1", "--cache-ram 0", "--offline", "--embeddings"} {
		if !strings.Contains(string(b[:n]), want) {
			t.Errorf("%q is missing in %s", want, b[:n])
		}
	}
	if m := e.Models(); len(m) != 1 || m[0].ID != "tiny" || m[0].Context != 4096 || m[0].Weights != "sha256:w" || e.Traits().Parallel != 3 || !e.Traits().Local || e.Traits().Name != "own" {
		t.Errorf("models %+v, traits %+v", m, e.Traits())
	}
	for round, pause := range []time.Duration{time.Second, 2 * time.Second} {
		pids := said.pids(t)
		killed := time.Now()
		if err := syscall.Kill(pids[round], syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		until(t, "it is down", func() bool { return e.Health(t.Context()) != nil })
		if err := e.Health(t.Context()); !errors.Is(err, engine.ErrDown) || !strings.Contains(err.Error(), "signal: killed; it is started again in") {
			t.Errorf("got %v", err)
		}
		if _, err := e.Transport().RoundTrip(req); !errors.Is(err, engine.ErrDown) {
			t.Errorf("asked while it is down: %v", err)
		}
		until(t, "it is back", func() bool { return e.Health(t.Context()) == nil })
		if took := time.Since(killed); took < pause {
			t.Errorf("it was back after %v, which is before %v", took, pause)
		}
	}
	pid := said.pids(t)[2]
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if !gone(pid) {
		t.Error("its process is left")
	}
	if log := said.String(); strings.Count(log, "listening") != 3 || strings.Contains(log, "asked") || strings.Count(log, "died: process: signal: killed") != 2 || !strings.HasSuffix(log, "ended, as it was to") {
		t.Errorf("recorded: %s", log)
	}
}

func TestOneThatDoesNotEndIsKilled(t *testing.T) {
	opt, said := options(t, "stays")
	e := start(t, opt)
	pid := said.pids(t)[0]
	began := time.Now()
	if err := e.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took < 4*time.Second || took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
	if !gone(pid) {
		t.Error("its process is left")
	}
}

func TestWhatDoesNotStart(t *testing.T) {
	changed := func(f child.NamedFile) child.NamedFile {
		f.Digest = artifact.Sum([]byte("other"))
		return f
	}
	for name, tc := range map[string]struct {
		how     string
		change  func(o *local.Options)
		want    string
		refused bool
	}{
		"a program that breaks":          {"breaks", nil, "exit status 1: ", false},
		"one that needs too much memory": {"eats", nil, "needs more than the 1024 MiB of memory", false},
		"one that never takes requests":  {"waits", func(o *local.Options) { o.StartTime = time.Second }, "it was not ready after 1s", false},
		"a changed program":              {"", func(o *local.Options) { o.Program[0] = changed(o.Program[0]) }, "want sha256:", true},
		"changed weights":                {"", func(o *local.Options) { o.Model[0] = changed(o.Model[0]) }, "want sha256:", true},
		"no program":                     {"", func(o *local.Options) { o.Program[0].Name = "bin/other" }, "no program llama-server", true},
		"a script":                       {"", func(o *local.Options) { o.Program[0] = named(t, "llama-server", "#!/bin/sh\n") }, "not an executable", true},
		"no weights":                     {"", func(o *local.Options) { o.Model[0].Name = "m.txt" }, "no .gguf file", true},
		"two models":                     {"", func(o *local.Options) { o.Model = append(o.Model, named(t, "n.gguf", "x")) }, "not the parts of one", true},
		"a kind that is elsewhere":       {"", func(o *local.Options) { o.Kind = "tgi" }, "no engine of kind", false},
		"a socket with too long a name":  {"", func(o *local.Options) { o.Dir = filepath.Join(o.Dir, strings.Repeat("x", 100)) }, "path of its socket", false},
	} {
		t.Run(name, func(t *testing.T) {
			opt, said := options(t, tc.how)
			if tc.change != nil {
				tc.change(&opt)
			}
			e, err := local.Start(t.Context(), opt)
			if err == nil {
				_ = e.Close()
			}
			if err == nil || !strings.Contains(err.Error(), tc.want) || fail.IsRefused(err) != tc.refused {
				t.Errorf("got %v (refused %v), want %q\n%s", err, fail.IsRefused(err), tc.want, said)
			}
			if tc.refused && fail.HintOf(err) == "" {
				t.Error("there is no hint")
			}
		})
	}
}

// What is withdrawn while it starts is ended at once.
func TestAStartIsGivenUp(t *testing.T) {
	opt, _ := options(t, "waits")
	ctx, cancel := context.WithCancel(t.Context())
	time.AfterFunc(500*time.Millisecond, cancel)
	began := time.Now()
	if _, err := local.Start(ctx, opt); err == nil || time.Since(began) > 10*time.Second {
		t.Errorf("got %v after %v", err, time.Since(began))
	}
}

func TestPartsOfAModel(t *testing.T) {
	opt, _ := options(t, "serves")
	opt.Model = []child.NamedFile{named(t, "m-00002-of-00002.gguf", "x"), named(t, "m-00001-of-00002.gguf", "serves")}
	e := start(t, opt)
	if err := e.Close(); err != nil {
		t.Error(err)
	}
}
