package gomod

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/note"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/ecosystemtest"
	"enisle/internal/fail"
)

// file is one file of an artifact, with its content.
type file struct{ path, content string }

// release is many artifacts with several files each.
type release struct {
	ecosystemtest.Release
	all []artifact.Artifact
}

func (r *release) add(name, version string, files ...file) {
	a := artifact.Artifact{Ref: artifact.Ref{Kind: Kind, Name: name, Version: version}}
	for _, f := range files {
		d := r.Add(artifact.Ref{Kind: "blob", Name: f.path}, artifact.File{Path: f.path}, []byte(f.content))
		a.Files = append(a.Files, artifact.File{Path: f.path, Digest: d, Size: int64(len(f.content))})
	}
	r.all = append(r.all, a)
}

func (r *release) Artifacts(kind string) []artifact.Artifact {
	if kind != Kind {
		return nil
	}
	return r.all
}

func (r *release) module(name, version string) {
	r.add(name, version, file{version + ".info", `{"Version":"` + version + `"}`}, file{version + ".mod", "module " + name + "\n"}, file{version + ".zip", "PK " + name + version})
}

func mirror(t *testing.T, rel ecosystem.Release) http.Handler {
	t.Helper()
	h, err := (&Ecosystem{}).Handler(rel)
	if err != nil {
		t.Fatal(err)
	}
	return h
}

func TestTheMirrorConforms(t *testing.T) {
	rel := &release{}
	rel.module("host.example/Big/mod", "v1.10.0")
	rel.module("host.example/Big/mod", "v1.9.0")
	rel.module("host.example/Big/mod", "v1.11.0-rc.1")
	rel.add("host.example/graph", "v1.0.0", file{"v1.0.0.mod", "module host.example/graph\n"})
	rel.add("sumdb/abc", "", file{"db.example/tile/8/0/000.p/4", strings.Repeat("h", 128)}, file{"db.example/latest", "no tree"})
	h := mirror(t, rel)
	ecosystemtest.Check(t, ecosystemtest.Mirror{
		Handler: h,
		Files: map[string][]byte{
			"/host.example/!big/mod/@v/v1.9.0.zip":       []byte("PK host.example/Big/modv1.9.0"),
			"/host.example/!big/mod/@v/v1.10.0.mod":      []byte("module host.example/Big/mod\n"),
			"/host.example/graph/@v/v1.0.0.mod":          []byte("module host.example/graph\n"),
			"/sumdb/db.example/tile/8/0/000.p/4":         []byte(strings.Repeat("h", 128)),
			"/host.example/!big/mod/@v/v1.9.0.info":      []byte(`{"Version":"v1.9.0"}`),
			"/host.example/!big/mod/@v/v1.11.0-rc.1.mod": []byte("module host.example/Big/mod\n"),
		},
		Pages: []string{"/host.example/!big/mod/@v/list", "/host.example/!big/mod/@latest", "/sumdb/db.example/supported", "/sumdb/db.example/tile/8/0/000.p/3"},
		Absent: []string{
			"/", "/host.example/Big/mod/@v/list", "/host.example/graph/@v/list", "/host.example/graph/@latest", "/host.example/!big/mod/@v/v2.0.0.zip",
			"/sumdb/other.example/supported", "/sumdb/db.example/tile/8/0/000", "/sumdb/db.example/tile/8/0/000.p/5", "/sumdb/db.example/tile/8/0/000.p/0",
			"/sumdb/db.example/tile/8/0/000.p/03", "/sumdb/db.example/lookup/host.example/!big/mod@v1.9.0", "/sumdb/db.example/latest", "/sumdb/abc/@v/list",
		},
	})
	for path, want := range map[string]string{
		"/host.example/!big/mod/@v/list": "v1.9.0\nv1.10.0\nv1.11.0-rc.1\n", "/host.example/!big/mod/@latest": `{"Version":"v1.10.0","Time":"0001-01-01T00:00:00Z"}`,
	} {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil))
		if got := w.Body.String(); got != want {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

// client is what go does with a checksum database: its files are what is shipped.
type client struct {
	h      http.Handler
	verify string

	mu    sync.Mutex
	cache map[string][]byte
	head  []byte
	bad   string
}

func (c *client) ReadRemote(path string) ([]byte, error) {
	w := httptest.NewRecorder()
	c.h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, path, nil))
	if w.Code != http.StatusOK {
		return nil, fmt.Errorf("%s: %d", path, w.Code)
	}
	return w.Body.Bytes(), nil
}

