package local

import (
	"maps"
	"path"
	"path/filepath"
	"slices"
	"strconv"
)

// kind is what is particular to one kind of engine.
type kind struct {
	program string // its file in the artifact
	env     []string
	args    func(e *Engine) []string
}

// Tasks are what a server can be started for, beside chat and texts: the empty one.
const (
	Embeddings = "embeddings"
	Ranking    = "ranking"
)

// Kinds lists the kinds that are known.
func Kinds() []string { return slices.Sorted(maps.Keys(kinds())) }

// IsProgram reports whether a file of an artifact is the program of a kind, by its name.
func IsProgram(name string) bool {
	for _, k := range kinds() {
		if k.program == path.Base(name) {
			return true
		}
	}
	return false
}

func kinds() map[string]kind {
	return map[string]kind{
		// llama.cpp's server. Nothing is fetched, no page is served, no slot is told of,
		// and prompts are not put aside, since none is used again (package remote).
		"llama-server": {
			program: "llama-server",
			env:     []string{"GGML_NO_BACKTRACE=1"}, // which would start a debugger
			args: func(e *Engine) []string {
				o := e.opt
				threads := strconv.Itoa(o.Threads)
				args := []string{
					"-m", filepath.Join(e.dir, e.weights[0]), "--alias", o.Serves.ID, "--host", e.socket(),
					"-c", strconv.Itoa(o.Serves.Context * o.Parallel), "-np", strconv.Itoa(o.Parallel), "-t", threads, "-tb", threads,
					"--cache-ram", "0", "--metrics", "--no-slots", "--no-webui", "--offline",
				}
				switch o.Task {
				case Embeddings:
					args = append(args, "--embeddings")
				case Ranking:
					args = append(args, "--reranking")
				}
				return args
			},
		},
	}
}
