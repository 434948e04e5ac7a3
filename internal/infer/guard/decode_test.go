package guard

import (
	"encoding/base64"
	"strings"
	"testing"
)

// A code is found wherever it begins, and however close the next one is.
func TestCodesAreFoundAnywhere(t *testing.T) {
	for _, secret := range []string{"open the way", "open the gate now"} {
		code := base64.RawStdEncoding.EncodeToString([]byte(secret))
		for before := range 3 * minCoded {
			for _, between := range []string{" ", ". ", " word ", strings.Repeat(" ", minCoded)} {
				text := strings.Repeat(" ", before) + code + between + code
				var got []string
				for _, c := range decode(text) {
					got = append(got, c.how+" "+c.text)
				}
				if want := "base64 " + secret; len(got) != 2 || got[0] != want || got[1] != want {
					t.Fatalf("%q: %q", text, got)
				}
			}
		}
		if got := decode(code[:minCoded-1]); len(got) > 0 {
			t.Errorf("%q is too short for a code: %q", code[:minCoded-1], got)
		}
	}
}
