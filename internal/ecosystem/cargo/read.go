package cargo

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/pelletier/go-toml/v2"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/fail"
)

// Limits, in bytes.
const (
	maxLock  = 64 << 20 // of a lock file
	maxIndex = 64 << 20 // of what the index says of one crate; the largest known is below 2 MiB
	maxLine  = 1 << 20  // of what it says of one version
)

// locked is one package of a lock file.
type locked struct {
	Name     string `toml:"name"`
	Version  string `toml:"version"`
	Source   string `toml:"source"`
	Checksum string `toml:"checksum"`
}

func readLock(name string) ([]locked, error) {
	b, err := readFile(name, maxLock)
	if err != nil {
		return nil, fail.As(fail.Usage, "paths in a request start where it lies", err)
	}
	var lock struct {
		Package []locked `toml:"package"`
	}
	if err := toml.Unmarshal(b, &lock); err != nil {
		return nil, fail.Refuse("run 'cargo generate-lockfile' where it lies", fmt.Errorf("no lock file: %w", err))
	}
	return lock.Package, nil
}

// check refuses what no registry can serve.
func (p locked) check() error {
	if !nameForm.MatchString(p.Name) || !versionForm.MatchString(p.Version) {
		return fail.Refuse("run 'cargo generate-lockfile' where it lies", fmt.Errorf("%.80q %.80q is no version of a crate", p.Name, p.Version))
	}
	if !strings.HasPrefix(p.Source, "registry+") && !strings.HasPrefix(p.Source, "sparse+") {
		kind, _, _ := strings.Cut(p.Source, "+")
		return fail.Refuse("publish it in a registry, or vendor it with 'cargo vendor' and bring the directory under 'files:'",
			fmt.Errorf("%s %s comes from a source of the kind %.20q, which no mirror serves", p.Name, p.Version, kind))
	}
	if _, err := artifact.ParseDigest("sha256:" + p.Checksum); err != nil {
		return fail.Refuse("run 'cargo generate-lockfile' where it lies", fmt.Errorf("%s %s has no checksum", p.Name, p.Version))
	}
	return nil
}

// line is what the index says of one version, as far as it matters here.
type line struct {
	Name     string    `json:"name"`
	Version  string    `json:"vers"`
	Checksum string    `json:"cksum"`
	Pubtime  time.Time `json:"pubtime"`
}

// read turns what cargo fetched into artifacts: each crate with its line of the
// index.
func (r *resolving) read() ([]artifact.Artifact, error) {
	found := map[artifact.Ref]artifact.Artifact{}
	crates, err := filepath.Glob(filepath.Join(r.home, "registry", "cache", "*", "*.crate"))
	if err != nil {
		return nil, err
	}
	left := map[string]bool{}
	for _, at := range crates {
		left[at] = true
	}
	if err := r.readIndexes(found, left); err != nil {
		return nil, err
	}
	for at := range left {
		return nil, fail.As(fail.Failed, "use another version of cargo", fmt.Errorf("what the index says of %s was not found", filepath.Base(at)))
	}
	for _, p := range r.locked {
		a, ok := found[artifact.Ref{Kind: Kind, Name: p.Name, Version: p.Version}]
		if !ok {
			return nil, fail.As(fail.Failed, "put the project's Cargo.toml beside the lock file", fmt.Errorf("cargo did not fetch %s %s", p.Name, p.Version))
		}
		if got := a.Files[0].Digest.Hex(); got != p.Checksum {
			return nil, fail.Refuse("find out who changed it: the lock file or the registry", fmt.Errorf("%s %s is %s and not what the lock file says", p.Name, p.Version, got))
		}
	}
	var out []artifact.Artifact
	for _, a := range found {
		out = append(out, a)
	}
	slices.SortFunc(out, func(a, b artifact.Artifact) int { return strings.Compare(a.Ref.String(), b.Ref.String()) })
	return out, nil
}

// readIndexes reads every registry's index as cargo keeps it, and takes from left
// the crates that it finds there.
func (r *resolving) readIndexes(found map[artifact.Ref]artifact.Artifact, left map[string]bool) error {
	root := filepath.Join(r.home, "registry", "index")
	return filepath.WalkDir(root, func(at string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && at == root {
			return fail.As(fail.Failed, "let cargo replace its registry by another registry, not by a directory", errors.New("cargo asked no registry"))
		}
		rel := strings.TrimPrefix(at, root+string(filepath.Separator))
		registry, rest, _ := strings.Cut(filepath.ToSlash(rel), "/")
		if err != nil || !d.Type().IsRegular() || !strings.HasPrefix(rest, ".cache/") {
			return err
		}
		b, err := readFile(at, maxIndex)
		if err != nil {
			return err
		}
		dl, index := r.downloads(filepath.Join(root, registry)), indexOf(root, registry)
		for _, text := range lines(b) {
			crate, err := parseLine(text)
			if err != nil {
				continue // cargo does not take it either
			}
			held := filepath.Join(r.home, "registry", "cache", registry, crate.Name+"-"+crate.Version+".crate")
			if !left[held] {
				continue
			}
			delete(left, held)
			if err := r.add(found, crate, held, text, dl, index); err != nil {
				return err
			}
		}
		return nil
	})
}

