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
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

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

var separators = regexp.MustCompile(`[-_.]+`)

// Normalise returns a project name in the one form that indexes use (PEP 503).
func Normalise(name string) string { return strings.ToLower(separators.ReplaceAllString(name, "-")) }

// Resolve asks pip, or uv when the target is not this machine.
func (p *Ecosystem) Resolve(ctx context.Context, want ecosystem.Want) ([]artifact.Artifact, error) {
	w, err := readWants(want)
	if err != nil {
		return nil, err
	}
	python, err := p.python(ctx, want)
	if err != nil {
		return nil, err
	}
	var found []artifact.Artifact
	if here(want.Target, python) {
		found, err = p.byPip(ctx, want, w, python)
	} else {
		found, err = p.byUV(ctx, want, w)
	}
	if err != nil {
		return nil, err
	}
	for i := range found {
		if err := checkNames(&found[i]); err != nil {
			return nil, fail.Refuse("bring another version", err)
		}
	}
	if p.opt.Index != nil && python.Index != "" {
		p.publish(ctx, python.Index, found)
	}
	return found, nil
}

// checkNames refuses a file whose name is not that of its project and version.
func checkNames(a *artifact.Artifact) error {
	for _, f := range a.Files {
		name, version, err := parseFileName(f.Path)
		if err != nil {
			return err
		}
		if Normalise(name) != a.Ref.Name || !sameVersion(version, a.Ref.Version) {
			return fmt.Errorf("%s: the file %s is of another project or version", a.Ref, f.Path)
		}
	}
	return nil
}

func sameVersion(a, b string) bool {
	norm := func(s string) string { return strings.ToLower(strings.NewReplacer("_", "+", "-", "+").Replace(s)) }
	return norm(a) == norm(b)
}

// parseFileName splits the name of a wheel (PEP 427) or an sdist (PEP 625).
func parseFileName(file string) (name, version string, err error) {
	if base, ok := strings.CutSuffix(file, ".whl"); ok {
		parts := strings.Split(base, "-")
		if len(parts) == 5 || len(parts) == 6 {
			return parts[0], parts[1], nil
		}
	}
	if base, ok := strings.CutSuffix(file, ".tar.gz"); ok {
		if i := strings.LastIndex(base, "-"); i > 0 {
			return base[:i], base[i+1:], nil
		}
	}
	return "", "", fmt.Errorf("%.80q is neither a wheel nor an sdist", file)
}

// settings are what pip itself would use, asked of pip.
type settings struct {
	Exe     string   `json:"exe"`
	Version string   `json:"version"` // of Python, such as 3.11
	Machine string   `json:"machine"` // as uname says
	Pip     string   `json:"pip"`
	Index   string   `json:"index"`
	Extra   []string `json:"extra"`
	Cert    string   `json:"cert"`
}

// askPip prints the settings; pip merges its files and environment by itself.
const askPip = `
import json, platform, sys
out = {"exe": sys.executable, "version": "%d.%d" % sys.version_info[:2], "machine": platform.machine()}
try:
    import pip
    from pip._internal.commands import create_command
    o, _ = create_command("install").parser.parse_args([])
    out.update(pip=pip.__version__, index=o.index_url, extra=o.extra_index_urls or [], cert=o.cert or "")
except Exception as e:
    sys.stderr.write("pip: %s\n" % e)
print(json.dumps(out))
`

func (p *Ecosystem) python(ctx context.Context, want ecosystem.Want) (settings, error) {
	var s settings
	out, stderr, err := p.opt.Runner.Run(ctx, want.Work, want.Hidden, []string{"python3", "-c", askPip})
	if err == nil {
		err = json.Unmarshal(out, &s)
	}
	if err != nil {
		return s, fail.As(fail.Failed, "install python3 with pip, or uv", fmt.Errorf("python3: %w: %s", err, lastLine(stderr)))
	}
	return s, nil
}