func (c *client) ReadConfig(file string) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if file == "key" {
		return []byte(c.verify), nil
	}
	return c.head, nil
}

func (c *client) WriteConfig(_ string, _, new []byte) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.head = new
	return nil
}

func (c *client) ReadCache(file string) ([]byte, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if b, ok := c.cache[file]; ok {
		return b, nil
	}
	return nil, os.ErrNotExist
}

func (c *client) WriteCache(file string, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cache[file] = b
}

func (c *client) Log(string)             {}
func (c *client) SecurityError(m string) { c.bad = m }

func ask(c *client, sc *sumdb.Client, m string) error {
	lines, err := sc.Lookup(m, "v1.0.0")
	if err == nil && (len(lines) != 1 || c.bad != "") {
		err = fmt.Errorf("%v, %s", lines, c.bad)
	}
	return err
}

func named(round, i int) string { return fmt.Sprintf("host.example/r%dm%d", round, i) }

// collected looks five modules up, twice as Resolve does, while the database grows,
// and returns what is shipped.
func collected(t *testing.T, low *client, round int) *release {
	t.Helper()
	for i := range 5 {
		for j := range 150 {
			if _, err := low.ReadRemote(fmt.Sprintf("/lookup/host.example/r%dother%d@v1.0.0", round, i*150+j)); err != nil {
				t.Fatal(err)
			}
		}
		if err := ask(low, sumdb.NewClient(low), named(round, i)); err != nil {
			t.Fatal(err)
		}
	}
	again := sumdb.NewClient(low)
	for i := range 5 {
		if err := ask(low, again, named(round, i)); err != nil {
			t.Fatal(err)
		}
	}
	files := []file{{"db.example/latest", string(low.head)}}
	for name, b := range low.cache {
		files = append(files, file{name, string(b)})
	}
	rel := &release{}
	rel.add("sumdb/abc", "", files...)
	return rel
}

// under is the mirror as a client of the one database sees it.
func under(t *testing.T, rel *release) http.Handler {
	h := mirror(t, rel)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.URL.Path = "/sumdb/db.example" + r.URL.Path
		h.ServeHTTP(w, r)
	})
}

// Tiles that grew, heads that moved while things were collected, and a client that
// asks in another order: everything verifies, and what is forged does not.
func TestTheChecksumDatabaseVerifiesInAnyOrder(t *testing.T) {
	secret, public, err := note.GenerateKey(rand.Reader, "db.example")
	if err != nil {
		t.Fatal(err)
	}
	db := sumdb.NewServer(sumdb.NewTestServer(secret, func(path, vers string) ([]byte, error) {
		return []byte(path + " " + vers + " h1:x\n" + path + " " + vers + "/go.mod h1:y\n"), nil
	}))
	low := &client{h: db, verify: public, cache: map[string][]byte{}}
	first := collected(t, low, 0)
	heads := map[int][]byte{}
	for shift := range 5 {
		high := &client{h: under(t, first), verify: public, cache: map[string][]byte{}}
		sc := sumdb.NewClient(high)
		for i := range 5 {
			if err := ask(high, sc, named(0, (shift*2+i*3)%5)); err != nil {
				t.Errorf("order %d: %v", shift, err)
			}
		}
		heads[shift] = high.head
	}
	// What is collected later begins with the head that was kept, and nothing else;
	// whoever saw the first release follows to the second, even without its cache.
	second := collected(t, &client{h: db, verify: public, cache: map[string][]byte{}, head: low.head}, 1)
	for shift, head := range heads {
		high := &client{h: under(t, second), verify: public, cache: map[string][]byte{}, head: head}
		sc := sumdb.NewClient(high)
		for i := range 5 {
			if err := ask(high, sc, named(1, (shift+i*2)%5)); err != nil {
				t.Errorf("after the first release, order %d: %v", shift, err)
			}
		}
	}

	for i := range first.all[0].Files {
		if f := &first.all[0].Files[i]; strings.Contains(f.Path, "/lookup/") {
			f.Digest = first.Add(artifact.Ref{Kind: "blob", Name: "forged"}, artifact.File{Path: "forged"}, []byte(strings.ReplaceAll(string(low.cache[f.Path]), "h1:x", "h1:z")))
		}
	}
	high := &client{h: under(t, first), verify: public, cache: map[string][]byte{}}
	if err := ask(high, sumdb.NewClient(high), named(0, 0)); err == nil {
		t.Error("a forged record was taken")
	}
}

