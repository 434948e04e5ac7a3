package interop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/gomod"
	"enisle/internal/sandbox"
)

const goMod = `module island.example/hello

go 1.21

require (
	github.com/BurntSushi/toml v1.4.0
	rsc.io/quote v1.5.2
)

require (
	golang.org/x/text v0.0.0-20170915032832-14c0d48ead0c // indirect
	rsc.io/sampler v1.3.0 // indirect
)
`

const goMain = `package main

import (
	"fmt"

	"github.com/BurntSushi/toml"
	"rsc.io/quote"
)

func main() {
	var v struct{ Name string }
	if _, err := toml.Decode("name = 'island'", &v); err != nil {
		panic(err)
	}
	fmt.Println(v.Name, len(quote.Hello()) > 0)
}
`

// A project without go.sum is built inside by an unmodified go, that verifies every
// module with the checksum database; so is a command by its name.
func TestGoBuildsFromTheMirrorOnly(t *testing.T) {
	program := client(t, "go")
	dir := t.TempDir()
	write(t, filepath.Join(dir, "go.mod"), goMod)
	want := ecosystem.Want{Dir: dir, Items: []any{map[string]any{"modfile": "go.mod"}, "github.com/rakyll/statik@v0.1.7"}}
	eco := &gomod.Ecosystem{Runner: sandbox.Exec{}}
	journey(t, eco, want, func(t *testing.T, s *island, base string) {
		home := t.TempDir()
		for _, v := range []string{"GOFLAGS", "GONOSUMDB", "GOPRIVATE", "GONOPROXY", "GOSUMDB", "GOPROXY", "GOENV", "GOTOOLCHAIN"} {
			t.Setenv(v, "")
		}
		t.Setenv("GOENV", filepath.Join(home, "env"))
		t.Setenv("GOPATH", filepath.Join(home, "go"))
		t.Setenv("GOMODCACHE", filepath.Join(home, "mod"))
		t.Setenv("GOCACHE", filepath.Join(home, "cache"))
		t.Setenv("GOFLAGS", "-modcacherw")
		t.Setenv("CGO_ENABLED", "0")
		write(t, filepath.Join(home, "env"), eco.Config("go", base))
		write(t, filepath.Join(dir, "main.go"), goMain)
		run(t, dir, program, "mod", "tidy")
		run(t, dir, program, "build", "-o", "hello", ".")
		if out := run(t, dir, filepath.Join(dir, "hello")); out != "island true\n" {
			t.Errorf("it says %q", out)
		}
		if b, err := os.ReadFile(filepath.Join(dir, "go.sum")); err != nil || !strings.Contains(string(b), "rsc.io/quote v1.5.2 h1:") {
			t.Errorf("go.sum: %s, %v", b, err)
		}
		if !s.asked("/sumdb/") || !s.asked("/lookup/rsc.io/quote@v1.5.2") || !s.asked("/!burnt!sushi/toml/@v/v1.4.0.zip") || !s.asked("/tile/8/") {
			t.Errorf("go did not verify by the checksum database: %v", s.paths)
		}
		run(t, dir, program, "install", "github.com/rakyll/statik@latest")
		// Nobody has to know the order: a new client begins with any module.
		t.Setenv("GOPATH", filepath.Join(home, "go2"))
		t.Setenv("GOMODCACHE", filepath.Join(home, "mod2"))
		for _, m := range []string{"rsc.io/sampler@v1.3.0", "github.com/BurntSushi/toml@latest", "rsc.io/quote@latest"} {
			run(t, home, program, "mod", "download", m)
		}
	})
}

// What go looked up in its checksum database is verified again from what is brought, and
// known inside; a module that go was told not to look up is known to be by nobody.
func TestModulesOfGoAreKnownInside(t *testing.T) {
	client(t, "go")
	t.Setenv("GONOSUMDB", "rsc.io/sampler")
	dir, enisle := crossed(t, map[string]string{"enisle.yaml": "name: modules\nbring:\n  gomod: [ rsc.io/quote@v1.5.2 ]\n"})
	n := 0
	for ref, by := range signersOf(t, dir, enisle) {
		if !strings.HasPrefix(ref, "gomod/") {
			continue
		}
		n++
		want := !strings.HasPrefix(ref, "gomod/rsc.io/sampler@")
		if known := len(by) == 1 && strings.HasPrefix(by[0], "sumdb:key:") && strings.Contains(by[0], "+"); known != want {
			t.Errorf("%s is signed by %q", ref, by)
		}
	}
	if n < 4 {
		t.Errorf("%d artifacts came", n)
	}
}

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
}