// Settings returns what fetching needs to reach where pip downloads from: its
// certificates and credentials. Without python3 there are none.
func (p *Ecosystem) Settings(ctx context.Context, want ecosystem.Want) fetch.Options {
	var opt fetch.Options
	s, err := p.python(ctx, want)
	if err != nil {
		p.opt.Log.DebugContext(ctx, "pip settings", "err", err)
	}
	for _, f := range []string{s.Cert, os.Getenv("SSL_CERT_FILE"), os.Getenv("REQUESTS_CA_BUNDLE")} {
		if st, err := os.Stat(f); err == nil && st.Mode().IsRegular() {
			opt.CAFiles = append(opt.CAFiles, f)
		}
	}
	for _, raw := range append(s.Extra, s.Index) {
		u, err := url.Parse(raw)
		if err != nil || u.User == nil {
			continue
		}
		pass, _ := u.User.Password()
		opt.Credentials = append(opt.Credentials, fetch.Credential{Host: u.Host, User: u.User.Username(), Password: pass, Plain: u.Scheme == "http"})
	}
	return opt
}

// here reports whether the target is this machine.
func here(t ecosystem.Target, s settings) bool {
	arch := map[string]string{"amd64": "x86_64", "arm64": "aarch64"}[t.Arch]
	return (t.OS == "" || t.OS == "linux") && (t.Arch == "" || arch == s.Machine) && (t.Python == "" || t.Python == s.Version) && s.Pip != ""
}

// publish fills in sizes and publish times from the index (PEP 700), as far as
// it tells within a minute: they are provenance, not trust.
func (p *Ecosystem) publish(ctx context.Context, index string, found []artifact.Artifact) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	for i := range found {
		a := &found[i]
		if len(a.Files) == 0 || !a.Files[0].Published.IsZero() {
			continue
		}
		body, err := p.opt.Index.GetJSON(ctx, strings.TrimRight(index, "/")+"/"+a.Ref.Name+"/", jsonType, 64<<20)
		var page struct {
			Files []struct {
				Filename string    `json:"filename"`
				Size     int64     `json:"size"`
				Uploaded time.Time `json:"upload-time"`
			} `json:"files"`
		}
		if err == nil {
			err = json.Unmarshal(body, &page)
		}
		if err != nil {
			p.opt.Log.DebugContext(ctx, "publish time", "project", a.Ref.Name, "err", err)
			continue
		}
		for j := range a.Files {
			for _, f := range page.Files {
				if f.Filename == a.Files[j].Path {
					a.Files[j].Published = f.Uploaded.UTC().Truncate(time.Second)
					if f.Size > 0 {
						a.Files[j].Size = f.Size
					}
				}
			}
		}
	}
}

// Download lets pip fetch one file, with whatever credentials it has.
func (p *Ecosystem) Download(ctx context.Context, want ecosystem.Want, a artifact.Artifact, f artifact.File) (string, error) {
	s, err := p.python(ctx, want)
	if err != nil {
		return "", err
	}
	argv := append(pipCommand(s.Exe, "download"), "--no-deps", "--dest", want.Work)
	if strings.HasSuffix(f.Path, ".whl") {
		argv = append(argv, "--only-binary", ":all:")
	} else {
		argv = append(argv, "--no-binary", a.Ref.Name)
	}
	_, stderr, err := p.opt.Runner.Run(ctx, want.Work, want.Hidden, append(argv, a.Ref.Name+"=="+a.Ref.Version))
	if err != nil {
		return "", fmt.Errorf("pip download: %w: %s", err, lastLine(stderr))
	}
	return filepath.Join(want.Work, f.Path), nil
}

func pipCommand(exe, verb string) []string {
	return []string{exe, "-m", "pip", verb, "--quiet", "--no-input", "--disable-pip-version-check", "--no-color"}
}

func lastLine(stderr []byte) string {
	lines := strings.Split(strings.TrimSpace(string(stderr)), "\n")
	for i := len(lines) - 1; i >= 0; i-- {
		if l := strings.TrimSpace(lines[i]); strings.HasPrefix(l, "ERROR") || strings.HasPrefix(l, "error") || i == 0 {
			if len(l) > 400 {
				l = l[:400]
			}
			return l
		}
	}
	return ""
}

var errNoURL = errors.New("the client named no download address")
