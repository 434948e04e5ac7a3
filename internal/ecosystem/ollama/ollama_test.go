package ollama

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/ecosystemtest"
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/ecosystem/oci"
	"enisle/internal/ecosystem/ocidist/ocidisttest"
)

// ggufFile is a model without tensors: GGUF version 3, with two facts.
func ggufFile(template string) []byte {
	var b bytes.Buffer
	text := func(s string) {
		_ = binary.Write(&b, binary.LittleEndian, uint64(len(s)))
		b.WriteString(s)
	}
	b.WriteString("GGUF")
	_ = binary.Write(&b, binary.LittleEndian, uint32(3))
	_ = binary.Write(&b, binary.LittleEndian, []uint64{0, 2})
	for _, kv := range [][2]string{{"general.architecture", "llama"}, {"tokenizer.chat_template", template}} {
		text(kv[0])
		_ = binary.Write(&b, binary.LittleEndian, uint32(8))
		text(kv[1])
	}
	for b.Len()%32 != 0 {
		b.WriteByte(0)
	}
	return b.Bytes()
}

const chatML = "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n'}}{% endfor %}"

// mirror is what a site serves under /v2/.
func mirror(t *testing.T, rel ecosystem.Release) *httptest.Server {
	t.Helper()
	h, err := (&oci.Ecosystem{Beside: []oci.Beside{{Kind: Kind, Repositories: Repositories}}}).Handler(rel)
	if err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle("/v2/", http.StripPrefix("/v2", h))
	s := httptest.NewServer(mux)
	t.Cleanup(s.Close)
	return s
}

