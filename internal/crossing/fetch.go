package crossing

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/fail"
	"enisle/internal/site"
	"enisle/internal/site/store"
)

// fetchAll brings every file of the artifacts into the store, a few at a time,
// and fills in what only the content tells: size and digest.
func (c *collecting) fetchAll(ctx context.Context, lists ...[]artifact.Artifact) error {
	artifacts := slices.Concat(lists...) // shares the files, which are filled in
	var total int64
	for _, a := range artifacts {
		for _, f := range a.Files {
			if f.Origin != "" && !c.held(f) {
				total += max(0, f.Size)
			}
		}
	}
	show := c.Progress.start("fetching", total)
	var got atomic.Int64
	done := func(n int64) { got.Add(n); show(n) }
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i := range artifacts {
		for j := range artifacts[i].Files {
			a, f := artifacts[i], &artifacts[i].Files[j]
			switch {
			case c.made[f.Digest] && c.held(*f):
				c.out.Fetched++
				done(f.Size)
			case c.held(*f):
				c.out.Held++
			case a.From != "" || f.Origin == "" || strings.HasPrefix(f.Origin, localOrigin):
				// Taken out of another artifact, or local: files does it.
			default:
				c.out.Fetched++
				g.Go(func() error {
					if err := c.fetch(ctx, a, f, done); err != nil {
						return fmt.Errorf("%s: %s: %w", a.Ref, f.Path, err)
					}
					return nil
				})
			}
		}
	}
	err := g.Wait()
	c.out.Bytes = got.Load()
	return err
}

func (c *collecting) held(f artifact.File) bool {
	if f.Digest == "" {
		return false
	}
	size, err := c.Site.Held.Stat(f.Digest)
	return err == nil && (f.Size < 0 || size == f.Size)
}

// fetch downloads one file, going on where an earlier run stopped.
func (c *collecting) fetch(ctx context.Context, a artifact.Artifact, f *artifact.File, done func(int64)) error {
	w, err := c.Site.Held.Resume(ctx, site.FetchKey+fetchName(*f), max(f.Size, 1<<40))
	if err != nil {
		return err
	}
	resumed := w.Size() > 0
	if w, err = c.download(ctx, w, a, f, done); err != nil {
		return err
	}
	err = c.settle(w, f)
	if fail.IsRefused(err) && resumed {
		// What was left of the earlier run may have been the damage.
		if w, err = c.Site.Held.Begin(site.FetchKey + fetchName(*f)); err != nil {
			return err
		}
		if w, err = c.download(ctx, w, a, f, done); err != nil {
			return err
		}
		err = c.settle(w, f)
	}
	return err
}

// download copies the rest of a file into w. On failure w is suspended.
func (c *collecting) download(ctx context.Context, w *store.Writer, a artifact.Artifact, f *artifact.File, done func(int64)) (*store.Writer, error) {
	if w.Size() > 0 && w.Size() == f.Size {
		return w, nil
	}
	stop := func(err error) (*store.Writer, error) {
		err = errors.Join(err, w.Suspend())
		return nil, fail.As(fail.Partial, "run 'enisle collect' again: it goes on where it stopped", err)
	}
	body, start, total, err := c.Fetch.Get(ctx, f.Origin, w.Size())
	if err != nil {
		if b, ok := c.byClient(ctx, a, *f); ok {
			body, start, total, err = b, 0, -1, nil
		}
	}
	if err != nil {
		return stop(err)
	}
	defer func() { _ = body.Close() }() // only read from
	if f.Size < 0 && total >= 0 {
		f.Size = total
	}
	if start != w.Size() {
		if err := w.Abort(); err != nil {
			return nil, err
		}
		if w, err = c.Site.Held.Begin(site.FetchKey + fetchName(*f)); err != nil {
			return nil, err
		}
	}
	limit := int64(1) << 40
	if f.Size >= 0 {
		limit = f.Size - w.Size()
	}
	if _, err := io.Copy(w, io.LimitReader(&counting{body, done}, limit+1)); err != nil {
		return stop(err)
	}
	if f.Size >= 0 && w.Size() < f.Size {
		return stop(fmt.Errorf("the origin ended after %d of %d bytes", w.Size(), f.Size))
	}
	return w, nil
}

// byClient lets the ecosystem's own client download, for origins that ask for
// credentials which only it has.
func (c *collecting) byClient(ctx context.Context, a artifact.Artifact, f artifact.File) (io.ReadCloser, bool) {
	for _, eco := range c.Ecosystems {
		d, ok := eco.(ecosystem.Downloader)
		if !ok || eco.Name() != a.Ref.Kind {
			continue
		}
		file, err := d.Download(ctx, c.want(eco.Name(), nil), a, f)
		if err != nil {
			c.Site.Log().WarnContext(ctx, "client download", "artifact", a.Ref.String(), "err", err)
			return nil, false
		}
		body, err := os.Open(file)
		return body, err == nil
	}
	return nil, false
}

// settle checks a downloaded file against every hash that was promised and
// commits it.
func (c *collecting) settle(w *store.Writer, f *artifact.File) error {
	if want, ok := f.Hashes["sha512"]; ok {
		h := sha512.New()
		if _, err := io.Copy(h, w.Reader()); err != nil {
			return errors.Join(err, w.Suspend())
		}
		if hex.EncodeToString(h.Sum(nil)) != want {
			return errors.Join(fail.Refuse("the origin is not what it promised; do not use it", errors.New("the content is not what its sha512 says")), w.Abort())
		}
	} else if f.Digest == "" {
		return errors.Join(fail.Refuse("bring it from an origin that states hashes", errors.New("the origin states no hash")), w.Abort())
	}
	if f.Digest == "" {
		f.Digest = w.Digest()
	}
	if f.Size < 0 {
		f.Size = w.Size()
	}
	return w.Commit(f.Digest, f.Size)
}

// fetchName names the blob under construction of a file that may not have a
// digest yet.
func fetchName(f artifact.File) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s %s", f.Digest, f.Hashes["sha512"], f.Origin)
	return hex.EncodeToString(h.Sum(nil))
}

type counting struct {
	r    io.Reader
	done func(int64)
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.done(int64(n))
	return n, err
}

// hashLocal is the digest of a local file, or of all paths and files below a
// directory.
func hashLocal(name string) (artifact.Digest, error) {
	st, err := os.Stat(name)
	if err != nil || !st.IsDir() {
		return hashFile(name)
	}
	h := sha256.New()
	err = filepath.WalkDir(name, func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		sum, err := hashFile(at)
		fmt.Fprintf(h, "%q %s\n", at[len(name):], sum)
		return err
	})
	return sumOf(h), err
}

func hashFile(name string) (artifact.Digest, error) {
	f, _, err := openLocal(name)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	return sumOf(h), nil
}

func sumOf(h hash.Hash) artifact.Digest { return artifact.FromSum([32]byte(h.Sum(nil))) }
