// Package site is one installation: the directory that holds all of its state,
// opened as a whole.
//
// It ties the rooms every site has (store, state, trust, ledger) and gives the
// one way to act: an intent in the ledger before, an outcome after. It knows
// nothing of shipments, ecosystems or engines. No absolute path is stored in
// the directory, so it can be moved or copied as a whole.
package site

import (
	"context"
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"filippo.io/age"
	"golang.org/x/sys/unix"

	"enisle/internal/artifact"
	"enisle/internal/fail"
	"enisle/internal/site/ledger"
	"enisle/internal/site/state"
	"enisle/internal/site/store"
	"enisle/internal/site/trust"
)

// What lies where in a site's directory.
const (
	siteFile    = "site.json"
	lockFile    = "lock"
	siteKey     = "keys/site.key"
	ageKey      = "keys/age.key"
	trustDir    = "trust"
	ledgerDir   = "ledger"
	stateFile   = "state/state.db"
	policiesDir = "policies" // every policy that was ever proposed, by digest
	heldDir     = "blobs"
	quarantined = "quarantine"
)

const siteFormat = "enisle-site/1"

// MaxClockBack is how far the clock may stand before the newest record: more is
// a wrong clock.
const MaxClockBack = 5 * time.Minute

// MaxClockAhead is how far the clock may stand after the newest record before
// people must vouch for it.
const MaxClockAhead = 92 * 24 * time.Hour

// about is the content of site.json.
type about struct {
	Format string         `json:"format"`
	Site   trust.Identity `json:"site"`
}

// Site is an open site.
type Site struct {
	Dir        string
	Identity   trust.Identity
	Roots      *trust.Roots
	Ledger     *ledger.Log
	State      *state.DB
	Held       *store.Blobs // low: what is held; high: what was released at least once
	Quarantine *store.Blobs // high only: what was imported and not released
	Policy     []byte       // the policy in force, which the root names by digest
	Key        *trust.Key   // the site's own; nil when open for reading

	now  func() time.Time
	log  *slog.Logger
	lock *os.File
	seen struct{ head, root string } // what the state remembered when it was opened
}

// Options say how a site is opened; the zero value opens it for changes.
type Options struct {
	ReadOnly bool             // take no lock, load no key, change nothing
	Released bool             // leave the quarantine closed: for serving
	Now      func() time.Time // nil means time.Now
	Log      *slog.Logger     // nil means discard
	Wait     time.Duration    // how long to wait for another command; 0 means 10 s
	// Passphrase is asked for when the site's keys are protected.
	Passphrase func() (string, error)
}

func (o Options) filled() Options {
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Wait == 0 {
		o.Wait = 10 * time.Second
	}
	return o
}

// WrappedFile is where the passphrase of a site's keys is, sealed by a token.
const WrappedFile = "keys/wrapped.json"

// Secrets say how the keys of a new site are protected.
type Secrets struct {
	Passphrase string   // of the keys at rest; empty: none
	Wrapped    []byte   // the passphrase, sealed by a token; nil: people know it
	Recovery   []string // age recipients besides the site's own
}

// Init makes a site in dir, which must not exist or be empty. policy is the content of its policy file.
func Init(ctx context.Context, dir, side, name string, policy []byte, secrets Secrets, opt Options) (id trust.Identity, err error) {
	if err := trust.CheckName(name); err != nil {
		return id, err
	}
	if entries, err := os.ReadDir(dir); err == nil && len(entries) > 0 {
		return id, fail.As(fail.Usage, "name a directory that does not exist yet with -C", fmt.Errorf("%s is not empty", dir))
	}
	// Made beside its place and named at the end: a site is whole or not there.
	if dir, err = filepath.Abs(dir); err != nil {
		return id, err
	}
	if err := os.MkdirAll(filepath.Dir(dir), 0o755); err != nil {
		return id, err
	}
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".enisle-init-")
	if err != nil {
		return id, err
	}
	if err := errors.Join(os.Chmod(tmp, 0o755), os.MkdirAll(filepath.Join(tmp, "keys"), 0o700),
		os.MkdirAll(filepath.Join(tmp, "state"), 0o755), os.MkdirAll(filepath.Join(tmp, policiesDir), 0o755)); err != nil {
		return id, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(tmp)) }()
	if id, err = makeKeys(tmp, side, name, secrets); err != nil {
		return id, err
	}
	b, err := json.Marshal(about{siteFormat, id})
	if err != nil {
		return id, err
	}
	dirs := []error{store.Create(filepath.Join(tmp, heldDir))}
	if side == trust.High {
		dirs = append(dirs, store.Create(filepath.Join(tmp, quarantined)))
	}
	if err := errors.Join(dirs...); err != nil {
		return id, err
	}
	for n, content := range map[string][]byte{siteFile: b, lockFile: nil, policyName(artifact.Sum(policy)): policy, heldDir + "/oci-layout": []byte(`{"imageLayoutVersion":"1.0.0"}`)} {
		if err := os.WriteFile(filepath.Join(tmp, n), content, 0o644); err != nil {
			return id, err
		}
	}
	if err := trust.CreateRoots(filepath.Join(tmp, trustDir), trust.NewRoot(id, artifact.Sum(policy))); err != nil {
		return id, err
	}
	db, err := state.Create(ctx, filepath.Join(tmp, stateFile))
	if err != nil {
		return id, err
	}
	head, err := os.ReadFile(filepath.Join(tmp, ledgerDir, "checkpoint"))
	if err == nil {
		err = db.Update(ctx, func(tx *state.Tx) error {
			return errors.Join(tx.SetMeta(metaHead, string(head)), tx.SetMeta(metaRoot, "0"))
		})
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return id, err
	}
	if err := syncAll(tmp); err != nil {
		return id, err
	}
	// An empty directory gives way.
	if err := os.Remove(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return id, err
	}
	return id, os.Rename(tmp, dir)
}

