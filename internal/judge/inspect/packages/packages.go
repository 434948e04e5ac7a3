// Package packages reads what packages say of themselves, wherever they lie: in a
// wheel, a crate, an archive for Java, a layer of an image, or built into a program.
// It notes each as a component with its licence, so that it can be matched against
// vulnerabilities and listed; and it finds what runs when one is installed or built.
//
// It believes a description only as far as that it names a component more: what a
// package does not say of itself is noted from its reference.
package packages

import (
	"bufio"
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"github.com/package-url/packageurl-go"
	"github.com/pelletier/go-toml/v2"

	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
)

// Scanner reads descriptions of packages; the zero value works.
type Scanner struct{}

var _ inspect.Beside = Scanner{}

// New returns the scanner.
func New() Scanner { return Scanner{} }

// Beside says that other scanners judge what the files are.
func (Scanner) Beside() {}

// Name returns "packages".
func (Scanner) Name() string { return "packages" }

// Version changes when verdicts may.
func (Scanner) Version() string { return "1" }

// Limits, in bytes.
const (
	maxDescription = 64 << 20 // of one description
	maxProgram     = 4 << 30
)

// reader is how one kind of description is read.
type reader func(ctx context.Context, s inspect.Subject, run inspect.Run, b []byte) error

// types are package URLs by kind of artifact; constant.
var types = map[string]string{"pypi": "pypi", "npm": "npm", "gomod": "golang", "cargo": "cargo", "maven": "maven", "debian": "deb"}

// inner is the path of a member in the container that it lies in directly.
func inner(s inspect.Subject) string {
	return strings.TrimPrefix(s.Path[strings.LastIndexByte(s.Path, '!')+1:], "./")
}

// reads returns how a subject is read; nil: not at all.
func reads(s inspect.Subject) reader {
	if s.Depth == 0 {
		return nil
	}
	in := inner(s)
	base := path.Base(in)
	top := strings.Count(in, "/") <= 1 && s.Depth == 1
	switch {
	case base == "METADATA" && strings.HasSuffix(path.Dir(in), ".dist-info"), base == "PKG-INFO":
		return python
	case base == "package.json" && (s.Ref.Kind == "npm" && top || strings.Contains(in, "node_modules/")):
		return npm
	case base == "binding.gyp" && s.Ref.Kind == "npm" && top:
		return gyp
	case base == "pom.properties" && strings.Contains(in, "META-INF/maven/"):
		return pom
	case base == "Cargo.toml" && s.Ref.Kind == "cargo" && top:
		return cargo
	case base == "build.rs" && s.Ref.Kind == "cargo" && top:
		return buildScript
	case in == "control" && s.Ref.Kind == "debian":
		return control
	case slices.Contains([]string{"preinst", "postinst", "prerm", "postrm"}, in) && s.Ref.Kind == "debian":
		return maintainer
	case strings.HasSuffix(in, "var/lib/dpkg/status"), strings.Contains(in, "var/lib/dpkg/status.d/") && !strings.HasSuffix(in, ".md5sums"):
		return dpkg
	case strings.HasSuffix(in, "lib/apk/db/installed"):
		return apk
	case strings.HasSuffix(in, "etc/os-release"), strings.HasSuffix(in, "usr/lib/os-release"):
		return system
	}
	return nil
}

// program reports whether the first bytes are those of a program.
func program(s inspect.Subject) bool {
	for _, magic := range []string{"\x7fELF", "MZ", "\xcf\xfa\xed\xfe", "\xce\xfa\xed\xfe"} {
		if bytes.HasPrefix(s.Head, []byte(magic)) {
			return true
		}
	}
	return false
}

// Wants takes descriptions, programs, and packages themselves.
func (Scanner) Wants(s inspect.Subject) bool {
	return reads(s) != nil || program(s) || s.Depth == 0 && types[s.Ref.Kind] != "" && s.Ref.Version != ""
}

// Scan notes what the subject says it is.
func (Scanner) Scan(ctx context.Context, s inspect.Subject, run inspect.Run) error {
	if s.Depth == 0 && types[s.Ref.Kind] != "" {
		own(s.Ref, run)
	}
	if program(s) {
		return goProgram(s, run)
	}
	read := reads(s)
	if read == nil {
		return nil
	}
	if s.Size > maxDescription {
		return fmt.Errorf("a description of %d bytes", s.Size)
	}
	b := make([]byte, s.Size)
	if _, err := io.ReadFull(io.NewSectionReader(s, 0, s.Size), b); err != nil {
		return err
	}
	return read(ctx, s, run, b)
}

// note records a component; without a name or a version there is none.
func note(run inspect.Run, kind, namespace, name, version string, qualifiers map[string]string) {
	if name == "" || version == "" || len(name)+len(namespace)+len(version) > 1000 {
		return
	}
	p := packageurl.NewPackageURL(kind, namespace, name, version, packageurl.QualifiersFromMap(qualifiers), "")
	if p.Normalize() == nil {
		run.Note(inspect.Component, p.ToString())
	}
}

