package maven

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/fail"
)

// remoteFile says, in each directory of a local repository, which of its files came
// from elsewhere: lines FILE>REPOSITORY=, without a repository what was made here.
const remoteFile = "_remote.repositories"

// read turns a local repository into artifacts.
func (r *resolving) read(repository string) ([]artifact.Artifact, error) {
	root := filepath.Join(r.want.Work, repository)
	found := map[coordinate]*artifact.Artifact{}
	err := filepath.WalkDir(root, func(at string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && at == root {
			return fs.SkipAll // nothing was needed
		}
		if err != nil || !d.Type().IsRegular() || d.Name() != remoteFile {
			return err
		}
		return r.readDir(root, filepath.Dir(at), found)
	})
	if err != nil {
		return nil, err
	}
	var out []artifact.Artifact
	for _, a := range found {
		out = append(out, *a)
	}
	slices.SortFunc(out, func(a, b artifact.Artifact) int { return strings.Compare(a.Ref.String(), b.Ref.String()) })
	return out, nil
}

// readDir reads one directory: one version of one thing.
func (r *resolving) readDir(root, dir string, found map[coordinate]*artifact.Artifact) error {
	c, ok := parseDir(filepath.ToSlash(strings.TrimPrefix(dir, root+string(filepath.Separator))))
	if !ok {
		return fail.Refuse("name the dependency differently", fmt.Errorf("%.200q is no place in a repository", strings.TrimPrefix(dir, root)))
	}
	remote, err := remotes(filepath.Join(dir, remoteFile))
	if err != nil {
		return err
	}
	for _, name := range remote {
		if !fileOf(c, name) {
			continue
		}
		st, err := os.Lstat(filepath.Join(dir, name))
		if err != nil || !st.Mode().IsRegular() {
			continue // it was tried and is not there
		}
		if strings.HasSuffix(c.version, "-SNAPSHOT") {
			return fail.Refuse("depend on a version that does not change", fmt.Errorf("%s:%s:%s is a snapshot", c.group, c.name, c.version))
		}
		a := found[c]
		if a == nil {
			a = &artifact.Artifact{Ref: c.ref(), By: r.by}
			found[c] = a
		}
		made := filepath.ToSlash(strings.TrimPrefix(filepath.Join(dir, name), r.want.Work+string(filepath.Separator)))
		from := r.from[c.name+"/"+c.version+"/"+name]
		if from != "" {
			from = fetch.Clean(from)
		}
		a.Files = append(a.Files, artifact.File{Path: name, Size: -1, Origin: ecosystem.Made(made, from)})
	}
	return nil
}

// remotes lists the files that came from elsewhere, each once.
func remotes(name string) (out []string, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := io.ReadAll(io.LimitReader(f, 1<<20))
	for line := range strings.Lines(string(b)) {
		file, repository, ok := strings.Cut(strings.TrimSpace(line), ">")
		if ok && !strings.HasPrefix(file, "#") && strings.Trim(repository, "=") != "" && !slices.Contains(out, file) {
			out = append(out, file)
		}
	}
	return out, err
}

// parseDir reads GROUP/GROUP/NAME/VERSION.
func parseDir(p string) (c coordinate, ok bool) {
	parts := strings.Split(p, "/")
	n := len(parts)
	if n < 3 {
		return c, false
	}
	for _, w := range parts {
		if !wordForm.MatchString(w) {
			return c, false
		}
	}
	for _, w := range parts[:n-2] {
		if strings.Contains(w, ".") {
			return c, false // the group would be another
		}
	}
	c = coordinate{strings.Join(parts[:n-2], "."), parts[n-2], parts[n-1]}
	return c, c.ok()
}

// fileOf reports whether a file belongs to a version, and is neither metadata nor a
// checksum: those are made anew.
func fileOf(c coordinate, name string) bool {
	rest, ok := strings.CutPrefix(name, c.name+"-"+c.version)
	if !ok || rest == "" || rest[0] != '.' && rest[0] != '-' || !wordForm.MatchString(name) {
		return false
	}
	return checksums[strings.TrimPrefix(path.Ext(name), ".")] == nil && path.Ext(name) != ".lastUpdated"
}
