// Package keras inspects models of Keras: the configuration that a loader builds
// layers from, in .keras archives, in HDF5 files and as JSON of its own.
//
// A configuration names classes and functions, and a loader imports them. Only
// those that Keras builds models from pass; what carries code, reaches into other
// modules or is named as nothing of Keras is, is refused. Nothing is built.
package keras

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strings"
	"unicode/utf8"

	"enisle/internal/judge/inspect"
	"enisle/internal/model/hdf5"
	"enisle/internal/model/tree"
)

// Scanner inspects models of Keras and HDF5 files; the zero value works.
type Scanner struct{}

var _ inspect.Scanner = Scanner{}

// New returns the scanner.
func New() Scanner { return Scanner{} }

// Name returns "keras".
func (Scanner) Name() string { return "keras" }

// Version changes when verdicts may.
func (Scanner) Version() string { return "3" }

const maxConfig = 64 << 20 // bytes

// inside returns the name of a member of a .keras archive, "" for others.
func inside(s inspect.Subject) string {
	outer, name, ok := cutLast(s.Path, "!")
	if !ok || !strings.EqualFold(path.Ext(outer), ".keras") {
		return ""
	}
	return name
}

func cutLast(s, sep string) (before, after string, ok bool) {
	i := strings.LastIndex(s, sep)
	if i < 0 {
		return "", s, false
	}
	return s[:i], s[i+len(sep):], true
}

func isHDF5(s inspect.Subject) bool {
	ext := strings.ToLower(path.Ext(s.Path))
	return bytes.HasPrefix(s.Head, []byte(hdf5.Magic)) || slices.Contains([]string{".h5", ".hdf5", ".he5"}, ext)
}

// Wants takes HDF5 files, the configurations in .keras archives, and any JSON or YAML
// that reads as one.
func (Scanner) Wants(s inspect.Subject) bool {
	name := inside(s)
	return isHDF5(s) || name == "config.json" || name == "metadata.json" || isConfig(s)
}

// isConfig reports whether a text has the form of a model's architecture, or means to
// have it and cannot be read: JSON or YAML, whatever it is called, since loaders take the
// text and not the file.
func isConfig(s inspect.Subject) bool {
	if s.Size > maxConfig || s.Packaged() || bytes.IndexByte(s.Head, 0) >= 0 {
		return false
	}
	json := isJSON(s)
	if !json && slices.Contains([]string{".md", ".rst", ".py", ".ipynb", ".html"}, strings.ToLower(path.Ext(s.Path))) {
		return false // prose and code may speak of layers
	}
	b, err := content(s)
	if err != nil {
		return false
	}
	if !json {
		if !inYAML.Match(b) || !utf8.Valid(b) {
			return false
		}
		docs, err := tree.YAML(b, func(string) {})
		return err != nil || architecture(docs)
	}
	plain, escaped := tree.MayHold(b, "class_name")
	if inner := bytes.Contains(b, []byte(`\"class_name\"`)); !plain && !escaped && !inner {
		return false
	}
	doc, err := tree.JSON(b)
	if text, ok := doc.(string); ok { // what to_json returns, written as JSON once more
		doc, err = tree.JSON([]byte(text))
	}
	if err != nil {
		return plain
	}
	return architecture(doc)
}

// inYAML is the key of a class.
var inYAML = regexp.MustCompile(`(?m)(?:^|[\s{,-])["']?class_name["']?\s*:`)

// isJSON reports whether a text is JSON by its name, or by what it begins with.
func isJSON(s inspect.Subject) bool {
	head := bytes.TrimLeft(bytes.TrimPrefix(s.Head, []byte("\xef\xbb\xbf")), " \t\r\n")
	return strings.EqualFold(path.Ext(s.Path), ".json") || len(head) > 0 && bytes.IndexByte([]byte(`{["`), head[0]) >= 0
}

// architecture reports whether an object at any depth is one that Keras builds.
func architecture(doc any) bool {
	return !tree.Walk(doc, func(_ string, m tree.Map) bool { return m["class_name"] == nil || m["config"] == nil })
}

func content(s inspect.Subject) ([]byte, error) {
	if s.Size > maxConfig {
		return nil, fmt.Errorf("it has %d bytes", s.Size)
	}
	b := make([]byte, s.Size)
	_, err := io.ReadFull(io.NewSectionReader(s, 0, s.Size), b)
	return b, err
}

// Scan judges the configuration.
func (Scanner) Scan(ctx context.Context, s inspect.Subject, run inspect.Run) error {
	j := &judge{run: run, sev: s.Data(), custom: map[string]bool{}, said: map[string]bool{}}
	switch {
	case isHDF5(s):
		scanHDF5(ctx, s, j)
	case inside(s) == "metadata.json":
		b, err := content(s)
		if err != nil {
			return err
		}
		if doc, err := tree.JSON(b); err != nil {
			j.refuse("config", "its metadata are no JSON: "+err.Error())
		} else if m, ok := doc.(tree.Map); ok {
			run.Note(inspect.Model, fmt.Sprintf("Keras %.40v", m["keras_version"]))
		}
	default:
		b, err := content(s)
		if err != nil {
			return err
		}
		run.Note(inspect.Format, "keras")
		if inside(s) == "" && !isJSON(s) {
			j.yaml(b)
		} else {
			j.text(string(b), true)
		}
	}
	j.end()
	return ctx.Err()
}

// scanHDF5 follows a file and judges the configurations in its attributes: those
// that loaders read, and any other that has the form of one.
func scanHDF5(ctx context.Context, s inspect.Subject, j *judge) {
	keras := false
	sum, err := hdf5.Read(ctx, s, s.Size, func(a hdf5.Attribute) error {
		named := slices.Contains([]string{"model_config", "training_config", "optimizer_config", "layer_config"}, a.Name)
		keras = keras || named || a.Name == "keras_version"
		if named && len(a.Text) != 1 {
			j.refuse("config", fmt.Sprintf("its %s is no text", a.Name))
		}
		for _, text := range a.Text {
			if named || strings.ContainsAny(text, "{[") {
				j.text(text, named)
			}
		}
		return nil
	})
	if err != nil {
		j.refuse("hdf5", "its structure cannot be followed: "+err.Error())
	}
	j.run.Note(inspect.Format, map[bool]string{true: "keras", false: "hdf5"}[keras])
	j.run.Note(inspect.Model, fmt.Sprintf("%d datasets in %d groups", sum.Datasets, sum.Groups))
}
