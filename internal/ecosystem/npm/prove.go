package npm

import (
	"cmp"
	"context"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
)

var _ ecosystem.Proving = (*Ecosystem)(nil)

// maxAnswer is the most that is read of the keys of a registry, and of what it says of
// one version, in bytes.
const maxAnswer = 16 << 20

// keyring is the keys by which a registry signs.
type keyring struct {
	keys map[string]*ecdsa.PublicKey // by their ids
	sum  artifact.Digest             // of the answer
}

// signature is one over a version, and the key that it counts by.
type signature struct {
	of   artifact.Artifact
	key  *ecdsa.PublicKey
	line string // NAME@VERSION:INTEGRITY SIGNATURE
}

// Prove asks each registry for its keys, and for its signatures over the versions that
// were resolved, which are over the sha512 that every tarball is held against.
func (e *Ecosystem) Prove(ctx context.Context, _ ecosystem.Want, found ecosystem.Found) (out []ecosystem.Proof, err error) {
	rings := map[string]keyring{}
	failed := map[string]error{}
	signed, errs := make([]signature, len(found.Artifacts)), make([]error, len(found.Artifacts))
	var g errgroup.Group
	g.SetLimit(atOnce)
	for i, a := range found.Artifacts {
		base, ok := registryOf(a)
		if !ok || e.Index == nil {
			errs[i] = errors.New("its address does not tell its registry")
			continue
		}
		ring, asked := rings[base]
		if !asked && failed[base] == nil {
			ring, failed[base] = e.keys(ctx, base, found.At)
			rings[base] = ring
		}
		if errs[i] = failed[base]; errs[i] != nil {
			continue
		}
		g.Go(func() error {
			signed[i], errs[i] = e.signature(ctx, base, a, ring)
			return nil
		})
	}
	_ = g.Wait() // the errors are those of each
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	byKey := map[string][]signature{} // registry and key
	for i, a := range found.Artifacts {
		if errs[i] != nil {
			out = append(out, ecosystem.Proof{Why: errs[i].Error(), Covers: []artifact.Artifact{a}})
			continue
		}
		name, err := nameOf(signed[i].key)
		if err != nil {
			return nil, err
		}
		base, _ := registryOf(a)
		byKey[base+"\n"+name] = append(byKey[base+"\n"+name], signed[i])
	}
	for at, all := range byKey {
		base, name, _ := strings.Cut(at, "\n")
		p, err := proof(base, name, rings[base], all)
		if err != nil {
			return nil, err
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b ecosystem.Proof) int {
		return cmp.Compare(a.Document+string(a.Digest), b.Document+string(b.Digest))
	})
	return out, nil
}

// proof is about all versions that a key of a registry signed: the document is their
// signatures, a line each.
func proof(base, name string, ring keyring, all []signature) (p ecosystem.Proof, err error) {
	u, err := url.Parse(base)
	if err != nil {
		return p, err
	}
	at := strings.ReplaceAll(u.Host+u.Path, ":", "_")
	slices.SortFunc(all, func(a, b signature) int { return cmp.Compare(a.line, b.line) })
	var lines strings.Builder
	for _, s := range all {
		lines.WriteString(s.line + "\n")
		p.Covers = append(p.Covers, s.of)
	}
	p.Format, p.Keys, p.Trust = "npm", []string{name}, ring.sum
	p.Document, p.Digest = at+"/signatures", artifact.Sum([]byte(lines.String()))
	p.Through = []artifact.File{{Path: at + keysPath, Digest: ring.sum}}
	return p, artifact.CheckPath(p.Document)
}

const keysPath = "/-/npm/v1/keys"

// registryOf is the address of the registry that an artifact came from.
func registryOf(a artifact.Artifact) (string, bool) {
	if len(a.Files) != 1 {
		return "", false
	}
	base, _, ok := strings.Cut(a.Files[0].Origin, "/"+a.Ref.Name+"/-/")
	return base, ok
}

// keys are those that a registry signs by at a time.
func (e *Ecosystem) keys(ctx context.Context, base string, at time.Time) (ring keyring, err error) {
	b, err := e.Index.GetJSON(ctx, base+keysPath, "application/json", maxAnswer)
	if err != nil {
		return ring, fmt.Errorf("its registry gives no keys: %w", err)
	}
	var doc struct {
		Keys []struct {
			KeyID   string     `json:"keyid"`
			Expires *time.Time `json:"expires"`
			KeyType string     `json:"keytype"`
			Key     []byte     `json:"key"`
		} `json:"keys"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return ring, errors.New("its registry gives no keys that can be read")
	}
	ring = keyring{map[string]*ecdsa.PublicKey{}, artifact.Sum(b)}
	for _, k := range doc.Keys {
		parsed, err := x509.ParsePKIXPublicKey(k.Key)
		key, ok := parsed.(*ecdsa.PublicKey)
		if err != nil || !ok || k.KeyType != "ecdsa-sha2-nistp256" || k.Expires != nil && k.Expires.Before(at) {
			continue
		}
		ring.keys[k.KeyID] = key
	}
	if len(ring.keys) == 0 {
		return ring, errors.New("its registry gives no key that counts")
	}
	return ring, nil
}

// nameOf is how rules name a key: what it is, not what its registry calls it.
func nameOf(key *ecdsa.PublicKey) (string, error) {
	der, err := x509.MarshalPKIXPublicKey(key)
	return string(artifact.Sum(der)), err
}

// signature finds one by a key of the registry over the name, the version and the hash
// that were resolved.
func (e *Ecosystem) signature(ctx context.Context, base string, a artifact.Artifact, ring keyring) (s signature, err error) {
	b, err := e.Index.GetJSON(ctx, base+"/"+strings.Replace(a.Ref.Name, "/", "%2f", 1)+"/"+url.PathEscape(a.Ref.Version), "application/json", maxAnswer)
	if err != nil {
		return s, fmt.Errorf("its registry says nothing of it: %w", err)
	}
	var doc struct {
		Dist struct {
			Signatures []struct {
				KeyID string `json:"keyid"`
				Sig   []byte `json:"sig"`
			} `json:"signatures"`
		} `json:"dist"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return s, errors.New("what its registry says of it cannot be read")
	}
	raw, err := hex.DecodeString(a.Files[0].Hashes["sha512"])
	if err != nil || len(raw) == 0 {
		return s, errors.New("it has no sha512")
	}
	text := a.Ref.Name + "@" + a.Ref.Version + ":sha512-" + base64.StdEncoding.EncodeToString(raw)
	sum := sha256.Sum256([]byte(text))
	for _, one := range doc.Dist.Signatures {
		if key := ring.keys[one.KeyID]; key != nil && ecdsa.VerifyASN1(key, sum[:], one.Sig) {
			return signature{a, key, text + " " + base64.StdEncoding.EncodeToString(one.Sig)}, nil
		}
	}
	return s, errors.New("no key of its registry that counts signed it")
}
