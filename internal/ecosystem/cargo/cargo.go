// Package cargo brings Rust crates: resolved, fetched and verified by cargo itself
// outside, served to unmodified cargo inside as a sparse registry.
//
// It knows nothing of sites or shipments. The protocol is that of the Cargo book,
// "Registry Index".
package cargo

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/fail"
)

// Kind is the kind of crates.
const Kind = "cargo"

// Ecosystem is that of Cargo. The zero value serves.
type Ecosystem struct {
	Runner ecosystem.Runner // runs cargo; needed for collecting
	// Home is the user's CARGO_HOME: where the settings and credentials are. Empty
	// means that there are none.
	Home string
}

var (
	_ ecosystem.Ecosystem    = (*Ecosystem)(nil)
	_ ecosystem.Impersonator = (*Ecosystem)(nil)
	_ ecosystem.Wanter       = (*Ecosystem)(nil)
	_ ecosystem.Configured   = (*Ecosystem)(nil)
)

// nameForm and versionForm are constants: what a crate and a version of it look
// like (Cargo book, "Manifest", name and version).
var (
	nameForm    = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9_-]{0,63}$`)
	versionForm = regexp.MustCompile(`^[0-9]+\.[0-9]+\.[0-9]+(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?$`)
)

// Name returns "cargo".
func (*Ecosystem) Name() string { return Kind }

// Resolve lets cargo fetch what a lock file says, or a crate and all that it needs
// to be depended on and to be installed.
func (e *Ecosystem) Resolve(ctx context.Context, want ecosystem.Want) ([]artifact.Artifact, error) {
	r := &resolving{run: e.Runner, want: want, home: filepath.Join(want.Work, "home")}
	if err := r.start(ctx, e.Home); err != nil {
		return nil, err
	}
	for i, it := range want.Items {
		dir := filepath.Join(want.Work, fmt.Sprintf("project-%d", i))
		var err error
		switch v := it.(type) {
		case string:
			err = r.crate(ctx, v, dir)
		case map[string]any:
			name, ok := v["lockfile"].(string)
			if !ok || len(v) != 1 {
				return nil, unknown(it)
			}
			err = r.lockfile(ctx, filepath.Join(want.Dir, name), dir)
		default:
			return nil, unknown(it)
		}
		if err != nil {
			return nil, fmt.Errorf("%v: %w", it, err)
		}
	}
	for i, ref := range want.Alone {
		spec := ref.Name
		if ref.Version != "" {
			spec += "@" + ref.Version
		}
		if _, _, err := r.depend(ctx, spec, filepath.Join(want.Work, fmt.Sprintf("alone-%d", i))); err != nil {
			return nil, fmt.Errorf("%s: %w", ref, err)
		}
	}
	return r.read()
}

func unknown(it any) error {
	return fail.As(fail.Usage, `write "CRATE@VERSION" or {lockfile: Cargo.lock}`, fmt.Errorf("unknown entry %.80v", it))
}

// resolving is one Resolve.
type resolving struct {
	run    ecosystem.Runner
	want   ecosystem.Want
	home   string // CARGO_HOME, below want.Work
	by     string
	locked []locked
}

// start makes a CARGO_HOME with the settings of the user's and nothing else of it.
func (r *resolving) start(ctx context.Context, user string) error {
	if err := os.MkdirAll(r.home, 0o755); err != nil {
		return err
	}
	for _, name := range []string{"config.toml", "config", "credentials.toml", "credentials"} {
		if user == "" {
			break
		}
		at := filepath.Join(user, name)
		if _, err := os.Stat(at); err != nil {
			continue
		}
		if err := os.Symlink(at, filepath.Join(r.home, name)); err != nil {
			return err
		}
	}
	out, err := r.cargo(ctx, r.want.Work, "--version")
	if err != nil {
		return fail.As(fail.Failed, "install Cargo (Debian: cargo)", err)
	}
	if f := strings.Fields(string(out)); len(f) > 1 {
		r.by = "cargo " + f[1]
	}
	return nil
}

func (r *resolving) cargo(ctx context.Context, dir string, args ...string) ([]byte, error) {
	argv := append([]string{
		"env", "CARGO_HOME=" + r.home, "CARGO_TARGET_DIR=" + filepath.Join(r.want.Work, "target"),
		// The runner lets cargo write only where it is started.
		"sh", "-c", `cd "$0" && exec cargo "$@"`, dir,
	}, args...)
	out, stderr, err := r.run.Run(ctx, r.want.Work, r.want.Hidden, argv)
	if err != nil {
		return out, fmt.Errorf("cargo %s: %w: %s", args[0], err, tail(stderr))
	}
	return out, nil
}

// crate fetches a crate, what it needs as a dependency with its default features,
// and what it needs to be installed: with all of its features, as its own lock file
// says where it has one.
func (r *resolving) crate(ctx context.Context, spec, dir string) error {
	name, version, err := r.depend(ctx, spec, dir)
	if err != nil {
		return err
	}
	found, err := filepath.Glob(filepath.Join(r.home, "registry", "src", "*", name+"-"+version))
	if err != nil || len(found) != 1 {
		return errors.Join(err, fmt.Errorf("cargo did not unpack %s %s", name, version))
	}
	if _, err := r.cargo(ctx, found[0], "fetch"); err != nil {
		return fail.As(fail.Failed, "try 'cargo install' with it", err)
	}
	return nil
}

// depend fetches a crate as the one dependency of a project, and says which version
// that was.
func (r *resolving) depend(ctx context.Context, spec, dir string) (name, version string, err error) {
	name, version, given := strings.Cut(spec, "@")
	if !nameForm.MatchString(name) || given && !versionForm.MatchString(version) {
		return "", "", fail.As(fail.Usage, `write "CRATE@1.2.3", or "CRATE" for the newest`, errors.New("names no version of a crate"))
	}
	demand := "*"
	if given {
		demand = exactly(version)
	}
	if err := project(dir, fmt.Sprintf("p0 = { package = %q, version = %q }\n", name, demand), ""); err != nil {
		return "", "", err
	}
	if _, err := r.cargo(ctx, dir, "fetch"); err != nil {
		return "", "", fail.As(fail.Failed, "try 'cargo add' with it", err)
	}
	all, err := readLock(filepath.Join(dir, "Cargo.lock"))
	if err != nil {
		return "", "", err
	}
	for _, p := range all {
		if p.Name == name && (!given || p.Version == version) {
			return p.Name, p.Version, nil
		}
	}
	return "", "", fail.Refuse("do not use this registry", errors.New("cargo answered with another crate"))
}

// exactly is the demand for one version; the part after + is not part of it.
func exactly(version string) string {
	version, _, _ = strings.Cut(version, "+")
	return "=" + version
}

// project writes an empty project with dependencies, and a lock file if there is one.
func project(dir, dependencies, lock string) error {
	text := "[package]\nname = \"enisle-want\"\nversion = \"0.0.0\"\nedition = \"2021\"\n\n[workspace]\n\n[dependencies]\n" + dependencies
	err := os.MkdirAll(filepath.Join(dir, "src"), 0o755)
	for name, content := range map[string]string{"Cargo.toml": text, "src/lib.rs": "", "Cargo.lock": lock} {
		if err == nil && (name != "Cargo.lock" || content != "") {
			err = os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600)
		}
	}
	return err
}

// lockfile fetches what a lock file says: as the project that it belongs to, or,
// where that is not beside it, as a project that depends on all of it.
func (r *resolving) lockfile(ctx context.Context, name, dir string) error {
	all, err := readLock(name)
	if err != nil {
		return err
	}
	var lines strings.Builder
	sources := map[string]bool{}
	for i, p := range all {
		if p.Source == "" {
			continue // of the project itself
		}
		if err := p.check(); err != nil {
			return err
		}
		sources[p.Source] = true
		fmt.Fprintf(&lines, "p%d = { package = %q, version = %q, default-features = false }\n", i, p.Name, exactly(p.Version))
		r.locked = append(r.locked, p)
	}
	beside := filepath.Dir(name)
	if _, err := os.Stat(filepath.Join(beside, "Cargo.toml")); err == nil && filepath.Base(name) == "Cargo.lock" {
		if _, err := r.cargo(ctx, beside, "fetch", "--locked"); err != nil {
			return fail.As(fail.Failed, "try 'cargo fetch --locked' where it lies", err)
		}
		return nil
	}
	if len(sources) > 1 {
		return fail.As(fail.Usage, "put the project's Cargo.toml beside it", fmt.Errorf("it takes crates from %d registries", len(sources)))
	}
	text, err := os.ReadFile(name)
	if err == nil {
		err = project(dir, lines.String(), string(text))
	}
	if err != nil {
		return err
	}
	if _, err := r.cargo(ctx, dir, "fetch"); err != nil {
		return fail.As(fail.Failed, "put the project's Cargo.toml beside it", err)
	}
	return nil
}

func tail(b []byte) string {
	s := strings.TrimSpace(string(b))
	if len(s) > 400 {
		s = strings.ToValidUTF8(s[len(s)-400:], "")
	}
	return strings.ReplaceAll(s, "\n", "; ")
}
