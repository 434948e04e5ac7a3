package repo

import (
	"bytes"
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"enisle/internal/judge/inspect"
)

// Settings in languages that are not read as a tree here: TOML, INI, JSON with comments,
// Jsonnet, HOCON and their like. Whatever reads them, a key that has code called is
// written as a key, and what it names behind it.

// prose are endings of texts that may speak of such keys and are read by people; constant.
var prose = []string{".md", ".rst", ".py", ".ipynb", ".html", ".txt", ".csv", ".tsv", ".jsonl", ".jinja", ".jinja2", ".j2", ".vocab"}

var (
	// calling is a key that has code called, and what stands behind it. Keys of INI have
	// no case.
	calling = regexp.MustCompile(`(?i)(^|[^A-Za-z0-9_@])["'\x60]?(_target_|class_path|_component_|custom_pipelines)["'\x60]?\s*\]?\s*(?:\+?:{1,3}|\+?=|=>)\s*["'\x60]*([^"'\x60,;\s}\]#]*)`)
	// registry is a key by which spaCy and its companions find a function.
	registry = regexp.MustCompile(`(?m)^\s*["']?(@[A-Za-z_]+)["']?\s*=\s*["']*([^"'\s#;]*)`)
	escaped  = regexp.MustCompile(`\\(?:u00|U000000|x|u\{0*)([0-9A-Fa-f]{2})\}?`)
	// computed is a key that Jsonnet makes of an expression.
	computed = regexp.MustCompile(`[{,;]\s*\[[^\[\]\n]*\]\s*\+?:`)
	// imports are texts that Jsonnet takes from other files.
	imports  = regexp.MustCompile(`\bimport(?:str|bin)?\s*(["'@|][^\n;,)]*)`)
	ordinary = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_./-]*$`)
	// registered is a name of a registry of spaCy, thinc and their companions: a function
	// that a library put there by itself.
	registered = regexp.MustCompile(`^(?:(?:spacy|thinc|srsly)(?:-[a-z]+)*\.)?[A-Za-z][A-Za-z0-9_]*\.v[0-9]+$`)
)

func isJsonnet(s inspect.Subject) bool {
	return slices.Contains([]string{".jsonnet", ".libsonnet"}, strings.ToLower(path.Ext(s.Path)))
}

// isSettings reports whether a text that is neither JSON nor YAML has a key that has code
// called.
func isSettings(s inspect.Subject) bool {
	ext := strings.ToLower(path.Ext(s.Path))
	if s.Size > maxConfig || bytes.IndexByte(s.Head, 0) >= 0 || isYAML(s) || ext == ".json" || slices.Contains(prose, ext) {
		return false
	}
	b, err := content(s)
	return err == nil && utf8.Valid(b) && (isJsonnet(s) || len(called(s, plainly(b))) > 0)
}

// plainly returns a text with its escaped letters as letters, and lines that go on as one.
func plainly(b []byte) []byte {
	b = bytes.ReplaceAll(bytes.ReplaceAll(b, []byte("\\\r\n"), nil), []byte("\\\n"), nil)
	return escaped.ReplaceAllFunc(b, func(m []byte) []byte {
		digits := bytes.TrimSuffix(m, []byte("}"))
		n, err := strconv.ParseUint(string(digits[len(digits)-2:]), 16, 8)
		if err != nil || n < ' ' || n > '~' {
			return m
		}
		return []byte{byte(n)}
	})
}

// called returns the keys that have code called, each with what stands behind it.
func called(s inspect.Subject, b []byte) (pairs [][2]string) {
	for _, m := range calling.FindAllSubmatch(b, -1) {
		pairs = append(pairs, [2]string{strings.ToLower(string(m[2])), string(m[3])})
	}
	if slices.Contains([]string{".cfg", ".ini", ".toml", ".conf"}, strings.ToLower(path.Ext(s.Path))) {
		for _, m := range registry.FindAllSubmatch(b, -1) {
			pairs = append(pairs, [2]string{strings.ToLower(string(m[1])), string(m[2])})
		}
	}
	return pairs
}

// settings judges what the keys name.
func settings(s inspect.Subject, run inspect.Run) error {
	b, err := content(s)
	if err != nil {
		return err
	}
	b = plainly(b)
	seen := map[string]bool{}
	for _, pair := range called(s, b) {
		key, value := pair[0], pair[1]
		if seen[key+value] || len(seen) == maxKinds {
			continue
		}
		seen[key+value] = true
		switch {
		case key == "custom_pipelines":
			judge(run, key, value)
		case key == "class_path" || key == "_component_":
			hint(run, key, value)
		case key[0] == '@' && registered.MatchString(value):
			run.Report("target", inspect.Warn, fmt.Sprintf("%s names a function that a library registered: %.160s", key, value))
		default:
			target(run, key, value)
		}
	}
	if !isJsonnet(s) {
		return nil
	}
	if computed.Match(b) {
		run.Report("target", inspect.Refuse, "Jsonnet that computes its keys")
	}
	for _, m := range imports.FindAllSubmatch(b, -1) {
		if name := strings.Trim(string(m[1]), `"'`); strings.Contains(name, "..") || !ordinary.MatchString(name) {
			run.Report("target", inspect.Refuse, fmt.Sprintf("Jsonnet that reads %.80q", name))
		}
	}
	return nil
}
