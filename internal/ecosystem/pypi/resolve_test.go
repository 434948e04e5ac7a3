package pypi

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/fail"
)

// runner stands in for the clients: settings for python3 -c, report for pip.
type runner struct {
	settings string
	report   string
	argv     [][]string
}

var _ ecosystem.Runner = (*runner)(nil)

func (r *runner) Run(_ context.Context, _ string, _ []string, argv []string) (stdout, stderr []byte, err error) {
	r.argv = append(r.argv, argv)
	if slices.Contains(argv, "-c") {
		return []byte(r.settings), nil, nil
	}
	if i := slices.Index(argv, "--report"); i > 0 {
		return nil, nil, os.WriteFile(argv[i+1], []byte(r.report), 0o600)
	}
	return nil, []byte("ERROR: no such client"), errors.New("exit status 1")
}

const thisMachine = `{"exe":"python3","version":"3.11","machine":"x86_64","pip":"23.2.1"}`

var sum = strings.Repeat("ab", 32)

func report(name, version, url, extra string) string {
	return fmt.Sprintf(`{"version":"1","pip_version":"23.2.1","install":[{%s"download_info":{"url":%q,
		"archive_info":{"hashes":{"sha256":%q}}},"metadata":{"name":%q,"version":%q}}]}`, extra, url, sum, name, version)
}

func TestPipsReportBecomesArtifactsOrIsRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		report string
		items  []any
		refuse string // part of the error; empty means accepted
		origin string
	}{
		"a wheel": {
			report("A_b.C", "1.0", "https://u:p@files.example/x/a_b_c-1.0-py3-none-any.whl?sig=1#f", ""),
			[]any{"A_b.C"},
			"", "https://files.example/x/a_b_c-1.0-py3-none-any.whl",
		},
		"a source that was asked for": {
			report("a", "1.0", "https://files.example/a-1.0.tar.gz", ""),
			[]any{map[string]any{"sdist": "a==1.0"}},
			"", "https://files.example/a-1.0.tar.gz",
		},
		"a source that was not":      {report("a", "1.0", "https://files.example/a-1.0.tar.gz", ""), []any{"a"}, "not a wheel", ""},
		"a local file":               {report("a", "1.0", "file:///w/a-1.0-py3-none-any.whl", ""), []any{"a"}, "local", ""},
		"a file named by address":    {report("a", "1.0", "https://files.example/a-1.0-py3-none-any.whl", `"is_direct":true,`), []any{"a"}, "not by an index", ""},
		"a file of another project":  {report("a", "1.0", "https://files.example/b-1.0-py3-none-any.whl", ""), []any{"a"}, "another project", ""},
		"a file of another version":  {report("a", "1.0", "https://files.example/a-1.1-py3-none-any.whl", ""), []any{"a"}, "another project or version", ""},
		"a file that is neither":     {report("a", "1.0", "https://files.example/a.whl", ""), []any{"a"}, "neither a wheel", ""},
		"a directory or a checkout":  {`{"version":"1","install":[{"download_info":{"url":"file:///w","dir_info":{}},"metadata":{"name":"a"}}]}`, []any{"a"}, "a is named by path", ""},
		"a report of another format": {`{"version":"2"}`, []any{"a"}, "version", ""},
	} {
		t.Run(name, func(t *testing.T) {
			p := New(Options{Runner: &runner{settings: thisMachine, report: tc.report}})
			got, err := p.Resolve(t.Context(), ecosystem.Want{Items: tc.items, Work: t.TempDir()})
			if tc.refuse != "" {
				if !fail.IsRefused(err) || !strings.Contains(err.Error(), tc.refuse) || fail.HintOf(err) == "" {
					t.Errorf("got %v (hint %q), want a refusal with %q", err, fail.HintOf(err), tc.refuse)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			f := got[0].Files[0]
			if f.Origin != tc.origin || f.Digest != artifact.Digest("sha256:"+sum) || f.Size != -1 || got[0].By != "pip 23.2.1" || got[0].Ref.Name != Normalise(got[0].Ref.Name) {
				t.Errorf("got %+v", got[0])
			}
		})
	}
}

func TestWhatIsNoRequirementIsNotGivenToAClient(t *testing.T) {
	for name, item := range map[string]any{
		"an option": "--index-url=x", "an option after a name": "a --pre", "a path": "./a", "an address": "a @ https://x.example/a.whl",
		"nothing": "", "two lines": "a\nb", "a number": 5, "an unknown key": map[string]any{"wheel": "a"},
		"two keys": map[string]any{"sdist": "a", "requirements": "b"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &runner{settings: thisMachine}
			_, err := New(Options{Runner: r}).Resolve(t.Context(), ecosystem.Want{Items: []any{item}, Work: t.TempDir()})
			if fail.KindOf(err) != fail.Usage || len(r.argv) != 0 {
				t.Errorf("got %v after %d commands", err, len(r.argv))
			}
		})
	}
}

