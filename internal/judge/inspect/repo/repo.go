// Package repo inspects what stands beside the weights of a model: code that runs
// when somebody loads it, and programs that have no place there.
//
// It reads names, first bytes and configurations; it judges no code.
package repo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"enisle/internal/judge/inspect"
)

// Scanner inspects the files of models; the zero value works.
type Scanner struct{}

var _ inspect.Scanner = Scanner{}

// New returns the scanner.
func New() Scanner { return Scanner{} }

// Name returns "repo".
func (Scanner) Name() string { return "repo" }

// Version changes when verdicts may.
func (Scanner) Version() string { return "1" }

const maxConfig = 64 << 20 // bytes

// native are the first bytes of programs and libraries; constant.
var native = []struct{ magic, name string }{
	{"\x7fELF", "an ELF program or library"},
	{"MZ", "a program or library of Windows"},
	{"\xcf\xfa\xed\xfe", "a Mach-O program or library"},
	{"\xce\xfa\xed\xfe", "a Mach-O program or library"},
	{"\xca\xfe\xba\xbe", "a Mach-O library or a Java class"},
	{"\x00asm", "a WebAssembly module"},
	{"#!", "a script"},
}

func base(s inspect.Subject) string { return s.Path[strings.LastIndexAny(s.Path, "/!")+1:] }

func config(s inspect.Subject) bool {
	return strings.HasSuffix(base(s), "config.json") || base(s) == "model_index.json"
}

func program(s inspect.Subject) string {
	for _, n := range native {
		if bytes.HasPrefix(s.Head, []byte(n.magic)) {
			return n.name
		}
	}
	if slices.Contains([]string{".so", ".dll", ".dylib", ".pyd", ".exe", ".sh", ".bat", ".ps1", ".pyc", ".class", ".jar"}, path.Ext(s.Path)) {
		return "by its name a program or library"
	}
	return ""
}

// Wants takes configurations, code and programs of models.
func (Scanner) Wants(s inspect.Subject) bool {
	return slices.Contains([]string{"model", "hf"}, s.Ref.Kind) && (config(s) || path.Ext(s.Path) == ".py" || program(s) != "")
}

// Scan reports what of it would run.
func (Scanner) Scan(_ context.Context, s inspect.Subject, run inspect.Run) error {
	switch {
	case program(s) != "":
		run.Note(inspect.Code, program(s))
		run.Report("native-code", inspect.Refuse, program(s)+": it has no place in a model")
	case path.Ext(s.Path) == ".py" && strings.Contains(s.Path, "/code/__torch__"):
		run.Note(inspect.Code, "TorchScript")
		run.Report("torchscript-code", inspect.Warn, "TorchScript, which runs when the model is used: read it before you approve")
	case path.Ext(s.Path) == ".py":
		run.Note(inspect.Code, "Python")
		run.Report("custom-code", inspect.Warn, "Python, which runs where somebody trusts remote code: read it before you approve")
	default:
		return scanConfig(s, run)
	}
	return nil
}

// scanConfig looks for what makes a loader import code of the model.
func scanConfig(s inspect.Subject, run inspect.Run) error {
	if s.Size > maxConfig {
		run.Report("config", inspect.Refuse, fmt.Sprintf("it has %d bytes", s.Size))
		return nil
	}
	b := make([]byte, s.Size)
	if _, err := io.ReadFull(io.NewSectionReader(s, 0, s.Size), b); err != nil {
		return err
	}
	var doc any
	if err := json.Unmarshal(b, &doc); err != nil {
		run.Report("config", inspect.Refuse, "it is no JSON: "+err.Error())
		return nil
	}
	walk(doc, 0, func(key string, value any) {
		switch key {
		case "auto_map", "custom_pipelines", "_target_":
			run.Note(inspect.Code, key)
			run.Report("auto-map", inspect.Warn, fmt.Sprintf("%s names code that a loader imports: %.160v", key, value))
		case "trust_remote_code":
			if value != false {
				run.Report("auto-map", inspect.Warn, "it asks a loader to trust remote code")
			}
		}
	})
	return nil
}

// walk calls see for every key at every depth, in order.
func walk(v any, depth int, see func(string, any)) {
	if depth > 100 {
		return // encoding/json allows more; nothing of a loader does
	}
	switch v := v.(type) {
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			see(k, v[k])
			walk(v[k], depth+1, see)
		}
	case []any:
		for _, e := range v {
			walk(e, depth+1, see)
		}
	}
}
