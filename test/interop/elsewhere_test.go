package interop

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

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
	dir, enisle := sites(t, []byte("x"))
	sock := filepath.Join(dir, "vllm.sock")
	l, err := net.Listen("unix", sock)
	if err != nil {
		t.Fatal(err)
	}
	s := httptest.NewUnstartedServer(h)
	_ = s.Listener.Close()
	s.Listener = l
	s.Start()
	defer s.Close()

	for _, name := range []string{"alice", "bob"} {
		enisle("keygen", "--no-passphrase", "--out", name+".key")
		enisle("-C", "high", "person", "add", name, "--role", "approver", "--key", name+".key.pub")
	}
	enisle("-C", "high", "engine", "allow", "gpu", "--kind", "vllm", "--address", "unix:"+sock,
		"--model", "tiny@org/tiny=model/tiny", "--model", "gone@org/tiny=model/gone")
	const header = `{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}`
	tiny := string(binary.LittleEndian.AppendUint64(nil, uint64(len(header)))) + header + "w"
	for name, text := range map[string]string{"enisle.yaml": "name: app\nbring:\n  files: [ {path: tiny.safetensors, as: model/tiny} ]\n", "tiny.safetensors": tiny} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	crossAgain(t, dir, enisle)
	if list := enisle("-C", "high", "engine", "list"); !strings.Contains(list, "serves tiny (model/tiny)") || !strings.Contains(list, "not released, so not served: gone") {
		t.Errorf("%s", list)
	}
	out := inside(t, dir, `
ask() { curl -s -H 'Content-Type: application/json' -d "$2" $URL$1; echo; }
for i in $(seq 50); do curl -s $URL/v1/models | grep -q tiny && break; sleep 0.2; done
curl -s $URL/v1/models; echo
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
		`"id":"tiny"`, `"weights":"sha256:`, "path /v1/chat/completions", `"content":"str"`, "data: [DONE]", "path /v1/embeddings", "path /tokenize",
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
