// Package gguf inspects the header of GGUF model files, and what chat template the
// file brings.
package gguf

import (
	"bytes"
	"context"
	"fmt"
	"path"
	"slices"

	"enisle/internal/judge/inspect"
	"enisle/internal/judge/inspect/template"
	"enisle/internal/model/gguf"
)

// Scanner inspects GGUF headers; the zero value works.
type Scanner struct{}

var _ inspect.Scanner = Scanner{}

// New returns the scanner.
func New() Scanner { return Scanner{} }

// Name returns "gguf".
func (Scanner) Name() string { return "gguf" }

// Version changes when verdicts may.
func (Scanner) Version() string { return "3" }

// Wants takes files that begin as GGUF, or are called so.
func (Scanner) Wants(s inspect.Subject) bool {
	return bytes.HasPrefix(s.Head, []byte(gguf.Magic)) || path.Ext(s.Path) == ".gguf"
}

// Scan reads the header.
func (Scanner) Scan(ctx context.Context, s inspect.Subject, run inspect.Run) error {
	h, at, err := gguf.Read(ctx, s, s.Size)
	if err != nil {
		run.Report("header", inspect.Refuse, fmt.Sprintf("at byte %d: %v", at, err))
		return nil
	}
	if err := h.Layout(s.Size); err != nil {
		run.Report("tensors", inspect.Refuse, err.Error())
	}
	if h.Arch == "" {
		run.Report("header", inspect.Refuse, "it names no general.architecture")
	}
	templates(h, run)
	run.Note(inspect.Format, "gguf")
	run.Note(inspect.Model, fmt.Sprintf("%.60s: %d tensors", h.Arch, len(h.Tensors)))
	run.Report("model", inspect.Info, fmt.Sprintf("architecture %s, %d tensors, %d facts", h.Arch, len(h.Tensors), h.Pairs))
	return nil
}

// templates judges every chat template of the file.
func templates(h *gguf.Header, run inspect.Run) {
	keys := make([]string, 0, len(h.Templates))
	for k := range h.Templates {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	for _, k := range keys {
		template.Judge(run, k, h.Templates[k])
	}
}
