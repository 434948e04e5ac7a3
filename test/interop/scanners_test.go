package interop

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"enisle/internal/app"
	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
)

// judged is one file, and what each scanner says of it.
type judged struct {
	name, path string
	hostile    bool
	says       []string // of the scanners, in their order
}

// What scanners say.
const (
	caught = "refused"
	passed = "passed"
	unread = "not read"
)

// onlyUnread are files of the test data that nobody can judge by what is in them:
// closed, broken, or none of what they are called. Constant.
var onlyUnread = []string{"LICENSE.picklescan", "benign_password_protected.zip", "broken_model.pkl", "bad_pytorch.pt", "not_a_pickle.bin"}

// tricks are files in which a call of os.system stands where some readers do not look;
// constant.
var tricks = map[string]string{
	"a stream behind a harmless one.pkl": "N.cos\nsystem\n(S'id'\ntR.",
	"a stream behind many numbers.th":    strings.Repeat("I1\n.", 40) + "cos\nsystem\n(S'id'\ntR.",
	"bytes that begin like bzip2.pkl":    "BZh\x00\x00" + strings.Repeat("A", 0x685a) + "0cos\nsystem\n(S'id'\ntR.",
	"a text with a strange space.pkl":    "S'x'\v\n0cos\nsystem\n(S'id'\ntR.",
	"a number that a zero byte ends.pkl": "I1\x00rest\n0cos\nsystem\n(S'id'\ntR.",
	"a name by resolve_name.pkl":         "cpkgutil\nresolve_name\n(S'os:system'\ntR.",
	"a test helper of numpy.pkl":         "cnumpy.testing._private.utils\nrunstring\n(S'id'\n}tR.",
	"a distribution of scipy.pkl":        "\x80\x02cscipy.stats._continuous_distns\nuniform_gen\n)\x81}U\x13_parse_arg_templateU\x02idsb.",
	"a tuple in itself.pkl":              "\x80\x02)" + strings.Repeat("2\x86", 60) + ".",
	"objects behind an array.npy": "\x93NUMPY\x01\x00\x3c\x00{'descr': '<i4', 'fortran_order': False, 'shape': (0,), }   \n" +
		"\x93NUMPY\x01\x00\x3c\x00{'descr': '|O', 'fortran_order': False, 'shape': (1,), }    \ncos\nsystem\n(S'id'\ntR.",
}

