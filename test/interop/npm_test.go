package interop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/ecosystemtest"
	"enisle/internal/ecosystem/npm"
	"enisle/internal/sandbox"
)

// packages is a release of a package and of what it depends on, in a scope.
func packages(t *testing.T) *ecosystemtest.Release {
	t.Helper()
	rel := &ecosystemtest.Release{}
	for _, p := range []struct{ name, version, file, more string }{
		{"island-top", "1.0.0", "island-top-1.0.0.tgz", `,"dependencies":{"@island/dep":"^9"},"bin":"index.js"`},
		{"@island/dep", "9.0.0", "dep-9.0.0.tgz", ""},
		{"@island/dep", "9.10.0", "dep-9.10.0.tgz", ""},
		{"@island/dep", "9.11.0-rc.1", "dep-9.11.0-rc.1.tgz", ""},
	} {
		b, err := ecosystemtest.Tarball(
			ecosystemtest.Member{Name: "package/package.json", Content: `{"name":"` + p.name + `","version":"` + p.version + `"` + p.more + `}`},
			ecosystemtest.Member{Name: "package/index.js", Content: "#!/usr/bin/env node\n"})
		if err != nil {
			t.Fatal(err)
		}
		rel.Add(artifact.Ref{Kind: npm.Kind, Name: p.name, Version: p.version}, artifact.File{Path: p.file, Published: published}, b)
	}
	return rel
}

func npmAlone(t *testing.T) {
	t.Helper()
	alone(t)
	t.Setenv("npm_config_userconfig", os.DevNull)
	t.Setenv("npm_config_cache", t.TempDir())
	t.Setenv("npm_config_update_notifier", "false")
	t.Setenv("npm_config_noproxy", "127.0.0.1")
}

func TestNpmInstallsFromTheMirrorOnly(t *testing.T) {
	program := client(t, "npm")
	npmAlone(t)
	s := serve(t, &npm.Ecosystem{}, packages(t), "")
	dir := t.TempDir()
	run(t, dir, program, "install", "island-top", "--registry", s.URL+"/npm/", "--ignore-scripts")
	b, err := os.ReadFile(filepath.Join(dir, "node_modules", "@island", "dep", "package.json"))
	if err != nil || !strings.Contains(string(b), `"9.10.0"`) {
		t.Errorf("installed %s, %v", b, err)
	}
	if err := os.RemoveAll(filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	run(t, dir, program, "ci", "--registry", s.URL+"/npm/", "--ignore-scripts")
	if _, err := os.Stat(filepath.Join(dir, "node_modules", ".bin", "island-top")); err != nil {
		t.Error(err)
	}
}

func TestNpmResolvesAndDownloads(t *testing.T) {
	client(t, "npm")
	npmAlone(t)
	s := serve(t, &npm.Ecosystem{}, packages(t), "")
	t.Setenv("npm_config_registry", s.URL+"/npm/")
	eco := &npm.Ecosystem{Runner: sandbox.Exec{}}
	want := ecosystem.Want{Items: []any{"@island/dep@9.10.0"}, Alone: []artifact.Ref{{Kind: npm.Kind, Name: "island-top"}}, Work: t.TempDir()}
	got, err := eco.Resolve(t.Context(), want)
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Ref.String() != "npm/@island/dep@9.10.0" || got[1].Ref.String() != "npm/island-top@1.0.0" {
		t.Fatalf("resolved %+v", got)
	}
	f := got[0].Files[0]
	if len(f.Hashes["sha512"]) != 128 || f.Path != "dep-9.10.0.tgz" || !f.Published.Equal(published) || f.Origin != s.URL+"/npm/@island/dep/-/dep-9.10.0.tgz" {
		t.Errorf("resolved %+v", f)
	}
	file, err := eco.Download(t.Context(), want, got[0], f)
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	held := s.release.Artifacts(npm.Kind)
	for _, a := range held {
		if a.Ref == got[0].Ref && artifact.Sum(b) != a.Files[0].Digest {
			t.Errorf("downloaded %d bytes of another content", len(b))
		}
	}
}
