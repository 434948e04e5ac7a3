package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/cargo"
	"enisle/internal/ecosystem/ecosystemtest"
	"enisle/internal/ecosystem/gomod"
	"enisle/internal/ecosystem/helm"
	"enisle/internal/ecosystem/huggingface"
	"enisle/internal/ecosystem/oci"
	"enisle/internal/ecosystem/ocidist/ocidisttest"
	"enisle/internal/sandbox"
)

// What was collected is installed by pip and npm with nothing else to be reached; what a
// package needs and was not brought is named, and pack refuses it unless told why.
func TestRehearsalNamesWhatIsMissing(t *testing.T) {
	client(t, "npm")
	if _, err := exec.LookPath("unshare"); err != nil || os.Getuid() != 0 {
		t.Skip("no network namespace can be made: it takes root and unshare")
	}
	dir, enisle := sites(t, []byte("x"))
	request := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "enisle.yaml"), []byte("name: x\nbring:\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(filepath.Join(dir, "enisle"), "-C", "low", "collect", "-q")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("the registries can not be reached: %v: %s", err, out)
		}
	}
	refused := func(want string, args ...string) {
		t.Helper()
		cmd := exec.Command(filepath.Join(dir, "enisle"), append([]string{"-C", "low"}, args...)...)
		cmd.Dir = dir
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 3 || !strings.Contains(string(out), want) {
			t.Errorf("%v: exit %d: %s, want %q", args, cmd.ProcessState.ExitCode(), out, want)
		}
	}
	request("  pypi: [ \"idna==3.10\" ]\n  npm: [ \"semver@7.6.3\" ]\n")
	if out := enisle("-C", "low", "rehearse"); strings.Count(out, "installed") != 2 {
		t.Error(out)
	}
	// A crate of Rust and a module of Go with what they need, and an image for another machine.
	client(t, "cargo")
	client(t, "skopeo")
	image := ocidisttest.New()
	image.Tags["1.4"] = image.List(image.Image("linux", "amd64", layer(t, "../../docs")), image.Image("linux", "s390x", layer(t, "../../scripts"))).Digest
	registry := image.Serve(t, "team/app", "")
	t.Setenv("NO_PROXY", "127.0.0.1")
	t.Setenv("no_proxy", "127.0.0.1")
	host := strings.TrimPrefix(registry.URL, "http://")
	request("  cargo: [ \"bytes@1.9.0\" ]\n  gomod: [ \"rsc.io/quote@v1.5.2\" ]\n  oci: [ {image: \"" + host + "/team/app:1.4\", platforms: [linux/s390x]} ]\n")
	if out := enisle("-C", "low", "rehearse"); strings.Count(out, "installed") != 3 {
		t.Error(out)
	}
	// express alone, without what it depends on.
	request("  npm: [ \"express@4.21.1\" ]\n")
	refused("missing    npm: accepts@latest", "rehearse")
	refused("failed its rehearsal", "pack", "--to", "media")
	enisle("-C", "low", "pack", "--to", "media", "--despite", "the rest is there already")
	if out := enisle("-C", "low", "ledger", "search", "--json"); !strings.Contains(out, "the rest is there already") {
		t.Errorf("it is not on the record: %.300s", out)
	}
}

