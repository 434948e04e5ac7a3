package interop

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/ecosystemtest"
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/ecosystem/pypi"
	"enisle/internal/fail"
	"enisle/internal/sandbox"
)

// client skips the test when a client cannot be tried.
func client(t *testing.T, name string) string {
	t.Helper()
	if testing.Short() {
		t.Skip("short: " + name + " is not run")
	}
	path, err := exec.LookPath(name)
	if err != nil {
		t.Skip(name + " is not installed")
	}
	return path
}

// alone takes from this process what would send clients elsewhere.
func alone(t *testing.T) {
	t.Helper()
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if strings.HasPrefix(name, "PIP_") || strings.HasPrefix(name, "UV_") || strings.HasPrefix(strings.ToLower(name), "npm_config_") {
			t.Setenv(name, "") // so that it is put back
			if err := os.Unsetenv(name); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Setenv("PIP_CONFIG_FILE", os.DevNull)
	t.Setenv("PIP_DISABLE_PIP_VERSION_CHECK", "1")
	if dir, err := os.UserCacheDir(); err == nil && os.Getenv("GOCACHE") == "" {
		t.Setenv("GOCACHE", filepath.Join(dir, "go-build")) // what is built need not be built anew
	}
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	t.Setenv("NO_PROXY", "127.0.0.1")
	t.Setenv("no_proxy", "127.0.0.1")
}

// island is a mirror on a loopback port; paths are those that were asked for.
type island struct {
	*httptest.Server
	release *ecosystemtest.Release

	mu    sync.Mutex
	paths []string // guarded by mu
}

// serve starts a mirror under its prefix; a password, if given, is asked for.
func serve(t *testing.T, eco ecosystem.Ecosystem, rel *ecosystemtest.Release, password string) *island {
	t.Helper()
	h, err := eco.Handler(rel)
	if err != nil {
		t.Fatal(err)
	}
	s := &island{release: rel}
	mux := http.NewServeMux()
	prefix := "/" + ecosystem.PrefixOf(eco)
	mux.Handle(prefix+"/", http.StripPrefix(prefix, h))
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, got, _ := r.BasicAuth(); password != "" && got != password {
			w.Header().Set("WWW-Authenticate", `Basic realm="island"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		s.mu.Lock()
		s.paths = append(s.paths, r.URL.Path)
		s.mu.Unlock()
		mux.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

func (s *island) asked(part string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(s.paths, func(p string) bool { return strings.Contains(p, part) })
}

var published = time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)

// wheels is a release of a project, what it depends on, and a version of that
// which is for no Python.
func wheels(t *testing.T) *ecosystemtest.Release {
	t.Helper()
	rel := &ecosystemtest.Release{}
	for _, w := range []struct{ name, version, headers string }{
		{"island_top", "1.0", "Requires-Dist: Island.Dep >=1\nRequires-Python: >=3.8\n"},
		{"island_dep", "1.0", ""},
		{"island_dep", "1.1", "Requires-Python: >=3.8,<4\n"},
		{"island_dep", "2.0", "Requires-Python: >=99\n"},
	} {
		file, content, err := ecosystemtest.Wheel(w.name, w.version, w.headers)
		if err != nil {
			t.Fatal(err)
		}
		rel.Add(artifact.Ref{Kind: pypi.Kind, Name: pypi.Normalise(w.name), Version: w.version}, artifact.File{Path: file, Published: published}, content)
	}
	return rel
}

func run(t *testing.T, dir string, argv ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
	cmd.Dir = dir
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(argv, " "), err, out)
	}
	return string(out)
}

func TestPipDownloadsWithHashesFromTheMirrorOnly(t *testing.T) {
	python := client(t, "python3")
	alone(t)
	s := serve(t, pypi.New(pypi.Options{}), wheels(t), "")
	dir, lines := t.TempDir(), ""
	for _, a := range s.release.Artifacts(pypi.Kind) {
		if v := a.Ref.Version; v != "2.0" && a.Ref.String() != "pypi/island-dep@1.0" {
			lines += fmt.Sprintf("%s==%s --hash=sha256:%s\n", a.Ref.Name, v, a.Files[0].Digest.Hex())
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "requirements.txt"), []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	run(t, dir, python, "-m", "pip", "download", "--require-hashes", "--index-url", s.URL+"/pypi/simple/", "-r", "requirements.txt", "--dest", "out")
	got, err := filepath.Glob(filepath.Join(dir, "out", "*.whl"))
	if err != nil || len(got) != 2 {
		t.Errorf("downloaded %v, %v", got, err)
	}
}

func TestPipInstallsFromTheMirrorOnly(t *testing.T) {
	python := client(t, "python3")
	alone(t)
	s := serve(t, pypi.New(pypi.Options{}), wheels(t), "")
	venv := filepath.Join(t.TempDir(), "venv")
	run(t, "", python, "-m", "venv", venv)
	in := filepath.Join(venv, "bin", "python")
	run(t, "", in, "-m", "pip", "install", "--index-url", s.URL+"/pypi/simple/", "Island_TOP")
	if got := run(t, "", in, "-c", "import island_top, island_dep; print(island_top.version, island_dep.version)"); got != "1.0 1.1\n" {
		t.Errorf("installed %q, want the newest that this Python may have", got)
	}
	if !s.asked(".whl.metadata") {
		t.Errorf("pip asked for no metadata: %v", s.paths)
	}
}

func TestUVInstallsFromTheMirrorOnly(t *testing.T) {
	uv := uvProgram(t)
	alone(t)
	s := serve(t, pypi.New(pypi.Options{}), wheels(t), "")
	dir := t.TempDir()
	run(t, dir, uv, "pip", "install", "--no-config", "--target", "out", "--default-index", s.URL+"/pypi/simple/", "island-top")
	if _, err := os.Stat(filepath.Join(dir, "out", "island_dep-1.1.dist-info")); err != nil {
		t.Error(err)
	}
}

// What pip and uv resolve against an index with a password can be fetched with
// the settings taken from the same environment, and shows no password.
func TestResolvingAgainstAPrivateIndex(t *testing.T) {
	for name, tc := range map[string]struct {
		client, by string
		target     ecosystem.Target
	}{
		"pip for this machine":   {"python3", "pip ", ecosystem.Target{}},
		"uv for another machine": {"uv", "uv ", ecosystem.Target{Arch: "arm64", Python: "3.12"}},
	} {
		t.Run(name, func(t *testing.T) {
			client(t, tc.client)
			alone(t)
			s := serve(t, pypi.New(pypi.Options{}), wheels(t), "s3cret")
			index := strings.Replace(s.URL, "http://", "http://me:s3cret@", 1) + "/pypi/simple/"
			t.Setenv("PIP_INDEX_URL", index)
			t.Setenv("UV_DEFAULT_INDEX", index)
			want := ecosystem.Want{Items: []any{"island-top"}, Work: t.TempDir(), Target: tc.target}
			c, err := fetch.New(pypi.New(pypi.Options{Runner: sandbox.Exec{}}).Settings(t.Context(), want))
			if err != nil {
				t.Fatal(err)
			}
			got, err := pypi.New(pypi.Options{Runner: sandbox.Exec{}, Index: c}).Resolve(t.Context(), want)
			if err != nil {
				t.Fatal(err)
			}
			var refs []string
			for _, a := range got {
				refs = append(refs, a.Ref.String())
				checkFetched(t, c, a, tc.by)
			}
			slices.Sort(refs)
			if !slices.Equal(refs, []string{"pypi/island-dep@1.1", "pypi/island-top@1.0"}) {
				t.Errorf("resolved %v", refs)
			}
		})
	}
}

func checkFetched(t *testing.T, c *fetch.Client, a artifact.Artifact, by string) {
	t.Helper()
	f := a.Files[0]
	if strings.Contains(f.Origin, "s3cret") || strings.Contains(f.Origin, "@") || !strings.HasPrefix(a.By, by) || !f.Published.Equal(published) || f.Size <= 0 {
		t.Errorf("%s by %q: %+v", a.Ref, a.By, f)
	}
	body, _, _, err := c.Get(t.Context(), f.Origin, 0)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(body)
	if err != nil || artifact.Sum(b) != f.Digest {
		t.Errorf("%s: fetched %d bytes, %v", a.Ref, len(b), err)
	}
	if err := body.Close(); err != nil {
		t.Error(err)
	}
}

// pip itself downloads what only it has the credentials for.
func TestPipDownloadsOneFileByItself(t *testing.T) {
	client(t, "python3")
	alone(t)
	s := serve(t, pypi.New(pypi.Options{}), wheels(t), "s3cret")
	t.Setenv("PIP_INDEX_URL", strings.Replace(s.URL, "http://", "http://me:s3cret@", 1)+"/pypi/simple/")
	a := s.release.Artifacts(pypi.Kind)[0]
	file, err := pypi.New(pypi.Options{Runner: sandbox.Exec{}}).Download(t.Context(), ecosystem.Want{Work: t.TempDir()}, a, a.Files[0])
	if err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil || artifact.Sum(b) != a.Files[0].Digest {
		t.Errorf("got %d bytes, %v", len(b), err)
	}
}

// A package with an index of its own comes from it and from no other, whatever other
// indexes have under its name; what it depends on comes from where everything does.
func TestPackagesComeFromTheirOwnIndex(t *testing.T) {
	client(t, "python3")
	alone(t)
	wheel := func(rel *ecosystemtest.Release, name, version, headers string) {
		t.Helper()
		file, b, err := ecosystemtest.Wheel(strings.ReplaceAll(name, "-", "_"), version, headers)
		if err != nil {
			t.Fatal(err)
		}
		rel.Add(artifact.Ref{Kind: pypi.Kind, Name: name, Version: version}, artifact.File{Path: file}, b)
	}
	var public, own ecosystemtest.Release
	wheel(&public, "acme-core", "99.0", "")
	wheel(&public, "acme-core", "1.0", "")
	wheel(&public, "acme-utils", "99.0", "")
	wheel(&public, "dep", "1.0", "")
	wheel(&own, "acme-core", "1.0", "Requires-Dist: dep\nRequires-Dist: acme-utils\n")
	wheel(&own, "acme-utils", "0.1", "")
	outside, inside := serve(t, pypi.New(pypi.Options{}), &public, ""), serve(t, pypi.New(pypi.Options{}), &own, "")
	t.Setenv("PIP_INDEX_URL", outside.URL+"/pypi/simple/")
	t.Setenv("PIP_EXTRA_INDEX_URL", outside.URL+"/pypi/simple/")
	resolve := func(packages ...any) ([]artifact.Artifact, error) {
		eco := pypi.New(pypi.Options{Runner: sandbox.Exec{}})
		return eco.Resolve(t.Context(), ecosystem.Want{Work: t.TempDir(), Items: []any{map[string]any{"index": inside.URL + "/pypi/simple/", "packages": packages}}})
	}
	got, err := resolve("acme-core", "acme-utils")
	if err != nil {
		t.Fatal(err)
	}
	from := map[string]string{}
	for _, a := range got {
		from[a.Ref.String()] = a.Files[0].Origin
		if !strings.HasPrefix(a.Files[0].Origin, a.Index[:len("http://127.0.0.1:0")]) {
			t.Errorf("%s: of index %s, from %s", a.Ref, a.Index, a.Files[0].Origin)
		}
	}
	if len(from) != 3 || !strings.HasPrefix(from["pypi/acme-core@1.0"], inside.URL) || !strings.HasPrefix(from["pypi/acme-utils@0.1"], inside.URL) || !strings.HasPrefix(from["pypi/dep@1.0"], outside.URL) {
		t.Errorf("%v", from)
	}
	if outside.asked("/acme") {
		t.Errorf("the other index was asked: %v", outside.paths)
	}
	// What the pattern covers, and nobody named, would have come from the other index.
	if got, err := resolve("acme-core", "acme-*"); !fail.IsRefused(err) || !strings.Contains(err.Error(), "acme-utils@99.0 belongs to") {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := resolve("not-there"); err == nil {
		t.Error("a package that its index has not was found")
	}
}
