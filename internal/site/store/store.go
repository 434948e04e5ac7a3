// Package store keeps blobs by their SHA-256, as an OCI image layout does:
// blobs/sha256/<hex>.
//
// A blob gets its name only after every byte was hashed, so whatever has a name
// is whole. The package knows nothing of what blobs mean; which of them may be
// seen is decided elsewhere. A site has two of these: what is held (low) or
// released (high), and what is in quarantine.
package store

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"enisle/internal/artifact"
	"enisle/internal/fail"
)

// Blobs is a directory of blobs. Its methods may be called concurrently.
type Blobs struct {
	root *os.Root // holds sha256/ and tmp/
}

// Open opens the directory of blobs at dir, which Create has made.
func Open(dir string) (*Blobs, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return &Blobs{root}, nil
}

// Create makes an empty directory of blobs.
func Create(dir string) error {
	for _, d := range []string{"sha256", "tmp"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return fmt.Errorf("store: %w", err)
		}
	}
	return nil
}

// Close releases the directory.
func (s *Blobs) Close() error { return s.root.Close() }

func blobPath(d artifact.Digest) string { return "sha256/" + d.Hex() }

// Blob is an open blob.
type Blob struct {
	*os.File
	size int64
}

// Size returns the length in bytes.
func (b *Blob) Size() int64 { return b.size }

