package tuf

import (
	"bytes"
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/sigstore/sigstore/pkg/signature"
	"github.com/theupdateframework/go-tuf/v2/metadata"

	"enisle/internal/fail"
)

// Publication says what a repository is to hold from now on.
type Publication struct {
	Repository string          // directory with metadata/ and targets/; made if it is not there
	Targets    string          // directory whose files are published
	Keys       []crypto.Signer // of all roles from now on
	Old        []crypto.Signer // those that hold the roles now, where they change
	Threshold  int             // how many of Keys must sign; kept unless it is given
	Lasts      time.Duration   // until the metadata expires
	Now        time.Time
}

// Published says what came of it.
type Published struct {
	Root    int64 `json:"root"`    // versions
	Version int64 `json:"version"` // of everything else
	Targets int   `json:"targets"`
}

// Publish writes the next version of a repository with consistent snapshots. All
// roles have the same keys: it is for few files that people sign, not for machines
// that are online. Files are written before the metadata that names them, and the
// timestamp last: whoever reads meanwhile sees the version before.
func Publish(ctx context.Context, p Publication) (out Published, err error) {
	for _, d := range []string{"metadata", "targets"} {
		if err := os.MkdirAll(filepath.Join(p.Repository, d), 0o755); err != nil {
			return out, err
		}
	}
	if out.Version, err = p.last(); err != nil {
		return out, err
	}
	out.Version++
	if out.Root, err = p.root(); err != nil {
		return out, err
	}
	expires := p.expires()
	targets := metadata.Targets(expires)
	targets.Signed.Version = out.Version
	if out.Targets, err = p.files(ctx, targets); err != nil {
		return out, err
	}
	snapshot := metadata.Snapshot(expires)
	snapshot.Signed.Version = out.Version
	snapshot.Signed.Meta["targets.json"] = metadata.MetaFile(out.Version)
	timestamp := metadata.Timestamp(expires)
	timestamp.Signed.Version = out.Version
	timestamp.Signed.Meta["snapshot.json"] = metadata.MetaFile(out.Version)
	if err := write(p, targets, fmt.Sprintf("%d.targets.json", out.Version), p.Keys); err != nil {
		return out, err
	}
	if err := write(p, snapshot, fmt.Sprintf("%d.snapshot.json", out.Version), p.Keys); err != nil {
		return out, err
	}
	return out, write(p, timestamp, "timestamp.json", p.Keys)
}

// expires is in whole seconds: the specification has no others.
func (p Publication) expires() time.Time { return p.Now.Add(p.Lasts).UTC().Truncate(time.Second) }

