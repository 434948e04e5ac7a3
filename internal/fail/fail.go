// Package fail gives an error its kind and its hint.
//
// A kind says how the program ends (exit code) or answers (HTTP status); a hint
// is one line that tells the person what to do next. Everything else about an
// error is ordinary Go wrapping: packages wrap with %w and branch on the kind,
// never on the text. The mapping from kind to exit code and status stands here
// and nowhere else.
package fail

import (
	"errors"
	"net/http"
)

// Kind says what sort of failure an error is. The zero value is Failed.
type Kind int

// The kinds, with their exit codes in brackets.
const (
	Failed  Kind = iota // [1] something went wrong that trying again may cure
	Usage               // [2] the call was malformed, or there was nothing to do
	Refused             // [3] verification, policy, role or freshness said no
	Partial             // [4] stopped where it can be resumed
)

type failure struct {
	kind Kind
	hint string
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

// As returns err marked with a kind and a hint; an empty hint keeps the one
// that err already carries. It returns nil when err is nil.
func As(kind Kind, hint string, err error) error {
	if err == nil {
		return nil
	}
	return &failure{kind, hint, err}
}

// Refuse is As with the kind Refused.
func Refuse(hint string, err error) error { return As(Refused, hint, err) }

// KindOf reports the outermost kind that err carries, Failed if none.
func KindOf(err error) Kind {
	var f *failure
	if errors.As(err, &f) {
		return f.kind
	}
	return Failed
}

// IsRefused reports whether err ends in a refusal.
func IsRefused(err error) bool { return err != nil && KindOf(err) == Refused }

// HintOf returns the outermost hint that is not empty.
func HintOf(err error) string {
	for err != nil {
		var f *failure
		if !errors.As(err, &f) {
			return ""
		}
		if f.hint != "" {
			return f.hint
		}
		err = f.err
	}
	return ""
}

// ExitCode maps an error to the exit code of the command line contract.
func ExitCode(err error) int {
	if err == nil {
		return 0
	}
	return int(KindOf(err)) + 1
}

// Status maps an error to an HTTP status.
func Status(err error) int {
	switch KindOf(err) {
	case Usage:
		return http.StatusBadRequest
	case Refused:
		return http.StatusForbidden
	case Partial:
		return http.StatusServiceUnavailable
	default:
		return http.StatusInternalServerError
	}
}
