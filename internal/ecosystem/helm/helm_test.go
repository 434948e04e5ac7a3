package helm

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gopkg.in/yaml.v3"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/ecosystemtest"
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/ecosystem/ocidist/ocidisttest"
)

func archiveOf(t *testing.T, chart string) []byte {
	t.Helper()
	b, err := ecosystemtest.Tarball(ecosystemtest.Member{Name: "app/values.yaml", Content: "image: registry.example/app:1\n"}, ecosystemtest.Member{Name: "app/Chart.yaml", Content: chart})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// repository is a repository with the files, and an index that says so.
func repository(t *testing.T, files map[string][]byte, index string) *httptest.Server {
	t.Helper()
	files["index.yaml"] = []byte(index)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, ok := files[strings.TrimPrefix(r.URL.Path, "/charts/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write(b)
	}))
	t.Cleanup(s.Close)
	return s
}

func collect(t *testing.T, item any) ([]artifact.Artifact, string, error) {
	t.Helper()
	client, err := fetch.New(fetch.Options{Retries: -1})
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	got, err := (&Ecosystem{Get: client}).Resolve(t.Context(), ecosystem.Want{Items: []any{item}, Work: work})
	return got, work, err
}

func TestAChartIsFoundInAnIndexAndServedWithOne(t *testing.T) {
	one, two := archiveOf(t, "apiVersion: v2\nname: app\nversion: 1.9.0\n"), archiveOf(t, "apiVersion: v2\nname: app\nversion: 1.10.0\nappVersion: \"7\"\nurls: [http://evil.example]\ndependencies: [{name: db, version: 1.x}]\n")
	srv := repository(t, map[string][]byte{"app-1.9.0.tgz": one, "files/app-1.10.0.tgz": two, "files/app-1.10.0.tgz.prov": []byte("signed")}, fmt.Sprintf(`
apiVersion: v1
entries:
  app:
  - {version: 1.9.0, digest: %s, urls: [app-1.9.0.tgz], created: "2024-01-02T03:04:05Z"}
  - {version: 1.10.0, digest: %s, urls: [files/app-1.10.0.tgz], created: "2024-02-02T03:04:05.5Z"}
  - {version: 2.0.0-rc.1, digest: x, urls: [x]}
`, artifact.Sum(one).Hex(), artifact.Sum(two).Hex()))
	found, work, err := collect(t, map[string]any{"chart": "app", "repo": srv.URL + "/charts/"})
	if err != nil {
		t.Fatal(err)
	}
	a := found[0]
	if a.Ref.String() != "helm/app@1.10.0" || len(a.Files) != 2 || a.Files[0].Digest != artifact.Sum(two) || a.Files[0].Origin != srv.URL+"/charts/files/app-1.10.0.tgz" {
		t.Fatalf("collected %+v", a)
	}
	at, _, _ := ecosystem.ParseMade(a.Files[1].Origin)
	if b, err := os.ReadFile(filepath.Join(work, at)); string(b) != "signed" || err != nil {
		t.Errorf("the proof is %q, %v", b, err)
	}
	rel := &ecosystemtest.Release{}
	rel.AddAll(a.Ref, map[string][]byte{"app-1.10.0.tgz": two, "app-1.10.0.tgz.prov": []byte("signed")})
	rel.AddAll(artifact.Ref{Kind: Kind, Name: "app", Version: "1.9.0"}, map[string][]byte{"app-1.9.0.tgz": one})
	rel.AddAll(artifact.Ref{Kind: Kind, Name: "liar", Version: "1.0.0"}, map[string][]byte{"liar-1.0.0.tgz": one})
	h, err := (&Ecosystem{}).Handler(rel)
	if err != nil {
		t.Fatal(err)
	}
	ecosystemtest.Check(t, ecosystemtest.Mirror{
		Handler: h,
		Files:   map[string][]byte{"/app-1.10.0.tgz": two, "/app-1.9.0.tgz": one, "/app-1.10.0.tgz.prov": []byte("signed")},
		Pages:   []string{"/index.yaml"},
		Absent:  []string{"/app-2.0.0.tgz", "/", "/app/index.yaml"},
	})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/index.yaml", nil))
	var index struct {
		Entries map[string][]map[string]any `yaml:"entries"`
	}
	if err := yaml.Unmarshal(w.Body.Bytes(), &index); err != nil {
		t.Fatal(err)
	}
	app := index.Entries["app"]
	if len(index.Entries) != 1 || len(app) != 2 || app[0]["version"] != "1.10.0" || app[0]["digest"] != artifact.Sum(two).Hex() || fmt.Sprint(app[0]["urls"]) != "[app-1.10.0.tgz]" || app[0]["appVersion"] != "7" {
		t.Errorf("the index says %s", w.Body)
	}
}

