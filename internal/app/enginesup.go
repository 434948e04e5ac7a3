package app

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"enisle/internal/infer/engine"
)

// list returns the engines that run now, in a stable order.
func (e *engines) list() []engine.Engine {
	e.mu.Lock()
	defer e.mu.Unlock()
	keys := make([]string, 0, len(e.running))
	for k := range e.running {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	out := make([]engine.Engine, 0, len(keys))
	for _, k := range keys {
		out = append(out, e.running[k].engine)
	}
	return out
}

// coming returns the names of models whose engines should run and do not yet.
func (e *engines) coming() (names []string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for key, models := range e.wanted {
		if e.running[key] == nil {
			names = append(names, models...)
		}
	}
	return names
}

// ready says whether a release is followed and all its models are up.
func (e *engines) ready(context.Context) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	switch {
	case e.view.Release == 0 && e.lastErr == nil:
		return errors.New("nothing was released yet, or its engines are starting")
	case e.lastErr != nil:
		return e.lastErr
	case len(e.running) < len(e.wanted):
		return fmt.Errorf("%d of %d engines are up", len(e.running), len(e.wanted))
	}
	return nil
}
