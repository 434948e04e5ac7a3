package maven

import (
	"context"
	"crypto/sha1" //nolint:gosec // what clients ask for
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/ecosystemtest"
	"enisle/internal/fail"
)

type held struct {
	ecosystemtest.Release
	all []artifact.Artifact
}

func (r *held) Artifacts(kind string) []artifact.Artifact {
	if kind != Kind {
		return nil
	}
	return r.all
}

func (r *held) add(name, version string, files map[string]string) {
	a := artifact.Artifact{Ref: artifact.Ref{Kind: Kind, Name: name, Version: version}}
	for path, content := range files {
		d := r.Add(artifact.Ref{Kind: "blob", Name: path}, artifact.File{Path: path}, []byte(content))
		a.Files = append(a.Files, artifact.File{Path: path, Digest: d, Size: int64(len(content))})
	}
	r.all = append(r.all, a)
}

func pluginJar(t *testing.T, prefix string) string {
	t.Helper()
	b, err := ecosystemtest.Zip(ecosystemtest.Member{Name: "META-INF/maven/plugin.xml", Content: "<plugin><name>A &amp; B</name><goalPrefix>" + prefix + "</goalPrefix></plugin>"})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func mirror(t *testing.T) http.Handler {
	t.Helper()
	rel := &held{}
	for _, v := range []string{"1.10", "1.9", "2.0-rc-1"} {
		rel.add("group.example/lib", v, map[string]string{"lib-" + v + ".jar": "jar " + v, "lib-" + v + ".pom": "pom " + v})
	}
	rel.add("group.example/lib", "1.8", map[string]string{"lib-1.8-sources.jar": "s", "other-1.8.jar": "x", "lib-1.8.jar.sha1": "x", "maven-metadata.xml": "x"})
	rel.add("group.example/own-maven-plugin", "1.0", map[string]string{"own-maven-plugin-1.0.jar": pluginJar(t, "old")})
	rel.add("group.example/own-maven-plugin", "1.1", map[string]string{"own-maven-plugin-1.1.jar": pluginJar(t, "own")})
	rel.add("group.example/evil-maven-plugin", "1.0", map[string]string{"evil-maven-plugin-1.0.jar": pluginJar(t, "../x")})
	rel.add("group..example/up", "1.0", map[string]string{"up-1.0.jar": "x"})
	rel.add("lone", "1.0", map[string]string{"lone-1.0.jar": "x"})
	h, err := (&Ecosystem{}).Handler(rel)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestTheMirrorConforms(t *testing.T) {
	const lib = "/group/example/lib"
	ecosystemtest.Check(t, ecosystemtest.Mirror{
		Handler: mirror(t),
		Files:   map[string][]byte{lib + "/1.9/lib-1.9.jar": []byte("jar 1.9"), lib + "/1.10/lib-1.10.pom": []byte("pom 1.10"), lib + "/1.8/lib-1.8-sources.jar": []byte("s")},
		Pages:   []string{lib + "/maven-metadata.xml", lib + "/maven-metadata.xml.sha1", "/group/example/maven-metadata.xml", lib + "/1.9/lib-1.9.jar.sha1", lib + "/1.9/lib-1.9.pom.md5"},
		Absent: []string{
			"/", lib, lib + "/", lib + "/1.9", lib + "/1.9/lib-1.9.jar.asc", lib + "/1.8/lib-1.8.jar.sha1", lib + "/1.8/other-1.8.jar", lib + "/1.8/maven-metadata.xml", lib + "/3.0/lib-3.0.jar",
			"/group/maven-metadata.xml", "/maven-metadata.xml", "/group/example/maven-metadata.xml.sha1.sha1", "/group//example/up/1.0/up-1.0.jar", "/lone/1.0/lone-1.0.jar", "/group.example/lib/1.9/lib-1.9.jar",
		},
	})
}

func TestChecksumsAndMetadataAreOfTheRelease(t *testing.T) {
	h := mirror(t)
	get := func(path string) string {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		return w.Body.String()
	}
	short, long := sha1.Sum([]byte("jar 1.9")), sha512.Sum512([]byte("jar 1.9")) //nolint:gosec // see the import
	for path, want := range map[string]string{
		"/group/example/lib/1.9/lib-1.9.jar.sha1":   hex.EncodeToString(short[:]),
		"/group/example/lib/1.9/lib-1.9.jar.sha512": hex.EncodeToString(long[:]),
		"/group/example/lib/1.9/lib-1.9.jar.sha256": artifact.Sum([]byte("jar 1.9")).Hex(),
	} {
		if got := get(path); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
	text := get("/group/example/lib/maven-metadata.xml")
	for _, want := range []string{
		"<groupId>group.example</groupId>", "<latest>2.0-rc-1</latest>", "<release>1.10</release>",
		"<version>1.8</version>\n      <version>1.9</version>\n      <version>1.10</version>\n      <version>2.0-rc-1</version>",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
	sum := sha1.Sum([]byte(text)) //nolint:gosec // see the import
	if get("/group/example/lib/maven-metadata.xml.sha1") != hex.EncodeToString(sum[:]) {
		t.Error("the checksum of the metadata is another")
	}
	if text := get("/group/example/maven-metadata.xml"); !strings.Contains(text, "<prefix>own</prefix>\n      <artifactId>own-maven-plugin</artifactId>") || strings.Contains(text, "evil") || strings.Contains(text, "old") {
		t.Errorf("the group says %s", text)
	}
}

func TestWhatIsWanted(t *testing.T) {
	for path, want := range map[string]string{
		"/group/example/lib/1.0/lib-1.0.pom": "group.example:lib:1.0", "/group/example/lib/1.0/lib-1.0-linux.jar": "group.example:lib:1.0",
		"/group/example/lib/1.0/lib-1.0.jar.sha1": "", "/group/example/lib/1.0/other-1.0.jar": "", "/group/example/lib/maven-metadata.xml": "", "/group/../lib/1.0/lib-1.0.jar": "",
		"/group/example/lib/1-SNAPSHOT/lib-1-SNAPSHOT.jar": "", "/a.b/lib/1.0/lib-1.0.jar": "", "/": "", "/lib-1.0.jar": "",
	} {
		if got, ok := (&Ecosystem{}).Wanted(path); got != want || ok != (want != "") {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

func TestTheSettingsAreXML(t *testing.T) {
	if got := (&Ecosystem{}).Config("mvn", "https://mirror.example/<&"); !strings.Contains(got, "<mirrorOf>*</mirrorOf>") || !strings.Contains(got, "/&lt;&amp;/maven/</url>") {
		t.Errorf("got %s", got)
	}
}

// fake is Maven as a runner: it writes files into its local repository.
type fake struct {
	t     *testing.T
	files map[string]string
	ran   *[]string
}

func (f fake) Run(_ context.Context, work string, _ []string, argv []string) (stdout, stderr []byte, err error) {
	args := strings.Join(argv, " ")
	if strings.HasSuffix(args, " --version") {
		return []byte("\x1b[1mApache Maven 3.8.7\x1b[m\n"), nil, nil
	}
	*f.ran = append(*f.ran, args)
	for name, content := range f.files {
		at := filepath.Join(work, "repository", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(content), 0o600)); err != nil {
			f.t.Fatal(err)
		}
	}
	return []byte("[INFO] Downloaded from central: https://u:p@repo.example/maven2/g/example/lib/1.0/lib-1.0.jar (1 kB at 2 kB/s)\n"), nil, nil
}

func TestWhatABuildDownloadedBecomesArtifacts(t *testing.T) {
	const at = "g/example/lib/1.0/"
	good := map[string]string{
		at + "lib-1.0.jar": "x", at + "lib-1.0.jar.sha1": "y", at + "lib-1.0.pom": "z", at + "other-1.0.jar": "o", at + "lib-1.0-made.jar": "m", at + "maven-metadata-central.xml": "w",
		at + remoteFile:                   "#NOTE\nlib-1.0.jar>central=\nlib-1.0.pom>central=\nlib-1.0.jar>more=\nlib-1.0.jar.sha1>central=\nother-1.0.jar>central=\nlib-1.0-made.jar>=\nlib-1.0-gone.jar>central=\n../../x>central=\n",
		"own/example/app/1.0/app-1.0.jar": "a", "own/example/app/1.0/" + remoteFile: "app-1.0.jar>=\n",
	}
	for name, tc := range map[string]struct {
		item  any
		files map[string]string
		want  string // part of the error; empty means accepted
		ran   string // part of what was run
	}{
		"a project":                {map[string]any{"pom": "pom.xml"}, good, "", "-f pom.xml verify -DskipTests"},
		"goals":                    {map[string]any{"pom": "pom.xml", "goals": []any{"verify", "-Pprod"}}, good, "", "-f pom.xml verify -Pprod"},
		"a coordinate":             {"g.example:lib:1.0", good, "", "package"},
		"a snapshot":               {map[string]any{"pom": "pom.xml"}, map[string]string{"g/lib/1-SNAPSHOT/lib-1-SNAPSHOT.jar": "x", "g/lib/1-SNAPSHOT/" + remoteFile: "lib-1-SNAPSHOT.jar>s=\n"}, "is a snapshot", ""},
		"a place that is none":     {map[string]any{"pom": "pom.xml"}, map[string]string{"g/li b/1/" + remoteFile: "x>s=\n"}, "no place in a repository", ""},
		"a pom that is not there":  {map[string]any{"pom": "no.xml"}, nil, "no such file", ""},
		"no goals":                 {map[string]any{"pom": "pom.xml", "goals": []any{}}, nil, "unknown entry", ""},
		"goals that are no words":  {map[string]any{"pom": "pom.xml", "goals": []any{1}}, nil, "unknown entry", ""},
		"something besides":        {map[string]any{"pom": "pom.xml", "x": "y"}, nil, "unknown entry", ""},
		"a number":                 {7, nil, "unknown entry", ""},
		"no version":               {"g.example:lib", nil, "names no version", ""},
		"a coordinate with markup": {"g.example:lib:<x/>", nil, "names no version", ""},
		"a group that leads up":    {"g..example:lib:1", nil, "names no version", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir, work, ran := t.TempDir(), t.TempDir(), []string{}
			hidden := filepath.Join(dir, "site")
			for _, n := range []string{"pom.xml", "src/A.java", "target/old.jar", ".git/config", "site/secret", "alice.key"} {
				p := filepath.Join(dir, n)
				if err := errors.Join(os.MkdirAll(filepath.Dir(p), 0o755), os.WriteFile(p, []byte("x"), 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			got, err := (&Ecosystem{Runner: fake{t, tc.files, &ran}}).Resolve(t.Context(), ecosystem.Want{Items: []any{tc.item}, Dir: dir, Work: work, Hidden: []string{hidden}})
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) || fail.HintOf(err) == "" {
					t.Errorf("got %v (hint %q), want %q", err, fail.HintOf(err), tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(ran) != 1 || !strings.Contains(ran[0], tc.ran) {
				t.Errorf("ran %q, want %q", ran, tc.ran)
			}
			if len(got) != 1 || got[0].Ref.String() != "maven/g.example/lib@1.0" || len(got[0].Files) != 2 || got[0].By != "maven 3.8.7" {
				t.Fatalf("got %+v", got)
			}
			made, from, ok := ecosystem.ParseMade(got[0].Files[0].Origin)
			if !ok || made != "repository/"+at+"lib-1.0.jar" || from != "https://repo.example/maven2/g/example/lib/1.0/lib-1.0.jar" {
				t.Errorf("made %q from %q", made, from)
			}
			if _, isPom := tc.item.(map[string]any); isPom {
				copied := filepath.Join(work, "project-0")
				if _, err := os.Stat(filepath.Join(copied, "src", "A.java")); err != nil {
					t.Error(err)
				}
				for _, n := range []string{"target", ".git", "site", "alice.key"} {
					if _, err := os.Lstat(filepath.Join(copied, n)); err == nil {
						t.Errorf("%s was copied", n)
					}
				}
			}
		})
	}
}

func FuzzParseDir(f *testing.F) {
	f.Add("org/example/lib/1.0")
	f.Fuzz(func(t *testing.T, p string) {
		if c, ok := parseDir(p); ok && (c.dir() != p || c.ref().Check() != nil) {
			t.Errorf("%q is %+v", p, c)
		}
	})
}
