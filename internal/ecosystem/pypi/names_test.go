package pypi

import (
	"slices"
	"testing"
)

func TestVersionsAreComparedAsPythonDoes(t *testing.T) {
	for name, tc := range map[string]struct {
		a, b string
		want bool
	}{
		"leading zeros":               {"2024.07.04", "2024.7.4", true},
		"trailing zeros":              {"1.0", "1.0.0", true},
		"spellings of a candidate":    {"1.0-RC.1", "1.0c1", true},
		"a post release by a dash":    {"1.0-1", "1.0.post1", true},
		"a local version in a name":   {"2.6.0_cu124", "2.6.0+cu124", true},
		"a development version":       {"1.0.dev0", "1.0dev", true},
		"another epoch":               {"1!1.0", "1.0", false},
		"another local version":       {"1.0+a", "1.0+b", false},
		"a candidate is not final":    {"1.0rc1", "1.0", false},
		"what is no version at all":   {"x", "1.0", false},
		"the same that is no version": {"x", "X", true},
	} {
		t.Run(name, func(t *testing.T) {
			if got := sameVersion(tc.a, tc.b); got != tc.want {
				t.Errorf("%s and %s: %t, want %t (%s, %s)", tc.a, tc.b, got, tc.want, canonical(tc.a), canonical(tc.b))
			}
		})
	}
}

func TestTheWheelThatFitsBestIsChosen(t *testing.T) {
	for name, tc := range map[string]struct {
		python string
		// wheels from best to worst, of x-1; those after "" do not fit.
		wheels []string
	}{
		"compiled before stable before pure": {"3.12", []string{
			"cp312-cp312-manylinux_2_28_x86_64", "cp312-cp312-manylinux_2_17_x86_64.manylinux2014_x86_64",
			"cp39-abi3-manylinux_2_28_aarch64", "cp37-abi3-manylinux_2_28_aarch64", "cp37-abi3-manylinux2014_aarch64",
			"py3-none-manylinux_2_28_x86_64", "py3-none-any", "", "cp311-cp311-manylinux_2_28_x86_64", "cp313-abi3-manylinux_2_28_x86_64",
			"cp312-cp312t-manylinux_2_28_x86_64", "pp310-pypy310_pp73-manylinux_2_17_x86_64", "py2-none-any",
		}},
		"any Python":        {"", []string{"cp313-cp313-linux_x86_64", "cp312-cp312-linux_x86_64", "py2.py3-none-any", ""}},
		"with a patch part": {"3.11.7", []string{"cp311-cp311-linux_x86_64", "py3-none-any", "", "cp312-cp312-linux_x86_64"}},
	} {
		t.Run(name, func(t *testing.T) {
			fits := slices.Index(tc.wheels, "")
			last := 1 << 60
			for i, w := range tc.wheels {
				got := rank("x-1-"+w+".whl", tc.python)
				if i < fits && (got < 0 || got >= last) {
					t.Errorf("%s has rank %d after %d", w, got, last)
				}
				if i > fits && got >= 0 {
					t.Errorf("%s fits with rank %d", w, got)
				}
				last = got
			}
		})
	}
}

func TestOnlyNamesOfWheelsAndSdistsParse(t *testing.T) {
	for file, want := range map[string][2]string{
		"a_b-1.0-py3-none-any.whl":    {"a_b", "1.0"},
		"a_b-1.0-2-py3-none-any.whl":  {"a_b", "1.0"},
		"a-b-1.0.tar.gz":              {"a-b", "1.0"},
		"a-1.0.zip":                   {},
		"a-1.0-any.whl":               {},
		"a-1.0-b-c-py3-none-any.whl2": {},
	} {
		name, version, err := parseFileName(file)
		if (err != nil) != (want[0] == "") || name != want[0] || version != want[1] {
			t.Errorf("%s: %q %q %v", file, name, version, err)
		}
	}
}