// pull makes the requests that Ollama's client makes for a model, and returns its
// parts by media type: the manifest; for each part its size with HEAD; a whole GET,
// of which it takes only the address that the answer gives as Location; and ranges
// of that address.
func pull(t *testing.T, base, name, tag string) map[string][]byte {
	t.Helper()
	do := func(method, at string, header ...string) (*http.Response, []byte) {
		req, err := http.NewRequestWithContext(t.Context(), method, at, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("User-Agent", "ollama/0.12.3 (amd64 linux) Go/go1.24.1")
		for i := 0; i+1 < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		if err != nil {
			t.Fatal(err)
		}
		return res, b
	}
	res, b := do(http.MethodGet, base+"/v2/"+name+"/manifests/"+tag, "Accept", typeManifest)
	var m struct {
		Config descriptor   `json:"config"`
		Layers []descriptor `json:"layers"`
	}
	if err := json.Unmarshal(b, &m); err != nil || res.StatusCode != http.StatusOK {
		t.Fatalf("%s: %s: %s, %v", name, res.Status, b, err)
	}
	parts := map[string][]byte{}
	for _, l := range append(m.Layers, m.Config) {
		at := base + "/v2/" + name + "/blobs/" + string(l.Digest)
		if res, _ := do(http.MethodHead, at); res.ContentLength != l.Size {
			t.Fatalf("HEAD %s: %d bytes, want %d", at, res.ContentLength, l.Size)
		}
		res, _ := do(http.MethodGet, at)
		if res.StatusCode != http.StatusOK && res.StatusCode != http.StatusTemporaryRedirect {
			t.Fatalf("GET %s: %s", at, res.Status)
		}
		direct, err := res.Location()
		if err != nil || direct.Hostname() != "127.0.0.1" {
			t.Fatalf("GET %s: Location %v, %v", at, direct, err)
		}
		var whole []byte
		for from := int64(0); from < l.Size; from += 100 {
			res, part := do(http.MethodGet, direct.String(), "Range", fmt.Sprintf("bytes=%d-%d", from, min(from+100, l.Size)-1))
			if res.StatusCode != http.StatusPartialContent {
				t.Fatalf("a range: %s", res.Status)
			}
			whole = append(whole, part...)
		}
		if artifact.Sum(whole) != l.Digest {
			t.Fatalf("%s: %d bytes are not what the digest says", l.MediaType, len(whole))
		}
		parts[l.MediaType] = whole
	}
	return parts
}

func TestAModelIsCollectedAndPulledAsOllamaDoes(t *testing.T) {
	c := ocidisttest.New()
	weights := ggufFile("x")
	c.Tags["8b"] = c.Put(map[string]any{
		"mediaType": typeManifest, "config": c.Blob(typeConfig, []byte(`{"model_format":"gguf"}`)),
		"layers": []ocidisttest.Descriptor{c.Blob(typeModel, weights), c.Blob("application/vnd.ollama.image.license", []byte("MIT"))},
	}).Digest
	srv := c.Serve(t, "library/llama3", "")
	client, err := fetch.New(fetch.Options{Retries: -1})
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	found, err := (&Ecosystem{Get: client, Registry: srv.URL}).Resolve(t.Context(), ecosystem.Want{Items: []any{"llama3:8b"}, Work: work})
	if err != nil {
		t.Fatal(err)
	}
	if got := found[0].Ref.String(); got != "ollama/library/llama3@8b" || found[0].Check() != nil {
		t.Fatalf("collected %s, %v", got, found[0].Check())
	}
	files, err := c.Files(found[0].Files, func(f artifact.File) ([]byte, error) {
		at, _, _ := ecosystem.ParseMade(f.Origin)
		return os.ReadFile(filepath.Join(work, at))
	})
	if err != nil {
		t.Fatal(err)
	}
	rel := &ecosystemtest.Release{}
	rel.AddAll(found[0].Ref, files)
	rel.AddAll(artifact.Ref{Kind: "model", Name: "llama3"}, map[string][]byte{"other.gguf": ggufFile("other")}) // gets no name that is taken
	s := mirror(t, rel)
	parts := pull(t, s.URL, "library/llama3", "8b")
	if !bytes.Equal(parts[typeModel], weights) || string(parts["application/vnd.ollama.image.license"]) != "MIT" || len(parts) != 3 {
		t.Errorf("pulled %d parts", len(parts))
	}
	h, err := (&oci.Ecosystem{Beside: []oci.Beside{{Kind: Kind, Repositories: Repositories}}}).Handler(rel)
	if err != nil {
		t.Fatal(err)
	}
	ecosystemtest.Check(t, ecosystemtest.Mirror{
		Handler: h,
		Files:   map[string][]byte{"/library/llama3/blobs/" + string(artifact.Sum(weights)): weights, "/library/llama3/manifests/8b": c.Manifests[c.Tags["8b"]]},
		Pages:   []string{"/library/llama3/tags/list"},
		Absent:  []string{"/library/llama3/manifests/latest", "/library/llama3/blobs/" + string(artifact.Sum(ggufFile("other"))), "/llama4/manifests/8b"},
	})
}

func TestAReleasedFileIsOfferedAsAModel(t *testing.T) {
	rel := &ecosystemtest.Release{}
	weights := ggufFile(chatML)
	rel.AddAll(artifact.Ref{Kind: "model", Name: "smol-135m"}, map[string][]byte{"smol.Q8_0.gguf": weights, "README.md": []byte("card")})
	rel.AddAll(artifact.Ref{Kind: "hf", Name: "Org/Name-GGUF", Version: strings.Repeat("c", 40)}, map[string][]byte{"Q4_K_M.gguf": ggufFile(""), "Q8_0.gguf": weights, "mmproj-f16.gguf": weights, "bad.gguf": []byte("GGUF"), "x-00001-of-00002.gguf": weights})
	rel.AddAll(artifact.Ref{Kind: "hf", Name: "datasets/org/name", Version: strings.Repeat("c", 40)}, map[string][]byte{"x.gguf": weights})
	s := mirror(t, rel)
	for _, tag := range []string{"latest", "smol.Q8_0"} {
		parts := pull(t, s.URL, "library/smol-135m", tag)
		if !bytes.Equal(parts[typeModel], weights) || !strings.Contains(string(parts[typeTemplate]), "<|im_start|>assistant") || string(parts[typeParams]) != `{"stop":["\u003c|im_start|\u003e","\u003c|im_end|\u003e"]}` {
			t.Errorf("%s: pulled %q", tag, parts)
		}
		var c config
		if err := json.Unmarshal(parts[typeConfig], &c); err != nil || c.Format != "gguf" || c.Family != "llama" {
			t.Errorf("described as %s, %v", parts[typeConfig], err)
		}
	}
	if parts := pull(t, s.URL, "Org/Name-GGUF", "Q4_K_M"); parts[typeTemplate] != nil || parts[typeModel] == nil {
		t.Errorf("without a template: pulled %q", parts)
	}
	for _, path := range []string{"/v2/Org/Name-GGUF/manifests/latest", "/v2/Org/Name-GGUF/manifests/bad", "/v2/Org/Name-GGUF/manifests/mmproj-f16", "/v2/Org/Name-GGUF/manifests/x-00001-of-00002", "/v2/datasets/org/name/manifests/latest"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, s.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if _ = res.Body.Close(); res.StatusCode != http.StatusNotFound {
			t.Errorf("%s: %s", path, res.Status)
		}
	}
}

func TestEntriesThatAreNoModelsAreRefused(t *testing.T) {
	e := &Ecosystem{Registry: "https://registry.example"}
	for _, item := range []any{"a/b/c:1", "../x", "a..b", "", 7, map[string]any{"model": "x", "other": 1}, map[string]any{"model": "x", "registry": "file:///x"}, map[string]any{"model": "x", "registry": 7}} {
		if o, err := e.order(item); err == nil {
			t.Errorf("%v was read as %+v", item, o)
		}
	}
	if _, err := (&Ecosystem{}).order("llama3"); err == nil || !strings.Contains(err.Error(), "no registry") {
		t.Errorf("without a registry: %v", err)
	}
	if o, err := e.order("llama3"); err != nil || o.Path != "library/llama3" || o.Tag != "latest" {
		t.Errorf("read as %+v, %v", o, err)
	}
}

func TestWhatIsMissedIsNamedAsAnEntry(t *testing.T) {
	for path, want := range map[string]string{"/library/llama3/manifests/8b": "llama3:8b", "/team/m/manifests/latest": "team/m:latest", "/a/b/c/manifests/x": "", "/library/llama3/blobs/x": ""} {
		if got, _ := (&Ecosystem{}).Wanted(path); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}
