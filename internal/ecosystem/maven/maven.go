// Package maven brings what a Maven build takes from its repositories: by a real
// build outside, served as a repository to unmodified clients inside.
//
// It knows nothing of sites or shipments. The layout and the metadata are those of
// Maven 2 repositories (maven.apache.org, "Repository Layout" and "Metadata").
package maven

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/fail"
)

// Kind is the kind of what lies in Maven repositories; the name of an artifact is
// GROUP/ARTIFACT.
const Kind = "maven"

// maxProject is how large a project may be that is copied to be built, in bytes.
const maxProject = 4 << 30

// Ecosystem is that of Maven. The zero value serves.
type Ecosystem struct {
	Runner ecosystem.Runner // runs mvn; needed for collecting
}

var (
	_ ecosystem.Ecosystem    = (*Ecosystem)(nil)
	_ ecosystem.Wanter       = (*Ecosystem)(nil)
	_ ecosystem.Impersonator = (*Ecosystem)(nil)
	_ ecosystem.Configured   = (*Ecosystem)(nil)
)

// wordForm is one part of a coordinate; constant. A part may not begin with a dot,
// so that none leads elsewhere.
var wordForm = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.+-]{0,199}$`)

// Name returns "maven".
func (*Ecosystem) Name() string { return Kind }

// Resolve builds each project with a local repository of its own, and takes what
// came into it from elsewhere.
func (e *Ecosystem) Resolve(ctx context.Context, want ecosystem.Want) ([]artifact.Artifact, error) {
	r := &resolving{run: e.Runner, want: want, from: map[string]string{}}
	out, err := r.mvn(ctx, want.Work, "repository", "--version")
	if err != nil {
		return nil, fail.As(fail.Failed, "install Maven and a JDK (Debian: maven, default-jdk-headless)", err)
	}
	if f := strings.Fields(plain(string(out))); len(f) > 2 {
		r.by = "maven " + f[2]
	}
	for i, it := range want.Items {
		dir := filepath.Join(want.Work, fmt.Sprintf("project-%d", i))
		if err := r.item(ctx, it, dir); err != nil {
			return nil, fmt.Errorf("%v: %w", it, err)
		}
	}
	all, err := r.read("repository")
	if err != nil || len(want.Alone) == 0 {
		return all, err
	}
	return r.alone(ctx, all)
}

func unknown(it any) error {
	return fail.As(fail.Usage, `write {pom: pom.xml}, {pom: pom.xml, goals: [verify]} or "GROUP:ARTIFACT:VERSION"`, fmt.Errorf("unknown entry %.80v", it))
}

func (r *resolving) item(ctx context.Context, it any, dir string) error {
	if spec, ok := it.(string); ok {
		c, err := parseCoordinate(spec)
		if err != nil {
			return err
		}
		return r.depend(ctx, c, "", dir, "repository")
	}
	m, ok := it.(map[string]any)
	pom, isPom := m["pom"].(string)
	if !ok || !isPom {
		return unknown(it)
	}
	goals := []string{"verify", "-DskipTests"}
	for key, v := range m {
		if key == "pom" {
			continue
		}
		list, ok := v.([]any)
		if key != "goals" || !ok || len(list) == 0 {
			return unknown(it)
		}
		goals = nil
		for _, g := range list {
			s, ok := g.(string)
			if !ok || s == "" {
				return unknown(it)
			}
			goals = append(goals, s)
		}
	}
	return r.build(ctx, filepath.Join(r.want.Dir, pom), goals, dir)
}

// resolving is one Resolve.
type resolving struct {
	run  ecosystem.Runner
	want ecosystem.Want
	by   string
	from map[string]string // path in the repository → where it was downloaded from
}

// mvn runs Maven with the settings of this machine and a local repository below
// want.Work, and remembers where it says that it downloads from.
func (r *resolving) mvn(ctx context.Context, dir, repository string, args ...string) ([]byte, error) {
	argv := append([]string{
		// The runner lets Maven write only where it is started and in TMPDIR.
		"sh", "-c", `cd "$0" && export MAVEN_OPTS="$MAVEN_OPTS -Djava.io.tmpdir=$TMPDIR -XX:-UsePerfData" && exec mvn "$@"`, dir,
		"-B", "-Dstyle.color=never", "-Dmaven.repo.local=" + filepath.Join(r.want.Work, repository),
	}, args...)
	out, stderr, err := r.run.Run(ctx, r.want.Work, r.want.Hidden, argv)
	r.remember(plain(string(out)))
	if err != nil {
		return out, fmt.Errorf("mvn %s: %w: %s", args[0], err, tail(plain(string(out)+string(stderr))))
	}
	return out, nil
}

// downloadForm is how Maven says from where it has a file; constant.
var downloadForm = regexp.MustCompile(`(?m)Downloaded from [^ :]+: (https?://\S+)`)

func (r *resolving) remember(log string) {
	for _, m := range downloadForm.FindAllStringSubmatch(log, -1) {
		r.from[lastParts(m[1])] = m[1]
	}
}

// lastParts is ARTIFACT/VERSION/FILE of an address or a path: enough to find it.
func lastParts(p string) string {
	parts := strings.Split(p, "/")
	return strings.Join(parts[max(0, len(parts)-3):], "/")
}

// build copies a project and builds it.
func (r *resolving) build(ctx context.Context, pom string, goals []string, dir string) error {
	if _, err := os.Stat(pom); err != nil {
		return fail.As(fail.Usage, "paths in a request start where it lies", err)
	}
	if err := r.copyProject(filepath.Dir(pom), dir); err != nil {
		return fmt.Errorf("project: %w", err)
	}
	if _, err := r.mvn(ctx, dir, "repository", append([]string{"-f", filepath.Base(pom)}, goals...)...); err != nil {
		return fail.As(fail.Failed, "try it beside pom.xml with '-Dmaven.repo.local' naming an empty directory; 'goals:' may name others", err)
	}
	return nil
}

// copyProject copies what a build may need: not what a build made, not the history,
// nothing hidden, no links.
func (r *resolving) copyProject(from, to string) error {
	var total int64
	return filepath.WalkDir(from, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, at)
		if err != nil {
			return err
		}
		if d.IsDir() {
			if at != from && (d.Name() == "target" || d.Name() == ".git") || r.hidden(at) {
				return fs.SkipDir
			}
			return os.MkdirAll(filepath.Join(to, rel), 0o755)
		}
		if !d.Type().IsRegular() || r.hidden(at) || strings.HasSuffix(at, ".key") {
			return nil
		}
		n, err := copyFile(at, filepath.Join(to, rel), maxProject-total)
		total += n
		return err
	})
}