func makeKeys(dir, side, name string, secrets Secrets) (id trust.Identity, err error) {
	for _, r := range secrets.Recovery {
		if _, err := age.ParseHybridRecipient(r); err != nil {
			return id, fail.As(fail.Usage, "give what 'enisle keygen --recovery' printed", fmt.Errorf("recovery recipient: %w", err))
		}
	}
	k, err := trust.GenerateKey()
	if err != nil {
		return id, err
	}
	if err := trust.SaveKey(k, filepath.Join(dir, siteKey), secrets.Passphrase); err != nil {
		return id, err
	}
	a, err := age.GenerateHybridIdentity()
	if err != nil {
		return id, err
	}
	secret, err := trust.Protect([]byte(a.String()+"\n"), secrets.Passphrase)
	if err != nil {
		return id, err
	}
	if err := os.WriteFile(filepath.Join(dir, ageKey), secret, 0o600); err != nil {
		return id, err
	}
	if secrets.Wrapped != nil {
		if err := os.WriteFile(filepath.Join(dir, WrappedFile), secrets.Wrapped, 0o600); err != nil {
			return id, err
		}
	}
	priv, _ := k.Ed25519()
	if err := ledger.Create(filepath.Join(dir, ledgerDir), origin(name), priv); err != nil {
		return id, err
	}
	return trust.Identity{Name: name, Side: side, Key: k.Public, Recipient: a.Recipient().String(), Recovery: secrets.Recovery}, nil
}

func origin(name string) string { return "enisle/" + name }

func syncAll(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(unix.Syncfs(int(d.Fd())), d.Close())
}

// Open opens the site in dir. For changes it takes the site's lock and first
// settles what a crash may have left: temporary files, and intents without an
// outcome.
func Open(ctx context.Context, dir string, opt Options) (_ *Site, err error) {
	opt = opt.filled()
	s := &Site{Dir: dir, now: opt.Now, log: opt.Log}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.Close())
		}
	}()
	if err := s.readAbout(); err != nil {
		return nil, err
	}
	if !opt.ReadOnly {
		if err := s.takeLock(ctx, opt.Wait); err != nil {
			return nil, err
		}
		if s.Key, err = trust.LoadKey(filepath.Join(dir, siteKey), opt.Passphrase); err != nil {
			return nil, err
		}
		if s.Key.Public.ID() != s.Identity.Key.ID() {
			return nil, fail.Refuse("restore the site from its backup", errors.New("the site's key is not the one of its identity"))
		}
	}
	if err := s.openRooms(ctx, opt); err != nil {
		return nil, err
	}
	if err := s.checkRewind(); err != nil {
		return nil, err
	}
	if opt.ReadOnly {
		return s, nil
	}
	if err := s.catchUp(ctx); err != nil {
		return nil, err
	}
	return s, s.settle(ctx)
}

func (s *Site) readAbout() error {
	b, err := os.ReadFile(filepath.Join(s.Dir, siteFile))
	if errors.Is(err, fs.ErrNotExist) {
		return fail.As(fail.Usage, "make one with 'enisle -C DIR init --side low|high', or name another with -C", fmt.Errorf("%s is not a site", s.Dir))
	}
	if err != nil {
		return err
	}
	var a about
	if err := json.Unmarshal(b, &a); err != nil || a.Format != siteFormat {
		return fail.Refuse("use the enisle that made it", errors.Join(fmt.Errorf("%s: format %.40q is not known", s.Dir, a.Format), err))
	}
	s.Identity = a.Site
	return nil
}

