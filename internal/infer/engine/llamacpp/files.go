package llamacpp

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"enisle/internal/fail"
	"enisle/internal/infer/engine/child"
)

// release is the only llama.cpp that the binding (yzma v1.28.0) fits. Another
// pair would not fail, it would corrupt memory.
const release = "v0.5.0"

const (
	metadataName = "_nlcBuildMetadata.json"
	maxMetadata  = 64 << 10 // bytes
)

// files is what a worker is given: libraries first, then weights, in the order
// in which they become descriptors.
type files struct {
	list   []child.NamedFile
	models []string // base names, in order
	bytes  int64    // size of the weights
}

// check verifies all files and picks those that a worker needs.
func check(ctx context.Context, library, model []child.NamedFile) (files, error) {
	var out files
	var built *child.NamedFile
	if err := child.Verify(ctx, append(slices.Clone(library), model...)...); err != nil {
		return out, err
	}
	for i, f := range library {
		switch base := f.Base(); {
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
		base := f.Base()
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
func checkRelease(f *child.NamedFile) error {
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

// names are those under which a file is linked (child.Links): ggml looks for its
// variants for each processor beside the libraries.
func names(f child.NamedFile) []string {
	names := []string{f.Base()}
	if short, ok := strings.CutSuffix(names[0], "."+release+".so"); ok {
		names = append(names, short+".so") // the binding asks for libllama.so
	}
	return names
}
