package interop

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/helm"
	"enisle/internal/ecosystem/oci"
)

const helmModule = "helm.sh/helm/v3/cmd/helm@v3.19.0"

func TestHelmInstallsChartsFromTheMirror(t *testing.T) {
	program := tool(t, helmModule)
	host := distribution(t)
	alone(t)
	for _, v := range []string{"HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"} {
		t.Setenv(v, t.TempDir())
	}
	// Two charts of Helm's own making, one in a repository and one at a registry.
	dir := t.TempDir()
	repo := filepath.Join(dir, "repo")
	for _, name := range []string{"front", "back"} {
		run(t, dir, program, "create", name)
		run(t, dir, program, "package", name, "--version", "1.2.3+7", "--destination", repo)
	}
	run(t, dir, program, "push", filepath.Join(repo, "back-1.2.3+7.tgz"), "oci://"+host+"/charts", "--plain-http")
	if err := os.Rename(filepath.Join(repo, "back-1.2.3+7.tgz"), filepath.Join(dir, "back.tgz")); err != nil {
		t.Fatal(err)
	}
	run(t, dir, program, "repo", "index", repo)
	charts := httptest.NewServer(http.FileServer(http.Dir(repo)))
	t.Cleanup(charts.Close)

	out, work := outside(t), t.TempDir()
	found, err := (&helm.Ecosystem{Get: out}).Resolve(t.Context(), ecosystem.Want{Work: work, Items: []any{
		map[string]any{"chart": "front@1.2.3+7", "repo": charts.URL}, map[string]any{"chart": "oci://" + host + "/charts/back", "version": "1.2.3+7"},
	}})
	if err != nil {
		t.Fatal(err)
	}
	rel := fetched(t, out, found, work)
	s := serveAt(t, "/helm", &helm.Ecosystem{}, rel)
	images := serveAt(t, "/v2", &oci.Ecosystem{}, rel)
	run(t, "", program, "repo", "add", "island", s.URL+"/helm")
	for name, from := range map[string]string{"front": filepath.Join(repo, "front-1.2.3+7.tgz"), "back": filepath.Join(dir, "back.tgz")} {
		want, err := os.ReadFile(from)
		if err != nil {
			t.Fatal(err)
		}
		to := t.TempDir()
		run(t, "", program, "pull", "island/"+name, "--version", "1.2.3+7", "--destination", to)
		got, err := os.ReadFile(filepath.Join(to, name+"-1.2.3+7.tgz"))
		if err != nil || artifact.Sum(got) != artifact.Sum(want) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		if text := run(t, "", program, "template", "island/"+name, "--version", "1.2.3+7"); !strings.Contains(text, "kind: Deployment") {
			t.Errorf("%s: %s", name, text)
		}
	}
	to := t.TempDir()
	at := "oci://" + strings.TrimPrefix(images.URL, "http://") + "/charts/back"
	run(t, "", program, "pull", at, "--version", "1.2.3+7", "--plain-http", "--destination", to)
	if _, err := os.Stat(filepath.Join(to, "back-1.2.3+7.tgz")); err != nil {
		t.Error(err)
	}
}
