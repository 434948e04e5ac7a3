package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"enisle/internal/infer/engine"
	"enisle/internal/infer/engine/child"
	"enisle/internal/infer/engine/llamacpp/llamacpptest"
	"enisle/internal/infer/engine/local"
)

// withProgram makes an island that starts a program, released with libraries, as
// llama.cpp's server for the model tiny, released from a file of weights.
func withProgram(t *testing.T, program, model string, libraries []string, args ...string) (dir string, enisle func(args ...string) string) {
	t.Helper()
	dir, enisle = sites(t, []byte("x"))
	for _, name := range []string{"alice", "bob"} {
		enisle("keygen", "--no-passphrase", "--out", name+".key")
		enisle("-C", "high", "person", "add", name, "--role", "approver", "--key", name+".key.pub")
	}
	enisle(append([]string{"-C", "high", "engine", "allow", "own", "--kind", "llama-server", "--program", "engine/llama-server", "--model", "tiny=model/tiny"}, args...)...)
	if err := os.Mkdir(filepath.Join(dir, "server"), 0o755); err != nil {
		t.Fatal(err)
	}
	run(t, dir, "cp", program, "server/llama-server")
	run(t, dir, "cp", model, "tiny.gguf")
	for _, l := range libraries {
		run(t, dir, "cp", l, "server/"+filepath.Base(l))
	}
	// What the embedded engine would run the model with, if no other was started for it.
	write(t, filepath.Join(dir, "libllama.so"), "x")
	write(t, filepath.Join(dir, "enisle.yaml"), "name: app\nbring:\n  files: [ {path: server, as: engine/llama-server}, {path: libllama.so, as: engine/embedded}, {path: tiny.gguf, as: model/tiny} ]\n")
	crossAgain(t, dir, enisle)
	return dir, enisle
}

// until waits until ok says so.
func until(t *testing.T, what string, d time.Duration, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(d); !ok(); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not within %v: %s", d, what)
		}
	}
}

func offered(t *testing.T, base string) string {
	t.Helper()
	resp, err := http.Get(base + "/v1/models")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

var processForm = regexp.MustCompile(`ready after .*, process ([0-9]+)`)

// childOf returns the process of the engine that became ready last, 0 if none did.
func childOf(enisle func(args ...string) string) (pid int) {
	if m := processForm.FindAllStringSubmatch(enisle("-C", "high", "engine", "log"), -1); len(m) > 0 {
		pid, _ = strconv.Atoi(m[len(m)-1][1])
	}
	return pid
}

func alive(pid int) bool { return syscall.Kill(pid, 0) == nil }

func content(t *testing.T, answer string) string {
	t.Helper()
	var a struct {
		Choices []struct{ Message struct{ Content string } }
	}
	if err := json.Unmarshal([]byte(answer), &a); err != nil || len(a.Choices) != 1 {
		t.Fatalf("%v: %s", err, answer)
	}
	return a.Choices[0].Message.Content
}

// isConfined looks at the process of an engine from outside.
func isConfined(t *testing.T, pid int) {
	t.Helper()
	proc := fmt.Sprintf("/proc/%d", pid)
	status, err := os.ReadFile(proc + "/status")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"NoNewPrivs:\t1", "Seccomp:\t2", "CapEff:\t0000000000000000", "CapBnd:\t0000000000000000"} {
		if !strings.Contains(string(status), want) {
			t.Errorf("%s is missing: %s", want, status)
		}
	}
	devices, err := os.ReadFile(proc + "/net/dev")
	if lines := strings.Split(strings.TrimSpace(string(devices)), "\n"); err != nil || len(lines) != 3 || !strings.Contains(lines[2], "lo:") {
		t.Errorf("its network has %s, %v", devices, err)
	}
	if exe, err := os.Readlink(proc + "/exe"); err != nil || exe != "/memfd:llama-server (deleted)" {
		t.Errorf("it runs %s, %v", exe, err)
	}
}

