// Package debian brings packages of Debian: resolved by apt outside, with all that they
// depend on, and served inside to apt from an index that the site signs.
//
// On the connected side apt decides, with the sources, keys and proxies of the machine,
// in a root of its own where nothing is installed: it verifies the signatures of the
// archives, and names every file with its hash. It knows nothing of sites or shipments.
package debian

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/fail"
)

// Kind is the kind of Debian's packages. A reference is debian/RELEASE/PACKAGE@VERSION:
// debian/bookworm/jq@1.6-2.1. Its files are the .deb and the paragraph of the archive's
// index about it.
const Kind = "debian"

// stanzaSuffix ends the name of the paragraph about a package.
const stanzaSuffix = ".stanza"

// Ecosystem is Debian. The zero value serves.
type Ecosystem struct {
	Runner ecosystem.Runner // runs apt; needed for collecting
	Etc    string           // settings of apt, for the keys that it always trusts; empty means /etc/apt
}

var (
	_ ecosystem.Ecosystem    = (*Ecosystem)(nil)
	_ ecosystem.Configured   = (*Ecosystem)(nil)
	_ ecosystem.Indexed      = (*Ecosystem)(nil)
	_ ecosystem.Impersonator = (*Ecosystem)(nil)
)

// Name returns "debian".
func (*Ecosystem) Name() string { return Kind }

const entryHint = `write the name of a package, or {packages: [NAME], sources: FILE.sources} with a sources file of another release`

// wants is what one run of apt is asked for.
type wants struct {
	packages []string
	sources  string // file; empty: those of the machine
}

// nameForm is a package with an architecture, a version or a release; constant.
var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9+.-]+(:[a-z0-9]+)?([=/][A-Za-z0-9.+:~-]+)?$`)

func readWants(want ecosystem.Want) (all []wants, err error) {
	bad := func(what any) error { return fail.As(fail.Usage, entryHint, fmt.Errorf("debian: %v", what)) }
	machine := wants{}
	add := func(w *wants, v any) error {
		name, ok := v.(string)
		if !ok || !nameForm.MatchString(name) {
			return bad(fmt.Sprintf("%.80v is no package", v))
		}
		w.packages = append(w.packages, name)
		return nil
	}
	for _, it := range want.Items {
		m, ok := it.(map[string]any)
		if !ok {
			if err := add(&machine, it); err != nil {
				return nil, err
			}
			continue
		}
		var w wants
		for k, v := range m {
			list, isList := v.([]any)
			text, isText := v.(string)
			switch {
			case k == "packages" && isList:
				for _, p := range list {
					if err := add(&w, p); err != nil {
						return nil, err
					}
				}
			case k == "sources" && isText:
				w.sources = filepath.Join(want.Dir, text)
			default:
				return nil, bad("unknown key or value " + k)
			}
		}
		if len(w.packages) == 0 || w.sources == "" {
			return nil, bad("an entry has packages and sources")
		}
		all = append(all, w)
	}
	if len(machine.packages) > 0 {
		all = append(all, machine)
	}
	return all, nil
}

// Resolve asks apt what the packages come to on a machine where nothing is installed.
func (e *Ecosystem) Resolve(ctx context.Context, want ecosystem.Want) (out []artifact.Artifact, err error) {
	all, err := readWants(want)
	if err != nil {
		return nil, err
	}
	release := want.Target.Debian
	if release == "" {
		release = thisRelease()
	}
	if !releaseForm.MatchString(release) {
		return nil, fail.As(fail.Usage, "say which release of Debian it is for: 'target: {debian: bookworm}'", fmt.Errorf("debian: release %.40q", release))
	}
	seen := map[artifact.Ref]bool{}
	for i, w := range all {
		r := e.run(want, i, w)
		r.release = release
		found, err := r.resolve(ctx)
		if err != nil {
			return nil, err
		}
		for _, a := range found {
			if !seen[a.Ref] {
				seen[a.Ref] = true
				out = append(out, a)
			}
		}
	}
	return out, nil
}

// releaseForm is the code name of a release; constant.
var releaseForm = regexp.MustCompile(`^[a-z]{3,30}$`)

// thisRelease is the code name of the release that this machine runs; empty if unknown.
func thisRelease() string {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return ""
	}
	for l := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(l), "VERSION_CODENAME="); ok {
			return strings.Trim(v, `"`)
		}
	}
	return ""
}

