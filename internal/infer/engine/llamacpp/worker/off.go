//go:build noengine

// Package worker is left out of this build: the binding of llama.cpp needs
// libffi and a dynamic linker even to start, which not every machine has.
package worker

import (
	"context"
	"errors"

	"enisle/internal/fail"
)

// Run refuses.
func Run(context.Context, []string) error {
	return fail.Refuse("use a build without the tag noengine", errors.New("this build runs no models itself"))
}
