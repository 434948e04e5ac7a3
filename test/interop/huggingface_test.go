package interop

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/ecosystemtest"
	"enisle/internal/ecosystem/huggingface"
	"enisle/internal/ecosystem/huggingface/huggingfacetest"
)

// hubClient returns the directory of programs of a virtual environment with the
// hub's own library, and with the one for Xet, which must find nothing to do.
func hubClient(t *testing.T) string {
	t.Helper()
	python := client(t, "python3")
	dir, err := filepath.Abs(filepath.Join("..", "..", ".cache", "tools", "hf-2.4.0"))
	if err != nil {
		t.Fatal(err)
	}
	bin := filepath.Join(dir, "bin")
	if _, err := os.Stat(filepath.Join(bin, "hf")); err == nil {
		return bin
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	for _, argv := range [][]string{{python, "-m", "venv", dir}, {filepath.Join(bin, "pip"), "install", "-q", "--disable-pip-version-check", "huggingface_hub==2.4.0", "hf_xet"}} {
		if out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Skipf("huggingface_hub cannot be installed: %v: %.300s", err, out)
		}
	}
	return bin
}

const hubCommit = "0123456789abcdef0123456789abcdef01234567"

// hub is a hub of the test's own, and a mirror of what was collected from it.
func hub(t *testing.T, repository string, item any) (*huggingfacetest.Hub, *island) {
	t.Helper()
	weights := make([]byte, 5<<20)
	_, _ = rand.Read(weights) // never fails
	h := &huggingfacetest.Hub{Repository: repository, Commit: hubCommit, Large: []string{"model.safetensors"}, Files: map[string][]byte{
		"config.json": []byte(`{"model_type":"llama"}`), "README.md": []byte("---\nlicense: mit\n---\n# A card\n"), "onnx/config.json": []byte(`{}`), "model.safetensors": weights,
	}}
	h.Start(t)
	out, work := outside(t), t.TempDir()
	found, err := (&huggingface.Ecosystem{Get: out, Endpoint: h.URL}).Resolve(t.Context(), ecosystem.Want{Items: []any{item}, Work: work})
	if err != nil {
		t.Fatal(err)
	}
	return h, serveAt(t, "/hf", &huggingface.Ecosystem{}, fetched(t, out, found, work))
}

