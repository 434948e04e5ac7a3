package huggingface

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/ecosystemtest"
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/ecosystem/huggingface/huggingfacetest"
)

var head = strings.Repeat("c", 40) // constant

func start(t *testing.T, repository string) *huggingfacetest.Hub {
	t.Helper()
	h := &huggingfacetest.Hub{Repository: repository, Commit: head, Large: []string{"model.safetensors", "gguf/model.gguf"}, Files: map[string][]byte{
		"config.json": []byte(`{"model_type":"x"}`), "README.md": []byte("# card\n"), "model.safetensors": []byte("weights"), "gguf/model.gguf": []byte("GGUF weights"),
		"pytorch_model.bin": []byte("pickle"), "name with space.txt": []byte("text"),
	}}
	h.Start(t)
	return h
}

func collect(t *testing.T, h *huggingfacetest.Hub, item any) ([]artifact.Artifact, string, error) {
	t.Helper()
	client, err := fetch.New(fetch.Options{Retries: -1, Credentials: []fetch.Credential{{Host: strings.TrimPrefix(h.URL, "http://"), Token: h.Token}}})
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	got, err := (&Ecosystem{Get: client, Endpoint: h.URL + "/"}).Resolve(t.Context(), ecosystem.Want{Items: []any{item}, Work: work})
	return got, work, err
}

func release(t *testing.T, h *huggingfacetest.Hub, found []artifact.Artifact, work string) *ecosystemtest.Release {
	t.Helper()
	rel := &ecosystemtest.Release{}
	for _, a := range found {
		files := map[string][]byte{}
		for _, f := range a.Files {
			b := h.Files[f.Path]
			if at, _, ok := ecosystem.ParseMade(f.Origin); ok {
				var err error
				if b, err = os.ReadFile(filepath.Join(work, at)); err != nil {
					t.Fatal(err)
				}
			}
			if artifact.Sum(b) != f.Digest {
				t.Fatalf("%s is not what its digest says", f.Path)
			}
			files[f.Path] = b
		}
		if err := a.Check(); err != nil {
			t.Fatal(err)
		}
		rel.AddAll(a.Ref, files)
	}
	return rel
}

func get(t *testing.T, h http.Handler, path string) *httptest.ResponseRecorder {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
	return w
}

