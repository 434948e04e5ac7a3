package crossing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"enisle/internal/artifact"
	"enisle/internal/fail"
)

// Members finds members of an archive. It is how a model or an engine that
// arrives inside a package becomes an artifact of its own.
type Members interface {
	// Each calls take for every regular member whose name matches the pattern
	// (path.Match). It refuses names that are not clean and contents that
	// outgrow what the archive promised.
	Each(ctx context.Context, archive string, r io.ReaderAt, size int64, pattern string, take func(name string, size int64, r io.Reader) error) error
}

// hubKind is the kind of artifacts whose files are taken as they are: repositories
// of hubs, which are no archives.
const hubKind = "hf"

// localOrigin begins the origin of a file that lay beside the request.
const localOrigin = "local:"

// fileItem is one entry of 'files'.
type fileItem struct{ path, from, as string }

func parseFileItem(v any) (it fileItem, err error) {
	bad := func(what string) error {
		return fail.As(fail.Usage, "an entry is {path: FILE, as: KIND/NAME} or {from: KIND/NAME@VERSION!PATTERN, as: KIND/NAME}", fmt.Errorf("files: %s", what))
	}
	m, ok := v.(map[string]any)
	if !ok {
		if s, isString := v.(string); isString {
			return fileItem{path: s}, nil
		}
		return it, bad("an entry is not an object")
	}
	for k, v := range m {
		s, ok := v.(string)
		if !ok {
			return it, bad(k + " is not a string")
		}
		switch k {
		case "path":
			it.path = s
		case "from":
			it.from = s
		case "as":
			it.as = s
		default:
			return it, bad("unknown key " + k)
		}
	}
	if (it.path == "") == (it.from == "") {
		return it, bad("an entry has one of path and from")
	}
	if it.from != "" && it.as == "" {
		return it, bad("an entry with from says what it is with as")
	}
	return it, nil
}

// source is the package an entry takes files out of, and the pattern of their
// names.
func (it fileItem) source() (ref artifact.Ref, pattern string, err error) {
	name, pattern, ok := strings.Cut(it.from, "!")
	if ok {
		_, err = path.Match(pattern, "")
	}
	if err == nil && ok {
		ref, err = artifact.ParseRef(name)
	}
	if !ok || err != nil {
		err = fail.As(fail.Usage, "write KIND/NAME@VERSION!PATTERN", errors.Join(fmt.Errorf("from: %q", it.from), err))
	}
	return ref, pattern, err
}

// ref is the artifact an entry becomes. Its kind is what "as" begins with; a
// plain file is named by its base name.
func (it fileItem) ref() (artifact.Ref, error) {
	if it.as == "" {
		return artifact.Ref{Kind: "files", Name: filepath.Base(it.path)}, nil
	}
	kind, name, ok := strings.Cut(it.as, "/")
	if !ok || !slices.Contains([]string{"model", "engine", "kb", "rules", "files"}, kind) {
		return artifact.Ref{}, fail.As(fail.Usage, "begin it with model/, engine/, kb/, rules/ or files/", fmt.Errorf("files: as: %q", it.as))
	}
	r := artifact.Ref{Kind: kind, Name: name}
	return r, r.Check()
}

// files adds the artifacts of the 'files' entries. Those that the lock names
// and that are held are taken from there.
func (c *collecting) files(ctx context.Context, artifacts []artifact.Artifact) ([]artifact.Artifact, error) {
	have := map[artifact.Ref]bool{}
	for _, a := range artifacts {
		have[a.Ref] = !slices.ContainsFunc(a.Files, func(f artifact.File) bool { return !c.held(f) })
	}
	for _, v := range c.req.Bring["files"] {
		it, err := parseFileItem(v)
		if err != nil {
			return nil, err
		}
		ref, err := it.ref()
		if err != nil {
			return nil, err
		}
		if have[ref] {
			continue
		}
		a := artifact.Artifact{Ref: ref, Name: ref.String()}
		if it.path != "" {
			err = c.local(ctx, &a, it.path)
		} else {
			err = c.members(ctx, &a, it.from, artifacts)
		}
		if err != nil {
			return nil, fmt.Errorf("files: %s: %w", ref, err)
		}
		artifacts = slices.DeleteFunc(artifacts, func(old artifact.Artifact) bool { return old.Ref == ref })
		artifacts = append(artifacts, a)
	}
	for _, a := range artifacts {
		for _, f := range a.Files {
			if !c.held(f) {
				return nil, fail.Refuse("run 'enisle collect --update'", fmt.Errorf("%s: %s is in the lock, but nothing says where to get it", a.Ref, f.Path))
			}
		}
		if err := a.Check(); err != nil {
			return nil, fail.Refuse("rename it, or choose other members", err)
		}
	}
	if err := c.Site.Held.Flush(); err != nil {
		return nil, err
	}
	return artifacts, sortArtifacts(artifacts)
}

// local ingests a local file, or all files of a directory under their paths in it.
func (c *collecting) local(ctx context.Context, a *artifact.Artifact, name string) error {
	st, err := os.Stat(filepath.Join(c.req.dir(), name))
	if err == nil && st.IsDir() {
		return c.directory(ctx, a, name)
	}
	return c.localFile(ctx, a, name, filepath.Base(name), nil)
}

