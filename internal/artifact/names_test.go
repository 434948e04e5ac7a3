package artifact

import "testing"

func TestNamesThatCouldBeTakenForOthers(t *testing.T) {
	for name, tc := range map[string]struct {
		refs []string
		want int
	}{
		"two packages":                        {[]string{"pypi/requests@2", "pypi/urllib3@2", "npm/requests@2"}, 0},
		"two versions of one":                 {[]string{"npm/semver@6.0.0", "npm/semver@7.0.0"}, 0},
		"PyPI registers one of these":         {[]string{"pypi/typing-extensions@4", "pypi/typ1ng-extens10ns@4"}, 1},
		"separators do not count there":       {[]string{"pypi/zope-interface@1", "pypi/zopeinterface@1"}, 1},
		"npm has both, and means two":         {[]string{"npm/is-array@1.0.0", "npm/isarray@1.0.0"}, 0},
		"case in npm":                         {[]string{"npm/JSONStream@1.0.0", "npm/jsonstream@1.0.0"}, 1},
		"a dash and an underscore in cargo":   {[]string{"cargo/serde-json@1.0.0", "cargo/serde_json@1.0.0"}, 1},
		"case in Go, which builds name":       {[]string{"gomod/code.example/Sirupsen/logrus@v1.0.0", "gomod/code.example/sirupsen/logrus@v1.0.0"}, 0},
		"case at a hub":                       {[]string{"hf/Org/Model@1", "hf/org/model@1"}, 1},
		"a Cyrillic letter at a registry":     {[]string{"pypi/rеquests@2"}, 1},
		"a Cyrillic letter in a Latin word":   {[]string{"files/pаyload.txt"}, 1},
		"a Cyrillic word beside a Latin one":  {[]string{"files/отчет-2026.pdf", "files/report.pdf"}, 0},
		"a word wholly of letters like Latin": {[]string{"model/соса", "model/coca"}, 1},
		"a wide letter":                       {[]string{"files/ａb.txt", "files/ab.txt"}, 1},
		"Japanese":                            {[]string{"files/日本語のモデル.txt"}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var refs []Ref
			for _, s := range tc.refs {
				r, err := ParseRef(s)
				if err != nil {
					t.Fatal(err)
				}
				refs = append(refs, r)
			}
			if got := Lookalikes(refs); len(got) != tc.want {
				t.Errorf("got %v, want %d", got, tc.want)
			}
		})
	}
}

func TestNormalNames(t *testing.T) {
	for in, want := range map[[2]string]string{
		{"pypi", "Zope.Interface__x"}: "zope-interface-x", {"cargo", "serde_JSON"}: "serde-json", {"npm", "@Acme/X_y"}: "@acme/x_y",
		{"gomod", "code.example/Team/X"}: "code.example/team/x",
	} {
		if got := Normal(in[0], in[1]); got != want {
			t.Errorf("%v: got %q, want %q", in, got, want)
		}
	}
}
