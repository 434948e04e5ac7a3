package config

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/fail"
)

func read(t *testing.T, text string) error {
	t.Helper()
	file := filepath.Join(t.TempDir(), "enisle.yaml")
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	r, err := Read(file)
	if err == nil && (r.Name == "" || len(r.Bring) == 0 || r.File != file) {
		t.Errorf("%q: got %+v", text, r)
	}
	return err
}

func TestRead(t *testing.T) {
	if err := read(t, "name: a\ntarget: {arch: arm64}\nbring:\n  pypi: [x, {requirements: r.txt}]\n"); err != nil {
		t.Error(err)
	}
	if err := read(t, "name: a\nbring: {files: [x]}\ntrust:\n  models: [ {key: a.pub}, {certificates: b.pem} ]\n  sigstore: {trustedRoot: r, identity: i, issuer: s, files: [f]}\n"); err != nil {
		t.Error(err)
	}
	for text, want := range map[string]string{
		"name: a\nbrings: {}\n":                                    "'brings' is not known here",
		"name: a\nbring: {pypi: requests}\n":                       "line 2: here stands text `requests`, want a list",
		"name: a\nbring: {a: [b]}\ntrust: {models: {key: a}}\n":    "here stands a mapping, want a list",
		"name: a\nbring: {a: [b]}\ntrust: {models: [{keys: a}]}\n": "'keys' is not known here",
		"name: [a]\nbring: {pypi: [x]}\n":                          "here stands a list, want text",
		"name: a\nbring: [pypi]\n":                                 "here stands a list, want a mapping",
		"name: a\ntarget: linux\nbring: {a: [b]}\n":                "here stands text `linux`, want a mapping",
		"name: a\n":                              "'name' and 'bring' are needed",
		"":                                       "EOF",
		"name: a\n\tbring: x\n":                  "line 2",
		"name: a\nname: b\nbring: {pypi: [x]}\n": "already defined",
	} {
		err := read(t, text)
		if fail.KindOf(err) != fail.Usage || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: got %v, want %q", text, err, want)
		}
		for _, word := range []string{"interface", "struct", "map["} {
			if err != nil && strings.Contains(err.Error(), word) {
				t.Errorf("%q: speaks of Go: %v", text, err)
			}
		}
	}
}