// directory ingests what is below a directory. Anything but files and directories
// is refused: a link would bring what nobody named.
func (c *collecting) directory(ctx context.Context, a *artifact.Artifact, name string) error {
	top := filepath.Join(c.req.dir(), name)
	done := c.Progress.start("reading "+filepath.Base(name), -1)
	err := filepath.WalkDir(top, func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if !d.Type().IsRegular() {
			return fail.Refuse("remove it, or name the files one by one", fmt.Errorf("%s is neither a file nor a directory", d.Name()))
		}
		below, err := filepath.Rel(top, at)
		if err != nil {
			return err
		}
		return c.localFile(ctx, a, filepath.Join(name, below), filepath.ToSlash(below), done)
	})
	if err == nil && len(a.Files) == 0 {
		err = fail.As(fail.Usage, "name a directory with files", fmt.Errorf("%s is empty", filepath.Base(name)))
	}
	slices.SortFunc(a.Files, func(x, y artifact.File) int { return compare(x.Path, y.Path) })
	return err
}

// localFile ingests one file, as path in the artifact.
func (c *collecting) localFile(ctx context.Context, a *artifact.Artifact, name, path string, done func(int64)) error {
	f, st, err := openLocal(filepath.Join(c.req.dir(), name))
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }() // only read from
	if done == nil {
		done = c.Progress.start("reading "+filepath.Base(name), st.Size())
	}
	got, err := c.ingest(ctx, f, st.Size(), done)
	if err != nil {
		return err
	}
	got.Path, got.Origin = path, localOrigin+path
	a.Files = append(a.Files, got)
	return nil
}

// openLocal opens a regular file without waiting for anything that is none.
func openLocal(name string) (*os.File, os.FileInfo, error) {
	f, err := os.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, fail.As(fail.Usage, "name a file that is there; paths are taken from the directory of the request", err)
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fail.As(fail.Usage, "name a regular file", fmt.Errorf("%s is none", filepath.Base(name)))
	}
	if err != nil {
		return nil, nil, errors.Join(err, f.Close())
	}
	return f, st, nil
}

// members takes the members that match out of the archives of an artifact.
func (c *collecting) members(ctx context.Context, a *artifact.Artifact, from string, artifacts []artifact.Artifact) error {
	ref, pattern, err := fileItem{from: from}.source()
	if err != nil {
		return err
	}
	all := slices.Concat(artifacts, c.sources)
	i := find(all, ref)
	if i < 0 {
		return fail.Refuse("run 'enisle collect --update'", fmt.Errorf("%s is not in the lock", ref))
	}
	src := all[i]
	for _, f := range src.Files {
		if src.Ref.Kind == hubKind {
			if ok, _ := path.Match(pattern, f.Path); ok { // source has checked the pattern
				f.Path, f.Origin = path.Base(f.Path), f.Origin+"#sha256="+f.Digest.Hex()
				a.Files = append(a.Files, f)
			}
			continue
		}
		if err := c.membersOf(ctx, a, f, pattern); err != nil {
			return err
		}
	}
	if len(a.Files) == 0 {
		return fail.As(fail.Usage, "list the members with 'unzip -l' or 'tar -t'", fmt.Errorf("nothing in %s matches %s", src.Ref, pattern))
	}
	slices.SortFunc(a.Files, func(x, y artifact.File) int { return compare(x.Path, y.Path) })
	a.From = src.Ref.String() + "!" + pattern
	return nil
}

func (c *collecting) membersOf(ctx context.Context, a *artifact.Artifact, f artifact.File, pattern string) error {
	b, err := c.Site.Held.Open(f.Digest)
	if err != nil {
		return err
	}
	err = c.Members.Each(ctx, f.Path, b, b.Size(), pattern, func(name string, size int64, r io.Reader) error {
		got, err := c.ingest(ctx, r, size, c.Progress.start("taking out "+path.Base(name), size))
		if err != nil {
			return err
		}
		got.Published = f.Published
		got.Path, got.Origin = path.Base(name), f.Origin+"#sha256="+f.Digest.Hex()+"!"+name
		a.Files = append(a.Files, got)
		return nil
	})
	return errors.Join(err, b.Close())
}

// ingest stores one stream of exactly size bytes; files makes it durable.
func (c *collecting) ingest(ctx context.Context, r io.Reader, size int64, done func(int64)) (artifact.File, error) {
	w, err := c.Site.Held.Begin(fmt.Sprintf("ingest-%d", os.Getpid()))
	if err != nil {
		return artifact.File{}, err
	}
	n, err := io.Copy(w, io.LimitReader(&counting{r, done}, size+1))
	if err == nil {
		err = ctx.Err()
	}
	if err == nil && n != size {
		err = fail.Refuse("the archive lies about it; do not use it", fmt.Errorf("has %d bytes where %d were promised", n, size))
	}
	if err != nil {
		return artifact.File{}, errors.Join(err, w.Abort())
	}
	d := w.Digest()
	return artifact.File{Size: size, Digest: d}, w.CommitLater(d, size)
}
