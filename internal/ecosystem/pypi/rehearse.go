package pypi

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"enisle/internal/ecosystem"
)

var _ ecosystem.Rehearser = (*Ecosystem)(nil)

// Rehearse has pip install everything, with what it depends on, into a directory. Of
// several versions of one project, each is installed for itself.
func (p *Ecosystem) Rehearse(ctx context.Context, r ecosystem.Rehearsal) error {
	var rounds [][]string
	count := map[string]int{}
	for _, a := range r.Artifacts {
		n := count[a.Ref.Name]
		count[a.Ref.Name]++
		if n == len(rounds) {
			rounds = append(rounds, nil)
		}
		rounds[n] = append(rounds[n], a.Ref.Name+"=="+a.Ref.Version)
	}
	python, err := New(Options{Runner: r.Runner}).python(ctx, ecosystem.Want{Work: r.Work})
	if err != nil {
		return err
	}
	for i, specs := range rounds {
		argv := []string{
			python.Exe, "-m", "pip", "--isolated", "install", "--no-cache-dir", "--disable-pip-version-check", "--no-input", "--quiet", "--no-compile",
			"--only-binary", ":all:", "--target", filepath.Join(r.Work, strconv.Itoa(i)), "--index-url", r.Base + "/pypi/simple/",
		}
		argv = append(argv, platformFlags(r.Target)...)
		requirements := filepath.Join(r.Work, strconv.Itoa(i)+".txt")
		if err := os.WriteFile(requirements, []byte(strings.Join(specs, "\n")+"\n"), 0o600); err != nil {
			return err
		}
		if _, stderr, err := r.Runner.Run(ctx, r.Work, nil, append(argv, "--requirement", requirements)); err != nil {
			return unmet("pip", stderr, err)
		}
	}
	return nil
}

// unmet says what a client could not get, in its own last words.
func unmet(client string, stderr []byte, err error) error {
	if l := lastLine(stderr); l != "" {
		return fmt.Errorf("%s: %s", client, l)
	}
	return fmt.Errorf("%s: %w", client, err)
}

// platformFlags make pip install for another machine; nothing for this one.
func platformFlags(t ecosystem.Target) (flags []string) {
	cpu := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[t.Arch]
	if t.Python != "" {
		flags = append(flags, "--python-version", t.Python, "--implementation", "cp")
	}
	if (t.OS == "" || t.OS == runtime.GOOS) && (t.Arch == "" || t.Arch == runtime.GOARCH) && t.Python == "" {
		return nil
	}
	if cpu == "" {
		cpu = map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[runtime.GOARCH]
	}
	if t.OS == "" || t.OS == "linux" {
		for _, tag := range []string{"manylinux_2_34_", "manylinux_2_28_", "manylinux_2_17_", "manylinux2014_", "manylinux2010_", "manylinux1_", "linux_"} {
			flags = append(flags, "--platform", tag+cpu)
		}
	}
	return flags
}
