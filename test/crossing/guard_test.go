package crossing_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"enisle/internal/infer/guard"
)

// Rules of the guard cross the gap like everything else, and only those that can be used.
func TestRulesOfTheGuardCross(t *testing.T) {
	w := newWorld(t)
	rules, _ := guard.Standard()
	w.must(os.MkdirAll(w.path("guard"), 0o755))
	w.must(os.WriteFile(w.path("guard", guard.RulesFile), rules, 0o644))
	classifier, err := os.ReadFile("../../internal/infer/guard/classifier.bin")
	w.must(err)
	w.must(os.WriteFile(w.path("guard", guard.ClassifierFile), classifier, 0o644))
	w.must(os.WriteFile(w.path("enisle.yaml"), []byte("name: guard\nbring:\n  files: [ {path: guard, as: rules/guard} ]\n"), 0o644))
	w.cross("media-1")

	for name, tc := range map[string]struct {
		file string
		text []byte
	}{
		"rules whose own tests fail": {guard.RulesFile, []byte(strings.Replace(string(rules), "say hello.", "", 1) + "\nmore: 1\n")},
		"half a classifier":          {guard.ClassifierFile, classifier[:1000]},
		"a script beside them":       {"run.sh", []byte("#!/bin/sh\n")},
	} {
		t.Run(name, func(t *testing.T) {
			kept, kerr := os.ReadFile(w.path("guard", tc.file))
			w.must(os.WriteFile(w.path("guard", tc.file), tc.text, 0o644))
			id := w.pack("media-"+tc.file, 0)
			_, err := w.importFrom("media-" + tc.file)
			w.must(err)
			j, err := w.app("high").Inspect(t.Context(), id)
			w.must(err)
			if j.Decision.Allow || !strings.Contains(fmt.Sprint(j), "guard-file") {
				t.Errorf("the policy allows it: %v", j.Decision.Reasons)
			}
			if kerr == nil {
				w.must(os.WriteFile(w.path("guard", tc.file), kept, 0o644))
			} else {
				w.must(os.Remove(w.path("guard", tc.file)))
			}
		})
	}
}
