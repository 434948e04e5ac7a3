package fail

import (
	"errors"
	"fmt"
	"testing"
)

func TestKindsMapToTheExitCodesOfTheContract(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		code int
		hint string
	}{
		"nil is done":                 {nil, 0, ""},
		"a plain error failed":        {errors.New("x"), 1, ""},
		"usage":                       {As(Usage, "see help", errors.New("x")), 2, "see help"},
		"a wrapped refusal":           {fmt.Errorf("volume 1: %w", Refuse("copy it again", errors.New("x"))), 3, "copy it again"},
		"partial":                     {As(Partial, "run it again", errors.New("x")), 4, "run it again"},
		"an outer kind wins":          {As(Partial, "", Refuse("inner", errors.New("x"))), 4, "inner"},
		"an outer hint wins":          {Refuse("outer", Refuse("inner", errors.New("x"))), 3, "outer"},
		"joined errors keep the kind": {errors.Join(Refuse("h", errors.New("x")), errors.New("y")), 3, "h"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := ExitCode(tc.err); got != tc.code {
				t.Errorf("exit code %d, want %d", got, tc.code)
			}
			if got := HintOf(tc.err); got != tc.hint {
				t.Errorf("hint %q, want %q", got, tc.hint)
			}
		})
	}
}
