package child

import (
	"context"
	"crypto/sha256"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"

	"enisle/internal/artifact"
	"enisle/internal/fail"
	"enisle/internal/sandbox"
)

// NamedFile is a file of an artifact, opened by the caller, who keeps it open
// and unchanged until the engine is closed.
type NamedFile struct {
	Name   string // the name in the artifact; only its last element matters
	File   *os.File
	Digest artifact.Digest
}

// Base returns the last element of the name.
func (f NamedFile) Base() string { return path.Base(f.Name) }

// Verify reads the files through their own descriptors, without moving the offsets, and
// refuses (fail.Refused) content other than the digests say.
func Verify(ctx context.Context, all ...NamedFile) error {
	for _, f := range all {
		if err := f.copy(ctx, io.Discard); err != nil {
			return err
		}
	}
	return nil
}

func (f NamedFile) copy(ctx context.Context, to io.Writer) error {
	h, buf := sha256.New(), make([]byte, 1<<20)
	r := io.NewSectionReader(f.File, 0, 1<<62)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, err := r.Read(buf)
		h.Write(buf[:n])
		if _, werr := to.Write(buf[:n]); werr != nil {
			return werr
		}
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.Name, err)
		}
	}
	if got := artifact.FromSum([sha256.Size]byte(h.Sum(nil))); got != f.Digest {
		return fail.Refuse("run 'enisle check --read-data' to find what else has changed on disk",
			fmt.Errorf("%s: is %s, want %s", f.Name, got, f.Digest))
	}
	return nil
}

// Program returns a copy of the file in memory that can be executed and not be changed
// (sandbox.Program). It refuses (fail.Refused) content other than the digest says, and
// what is no program.
func (f NamedFile) Program(ctx context.Context) (*os.File, error) {
	r, w := io.Pipe()
	go func() { w.CloseWithError(f.copy(ctx, w)) }()
	p, err := sandbox.Program(f.Base(), r)
	return p, errors.Join(err, r.Close())
}

// Soname returns the name under which other programs look for a shared library; empty:
// it has none that is a plain name.
func (f NamedFile) Soname() string {
	e, err := elf.NewFile(f.File)
	if err != nil {
		return ""
	}
	names, err := e.DynString(elf.DT_SONAME)
	if err != nil || len(names) != 1 || names[0] != filepath.Base(names[0]) || names[0] == "." || names[0] == ".." {
		return ""
	}
	return names[0]
}

// Links makes the private directory in which a program finds its libraries and weights:
// names, which names gives for each file, that point at the descriptors the program
// inherits, the first being first, so that what is loaded is what was hashed, without a
// copy. The dynamic linker takes $ORIGIN from the name and opens the descriptor. Only
// this user may enter the directory; the caller removes it.
func Links(parent string, first int, files []NamedFile, names func(NamedFile) []string) (dir string, err error) {
	if dir, err = os.MkdirTemp(parent, "enisle-engine-"); err != nil {
		return "", fmt.Errorf("engine directory: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.RemoveAll(dir))
		}
	}()
	for i, f := range files {
		for _, n := range names(f) {
			if err := os.Symlink(sandbox.ProgramFile(first+i), filepath.Join(dir, n)); err != nil {
				return "", fmt.Errorf("engine directory: %w", err)
			}
		}
	}
	return dir, nil
}