func TestAChartOfARegistryIsAnImageAndInTheIndex(t *testing.T) {
	c := ocidisttest.New()
	b := archiveOf(t, "apiVersion: v2\nname: app\nversion: 1.0.0+7\n")
	c.Tags["1.0.0_7"] = c.Put(map[string]any{"mediaType": ocidisttest.Manifest, "config": c.Blob(typeConfig, []byte("{}")), "layers": []ocidisttest.Descriptor{c.Blob(typeChart, b)}}).Digest
	srv := c.Serve(t, "charts/app", "")
	found, work, err := collect(t, map[string]any{"chart": "oci://" + strings.TrimPrefix(srv.URL, "http://") + "/charts/app", "version": "1.0.0+7"})
	if err != nil {
		t.Fatal(err)
	}
	if r := found[0].Ref; r.Kind != "oci" || !strings.HasSuffix(r.Name, "/charts/app") || r.Version != "1.0.0_7" {
		t.Fatalf("collected %s", r)
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
	h, err := (&Ecosystem{}).Handler(rel)
	if err != nil {
		t.Fatal(err)
	}
	ecosystemtest.Check(t, ecosystemtest.Mirror{Handler: h, Files: map[string][]byte{"/app-1.0.0+7.tgz": b}, Pages: []string{"/index.yaml"}})
}

func TestIndexesThatLieAreRefused(t *testing.T) {
	sum := strings.Repeat("a", 64)
	for name, tc := range map[string]struct{ entry, want string }{
		"no digest":        {"{version: 1.0.0, urls: [x.tgz]}", "states no SHA-256"},
		"another protocol": {"{version: 1.0.0, digest: " + sum + ", urls: ['file:///etc/passwd']}", "nothing is fetched from"},
		"no address":       {"{version: 1.0.0, digest: " + sum + "}", "where it is"},
		"not there":        {"{version: 2.0.0, digest: " + sum + ", urls: [x.tgz]}", "has no app 1.0.0"},
		"no version":       {"{version: v1.0.0/../x, digest: " + sum + ", urls: [x.tgz]}", "has no app 1.0.0"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := repository(t, map[string][]byte{}, "entries: {app: ["+tc.entry+"]}")
			if _, _, err := collect(t, map[string]any{"chart": "app@1.0.0", "repo": srv.URL + "/charts"}); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestEntriesThatAreNoChartsAreRefused(t *testing.T) {
	for _, item := range []any{
		"app@1.0.0", 7,
		map[string]any{"chart": "../app", "repo": "https://charts.example"},
		map[string]any{"chart": "app@x", "repo": "https://charts.example"},
		map[string]any{"chart": "app", "repo": "ftp://charts.example"},
		map[string]any{"chart": "app", "repo": "https://u:p@charts.example"},
		map[string]any{"chart": "app", "other": "x"},
		"oci://registry.example/charts/app", "oci://app:1",
	} {
		if o, err := parse(item); err == nil {
			t.Errorf("%v was read as %+v", item, o)
		}
	}
}

func TestWhatIsMissedIsNamedAsAnEntry(t *testing.T) {
	for path, want := range map[string]string{"/app-1.2.3.tgz": "app@1.2.3", "/my-app-2-1.2.3-rc.1+7.tgz": "my-app-2@1.2.3-rc.1+7", "/index.yaml": "", "/../app-1.2.3.tgz": ""} {
		if got, _ := (&Ecosystem{}).Wanted(path); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}