// What is not there is named by each client: a crate that another needs, a file of a
// module, an image of a list.
func TestRehearsalsNameWhatTheyLack(t *testing.T) {
	client(t, "cargo")
	client(t, "go")
	client(t, "skopeo")
	rel := &ecosystemtest.Release{}
	crate, err := ecosystemtest.Tarball(ecosystemtest.Member{Name: "lone-1.0.0/Cargo.toml", Content: "[package]\nname = \"lone\"\nversion = \"1.0.0\"\n"}, ecosystemtest.Member{Name: "lone-1.0.0/src/lib.rs"})
	if err != nil {
		t.Fatal(err)
	}
	rel.AddAll(artifact.Ref{Kind: "cargo", Name: "lone", Version: "1.0.0"}, map[string][]byte{
		"lone-1.0.0.crate": crate,
		"index.json": []byte(`{"name":"lone","vers":"1.0.0","deps":[{"name":"not-brought","req":"^1","features":[],"optional":false,"default_features":true,"target":null,"kind":"normal"}],"cksum":"` +
			artifact.Sum(crate).Hex() + `","features":{},"yanked":false}`),
	})
	rel.AddAll(artifact.Ref{Kind: "gomod", Name: "code.example/lone", Version: "v1.0.0"}, map[string][]byte{"v1.0.0.zip": crate, "v1.0.0.mod": []byte("module code.example/lone\n")})
	rel.AddAll(artifact.Ref{Kind: "oci", Name: "registry.example/team/lone", Version: "1.0"}, map[string][]byte{"manifests/" + artifact.Sum(crate).Hex(): crate})
	for _, tc := range []struct {
		eco  ecosystem.Ecosystem
		want string
	}{
		{&cargo.Ecosystem{}, "no matching package named `not-brought` found"},
		{&gomod.Ecosystem{}, "code.example/lone@v1.0.0"},
		{&oci.Ecosystem{}, "oci/registry.example/team/lone@1.0: skopeo: "},
	} {
		s := serve(t, tc.eco, rel, "")
		r, ok := tc.eco.(ecosystem.Rehearser)
		if !ok {
			t.Fatalf("%s is not rehearsed", tc.eco.Name())
		}
		err := r.Rehearse(t.Context(), ecosystem.Rehearsal{Runner: sandbox.Exec{}, Base: s.URL, Work: t.TempDir(), Artifacts: rel.Artifacts(tc.eco.Name())})
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", tc.eco.Name(), err, tc.want)
		}
	}
}

// Charts are pulled by helm and repositories downloaded by hf; an archive that is another
// chart than it is called, and a commit that is not there, are named.
func TestChartsAndModelsAreRehearsed(t *testing.T) {
	program, bin := tool(t, helmModule), hubClient(t)
	alone(t)
	for _, v := range []string{"HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"} {
		t.Setenv(v, t.TempDir())
	}
	t.Setenv("PATH", filepath.Dir(program)+":"+bin+":"+os.Getenv("PATH"))
	chart, err := ecosystemtest.Tarball(ecosystemtest.Member{Name: "app/Chart.yaml", Content: "apiVersion: v2\nname: app\nversion: 1.2.3\n"})
	if err != nil {
		t.Fatal(err)
	}
	charts := &ecosystemtest.Release{}
	charts.AddAll(artifact.Ref{Kind: "helm", Name: "app", Version: "1.2.3"}, map[string][]byte{"app-1.2.3.tgz": chart})
	wrong := &ecosystemtest.Release{}
	wrong.AddAll(artifact.Ref{Kind: "helm", Name: "other", Version: "1.2.3"}, map[string][]byte{"other-1.2.3.tgz": chart})
	_, models := hub(t, "org/name", "org/name")
	hubAlone(t, "") // but for what the rehearsal says
	for _, tc := range []struct {
		eco       ecosystem.Ecosystem
		base      string
		artifacts []artifact.Artifact
		want      string
	}{
		{&helm.Ecosystem{}, serve(t, &helm.Ecosystem{}, charts, "").URL, charts.Artifacts("helm"), ""},
		{&helm.Ecosystem{}, serve(t, &helm.Ecosystem{}, wrong, "").URL, wrong.Artifacts("helm"), "helm/other@1.2.3: helm: "},
		{&huggingface.Ecosystem{}, models.URL, models.release.Artifacts("hf"), ""},
		{&huggingface.Ecosystem{}, models.URL, []artifact.Artifact{{Ref: artifact.Ref{Kind: "hf", Name: models.release.Artifacts("hf")[0].Ref.Name, Version: strings.Repeat("0", 40)}}}, "hf: "},
	} {
		r, ok := tc.eco.(ecosystem.Rehearser)
		if !ok || len(tc.artifacts) == 0 {
			t.Fatalf("%s is not rehearsed, or has nothing", tc.eco.Name())
		}
		err := r.Rehearse(t.Context(), ecosystem.Rehearsal{Runner: sandbox.Exec{}, Base: tc.base, Work: t.TempDir(), Artifacts: tc.artifacts})
		if tc.want == "" && err != nil || tc.want != "" && (err == nil || !strings.Contains(err.Error(), tc.want)) {
			t.Errorf("%s: %v, want %q", tc.eco.Name(), err, tc.want)
		}
	}
}
