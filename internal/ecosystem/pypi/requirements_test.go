package pypi

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/ecosystem"
	"enisle/internal/fail"
)

func requirements(t *testing.T, text string) (string, error) {
	t.Helper()
	dir, work := t.TempDir(), t.TempDir()
	for name, s := range map[string]string{"r.txt": text, "more.txt": "b==2\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(s), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w, err := readWants(ecosystem.Want{Items: []any{map[string]any{"requirements": "r.txt"}}, Dir: dir, Work: work})
	if err != nil {
		return "", err
	}
	b, err := os.ReadFile(w.files[0])
	if err != nil {
		t.Fatal(err)
	}
	// The copies of nested files have names of their own; their content counts.
	out := ""
	for _, l := range strings.Split(strings.TrimSpace(string(b)), "\n") {
		if f := strings.Fields(l); len(f) == 2 && (f[0] == "-r" || f[0] == "-c" || f[0] == "--requirement") {
			nested, err := os.ReadFile(f[1])
			if err != nil {
				t.Fatal(err)
			}
			l = f[0] + " {" + strings.TrimSpace(string(nested)) + "}"
		}
		out += l + "\n"
	}
	return strings.TrimSpace(out), nil
}

func TestRequirementsAreTakenApartAsPipDoes(t *testing.T) {
	hash := "--hash=sha256:" + strings.Repeat("a", 64)
	many := strings.TrimSpace(strings.Repeat(hash+" ", 1500)) // a line of over 100 KB
	for text, want := range map[string]string{
		"# see https://docs.example/x for me@x.example\na==1\n":    "a==1",
		"   # via a @ b\na==1 # https://x.example\n":               "a==1",
		"a==1\t# https://x.example\n":                              "a==1",
		"-rmore.txt\n":                                             "-r {b==2}",
		"-r more.txt # nested\n":                                   "-r {b==2}",
		"--requirement=more.txt\n":                                 "--requirement {b==2}",
		"-c more.txt\na\n":                                         "-c {b==2}\na",
		"a==1 " + many + "\nb==2\n":                                "a==1 " + many + "\nb==2",
		"a==1 \\\n    " + hash + " \\\n    " + hash + "\nb\n":      "a==1     " + hash + "     " + hash + "\nb",
		"\ufeffa==1\r\nb; python_version < \"3.12\"\r\n":           "a==1\nb; python_version < \"3.12\"",
		"a[extra]>=1,<2\n--index-url https://index.example/simple": "a[extra]>=1,<2\n--index-url https://index.example/simple",
		"--pre\na": "--pre\na",
	} {
		got, err := requirements(t, text)
		if err != nil || got != want {
			t.Errorf("%.60q: got %.90q, %v; want %.90q", text, got, err, want)
		}
	}
}

func TestRequirementsBringNothingButFromAnIndex(t *testing.T) {
	for _, text := range []string{
		"-e ./x", "-\\\ne ./x", "--editable=x", "--edit x", "./x", "sub/dir", "/abs", "~/x", `a\b`,
		"a @ file:///x", "a \\\n @ file:///x", "git+https://x.example/a", "https://x.example/a.whl",
		"w-1-py3-none-any.whl", "a.tar.gz", "a.zip", "--find-links ./w", "-f ./w", "--no-binary :all:",
		"--trusted-host x.example", "--global-option=x", "a --config-settings=x=y", "a --hash=md5:aa", "a --global-option=\"x\"",
		"${HOME}", "a==${VERSION}", "--index-url file:///x", "-i ./x", "-r missing.txt", "\xff\xfe",
	} {
		got, err := requirements(t, text)
		if !fail.IsRefused(err) && fail.KindOf(err) != fail.Usage {
			t.Errorf("%q: got %q, %v; want a refusal", text, got, err)
		}
	}
	if _, err := requirements(t, "-r r.txt"); fail.KindOf(err) != fail.Usage {
		t.Errorf("a file that names itself: %v", err)
	}
}
