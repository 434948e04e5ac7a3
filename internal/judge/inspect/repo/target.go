package repo

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"enisle/internal/judge/inspect"
)

// verdict is what a path to code, such as a.b.Class, may be.
type verdict int

const (
	model  verdict = iota // a class of a library that models are built from
	stray                 // of a library that nobody listed
	danger                // what runs, reads or fetches whatever it is given
)

// libraries are those whose classes models are built from; constant.
var libraries = []string{"nemo", "torch.nn", "torch.optim", "pytorch_lightning", "lightning", "omegaconf", "speechbrain"}

var (
	classLike  = regexp.MustCompile(`^[A-Z][A-Za-z0-9_]*$`)
	moduleLike = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	// layersOf are modules with functions that only compute.
	layersOf = regexp.MustCompile(`^(speechbrain\.(nnet|lobes|processing|lm)\.|torch\.nn\.functional\.)[a-z_.]+$`)
	dotted   = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)+$`)
)

// parts are names that have no place anywhere on the way to a class: libraries
// re-export what they import. Constant.
var parts = []string{
	"os", "sys", "subprocess", "builtins", "importlib", "imp", "shutil", "socket", "pickle", "cpickle", "dill", "cloudpickle", "joblib", "marshal", "shelve",
	"pydoc", "runpy", "pty", "posix", "nt", "code", "codeop", "ctypes", "cffi", "commands", "platform", "webbrowser", "tempfile", "pathlib", "io", "asyncio",
	"multiprocessing", "threading", "concurrent", "signal", "site", "pip", "setuptools", "distutils", "urllib", "requests", "http", "ftplib", "smtplib", "fsspec",
	"inspect", "types", "operator", "functools", "gc", "timeit", "cprofile", "profile", "trace", "pdb", "bdb", "doctest", "unittest", "pkgutil", "zipimport", "logging",
	"system", "popen", "spawn", "fork", "exec", "eval", "compile", "execfile", "getattr", "setattr", "load", "loads", "load_library", "hub", "cpp_extension", "package",
	"numpy_pickle", "get_method", "get_class", "get_object", "get_static_method", "call", "globals", "locals", "open", "input", "breakpoint",
}

// judgeTarget says what a path to code is.
func judgeTarget(path string) verdict {
	names := strings.Split(path, ".")
	for _, n := range names {
		if strings.HasPrefix(n, "_") || slices.Contains(parts, strings.ToLower(n)) {
			return danger
		}
	}
	in := slices.ContainsFunc(libraries, func(l string) bool { return strings.HasPrefix(path, l+".") })
	if !in {
		return stray
	}
	for i, n := range names {
		last := i == len(names)-1
		if last && !classLike.MatchString(n) && !layersOf.MatchString(path) || !last && !moduleLike.MatchString(n) && !classLike.MatchString(n) {
			return stray
		}
	}
	return model
}

// target judges what a configuration has instantiated by its path (Hydra, NeMo,
// CVE-2025-23304).
func target(run inspect.Run, key string, value any) {
	run.Note(inspect.Code, key)
	path, ok := value.(string)
	switch v := judgeTarget(path); {
	case !ok || path == "":
		run.Report("target", inspect.Refuse, fmt.Sprintf("%s is no path to a class", key))
	case v == model:
		run.Report("target", inspect.Warn, fmt.Sprintf("%s names a class that a loader builds: %.160s", key, path))
	case v == danger:
		run.Report("target", inspect.Refuse, fmt.Sprintf("%s would have a loader call %.160q", key, path))
	default:
		run.Report("target", inspect.Refuse, fmt.Sprintf("%s names code of a library that is not known: %.160q", key, path))
	}
}

// hint judges keys that some loaders take for a path to code and others for
// anything: only what looks like one is spoken of.
func hint(run inspect.Run, key string, value any) {
	path, ok := value.(string)
	if !ok || !dotted.MatchString(path) {
		return
	}
	if judgeTarget(path) == danger {
		run.Report("target", inspect.Refuse, fmt.Sprintf("%s would have a loader call %.160q", key, path))
		return
	}
	run.Report("target", inspect.Warn, fmt.Sprintf("%s names code that a loader may build: %.160s", key, path))
}

// harmless are tags that only refer to other values (HyperPyYAML); constant.
var harmless = []string{"!ref", "!copy", "!tuple", "!PLACEHOLDER"}

// tag judges a tag of YAML that a loader may construct objects from.
func tag(run inspect.Run, t string) {
	kind, path, _ := strings.Cut(t, ":")
	switch v := judgeTarget(path); {
	case slices.Contains(harmless, t):
	case (kind == "!new" || kind == "!name") && v == model:
		run.Report("target", inspect.Warn, fmt.Sprintf("the tag %.160s names a class that a loader builds", t))
	case strings.Contains(t, "python"):
		run.Report("yaml-tag", inspect.Refuse, fmt.Sprintf("the tag %.160q constructs objects of Python", t))
	default:
		run.Report("yaml-tag", inspect.Refuse, fmt.Sprintf("the tag %.160q may run code", t))
	}
}