// split divides a name at its last separator.
func split(name, separators string) (namespace, rest string) {
	if i := strings.LastIndexAny(name, separators); i >= 0 {
		return name[:i], name[i+1:]
	}
	return "", name
}

// own notes a package by its reference.
func own(ref artifact.Ref, run inspect.Run) {
	namespace, name := "", ref.Name
	switch ref.Kind {
	case "npm", "gomod":
		namespace, name = split(ref.Name, "/")
	case "maven":
		namespace, name = split(ref.Name, ":/")
	case "debian":
		return // its control file says more: of which source it is
	}
	note(run, types[ref.Kind], namespace, name, ref.Version, nil)
}

func licence(run inspect.Run, text string) {
	text = strings.Join(strings.Fields(text), " ")
	if text == "" || strings.EqualFold(text, "unknown") {
		return
	}
	if len(text) > 200 {
		text = strings.ToValidUTF8(text[:200], "") + "…" // the text of a licence, where its name belongs
	}
	run.Note(inspect.Licence, text)
}

// fields reads the head of a description in the form of mail (RFC 822), or one
// paragraph of Debian's. Only the first of equal fields counts, but for classifiers.
func fields(paragraph string) (one map[string]string, classifiers []string) {
	one = map[string]string{}
	last := ""
	for l := range strings.Lines(paragraph) {
		l = strings.TrimRight(l, "\r\n")
		if l == "" {
			break
		}
		if l[0] == ' ' || l[0] == '\t' {
			if last != "" {
				one[last] += "\n" + strings.TrimSpace(l)
			}
			continue
		}
		key, value, ok := strings.Cut(l, ":")
		if !ok {
			continue
		}
		last = ""
		if value = strings.TrimSpace(value); key == "Classifier" {
			classifiers = append(classifiers, value)
		} else if _, twice := one[key]; !twice {
			one[key], last = value, key
		}
	}
	return one, classifiers
}

func python(_ context.Context, s inspect.Subject, run inspect.Run, b []byte) error {
	f, classifiers := fields(string(b))
	note(run, "pypi", "", strings.ToLower(strings.ReplaceAll(f["Name"], "_", "-")), f["Version"], nil)
	switch {
	case f["License-Expression"] != "":
		licence(run, f["License-Expression"])
	case f["License"] != "" && !strings.Contains(f["License"], "\n"):
		licence(run, f["License"])
	default:
		for _, c := range classifiers {
			if rest, ok := strings.CutPrefix(c, "License :: "); ok {
				parts := strings.Split(rest, " :: ")
				licence(run, parts[len(parts)-1])
			}
		}
	}
	if s.Depth > 1 || strings.Contains(inner(s), "/_vendor/") {
		run.Report("bundled", inspect.Info, fmt.Sprintf("holds %.60s %.40s", f["Name"], f["Version"]))
	}
	return nil
}

func npm(_ context.Context, s inspect.Subject, run inspect.Run, b []byte) error {
	var p struct {
		Name    any            `json:"name"`
		Version any            `json:"version"`
		License any            `json:"license"`
		Scripts map[string]any `json:"scripts"`
	}
	own := s.Ref.Kind == "npm" && s.Depth == 1 && !strings.Contains(inner(s), "node_modules/")
	if err := json.Unmarshal(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")), &p); err != nil {
		if own {
			run.Report("identity", inspect.Refuse, "package.json cannot be read: "+err.Error())
		}
		return nil // what lies in a bundle and is broken is never installed
	}
	name, _ := p.Name.(string)
	version, _ := p.Version.(string)
	if own && (name != s.Ref.Name || strings.TrimPrefix(version, "v") != s.Ref.Version) {
		run.Report("identity", inspect.Refuse, fmt.Sprintf("it is called %.60q, version %.40q inside, want %s", name, version, s.Ref))
	}
	namespace, rest := split(name, "/")
	note(run, "npm", namespace, rest, version, nil)
	switch l := p.License.(type) {
	case string:
		licence(run, l)
	case map[string]any:
		if t, ok := l["type"].(string); ok {
			licence(run, t)
		}
	}
	for _, hook := range []string{"preinstall", "install", "postinstall"} {
		if script, ok := p.Scripts[hook].(string); ok && script != "" {
			run.Note(inspect.Code, hook+": "+script)
			run.Report("install-code", inspect.Warn, fmt.Sprintf("%s runs at installation: %.160s", hook, script))
		}
	}
	return nil
}

func gyp(_ context.Context, _ inspect.Subject, run inspect.Run, _ []byte) error {
	run.Note(inspect.Code, "binding.gyp")
	run.Report("install-code", inspect.Warn, "binding.gyp: npm compiles it at installation")
	return nil
}