// The real server of llama.cpp, started by serve from a release: it is confined, it
// answers, it comes back when it is killed under load, and it ends with its release and
// with serve.
func TestLlamaServerAsAChild(t *testing.T) {
	program, model := llamaServer(t)
	// A library comes with it, under another name than the program looks for.
	library, err := filepath.EvalSymlinks(strings.TrimSpace(run(t, "", "gcc", "-print-file-name=libstdc++.so.6")))
	if err != nil {
		t.Fatal(err)
	}
	again := filepath.Join(t.TempDir(), "libstdc++.so") // as archives without links have it
	run(t, "", "cp", library, again)
	dir, enisle := withProgram(t, program, model, []string{library, again}, "--parallel", "2", "--context", "2048")
	serve, base := serving(t, dir)
	stopped := false
	stop := func() {
		if !stopped {
			stopped = true
			_ = serve.Process.Signal(syscall.SIGTERM)
			_ = serve.Wait() // it was told to
		}
	}
	defer stop()
	until(t, "it is up", time.Minute, func() bool { return strings.Contains(offered(t, base), `"weights":"sha256:`) })
	pid := childOf(enisle)
	isConfined(t, pid)
	if maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", pid)); err != nil || strings.Contains(string(maps), "libstdc++") || !strings.Contains(string(maps), filepath.Join(dir, "high", "blobs")) {
		t.Errorf("the library is not that of the release: %s, %v", maps, err)
	}

	const capital = `"messages":[{"role":"user","content":"What is the capital of France? Answer in English."}],"temperature":0,"seed":1`
	if got := asked200(t, base, "", "/v1/chat/completions", `{"model":"tiny","max_tokens":24,`+capital+`}`); !strings.Contains(got, "Paris") {
		t.Errorf("%s", got)
	}
	for path, body := range map[string]string{
		"/v1/completions": `{"model":"tiny","max_tokens":8,"temperature":0,"stream":true,"prompt":"The capital of France is"}`,
		"/v1/responses":   `{"model":"tiny","max_output_tokens":16,"temperature":0,"input":"What is the capital of France?"}`,
		"/tokenize":       `{"model":"tiny","content":"The capital"}`,
	} {
		asked200(t, base, "", path, body)
	}
	if list := enisle("-C", "high", "engine", "list"); !strings.Contains(list, "own  llama-server, child of serve, started from engine/llama-server") || !strings.Contains(list, "ready after") {
		t.Errorf("%s", list)
	}

	next := killedUnderLoad(t, base, pid, enisle)
	isConfined(t, next)
	recalled := time.Now()
	enisle("-C", "high", "recall", "model/tiny", "--reason", "its weights are not what they seem", "--as", "alice", "--key", "alice.key")
	until(t, "the recalled model has ended", 10*time.Second, func() bool { return !alive(next) && !strings.Contains(offered(t, base), "tiny") })
	t.Logf("recalled and gone after %v", time.Since(recalled))
	if t.Failed() {
		t.Log(enisle("-C", "high", "engine", "log"))
	}

	opt := local.Options{
		Name: "small", Kind: "llama-server", Model: []child.NamedFile{llamacpptest.Open(t, model)}, Serves: engine.Model{ID: "tiny", Context: 8192},
		Program: []child.NamedFile{llamacpptest.Open(t, program)}, Dir: filepath.Join(os.TempDir(), "enisle-small"), MaxMemory: 200 << 20,
	}
	opt.Program[0].Name = "llama-server"
	opt.Dial = func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(opt.Dir, local.SocketName))
	}
	if e, err := local.Start(t.Context(), opt); err == nil || !strings.Contains(err.Error(), "needs more than the 200 MiB of memory") {
		t.Errorf("with too little memory: %v", err)
		if err == nil {
			_ = e.Close()
		}
	}
}

// killedUnderLoad kills the child while clients ask; what they see is an answer, a stream
// that ends in an error, or a status to try again after, and the next child answers.
func killedUnderLoad(t *testing.T, base string, pid int, enisle func(args ...string) string) (next int) {
	t.Helper()
	var wg sync.WaitGroup
	var answered, later, cut atomic.Int64
	end := make(chan struct{})
	for client := range 4 {
		wg.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
				}
				body := fmt.Sprintf(`{"model":"tiny","max_tokens":40,"stream":%v,"messages":[{"role":"user","content":"Tell a story."}]}`, client%2 == 0)
				resp, err := http.Post(base+"/v1/chat/completions", "application/json", strings.NewReader(body))
				if err != nil {
					t.Error(err)
					return
				}
				b, err := io.ReadAll(resp.Body)
				_ = resp.Body.Close()
				switch {
				case resp.StatusCode == 200 && strings.Contains(string(b), `"error"`):
					cut.Add(1)
				case resp.StatusCode == 200 && err == nil && (client%2 == 1 || strings.HasSuffix(string(b), "data: [DONE]\n\n")):
					answered.Add(1)
				case resp.StatusCode == 502 || (resp.StatusCode == 503 || resp.StatusCode == 429) && resp.Header.Get("Retry-After") != "":
					later.Add(1)
					time.Sleep(100 * time.Millisecond)
				default:
					t.Errorf("%d, %v: %s", resp.StatusCode, err, b)
				}
			}
		})
	}
	until(t, "answers", 2*time.Minute, func() bool { return answered.Load() >= 8 })
	time.Sleep(500 * time.Millisecond) // streams are under way
	killed := time.Now()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	before := answered.Load()
	until(t, "another process is ready", time.Minute, func() bool { next = childOf(enisle); return next != pid })
	back := time.Since(killed)
	until(t, "answers from it", 2*time.Minute, func() bool { return answered.Load() >= before+8 })
	close(end)
	wg.Wait()
	t.Logf("killed: %d answers, %d streams cut, %d told to try again; another was ready after %v", answered.Load(), cut.Load(), later.Load(), back)
	if cut.Load()+later.Load() == 0 {
		t.Error("nobody noticed that it was killed")
	}
	if log := enisle("-C", "high", "engine", "log", "own"); !strings.Contains(log, "died: process: signal: killed") {
		t.Errorf("%s", log)
	}
	return next
}

