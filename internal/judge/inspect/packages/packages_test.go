package packages

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
)

type noted struct{ kind, value string }

// taken is what the scanner answered about one subject.
type taken struct {
	notes    []noted
	findings []string
}

// run takes the answers.
type run struct{ k *taken }

func (r *run) Report(rule string, sev inspect.Severity, detail string) {
	r.k.findings = append(r.k.findings, string(sev)+" "+rule+" "+detail)
}

func (r *run) Note(kind, value string)                                   { r.k.notes = append(r.k.notes, noted{kind, value}) }
func (r *run) Descend(context.Context, string, io.ReaderAt, int64) error { return nil }

func scan(t *testing.T, ref artifact.Ref, path string, content []byte) (k taken) {
	t.Helper()
	s := inspect.Subject{Ref: ref, Path: path, Size: int64(len(content)), ReaderAt: bytes.NewReader(content), Head: content[:min(4096, len(content))], Depth: strings.Count(path, "!")}
	if !New().Wants(s) {
		return k
	}
	if err := New().Scan(context.Background(), s, &run{&k}); err != nil {
		t.Fatal(err)
	}
	return k
}

func TestDescriptions(t *testing.T) {
	pypi := artifact.Ref{Kind: "pypi", Name: "some-thing", Version: "1.0"}
	npm := artifact.Ref{Kind: "npm", Name: "@a/b", Version: "1.0.0"}
	deb := artifact.Ref{Kind: "debian", Name: "bookworm/libssl3", Version: "3.0.11-1"}
	crate := artifact.Ref{Kind: "cargo", Name: "c", Version: "0.1.0"}
	oci := artifact.Ref{Kind: "oci", Name: "app", Version: "1"}
	for name, tc := range map[string]struct {
		ref      artifact.Ref
		path     string
		content  string
		notes    []noted
		findings []string // parts of them, in order
	}{
		"a wheel": {
			pypi, "some_thing-1.0-py3-none-any.whl!some_thing-1.0.dist-info/METADATA", "Metadata-Version: 2.4\nName: Some_Thing\nVersion: 1.0\nLicense-Expression: Apache-2.0 OR MIT\n\nName: not this\n",
			[]noted{{"component", "pkg:pypi/some-thing@1.0"}, {"licence", "Apache-2.0 OR MIT"}},
			nil,
		},
		"classifiers": {
			pypi, "x.whl!x.dist-info/METADATA", "Name: x\nVersion: 1\nLicense: text\n  of a licence\nClassifier: License :: OSI Approved :: BSD License\nClassifier: Topic :: X\n",
			[]noted{{"component", "pkg:pypi/x@1"}, {"licence", "BSD License"}},
			nil,
		},
		"a package bundled in a wheel": {
			pypi, "x.whl!x/_vendor/y-2.dist-info/METADATA", "Name: y\nVersion: 2\n", []noted{{"component", "pkg:pypi/y@2"}}, []string{"info bundled holds y 2"},
		},
		"a package of npm": {
			npm, "b-1.0.0.tgz!package/package.json", `{"name":"@a/b","version":"1.0.0","license":"ISC","scripts":{"test":"x","postinstall":"node x.js"}}`,
			[]noted{{"component", "pkg:npm/%40a/b@1.0.0"}, {"licence", "ISC"}, {"code", "postinstall: node x.js"}},
			[]string{"warn install-code postinstall"},
		},
		"one that is another": {
			npm, "b-1.0.0.tgz!package/package.json", `{"name":"evil","version":"1.0.0"}`, []noted{{"component", "pkg:npm/evil@1.0.0"}}, []string{"refuse identity"},
		},
		"one that cannot be read": {npm, "b-1.0.0.tgz!package/package.json", `{"name":`, nil, []string{"refuse identity"}},
		"a bundled one":           {npm, "b.tgz!package/node_modules/c/package.json", `{"name":"c","version":"2.0.0"}`, []noted{{"component", "pkg:npm/c@2.0.0"}}, nil},
		"a fixture is none":       {npm, "b.tgz!package/test/fixtures/package.json", `{"name":"c","version":"2.0.0"}`, nil, nil},
		"gyp":                     {npm, "b.tgz!package/binding.gyp", `{}`, []noted{{"code", "binding.gyp"}}, []string{"warn install-code"}},
		"a jar":                   {oci, "l.tar!app.jar!META-INF/maven/org.yaml/snakeyaml/pom.properties", "#x\nversion=1.30\ngroupId=org.yaml\nartifactId=snakeyaml\n", []noted{{"component", "pkg:maven/org.yaml/snakeyaml@1.30"}}, nil},
		"a crate":                 {crate, "c-0.1.0.crate!c-0.1.0/Cargo.toml", "[package]\nname='c'\nversion='0.1.0'\nlicense='MIT'\n", []noted{{"component", "pkg:cargo/c@0.1.0"}, {"licence", "MIT"}}, nil},
		"a build script":          {crate, "c-0.1.0.crate!c-0.1.0/build.rs", "fn main(){}", []noted{{"code", "build.rs"}}, []string{"warn install-code"}},
		"a package of Debian": {
			deb, "libssl3.deb!control.tar.xz!./control", "Package: libssl3\nVersion: 3.0.11-1\nSource: openssl\nArchitecture: amd64\n",
			[]noted{{"component", "pkg:deb/debian/libssl3@3.0.11-1?arch=amd64&distro=debian-12&upstream=openssl"}},
			nil,
		},
		"its scripts": {deb, "libssl3.deb!control.tar.xz!./postinst", "#!/bin/sh\n", []noted{{"code", "postinst"}}, []string{"info install-code"}},
		"a layer of Debian": {
			oci, "l.tar!var/lib/dpkg/status", "Package: a\nStatus: install ok installed\nVersion: 1\nSource: s (2)\nArchitecture: all\n\nPackage: b\nStatus: deinstall ok config-files\nVersion: 1\n",
			[]noted{{"component", "pkg:deb/debian/a@1?arch=all&upstream=s%402"}},
			nil,
		},
		"a layer of Alpine": {
			oci, "l.tar!lib/apk/db/installed", "P:busybox-binsh\nV:1.36.1-r0\nA:x86_64\no:busybox\nL:GPL-2.0-only\n\n",
			[]noted{{"component", "pkg:apk/alpine/busybox-binsh@1.36.1-r0?arch=x86_64&upstream=busybox"}, {"licence", "GPL-2.0-only"}},
			nil,
		},
		"its system":             {oci, "l.tar!etc/os-release", "ID=debian\nVERSION_ID=\"12\"\n", []noted{{"component", "pkg:generic/os/debian@12"}}, nil},
		"a package by its name":  {artifact.Ref{Kind: "maven", Name: "org.yaml:snakeyaml", Version: "1.30"}, "snakeyaml-1.30.jar", "PK", []noted{{"component", "pkg:maven/org.yaml/snakeyaml@1.30"}}, nil},
		"a module":               {artifact.Ref{Kind: "gomod", Name: "golang.org/x/net", Version: "v0.1.0"}, "v0.1.0.zip", "PK", []noted{{"component", "pkg:golang/golang.org/x/net@v0.1.0"}}, nil},
		"a model is no package":  {artifact.Ref{Kind: "model", Name: "m"}, "config.json", "{}", nil, nil},
		"a description too long": {pypi, "x.whl!x.dist-info/METADATA", "Name: " + strings.Repeat("x", 2000) + "\nVersion: 1\n", nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			got := scan(t, tc.ref, tc.path, []byte(tc.content))
			if !slices.Equal(got.notes, tc.notes) || len(got.findings) != len(tc.findings) {
				t.Fatalf("%+v", got)
			}
			for i, want := range tc.findings {
				if !strings.HasPrefix(got.findings[i], want) {
					t.Errorf("%q, want %q", got.findings[i], want)
				}
			}
		})
	}
}

