// Package artifact holds the nouns every room shares: digests, references,
// files, artifacts and where they came from.
//
// It knows nothing of storage, ecosystems or signatures. Everything here is
// plain data with strict parsing, because most of it is read from media.
package artifact

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"
	"unicode/utf8"
)

// Digest names a blob by its content: "sha256:" and 64 lower-case hex digits.
type Digest string

const digestPrefix = "sha256:"

// ParseDigest returns s as a Digest, or an error if it has any other shape.
func ParseDigest(s string) (Digest, error) {
	h, ok := strings.CutPrefix(s, digestPrefix)
	if !ok || len(h) != 2*sha256.Size || strings.ToLower(h) != h {
		return "", fmt.Errorf("digest %q: want sha256: and 64 lower-case hex digits", clip(s))
	}
	if _, err := hex.DecodeString(h); err != nil {
		return "", fmt.Errorf("digest %q: %w", clip(s), err)
	}
	return Digest(s), nil
}

// Sum returns the digest of b.
func Sum(b []byte) Digest { return FromSum(sha256.Sum256(b)) }

// FromSum returns the digest whose SHA-256 is sum.
func FromSum(sum [sha256.Size]byte) Digest {
	return Digest(digestPrefix + hex.EncodeToString(sum[:]))
}

// Hex returns the 64 hex digits.
func (d Digest) Hex() string { return strings.TrimPrefix(string(d), digestPrefix) }

// Short returns the first twelve hex digits, for people.
func (d Digest) Short() string { return d.Hex()[:min(12, len(d.Hex()))] }

// Bytes returns the 32 bytes of the digest; d must come from this package.
func (d Digest) Bytes() (sum [sha256.Size]byte) {
	_, _ = hex.Decode(sum[:], []byte(d.Hex())) // ParseDigest has checked every digit
	return sum
}

// Ref names an artifact: kind "pypi", name "requests", version "2.32.5" print
// as pypi/requests@2.32.5. A name may hold slashes and a leading @ in a part
// (npm scopes); a version holds neither slash nor @. Plain files have no
// version.
type Ref struct {
	Kind, Name, Version string
}

// String returns kind/name@version, or kind/name without a version.
func (r Ref) String() string {
	if r.Version == "" {
		return r.Kind + "/" + r.Name
	}
	return r.Kind + "/" + r.Name + "@" + r.Version
}

// ParseRef reads what Ref.String writes.
func ParseRef(s string) (Ref, error) {
	kind, rest, ok := strings.Cut(s, "/")
	if !ok || kind == "" || rest == "" {
		return Ref{}, fmt.Errorf("reference %q: want KIND/NAME@VERSION", clip(s))
	}
	name, version := rest, ""
	if i := strings.LastIndex(rest, "@"); i > 0 && rest[i-1] != '/' {
		name, version = rest[:i], rest[i+1:]
		if version == "" {
			return Ref{}, fmt.Errorf("reference %q: the version after @ is empty", clip(s))
		}
	}
	r := Ref{kind, name, version}
	return r, r.Check()
}

// Check refuses references that could not be printed, filed or parsed again.
func (r Ref) Check() error {
	if err := CheckPath(r.Kind + "/" + r.Name); err != nil || strings.Contains(r.Kind, "/") {
		return fmt.Errorf("reference %q: kind or name is not a clean path", clip(r.String()))
	}
	if strings.ContainsAny(r.Version, "/@\\") || !printable(r.Version) {
		return fmt.Errorf("reference %q: version holds a character it may not", clip(r.String()))
	}
	return nil
}

// File is one file of an artifact.
type File struct {
	Path      string            `json:"path"`             // relative, slash separated, clean
	Size      int64             `json:"size"`             // bytes; -1 until it is fetched, where the origin did not say
	Digest    Digest            `json:"digest"`           // SHA-256 of the content
	Hashes    map[string]string `json:"hashes,omitempty"` // further hashes the origin stated: algorithm → hex
	Origin    string            `json:"origin,omitempty"` // where it was fetched from, without credentials
	Published time.Time         `json:"published,omitzero"`
}

// Artifact is one versioned thing with files.
type Artifact struct {
	Ref  Ref    `json:"-"`
	Name string `json:"ref"` // Ref.String(); kept beside Ref so that JSON reads as people write
	// Files are ordered by Path; no two are equal when case is folded.
	Files []File `json:"files"`
	// By is the client and version that resolved it, e.g. "pip 24.0".
	By string `json:"by,omitempty"`
	// Index is the address of the index or registry that it was resolved with, without
	// credentials, where that is not plain from the origins of its files.
	Index string `json:"index,omitempty"`
	// From is set when the artifact was taken out of another: "pypi/x@1!member".
	From string `json:"from,omitempty"`
	// Manifest is the digest of the artifact's OCI manifest once it is stored.
	Manifest Digest `json:"manifest,omitempty"`
}

// Size returns the sum of the sizes of the files, in bytes.
func (a Artifact) Size() (n int64) {
	for _, f := range a.Files {
		n += f.Size
	}
	return n
}

// Check refuses an artifact whose reference or file names are not clean, or in
// which two names differ only in case.
func (a Artifact) Check() error {
	if err := a.Ref.Check(); err != nil {
		return err
	}
	seen := make(map[string]string, len(a.Files))
	for _, f := range a.Files {
		if err := CheckPath(f.Path); err != nil {
			return fmt.Errorf("%s: %w", a.Ref, err)
		}
		fold := strings.ToLower(f.Path)
		if other, ok := seen[fold]; ok {
			return fmt.Errorf("%s: files %q and %q are one name on some file systems", a.Ref, other, f.Path)
		}
		seen[fold] = f.Path
		if f.Size < -1 {
			return fmt.Errorf("%s: file %q has a negative size", a.Ref, f.Path)
		}
	}
	return nil
}

// maxPath is the longest path accepted, in bytes; PATH_MAX of Linux is 4096.
const maxPath = 1024

// CheckPath refuses every path that is not relative, clean, printable UTF-8
// with forward slashes: no "..", no leading slash, no drive, no backslash, no
// control character, at most 1024 bytes.
func CheckPath(p string) error {
	switch {
	case p == "" || len(p) > maxPath:
		return fmt.Errorf("path %q: empty or longer than %d bytes", clip(p), maxPath)
	case !printable(p) || strings.ContainsAny(p, "\\:"):
		return fmt.Errorf("path %q: holds a character that is not allowed", clip(p))
	case strings.HasPrefix(p, "/"):
		return fmt.Errorf("path %q: is absolute", clip(p))
	case path.Clean(p) != p || p == "." || p == ".." || strings.HasPrefix(p, "../"):
		return fmt.Errorf("path %q: leaves its directory or is not clean", clip(p))
	}
	return nil
}

// ErrNotHeld says that a blob or artifact is not in the store.
var ErrNotHeld = errors.New("not held")

func printable(s string) bool {
	if !utf8.ValidString(s) {
		return false
	}
	for _, r := range s {
		if r < 0x20 || r == 0x7f || (r >= 0x80 && r < 0xa0) || r == 0x2028 || r == 0x2029 ||
			(r >= 0x200b && r <= 0x200f) || (r >= 0x202a && r <= 0x202e) || (r >= 0x2060 && r <= 0x206f) || r == 0xfeff {
			return false
		}
	}
	return true
}

func clip(s string) string {
	if len(s) > 80 {
		return s[:80] + "…"
	}
	return s
}
