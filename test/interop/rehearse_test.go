package interop

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// What was collected is installed by pip and npm with nothing else to be reached; what a
// package needs and was not brought is named, and pack refuses it unless told why.
func TestRehearsalNamesWhatIsMissing(t *testing.T) {
	client(t, "npm")
	if _, err := exec.LookPath("unshare"); err != nil || os.Getuid() != 0 {
		t.Skip("no network namespace can be made: it takes root and unshare")
	}
	dir, enisle := sites(t, []byte("x"))
	request := func(text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, "enisle.yaml"), []byte("name: x\nbring:\n"+text), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(filepath.Join(dir, "enisle"), "-C", "low", "collect", "-q")
		cmd.Dir = dir
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Skipf("the registries can not be reached: %v: %s", err, out)
		}
	}
	refused := func(want string, args ...string) {
		t.Helper()
		cmd := exec.Command(filepath.Join(dir, "enisle"), append([]string{"-C", "low"}, args...)...)
		cmd.Dir = dir
		out, _ := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 3 || !strings.Contains(string(out), want) {
			t.Errorf("%v: exit %d: %s, want %q", args, cmd.ProcessState.ExitCode(), out, want)
		}
	}
	request("  pypi: [ \"idna==3.10\" ]\n  npm: [ \"semver@7.6.3\" ]\n")
	if out := enisle("-C", "low", "rehearse"); strings.Count(out, "installed") != 2 {
		t.Error(out)
	}
	// express alone, without what it depends on.
	request("  npm: [ \"express@4.21.1\" ]\n")
	refused("missing    npm: accepts@latest", "rehearse")
	refused("failed its rehearsal", "pack", "--to", "media")
	enisle("-C", "low", "pack", "--to", "media", "--despite", "the rest is there already")
	if out := enisle("-C", "low", "ledger", "search", "--json"); !strings.Contains(out, "the rest is there already") {
		t.Errorf("it is not on the record: %.300s", out)
	}
}
