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