func pom(_ context.Context, _ inspect.Subject, run inspect.Run, b []byte) error {
	p := map[string]string{}
	for l := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(l), "="); ok {
			p[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
	note(run, "maven", p["groupId"], p["artifactId"], p["version"], nil)
	return nil
}

func cargo(_ context.Context, s inspect.Subject, run inspect.Run, b []byte) error {
	var c struct {
		Package struct {
			Name    string `toml:"name"`
			Version string `toml:"version"`
			License string `toml:"license"`
		} `toml:"package"`
	}
	if err := toml.Unmarshal(b, &c); err != nil {
		run.Report("identity", inspect.Refuse, "Cargo.toml cannot be read: "+err.Error())
		return nil
	}
	if c.Package.Name != s.Ref.Name || c.Package.Version != s.Ref.Version {
		run.Report("identity", inspect.Refuse, fmt.Sprintf("it is called %.60q, version %.40q inside, want %s", c.Package.Name, c.Package.Version, s.Ref))
	}
	note(run, "cargo", "", c.Package.Name, c.Package.Version, nil)
	licence(run, c.Package.License)
	return nil
}

func buildScript(_ context.Context, _ inspect.Subject, run inspect.Run, _ []byte) error {
	run.Note(inspect.Code, "build.rs")
	run.Report("install-code", inspect.Warn, "build.rs runs when it is compiled")
	return nil
}

func maintainer(_ context.Context, s inspect.Subject, run inspect.Run, _ []byte) error {
	run.Note(inspect.Code, inner(s))
	run.Report("install-code", inspect.Info, inner(s)+" runs when the package is installed or removed")
	return nil
}

// debian notes one paragraph of Debian's control files.
func debian(run inspect.Run, f map[string]string, release string) {
	source, version, _ := strings.Cut(f["Source"], " ")
	upstream := source
	if version = strings.Trim(version, "()"); version != "" {
		upstream += "@" + version
	}
	q := map[string]string{"arch": f["Architecture"]}
	if upstream != "" {
		q["upstream"] = upstream
	}
	if release != "" {
		q["distro"] = "debian-" + release
	}
	note(run, "deb", "debian", f["Package"], f["Version"], q)
}

func control(_ context.Context, s inspect.Subject, run inspect.Run, b []byte) error {
	f, _ := fields(string(b))
	codename, name := split(s.Ref.Name, "/")
	if f["Package"] != name || f["Version"] != s.Ref.Version {
		run.Report("identity", inspect.Refuse, fmt.Sprintf("it is called %.60q, version %.40q inside, want %s", f["Package"], f["Version"], s.Ref))
	}
	debian(run, f, releases[codename])
	return nil
}

// releases are the numbers of Debian's releases, as advisories name them; constant.
var releases = map[string]string{"buster": "10", "bullseye": "11", "bookworm": "12", "trixie": "13", "forky": "14"}

// paragraphs calls do for every paragraph of a file.
func paragraphs(b []byte, do func(string)) error {
	s := bufio.NewScanner(bytes.NewReader(b))
	s.Buffer(nil, maxDescription)
	var p strings.Builder
	flush := func() {
		if p.Len() > 0 {
			do(p.String())
			p.Reset()
		}
	}
	for s.Scan() {
		if s.Text() == "" {
			flush()
			continue
		}
		p.WriteString(s.Text())
		p.WriteByte('\n')
	}
	flush()
	return s.Err()
}

func dpkg(_ context.Context, _ inspect.Subject, run inspect.Run, b []byte) error {
	return paragraphs(b, func(p string) {
		f, _ := fields(p)
		// What was removed leaves its configuration, and is not there.
		if st := f["Status"]; st == "" || strings.HasSuffix(st, " installed") {
			debian(run, f, "")
		}
	})
}

func apk(_ context.Context, _ inspect.Subject, run inspect.Run, b []byte) error {
	return paragraphs(b, func(p string) {
		f, _ := fields(p)
		q := map[string]string{"arch": f["A"]}
		if f["o"] != "" {
			q["upstream"] = f["o"]
		}
		note(run, "apk", "alpine", f["P"], f["V"], q)
		licence(run, f["L"])
	})
}

// system notes the distribution, from which the packages around it are.
func system(_ context.Context, _ inspect.Subject, run inspect.Run, b []byte) error {
	p := map[string]string{}
	for l := range strings.Lines(string(b)) {
		if key, value, ok := strings.Cut(strings.TrimSpace(l), "="); ok {
			p[key] = strings.Trim(value, `"'`)
		}
	}
	note(run, "generic", "os", p["ID"], p["VERSION_ID"], nil)
	return nil
}

// goProgram notes the modules that were built into a program of Go.
func goProgram(s inspect.Subject, run inspect.Run) error {
	if s.Size > maxProgram {
		return errors.New("a program larger than 4 GiB")
	}
	info, err := buildinfo.Read(io.NewSectionReader(s, 0, s.Size))
	if err != nil {
		return nil // not of Go, or none that says so
	}
	note(run, "golang", "", "stdlib", strings.TrimPrefix(info.GoVersion, "go"), nil)
	add := func(p, version string) {
		namespace, name := split(p, "/")
		if version != "(devel)" {
			note(run, "golang", namespace, name, version, nil)
		}
	}
	add(info.Main.Path, info.Main.Version)
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		add(d.Path, d.Version)
	}
	return nil
}
