// Package onnx inspects ONNX models: what they would read beside themselves, which
// operators they call, and whether every tensor has the data that it claims.
//
// It walks the whole file field by field and reads no tensor. A field that ONNX
// does not have, a second one where one is allowed, a number in a longer form than
// needed or a byte too many is refused: two readers might see two models.
package onnx

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"

	"enisle/internal/judge/inspect"
	"enisle/internal/model/wire"
)

// Scanner inspects ONNX models; the zero value works.
type Scanner struct{}

var _ inspect.Scanner = Scanner{}

// New returns the scanner.
func New() Scanner { return Scanner{} }

// Name returns "onnx".
func (Scanner) Name() string { return "onnx" }

// Version changes when verdicts may.
func (Scanner) Version() string { return "2" }

// named reports whether the name says that it is a model.
func named(s inspect.Subject) bool { return strings.EqualFold(path.Ext(s.Path), ".onnx") }

// numbers reports whether the name is one under which writers keep the data of
// tensors, as bare numbers that no reader interprets.
func numbers(s inspect.Subject) bool {
	lower := strings.ToLower(s.Path)
	return s.Ref.Kind == "model" && (strings.HasSuffix(lower, ".onnx_data") || strings.HasSuffix(lower, ".onnx.data"))
}

// Wants takes models by name, and whatever reads as one.
func (Scanner) Wants(s inspect.Subject) bool { return named(s) || numbers(s) || reads(s) }

// manyFields is how many fields of a model one after the other are taken for one,
// whatever they are.
const manyFields = 10_000

// reads reports whether the bytes begin as a model does: fields of a model one
// after the other, until one graph and the version of the format were seen.
func reads(s inspect.Subject) bool {
	if len(s.Head) == 0 || s.Head[0]&7 != byte(wire.Varint) && s.Head[0]&7 != byte(wire.Bytes) {
		return false
	}
	m := wire.Open(s, s.Size, 2*manyFields)
	version, has := false, false
	for n := 0; ; n++ {
		if n == manyFields {
			return true // so many are no accident
		}
		f, err := m.Next()
		if err != nil || f.Number >= maxField || schema[model][f.Number] == nil || !schema[model][f.Number].fits(f.Type) {
			return version && has
		}
		switch f.Number {
		case 1:
			version = f.Value > 0 && f.Value < 1000
		case 7:
			in, err := f.Body.Next()
			has = err == nil && in.Number < maxField && schema[graph][in.Number] != nil && schema[graph][in.Number].fits(in.Type)
		}
	}
}

// Scan walks the model.
func (Scanner) Scan(ctx context.Context, s inspect.Subject, run inspect.Run) error {
	if !named(s) && !reads(s) {
		run.Note(inspect.Format, "data of an ONNX model")
		return nil
	}
	w := walker{
		ctx: ctx, domains: map[string]bool{}, foreign: map[string]string{}, functions: map[string]bool{},
		report: func(rule, detail string) { run.Report(rule, s.Data(), detail) },
	}
	r, err := w.message(wire.Open(s, s.Size, maxFields), model, 0)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err == nil && (r.number[1] == 0 || r.count[7] != 1 || r.count[8] == 0):
		err = errors.New("it has no version, no graph or no set of operators")
	}
	if err != nil {
		run.Report("broken", s.Data(), "not an ONNX model that can be read: "+err.Error())
	}
	if w.bad > maxRefusals {
		run.Report("more", s.Data(), fmt.Sprintf("%d further reasons", w.bad-maxRefusals))
	}
	w.foreignDomains(run)
	run.Note(inspect.Format, "onnx")
	run.Note(inspect.Model, fmt.Sprintf("IR %d, by %s %s, %d nodes, %d tensors, %d parameters", r.number[1], r.text[2], r.text[3], w.nodes, w.tensors, w.params))
	run.Note(inspect.Model, "opsets: "+strings.Join(w.opsets, ", ")+"; domains: "+strings.Join(slices.Sorted(maps.Keys(w.domains)), ", "))
	return nil
}

// foreignDomains shows the operators that neither every runtime nor the model
// itself has.
func (w *walker) foreignDomains(run inspect.Run) {
	by := map[string][]string{}
	for key, domain := range w.foreign {
		if !w.functions[key] {
			by[domain] = append(by[domain], strings.TrimPrefix(key, domain+"\x00"))
		}
	}
	for _, domain := range slices.Sorted(maps.Keys(by)) {
		slices.Sort(by[domain])
		run.Report("custom-domain", inspect.Warn, fmt.Sprintf("it calls operators of %.80q, which a library outside of the model must bring: %.160v", domain, by[domain]))
	}
}
