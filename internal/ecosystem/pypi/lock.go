package pypi

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/fail"
)

const (
	maxLock  = 64 << 20 // bytes of a lockfile
	lockHint = "write {lockfile: uv.lock} or {lockfile: pylock.toml}; what only comes as source is named with {lockfile: …, sdists: [NAME]}"
)

// lockWant is an entry {lockfile: FILE, sdists: [NAME]}.
type lockWant struct {
	file   string
	sdists []string // normalised
}

func parseLockWant(v map[string]any) (l lockWant, ok bool, err error) {
	file, isLock := v["lockfile"].(string)
	if !isLock {
		return l, false, nil
	}
	l.file = file
	for k, e := range v {
		list, isList := e.([]any)
		switch {
		case k == "lockfile":
		case k == "sdists" && isList:
			for _, name := range list {
				l.sdists = append(l.sdists, Normalise(fmt.Sprint(name)))
			}
		default:
			return l, true, fail.As(fail.Usage, lockHint, fmt.Errorf("unknown key or value %s", k))
		}
	}
	return l, true, nil
}

// uvFile is a file as uv.lock names it.
type uvFile struct {
	URL      string    `toml:"url"`
	Hash     string    `toml:"hash"`
	Size     int64     `toml:"size"`
	Uploaded time.Time `toml:"upload-time"`
}

func (f uvFile) locked() lockedFile {
	alg, sum, _ := strings.Cut(f.Hash, ":")
	return lockedFile{URL: f.URL, Size: f.Size, Uploaded: f.Uploaded, Hashes: map[string]string{alg: sum}}
}

// fromLock returns the files of a lockfile that the target may need: every wheel that
// fits, so that whichever the client chooses is there. python is the version of this
// machine's Python, for a target without one.
func fromLock(want ecosystem.Want, l lockWant, python string) ([]artifact.Artifact, error) {
	at := filepath.Join(want.Dir, l.file)
	st, err := os.Stat(at)
	if err == nil && st.Size() > maxLock {
		err = errors.New("larger than a lockfile may be")
	}
	if err != nil {
		return nil, fail.As(fail.Usage, lockHint, fmt.Errorf("lockfile %s: %w", l.file, err))
	}
	b, err := os.ReadFile(at)
	if err != nil {
		return nil, err
	}
	var all []lockedPackage
	switch base := path.Base(filepath.ToSlash(l.file)); {
	case base == "uv.lock":
		all, err = uvLock(b)
	case base == "pylock.toml", strings.HasPrefix(base, "pylock.") && strings.HasSuffix(base, ".toml"):
		all, err = pyLock(b)
	default:
		err = fail.As(fail.Usage, lockHint, errors.New("its name is that of no lockfile"))
	}
	if err != nil {
		return nil, fmt.Errorf("lockfile %s: %w", l.file, err)
	}
	if want.Target.Python != "" {
		python = want.Target.Python
	}
	var out []artifact.Artifact
	for _, pkg := range all {
		a, err := pkg.fitting(want.Target, python, slices.Contains(l.sdists, Normalise(pkg.Name)), path.Base(filepath.ToSlash(l.file)))
		if err != nil {
			return nil, fmt.Errorf("lockfile %s: %w", l.file, err)
		}
		out = append(out, a)
	}
	if len(out) == 0 {
		return nil, fail.As(fail.Usage, lockHint, fmt.Errorf("lockfile %s names no package of an index", l.file))
	}
	return out, nil
}

