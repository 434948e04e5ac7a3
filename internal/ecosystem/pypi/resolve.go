package pypi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
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

// wants is a Want sorted by what the clients take.
type wants struct {
	specs  []string // requirement specifiers
	files  []string // requirements files, copied into the work directory
	sdists []string // projects that may come as source
	locks  []lockWant
	routes []route
}

func readWants(want ecosystem.Want) (w wants, err error) {
	const shape = `write "name>=1", {requirements: FILE}, {lockfile: uv.lock}, {index: URL, packages: [NAME]} or {sdist: "name==1.0"}`
	for _, ref := range want.Alone {
		spec := ref.Name
		if ref.Version != "" {
			spec += "==" + ref.Version
		}
		if err := checkSpec(spec); err != nil {
			return w, err
		}
		w.specs = append(w.specs, spec)
	}
	for _, it := range want.Items {
		switch v := it.(type) {
		case string:
			if err := checkSpec(v); err != nil {
				return w, err
			}
			w.specs = append(w.specs, v)
		case map[string]any:
			if l, ok, err := parseLockWant(v); ok || err != nil {
				if err != nil {
					return w, err
				}
				w.locks = append(w.locks, l)
				w.sdists = append(w.sdists, l.sdists...)
				continue
			}
			if r, ok, err := parseRoute(v); ok || err != nil {
				if err != nil {
					return w, err
				}
				w.routes = append(w.routes, r)
				continue
			}
			file, isFile := v["requirements"].(string)
			sdist, isSdist := v["sdist"].(string)
			switch {
			case len(v) == 1 && isFile:
				copied, err := copyRequirements(want, file, 0)
				if err != nil {
					return w, err
				}
				w.files = append(w.files, copied)
			case len(v) == 1 && isSdist:
				if err := checkSpec(sdist); err != nil {
					return w, err
				}
				w.specs = append(w.specs, sdist)
				w.sdists = append(w.sdists, specName(sdist))
			default:
				return w, fail.As(fail.Usage, shape, fmt.Errorf("unknown entry %v", v))
			}
		default:
			return w, fail.As(fail.Usage, shape, fmt.Errorf("unknown entry %v", v))
		}
	}
	return w, nil
}

// checkSpec refuses what is not a plain requirement: options, paths and
// addresses would bring something that no index vouches for.
func checkSpec(s string) error {
	if s == "" || strings.HasPrefix(s, "-") || strings.HasPrefix(s, ".") || strings.ContainsAny(s, "/\\@\n\r") || strings.Contains(s, " -") {
		return fail.As(fail.Usage, `write a requirement such as "requests>=2"`, fmt.Errorf("%.80q is not one", s))
	}
	return nil
}

// check refuses a file that was not asked for in this form, or whose name is
// not that of its project and version. Requirements files can allow sources by
// themselves; only the request may.
func (w wants) check(a *artifact.Artifact) error {
	for _, f := range a.Files {
		if !strings.HasSuffix(f.Path, ".whl") && !slices.Contains(w.sdists, a.Ref.Name) {
			return fail.Refuse(fmt.Sprintf("ask for it with {sdist: %q}, or bring a version that has a wheel", a.Ref.Name+"=="+a.Ref.Version),
				fmt.Errorf("%s: %.100q is not a wheel", a.Ref, f.Path))
		}
	}
	if err := checkNames(a); err != nil {
		return fail.Refuse("bring another version", err)
	}
	return nil
}

func specName(s string) string {
	if i := strings.IndexAny(s, " <>=!~[;("); i > 0 {
		s = s[:i]
	}
	return Normalise(s)
}

// byPip resolves for this machine.
func (p *Ecosystem) byPip(ctx context.Context, want ecosystem.Want, w wants, s settings) ([]artifact.Artifact, error) {
	bound, err := p.byRoutes(ctx, want, w, s)
	if err != nil {
		return nil, err
	}
	report := filepath.Join(want.Work, "report.json")
	argv := append(pipCommand(s.Exe, "install"), "--dry-run", "--ignore-installed", "--report", report, "--only-binary", ":all:")
	for _, name := range w.sdists {
		argv = append(argv, "--no-binary", name)
	}
	if len(want.Alone) > 0 {
		argv = append(argv, "--no-deps")
	}
	for _, f := range w.files {
		argv = append(argv, "--requirement", f)
	}
	argv = append(argv, w.specs...)
	for _, b := range bound {
		argv = append(argv, b.at) // as a file: pip asks no index for its name
	}
	if _, stderr, err := p.opt.Runner.Run(ctx, want.Work, want.Hidden, argv); err != nil {
		return nil, unresolved("pip", stderr, err)
	}
	b, err := os.ReadFile(report)
	if err != nil {
		return nil, err
	}
	return fromPip(b, bound)
}