// hidden reports whether a path is one that no client may read, or contains want.Work.
func (r *resolving) hidden(at string) bool {
	abs, err := filepath.Abs(at)
	return err != nil || abs == r.want.Work || slices.Contains(r.want.Hidden, abs) || slices.Contains(r.want.Hidden, at)
}

func copyFile(from, to string, limit int64) (n int64, err error) {
	src, err := os.Open(from)
	if err != nil {
		return 0, err
	}
	defer func() { _ = src.Close() }() // only read from
	st, err := src.Stat()
	if err != nil {
		return 0, err
	}
	if st.Size() > limit {
		return 0, fail.As(fail.Usage, "put the project into a directory of its own", fmt.Errorf("it is larger than %d bytes", int64(maxProject)))
	}
	dst, err := os.OpenFile(to, os.O_CREATE|os.O_EXCL|os.O_WRONLY, st.Mode().Perm()|0o600)
	if err != nil {
		return 0, err
	}
	n, err = io.Copy(dst, src)
	return n, errors.Join(err, dst.Close())
}

// coordinate names what a repository holds.
type coordinate struct{ group, name, version string }

func parseCoordinate(spec string) (c coordinate, err error) {
	if p := strings.Split(spec, ":"); len(p) == 3 {
		c = coordinate{p[0], p[1], p[2]}
	}
	if !c.ok() {
		return c, fail.As(fail.Usage, `write "GROUP:ARTIFACT:VERSION"`, fmt.Errorf("%.80q names no version of an artifact", spec))
	}
	return c, nil
}

