package repo

import (
	"fmt"
	"regexp"
	"slices"

	"enisle/internal/judge/inspect"
)

const maxCode = 16 << 20 // bytes of one file

// starting is what code of a model has no need for: it starts programs, loads libraries,
// opens sockets, or runs text and bytes as code. It finds what is written plainly, and
// that nothing of it is there says nothing: people read all code before they approve.
var starting = regexp.MustCompile(`\b(?:os|posix|nt)\s*\.\s*(?:system|popen|exec[lv]p?e?|spawn[lv]p?e?|posix_spawnp?|startfile|fork)\b` +
	`|\bfrom\s+(?:os|posix|nt)\s+import\b[^\n]*\b(?:system|popen|exec[lv]|spawn)` +
	`|\b(?:import|from)\s+(?:subprocess|pty|socket|ctypes|marshal|pickle|dill|cloudpickle|runpy|code|codeop|telnetlib|ftplib|smtplib|winreg)\b` +
	`|\b(?:subprocess|pty|marshal|pickle|dill|cloudpickle)\.(?:Popen|run|call|check_call|check_output|getoutput|spawn|loads?)\b` +
	`|(?:^|[^.\w])(?:exec|eval|compile|__import__)\s*\(` +
	`|\b__builtins__\b|\b(?:__import__|builtins)\s*[.\[]` +
	`|\bimport_module\s*\(\s*["'](?:os|subprocess|socket|pty|ctypes|builtins|posix|nt)["']` +
	`|\bimport_module\s*\(\s*["'][^"'\n]*["']\s*[+%]` + `|\btorch\.(?:ops|classes)\.load_library\b|\btorch\.hub\.load\b|\byaml\.(?:unsafe_load|UnsafeLoader)\b` +
	`|\bgetattr\s*\(\s*(?:os|builtins|sys|subprocess|importlib)\b` +
	`|\bsys\s*\.\s*modules\s*\[` + `|\b__subclasses__\b|\b__globals__\b`)

// comments are what stands behind a number sign; texts that contain one are cut, which
// only makes less of what is no code.
var comments = regexp.MustCompile(`(?m)^\s*#.*$`)

// python judges code of Python that stands beside the weights.
func python(s inspect.Subject, run inspect.Run) error {
	run.Note(inspect.Code, "Python")
	if s.Size > maxCode {
		run.Report("custom-code", inspect.Refuse, fmt.Sprintf("Python of %d bytes", s.Size))
		return nil
	}
	b, err := content(s)
	if err != nil {
		return err
	}
	var found []string
	for _, m := range starting.FindAll(comments.ReplaceAll(b, nil), 20) {
		if name := string(m); !slices.Contains(found, name) {
			found = append(found, name)
		}
	}
	if len(found) > 0 {
		run.Report("starting-code", inspect.Refuse, fmt.Sprintf("Python that starts programs, opens connections or runs text: %.160q", found))
		return nil
	}
	run.Report("custom-code", inspect.Warn, "Python, which runs where somebody trusts remote code: read it before you approve")
	return nil
}