func (s *Site) takeLock(ctx context.Context, wait time.Duration) error {
	f, err := os.OpenFile(filepath.Join(s.Dir, lockFile), os.O_RDWR, 0)
	if err != nil {
		return err
	}
	s.lock = f
	for end := time.Now().Add(wait); ; {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) || time.Now().After(end) {
			return fail.As(fail.Failed, "wait until the other enisle command has ended", fmt.Errorf("site %s is in use: %w", s.Dir, err))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (s *Site) openRooms(ctx context.Context, opt Options) (err error) {
	// The state first, and what it remembers: another command may be adding to the
	// ledger, and what is remembered must not be newer than what is read after it.
	if s.State, err = state.Open(ctx, filepath.Join(s.Dir, stateFile), opt.ReadOnly); err != nil {
		return err
	}
	if err := s.remember(ctx); err != nil {
		return err
	}
	if s.Roots, err = trust.OpenRoots(filepath.Join(s.Dir, trustDir), s.Identity.Key); err != nil {
		return err
	}
	public, err := notePublic(s.Identity.Key)
	if err != nil {
		return err
	}
	var private ed25519.PrivateKey
	if !opt.ReadOnly {
		private, _ = s.Key.Ed25519()
	}
	if s.Ledger, err = ledger.Open(filepath.Join(s.Dir, ledgerDir), origin(s.Identity.Name), public, private); err != nil {
		return err
	}
	if s.Held, err = store.Open(filepath.Join(s.Dir, heldDir)); err != nil {
		return err
	}
	if s.Identity.Side == trust.High && !opt.Released {
		if s.Quarantine, err = store.Open(filepath.Join(s.Dir, quarantined)); err != nil {
			return err
		}
	}
	return s.readPolicy()
}

func (s *Site) readPolicy() (err error) {
	s.Policy, err = s.ReadPolicy(s.Roots.Root().Policy)
	return err
}

// ReadPolicy returns the policy of a digest that a root names.
func (s *Site) ReadPolicy(d artifact.Digest) ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(s.Dir, policyName(d)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	if artifact.Sum(b) != d {
		return nil, fail.Refuse("put the file back from the site's backup; another policy is set with 'enisle policy set'",
			fmt.Errorf("%s is missing or not the policy that the root names", policyName(d)))
	}
	return b, nil
}

func policyName(d artifact.Digest) string {
	return policiesDir + "/" + strings.TrimPrefix(string(d), "sha256:") + ".yaml"
}

// KeepPolicy puts a policy where the root finds it by its digest. It is in
// force only when the root names it.
func (s *Site) KeepPolicy(b []byte) (d artifact.Digest, err error) {
	d = artifact.Sum(b)
	name := filepath.Join(s.Dir, policyName(d))
	f, err := os.OpenFile(name+".tmp", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return d, err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return d, err
	}
	if err := os.Rename(name+".tmp", name); err != nil {
		return d, err
	}
	dir, err := os.Open(filepath.Dir(name))
	if err != nil {
		return d, err
	}
	return d, errors.Join(dir.Sync(), dir.Close())
}

// Close releases everything.
func (s *Site) Close() (err error) {
	if s.Quarantine != nil {
		err = errors.Join(err, s.Quarantine.Close())
	}
	if s.Held != nil {
		err = errors.Join(err, s.Held.Close())
	}
	if s.State != nil {
		err = errors.Join(err, s.State.Close())
	}
	if s.Ledger != nil {
		err = errors.Join(err, s.Ledger.Close())
	}
	if s.lock != nil {
		err = errors.Join(err, s.lock.Close())
	}
	return err
}

// Now returns the time by the site's clock, in UTC and whole seconds.
func (s *Site) Now() time.Time { return s.now().UTC().Truncate(time.Second) }

// Log returns the site's logger.
func (s *Site) Log() *slog.Logger { return s.log }

// AgeIdentity loads the key that opens what was sealed for this site.
func (s *Site) AgeIdentity(passphrase func() (string, error)) (age.Identity, error) {
	b, err := os.ReadFile(filepath.Join(s.Dir, ageKey))
	if err != nil {
		return nil, err
	}
	if b, err = trust.Unprotect(b, passphrase); err != nil {
		return nil, err
	}
	return age.ParseHybridIdentity(strings.TrimSpace(string(b)))
}

// Path returns the path of something in the site's directory.
func (s *Site) Path(name string) string { return filepath.Join(s.Dir, name) }

// Require refuses a verb that belongs to the other side.
func (s *Site) Require(side string) error {
	if s.Identity.Side == side {
		return nil
	}
	return fail.As(fail.Usage, "name the other site with -C", fmt.Errorf("%s is a %s site; this is for a %s site", s.Identity.Name, s.Identity.Side, side))
}
