// Package interop lets unmodified clients use what this program serves.
package interop

import (
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/infer/engine"
	"enisle/internal/infer/engine/llamacpp"
	"enisle/internal/infer/engine/llamacpp/llamacpptest"
	"enisle/internal/infer/gateway"
)

// TestMain lets the engine's worker be this binary.
func TestMain(m *testing.M) { llamacpptest.Main(m) }

// openaiClient is the version of the client that is tested with.
const openaiClient = "openai==3.54.0"

const openaiScript = `
import sys
import openai

c = openai.OpenAI(base_url=sys.argv[1] + "/v1", api_key="none", max_retries=0)
ask = dict(model="smollm2", temperature=0, max_tokens=32, seed=1,
           messages=[{"role": "user", "content": "What is the capital of France?"}])

ids = [m.id for m in c.models.list()]
assert ids == ["smollm2"], ids
assert c.models.retrieve("smollm2").id == "smollm2"

whole = c.chat.completions.create(**ask)
text = whole.choices[0].message.content
assert "Paris" in text, text
assert whole.choices[0].finish_reason == "stop", whole
assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens, whole.usage

said = ""
for chunk in c.chat.completions.create(stream=True, **ask):
    assert chunk.usage is None, chunk
    said += chunk.choices[0].delta.content or ""
assert said == text, (said, text)

usage = None
for chunk in c.chat.completions.create(stream=True, stream_options={"include_usage": True}, **ask):
    usage = chunk.usage or usage
assert usage == whole.usage, (usage, whole.usage)

with c.chat.completions.create(stream=True, **{**ask, "max_tokens": 500}) as stream:
    next(iter(stream))  # and leave

go_on = dict(model="smollm2", prompt=["The capital of France is", "1, 2, 3, 4,"], temperature=0, max_tokens=6)
texts = c.completions.create(**go_on)
assert [t.index for t in texts.choices] == [0, 1] and "Paris" in texts.choices[0].text and "5" in texts.choices[1].text, texts
said = ["", ""]
for chunk in c.completions.create(stream=True, **go_on):
    for t in chunk.choices:
        said[t.index] += t.text
assert said == [t.text for t in texts.choices], (said, texts)

for wrong, kind in (({"model": "other"}, openai.NotFoundError), ({"temperature": 9}, openai.BadRequestError)):
    try:
        c.chat.completions.create(**{**ask, **wrong})
    except kind as e:
        assert e.code in ("model_not_found", "invalid_value"), e
        assert e.request_id, e
    else:
        raise AssertionError(wrong)
print("said:", text)
`

// The official Python client against the gateway and a real model.
func TestOpenAIClient(t *testing.T) {
	python := openaiPython(t)
	e := llamacpptest.Start(t, llamacpp.Options{})
	s := httptest.NewServer(gateway.New(gateway.Options{Engines: func() []engine.Engine { return []engine.Engine{e} }}))
	defer s.Close()
	cmd := exec.CommandContext(t.Context(), python, "-c", openaiScript, s.URL)
	cmd.Env = append(os.Environ(), "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "said:") {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

// openaiPython returns a Python that has the client.
func openaiPython(t *testing.T) string { return pythonWith(t, "openai", openaiClient) }

// pythonWith returns a Python with packages of which one has a module, in an
// environment of its own in the cache.
func pythonWith(t *testing.T, module string, packages ...string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("short: the client is not fetched")
	}
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip("python3 is not installed")
	}
	cache := llamacpptest.Cache(t)
	defer llamacpptest.Lock(t, cache)()
	venv := filepath.Join(cache, "venv-"+strings.ReplaceAll(packages[0], "==", "-"))
	python := filepath.Join(venv, "bin", "python")
	if exec.Command(python, "-c", "import "+module).Run() == nil {
		return python
	}
	for _, argv := range [][]string{
		{"python3", "-m", "venv", "--clear", venv},
		append([]string{python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--only-binary", ":all:"}, packages...),
	} {
		if out, err := exec.CommandContext(t.Context(), argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Skipf("%s can not be fetched: %v\n%s", packages[0], err, out)
		}
	}
	return python
}

// asked starts a gateway in front of the real engine and returns its address.
func asked(t *testing.T) string {
	t.Helper()
	e := llamacpptest.Start(t, llamacpp.Options{})
	s := httptest.NewServer(gateway.New(gateway.Options{Engines: func() []engine.Engine { return []engine.Engine{e} }}))
	t.Cleanup(s.Close)
	return s.URL
}

// says runs a client and checks what it prints.
func says(t *testing.T, want string, argv ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "NO_PROXY=127.0.0.1", "no_proxy=127.0.0.1")
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), want) {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%s", out)
}