// Open opens a blob for reading; artifact.ErrNotHeld if there is none. The
// content is what was hashed when it came in; Check reads it again.
func (s *Blobs) Open(d artifact.Digest) (*Blob, error) {
	f, err := s.root.OpenFile(blobPath(d), os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("blob %s: %w", d.Short(), artifact.ErrNotHeld)
	}
	if err != nil {
		return nil, fmt.Errorf("blob %s: %w", d.Short(), err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return &Blob{f, st.Size()}, nil
}

// Stat returns a blob's size in bytes; artifact.ErrNotHeld if there is none.
func (s *Blobs) Stat(d artifact.Digest) (int64, error) {
	st, err := s.root.Lstat(blobPath(d))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, fmt.Errorf("blob %s: %w", d.Short(), artifact.ErrNotHeld)
	}
	if err != nil {
		return 0, fmt.Errorf("blob %s: %w", d.Short(), err)
	}
	return st.Size(), nil
}

// Has reports whether the blob is there.
func (s *Blobs) Has(d artifact.Digest) bool {
	_, err := s.Stat(d)
	return err == nil
}

// ReadSmall returns the whole content of a blob of at most limit bytes, after
// comparing it with its digest.
func (s *Blobs) ReadSmall(d artifact.Digest, limit int64) (_ []byte, err error) {
	b, err := s.Open(d)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if b.size > limit {
		return nil, fmt.Errorf("blob %s: %d bytes, more than %d", d.Short(), b.size, limit)
	}
	buf := make([]byte, b.size)
	if _, err := io.ReadFull(b, buf); err != nil {
		return nil, fmt.Errorf("blob %s: %w", d.Short(), err)
	}
	if artifact.Sum(buf) != d {
		return nil, damaged(d)
	}
	return buf, nil
}

func damaged(d artifact.Digest) error {
	return fail.Refuse("run 'enisle check --read-data' to see what else is damaged; bring the blob in again",
		fmt.Errorf("blob %s: damaged on disk: its content is not what its name says", d.Short()))
}

// Put stores a small blob that is in memory and returns its digest.
func (s *Blobs) Put(content []byte) (artifact.Digest, error) {
	d := artifact.Sum(content)
	if s.Has(d) {
		return d, nil
	}
	w, err := s.Begin("put-" + d.Hex())
	if err != nil {
		return "", err
	}
	if _, err := w.Write(content); err != nil {
		return "", errors.Join(err, w.Abort())
	}
	return d, w.Commit(d, int64(len(content)))
}

// Writer takes the content of one blob. Writes go through its hash.
type Writer struct {
	s    *Blobs
	f    *os.File
	name string
	sum  hash.Hash
	size int64
	sync int64 // bytes whose write-back has been started
}

// Begin opens a new blob under construction. A construction of the same key
// that was interrupted is thrown away; Resume takes it up instead. The key must
// be a clean file name.
func (s *Blobs) Begin(key string) (*Writer, error) {
	f, err := s.root.OpenFile("tmp/"+key, os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return &Writer{s: s, f: f, name: "tmp/" + key, sum: sha256.New()}, nil
}

// Overwrite opens the blob under construction of key for writing from its start
// and leaves what stands there: other parts of it may have been written already,
// or may be at the same time. Commit cuts off what is behind the end.
func (s *Blobs) Overwrite(key string) (*Writer, error) {
	f, err := s.root.OpenFile("tmp/"+key, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return &Writer{s: s, f: f, name: "tmp/" + key, sum: sha256.New()}, nil
}

// Part is a piece of a blob under construction that is written out of order.
// Nothing is hashed until CommitParts.
type Part struct{ f *os.File }

// Part opens the blob under construction of key for writing anywhere in it. A
// blob that has its name already is taken back: what is written next, or was
// written before a crash, decides anew.
func (s *Blobs) Part(key string, d artifact.Digest) (*Part, error) {
	if err := s.root.Rename(blobPath(d), "tmp/"+key); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("store: %w", err)
	}
	f, err := s.root.OpenFile("tmp/"+key, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	return &Part{f}, nil
}

// WriteAt writes p at an offset of the blob.
func (p *Part) WriteAt(b []byte, off int64) (int, error) { return p.f.WriteAt(b, off) }

// Close leaves what was written for CommitParts.
func (p *Part) Close() error { return p.f.Close() }

// CommitParts reads a blob that was written in parts through its hash and names
// it, or refuses and removes it. One that is not there is artifact.ErrNotHeld. A
// size below 0 is not compared. Like CommitLater it does not wait for the disk.
func (s *Blobs) CommitParts(ctx context.Context, key string, d artifact.Digest, size int64) error {
	f, err := s.root.OpenFile("tmp/"+key, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("blob %s: %w", d.Short(), artifact.ErrNotHeld)
	}
	if err != nil {
		return fmt.Errorf("store: %w", err)
	}
	w := &Writer{s: s, f: f, name: "tmp/" + key, sum: sha256.New()}
	limit := size
	if size < 0 {
		limit = 1 << 62
	}
	if w.size, err = io.Copy(w.sum, io.LimitReader(&contextReader{ctx, f}, limit)); err != nil {
		return errors.Join(fmt.Errorf("blob %s: %w", d.Short(), err), f.Close())
	}
	if size < 0 {
		size = w.size
	}
	return w.CommitLater(d, size)
}

// Resume opens the blob under construction of key, reads what is there through
// the hash, at most limit bytes, and returns the writer behind them.
func (s *Blobs) Resume(ctx context.Context, key string, limit int64) (*Writer, error) {
	f, err := s.root.OpenFile("tmp/"+key, os.O_RDWR|os.O_CREATE, 0o644)
	if err != nil {
		return nil, fmt.Errorf("store: %w", err)
	}
	w := &Writer{s: s, f: f, name: "tmp/" + key, sum: sha256.New()}
	w.size, err = io.Copy(w.sum, io.LimitReader(&contextReader{ctx, f}, limit))
	if err == nil {
		err = f.Truncate(w.size)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("store: %w", err), f.Close())
	}
	return w, nil
}

// Size returns how many bytes have been written.
func (w *Writer) Size() int64 { return w.size }

// Write appends p.
func (w *Writer) Write(p []byte) (int, error) {
	n, err := w.f.WriteAt(p, w.size)
	w.sum.Write(p[:n])
	w.size += int64(n)
	if w.size-w.sync >= 32<<20 {
		// Begin write-back early, so that the final sync finds little to do. A hint.
		_ = unix.SyncFileRange(int(w.f.Fd()), w.sync, w.size-w.sync, unix.SYNC_FILE_RANGE_WRITE)
		w.sync = w.size
	}
	return n, err
}

// Digest returns the digest of what was written so far.
func (w *Writer) Digest() artifact.Digest { return artifact.FromSum([32]byte(w.sum.Sum(nil))) }

// Reader returns the bytes written so far, for a second hash of another kind.
func (w *Writer) Reader() io.Reader { return io.NewSectionReader(w.f, 0, w.size) }

// Commit names the blob durably if its digest and size are as promised, and
// refuses and removes it otherwise. The writer is closed in any case.
func (w *Writer) Commit(want artifact.Digest, size int64) error {
	if err := w.f.Sync(); err != nil {
		return errors.Join(fmt.Errorf("blob %s: %w", want.Short(), err), w.f.Close())
	}
	if err := w.CommitLater(want, size); err != nil {
		return err
	}
	return w.s.SyncNames()
}

// CommitLater is Commit without waiting for the disk: the caller calls Flush
// once for many, and must not rely on any of them before.
func (w *Writer) CommitLater(want artifact.Digest, size int64) error {
	if err := errors.Join(w.f.Truncate(w.size), w.f.Close()); err != nil {
		return fmt.Errorf("blob %s: %w", want.Short(), err)
	}
	if got := w.Digest(); got != want || size != w.size {
		err := fail.Refuse("fetch or copy it again; if it happens twice, the source is not what was promised",
			fmt.Errorf("blob %s: content is %s of %d bytes, want %d", want.Short(), got.Short(), w.size, size))
		return errors.Join(err, w.s.root.Remove(w.name))
	}
	if err := w.s.root.Rename(w.name, blobPath(want)); err != nil {
		return fmt.Errorf("blob %s: %w", want.Short(), err)
	}
	return nil
}

// Suspend closes the writer and leaves what was written for Resume.
func (w *Writer) Suspend() error { return errors.Join(w.f.Sync(), w.f.Close()) }

// Abort closes the writer and removes what was written.
func (w *Writer) Abort() error { return errors.Join(w.f.Close(), w.s.root.Remove(w.name)) }

// Flush makes everything written to the file system so far durable.
func (s *Blobs) Flush() error {
	d, err := s.root.Open(".")
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

// SyncNames makes the names of blobs durable.
func (s *Blobs) SyncNames() error {
	d, err := s.root.Open("sha256")
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}

// MoveTo gives the blob to another store on the same file system, in one
// rename. A blob that is there already is fine.
func (s *Blobs) MoveTo(dst *Blobs, d artifact.Digest) error {
	err := os.Rename(filepath.Join(s.root.Name(), blobPath(d)), filepath.Join(dst.root.Name(), blobPath(d)))
	if errors.Is(err, fs.ErrNotExist) && dst.Has(d) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("blob %s: %w", d.Short(), err)
	}
	return nil
}

// Remove deletes a blob; one that is not there is fine.
func (s *Blobs) Remove(d artifact.Digest) error {
	if err := s.root.Remove(blobPath(d)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("blob %s: %w", d.Short(), err)
	}
	return nil
}

// CleanTemp removes every blob under construction whose key keep does not want.
func (s *Blobs) CleanTemp(keep func(key string) bool) error {
	d, err := s.root.Open("tmp")
	if err != nil {
		return err
	}
	names, err := d.Readdirnames(-1)
	if err = errors.Join(err, d.Close()); err != nil {
		return err
	}
	for _, n := range names {
		if keep == nil || !keep(n) {
			err = errors.Join(err, s.root.Remove("tmp/"+n))
		}
	}
	return err
}

// All calls do for every blob that has a name, in no order.
func (s *Blobs) All(do func(artifact.Digest) error) error {
	d, err := s.root.Open("sha256")
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }() // only read from
	for {
		names, err := d.Readdirnames(1024)
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		for _, n := range names {
			dig, err := artifact.ParseDigest("sha256:" + n)
			if err != nil {
				return fail.Refuse("look at what it is and remove it", fmt.Errorf("store: %q is not a blob", n))
			}
			if err := do(dig); err != nil {
				return err
			}
		}
	}
}

// Check reads a blob and compares it with its name.
func (s *Blobs) Check(ctx context.Context, d artifact.Digest) (err error) {
	b, err := s.Open(d)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	sum := sha256.New()
	if _, err := io.Copy(sum, &contextReader{ctx, b}); err != nil {
		return fmt.Errorf("blob %s: %w", d.Short(), err)
	}
	if !bytes.Equal(sum.Sum(nil), sumOf(d)) {
		return damaged(d)
	}
	return nil
}

func sumOf(d artifact.Digest) []byte {
	b := d.Bytes()
	return b[:]
}

type contextReader struct {
	ctx context.Context //nolint:containedctx // lives for one call
	r   io.Reader
}

func (c *contextReader) Read(p []byte) (int, error) {
	if err := c.ctx.Err(); err != nil {
		return 0, err
	}
	return c.r.Read(p)
}
