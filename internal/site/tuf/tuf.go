// Package tuf follows repositories of The Update Framework (specification 1.0):
// roots that rotate, thresholds of keys, metadata that expires, targets with
// their hashes. The work is that of go-tuf; this package decides what it may ask
// for and by which time it judges. A repository is a directory that crossed the
// gap, or an address outside of it.
package tuf

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/theupdateframework/go-tuf/v2/metadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/config"
	"github.com/theupdateframework/go-tuf/v2/metadata/trustedmetadata"
	"github.com/theupdateframework/go-tuf/v2/metadata/updater"
	"golang.org/x/sys/unix"

	"enisle/internal/fail"
)

// Client follows one repository. Its directory holds the metadata that is
// trusted, and the latest time that was seen.
type Client struct {
	Dir string
	Now func() time.Time // nil: the machine's clock
	// Get fetches at most limit bytes from an address; nil where there is no network.
	// What is not there is fs.ErrNotExist.
	Get func(address string, limit int64) ([]byte, error)
}

const (
	firstRoot = "trusted-root.json"
	clockFile = "clock.json"
)

// Init trusts a root, from which all others follow. It refuses one that its own
// keys did not sign.
func (c Client) Init(root []byte) error {
	if _, err := trustedmetadata.New(root); err != nil {
		return refused(err)
	}
	if _, err := os.Stat(c.path(firstRoot)); err == nil {
		return fail.As(fail.Usage, "name another --metadata-dir", errors.New("a root is trusted here already"))
	}
	if err := os.MkdirAll(c.Dir, 0o700); err != nil {
		return err
	}
	return errors.Join(os.WriteFile(c.path(firstRoot), root, 0o600), os.WriteFile(c.path("root.json"), root, 0o600))
}

func (c Client) path(name string) string { return filepath.Join(c.Dir, name) }

// Refresh follows the roots, and brings what is trusted up to date. What is
// expired by the latest time that was ever seen is refused.
func (c Client) Refresh(metadataURL string) error {
	_, err := c.refresh(metadataURL, "", c.Dir)
	return err
}

func (c Client) refresh(metadataURL, targetURL, targetDir string) (*updater.Updater, error) {
	// From the root that was trusted last: the chain to it is proven already.
	root, err := os.ReadFile(c.path("root.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fail.As(fail.Usage, "run 'enisle tuf init ROOT' first", errors.New("no root is trusted here"))
	}
	if err != nil {
		return nil, err
	}
	now, err := c.clock()
	if err != nil {
		return nil, err
	}
	cfg, err := config.New(metadataURL, root)
	if err != nil {
		return nil, fail.As(fail.Usage, "give an address or a directory", err)
	}
	cfg.LocalMetadataDir, cfg.LocalTargetsDir, cfg.Fetcher = c.Dir, targetDir, fetcher{c.Get}
	if targetURL != "" {
		cfg.RemoteTargetsURL = targetURL
	}
	u, err := updater.New(cfg)
	if err == nil {
		u.UnsafeSetRefTime(now)
		err = u.Refresh()
	}
	return u, refused(err)
}

// Download refreshes and brings one target into a directory, proven by its size
// and hashes, and returns where it is.
func (c Client) Download(metadataURL, name, targetURL, dir string) (string, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	u, err := c.refresh(metadataURL, targetURL, dir)
	if err != nil {
		return "", err
	}
	info, err := u.GetTargetInfo(name)
	if err != nil {
		return "", refused(err)
	}
	// A name with slashes stays one file in dir.
	file := filepath.Join(dir, url.PathEscape(name))
	if at, _, err := u.FindCachedTarget(info, file); err == nil && at != "" {
		return at, nil
	}
	at, _, err := u.DownloadTarget(info, file, targetURL)
	return at, refused(err)
}

// clock is the latest of the machine's time and what was seen before. A machine
// whose clock goes back does not bring back what expired.
func (c Client) clock() (time.Time, error) {
	now := time.Now()
	if c.Now != nil {
		now = c.Now()
	}
	var seen time.Time
	b, err := os.ReadFile(c.path(clockFile))
	if err == nil {
		err = json.Unmarshal(b, &seen)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return now, fail.Refuse("restore "+clockFile+", or begin again with 'enisle tuf init'", fmt.Errorf("the time that was seen last is not readable: %w", err))
	}
	if seen.After(now) {
		return seen, nil
	}
	b, err = json.Marshal(now.UTC())
	if err != nil {
		return now, err
	}
	return now, os.WriteFile(c.path(clockFile), b, 0o600)
}

// refused makes everything that metadata or targets can do wrong a refusal; what
// could not be fetched can be tried again.
func refused(err error) error {
	var notFetched *metadata.ErrDownload
	var status *metadata.ErrDownloadHTTP
	switch {
	case err == nil:
		return nil
	case errors.As(err, &status), errors.As(err, &notFetched):
		return fail.As(fail.Partial, "check the address, and run the same command again", fmt.Errorf("tuf: %w", err))
	}
	return fail.Refuse("do not use this repository before its owners say what happened; what was trusted before stays", fmt.Errorf("tuf: %w", err))
}

// fetcher reads addresses, and directories for anything that is no address.
type fetcher struct {
	get func(address string, limit int64) ([]byte, error)
}

// DownloadFile returns at most limit bytes.
func (f fetcher) DownloadFile(name string, limit int64, _ time.Duration) ([]byte, error) {
	if !strings.HasPrefix(name, "http://") && !strings.HasPrefix(name, "https://") {
		return fromDirectory(name, limit)
	}
	if f.get == nil {
		return nil, &metadata.ErrDownload{Msg: "addresses are not fetched here: give a directory"}
	}
	b, err := f.get(name, limit)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, notFound(name)
	case err != nil:
		return nil, &metadata.ErrDownload{Msg: err.Error()}
	}
	return b, nil
}

func notFound(name string) error {
	const status = 404 // what go-tuf takes for the end of a chain of roots
	return &metadata.ErrDownloadHTTP{StatusCode: status, URL: name}
}

func fromDirectory(name string, limit int64) ([]byte, error) {
	path, err := url.PathUnescape(name)
	if err != nil {
		return nil, &metadata.ErrDownload{Msg: err.Error()}
	}
	// A repository may stand on a medium: no link is followed, no pipe waited for.
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, notFound(name)
	}
	defer func() { _ = f.Close() }() // only read from
	if st, err := f.Stat(); err != nil || !st.Mode().IsRegular() {
		return nil, &metadata.ErrDownload{Msg: name + " is no regular file"}
	}
	return limited(f, limit)
}

func limited(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, &metadata.ErrDownload{Msg: err.Error()}
	}
	if int64(len(b)) > limit {
		return nil, &metadata.ErrDownloadLengthMismatch{Msg: fmt.Sprintf("more than %d bytes", limit)}
	}
	return b, nil
}