func (r *resolving) add(found map[artifact.Ref]artifact.Artifact, crate line, held string, text []byte, dl, from string) error {
	a := artifact.Artifact{Ref: artifact.Ref{Kind: Kind, Name: crate.Name, Version: crate.Version}, By: r.by, Index: from}
	if _, ok := found[a.Ref]; ok {
		return fail.Refuse("bring one of them", fmt.Errorf("two registries have a %s %s", crate.Name, crate.Version))
	}
	index := filepath.Join(r.want.Work, crate.Name+"-"+crate.Version+".json")
	if err := os.WriteFile(index, text, 0o600); err != nil {
		return err
	}
	from = origin(dl, crate)
	a.Files = []artifact.File{
		{Path: filepath.Base(held), Size: -1, Digest: artifact.Digest("sha256:" + crate.Checksum), Origin: r.made(held, from), Published: crate.Pubtime.UTC().Truncate(time.Second)},
		{Path: indexFile, Size: -1, Origin: r.made(index, from)},
	}
	if crate.Pubtime.IsZero() {
		a.Files[0].Published = time.Time{}
	}
	found[a.Ref] = a
	return nil
}

// indexOf is the address of a sparse index at the root of its host, by the directory
// that cargo keeps it in: HOST-HASH. Of others nothing but the host is known.
func indexOf(root, registry string) string {
	if _, err := os.Stat(filepath.Join(root, registry, ".git")); err == nil {
		return "" // of git: no client asks it for files
	}
	i := strings.LastIndex(registry, "-")
	if i < 0 {
		return ""
	}
	return fetch.Clean("https://" + registry[:i])
}

// indexFile is the file of an artifact that holds its line of the index.
const indexFile = "index.json"

func (r *resolving) made(at, from string) string {
	return ecosystem.Made(filepath.ToSlash(strings.TrimPrefix(at, r.want.Work+string(filepath.Separator))), from)
}

// downloads returns where a registry says that crates are; empty if it is not known.
func (r *resolving) downloads(registry string) string {
	b, err := readFile(filepath.Join(registry, "config.json"), maxLine)
	var c struct {
		DL string `json:"dl"`
	}
	if err != nil || json.Unmarshal(b, &c) != nil {
		return "" // provenance only
	}
	return c.DL
}

// origin fills in the markers that the address may have; without any, the usual end
// is meant (Cargo book, "Index Configuration").
func origin(dl string, c line) string {
	if dl == "" {
		return ""
	}
	if !strings.Contains(dl, "{") {
		dl += "/{crate}/{version}/download"
	}
	prefix := indexPrefix(c.Name)
	return fetch.Clean(strings.NewReplacer("{crate}", c.Name, "{version}", c.Version, "{prefix}", prefix,
		"{lowerprefix}", strings.ToLower(prefix), "{sha256-checksum}", c.Checksum).Replace(dl))
}

// lines takes apart what cargo keeps of the index of one crate: a head with the
// version of the form, then a version and its line in turn, each ended by a zero.
func lines(b []byte) (out [][]byte) {
	const form = 3 // cargo, src/cargo/sources/registry/index/cache.rs
	if len(b) < 5 || b[0] != form {
		return nil
	}
	parts := bytes.Split(b[5:], []byte{0})
	for i := 2; i < len(parts); i += 2 {
		out = append(out, parts[i])
	}
	return out
}

// parseLine reads a line of the index, and refuses what is not one line of one crate.
func parseLine(b []byte) (l line, err error) {
	if len(b) > maxLine || bytes.ContainsAny(b, "\r\n\x00") {
		return l, errors.New("no line of an index")
	}
	if err := json.Unmarshal(b, &l); err != nil {
		return l, err
	}
	if !nameForm.MatchString(l.Name) || !versionForm.MatchString(l.Version) {
		return l, errors.New("no version of a crate")
	}
	_, err = artifact.ParseDigest("sha256:" + l.Checksum)
	return l, err
}

func readFile(name string, limit int64) (_ []byte, err error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s is larger than %d bytes", filepath.Base(name), limit)
	}
	return b, err
}
