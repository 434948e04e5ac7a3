package interop

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// withEngine makes an island that may reach an engine, which answers as a test says, and
// serves the model tiny by it.
func withEngine(t *testing.T, h http.Handler) (dir string, enisle func(args ...string) string) {
	t.Helper()
	sock := filepath.Join(t.TempDir(), "vllm.sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	_ = s.Listener.Close()
	s.Listener = l
	s.Start()
	t.Cleanup(s.Close)
	return withEngineAt(t, "vllm", "unix:"+sock)
}

// withEngineAt makes an island that may reach an engine of a kind at an address, and
// serves the model tiny by it, which the engine calls org/tiny.
func withEngineAt(t *testing.T, kind, address string) (dir string, enisle func(args ...string) string) {
	t.Helper()
	dir, enisle = sites(t, []byte("x"))
	for _, name := range []string{"alice", "bob"} {
		enisle("keygen", "--no-passphrase", "--out", name+".key")
		enisle("-C", "high", "person", "add", name, "--role", "approver", "--key", name+".key.pub")
	}
	enisle("-C", "high", "engine", "allow", "gpu", "--kind", kind, "--address", address,
		"--model", "tiny@org/tiny=model/tiny", "--model", "gone@org/tiny=model/gone")
	const header = `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`
	tiny := string(binary.LittleEndian.AppendUint64(nil, uint64(len(header)))) + header + "w"
	for name, text := range map[string]string{"enisle.yaml": "name: app\nbring:\n  files: [ {path: tiny.safetensors, as: model/tiny} ]\n", "tiny.safetensors": tiny} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	crossAgain(t, dir, enisle)
	return dir, enisle
}

// serving starts serve and returns where it answers. The caller ends it.
func serving(t *testing.T, dir string, args ...string) (cmd *exec.Cmd, url string) {
	t.Helper()
	cmd = exec.Command(filepath.Join(dir, "enisle"), append([]string{"-C", "high", "serve", "--listen", "127.0.0.1:0", "-q"}, args...)...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	url, err = bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return cmd, strings.TrimSpace(url)
}

// An engine at another address is reached by serve, which itself has no network, only
// through its helper, only if the admins allowed it, and only while the model is
// released; what belongs to the site is the site's. The engine here answers as vLLM's
// source says; a real one is tried by 'make soak'.
func TestEngineElsewhere(t *testing.T) {
	var bodies []string
	h := http.NewServeMux()
	h.HandleFunc("/health", func(http.ResponseWriter, *http.Request) {})
	h.HandleFunc("/v1/models", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"data":[{"id":"org/tiny"}]}`) })
	answer := func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		bodies = append(bodies, string(b))
		var q struct {
			Model  string `json:"model"`
			Stream bool   `json:"stream"`
		}
		_ = json.Unmarshal(b, &q)
		if !q.Stream {
			fmt.Fprintf(w, `{"id":"x","model":%q,"choices":[{"index":0,"message":{"role":"assistant","content":"path %s"}}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}`, q.Model, r.URL.Path)
			return
		}
		w.Header().Set("Content-Type", "text/event-stream")
		for _, e := range []string{`{"model":"` + q.Model + `","choices":[{"index":0,"delta":{"content":"str"}}]}`, `{"choices":[{"index":0,"delta":{"content":"eam"}}]}`, `{"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}`, "[DONE]"} {
			fmt.Fprintf(w, "data: %s\n\n", e)
		}
	}
	h.HandleFunc("/v1/", answer)
	h.HandleFunc("/tokenize", answer)
	dir, enisle := withEngine(t, h)
	if list := enisle("-C", "high", "engine", "list"); !strings.Contains(list, "serves tiny (model/tiny)") || !strings.Contains(list, "not released, so not served: gone") {
		t.Errorf("%s", list)
	}
	out := inside(t, dir, `
ask() { curl -s -H 'Content-Type: application/json' -d "$2" $URL$1; echo; }
for i in $(seq 50); do curl -s $URL/v1/models | grep -q tiny && break; sleep 0.2; done
curl -s $URL/v1/models; echo
curl -s $URL/api/tags | grep -o '"size":[0-9]*'
ask /v1/chat/completions '{"model":"tiny","messages":[{"role":"user","content":"hi"}],"priority":-9,"cache_salt":"theirs","odd":{"a":1.50}}'
ask /v1/chat/completions '{"model":"tiny","stream":true,"messages":[{"role":"user","content":"hi"}]}'
ask /v1/embeddings '{"model":"tiny","input":["a","b"]}'
ask /tokenize '{"model":"tiny","prompt":"a"}'
ask /v1/chat/completions '{"model":"gone","messages":[]}'
"$ENISLE" -C high engine stop gpu
for i in $(seq 50); do curl -s $URL/v1/models | grep -q tiny || break; sleep 0.2; done
echo "stopped: $(curl -s $URL/v1/models)"
"$ENISLE" -C high engine start gpu
for i in $(seq 50); do curl -s $URL/v1/models | grep -q tiny && break; sleep 0.2; done
"$ENISLE" -C high recall model/tiny --reason "its weights are not what they seem" --as alice --key alice.key
for i in $(seq 50); do curl -s $URL/v1/models | grep -q tiny || break; sleep 0.2; done
echo "recalled: $(curl -s $URL/v1/models)"
if "$ENISLE" -C high engine allow other --kind vllm --address 127.0.0.1:1 --model tiny=model/tiny 2>&1; then echo ALLOWED; fi
"$ENISLE" -C high user usage
`)
	for _, want := range []string{
		`"id":"tiny"`, `"size":62`, `"weights":"sha256:`, "path /v1/chat/completions", `"content":"str"`, "data: [DONE]", "path /v1/embeddings", "path /tokenize",
		"model_not_found", `stopped: {"object":"list","data":[]}`, `recalled: {"object":"list","data":[]}`, "(anybody)  tiny: 4 calls, 0 of them not answered",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing", want)
		}
	}
	if strings.Contains(out, "ALLOWED") || strings.Contains(out, `"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}`+"\n\ndata: [DONE]") {
		t.Error("a sealed site is let reach an engine, or counts reach a client that did not ask")
	}
	if len(bodies) != 4 || !strings.Contains(bodies[0], `"model":"org/tiny"`) || !strings.Contains(bodies[0], `"odd":{"a":1.50}`) || strings.Contains(bodies[0], "theirs") || strings.Contains(bodies[0], "priority") {
		t.Errorf("the engine got %q", bodies)
	}
	if t.Failed() {
		t.Log(out)
	}
}

// When everything is killed under load, no call has reached the engine without a record,
// the record is whole, and clients see errors that they can try again after.
func TestKilledUnderLoad(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]bool{}
	h := http.NewServeMux()
	h.HandleFunc("/health", func(http.ResponseWriter, *http.Request) {})
	h.HandleFunc("/v1/models", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"data":[{"id":"org/tiny"}]}`) })
	h.HandleFunc("/v1/", func(w http.ResponseWriter, r *http.Request) {
		var q struct {
			Messages []struct{ Content string } `json:"messages"`
		}
		_ = json.NewDecoder(r.Body).Decode(&q)
		mu.Lock()
		seen[q.Messages[0].Content] = true
		mu.Unlock()
		time.Sleep(20 * time.Millisecond)
		_, _ = io.WriteString(w, `{"choices":[{"index":0,"message":{"role":"assistant","content":"x"}}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}`)
	})
	dir, enisle := withEngine(t, h)
	for round := range 3 {
		cmd, url := serving(t, dir)
		url += "/v1/chat/completions"
		stop := make(chan struct{})
		answered := make(chan string, 100_000)
		var wg sync.WaitGroup
		for client := range 16 {
			wg.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					name := fmt.Sprintf("%d-%d-%d", round, client, n)
					resp, err := http.Post(url, "application/json", strings.NewReader(fmt.Sprintf(`{"model":"tiny","messages":[{"role":"user","content":%q}]}`, name)))
					if err != nil {
						time.Sleep(10 * time.Millisecond)
						continue
					}
					_, rerr := io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
					if resp.StatusCode == 200 && rerr == nil {
						answered <- name
					} else if rerr == nil && resp.StatusCode != 503 && resp.StatusCode != 404 { // 404: before the engine is up
						t.Errorf("status %d", resp.StatusCode)
					}
				}
			})
		}
		for begun := time.Now(); len(answered) < 200 && time.Since(begun) < 30*time.Second; {
			time.Sleep(20 * time.Millisecond)
		}
		// The whole family at once: what serves is a child in a group of its own.
		killed := exec.Command("bash", "-c", fmt.Sprintf("kill -9 %[1]d $(pgrep -P %[1]d); true", cmd.Process.Pid))
		if out, err := killed.CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		_ = cmd.Wait() // it was killed
		close(stop)
		wg.Wait()
		close(answered)
		n := len(answered)
		if n < 200 {
			t.Errorf("%d calls were answered before", n)
		}
		var report struct {
			Usage []struct{ Calls int }
			Files []struct {
				Lines, Open int
				Broken      string
			}
		}
		if err := json.Unmarshal([]byte(enisle("-C", "high", "user", "usage", "--json")), &report); err != nil {
			t.Fatal(err)
		}
		f := report.Files[len(report.Files)-1]
		closed := (f.Lines - f.Open) / 2
		if f.Broken != "" || closed < n || f.Open > 16 {
			t.Errorf("%d calls were answered; on record %d ended and %d begun; %s", n, closed, f.Open, f.Broken)
		}
		mu.Lock()
		reached := len(seen)
		seen = map[string]bool{}
		mu.Unlock()
		if reached > closed+f.Open {
			t.Errorf("%d calls reached the engine, %d are on record", reached, closed+f.Open)
		}
	}
}