// serveAt starts a mirror under a prefix that is not its name.
func serveAt(t *testing.T, prefix string, eco ecosystem.Ecosystem, rel *ecosystemtest.Release) *island {
	t.Helper()
	h, err := eco.Handler(rel)
	if err != nil {
		t.Fatal(err)
	}
	s := &island{release: rel}
	mux := http.NewServeMux()
	mux.Handle(prefix+"/", http.StripPrefix(prefix, h))
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.paths = append(s.paths, r.Method+" "+r.URL.Path)
		s.mu.Unlock()
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// hubAlone points the client at a mirror and takes away what else it may know.
func hubAlone(t *testing.T, endpoint string) {
	t.Helper()
	for _, v := range os.Environ() {
		if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "HF_") {
			t.Setenv(name, "") // so that it is put back
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Setenv("HF_ENDPOINT", endpoint)
	t.Setenv("HF_HOME", t.TempDir())
	t.Setenv("NO_PROXY", "127.0.0.1")
	t.Setenv("no_proxy", "127.0.0.1")
}

func TestTheHubsClientDownloadsAModel(t *testing.T) {
	bin := hubClient(t)
	h, s := hub(t, "org/name", "org/name")
	hubAlone(t, s.URL+"/hf")
	to := t.TempDir()
	run(t, "", filepath.Join(bin, "hf"), "download", "org/name", "--local-dir", to)
	for path, want := range h.Files {
		b, err := os.ReadFile(filepath.Join(to, path))
		if err != nil || artifact.Sum(b) != artifact.Sum(want) {
			t.Errorf("%s: %d bytes, %v", path, len(b), err)
		}
	}
	if s.asked("xet") {
		t.Error("it asked for Xet")
	}
}

// probe downloads into the cache, lists, looks for a file that is not there, and
// prints what it came to.
const probe = `
import json, os
from huggingface_hub import HfApi, snapshot_download, file_exists, hf_hub_download, try_to_load_from_cache
from huggingface_hub.utils import EntryNotFoundError, RevisionNotFoundError, RepositoryNotFoundError
api, out = HfApi(), {}
out["at"] = snapshot_download("org/name", allow_patterns=["*.json", "*.safetensors"])
out["again"] = snapshot_download("org/name", revision="0123456789abcdef0123456789abcdef01234567")
info = api.model_info("org/name", files_metadata=True)
out["sha"], out["tags"], out["files"] = info.sha, info.tags, sorted(s.rfilename for s in info.siblings)
out["tree"] = sorted(e.path for e in api.list_repo_tree("org/name", recursive=True))
out["top"] = sorted(e.path for e in api.list_repo_tree("org/name"))
out["info"] = [e.path for e in api.get_paths_info("org/name", ["model.safetensors", "none"])]
out["refs"] = [(b.name, b.target_commit) for b in api.list_repo_refs("org/name").branches]
out["exists"] = [file_exists("org/name", "config.json"), file_exists("org/name", "adapter_config.json")]
out["models"] = [m.id for m in api.list_models(search="nam")]
for key, kw, kind in [("entry", dict(repo_id="org/name", filename="adapter_config.json"), EntryNotFoundError), ("revision", dict(repo_id="org/name", filename="config.json", revision="v9"), RevisionNotFoundError), ("repo", dict(repo_id="no/name", filename="config.json"), RepositoryNotFoundError)]:
    try:
        hf_hub_download(**kw)
    except kind:
        out[key] = True
print(json.dumps(out))
`

func TestTheHubsLibraryReadsTheMirror(t *testing.T) {
	bin := hubClient(t)
	h, s := hub(t, "org/name", map[string]any{"repo": "org/name", "revision": "main", "exclude": []any{"README.md"}})
	hubAlone(t, s.URL+"/hf")
	printed := strings.TrimSpace(run(t, "", filepath.Join(bin, "python3"), "-c", probe))
	var got struct {
		At, Again, SHA         string
		Tags, Files, Tree, Top []string
		Info, Models           []string
		Refs                   [][]string
		Exists                 []bool
		Entry, Revision, Repo  bool
	}
	if err := json.Unmarshal([]byte(printed[strings.LastIndexByte(printed, '\n')+1:]), &got); err != nil {
		t.Fatalf("%v: %s", err, printed)
	}
	if filepath.Base(got.At) != hubCommit || got.Again != got.At || got.SHA != hubCommit || len(got.Files) != 3 || len(got.Tree) != 4 || len(got.Top) != 3 || len(got.Info) != 1 ||
		len(got.Refs) != 1 || got.Refs[0][1] != hubCommit || !got.Exists[0] || got.Exists[1] || len(got.Models) != 1 || !got.Entry || !got.Revision || !got.Repo {
		t.Errorf("got %+v", got)
	}
	b, err := os.ReadFile(filepath.Join(got.At, "model.safetensors"))
	if err != nil || artifact.Sum(b) != artifact.Sum(h.Files["model.safetensors"]) {
		t.Errorf("%d bytes, %v", len(b), err)
	}
}

func TestTheHubsClientDownloadsADataset(t *testing.T) {
	bin := hubClient(t)
	_, s := hub(t, "datasets/org/name", map[string]any{"repo": "org/name", "type": "dataset"})
	hubAlone(t, s.URL+"/hf")
	to := t.TempDir()
	run(t, "", filepath.Join(bin, "hf"), "download", "org/name", "--repo-type", "dataset", "--local-dir", to)
	if _, err := os.Stat(filepath.Join(to, "onnx", "config.json")); err != nil {
		t.Error(err)
	}
}
