package repo

import (
	"bytes"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"enisle/internal/judge/inspect"
)

// isScript reports whether a file is code of a TorchScript archive.
func isScript(s inspect.Subject) bool {
	return s.Depth > 0 && strings.HasSuffix(s.Path, ".py") && strings.Contains(s.Path, "/code/")
}

// isBytecode reports whether a file is the code of a TorchScript archive for phones.
func isBytecode(s inspect.Subject) bool { return s.Depth > 0 && base(s) == "bytecode.pkl" }

// calls are names of operators of torch that write and read files, go to the
// network or call Python; what a model computes with needs none of them. Constant.
var calls = []string{
	"save", "from_file", "load_library", "load_tensor", "rpc_async", "rpc_sync", "rpc_remote", "PythonOp", "IgnoredPythonOp", "debugprims", "c10d", "_c10d_functional",
	"_c10d_functional_autograd", "_dtensor", "_test", "inductor", "_save", "_load", "_load_from_file", "load_for_mobile", "system", "popen", "exec", "__import__", "AutogradAllNonZero",
	"read_file", "write_file", "write_jpeg", "write_png", "tofile", "_load_library", "read_video_from_file", "probe_video_from_file",
	"sox_io_load_audio_file", "sox_io_save_audio_file", "sox_io_get_info", "sox_effects_apply_effects_file",
}

// spaces are the namespaces of operators that torch has in itself, and those of its
// two companions; constant.
var spaces = []string{"aten", "prim", "prims", "quantized", "quantized_decomposed", "_quantized", "prepacked", "mkldnn", "mkldnn_prepacked", "mkl", "onednn", "sparse", "quantization", "torchvision", "image", "torchaudio"}

var (
	// token is a text, a comment or a name of TorchScript.
	token = regexp.MustCompile(`"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|#[^\n]*|[A-Za-z_][A-Za-z0-9_]*|\^`)
	// reads is a value taken by its name from an object, as TorchScript writes it
	// where the name is no identifier.
	reads = regexp.MustCompile(`getattr\((?:\(?[A-Za-z_][A-Za-z0-9_.]*\)?|\([^()]*\)), "([^"\\]*)"\)`)
	// operators are names of operators as texts, each behind its length.
	operators = regexp.MustCompile(`(?s)X..\x00\x00([A-Za-z0-9_]+)::[A-Za-z0-9_.]+`)
	ops       = regexp.MustCompile(`\bops(?:\s|\\)*\.(?:\s|\\)*([A-Za-z0-9_]+)(?:\s|\\)*\.(?:\s|\\)*([A-Za-z0-9_]+)`)
)

const maxScript = 64 << 20 // bytes

// script judges TorchScript by the operators that it names.
func script(s inspect.Subject, run inspect.Run) error {
	run.Note(inspect.Code, "TorchScript")
	if s.Size > maxScript {
		run.Report("torchscript-code", inspect.Refuse, fmt.Sprintf("it has %d bytes", s.Size))
		return nil
	}
	b, err := content(s)
	if err != nil {
		return err
	}
	found := []string{}
	add := func(name string) {
		if slices.Contains(calls, name) && !slices.Contains(found, name) {
			found = append(found, name)
		}
	}
	getattrs := 0
	for _, t := range token.FindAll(b, -1) {
		switch {
		case string(t) == "^":
			add("PythonOp") // a call of Python
		case string(t) == "getattr":
			getattrs++
		default:
			add(string(t))
		}
	}
	plain := reads.FindAllSubmatch(b, -1)
	for _, m := range plain {
		add(string(m[1]))
	}
	switch {
	case len(found) > 0:
		run.Report("torchscript-code", inspect.Refuse, fmt.Sprintf("TorchScript that calls what reaches out of the model: %.160v", found))
	case bytes.Contains(b, []byte(`"""`)) || bytes.Contains(b, []byte(`'''`)):
		run.Report("torchscript-code", inspect.Refuse, "TorchScript with texts of many lines, which torch does not write")
	case getattrs != len(plain):
		run.Report("torchscript-code", inspect.Refuse, "TorchScript that takes a value by a name that it computes")
	case foreign(b) != "":
		run.Report("torchscript-code", inspect.Refuse, "TorchScript that needs a library of other operators, whose code is not here: "+foreign(b))
	default:
		run.Report("torchscript-code", inspect.Warn, "TorchScript, which runs when the model is used: read it before you approve")
	}
	return nil
}

// foreign names operators that a library outside of torch must bring.
func foreign(b []byte) string {
	var names []string
	for _, m := range ops.FindAllSubmatch(b, -1) {
		if name := string(m[1]) + "." + string(m[2]); !slices.Contains(spaces, string(m[1])) && !slices.Contains(names, name) && len(names) < 20 {
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return fmt.Sprintf("%.160v", names)
}

// bytecode judges the table of operators of an archive for phones: texts in a pickle
// that another scanner follows.
func bytecode(s inspect.Subject, run inspect.Run) error {
	run.Note(inspect.Code, "TorchScript")
	if s.Size > maxScript {
		run.Report("torchscript-code", inspect.Refuse, fmt.Sprintf("it has %d bytes", s.Size))
		return nil
	}
	b, err := content(s)
	if err != nil {
		return err
	}
	for _, name := range calls {
		for _, space := range []string{"aten::", "prim::", "prims::", "::"} {
			if bytes.Contains(b, []byte(space+name)) {
				run.Report("torchscript-code", inspect.Refuse, fmt.Sprintf("its code calls what reaches out of the model: %s%s", space, name))
				return nil
			}
		}
	}
	for _, m := range operators.FindAllSubmatch(b, -1) {
		if !slices.Contains(spaces, string(m[1])) {
			run.Report("torchscript-code", inspect.Refuse, fmt.Sprintf("its code needs a library of other operators, whose code is not here: %.80s", m[1]))
			return nil
		}
	}
	run.Report("torchscript-code", inspect.Warn, "TorchScript for phones, which runs when the model is used")
	return nil
}
