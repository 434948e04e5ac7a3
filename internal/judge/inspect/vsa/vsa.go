// Package vsa inspects attestations about signatures that were verified outside,
// and finds signatures in models.
//
// It verifies no signature: whether an attestation is by the site that sealed the
// shipment, and about what is in it, is seen where the keys are.
package vsa

import (
	"context"
	"errors"
	"io"
	"path"
	"strings"

	"enisle/internal/judge/inspect"
	"enisle/internal/judge/oms"
	"enisle/internal/judge/upstream"
)

// Scanner inspects attestations; the zero value works.
type Scanner struct{}

var _ inspect.Scanner = Scanner{}

// New returns the scanner.
func New() Scanner { return Scanner{} }

// Name returns "vsa".
func (Scanner) Name() string { return "vsa" }

// Version changes when verdicts may.
func (Scanner) Version() string { return "2" }

// Wants takes the one file that an artifact of the kind vsa has.
func (Scanner) Wants(s inspect.Subject) bool {
	return s.Depth == 0 && s.Ref.Kind == upstream.Kind && s.Path == upstream.File
}

// Scan reads the whole statement and refuses any other form of it.
func (Scanner) Scan(ctx context.Context, s inspect.Subject, run inspect.Run) error {
	b, err := read(s, upstream.MaxSize)
	if err != nil {
		return err
	}
	st, err := upstream.Unverified(b)
	if err == nil && st.Predicate.ResourceURI != strings.TrimPrefix(s.Ref.String(), upstream.Kind+"/") {
		err = errors.New("it is about " + st.Predicate.ResourceURI + ", which its name does not say")
	}
	if err != nil {
		run.Report("attestation", inspect.Refuse, err.Error())
	}
	return ctx.Err()
}

// Signatures finds signatures of models; the zero value works.
type Signatures struct{}

var _ inspect.Beside = Signatures{}

// Beside says that whoever finds one does not know the file.
func (Signatures) Beside() {}

// Name returns "signature".
func (Signatures) Name() string { return "signature" }

// Version changes when verdicts may.
func (Signatures) Version() string { return "1" }

// Wants takes what is called like a signature.
func (Signatures) Wants(s inspect.Subject) bool {
	return s.Depth == 0 && s.Ref.Kind != upstream.Kind && strings.HasSuffix(s.Path, oms.Suffix) && s.Size <= oms.MaxSize
}

// Scan labels the artifact, so that rules can ask for it.
func (Signatures) Scan(ctx context.Context, s inspect.Subject, run inspect.Run) error {
	b, err := read(s, oms.MaxSize)
	if err != nil {
		return err
	}
	if oms.Is(path.Base(s.Path), b) {
		run.Note(inspect.Label, inspect.SignedUpstream)
	}
	return ctx.Err()
}

func read(s inspect.Subject, limit int64) ([]byte, error) {
	if s.Size > limit {
		return nil, errors.New("it is larger than it may be")
	}
	b := make([]byte, s.Size)
	if _, err := s.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}
