package interop

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/helm"
	"enisle/internal/ecosystem/oci"
	"enisle/internal/ecosystem/ocidist/ocidisttest"
	"enisle/internal/sandbox"
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

// The images that charts name when helm renders them with the given values come with
// them: those of a repository and those of a registry, in one collection.
func TestImagesComeWithTheirCharts(t *testing.T) {
	program := tool(t, helmModule)
	host := distribution(t)
	alone(t)
	for _, v := range []string{"HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"} {
		t.Setenv(v, t.TempDir())
	}
	t.Setenv("PATH", filepath.Dir(program)+":"+os.Getenv("PATH"))
	for name, tag := range map[string]string{"team/app": "1.4", "library/busybox": "latest", "library/nginx": "1.16.0"} {
		c := ocidisttest.New()
		c.Tags[tag] = c.Image("linux", "amd64", layer(t, "../../scripts")).Digest
		if err := c.Push(t.Context(), "http://"+host+"/v2/"+name); err != nil {
			t.Fatal(err)
		}
	}
	dir := t.TempDir()
	repo := filepath.Join(dir, "repo")
	for _, name := range []string{"front", "back"} { // each has an nginx, and a busybox in a hook
		run(t, dir, program, "create", name)
		run(t, dir, program, "package", name, "--version", "1.2.3", "--destination", repo)
	}
	run(t, dir, program, "push", filepath.Join(repo, "back-1.2.3.tgz"), "oci://"+host+"/charts", "--plain-http")
	run(t, dir, program, "repo", "index", repo)
	charts := httptest.NewServer(http.FileServer(http.Dir(repo)))
	t.Cleanup(charts.Close)
	write(t, filepath.Join(dir, "ours.yaml"), "image: {repository: "+host+"/team/app, tag: \"1.4\"}\n")

	out := outside(t)
	collect := func(items ...any) ([]artifact.Artifact, error) {
		return (&helm.Ecosystem{Get: out, Run: sandbox.Exec{}, Images: &oci.Ecosystem{Get: out}}).Resolve(t.Context(), ecosystem.Want{Work: t.TempDir(), Dir: dir, Items: items, Target: ecosystem.Target{OS: "linux", Arch: "amd64"}})
	}
	found, err := collect(
		map[string]any{"chart": "front@1.2.3", "repo": charts.URL, "values": "ours.yaml", "images": host + "/library"},
		map[string]any{"chart": "oci://" + host + "/charts/back", "version": "1.2.3", "images": host + "/library"})
	if err != nil {
		t.Fatal(err)
	}
	at := strings.Replace(host, ":", "_", 1)
	var got []string
	for _, a := range found {
		got = append(got, strings.Replace(a.Ref.String(), at, "HOST", 1))
	}
	if want := []string{"helm/front@1.2.3", "oci/HOST/charts/back@1.2.3", "oci/HOST/library/busybox@latest", "oci/HOST/library/nginx@1.16.0", "oci/HOST/team/app@1.4"}; !slices.Equal(got, want) {
		t.Errorf("collected %v, want %v", got, want)
	}
	if _, err := collect(map[string]any{"chart": "front@1.2.3", "repo": charts.URL, "images": true}); err == nil || !strings.Contains(err.Error(), "names no registry") {
		t.Errorf("images of nowhere: %v", err)
	}
	if _, err := collect(map[string]any{"chart": "front@1.2.3", "repo": charts.URL, "images": host, "values": "missing.yaml"}); err == nil {
		t.Error("values that are not there are passed over")
	}
}
