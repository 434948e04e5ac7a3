package pypi

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"enisle/internal/ecosystem"
)

func TestWheelsFit(t *testing.T) {
	linux := ecosystem.Target{OS: "linux", Arch: "amd64"}
	for name, tc := range map[string]struct {
		target ecosystem.Target
		want   bool
	}{
		"x-1-py3-none-any.whl":     {linux, true},
		"x-1-py2.py3-none-any.whl": {linux, true},
		"x-1-cp311-cp311-manylinux_2_17_x86_64.manylinux2014_x86_64.whl":   {linux, true},
		"x-1-cp312-cp312-manylinux_2_17_x86_64.whl":                        {linux, false},
		"x-1-cp38-abi3-manylinux_2_28_x86_64.whl":                          {linux, true},
		"x-1-cp312-abi3-manylinux_2_28_x86_64.whl":                         {linux, false},
		"x-1-cp311-cp311-manylinux_2_17_aarch64.whl":                       {linux, false},
		"x-1-cp311-cp311-manylinux_2_17_aarch64.manylinux2014_aarch64.whl": {ecosystem.Target{OS: "linux", Arch: "arm64"}, true},
		"x-1-cp311-cp311-musllinux_1_2_x86_64.whl":                         {linux, false},
		"x-1-cp311-cp311-macosx_11_0_arm64.whl":                            {linux, false},
		"x-1-cp311-cp311-macosx_10_9_universal2.whl":                       {ecosystem.Target{OS: "darwin", Arch: "arm64"}, true},
		"x-1-cp311-cp311-win_amd64.whl":                                    {ecosystem.Target{OS: "windows", Arch: "amd64"}, true},
		"x-1-pp310-pypy310_pp73-manylinux_2_17_x86_64.whl":                 {linux, false},
		"x-1-1build-py3-none-any.whl":                                      {linux, true},
		"x.tar.gz":                                                         {linux, false},
	} {
		if got := wheelFits(name, tc.target, "3.11"); got != tc.want {
			t.Errorf("%s on %v: %v", name, tc.target, got)
		}
	}
}

const sumA = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func wheelLine(file string) string {
	return `{ url = "https://files.example/packages/` + file + `", hash = "sha256:` + sumA + `", size = 100, upload-time = "2025-01-02T03:04:05.678Z" }`
}

func TestLockfiles(t *testing.T) {
	head := "version = 1\nrevision = 3\n[[package]]\nname = \"app\"\nversion = \"0.1.0\"\nsource = { virtual = \".\" }\n"
	registry := "source = { registry = \"https://index.example/simple\" }\n"
	uv := head + "[[package]]\nname = \"Native_Thing\"\nversion = \"1.0\"\n" + registry +
		"sdist = " + wheelLine("native_thing-1.0.tar.gz") + "\nwheels = [\n" + wheelLine("native_thing-1.0-cp311-cp311-manylinux_2_17_x86_64.whl") + ",\n" +
		wheelLine("native_thing-1.0-cp311-cp311-win_amd64.whl") + ",\n" + wheelLine("native_thing-1.0-cp38-abi3-manylinux_2_28_x86_64.whl") + "]\n" +
		"[[package]]\nname = \"source\"\nversion = \"2.0\"\n" + registry + "sdist = " + wheelLine("source-2.0.tar.gz") + "\n"
	pylock := "lock-version = '1.0'\n[[packages]]\nname = 'plain'\nversion = '1.0'\n[[packages.wheels]]\nurl = 'https://files.example/plain-1.0-py3-none-any.whl'\nhashes = {sha256 = '" + sumA + "'}\n"
	for name, tc := range map[string]struct {
		file, text string
		item       map[string]any
		want       []string // files
		err        string
	}{
		"uv, with a source": {"uv.lock", uv, map[string]any{"sdists": []any{"source"}}, []string{"native_thing-1.0-cp311-cp311-manylinux_2_17_x86_64.whl", "native_thing-1.0-cp38-abi3-manylinux_2_28_x86_64.whl", "source-2.0.tar.gz"}, ""},
		"uv, without":       {"uv.lock", uv, nil, nil, "source 2.0 has no wheel for the target"},
		"pylock":            {"pylock.toml", pylock, nil, []string{"plain-1.0-py3-none-any.whl"}, ""},
		"of git":            {"uv.lock", head + "[[package]]\nname = 'x'\nversion = '1'\nsource = { git = 'https://code.example/x?rev=1#2' }\n", nil, nil, "not from an index"},
		"of another uv":     {"uv.lock", "version = 2\n", nil, nil, "version 2 is not read"},
		"no hash":           {"pylock.toml", strings.Replace(pylock, "sha256", "md5", 1), nil, nil, "digest"},
		"nothing":           {"pylock.toml", "lock-version = '1.0'\n", nil, nil, "names no package"},
		"no lockfile":       {"Pipfile.lock", "{}", nil, nil, "of no lockfile"},
		"an unknown key":    {"pylock.toml", pylock, map[string]any{"extra": "x"}, nil, "unknown key"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, tc.file), []byte(tc.text), 0o600); err != nil {
				t.Fatal(err)
			}
			item := map[string]any{"lockfile": tc.file}
			for k, v := range tc.item {
				item[k] = v
			}
			w, err := readWants(ecosystem.Want{Items: []any{item}})
			var got []string
			if err == nil {
				all, rerr := fromLock(ecosystem.Want{Dir: dir, Target: ecosystem.Target{OS: "linux", Arch: "amd64", Python: "3.11"}}, w.locks[0], "")
				err = rerr
				for i := range all {
					if cerr := w.check(&all[i]); cerr != nil {
						t.Error(cerr)
					}
					for _, f := range all[i].Files {
						got = append(got, f.Path)
					}
				}
			}
			slices.Sort(got)
			if tc.err == "" && (err != nil || !slices.Equal(got, tc.want)) || tc.err != "" && (err == nil || !strings.Contains(err.Error(), tc.err)) {
				t.Errorf("%v, %v", got, err)
			}
		})
	}
}