// last returns the version that stands there, 0 if none does.
func (p Publication) last() (int64, error) {
	b, err := os.ReadFile(filepath.Join(p.Repository, "metadata", "timestamp.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	t, err := metadata.Timestamp().FromBytes(b)
	if err != nil {
		return 0, fail.Refuse("name another directory", fmt.Errorf("tuf: timestamp.json: %w", err))
	}
	return t.Signed.Version, nil
}

// root writes the next version of the root where keys, threshold or expiry want
// one, and returns the version in force.
func (p Publication) root() (int64, error) {
	old, err := p.lastRoot()
	if err != nil {
		return 0, err
	}
	next := metadata.Root(p.expires())
	next.Signed.ConsistentSnapshot = true
	threshold, signers := p.Threshold, p.Keys
	if old != nil {
		next.Signed.Version = old.Signed.Version + 1
		if threshold == 0 {
			threshold = old.Signed.Roles[metadata.ROOT].Threshold
		}
		signers = union(p.Keys, p.Old)
	}
	threshold = max(1, threshold)
	if threshold > len(p.Keys) {
		return 0, fail.As(fail.Usage, "give more keys, or a lower --threshold", fmt.Errorf("%d keys cannot give %d signatures", len(p.Keys), threshold))
	}
	for _, role := range []string{metadata.ROOT, metadata.TARGETS, metadata.SNAPSHOT, metadata.TIMESTAMP} {
		for _, k := range p.Keys {
			key, err := keyOf(k.Public())
			if err == nil {
				err = next.Signed.AddKey(key, role)
			}
			if err != nil {
				return 0, err
			}
		}
		next.Signed.Roles[role].Threshold = threshold
	}
	if err := sign(next, signers); err != nil {
		return 0, err
	}
	// Whoever trusts the root before must be able to follow.
	if old != nil {
		if err := old.VerifyDelegate(metadata.ROOT, next); err != nil {
			return 0, fail.Refuse("give the keys that hold the root now with --old-key", fmt.Errorf("tuf: the next root: %w", err))
		}
	}
	return next.Signed.Version, save(p, next, fmt.Sprintf("%d.root.json", next.Signed.Version))
}

// lastRoot returns the newest root that stands there, nil if none does.
func (p Publication) lastRoot() (last *metadata.Metadata[metadata.RootType], err error) {
	for n := int64(1); ; n++ {
		b, err := os.ReadFile(filepath.Join(p.Repository, "metadata", fmt.Sprintf("%d.root.json", n)))
		if errors.Is(err, fs.ErrNotExist) {
			return last, nil
		}
		if err != nil {
			return nil, err
		}
		r, err := metadata.Root().FromBytes(b)
		if err != nil || r.Signed.Version != n {
			return nil, fail.Refuse("name another directory", errors.Join(fmt.Errorf("tuf: %d.root.json is not what its name says", n), err))
		}
		last = r
	}
}

func union(a, b []crypto.Signer) (out []crypto.Signer) {
	seen := map[string]bool{}
	for _, k := range append(append([]crypto.Signer{}, a...), b...) {
		key, err := keyOf(k.Public())
		if err != nil || seen[key.Value.PublicKey] {
			continue
		}
		seen[key.Value.PublicKey] = true
		out = append(out, k)
	}
	return out
}

// files copies what is published and lists it in targets.
func (p Publication) files(ctx context.Context, targets *metadata.Metadata[metadata.TargetsType]) (n int, err error) {
	err = filepath.WalkDir(p.Targets, func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if !d.Type().IsRegular() {
			return fail.Refuse("remove it", fmt.Errorf("%s is neither a file nor a directory", d.Name()))
		}
		rel, err := filepath.Rel(p.Targets, at)
		if err != nil {
			return err
		}
		name := filepath.ToSlash(rel)
		b, err := os.ReadFile(at)
		if err != nil {
			return err
		}
		info, err := metadata.TargetFile().FromBytes(name, b, "sha256")
		if err != nil {
			return err
		}
		targets.Signed.Targets[name] = info
		sum := sha256.Sum256(b)
		to := filepath.Join(p.Repository, "targets", filepath.Dir(rel), hex.EncodeToString(sum[:])+"."+filepath.Base(rel))
		n++
		return errors.Join(os.MkdirAll(filepath.Dir(to), 0o755), writeWhole(to, b))
	})
	return n, err
}

func write[T metadata.Roles](p Publication, m *metadata.Metadata[T], name string, keys []crypto.Signer) error {
	if err := sign(m, keys); err != nil {
		return err
	}
	return save(p, m, name)
}

func save[T metadata.Roles](p Publication, m *metadata.Metadata[T], name string) error {
	b, err := m.ToBytes(false)
	if err != nil {
		return err
	}
	return writeWhole(filepath.Join(p.Repository, "metadata", name), b)
}

func writeWhole(name string, b []byte) error {
	f, err := os.CreateTemp(filepath.Dir(name), ".partial-")
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err == nil {
		err = errors.Join(f.Chmod(0o644), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return os.Rename(f.Name(), name)
}

func sign[T metadata.Roles](m *metadata.Metadata[T], keys []crypto.Signer) error {
	for _, k := range keys {
		key, err := keyOf(k.Public())
		if err == nil {
			_, err = m.Sign(signer{k})
		}
		if err != nil {
			return fmt.Errorf("tuf: sign: %w", err)
		}
		// go-tuf names every ECDSA key as one of P-256.
		if m.Signatures[len(m.Signatures)-1].KeyID, err = key.ID(); err != nil {
			return fmt.Errorf("tuf: sign: %w", err)
		}
	}
	return nil
}

// keyOf returns a key as roots list it, under the scheme that it signs with.
func keyOf(public crypto.PublicKey) (*metadata.Key, error) {
	key, err := metadata.KeyFromPublicKey(public)
	if p, ok := public.(*ecdsa.PublicKey); ok && err == nil && p.Curve == elliptic.P384() {
		key.Scheme = metadata.KeySchemeECDSA_SHA2_P384
	}
	return key, err
}

// signer signs as the schemes ed25519 and ecdsa-sha2-nistp384 say.
type signer struct{ crypto.Signer }

// PublicKey returns the public half.
func (s signer) PublicKey(...signature.PublicKeyOption) (crypto.PublicKey, error) {
	return s.Public(), nil
}

// SignMessage signs all that r holds.
func (s signer) SignMessage(r io.Reader, _ ...signature.SignOption) ([]byte, error) {
	var b bytes.Buffer
	if _, err := b.ReadFrom(r); err != nil {
		return nil, err
	}
	if _, ok := s.Public().(*ecdsa.PublicKey); ok {
		sum := sha512.Sum384(b.Bytes())
		return s.Sign(rand.Reader, sum[:], crypto.SHA384)
	}
	return s.Sign(rand.Reader, b.Bytes(), crypto.Hash(0))
}