// run is that of the entry of a number.
func (e *Ecosystem) run(want ecosystem.Want, i int, w wants) run {
	return run{Ecosystem: e, want: want, dir: filepath.Join(want.Work, "apt"+strconv.Itoa(i)), wants: w}
}

// run is one run of apt, in a root of its own.
type run struct {
	*Ecosystem
	want    ecosystem.Want
	dir     string
	wants   wants
	release string
	by      string
}

// options make apt use the directories of the run and nothing that is installed here.
func (r *run) options() []string {
	arch := r.want.Target.Arch
	if arch == "" {
		arch = runtime.GOARCH
	}
	opts := []string{
		"Dir::State=" + r.dir + "/state", "Dir::State::Lists=" + r.dir + "/lists", "Dir::State::status=" + r.dir + "/status",
		"Dir::Cache=" + r.dir + "/cache", "Dir::Log=" + r.dir, "APT::Sandbox::User=", "Debug::NoLocking=1", "APT::Architecture=" + arch, "APT::Architectures=" + arch,
		"Acquire::Languages=none", "Acquire::GzipIndexes=false", "APT::Install-Recommends=0",
	}
	if r.wants.sources != "" {
		opts = append(opts, "Dir::Etc::sourcelist="+r.wants.sources, "Dir::Etc::sourceparts=/dev/null")
	}
	var argv []string
	for _, o := range opts {
		argv = append(argv, "-o", o)
	}
	return argv
}

func (r *run) apt(ctx context.Context, program string, args ...string) ([]byte, error) {
	argv := append([]string{program}, r.options()...)
	out, stderr, err := r.Runner.Run(ctx, r.dir, r.want.Hidden, append(argv, args...))
	if err != nil {
		text := strings.TrimSpace(string(stderr))
		if len(text) > 400 {
			text = text[len(text)-400:]
		}
		return nil, fail.As(fail.Failed, "try the same with apt-get itself", fmt.Errorf("%s %s: %w: %s", program, args[0], err, strings.ReplaceAll(text, "\n", "; ")))
	}
	return out, nil
}

