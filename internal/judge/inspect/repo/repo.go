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
	"regexp"
	"slices"
	"strings"

	"enisle/internal/judge/inspect"
	"enisle/internal/model/tree"
)

// Scanner inspects the files of models; the zero value works.
type Scanner struct{}

var _ inspect.Scanner = Scanner{}

// New returns the scanner.
func New() Scanner { return Scanner{} }

// Name returns "repo".
func (Scanner) Name() string { return "repo" }

// Version changes when verdicts may.
func (Scanner) Version() string { return "4" }

const (
	maxConfig = 64 << 20 // bytes
	maxDepth  = 200      // values inside of values; nothing of a loader has more
	maxKinds  = 100      // different things that are said of one file
)

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

func isYAML(s inspect.Subject) bool {
	return slices.Contains([]string{".yaml", ".yml"}, strings.ToLower(path.Ext(s.Path)))
}

// targets reports whether another JSON file has the key of Hydra or that of Lightning,
// as text or escaped.
func targets(s inspect.Subject) bool {
	if !strings.EqualFold(path.Ext(s.Path), ".json") || s.Size > maxConfig {
		return false
	}
	b, err := content(s)
	if err != nil {
		return false
	}
	plain, escaped := tree.MayHold(b, "_target_")
	if other, _ := tree.MayHold(b, "class_path"); plain || other || bytes.Contains(b, []byte(`"py/`)) || bytes.Contains(b, []byte(`"py\/`)) {
		return true
	}
	var doc any
	found := false
	if escaped && json.Unmarshal(tree.Plain(b), &doc) == nil {
		walk(doc, 0, func(key string, _ any) {
			found = found || key == "_target_" || key == "class_path" || strings.HasPrefix(key, "py/")
		})
	}
	return found
}

func content(s inspect.Subject) ([]byte, error) {
	b := make([]byte, s.Size)
	_, err := io.ReadFull(io.NewSectionReader(s, 0, s.Size), b)
	return b, err
}

func program(s inspect.Subject) string {
	for _, n := range native {
		if bytes.HasPrefix(s.Head, []byte(n.magic)) {
			return n.name
		}
	}
	if slices.Contains([]string{".so", ".dll", ".dylib", ".pyd", ".exe", ".sh", ".bat", ".ps1", ".pyc", ".pyo", ".pyz", ".class", ".jar", ".vbs", ".hta", ".scr", ".lnk", ".msi", ".cmd", ".reg", ".desktop", ".bash", ".zsh", ".ksh", ".csh", ".command", ".psm1", ".com", ".vbe", ".jse", ".wsf", ".appimage", ".deb", ".rpm", ".apk", ".node"}, strings.ToLower(path.Ext(s.Path))) {
		return "by its name a program or library"
	}
	return ""
}

// Wants takes configurations, code and programs of models.
func (Scanner) Wants(s inspect.Subject) bool {
	return slices.Contains([]string{"model", "hf"}, s.Ref.Kind) && (config(s) || isYAML(s) || isBytecode(s) || isPython(s) || program(s) != "" || targets(s) || tagged(s) || isSettings(s))
}

// Scan reports what of it would run.
func (Scanner) Scan(_ context.Context, s inspect.Subject, run inspect.Run) error {
	switch {
	case program(s) != "":
		run.Note(inspect.Code, program(s))
		run.Report("native-code", inspect.Refuse, program(s)+": it has no place in a model")
	case isScript(s):
		return script(s, run)
	case isBytecode(s):
		return bytecode(s, run)
	case path.Ext(s.Path) == ".py" && strings.Contains(s.Path, "__torch__"):
		run.Note(inspect.Code, "Python")
		run.Report("custom-code", inspect.Refuse, "Python under the name of what TorchScript keeps to itself")
	case isPython(s):
		return python(s, run)
	case tagged(s):
		run.Report("yaml-tag", inspect.Refuse, "it has the tags of YAML that construct objects of Python")
	case isSettings(s):
		return settings(s, run)
	default:
		return scanConfig(s, run)
	}
	return nil
}

