package cargo

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
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

type release struct {
	ecosystemtest.Release
	all []artifact.Artifact
}

func (r *release) Artifacts(kind string) []artifact.Artifact {
	if kind != Kind {
		return nil
	}
	return r.all
}

func (r *release) crate(name, version, content, line string) {
	add := func(path, content string) artifact.File {
		d := r.Add(artifact.Ref{Kind: "blob", Name: path}, artifact.File{Path: path}, []byte(content))
		return artifact.File{Path: path, Digest: d, Size: int64(len(content))}
	}
	file := name + "-" + version + ".crate"
	r.all = append(r.all, artifact.Artifact{Ref: artifact.Ref{Kind: Kind, Name: name, Version: version}, Files: []artifact.File{add(file, content), add(indexFile, line)}})
}

func indexLine(name, version, content, more string) string {
	return fmt.Sprintf(`{"name":%q, "vers":%q,"deps":[],"cksum":%q,"features":{}%s}`, name, version, artifact.Sum([]byte(content)).Hex(), more)
}

func mirror(t *testing.T) http.Handler {
	t.Helper()
	rel := &release{}
	add := func(name, version string) {
		rel.crate(name, version, name+version, indexLine(name, version, name+version, `,"yanked":true`))
	}
	add("Big_crate", "0.10.0")
	add("Big_crate", "0.9.0+spec-1")
	add("big_crate", "7.0.0") // has no place beside the other
	add("a", "1.0.0")
	add("ab", "1.0.0")
	add("abc", "1.0.0")
	rel.crate("other", "1.0.0", "x", indexLine("else", "1.0.0", "x", ""))
	rel.crate("more", "1.0.0", "x", indexLine("more", "1.0.0", "x", "")+"\n"+indexLine("more", "2.0.0", "x", ""))
	rel.crate("sums", "1.0.0", "x", indexLine("sums", "1.0.0", "y", ""))
	rel.crate("../up", "1.0.0", "x", indexLine("../up", "1.0.0", "x", ""))
	h, err := (&Ecosystem{}).Handler(rel)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestTheMirrorConforms(t *testing.T) {
	ecosystemtest.Check(t, ecosystemtest.Mirror{
		Handler: mirror(t),
		Files: map[string][]byte{
			"/crates/Big_crate/Big_crate-0.9.0+spec-1.crate": []byte("Big_crate0.9.0+spec-1"), "/crates/a/a-1.0.0.crate": []byte("a1.0.0"),
		},
		Pages: []string{"/config.json", "/1/a", "/2/ab", "/3/a/abc", "/bi/g_/big_crate"},
		Absent: []string{
			"/", "/bi/g_/Big_crate", "/bi/g_", "/ot/he/other", "/mo/re/more", "/su/ms/sums", "/el/se/else", "/crates/a/a-2.0.0.crate", "/crates/a/index.json", "/crates/big_crate/big_crate-7.0.1.crate", "/3/b/abc", "/../up",
		},
	})
}

func TestTheIndexIsOfTheReleaseAndForTheClient(t *testing.T) {
	srv := httptest.NewServer(http.StripPrefix("/c/stable/cargo", mirror(t)))
	defer srv.Close()
	get := func(path string) (*http.Response, string) {
		w := httptest.NewRecorder()
		mirror(t).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		return w.Result(), w.Body.String()
	}
	res, body := get("/bi/g_/big_crate")
	want := indexLine("Big_crate", "0.9.0+spec-1", "Big_crate0.9.0+spec-1", `,"yanked":true`) + "\n" + indexLine("Big_crate", "0.10.0", "Big_crate0.10.0", `,"yanked":true`) + "\n"
	if body != want || res.Header.Get("ETag") == "" {
		t.Errorf("the index is %q, want %q", body, want)
	}
	config, err := http.Get(srv.URL + "/c/stable/cargo/config.json")
	if err != nil {
		t.Fatal(err)
	}
	var c map[string]string
	if err := errors.Join(json.NewDecoder(config.Body).Decode(&c), config.Body.Close()); err != nil || c["dl"] != srv.URL+"/c/stable/cargo/crates/{crate}/{crate}-{version}.crate" {
		t.Errorf("config.json: %v, %v", c, err)
	}
}

func TestWhatIsWanted(t *testing.T) {
	for path, want := range map[string]string{
		"/1/a": "a", "/2/ab": "ab", "/3/a/abc": "abc", "/se/rd/serde": "serde", "/se/rd/other": "", "/config.json": "", "/crates/a/a-1.0.0.crate": "", "/3/b/abc": "", "/": "", "/se/rd/../x": "",
	} {
		if got, ok := (&Ecosystem{}).Wanted(path); got != want || ok != (want != "") {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

// fake is cargo as a runner: it writes what cargo would into its home.
type fake struct {
	t     *testing.T
	index map[string][]string // crate → lines
	lock  string
}

const registryDir = "index.example-0123"

func (f fake) Run(_ context.Context, work string, _ []string, argv []string) (stdout, stderr []byte, err error) {
	args := strings.Join(argv, " ")
	if strings.HasSuffix(args, " --version") {
		return []byte("cargo 1.95.0 (abc)\n"), nil, nil
	}
	write := func(name, content string) {
		if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(content), 0o600)); err != nil {
			f.t.Fatal(err)
		}
	}
	at := filepath.Join(work, "home", "registry")
	write(filepath.Join(at, "index", registryDir, "config.json"), `{"dl":"https://u:p@dl.example/{prefix}/{crate}"}`)
	for name, all := range f.index {
		text := "\x03\x02\x00\x00\x00rev\x00"
		for _, l := range all {
			var v line
			if err := json.Unmarshal([]byte(l), &v); err == nil {
				text += v.Version + "\x00" + l + "\x00"
				write(filepath.Join(at, "cache", registryDir, v.Name+"-"+v.Version+".crate"), "content")
				write(filepath.Join(at, "src", registryDir, v.Name+"-"+v.Version, "Cargo.toml"), "")
			}
		}
		write(filepath.Join(at, "index", registryDir, ".cache", "se", "rd", name), text)
	}
	for i, a := range argv {
		if i > 2 && argv[i-1] == `cd "$0" && exec cargo "$@"` && f.lock != "" && strings.HasPrefix(a, work) {
			write(filepath.Join(a, "Cargo.lock"), f.lock)
		}
	}
	return nil, nil, nil
}

func entry(name, version, source, checksum string) string {
	return fmt.Sprintf("[[package]]\nname = %q\nversion = %q\nsource = %q\nchecksum = %q\n", name, version, source, checksum)
}

func TestALockFileBecomesArtifactsOrIsRefused(t *testing.T) {
	sum := artifact.Sum([]byte("content")).Hex()
	const from = "registry+https://index.example/x"
	serde := map[string][]string{"serde": {indexLine("serde", "1.0.1", "content", `,"pubtime":"2024-01-02T03:04:05Z"`)}}
	for name, tc := range map[string]struct {
		item  any
		lock  string
		index map[string][]string
		want  string // part of the error; empty means accepted
	}{
		"a lock file":              {map[string]any{"lockfile": "Cargo.lock"}, entry("serde", "1.0.1", from, sum), serde, ""},
		"another checksum":         {map[string]any{"lockfile": "Cargo.lock"}, entry("serde", "1.0.1", from, strings.Repeat("0", 64)), serde, "not what the lock file says"},
		"no checksum":              {map[string]any{"lockfile": "Cargo.lock"}, entry("serde", "1.0.1", from, ""), serde, "has no checksum"},
		"from git":                 {map[string]any{"lockfile": "Cargo.lock"}, entry("serde", "1.0.1", "git+https://git.example/x#1", sum), serde, `of the kind "git"`},
		"two registries":           {map[string]any{"lockfile": "Cargo.lock"}, entry("serde", "1.0.1", from, sum) + entry("b", "1.0.1", from+"2", sum), serde, "2 registries"},
		"a name with a line":       {map[string]any{"lockfile": "Cargo.lock"}, entry("a\nb", "1.0.1", from, sum), serde, "no version of a crate"},
		"a version that is a path": {map[string]any{"lockfile": "Cargo.lock"}, entry("serde", "../1", from, sum), serde, "no version of a crate"},
		"no lock file":             {map[string]any{"lockfile": "Cargo.lock"}, "[[package", serde, "no lock file"},
		"what cargo did not fetch": {map[string]any{"lockfile": "Cargo.lock"}, entry("b", "1.0.1", from, sum), serde, "did not fetch"},
		"a file that is not there": {map[string]any{"lockfile": "no.lock"}, "", serde, "no such file"},
		"something besides":        {map[string]any{"lockfile": "Cargo.lock", "x": 1}, "", serde, "unknown entry"},
		"a number":                 {7, "", serde, "unknown entry"},
		"a crate":                  {"serde@1.0.1", entry("serde", "1.0.1", from, sum), serde, ""},
		"the newest":               {"serde", entry("serde", "1.0.1", from, sum), serde, ""},
		"another crate":            {"serd@1.0.1", entry("serde", "1.0.1", from, sum), serde, "another crate"},
		"half a version":           {"serde@1", "", serde, "names no version"},
		"an option":                {"--config=x", "", serde, "names no version"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "Cargo.lock"), []byte(tc.lock), 0o600); err != nil {
				t.Fatal(err)
			}
			lock := tc.lock
			if _, ok := tc.item.(string); !ok {
				lock = ""
			}
			got, err := (&Ecosystem{Runner: fake{t, tc.index, lock}}).Resolve(t.Context(), ecosystem.Want{Items: []any{tc.item}, Dir: dir, Work: t.TempDir()})
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) || fail.HintOf(err) == "" {
					t.Errorf("got %v (hint %q), want %q", err, fail.HintOf(err), tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 1 || got[0].Ref.String() != "cargo/serde@1.0.1" || len(got[0].Files) != 2 || got[0].By != "cargo 1.95.0" {
				t.Fatalf("got %+v", got)
			}
			f := got[0].Files[0]
			at, origin, ok := ecosystem.ParseMade(f.Origin)
			if !ok || at != "home/registry/cache/"+registryDir+"/serde-1.0.1.crate" || origin != "https://dl.example/se/rd/serde" || f.Digest.Hex() != sum || f.Published.IsZero() {
				t.Errorf("made %q from %q: %+v", at, origin, f)
			}
		})
	}
}

func FuzzLines(f *testing.F) {
	f.Add([]byte("\x03\x02\x00\x00\x00rev\x001.0.0\x00" + indexLine("a", "1.0.0", "x", "") + "\x00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, l := range lines(b) {
			if v, err := parseLine(l); err == nil && (artifact.Ref{Kind: Kind, Name: v.Name, Version: v.Version}).Check() != nil {
				t.Errorf("%q is taken", l)
			}
		}
	})
}