// uvLock reads a uv.lock of version 1; the project itself and its workspace are not
// among the packages.
func uvLock(b []byte) (all []lockedPackage, err error) {
	var lock struct {
		Version  int `toml:"version"`
		Packages []struct {
			Name    string            `toml:"name"`
			Version string            `toml:"version"`
			Source  map[string]string `toml:"source"`
			Sdist   *uvFile           `toml:"sdist"`
			Wheels  []uvFile          `toml:"wheels"`
		} `toml:"package"`
	}
	if err := toml.Unmarshal(b, &lock); err != nil {
		return nil, err
	}
	if lock.Version != 1 {
		return nil, fail.As(fail.Usage, "make it with a uv that writes version 1", fmt.Errorf("version %d is not read", lock.Version))
	}
	for _, p := range lock.Packages {
		switch {
		case p.Source["editable"] != "" || p.Source["virtual"] != "" || p.Source["directory"] != "":
			continue
		case p.Source["registry"] == "":
			return nil, fail.Refuse("name a version that an index offers", fmt.Errorf("%s is taken from %v, not from an index", p.Name, p.Source))
		}
		l := lockedPackage{Name: p.Name, Version: p.Version, Index: p.Source["registry"]}
		for _, w := range p.Wheels {
			l.Wheels = append(l.Wheels, w.locked())
		}
		if p.Sdist != nil {
			s := p.Sdist.locked()
			l.Sdist = &s
		}
		all = append(all, l)
	}
	return all, nil
}

// pyLock reads a pylock.toml (PEP 751).
func pyLock(b []byte) ([]lockedPackage, error) {
	var lock struct {
		Version  string          `toml:"lock-version"`
		Packages []lockedPackage `toml:"packages"`
	}
	if err := toml.Unmarshal(b, &lock); err != nil {
		return nil, err
	}
	if !strings.HasPrefix(lock.Version, "1.") {
		return nil, fail.As(fail.Usage, "make it with a client that writes version 1", fmt.Errorf("lock-version %.20q is not read", lock.Version))
	}
	for _, pkg := range lock.Packages {
		if pkg.VCS != nil || pkg.Directory != nil || pkg.Archive != nil {
			return nil, fail.Refuse("name a version that an index offers", fmt.Errorf("%s is named by path, address or repository, not by an index", pkg.Name))
		}
	}
	return lock.Packages, nil
}

// fitting makes the artifact of one package, with every wheel that fits.
func (pkg lockedPackage) fitting(t ecosystem.Target, python string, sdist bool, by string) (a artifact.Artifact, err error) {
	files := slices.DeleteFunc(slices.Clone(pkg.Wheels), func(f lockedFile) bool { return !wheelFits(f.name(), t, python) })
	if sdist && pkg.Sdist != nil {
		files = []lockedFile{*pkg.Sdist}
	}
	if len(files) == 0 {
		return a, fail.Refuse("bring a version that has one, or its source with {lockfile: …, sdists: ["+pkg.Name+"]}", fmt.Errorf("%s %s has no wheel for the target", pkg.Name, pkg.Version))
	}
	for _, f := range files {
		got, err := one(pkg.Name, pkg.Version, f.URL, f.Hashes["sha256"], f.size(), f.Uploaded.UTC().Truncate(time.Second), by)
		if err != nil {
			return a, err
		}
		got.Files, got.Index = append(a.Files, got.Files...), fetch.Clean(pkg.Index)
		a = got
	}
	return a, nil
}

// wheelFits reports whether a wheel can be installed on a target (PEP 425, PEP 600).
// Where the version of Python is not known, any is taken.
func wheelFits(name string, t ecosystem.Target, python string) bool {
	parts := strings.Split(strings.TrimSuffix(name, ".whl"), "-")
	return rank(name, python) >= 0 && slices.ContainsFunc(strings.Split(parts[len(parts)-1], "."), func(p string) bool { return platformFits(p, t) })
}

func platformFits(p string, t ecosystem.Target) bool {
	goos, arch := t.OS, t.Arch
	if goos == "" {
		goos = runtime.GOOS
	}
	if arch == "" {
		arch = runtime.GOARCH
	}
	cpu := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[arch]
	switch {
	case p == "any":
		return true
	case goos == "linux":
		return (strings.HasPrefix(p, "manylinux") || strings.HasPrefix(p, "linux_")) && strings.HasSuffix(p, "_"+cpu)
	case goos == "darwin":
		mac := map[string]string{"amd64": "x86_64", "arm64": "arm64"}[arch]
		return strings.HasPrefix(p, "macosx_") && (strings.HasSuffix(p, "_"+mac) || strings.HasSuffix(p, "_universal2"))
	case goos == "windows":
		return p == "win_"+arch
	}
	return false
}
