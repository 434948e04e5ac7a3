package site

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"filippo.io/age"

	"enisle/internal/fail"
)

// maxBackupFile is how many bytes of a file a backup without blobs may hold.
const maxBackupFile = 1 << 40

// inBackup reports whether a file of a site belongs in a backup. Blobs can be
// brought in again; what was being written when it was made cannot be used.
func inBackup(name string, blobs bool) bool {
	parts := strings.Split(name, "/")
	switch top := parts[0]; {
	case name == siteFile || name == lockFile || name == heldDir+"/oci-layout":
		return true
	case slices.Contains([]string{"keys", "state", policiesDir, ledgerDir, trustDir}, top):
		return true
	case top == heldDir || top == quarantined:
		return blobs && len(parts) > 2 && parts[1] == "sha256"
	}
	return false
}

// Backup writes the site in dir, sealed for recipients, as a tar file in an age
// file. It takes the site's lock: nothing changes meanwhile.
func Backup(ctx context.Context, dir string, w io.Writer, to []age.Recipient, blobs bool) (err error) {
	s := &Site{Dir: dir}
	if err := s.takeLock(ctx, Options{}.filled().Wait); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.lock.Close()) }()
	sealed, err := age.Encrypt(w, to...)
	if err != nil {
		return err
	}
	out := tar.NewWriter(sealed)
	err = filepath.WalkDir(dir, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, at)
		if err != nil || d.IsDir() || !inBackup(filepath.ToSlash(name), blobs) {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		return addFile(out, at, filepath.ToSlash(name))
	})
	return errors.Join(err, out.Close(), sealed.Close())
}

func addFile(out *tar.Writer, at, name string) error {
	f, err := os.Open(at)
	if err != nil {
		return err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s is not a regular file", name)
	}
	if err == nil {
		err = out.WriteHeader(&tar.Header{Name: name, Mode: int64(st.Mode().Perm()), Size: st.Size(), ModTime: st.ModTime(), Format: tar.FormatPAX})
	}
	if err == nil {
		_, err = io.Copy(out, f)
	}
	return errors.Join(err, f.Close())
}

// Restore makes the site of a backup in dir, which must not exist or be empty:
// whole, or not at all. It opens it, as any command would, before it names it.
func Restore(ctx context.Context, dir string, r io.Reader, keys []age.Identity, opt Options) (err error) {
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return fail.As(fail.Usage, "name a directory that does not exist yet with -C", fmt.Errorf("%s is not empty", dir))
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".enisle-restore-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	plain, err := age.Decrypt(r, keys...)
	if err != nil {
		return fail.Refuse("give the key or the passphrase that it was sealed for", fmt.Errorf("backup: %w", err))
	}
	if err := unpack(ctx, tmp, plain); err != nil {
		return fail.Refuse("take another backup", fmt.Errorf("backup: %w", err))
	}
	opt.ReadOnly = true
	s, err := Open(ctx, tmp, opt)
	if err != nil {
		return fail.Refuse("take another backup", fmt.Errorf("backup: what it holds is not a whole site: %w", err))
	}
	if err := errors.Join(s.Close(), syncAll(tmp)); err != nil {
		return err
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Rename(tmp, dir)
}

func unpack(ctx context.Context, dir string, r io.Reader) (err error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, root.Close()) }()
	for _, d := range []string{"keys", "state", policiesDir, ledgerDir, trustDir, heldDir + "/sha256", heldDir + "/tmp", quarantined + "/sha256", quarantined + "/tmp"} {
		mode := fs.FileMode(0o755)
		if d == "keys" {
			mode = 0o700
		}
		if err := root.MkdirAll(d, mode); err != nil {
			return err
		}
	}
	in := tar.NewReader(r)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			// The end of the tar file is not the end of the age file: only that proves
			// that nothing was cut off.
			_, err := io.Copy(io.Discard, r)
			return err
		}
		if err != nil {
			return err
		}
		if h.Typeflag != tar.TypeReg || !fs.ValidPath(h.Name) || !inBackup(h.Name, true) || h.Size > maxBackupFile {
			return fmt.Errorf("%.80q is no file of a site", h.Name)
		}
		f, err := root.OpenFile(h.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, fs.FileMode(h.Mode)&0o755)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, in)
		if err = errors.Join(err, f.Close()); err != nil {
			return err
		}
	}
}
