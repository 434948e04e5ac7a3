package llamacpp

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"enisle/internal/artifact"
	"enisle/internal/fail"
)

// release is the only llama.cpp that the binding (yzma v1.28.0) fits. Another
// pair would not fail, it would corrupt memory.
const release = "v0.5.0"

const (
	metadataName = "_nlcBuildMetadata.json"
	maxMetadata  = 64 << 10 // bytes
)

// NamedFile is a file of an artifact, opened by the caller, who keeps it open
// and unchanged until the engine is closed.
type NamedFile struct {
	Name   string // the name in the artifact; only its last element matters
	File   *os.File
	Digest artifact.Digest
}

// verify reads the file through its own descriptor, without moving the
// offset, and refuses (fail.Refused) content other than the digest says.
func (f NamedFile) verify(ctx context.Context) error {
	h, buf := sha256.New(), make([]byte, 1<<20)
	r := io.NewSectionReader(f.File, 0, 1<<62)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(buf)
		h.Write(buf[:n])
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	if got := artifact.FromSum([sha256.Size]byte(h.Sum(nil))); got != f.Digest {
		return fail.Refuse("run 'enisle check --read-data' to find what else has changed on disk",
			fmt.Errorf("%s: is %s, want %s", f.Name, got, f.Digest))
	}
	return nil
}

// files is what a worker is given: libraries first, then weights, in the order
// in which they become descriptors.
type files struct {
	list   []NamedFile
	models []string // base names, in order
	bytes  int64    // size of the weights
}

// check verifies all files and picks those that a worker needs.
func check(ctx context.Context, library, model []NamedFile) (files, error) {
	var out files
	var built *NamedFile
	for _, f := range append(slices.Clone(library), model...) {
		if err := f.verify(ctx); err != nil {
			return out, err
		}
	}
	for i, f := range library {
		switch base := path.Base(f.Name); {
		case base == metadataName:
			built = &library[i]
		case strings.HasSuffix(base, ".so"):
			out.list = append(out.list, f)
		}
	}
	if err := checkRelease(built); err != nil {
		return out, err
	}
	for _, f := range model {
		base := path.Base(f.Name)
		if !strings.HasSuffix(base, ".gguf") {
			continue
		}
		st, err := f.File.Stat()
		if err != nil {
			return out, fmt.Errorf("%s: %w", f.Name, err)
		}
		out.list, out.models, out.bytes = append(out.list, f), append(out.models, base), out.bytes+st.Size()
	}
	slices.Sort(out.models) // parts are numbered in their names
	if len(out.models) == 0 {
		return out, fail.Refuse("name a model that comes as GGUF", errors.New("no .gguf file in the model"))
	}
	return out, nil
}

// checkRelease refuses libraries of another llama.cpp than the binding fits.
func checkRelease(f *NamedFile) error {
	const hint = "release the engine that this version of enisle names in its manual"
	if f == nil {
		return fail.Refuse(hint, fmt.Errorf("the engine has no %s: its version is unknown", metadataName))
	}
	text, err := io.ReadAll(io.NewSectionReader(f.File, 0, maxMetadata))
	if err != nil {
		return fmt.Errorf("%s: %w", f.Name, err)
	}
	var meta struct {
		BuildOptions struct {
			Arch     string `json:"arch"`
			LlamaCpp struct {
				Release string `json:"release"`
			} `json:"llamaCpp"`
		} `json:"buildOptions"`
	}
	if err := json.Unmarshal(text, &meta); err != nil {
		return fail.Refuse(hint, fmt.Errorf("%s: %w", f.Name, err))
	}
	if got := meta.BuildOptions; got.LlamaCpp.Release != release || got.Arch != "x64" {
		return fail.Refuse(hint, fmt.Errorf("the engine is llama.cpp %q for %q, want %q for x64", got.LlamaCpp.Release, got.Arch, release))
	}
	return nil
}

// link makes the private directory in which the libraries find each other:
// names that point at the descriptors the worker inherits, so that what is
// loaded is what was hashed, without a copy. The dynamic linker takes $ORIGIN
// from the name and opens the descriptor; ggml looks for its variants for each
// processor in the same directory. Only this user may enter it.
func (fs files) link(parent string, first int) (dir string, err error) {
	if dir, err = os.MkdirTemp(parent, "enisle-engine-"); err != nil {
		return "", fmt.Errorf("engine directory: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	for i, f := range fs.list {
		names := []string{path.Base(f.Name)}
		if short, ok := strings.CutSuffix(names[0], "."+release+".so"); ok {
			names = append(names, short+".so") // the binding asks for libllama.so
		}
		for _, n := range names {
			if err := os.Symlink(fmt.Sprintf("/proc/self/fd/%d", first+i), filepath.Join(dir, n)); err != nil {
				return "", fmt.Errorf("engine directory: %w", err)
			}
		}
	}
	return dir, nil
}
