// Package safetensors inspects the header of safetensors model files: every length
// is held against the file, and every byte of it belongs to one tensor.
//
// It reads the header only, and no tensor. What else the bytes may be, a pickle or
// an archive, other scanners see by the same bytes.
package safetensors

import (
	"context"
	"fmt"
	"path"
	"slices"

	"enisle/internal/judge/inspect"
	"enisle/internal/model/safetensors"
)

// Scanner inspects headers; the zero value works.
type Scanner struct{}

var _ inspect.Scanner = Scanner{}

// New returns the scanner.
func New() Scanner { return Scanner{} }

// Name returns "safetensors".
func (Scanner) Name() string { return "safetensors" }

// Version changes when verdicts may.
func (Scanner) Version() string { return "2" }

// Wants takes files that begin like one, or are called so.
func (Scanner) Wants(s inspect.Subject) bool {
	return path.Ext(s.Path) == ".safetensors" || safetensors.Is(s.Head, s.Size)
}

// Scan reads the header.
func (Scanner) Scan(ctx context.Context, s inspect.Subject, run inspect.Run) error {
	h, err := safetensors.Read(ctx, s, s.Size)
	if err != nil {
		run.Report("header", inspect.Refuse, err.Error())
		return nil
	}
	run.Note(inspect.Format, "safetensors")
	params := uint64(0)
	types := []string{}
	for _, t := range h.Tensors {
		n := uint64(1)
		for _, d := range t.Shape {
			n *= d // Read has held the product against the file
		}
		params += n
		if !slices.Contains(types, t.Type) {
			types = append(types, t.Type)
		}
	}
	slices.Sort(types)
	run.Note(inspect.Model, fmt.Sprintf("safetensors: %d tensors of %v, %d parameters", len(h.Tensors), types, params))
	return nil
}