// A server that somebody has taken over reaches nothing from where serve starts it; when
// it takes more memory than it may it says so; it comes back when it crashes; nothing of
// it outlives serve.
func TestStartedEngineReachesNothing(t *testing.T) {
	if testing.Short() {
		t.Skip("short: a site is made and served")
	}
	_, files := llamacpptest.Files(t)
	program := filepath.Join(t.TempDir(), "probe")
	run(t, "", "go", "build", "-o", program, "./testdata/probe")
	dir, enisle := withProgram(t, program, files[0].File.Name(), nil, "--memory", "1GiB")
	serve, base := serving(t, dir)
	ended := false
	end := func() {
		if ended = true; serve.Process.Signal(syscall.SIGTERM) == nil {
			_ = serve.Wait() // it was told to
		}
	}
	defer func() {
		if !ended {
			end()
		}
	}()
	until(t, "it is up", 30*time.Second, func() bool { return strings.Contains(offered(t, base), `"id":"tiny"`) })
	pid := childOf(enisle)
	isConfined(t, pid)

	there, err := net.Listen("unix", filepath.Join(dir, "d.sock"))
	if err != nil {
		t.Fatal(err)
	}
	defer there.Close()
	daemon, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram", Name: filepath.Join(dir, "g.sock")})
	if err != nil {
		t.Fatal(err)
	}
	defer daemon.Close()
	where, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	if err != nil {
		t.Fatal(err)
	}
	sock := filepath.Join(filepath.Dir(where), "own")
	tries := []string{
		"tcp " + strings.TrimPrefix(base, "http://"), "tcp 192.0.2.1:80", "udp 192.0.2.1:53", "unix " + filepath.Join(dir, "d.sock"), "unix " + filepath.Join(sock, "engine.sock"),
		"listen 127.0.0.1:0", "list " + dir, "read " + filepath.Join(dir, "high", "site.json"), "list " + filepath.Join(dir, "high", "blobs"), "read /etc/passwd", "list /",
		"write " + filepath.Join(sock, "x"), "write /tmp/enisle-probe", "link " + filepath.Join(sock, "link"), "weights", "exec /bin/true", "signal", "unshare",
	}
	ask := func(text string) string {
		t.Helper()
		body, err := json.Marshal(map[string]any{"model": "tiny", "messages": []map[string]string{{"role": "user", "content": text}}})
		if err != nil {
			t.Fatal(err)
		}
		return content(t, asked200(t, base, "", "/v1/chat/completions", string(body)))
	}
	out := ask(strings.Join(tries, "\n"))
	t.Logf("%s", out)
	if strings.Contains(out, "DONE") || strings.Count(out, "refused") != len(tries) {
		t.Error("something was reached")
	}
	if out := ask("mine"); !strings.Contains(out, "DONE") {
		t.Errorf("this test sees nothing: %s", out)
	}

	for what, why := range map[string]string{"eat": "more than the 1024 MiB of memory", "crash": "signal: killed"} {
		pid = childOf(enisle)
		if status, got := asks(t, base, "", "/v1/chat/completions", `{"model":"tiny","messages":[{"role":"user","content":"`+what+`"}]}`); status != 503 && status != 502 {
			t.Errorf("%s: %d %s", what, status, got)
		}
		until(t, "it comes back after "+what, 30*time.Second, func() bool { return childOf(enisle) != pid })
		if log := enisle("-C", "high", "engine", "log", "own"); !strings.Contains(log, why) {
			t.Errorf("%s: %s", what, log)
		}
		until(t, "it answers after "+what, 30*time.Second, func() bool {
			status, _ := asks(t, base, "", "/v1/chat/completions", `{"model":"tiny","messages":[{"role":"user","content":"mine"}]}`)
			return status == 200
		})
	}
	log := enisle("-C", "high", "engine", "log", "own")
	if !strings.Contains(log, "probe: listening") || strings.Contains(log, "asked to mine") {
		t.Errorf("what it printed before requests is missing, or what it printed of them is there: %s", log)
	}
	if list := enisle("-C", "high", "engine", "list"); strings.Count(list, "child of serve") != 1 {
		t.Errorf("the embedded engine runs the model as well: %s", list)
	}
	pid = childOf(enisle)
	enisle("-C", "high", "engine", "stop", "own")
	until(t, "it is stopped", 10*time.Second, func() bool { return !alive(pid) && !strings.Contains(offered(t, base), "tiny") })
	enisle("-C", "high", "engine", "start", "own")
	until(t, "it is started again", 10*time.Second, func() bool { return strings.Contains(offered(t, base), "tiny") })
	pid = childOf(enisle)
	end()
	if alive(pid) {
		t.Error("it outlives serve")
	}
	if _, err := os.Stat(filepath.Dir(where)); err == nil {
		t.Error("its directory is left")
	}
	if _, err := exec.LookPath("pgrep"); err == nil {
		if out, _ := exec.Command("pgrep", "-f", filepath.Dir(where)).Output(); len(out) > 0 {
			t.Errorf("processes are left: %s", out)
		}
	}
}