func TestARepositoryIsPinnedAndServedAsAHubDoes(t *testing.T) {
	h := start(t, "org/name")
	h.Token = "secret"
	found, work, err := collect(t, h, map[string]any{"repo": "org/name", "revision": "main", "exclude": []any{"*.bin"}})
	if err != nil {
		t.Fatal(err)
	}
	if got := found[0].Ref.String(); got != "hf/org/name@"+head {
		t.Fatalf("collected %s", got)
	}
	mirror, err := (&Ecosystem{}).Handler(release(t, h, found, work))
	if err != nil {
		t.Fatal(err)
	}
	ecosystemtest.Check(t, ecosystemtest.Mirror{
		Handler: mirror,
		Files: map[string][]byte{
			"/org/name/resolve/main/config.json":                h.Files["config.json"],
			"/org/name/resolve/" + head + "/gguf/model.gguf":    h.Files["gguf/model.gguf"],
			"/org/name/raw/main/README.md":                      h.Files["README.md"],
			"/org/name/resolve/refs%2Fheads%2Fmain/config.json": h.Files["config.json"],
			"/org/name/resolve/main/name%20with%20space.txt":    h.Files["name with space.txt"],
		},
		Pages: []string{
			"/api/models", "/api/datasets", "/api/models/org/name", "/api/models/org/name/revision/main?expand=xetEnabled", "/api/models/org/name/tree/main",
			"/api/models/org/name/tree/" + head + "/gguf", "/api/models/org/name/refs", "/api/models/org/name/commits/main",
		},
		Absent: []string{
			"/org/name/resolve/main/pytorch_model.bin", "/org/name/resolve/main/hub.json", "/org/name/resolve/other/config.json", "/org/other/resolve/main/config.json",
			"/datasets/org/name/resolve/main/config.json", "/api/models/org/name/xet-read-token/main", "/api/whoami-v2", "/api/models/org/name/tree/main/none", "/org/name",
		},
	})
	w := get(t, mirror, "/org/name/resolve/main/model.safetensors")
	sum := artifact.Sum(h.Files["model.safetensors"])
	if hd := w.Header(); hd.Get("X-Repo-Commit") != head || hd.Get("X-Linked-Etag") != `"`+sum.Hex()+`"` || hd.Get("X-Linked-Size") != "7" || hd.Get("X-Enisle-Digest") != string(sum) || hd.Get("X-Xet-Hash")+hd.Get("Link") != "" {
		t.Errorf("a file in LFS comes with %v", hd)
	}
	w = get(t, mirror, "/org/name/resolve/main/config.json")
	if hd := w.Header(); hd.Get("ETag") != `"`+huggingfacetest.Git(h.Files["config.json"])+`"` || hd.Get("X-Enisle-Digest") != string(artifact.Sum(h.Files["config.json"])) || hd.Get("X-Linked-Etag") != "" {
		t.Errorf("a plain file comes with %v", hd)
	}
	for path, code := range map[string]string{
		"/org/name/resolve/main/adapter_config.json": "EntryNotFound", "/org/name/resolve/v9/config.json": "RevisionNotFound", "/no/name/resolve/main/config.json": "RepoNotFound",
	} {
		w := get(t, mirror, path)
		if w.Header().Get("X-Error-Code") != code || (w.Header().Get("X-Repo-Commit") != "") != (code == "EntryNotFound") {
			t.Errorf("%s: %v", path, w.Header())
		}
	}
	var list []Entry
	w = get(t, mirror, "/api/models/org/name/tree/main?recursive=true&limit=2")
	if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || len(list) != 2 || strings.Contains(w.Body.String(), "xet") {
		t.Errorf("listed %s, %v", w.Body, err)
	}
	seen := len(list)
	for link := w.Header().Get("Link"); link != "" && seen < 50; link = w.Header().Get("Link") {
		at, _, _ := strings.Cut(strings.TrimPrefix(link, "<http://example.com"), ">")
		w = get(t, mirror, at)
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil {
			t.Fatal(err)
		}
		seen += len(list)
	}
	if seen != 6 { // five files and a directory
		t.Errorf("%d entries on all pages", seen)
	}
	for kind, body := range map[string]string{"application/json": `{"paths":["gguf","config.json","none"]}`, "application/x-www-form-urlencoded": "paths=gguf&paths=config.json&expand=False"} {
		req := httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api/models/org/name/paths-info/main", strings.NewReader(body))
		req.Header.Set("Content-Type", kind)
		w := httptest.NewRecorder()
		mirror.ServeHTTP(w, req)
		if err := json.Unmarshal(w.Body.Bytes(), &list); err != nil || len(list) != 2 {
			t.Errorf("%s: %s, %v", kind, w.Body, err)
		}
	}
	if w := get(t, mirror, "/api/models/org/name?blobs=true"); !strings.Contains(w.Body.String(), `"sha":"`+head) || !strings.Contains(w.Body.String(), sum.Hex()) {
		t.Errorf("described as %s", w.Body)
	}
}

func TestADatasetAndANameOfOneElementAreTheirOwn(t *testing.T) {
	rel := &ecosystemtest.Release{}
	for _, name := range []string{"datasets/org/name", "solo"} {
		h := start(t, name)
		found, work, err := collect(t, h, name+"@"+head)
		if err != nil {
			t.Fatal(err)
		}
		for _, a := range release(t, h, found, work).Artifacts(Kind) {
			files := map[string][]byte{}
			for _, f := range a.Files {
				files[f.Path] = h.Files[f.Path]
				if f.Path == HubFile {
					files[f.Path], err = os.ReadFile(filepath.Join(work, "hf-0", "hub"))
					if err != nil {
						t.Fatal(err)
					}
				}
			}
			rel.AddAll(a.Ref, files)
		}
	}
	mirror, err := (&Ecosystem{}).Handler(rel)
	if err != nil {
		t.Fatal(err)
	}
	// main is the only commit that there is, also when it was asked for by its hash.
	for path, want := range map[string]int{
		"/datasets/org/name/resolve/main/config.json": 200, "/api/datasets/org/name": 200, "/api/models/org/name": 404, "/org/name/resolve/main/config.json": 404,
		"/solo/resolve/main/gguf/model.gguf": 200, "/api/models/solo/tree/main/gguf": 200, "/api/models/solo/refs": 200,
	} {
		if w := get(t, mirror, path); w.Code != want {
			t.Errorf("%s: status %d, want %d", path, w.Code, want)
		}
	}
}

func TestHubsThatLieAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(e map[string]any)
		want   string
	}{
		"another content than git's hash": {func(e map[string]any) {
			if e["path"] == "config.json" {
				e["oid"] = strings.Repeat("0", 40)
			}
		}, "not what git's hash"},
		"a hash that is hidden": {func(e map[string]any) {
			if l, ok := e["lfs"].(map[string]any); ok {
				l["oid"] = strings.Repeat("*", 64)
			}
		}, "does not say which content"},
		"a path that leads out": {func(e map[string]any) {
			if e["path"] == "README.md" {
				e["path"] = "../../etc/passwd"
			}
		}, "leaves its directory"},
		"a file of our name": {func(e map[string]any) {
			if e["path"] == "README.md" {
				e["path"] = "HUB.json"
			}
		}, "of its own"},
	} {
		t.Run(name, func(t *testing.T) {
			h := start(t, "org/name")
			h.Change = tc.change
			if _, _, err := collect(t, h, "org/name"); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestEntriesThatAreNoRepositoriesAreRefused(t *testing.T) {
	e := &Ecosystem{Endpoint: "https://hub.example"}
	for _, item := range []any{
		"a/b/c", "../x", "org/..", "org/name@../x", "datasets", "spaces/x", 7,
		map[string]any{"repo": "org/name", "type": "space"},
		map[string]any{"repo": "org/name", "other": 1},
		map[string]any{"repo": "org/name", "endpoint": "ftp://hub.example"},
		map[string]any{"repo": "org/name", "include": 7},
		map[string]any{"repo": "org/name", "revision": 7},
	} {
		if o, err := e.order(item); err == nil {
			t.Errorf("%v was read as %+v", item, o)
		}
	}
	if _, err := (&Ecosystem{}).order("org/name"); err == nil || !strings.Contains(err.Error(), "no hub") {
		t.Errorf("without a hub: %v", err)
	}
}

func TestPatternsAlsoMatchDirectories(t *testing.T) {
	for _, tc := range []struct {
		pattern, path string
		want          bool
	}{
		{"*.json", "a/b.json", true}, {"*.json", "a.jsonl", false}, {"gguf/*", "gguf/x", true}, {"a?c", "abc", true}, {"*", "", true}, {"", "a", false}, {"a*b*c", "aXbYbZc", true}, {"a*b*c", "aXbY", false},
	} {
		if got := match(tc.pattern, tc.path); got != tc.want {
			t.Errorf("%q and %q: %t", tc.pattern, tc.path, got)
		}
	}
}

func TestWhatIsMissedIsNamedAsAnEntry(t *testing.T) {
	for path, want := range map[string]string{
		"/org/name/resolve/main/config.json": "org/name@main", "/api/datasets/org/name/revision/v1": "datasets/org/name@v1", "/api/models/solo": "solo@main",
		"/org/name/resolve/main/adapter_config.json": "", "/api/whoami-v2": "", "/org/name/resolve/../config.json": "", "/": "",
	} {
		if got, _ := (&Ecosystem{}).Wanted(path); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

func FuzzPaths(f *testing.F) {
	for _, s := range []string{"/org/name/resolve/main/a", "/api/models/x/tree/%2e%2e/..", "/datasets//x"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, ok := parseCall(s, nil)
		if ok && c.what != "list" && (!idForm.MatchString(c.id.name) || slices.Contains(strings.Split(c.id.name, "/"), "..")) {
			t.Errorf("%q: read as %+v", s, c)
		}
	})
}
