// Package skops inspects models in the format of skops: an archive with a schema of
// nodes, each of which names a class and how it is built.
//
// A loader imports what the nodes name. Every node must be of a kind that is known,
// with a class that goes with it; the classes are those that estimators of
// scikit-learn consist of. Nothing is built. Arrays in the archive are members like
// any other, and other scanners see them.
package skops

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"path"
	"strings"

	"enisle/internal/judge/inspect"
	"enisle/internal/model/tree"
)

// Scanner inspects models of skops; the zero value works.
type Scanner struct{}

var _ inspect.Scanner = Scanner{}

// New returns the scanner.
func New() Scanner { return Scanner{} }

// Name returns "skops".
func (Scanner) Name() string { return "skops" }

// Version changes when verdicts may.
func (Scanner) Version() string { return "2" }

const (
	maxSchema   = 64 << 20 // bytes
	maxFindings = 50       // of one file; more say nothing new
)

func named(s inspect.Subject) bool { return strings.EqualFold(path.Ext(s.Path), ".skops") }

// schema reports whether the subject is the schema of a model: by its place, or as
// a JSON file with nodes.
func schema(s inspect.Subject) bool {
	if strings.HasSuffix(strings.ToLower(s.Path), ".skops!schema.json") {
		return true
	}
	if !strings.EqualFold(path.Ext(s.Path), ".json") || s.Size > maxSchema || s.Packaged() {
		return false
	}
	b, err := content(s)
	if err != nil {
		return false
	}
	plain, escaped := tree.MayHold(b, "__loader__")
	if !plain && !escaped {
		return false
	}
	doc, err := tree.JSON(b)
	if err != nil {
		return plain
	}
	m, _ := doc.(tree.Map)
	return m["__loader__"] != nil || m["protocol"] != nil && m["__class__"] != nil
}

func content(s inspect.Subject) ([]byte, error) {
	if s.Size > maxSchema {
		return nil, fmt.Errorf("it has %d bytes", s.Size)
	}
	b := make([]byte, s.Size)
	_, err := io.ReadFull(io.NewSectionReader(s, 0, s.Size), b)
	return b, err
}

// Wants takes archives by name and schemas wherever they stand.
func (Scanner) Wants(s inspect.Subject) bool { return named(s) || schema(s) }

// Scan judges every node of a schema.
func (Scanner) Scan(_ context.Context, s inspect.Subject, run inspect.Run) error {
	run.Note(inspect.Format, "skops")
	if named(s) {
		if !bytes.HasPrefix(s.Head, []byte("PK\x03\x04")) {
			// Some readers fall back to joblib, which unpickles (CVE-2025-54886).
			run.Report("no-archive", s.Data(), "it is no archive, and a reader may take it for a pickle")
		}
		return nil
	}
	b, err := content(s)
	if err != nil {
		return err
	}
	doc, err := tree.JSON(b)
	if err != nil {
		run.Report("schema", s.Data(), "its schema is no JSON that can be read: "+err.Error())
		return nil
	}
	said, nodes := map[string]bool{}, 0
	tree.Walk(doc, func(at string, m tree.Map) bool {
		rule, detail := node(m)
		if m["__loader__"] != nil {
			nodes++
		}
		if detail = fmt.Sprintf("%.80s: %s", at, detail); rule != "" && !said[rule+detail] && len(said) < maxFindings {
			said[rule+detail] = true
			run.Report(rule, s.Data(), detail)
		}
		return true
	})
	root, _ := doc.(tree.Map)
	if nodes == 0 {
		run.Report("schema", s.Data(), "its schema holds no node")
	}
	run.Note(inspect.Model, fmt.Sprintf("%.60v.%.60v by skops %.20v, %d nodes", root["__module__"], root["__class__"], root["_skops_version"], nodes))
	return nil
}