func (r *run) resolve(ctx context.Context) ([]artifact.Artifact, error) {
	for _, d := range []string{"lists/partial", "cache/archives/partial", "state", "stanzas"} {
		if err := os.MkdirAll(filepath.Join(r.dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	if err := os.WriteFile(filepath.Join(r.dir, "status"), nil, 0o600); err != nil {
		return nil, err
	}
	version, _, err := r.Runner.Run(ctx, r.dir, r.want.Hidden, []string{"apt-get", "--version"})
	if err != nil {
		return nil, fail.As(fail.Failed, "collect it on a machine of Debian or its kin", fmt.Errorf("apt: %w", err))
	}
	r.by = strings.Join(strings.Fields(string(version))[:min(2, len(strings.Fields(string(version))))], " ")
	if _, err := r.apt(ctx, "apt-get", "update", "-q"); err != nil {
		return nil, err
	}
	uris, err := r.apt(ctx, "apt-get", append([]string{"install", "--print-uris", "-y", "-qq"}, r.wants.packages...)...)
	if err != nil {
		return nil, err
	}
	files, names, err := parseURIs(uris)
	if err != nil {
		return nil, err
	}
	shown, err := r.apt(ctx, "apt-cache", append([]string{"show"}, names...)...)
	if err != nil {
		return nil, err
	}
	stanzas, err := parseStanzas(shown)
	if err != nil {
		return nil, err
	}
	var out []artifact.Artifact
	for _, u := range files {
		a, err := r.artifact(u, stanzas)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// parseURIs reads what --print-uris prints: 'URI' FILE SIZE HASH.
func parseURIs(out []byte) (files []*url.URL, names []string, err error) {
	for l := range strings.Lines(string(out)) {
		if !strings.HasPrefix(l, "'") {
			continue
		}
		address, rest, ok := strings.Cut(l[1:], "' ")
		u, err := url.Parse(address)
		name, _, _ := strings.Cut(strings.TrimSpace(rest), "_")
		if !ok || err != nil || !nameForm.MatchString(name) {
			return nil, nil, fmt.Errorf("apt prints something else than addresses: %.100q", l)
		}
		if u.Scheme != "http" && u.Scheme != "https" {
			return nil, nil, fail.Refuse("use sources of the web; files of this machine are brought under 'files:'", fmt.Errorf("%.100q is local", address))
		}
		files = append(files, u)
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	if len(files) == 0 {
		return nil, nil, fail.As(fail.Usage, "name packages that have files", errors.New("apt would fetch nothing"))
	}
	return files, names, nil
}

// stanza is one paragraph of an index.
type stanza struct {
	fields map[string]string // first lines only
	text   string
}

// parseStanzas reads paragraphs.
func parseStanzas(b []byte) (all []stanza, err error) {
	now := stanza{fields: map[string]string{}}
	flush := func() {
		if now.text != "" {
			all = append(all, now)
		}
		now = stanza{fields: map[string]string{}}
	}
	lines := bufio.NewScanner(bytes.NewReader(b))
	lines.Buffer(nil, 4<<20)
	for lines.Scan() {
		l := lines.Text()
		if strings.TrimSpace(l) == "" {
			flush()
			continue
		}
		now.text += l + "\n"
		if key, value, ok := strings.Cut(l, ":"); ok && l[0] != ' ' && l[0] != '\t' {
			now.fields[key] = strings.TrimSpace(value)
		}
	}
	flush()
	return all, lines.Err()
}

// artifact finds the paragraph about a file: the one whose path the address ends with.
func (r *run) artifact(u *url.URL, all []stanza) (a artifact.Artifact, err error) {
	i := slices.IndexFunc(all, func(s stanza) bool {
		return s.fields["Filename"] != "" && strings.HasSuffix(u.Path, "/"+s.fields["Filename"])
	})
	if i < 0 {
		return a, fmt.Errorf("apt-cache knows nothing of %s", path.Base(u.Path))
	}
	f := all[i].fields
	d, err := artifact.ParseDigest("sha256:" + f["SHA256"])
	if err != nil {
		return a, fail.Refuse("bring it from an archive that states SHA-256", fmt.Errorf("%s: %w", f["Package"], err))
	}
	size, err := strconv.ParseInt(f["Size"], 10, 64)
	if err != nil {
		return a, fmt.Errorf("%s: its size: %w", f["Package"], err)
	}
	ref := artifact.Ref{Kind: Kind, Name: r.release + "/" + f["Package"], Version: f["Version"]}
	if err := ref.Check(); err != nil {
		return a, err
	}
	name := f["Package"] + "_" + strings.ReplaceAll(f["Version"], ":", "%3a") + "_" + f["Architecture"]
	at := filepath.Join(filepath.Base(r.dir), "stanzas", name)
	if err := os.WriteFile(filepath.Join(r.want.Work, at), []byte(all[i].text), 0o600); err != nil {
		return a, err
	}
	archive := url.URL{Scheme: u.Scheme, Host: u.Host, Path: strings.TrimSuffix(u.Path, "/"+f["Filename"])}
	return artifact.Artifact{
		Ref: ref, By: r.by, Index: archive.String(), Files: []artifact.File{
			{Path: name + ".deb", Size: size, Digest: d, Origin: fetch.Clean(u.String())},
			{Path: name + stanzaSuffix, Origin: ecosystem.Made(at, "")},
		},
	}, nil
}
