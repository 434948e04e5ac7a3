// Package pypi brings Python packages: resolved by pip or uv outside, served to
// unmodified clients inside.
//
// On the connected side the user's own client decides, so that its indexes,
// proxies, credentials and certificates apply unchanged; what it decided is
// turned into artifacts with every file's hash. On the isolated side Handler is
// a read-only index (PEP 503, 629, 658, 691, 700, 714). The package knows
// nothing of sites or shipments.
package pypi

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/fail"
)

// Kind is the kind of Python packages.
const Kind = "pypi"

// Getter fetches small documents of an index.
type Getter interface {
	GetJSON(ctx context.Context, url, accept string, limit int64) ([]byte, error)
}

// Ecosystem is PyPI. A zero Options is enough for serving.
type Ecosystem struct{ opt Options }

// Options are what collecting needs.
type Options struct {
	Runner ecosystem.Runner // runs pip and uv
	Index  Getter           // for sizes and publish times; nil: they stay unknown
	Log    *slog.Logger     // nil means discard
}

var (
	_ ecosystem.Ecosystem  = (*Ecosystem)(nil)
	_ ecosystem.Downloader = (*Ecosystem)(nil)
)

// New returns the ecosystem.
func New(opt Options) *Ecosystem {
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	return &Ecosystem{opt}
}

// Name returns "pypi".
func (*Ecosystem) Name() string { return Kind }

// Resolve asks pip, or uv when the target is not this machine or there is no
// pip.
func (p *Ecosystem) Resolve(ctx context.Context, want ecosystem.Want) ([]artifact.Artifact, error) {
	w, err := readWants(want)
	if err != nil {
		return nil, err
	}
	if len(w.specs)+len(w.files)+len(w.locks)+len(w.routes) == 0 {
		return nil, nil
	}
	python, err := p.python(ctx, want)
	if _, missing := exec.LookPath("uv"); err != nil && missing != nil {
		return nil, err
	}
	var found []artifact.Artifact
	switch {
	case len(w.specs)+len(w.files)+len(w.routes) == 0:
	case here(want.Target, python):
		found, err = p.byPip(ctx, want, w, python)
	case len(w.routes) > 0:
		err = fail.As(fail.Usage, "leave the target out, or bring a lockfile", errors.New("packages with an index of their own are resolved by pip, for the machine that it is installed on"))
	default:
		found, err = p.byUV(ctx, want, w)
	}
	if err != nil {
		return nil, err
	}
	for _, l := range w.locks {
		got, err := fromLock(want, l, python.Version)
		if err != nil {
			return nil, err
		}
		found = append(found, got...)
	}
	if found, err = merged(found); err != nil {
		return nil, err
	}
	for i := range found {
		if found[i].Index == "" {
			found[i].Index = fetch.Clean(python.Index)
		}
		if err := errors.Join(w.astray(found[i]), w.check(&found[i])); err != nil {
			return nil, err
		}
	}
	if p.opt.Index != nil && python.Index != "" {
		if err := p.publish(ctx, python.Index, found, want.Work); err != nil {
			return nil, err
		}
	}
	return found, nil
}

// merged joins what was asked for in several ways: one artifact of a version, with
// the files of all.
func merged(all []artifact.Artifact) (out []artifact.Artifact, err error) {
	index := map[artifact.Ref]int{}
	for _, a := range all {
		i, twice := index[a.Ref]
		if !twice {
			index[a.Ref] = len(out)
			out = append(out, a)
			continue
		}
		for _, f := range a.Files {
			j := slices.IndexFunc(out[i].Files, func(o artifact.File) bool { return o.Path == f.Path })
			switch {
			case j < 0:
				out[i].Files = append(out[i].Files, f)
			case out[i].Files[j].Digest != f.Digest:
				return nil, fail.Refuse("bring it from one index, or under two names of requests", fmt.Errorf("%s: %s is asked for with two contents", a.Ref, f.Path))
			}
		}
	}
	return out, nil
}

// here reports whether the target is this machine and pip is there to ask.
func here(t ecosystem.Target, s settings) bool {
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[t.Arch]
	return (t.OS == "" || t.OS == "linux") && (t.Arch == "" || arch == s.Machine) && (t.Python == "" || t.Python == s.Version || strings.HasPrefix(t.Python, s.Version+".")) && s.Pip != ""
}

// publish fills in sizes and publish times from the index (PEP 700), as far as its pages
// can be had, and brings what it has of the provenance of files.
func (p *Ecosystem) publish(ctx context.Context, index string, found []artifact.Artifact, work string) error {
	var g errgroup.Group
	g.SetLimit(6)
	for i := range found {
		a := &found[i]
		g.Go(func() error {
			at := index
			if a.Index != fetch.Clean(index) && a.Index != "" {
				at = a.Index
			}
			return p.publishOne(ctx, at, a, work)
		})
	}
	return g.Wait()
}

