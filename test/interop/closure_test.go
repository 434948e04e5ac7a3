package interop

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/judge/inspect"
	"enisle/internal/judge/inspect/archive"
	"enisle/internal/judge/inspect/gguf"
	"enisle/internal/judge/inspect/keras"
	"enisle/internal/judge/inspect/onnx"
	descriptions "enisle/internal/judge/inspect/packages"
	"enisle/internal/judge/inspect/pickle"
	"enisle/internal/judge/inspect/repo"
	"enisle/internal/judge/inspect/safetensors"
	"enisle/internal/judge/inspect/secrets"
	"enisle/internal/judge/inspect/skops"
	"enisle/internal/judge/inspect/template"
	"enisle/internal/judge/inspect/tensorflow"
	"enisle/internal/judge/inspect/vulndb"
	"enisle/internal/judge/inspect/wheel"
	"enisle/internal/sandbox"
)

// held is a release on disk: what was collected from real registries outside and is
// served in a network namespace of its own.
type held struct {
	dir string
	all []artifact.Artifact
}

func (h *held) Artifacts(kind string) (out []artifact.Artifact) {
	for _, a := range h.all {
		if a.Ref.Kind == kind {
			out = append(out, a)
		}
	}
	return out
}

func (h *held) blob(d artifact.Digest) string { return filepath.Join(h.dir, "blobs", d.Hex()) }

func (h *held) Open(d artifact.Digest) (ecosystem.Blob, error) {
	f, err := os.Open(h.blob(d))
	if errors.Is(err, os.ErrNotExist) {
		return nil, artifact.ErrNotHeld
	}
	return heldBlob{f}, err
}

type heldBlob struct{ *os.File }

func (b heldBlob) Size() int64 {
	st, err := b.Stat()
	if err != nil {
		return 0
	}
	return st.Size()
}

// insideEnv names the directory of the release to the process inside.
const insideEnv = "INTEROP_HELD"

// journey collects for real, inspects what came, and runs itself again where there
// is no network but loopback: there inside gets the address of the mirror.
func journey(t *testing.T, eco ecosystem.Ecosystem, want ecosystem.Want, inside func(t *testing.T, s *island, base string)) {
	t.Helper()
	if dir := os.Getenv(insideEnv); dir != "" {
		serveHeld(t, eco, dir, inside)
		return
	}
	if l := sandbox.ProbeNet(); l == sandbox.LevelSeccomp {
		t.Skip("no network namespace can be made here")
	}
	h := &held{dir: t.TempDir()}
	h.collect(t, eco, want)
	h.inspect(t)
	spec := sandbox.Spec{Net: sandbox.NetNone, Loopback: true, Write: []string{t.TempDir()}}
	cmd, err := sandbox.Command(t.Context(), spec, sandbox.Self, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=10m")
	if err != nil {
		t.Fatal(err)
	}
	cmd.Env = append(os.Environ(), insideEnv+"="+h.dir, "TMPDIR="+spec.Write[0])
	out, err := cmd.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Fatalf("inside: %v\n%s", err, out)
	}
	t.Logf("inside:\n%s", out)
}

// collect resolves as the collector does, with what clients wrote taken over.
func (h *held) collect(t *testing.T, eco ecosystem.Ecosystem, want ecosystem.Want) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 8*time.Minute)
	defer cancel()
	want.Work = t.TempDir()
	got, err := eco.Resolve(ctx, want)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(filepath.Join(h.dir, "blobs"), 0o755); err != nil {
		t.Fatal(err)
	}
	files, bytes := 0, int64(0)
	for i := range got {
		a := &got[i]
		a.Name = a.Ref.String()
		for j := range a.Files {
			f := &a.Files[j]
			at, from, ok := ecosystem.ParseMade(f.Origin)
			if !ok {
				t.Fatalf("%s: %s was not made: %s", a.Ref, f.Path, f.Origin)
			}
			b, err := os.ReadFile(filepath.Join(want.Work, at))
			if err != nil {
				t.Fatal(err)
			}
			if d := artifact.Sum(b); f.Digest != "" && f.Digest != d {
				t.Errorf("%s: %s is not what its digest says", a.Ref, f.Path)
			}
			f.Digest, f.Size, f.Origin = artifact.Sum(b), int64(len(b)), from
			if err := os.WriteFile(h.blob(f.Digest), b, 0o600); err != nil {
				t.Fatal(err)
			}
			files, bytes = files+1, bytes+f.Size
		}
		slices.SortFunc(a.Files, func(a, b artifact.File) int { return strings.Compare(a.Path, b.Path) })
		if err := a.Check(); err != nil {
			t.Error(err)
		}
		if back, err := artifact.ParseRef(a.Name); err != nil || back != a.Ref {
			t.Errorf("%s comes back as %s, %v", a.Name, back, err)
		}
	}
	slices.SortFunc(got, func(a, b artifact.Artifact) int { return strings.Compare(a.Name, b.Name) })
	for i := 1; i < len(got); i++ {
		if got[i].Ref == got[i-1].Ref {
			t.Errorf("%s twice", got[i].Ref)
		}
	}
	t.Logf("collected %d artifacts, %d files, %d bytes, by %s", len(got), files, bytes, got[0].By)
	h.all = got
	b, err := json.Marshal(got)
	if err == nil {
		err = os.WriteFile(filepath.Join(h.dir, "artifacts.json"), b, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// inspect finds nothing to refuse in what the registries give.
func (h *held) inspect(t *testing.T) {
	t.Helper()
	r := inspect.Runner{Scanners: []inspect.Scanner{
		archive.New(), wheel.New(), pickle.New(), gguf.New(), safetensors.New(), onnx.New(), keras.New(), skops.New(), tensorflow.New(),
		template.New(), repo.New(), descriptions.New(), secrets.New(), vulndb.New(),
	}}
	rep, err := r.Inspect(t.Context(), h.all, func(d artifact.Digest) (inspect.Blob, error) { return h.Open(d) }, func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range rep.Of(inspect.Refuse) {
		t.Errorf("refused: %s %s %s: %s", f.Rule, f.Artifact, f.File, f.Detail)
	}
	t.Logf("inspected: %d findings", len(rep.Findings))
}

func serveHeld(t *testing.T, eco ecosystem.Ecosystem, dir string, inside func(t *testing.T, s *island, base string)) {
	t.Helper()
	if _, err := sandbox.Unreachable(); err != nil {
		t.Fatalf("there is a way out: %v", err)
	}
	h := &held{dir: dir}
	b, err := os.ReadFile(filepath.Join(dir, "artifacts.json"))
	if err == nil {
		err = json.Unmarshal(b, &h.all)
	}
	if err != nil {
		t.Fatal(err)
	}
	for i := range h.all {
		if h.all[i].Ref, err = artifact.ParseRef(h.all[i].Name); err != nil {
			t.Fatal(err)
		}
	}
	handler, err := eco.Handler(h)
	if err != nil {
		t.Fatal(err)
	}
	prefix, s := "/"+ecosystem.PrefixOf(eco), &island{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.paths = append(s.paths, r.URL.Path)
		s.mu.Unlock()
		http.StripPrefix(prefix, handler).ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	inside(t, s, s.URL)
}
