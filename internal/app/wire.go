package app

import (
	"context"
	"errors"
	"fmt"

	"enisle/internal/artifact"
	"enisle/internal/crossing"
	"enisle/internal/ecosystem"
	"enisle/internal/infer/engine/llamacpp"
	"enisle/internal/infer/engine/llamacpp/worker"
	"enisle/internal/judge/inspect"
	"enisle/internal/sandbox"
	"enisle/internal/site"
)

// Hidden runs the verbs under which this program starts itself confined, before
// any flag is read. done says that args named one.
func Hidden(ctx context.Context, args []string) (done bool, err error) {
	if len(args) == 0 {
		return false, nil
	}
	switch args[0] {
	case sandbox.Verb:
		return true, fmt.Errorf("confine: %w", errors.Join(sandbox.Enter(args[1:]), errors.New("the program was not started")))
	case llamacpp.Verb:
		return true, worker.Run(ctx, args[1:])
	}
	return false, nil
}

// ecosystems lists every package world. Serving needs none of the parts that
// collecting needs.
func (a *App) ecosystems(_ any) []ecosystem.Ecosystem {
	return nil
}

// collector builds what collecting needs.
func (a *App) collector(_ context.Context, s *site.Site) (*crossing.Collector, error) {
	return &crossing.Collector{Site: s, Ecosystems: a.ecosystems(nil), Progress: a.Progress, Hidden: []string{a.KeyFile}}, nil
}

type none struct{}

func (none) Inspect(context.Context, []artifact.Artifact, inspect.Open, func(int64)) (inspect.Report, error) {
	return inspect.Report{Scanners: []inspect.ScannerInfo{{Name: "x"}}, Findings: []inspect.Finding{}}, nil
}

// inspector builds the scanners.
func (a *App) inspector() crossing.Inspector { return none{} }