// Three scanners that others use judge the same files. Ours refuses every hostile one
// and passes every honest one, whatever they say; the table in docs/manual/scanners.md
// is what came out.
func TestScannersBesideOthers(t *testing.T) {
	data := os.Getenv("ENISLE_TESTDATA")
	if data == "" {
		t.Skip("ENISLE_TESTDATA is not set: the known malicious files are not here")
	}
	python := pythonWith(t, "picklescan.cli, modelscan.cli, fickling", "picklescan==1.0.5", "modelscan==0.8.8", "fickling==0.1.12", "typing_extensions")
	files := append(hostileFiles(t, filepath.Join(data, "models", "pickle")), honestFiles(t)...)
	for i, f := range files {
		files[i].says = []string{ours(t, f.path), picklescan(t, python, f.path), modelscan(t, python, f.path), fickling(t, python, f.path)}
		if slices.Contains(onlyUnread, f.name) {
			continue
		}
		if got, want := files[i].says[0], map[bool]string{true: caught, false: passed}[f.hostile]; got != want {
			t.Errorf("%s: %s, want %s", f.name, got, want)
		}
	}
	table := table(files)
	t.Log("\n" + table)
	if os.Getenv("ENISLE_WRITE_TABLE") != "" {
		const page = "../../docs/manual/scanners.md"
		b, err := os.ReadFile(page)
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(b), "\n## ") // what people wrote behind it stays
		if err := os.WriteFile(page, []byte(table+"\n## "+rest), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// hostileFiles are the known ones, those that the real libraries wrote for an
// attacker, and the tricks above.
func hostileFiles(t *testing.T, known string) (files []judged) {
	t.Helper()
	var paths []string
	for _, pattern := range []string{filepath.Join(known, "*"), "../../internal/judge/inspect/*/testdata/*.*"} {
		more, err := filepath.Glob(pattern)
		if err != nil || len(more) < 20 {
			t.Fatal(pattern, len(more), err)
		}
		paths = append(paths, more...)
	}
	dir := t.TempDir()
	for name, content := range tricks {
		at := filepath.Join(dir, name)
		if err := os.WriteFile(at, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, at)
	}
	for _, p := range paths {
		name := filepath.Base(p)
		honest := strings.HasPrefix(name, "benign") || name == "pytorch_model.bin" || name == "new_pytorch_model.bin" || slices.Contains(onlyUnread, name)
		files = append(files, judged{name: name, path: p, hostile: !honest})
	}
	slices.SortFunc(files, func(a, b judged) int { return strings.Compare(a.name, b.name) })
	return files
}

// honestFiles are some of what the real libraries wrote, evenly from all sets.
func honestFiles(t *testing.T) (files []judged) {
	t.Helper()
	f, err := os.Open("../corpus/benign/manifest.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	n := 0
	for lines := bufio.NewScanner(f); lines.Scan(); n++ {
		var row struct{ File string }
		if err := json.Unmarshal(lines.Bytes(), &row); err != nil {
			t.Fatal(err)
		}
		if n%29 == 0 {
			files = append(files, judged{name: row.File, path: filepath.Join("../corpus/benign", row.File)})
		}
	}
	return files
}

type inMemory struct{ *bytes.Reader }

func (inMemory) Close() error  { return nil }
func (b inMemory) Size() int64 { return b.Reader.Size() }

func ours(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := inspect.Runner{Scanners: app.Scanners()}
	a := artifact.Artifact{Ref: artifact.Ref{Kind: "model", Name: "m"}, Files: []artifact.File{{Path: filepath.Base(path), Size: int64(len(b)), Digest: artifact.Sum(b)}}}
	rep, err := r.Inspect(t.Context(), []artifact.Artifact{a}, func(artifact.Digest) (inspect.Blob, error) { return inMemory{bytes.NewReader(b)}, nil }, func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	if len(rep.Of(inspect.Refuse)) > 0 {
		return caught
	}
	return passed
}

// console runs the command of a scanner: their modules drop the exit code.
func console(t *testing.T, python, tool string, args ...string) (out string, exit int) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(python), tool), args...)
	cmd.Dir = t.TempDir()
	b, err := cmd.CombinedOutput()
	var code *exec.ExitError
	if err != nil && !errors.As(err, &code) {
		t.Fatal(err)
	}
	return string(b), cmd.ProcessState.ExitCode()
}

func absolute(t *testing.T, path string) string {
	t.Helper()
	abs, err := filepath.Abs(path)
	if err != nil {
		t.Fatal(err)
	}
	return abs
}

func picklescan(t *testing.T, python, path string) string {
	out, exit := console(t, python, "picklescan", "--path", absolute(t, path))
	switch {
	case exit == 1:
		return caught
	case exit == 0 && !strings.Contains(out, "Scanned files: 0"):
		return passed
	}
	return unread
}

func modelscan(t *testing.T, python, path string) string {
	out, exit := console(t, python, "modelscan", "-p", absolute(t, path))
	switch {
	case exit == 1:
		return caught
	case exit == 0 && !strings.Contains(out, "Total skipped: 1"):
		return passed
	}
	return unread
}

func fickling(t *testing.T, python, path string) string {
	out, exit := console(t, python, "fickling", "--check-safety", absolute(t, path))
	switch {
	case exit == 1 && !strings.Contains(out, "Traceback"):
		return caught
	case exit == 0:
		return passed
	}
	return unread
}

// table is the page of the manual.
func table(files []judged) string {
	names := []string{"enisle", "picklescan 1.0.5", "modelscan 0.8.8", "fickling 0.1.12"}
	var b, rows strings.Builder
	total := map[bool]int{}
	sums := map[bool]map[string][4]int{true: {}, false: {}}
	for _, f := range files {
		kind := map[bool]string{true: "hostile", false: "honest"}[f.hostile]
		if slices.Contains(onlyUnread, f.name) {
			kind = "cannot be read"
		} else {
			total[f.hostile]++
			for i, s := range f.says {
				n := sums[f.hostile][s]
				n[i]++
				sums[f.hostile][s] = n
			}
		}
		fmt.Fprintf(&rows, "| %s | %s | %s |\n", f.name, kind, strings.Join(f.says, " | "))
	}
	fmt.Fprintf(&b, "# Scanners beside each other\n\nMade on %s by `test/interop/scanners_test.go` (`ENISLE_WRITE_TABLE=1`), which fails when a hostile file passes ours or an honest\none does not. "+
		"The others ran as their console commands with their defaults, without TensorFlow and py7zr. *Not read*\nmeans: skipped, no file of its kind, or it broke. Hostile files are those "+
		"of picklescan's tests, those that `test/corpus/hostile.py`\nwrites with the real libraries, and tricks of our own; honest ones every 29th of `test/corpus/benign`.\n\n", time.Now().UTC().Format(time.DateOnly))
	fmt.Fprintf(&b, "| of | said | %s |\n|---|---|%s\n", strings.Join(names, " | "), strings.Repeat("--:|", len(names)))
	for _, hostile := range []bool{true, false} {
		for _, s := range []string{caught, passed, unread} {
			n := sums[hostile][s]
			fmt.Fprintf(&b, "| %d %s | %s | %d | %d | %d | %d |\n", total[hostile], map[bool]string{true: "hostile", false: "honest"}[hostile], s, n[0], n[1], n[2], n[3])
		}
	}
	fmt.Fprintf(&b, "\n| file | is | %s |\n|---|---|%s\n%s", strings.Join(names, " | "), strings.Repeat("---|", len(names)), rows.String())
	return b.String()
}