const ollamaScript = `
import sys, ollama
c = ollama.Client(host=sys.argv[1])
assert [m.model for m in c.list().models] == ["smollm2"], c.list()
assert c.show("smollm2").capabilities == ["completion"]
ask = dict(model="smollm2", messages=[{"role": "user", "content": "What is the capital of France?"}], options={"temperature": 0, "num_predict": 32, "seed": 1})
whole = c.chat(**ask)
assert "Paris" in whole.message.content and whole.done and whole.eval_count > 0, whole
said, last = "", None
for part in c.chat(stream=True, **ask):
    said += part.message.content
    last = part
assert said == whole.message.content, (said, whole.message.content)
assert last.done and last.prompt_eval_count == whole.prompt_eval_count, last
g = c.generate(model="smollm2:latest", prompt="What is the capital of France?", options=ask["options"])
assert "Paris" in g.response, g
hot = c.chat(**{**ask, "options": {"temperature": 2, "top_k": 1, "num_predict": 32, "num_ctx": 1024, "num_thread": 2, "use_mmap": True}}, keep_alive="5m")
assert hot.message.content == whole.message.content, (hot, whole)
for wrong, status, why in (({"model": "other", "messages": []}, 404, "not on this island"), ({"options": {"top_k": -5}}, 400, "top_k"), ({"think": False}, 400, "chat_template_kwargs")):
    try:
        c.chat(**{**ask, **wrong})
    except ollama.ResponseError as e:
        assert e.status_code == status and why in e.error, e
    else:
        raise AssertionError(wrong)
print("said:", said)
`

// Ollama's own Python client.
func TestOllamaClient(t *testing.T) {
	python := pythonWith(t, "ollama", "ollama==0.6.3")
	says(t, "said:", python, "-c", ollamaScript, asked(t))
}

const langchainScript = `
import sys
from langchain_openai import ChatOpenAI
c = ChatOpenAI(base_url=sys.argv[1] + "/v1", api_key="none", model="smollm2", temperature=0, max_tokens=32, seed=1, max_retries=0)
whole = c.invoke([("system", "You answer briefly."), ("human", "What is the capital of France?")])
assert whole.usage_metadata["total_tokens"] > 0, whole
said = "".join(p.content for p in c.stream([("system", "You answer briefly."), ("human", "What is the capital of France?")]))
assert said == whole.content, (said, whole.content)
print("said:", said)
`

// LangChain's client of the API.
func TestLangChainClient(t *testing.T) {
	python := pythonWith(t, "langchain_openai", "langchain-openai==1.7.4")
	says(t, "said:", python, "-c", langchainScript, asked(t))
}

const nodeScript = `
const OpenAI = require("openai").default ?? require("openai");
const assert = require("node:assert");
(async () => {
  const c = new OpenAI({ baseURL: process.argv[2] + "/v1", apiKey: "none", maxRetries: 0 });
  const ask = { model: "smollm2", temperature: 0, max_tokens: 32, seed: 1, messages: [{ role: "user", content: "What is the capital of France?" }] };
  const ids = [];
  for await (const m of c.models.list()) ids.push(m.id);
  assert.deepStrictEqual(ids, ["smollm2"]);
  const whole = await c.chat.completions.create(ask);
  const text = whole.choices[0].message.content;
  assert(text.includes("Paris"), text);
  let said = "";
  for await (const part of await c.chat.completions.create({ ...ask, stream: true })) said += part.choices[0].delta.content ?? "";
  assert.strictEqual(said, text);
  await assert.rejects(c.chat.completions.create({ ...ask, model: "other" }), (e) => e instanceof OpenAI.NotFoundError && e.code === "model_not_found");
  console.log("said:", said);
})().catch((e) => { console.error(e); process.exit(1); });
`

// nodeClient is the version of the client for Node.
const nodeClient = "openai@7.57.0"

// The official client for Node.
func TestOpenAINodeClient(t *testing.T) {
	npm := client(t, "npm")
	dir := t.TempDir()
	cmd := exec.Command(npm, "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts", nodeClient)
	cmd.Dir = dir
	if err := os.WriteFile(filepath.Join(dir, "package.json"), []byte(`{"name":"x","version":"1.0.0"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Skipf("%s can not be fetched: %v\n%s", nodeClient, err, out)
	}
	if err := os.WriteFile(filepath.Join(dir, "ask.cjs"), []byte(nodeScript), 0o600); err != nil {
		t.Fatal(err)
	}
	says(t, "said:", "node", filepath.Join(dir, "ask.cjs"), asked(t))
}