func TestWhatIsWanted(t *testing.T) {
	for path, want := range map[string]string{
		"/host.example/!big/mod/@v/v1.0.0.info": "host.example/Big/mod@v1.0.0", "/host.example/mod/@v/list": "host.example/mod@latest", "/host.example/mod/@latest": "host.example/mod@latest",
		"/host.example/@v/list": "", "/host.example/@v/v1.0.0.info": "", "/host.example/Big/@v/list": "", "/sumdb/db.example/latest": "", "/../x/@v/list": "", "/host.example/mod/@v/../x.info": "", "/host.example/mod/@v/v1.info": "", "/": "",
	} {
		if got, ok := (&Ecosystem{}).Wanted(path); got != want || ok != (want != "") {
			t.Errorf("%s: %q, want %q", path, got, want)
		}
	}
}

// fake is go as a runner; download puts files where go would.
type fake struct {
	t        *testing.T
	download map[string]string // path below the download cache → content
	answer   string
}

func (f fake) Run(_ context.Context, dir string, _ []string, argv []string) (stdout, stderr []byte, err error) {
	args := strings.Join(argv, " ")
	switch {
	case strings.HasSuffix(args, " version"):
		return []byte("go version go1.26.8 linux/amd64\n"), nil, nil
	case strings.Contains(args, " env -json "):
		return []byte(`{"GOPROXY":"https://u:p@proxy.example/go,direct","GONOPROXY":"own.example"}`), nil, nil
	}
	for name, content := range f.download {
		at := filepath.Join(dir, "mod", "cache", "download", name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(at), 0o755), os.WriteFile(at, []byte(content), 0o600)); err != nil {
			f.t.Fatal(err)
		}
	}
	return []byte(f.answer), nil, nil
}