func (c coordinate) ok() bool {
	return wordForm.MatchString(c.group) && wordForm.MatchString(c.name) && wordForm.MatchString(c.version) && !strings.Contains(c.group, "..")
}

func (c coordinate) ref() artifact.Ref {
	return artifact.Ref{Kind: Kind, Name: c.group + "/" + c.name, Version: c.version}
}

// dir is where its files lie.
func (c coordinate) dir() string {
	return strings.ReplaceAll(c.group, ".", "/") + "/" + c.name + "/" + c.version
}

// depend builds an empty project that depends on something. Every word of it was
// checked: none needs to be escaped.
func (r *resolving) depend(ctx context.Context, c coordinate, more, dir, repository string) error {
	text := `<project xmlns="http://maven.apache.org/POM/4.0.0"><modelVersion>4.0.0</modelVersion>
<groupId>enisle</groupId><artifactId>want</artifactId><version>0</version>
<dependencies><dependency><groupId>` + c.group + `</groupId><artifactId>` + c.name + `</artifactId><version>` + c.version + `</version>` + more + `</dependency></dependencies>
</project>
`
	err := os.MkdirAll(dir, 0o755)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, "pom.xml"), []byte(text), 0o600)
	}
	if err != nil {
		return err
	}
	if _, err := r.mvn(ctx, dir, repository, "package"); err != nil {
		return fail.As(fail.Failed, "bring a project that depends on it with {pom: …}", err)
	}
	return nil
}

// alone brings single artifacts without what they depend on, from a repository of
// their own.
func (r *resolving) alone(ctx context.Context, all []artifact.Artifact) ([]artifact.Artifact, error) {
	for i, ref := range r.want.Alone {
		group, name, ok := strings.Cut(ref.Name, "/")
		c := coordinate{group, name, ref.Version}
		if !ok || !c.ok() {
			return nil, fail.As(fail.Usage, `write "maven/GROUP/ARTIFACT@VERSION"`, fmt.Errorf("%s names no version of an artifact", ref))
		}
		const none = `<exclusions><exclusion><groupId>*</groupId><artifactId>*</artifactId></exclusion></exclusions>`
		repository := fmt.Sprintf("repository-%d", i)
		if err := r.depend(ctx, c, none, filepath.Join(r.want.Work, fmt.Sprintf("alone-%d", i)), repository); err != nil {
			return nil, fmt.Errorf("%s: %w", ref, err)
		}
		found, err := r.read(repository)
		if err != nil {
			return nil, err
		}
		at := slices.IndexFunc(found, func(a artifact.Artifact) bool { return a.Ref == ref })
		if at < 0 {
			return nil, fmt.Errorf("%s: maven did not download it", ref)
		}
		all = append(all, found[at])
	}
	return all, nil
}

// plain takes the colours out.
func plain(s string) string { return colours.ReplaceAllString(s, "") }

// colours is constant.
var colours = regexp.MustCompile("\x1b\\[[0-9;]*m")

// tail is the end of what Maven said, from its first complaint on.
func tail(s string) string {
	if i := strings.Index(s, "[ERROR]"); i >= 0 {
		s = s[i:]
		s = s[:min(len(s), 600)]
	}
	if len(s) > 600 {
		s = s[len(s)-600:]
	}
	return strings.ReplaceAll(strings.TrimSpace(strings.ToValidUTF8(s, "")), "\n", "; ")
}