func isPython(s inspect.Subject) bool {
	return slices.Contains([]string{".py", ".pyw", ".pyx", ".pyi"}, strings.ToLower(path.Ext(s.Path)))
}

var pythonTag = regexp.MustCompile(`(?m)(?:^|[\s\[{,:-])!(?:!python/|<tag:yaml\.org,2002:python/)(?:object|name|module)`)

// tagged reports whether a text that is not called YAML has tags by which YAML makes
// objects of Python. Prose and code may speak of them.
func tagged(s inspect.Subject) bool {
	if isYAML(s) || s.Size > 1<<20 || bytes.IndexByte(s.Head, 0) >= 0 || slices.Contains([]string{".md", ".rst", ".py", ".ipynb", ".html", ".txt"}, strings.ToLower(path.Ext(s.Path))) {
		return false
	}
	b, err := content(s)
	return err == nil && pythonTag.Match(b)
}

// scanConfig looks for what makes a loader import code of the model.
func scanConfig(s inspect.Subject, run inspect.Run) error {
	if s.Size > maxConfig {
		run.Report("config", inspect.Refuse, fmt.Sprintf("it has %d bytes", s.Size))
		return nil
	}
	b, err := content(s)
	if err != nil {
		return err
	}
	var doc any
	kind := "JSON"
	if isYAML(s) {
		kind = "YAML"
		seen := map[string]bool{}
		doc, err = tree.YAML(b, func(t string) {
			if !seen[t] && len(seen) < maxKinds {
				seen[t] = true
				tag(run, t)
			}
		})
	} else {
		err = json.Unmarshal(tree.Plain(b), &doc)
		if err == nil && targets(s) {
			doc, err = tree.JSON(b) // a key that stands twice is another to another reader
		}
	}
	if err != nil {
		run.Report("config", inspect.Refuse, "it is no "+kind+" that can be read: "+err.Error())
		return nil
	}
	seen := map[string]bool{}
	if !walk(doc, 0, func(key string, value any) {
		if once := fmt.Sprintf("%s %.200v", key, value); keys(key) && !seen[once] && len(seen) < maxKinds {
			seen[once] = true
			judge(run, key, value)
		}
	}) {
		run.Report("config", inspect.Refuse, "its values nest too deep")
	}
	return nil
}

// keys reports whether a key is one that may name code.
func keys(key string) bool {
	return slices.Contains([]string{"auto_map", "custom_pipelines", "_target_", "target", "class_path", "cls", "_component_", "trust_remote_code"}, key) || strings.HasPrefix(key, "py/")
}

// judge judges what a key of a configuration says.
func judge(run inspect.Run, key string, value any) {
	if strings.HasPrefix(key, "py/") {
		run.Report("target", inspect.Refuse, fmt.Sprintf("%.40s has jsonpickle make %.160v", key, value))
		return
	}
	switch key {
	case "auto_map", "custom_pipelines":
		run.Note(inspect.Code, key)
		run.Report("auto-map", inspect.Warn, fmt.Sprintf("%s names code that a loader imports: %.160v", key, value))
	case "_target_":
		target(run, key, value)
	case "target", "class_path", "cls", "_component_":
		hint(run, key, value)
	case "trust_remote_code":
		if value != false && !strings.EqualFold(fmt.Sprint(value), "false") {
			run.Report("auto-map", inspect.Warn, "it asks a loader to trust remote code")
		}
	}
}

// walk calls see for every key at every depth, in order. It is false if there is
// more than it looks into.
func walk(v any, depth int, see func(string, any)) bool {
	if depth > maxDepth {
		return false
	}
	ok := true
	switch v := v.(type) {
	case map[string]any:
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			see(k, v[k])
			ok = walk(v[k], depth+1, see) && ok
		}
	case []any:
		for _, e := range v {
			ok = walk(e, depth+1, see) && ok
		}
	}
	return ok
}
