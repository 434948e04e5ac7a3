package npm

import (
	"context"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/fail"
)

// sum is the integrity of a content that nobody has.
func sum(b byte) string {
	return "sha512-" + base64.StdEncoding.EncodeToString(append(make([]byte, 63), b))
}

type index struct{}

func (index) GetJSON(_ context.Context, address, _ string, _ int64) ([]byte, error) {
	if address != "https://r.example/npm/plain" {
		return nil, errors.New("not here")
	}
	return []byte(`{"time":{"1.0.0":"2024-01-02T03:04:05.678Z"}}`), nil
}

func locks() map[string]string {
	return map[string]string{
		"package-lock.json": `{"lockfileVersion":3,"packages":{"":{"name":"app"},
			"node_modules/plain":{"version":"1.0.0","resolved":"https://r.example/npm/plain/-/plain-1.0.0.tgz","integrity":"` + sum(1) + `"},
			"node_modules/a/node_modules/plain":{"version":"1.0.0","resolved":"https://r.example/npm/plain/-/plain-1.0.0.tgz","integrity":"` + sum(1) + `"},
			"node_modules/@s/dep":{"version":"2.0.0","resolved":"https://r.example/npm/@s/dep/-/dep-2.0.0.tgz","integrity":"sha1-AAAA ` + sum(2) + `","dev":true},
			"node_modules/alias":{"name":"real","version":"3.0.0","resolved":"https://r.example/npm/real/-/real-3.0.0.tgz","integrity":"` + sum(3) + `"},
			"node_modules/mac":{"version":"1.0.0","resolved":"https://r.example/npm/mac/-/mac-1.0.0.tgz","integrity":"` + sum(4) + `","os":["darwin"],"optional":true},
			"node_modules/notmac":{"version":"1.0.0","resolved":"https://r.example/npm/notmac/-/notmac-1.0.0.tgz","integrity":"` + sum(5) + `","os":["!darwin"],"cpu":["x64","arm64"]},
			"node_modules/inner":{"version":"1.0.0","inBundle":true},
			"packages/w":{"version":"0.0.0"},"node_modules/w":{"resolved":"packages/w","link":true}}}`,
		"pnpm-lock.yaml": "lockfileVersion: '9.0'\npackages:\n  plain@1.0.0:\n    resolution: {integrity: " + sum(1) + "}\n  '@s/dep@2.0.0':\n    resolution: {integrity: " + sum(2) +
			"}\n  real@3.0.0:\n    resolution: {integrity: " + sum(3) + ", tarball: 'https://r.example/npm/real/-/real-3.0.0.tgz'}\n  mac@1.0.0:\n    resolution: {integrity: " + sum(4) + "}\n    os: [darwin]\n  notmac@1.0.0:\n    resolution: {integrity: " + sum(5) + "}\n",
		"yarn.lock": "# yarn lockfile v1\n\n\n\"@s/dep@^2\", \"@s/dep@2.0.0\":\n  version \"2.0.0\"\n  resolved \"https://r.example/npm/@s/dep/-/dep-2.0.0.tgz#abc\"\n  integrity " + sum(2) +
			"\n  dependencies:\n    plain \"^1\"\n\nplain@^1:\n  version \"1.0.0\"\n  resolved \"https://r.example/npm/plain/-/plain-1.0.0.tgz#abc\"\n  integrity " + sum(1) +
			"\n\nalias@npm:real@3:\n  version \"3.0.0\"\n  resolved \"https://r.example/npm/real/-/real-3.0.0.tgz\"\n  integrity " + sum(3) + "\n\nnotmac@1:\n  version \"1.0.0\"\n  resolved \"https://r.example/npm/notmac/-/notmac-1.0.0.tgz\"\n  integrity " + sum(5) + "\n",
	}
}

func resolve(t *testing.T, file, text string) ([]artifact.Artifact, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, file), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	eco := &Ecosystem{Runner: runner{"https://r.example/npm/\n"}, Index: index{}}
	return eco.Resolve(t.Context(), ecosystem.Want{Items: []any{map[string]any{"lockfile": file}}, Dir: dir, Work: t.TempDir(), Target: ecosystem.Target{OS: "linux", Arch: "amd64"}})
}

func TestLockfiles(t *testing.T) {
	for file, text := range locks() {
		t.Run(file, func(t *testing.T) {
			all, err := resolve(t, file, text)
			if err != nil {
				t.Fatal(err)
			}
			var refs []string
			for _, a := range all {
				refs = append(refs, a.Ref.String())
				f := a.Files[0]
				if len(f.Hashes["sha512"]) != 128 || !strings.HasPrefix(f.Origin, "https://r.example/npm/"+a.Ref.Name+"/-/") || f.Published.IsZero() != (a.Ref.Name != "plain") {
					t.Errorf("%s: %+v", a.Ref, f)
				}
			}
			slices.Sort(refs)
			if want := []string{"npm/@s/dep@2.0.0", "npm/notmac@1.0.0", "npm/plain@1.0.0", "npm/real@3.0.0"}; !slices.Equal(refs, want) {
				t.Errorf("%v, want %v", refs, want)
			}
		})
	}
}

func TestLockfilesAreRefused(t *testing.T) {
	one := func(resolved, integrity string) string {
		return `{"lockfileVersion":3,"packages":{"node_modules/p":{"version":"1.0.0","resolved":"` + resolved + `","integrity":"` + integrity + `"}}}`
	}
	for name, tc := range map[string]struct{ file, text, want string }{
		"of git":               {"package-lock.json", one("git+ssh://git@code.example/p.git#abc", sum(1)), "not from a registry"},
		"of a directory":       {"package-lock.json", one("file:../p", sum(1)), "not from a registry"},
		"a weak hash":          {"package-lock.json", one("https://r.example/p/-/p-1.0.0.tgz", "sha1-AAAA"), "has no sha512"},
		"half a hash":          {"package-lock.json", one("https://r.example/p/-/p-1.0.0.tgz", "sha512-AAAA"), "integrity"},
		"of npm 6":             {"package-lock.json", `{"lockfileVersion":1,"dependencies":{}}`, "lockfileVersion 1"},
		"nothing":              {"package-lock.json", `{"lockfileVersion":3,"packages":{}}`, "names no package"},
		"a name that leaves":   {"package-lock.json", `{"lockfileVersion":3,"packages":{"node_modules/../../x":{"version":"1.0.0","resolved":"https://r.example/x/-/x-1.0.0.tgz","integrity":"` + sum(1) + `"}}}`, "clean path"},
		"one with two faces":   {"package-lock.json", strings.Replace(locks()["package-lock.json"], sum(1), sum(9), 1), "two contents"},
		"of yarn 2":            {"yarn.lock", "__metadata:\n  version: 8\n", "yarn 1"},
		"no JSON":              {"package-lock.json", "{", "unexpected end"},
		"a package by no name": {"pnpm-lock.yaml", "lockfileVersion: '5.4'\npackages:\n  /plain/1.0.0:\n    resolution: {integrity: x}\n", "has no version"},
		"another file":         {"deno.lock", "{}", "of no lockfile"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := resolve(t, tc.file, tc.text)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("%v (hint %q), want %q", err, fail.HintOf(err), tc.want)
			}
		})
	}
}
