package interop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/mod/semver"

	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/cargo"
	"enisle/internal/sandbox"
)

const cargoToml = `[package]
name = "hello"
version = "0.1.0"
edition = "2021"

[dependencies]
itoa = "1"
serde = { version = "1", features = ["derive"] }
serde_json = "1"
`

const mainRs = `#[derive(serde::Serialize)]
struct Island { name: String }

fn main() {
    let i = Island { name: itoa::Buffer::new().format(7).to_string() };
    println!("{}", serde_json::to_string(&i).unwrap());
}
`

// A project with a lock file from the real registry is built inside by an unmodified
// cargo, the lock file unchanged; so is a command by its name, and what the lock
// file of a project without its project says.
func TestCargoBuildsFromTheMirrorOnly(t *testing.T) {
	program := client(t, "cargo")
	client(t, "cc") // Rust links by it
	if v := strings.Fields(run(t, "", program, "--version")); len(v) < 2 || semver.Compare("v"+v[1], "v1.78.0") < 0 {
		t.Skip("cargo 1.78 or newer is not installed: lock files of version 4, sparse registries")
	}
	dir := t.TempDir()
	if os.Getenv(insideEnv) == "" {
		project(t, dir)
		run(t, dir, "env", "CARGO_HOME="+t.TempDir(), program, "generate-lockfile")
		alone := filepath.Join(dir, "alone")
		lock, err := os.ReadFile(filepath.Join(dir, "Cargo.lock"))
		if err == nil {
			err = os.Mkdir(alone, 0o755)
		}
		if err != nil {
			t.Fatal(err)
		}
		write(t, filepath.Join(alone, "Cargo.lock"), string(lock))
		t.Setenv("INTEROP_LOCK", string(lock))
	}
	want := ecosystem.Want{Dir: dir, Items: []any{
		map[string]any{"lockfile": "Cargo.lock"}, map[string]any{"lockfile": "alone/Cargo.lock"}, "hexyl@0.16.0",
	}}
	eco := &cargo.Ecosystem{Runner: sandbox.Exec{}}
	journey(t, eco, want, func(t *testing.T, s *island, base string) {
		home := t.TempDir()
		t.Setenv("CARGO_HOME", home)
		write(t, filepath.Join(home, "config.toml"), eco.Config("cargo", base))
		project(t, dir)
		write(t, filepath.Join(dir, "Cargo.lock"), os.Getenv("INTEROP_LOCK"))
		run(t, dir, program, "build", "--locked")
		if out := run(t, dir, filepath.Join(dir, "target", "debug", "hello")); out != "{\"name\":\"7\"}\n" {
			t.Errorf("it says %q", out)
		}
		// Without a lock file it finds what is released.
		if err := os.Remove(filepath.Join(dir, "Cargo.lock")); err != nil {
			t.Fatal(err)
		}
		run(t, dir, program, "build")
		run(t, dir, program, "install", "hexyl", "--version", "0.16.0", "--locked", "--debug", "--root", home)
		if out := run(t, dir, filepath.Join(home, "bin", "hexyl"), "--version"); out != "hexyl 0.16.0\n" {
			t.Errorf("the command says %q", out)
		}
		if !s.asked("/cargo/config.json") || !s.asked("/cargo/it/oa/itoa") || !s.asked("/cargo/crates/itoa/") {
			t.Errorf("cargo did not ask the mirror: %v", s.paths)
		}
	})
}

func project(t *testing.T, dir string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "src"), 0o755); err != nil {
		t.Fatal(err)
	}
	write(t, filepath.Join(dir, "Cargo.toml"), cargoToml)
	write(t, filepath.Join(dir, "src", "main.rs"), mainRs)
}