// maxPage is the largest project page that is read, in bytes; the largest seen
// are near 10 MB.
const maxPage = 64 << 20

func (p *Ecosystem) publishOne(ctx context.Context, index string, a *artifact.Artifact, work string) error {
	at := strings.TrimRight(index, "/") + "/" + a.Ref.Name + "/"
	short, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	body, err := p.opt.Index.GetJSON(short, at, jsonType, maxPage)
	var page struct {
		Files []struct {
			Filename   string            `json:"filename"`
			Hashes     map[string]string `json:"hashes"`
			Size       int64             `json:"size"`
			Uploaded   time.Time         `json:"upload-time"`
			Provenance string            `json:"provenance"`
		} `json:"files"`
	}
	if err == nil {
		err = json.Unmarshal(body, &page)
	}
	if err != nil { // an index without such pages
		p.opt.Log.DebugContext(ctx, "publish time", "project", a.Ref.Name, "err", err)
		return nil
	}
	for j := range a.Files {
		for _, f := range page.Files {
			// Another index may have another file of this name.
			if f.Filename != a.Files[j].Path || f.Hashes["sha256"] != a.Files[j].Digest.Hex() {
				continue
			}
			if a.Files[j].Published.IsZero() {
				a.Files[j].Published = f.Uploaded.UTC().Truncate(time.Second)
			}
			if f.Size > 0 && a.Files[j].Size < 0 {
				a.Files[j].Size = f.Size
			}
			if f.Provenance == "" {
				break
			}
			proof, err := p.provenanceOf(ctx, a.Files[j], at, f.Provenance, work)
			if err != nil {
				return fmt.Errorf("%s: %w", a.Ref, err)
			}
			a.Files = append(a.Files, proof)
			break
		}
	}
	return nil
}

// Download lets pip fetch one file, with whatever credentials it has.
func (p *Ecosystem) Download(ctx context.Context, want ecosystem.Want, a artifact.Artifact, f artifact.File) (string, error) {
	s, err := p.python(ctx, want)
	if err != nil {
		return "", err
	}
	argv := append(pipCommand(s.Exe, "download"), "--no-deps", "--dest", want.Work)
	if a.Index != "" && a.Index != fetch.Clean(s.Index) {
		argv = append(argv, "--index-url", a.Index)
	}
	if strings.HasSuffix(f.Path, ".whl") {
		argv = append(append(argv, "--only-binary", ":all:"), tagOptions(f.Path)...)
	} else {
		argv = append(argv, "--no-binary", a.Ref.Name)
	}
	_, stderr, err := p.opt.Runner.Run(ctx, want.Work, want.Hidden, append(argv, a.Ref.Name+"=="+a.Ref.Version))
	if err != nil {
		return "", fmt.Errorf("pip download: %w: %s", err, lastLine(stderr))
	}
	out := filepath.Join(want.Work, f.Path)
	if _, err := os.Stat(out); err != nil {
		return "", fmt.Errorf("pip download: brought another file than %s", f.Path)
	}
	return out, nil
}

// tagOptions makes pip choose the wheel of this name wherever it runs.
func tagOptions(file string) (argv []string) {
	parts := strings.Split(strings.TrimSuffix(file, ".whl"), "-")
	if len(parts) < 5 || parts[len(parts)-1] == "any" {
		return nil
	}
	parts = parts[len(parts)-3:]
	for platform := range strings.SplitSeq(parts[2], ".") {
		argv = append(argv, "--platform", platform)
	}
	for abi := range strings.SplitSeq(parts[1], ".") {
		argv = append(argv, "--abi", abi)
	}
	python, _, _ := strings.Cut(parts[0], ".")
	if v, ok := strings.CutPrefix(python, "cp"); ok {
		argv = append(argv, "--implementation", "cp", "--python-version", v)
	}
	return argv
}

func pipCommand(exe, verb string) []string {
	return []string{exe, "-m", "pip", verb, "--quiet", "--no-input", "--disable-pip-version-check", "--no-color"}
}

// lastLine returns what a client said last that was an error, with the lines
// that explain it, at most 400 bytes.
func lastLine(stderr []byte) string {
	lines := strings.Split(strings.TrimSpace(string(stderr)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if l := strings.TrimSpace(lines[i]); strings.HasPrefix(l, "ERROR") || strings.HasPrefix(l, "error") || strings.HasPrefix(l, "×") || i == 0 {
			l = strings.Join(strings.Fields(strings.Join(lines[i:], " ")), " ")
			return strings.ToValidUTF8(l[:min(len(l), 400)], "")
		}
	}
	return ""
}

var errNoURL = errors.New("the client named no download address")