func TestWhatGoDownloadedBecomesArtifacts(t *testing.T) {
	const (
		ok  = "host.example/Big v1.0.0/go.mod h1:Qq9JC5xmDr8FP9ryAwnDA4HR3oJcwfVgdnHpD/olDvk=\n"
		bad = "host.example/Big v1.0.0/go.mod h1:AAAAQWrVslmZdEPpQEAKjk49axMfUsUIg0pbs0qyoVo=\n"
	)
	files := map[string]string{
		"host.example/!big/@v/v1.0.0.mod": "module host.example/Big\n", "host.example/!big/@v/v1.0.0.info": `{"Version":"v1.0.0","Time":"2024-01-02T03:04:05Z"}`,
		"host.example/!big/@v/v1.0.0.lock": "", "host.example/!big/@v/list": "v1.0.0\n", "own.example/m/@v/v1.0.0.mod": "module own.example/m\n",
		"sumdb/db.example/lookup/host.example/!big@v1.0.0": "1\n", "cache.lock": "", "host.example/evil/@v/not a version.mod": "x",
	}
	for name, tc := range map[string]struct {
		item        any
		sum, answer string
		want        string // part of the error; empty means accepted
	}{
		"a go.mod":                         {map[string]any{"modfile": "go.mod"}, "", "", ""},
		"a go.sum that agrees":             {map[string]any{"modfile": "go.mod"}, ok, "", ""},
		"a go.sum that says otherwise":     {map[string]any{"modfile": "go.mod"}, bad, "", "not what go.sum says"},
		"a go.sum that is none":            {map[string]any{"modfile": "go.mod"}, "what", "", "no line of it"},
		"a file that is not there":         {map[string]any{"modfile": "no/go.mod"}, "", "", "no such file"},
		"something besides":                {map[string]any{"modfile": "go.mod", "x": 1}, "", "", "unknown entry"},
		"a number":                         {7, "", "", "unknown entry"},
		"no version":                       {"host.example/m", "", "", "names no version"},
		"an option":                        {"-modfile=x@v1", "", "", "names no version"},
		"a version that is an option":      {"host.example/m@-x", "", "", "names no version"},
		"what go refuses":                  {"host.example/m@v1.0.0", "", `{"Path":"host.example/m","Error":"not found"}`, "not found"},
		"another module":                   {"host.example/m@v1.0.0", "", `{"Path":"host.example/e"}`, "another module"},
		"an answer that cannot be read":    {"host.example/m@v1.0.0", "", `{`, "go mod download"},
		"a module without what it answers": {"host.example/m@v1.0.0", "", ``, "another module"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := errors.Join(os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module x\n"), 0o600), os.WriteFile(filepath.Join(dir, "go.sum"), []byte(tc.sum), 0o600)); err != nil {
				t.Fatal(err)
			}
			got, err := (&Ecosystem{Runner: fake{t, files, tc.answer}}).Resolve(t.Context(), ecosystem.Want{Items: []any{tc.item}, Dir: dir, Work: t.TempDir()})
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v (hint %q), want %q", err, fail.HintOf(err), tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if len(got) != 3 || got[0].Ref.String() != "gomod/host.example/Big@v1.0.0" || len(got[0].Files) != 2 || got[0].By != "go 1.26.8" || !strings.HasPrefix(got[2].Ref.Name, databaseName) {
				t.Fatalf("got %+v", got)
			}
			at, from, ok := ecosystem.ParseMade(got[0].Files[1].Origin)
			if !ok || at != "mod/cache/download/host.example/!big/@v/v1.0.0.mod" || from != "https://proxy.example/go/host.example/!big/@v/v1.0.0.mod" || got[0].Files[1].Published.IsZero() {
				t.Errorf("made %q from %q", at, from)
			}
			if _, from, _ := ecosystem.ParseMade(got[1].Files[0].Origin); from != "https://own.example/m" {
				t.Errorf("a module of no proxy is from %q", from)
			}
		})
	}
}

func TestOnlyAHeadIsTakenForOne(t *testing.T) {
	dir := t.TempDir()
	good, secret, link := filepath.Join(dir, "good"), filepath.Join(dir, "secret"), filepath.Join(dir, "link")
	text := "go.sum database tree\n1\n" + strings.Repeat("A", 43) + "=\n\n— db.example sig\n"
	if err := errors.Join(os.WriteFile(good, []byte(text), 0o600), os.WriteFile(secret, []byte("a key"), 0o600), os.Symlink(good, link)); err != nil {
		t.Fatal(err)
	}
	if b, err := head(good); err != nil || string(b) != text {
		t.Errorf("%q, %v", b, err)
	}
	for _, name := range []string{secret, link} {
		if b, err := head(name); !fail.IsRefused(err) || fail.HintOf(err) == "" {
			t.Errorf("%s: %q, %v", filepath.Base(name), b, err)
		}
	}
}

func FuzzParseFile(f *testing.F) {
	f.Add("/host.example/!big/@v/v1.0.0.mod")
	f.Fuzz(func(t *testing.T, p string) {
		if m, ext, ok := parseFile(p); ok && "/"+escaped(m)+ext != "/"+strings.TrimPrefix(p, "/") {
			t.Errorf("%q is %v%s", p, m, ext)
		}
	})
}