func unresolved(client string, stderr []byte, err error) error {
	if l := lastLine(stderr); l != "" {
		err = errors.New(l)
	}
	return fail.As(fail.Failed, "try the same with "+client+" itself; what only comes as source is named with {sdist: …}", fmt.Errorf("%s could not resolve it: %w", client, err))
}

// fromPip reads an installation report (pip documentation, "Installation
// Report", version 1). What is bound, by project, was given to pip as a file.
func fromPip(b []byte, bound map[string]routed) ([]artifact.Artifact, error) {
	var r struct {
		Version string `json:"version"`
		Pip     string `json:"pip_version"`
		Install []struct {
			Direct   bool `json:"is_direct"`
			Download struct {
				URL     string `json:"url"`
				Archive *struct {
					Hash   string            `json:"hash"`
					Hashes map[string]string `json:"hashes"`
				} `json:"archive_info"`
			} `json:"download_info"`
			Metadata struct {
				Name    string `json:"name"`
				Version string `json:"version"`
			} `json:"metadata"`
		} `json:"install"`
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("pip report: %w", err)
	}
	if r.Version != "1" {
		return nil, fail.Refuse("use a pip that writes reports of version 1", fmt.Errorf("pip report: version %.20q", r.Version))
	}
	var out []artifact.Artifact
	for _, in := range r.Install {
		if b, ok := bound[Normalise(in.Metadata.Name)]; ok && in.Direct && in.Metadata.Version == b.Ref.Version {
			out = append(out, b.Artifact)
			continue
		}
		if in.Direct || in.Download.Archive == nil {
			return nil, fail.Refuse("name a version that an index offers", fmt.Errorf("%s is named by path, address or repository, not by an index", in.Metadata.Name))
		}
		sum := in.Download.Archive.Hashes["sha256"]
		if sum == "" {
			sum, _ = strings.CutPrefix(in.Download.Archive.Hash, "sha256=")
		}
		a, err := one(in.Metadata.Name, in.Metadata.Version, in.Download.URL, sum, -1, time.Time{}, "pip "+r.Pip)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// one makes the artifact of one file that a client chose.
func one(name, version, rawURL, sha256 string, size int64, published time.Time, by string) (artifact.Artifact, error) {
	ref := artifact.Ref{Kind: Kind, Name: Normalise(name), Version: version}
	u, err := url.Parse(rawURL)
	if err != nil || u.Path == "" {
		return artifact.Artifact{}, fmt.Errorf("%s: %w", ref, errors.Join(errNoURL, err))
	}
	if u.Scheme != "https" && u.Scheme != "http" {
		return artifact.Artifact{}, fail.Refuse("bring it from an index; files of this machine are brought under 'files:'", fmt.Errorf("%s: its file is local", ref))
	}
	d, err := artifact.ParseDigest("sha256:" + sha256)
	if err != nil {
		return artifact.Artifact{}, fail.Refuse("bring it from an index that states SHA-256", fmt.Errorf("%s: %w", ref, err))
	}
	f := artifact.File{Path: path.Base(u.Path), Size: size, Digest: d, Origin: fetch.Clean(rawURL), Published: published}
	return artifact.Artifact{Ref: ref, Files: []artifact.File{f}, By: by}, nil
}

// byUV resolves for another machine.
func (p *Ecosystem) byUV(ctx context.Context, want ecosystem.Want, w wants) ([]artifact.Artifact, error) {
	uv, err := exec.LookPath("uv")
	if err != nil {
		return nil, fail.As(fail.Usage, "install uv, or leave the target out to collect with pip for this machine", errors.New("uv is not installed, and pip resolves only for the machine it is installed on"))
	}
	platform, err := uvPlatform(want.Target)
	if err != nil {
		return nil, err
	}
	in := filepath.Join(want.Work, "request.in")
	lines := append([]string{}, w.specs...)
	for _, f := range w.files {
		lines = append(lines, "-r "+f)
	}
	if err := os.WriteFile(in, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
		return nil, err
	}
	argv := []string{uv, "pip", "compile", in, "--quiet", "--no-header", "--format", "pylock.toml", "--only-binary", ":all:", "--python-platform", platform}
	if want.Target.Python != "" {
		argv = append(argv, "--python-version", want.Target.Python)
	}
	for _, name := range w.sdists {
		argv = append(argv, "--no-binary", name)
	}
	if len(want.Alone) > 0 {
		argv = append(argv, "--no-deps")
	}
	out, stderr, err := p.opt.Runner.Run(ctx, want.Work, want.Hidden, argv)
	if err != nil {
		return nil, unresolved("uv", stderr, err)
	}
	version, _, err := p.opt.Runner.Run(ctx, want.Work, want.Hidden, []string{uv, "--version"})
	if err != nil {
		return nil, err
	}
	by := strings.Join(strings.Fields(string(version))[:min(2, len(strings.Fields(string(version))))], " ")
	return fromUV(out, by, want.Target.Python, w.sdists)
}

// uvPlatform is uv's name of a target, by default of this machine; glibc 2.28
// (2018) is what manylinux wheels of today ask for.
func uvPlatform(t ecosystem.Target) (string, error) {
	osName, arch := t.OS, t.Arch
	if osName == "" {
		osName = runtime.GOOS
	}
	if arch == "" {
		arch = runtime.GOARCH
	}
	known := map[string]string{
		"linux/amd64": "x86_64-manylinux_2_28", "linux/arm64": "aarch64-manylinux_2_28",
		"darwin/arm64": "aarch64-apple-darwin", "darwin/amd64": "x86_64-apple-darwin", "windows/amd64": "x86_64-pc-windows-msvc",
	}
	if p, ok := known[osName+"/"+arch]; ok {
		return p, nil
	}
	return "", fail.As(fail.Usage, "use linux, darwin or windows with amd64 or arm64", fmt.Errorf("target %s/%s is not known", osName, arch))
}

type lockedFile struct {
	URL      string            `toml:"url"`
	Size     int64             `toml:"size"`
	Uploaded time.Time         `toml:"upload-time"`
	Hashes   map[string]string `toml:"hashes"`
}

// lockedPackage is one package of a pylock.toml (PEP 751).
type lockedPackage struct {
	Name      string         `toml:"name"`
	Version   string         `toml:"version"`
	Wheels    []lockedFile   `toml:"wheels"`
	Sdist     *lockedFile    `toml:"sdist"`
	VCS       map[string]any `toml:"vcs"`
	Directory map[string]any `toml:"directory"`
	Archive   map[string]any `toml:"archive"`
	Index     string         `toml:"index"`
}

// choose returns the file to bring: of the wheels that uv found to fit, the one
// that fits best, or the sdist where that was asked for and no wheel is there.
func (pkg lockedPackage) choose(python string, sdist bool) *lockedFile {
	best, bestRank := (*lockedFile)(nil), -1
	for i := range pkg.Wheels {
		if r := rank(pkg.Wheels[i].name(), python); r > bestRank {
			best, bestRank = &pkg.Wheels[i], r
		}
	}
	if sdist && pkg.Sdist != nil {
		return pkg.Sdist
	}
	return best
}

func (f lockedFile) name() string {
	u, err := url.Parse(f.URL)
	if err != nil {
		return ""
	}
	return path.Base(u.Path)
}

// fromUV reads a pylock.toml. python is the target's version, or empty.
func fromUV(b []byte, by, python string, sdists []string) ([]artifact.Artifact, error) {
	var lock struct {
		Version  string          `toml:"lock-version"`
		Packages []lockedPackage `toml:"packages"`
	}
	if err := toml.Unmarshal(b, &lock); err != nil {
		return nil, fmt.Errorf("uv lock: %w", err)
	}
	if !strings.HasPrefix(lock.Version, "1.") {
		return nil, fail.Refuse("use a uv that writes pylock.toml of version 1", fmt.Errorf("uv lock: version %.20q", lock.Version))
	}
	var out []artifact.Artifact
	for _, pkg := range lock.Packages {
		if pkg.VCS != nil || pkg.Directory != nil || pkg.Archive != nil {
			return nil, fail.Refuse("name a version that an index offers", fmt.Errorf("%s is named by path, address or repository, not by an index", pkg.Name))
		}
		best := pkg.choose(python, slices.Contains(sdists, Normalise(pkg.Name)))
		if best == nil {
			return nil, fail.Refuse("name a version that an index offers as a wheel, or ask for its source with {sdist: …}", fmt.Errorf("%s has no wheel for the target", pkg.Name))
		}
		a, err := one(pkg.Name, pkg.Version, best.URL, best.Hashes["sha256"], best.size(), best.Uploaded.UTC().Truncate(time.Second), by)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// size is -1 when the index did not tell.
func (f lockedFile) size() int64 {
	if f.Size <= 0 {
		return -1
	}
	return f.Size
}