// TestProgramsOfGo builds a program and reads its modules.
func TestProgramsOfGo(t *testing.T) {
	out := filepath.Join(t.TempDir(), "enisle")
	if b, err := exec.Command("go", "build", "-o", out, "enisle/test/corpus").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, b)
	}
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	got := scan(t, artifact.Ref{Kind: "oci", Name: "app"}, "layer.tar!usr/bin/enisle", b)
	if !slices.ContainsFunc(got.notes, func(n noted) bool { return strings.HasPrefix(n.value, "pkg:golang/stdlib@1.") }) {
		t.Errorf("%+v", got)
	}
	if got := scan(t, artifact.Ref{Kind: "oci", Name: "app"}, "layer.tar!usr/bin/x", []byte("\x7fELF and nothing else")); len(got.notes)+len(got.findings) != 0 {
		t.Errorf("%+v", got)
	}
}

func FuzzDescriptions(f *testing.F) {
	for _, p := range []string{"x.whl!x.dist-info/METADATA", "x.tgz!package/package.json", "x.crate!x/Cargo.toml", "l.tar!var/lib/dpkg/status", "l.tar!etc/os-release", "l.tar!lib/apk/db/installed", "l.tar!bin/x"} {
		f.Add(p, []byte("Name: x\nVersion: 1\n"))
	}
	f.Fuzz(func(t *testing.T, path string, b []byte) {
		for _, kind := range []string{"pypi", "npm", "cargo", "oci"} {
			s := inspect.Subject{Ref: artifact.Ref{Kind: kind, Name: "x", Version: "1"}, Path: path, Size: int64(len(b)), ReaderAt: bytes.NewReader(b), Head: b[:min(4096, len(b))], Depth: strings.Count(path, "!")}
			if New().Wants(s) {
				_ = New().Scan(context.Background(), s, &run{&taken{}}) // an error is a refusal
			}
		}
	})
}