func TestRequirementsFilesAreCopiedWithThoseTheyName(t *testing.T) {
	dir, work := t.TempDir(), t.TempDir()
	for name, text := range map[string]string{
		"top.txt": "a>=1 # comment\n-r sub/more.txt\n", "sub/more.txt": "b ; python_version > '3'\n-c limits.txt", "sub/limits.txt": "b<2",
		"editable.txt": "-e ./here", "path.txt": "./here", "address.txt": "a @ file:/x", "repository.txt": "git+https://x.example/a",
		"round.txt": "-r round.txt",
	} {
		if err := os.MkdirAll(filepath.Join(dir, filepath.Dir(name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, ok := range map[string]bool{"top.txt": true, "editable.txt": false, "path.txt": false, "address.txt": false, "repository.txt": false, "round.txt": false, "none.txt": false} {
		w, err := readWants(ecosystem.Want{Items: []any{map[string]any{"requirements": name}}, Dir: dir, Work: work})
		if (err == nil) != ok {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil && (len(w.files) != 1 || filepath.Dir(w.files[0]) != work) {
			t.Errorf("%s came to %v", name, w.files)
		}
	}
}

func TestUVsLockBecomesArtifactsOrIsRefused(t *testing.T) {
	const head = "lock-version = \"1.0\"\n[[packages]]\nname = \"a\"\nversion = \"1.0\"\n"
	wheel := func(tags string) string {
		return fmt.Sprintf("{url = \"https://f.example/a-1.0-%s.whl\", upload-time = 2024-01-02T03:04:05Z, size = 7, hashes = {sha256 = %q}}", tags, sum)
	}
	sdist := fmt.Sprintf("sdist = {url = \"https://f.example/a-1.0.tar.gz\", hashes = {sha256 = %q}}\n", sum)
	for name, tc := range map[string]struct {
		lock   string
		sdists []string
		want   string // path, or part of the error
	}{
		"the best wheel":    {head + "wheels = [" + wheel("py3-none-any") + "," + wheel("cp312-cp312-linux_x86_64") + "]", nil, "a-1.0-cp312-cp312-linux_x86_64.whl"},
		"the source":        {head + sdist, []string{"a"}, "a-1.0.tar.gz"},
		"only a source":     {head + sdist, nil, "no wheel"},
		"only others fit":   {head + "wheels = [" + wheel("cp311-cp311-linux_x86_64") + "]", nil, "no wheel"},
		"a repository":      {head + "vcs = {type = \"git\"}", nil, "not by an index"},
		"a directory":       {head + "directory = {path = \".\"}", nil, "not by an index"},
		"another format":    {"lock-version = \"2.0\"", nil, "version"},
		"no hash":           {head + "wheels = [{url = \"https://f.example/a-1.0-py3-none-any.whl\"}]", nil, "digest"},
		"something unclean": {"x = ", nil, "uv lock"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := fromUV([]byte(tc.lock), "uv 1", "3.12", tc.sdists)
			if err != nil {
				if !strings.Contains(err.Error(), tc.want) {
					t.Errorf("got %v, want %q", err, tc.want)
				}
				return
			}
			if f := got[0].Files[0]; f.Path != tc.want || f.Size == 0 || got[0].By != "uv 1" {
				t.Errorf("got %+v", got[0])
			}
		})
	}
}

func TestCredentialsComeFromIndexesAndNetrc(t *testing.T) {
	file := filepath.Join(t.TempDir(), "netrc")
	text := "# mine\nmachine a.example\n login me password p1\nmacdef x\n machine no.example login a password b\n\nmachine b.example password p2 account z login you\ndefault login any password all\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("NETRC", file)
	for _, name := range []string{"PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_DEFAULT_INDEX", "UV_INDEX_URL", "UV_EXTRA_INDEX_URL"} {
		t.Setenv(name, "")
	}
	t.Setenv("UV_INDEX", "mine=https://u:p%40@uv.example:8443/simple")
	r := &runner{settings: `{"index":"http://x:y@plain.example/simple","extra":["https://open.example/"]}`}
	got := New(Options{Runner: r}).Settings(t.Context(), ecosystem.Want{Work: t.TempDir()}).Credentials
	want := []fetch.Credential{
		{Host: "plain.example:80", User: "x", Password: "y", Plain: true},
		{Host: "uv.example:8443", User: "u", Password: "p@"},
		{Host: "a.example", User: "me", Password: "p1"},
		{Host: "b.example", User: "you", Password: "p2"},
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %d credentials, want %d: %v", len(got), len(want), got)
	}
}

func FuzzReports(f *testing.F) {
	f.Add([]byte(report("a", "1.0", "https://files.example/a-1.0-py3-none-any.whl", "")), []byte("lock-version = \"1.0\""))
	f.Fuzz(func(t *testing.T, pip, uv []byte) {
		one, _ := fromPip(pip, nil)
		two, _ := fromUV(uv, "uv", "3.12", nil)
		for _, a := range append(one, two...) {
			if len(a.Files) != 1 || a.Files[0].Digest == "" {
				t.Errorf("accepted %+v", a)
			}
		}
	})
}
