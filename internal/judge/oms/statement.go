package oms

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/crypto/blake2b"
)

// Resource is one signed file, or with the method of shards one piece of it.
type Resource struct {
	Name      string `json:"name"` // path, slash separated; "path:begin:end" of a shard
	Algorithm string `json:"algorithm"`
	Digest    string `json:"digest"` // hex
}

// Statement is what is signed.
type Statement struct {
	Name      string // of the model
	Resources []Resource
	Method    string // files or shards
	HashType  string
	ShardSize int64    // bytes; of shards
	Symlinks  bool     // links were followed when it was signed
	Ignored   []string // paths that the signer left out: they are not signed
}

type statementFile struct {
	Type    string `json:"_type"`
	Subject []struct {
		Name        string            `json:"name"`
		Digest      map[string]string `json:"digest"`
		Annotations map[string]string `json:"annotations,omitempty"`
	} `json:"subject"`
	PredicateType string          `json:"predicateType"`
	Predicate     json.RawMessage `json:"predicate"`
}

type predicateFile struct {
	Resources     []Resource `json:"resources"`
	Serialization struct {
		Method    string   `json:"method"`
		HashType  string   `json:"hash_type"`
		Symlinks  bool     `json:"allow_symlinks"`
		ShardSize int64    `json:"shard_size,omitempty"`
		Ignored   []string `json:"ignore_paths,omitempty"`
	} `json:"serialization"`
}

// parseStatement reads the payload; old says that it is of version 0.2.
func parseStatement(payload []byte) (st Statement, old bool, err error) {
	var f statementFile
	if err := strictJSON(payload, &f); err != nil {
		return st, false, fmt.Errorf("statement: %w", err)
	}
	if f.Type != statementType {
		return st, false, fmt.Errorf("statement: type %.80q is not known", f.Type)
	}
	switch f.PredicateType {
	case oldPredicate:
		st, err = oldStatement(f)
		return st, true, err
	case predicateType:
	default:
		return st, false, fmt.Errorf("statement: predicate %.80q is not known", f.PredicateType)
	}
	var p predicateFile
	if err := strictJSON(f.Predicate, &p); err != nil {
		return st, false, fmt.Errorf("statement: predicate: %w", err)
	}
	s := p.Serialization
	st = Statement{Resources: p.Resources, Method: s.Method, HashType: s.HashType, ShardSize: s.ShardSize, Symlinks: s.Symlinks, Ignored: s.Ignored}
	if len(f.Subject) != 1 {
		return st, false, fmt.Errorf("statement: it has %d subjects, want one", len(f.Subject))
	}
	st.Name = f.Subject[0].Name
	if err := st.check(); err != nil {
		return st, false, fmt.Errorf("statement: %w", err)
	}
	root, err := st.root()
	if err == nil && subtle.ConstantTimeCompare([]byte(root), []byte(f.Subject[0].Digest["sha256"])) != 1 {
		err = errors.New("statement: its subject is not the sum of its resources")
	}
	return st, false, err
}

// oldStatement is that of version 0.2: the files are its subjects.
func oldStatement(f statementFile) (Statement, error) {
	st := Statement{Method: "files", HashType: "sha256"}
	for _, s := range f.Subject {
		st.Resources = append(st.Resources, Resource{s.Name, "sha256", s.Digest["sha256"]})
	}
	return st, st.check()
}

const maxResources = 1_000_000

func (st Statement) check() error {
	if n := len(st.Resources); n == 0 || n > maxResources {
		return fmt.Errorf("it has %d resources", n)
	}
	if st.Method != "files" && st.Method != "shards" {
		return fmt.Errorf("the method %.40q is not known", st.Method)
	}
	if st.Method == "shards" && st.ShardSize < 1 {
		return errors.New("shards have no size")
	}
	seen := map[string]bool{}
	for _, r := range st.Resources {
		if seen[r.Name] || r.Name == "" {
			return fmt.Errorf("resource %.80q stands twice, or has no name", r.Name)
		}
		seen[r.Name] = true
		name, _, _, err := st.span(r)
		if err != nil {
			return err
		}
		if name != "." && !fs.ValidPath(name) {
			return fmt.Errorf("resource %.80q: no path inside of a model", r.Name)
		}
		if b, err := hex.DecodeString(r.Digest); err != nil || len(b) < 32 {
			return fmt.Errorf("resource %.80q: its digest is none", r.Name)
		}
		if _, err := newHash(r.Algorithm); err != nil {
			return fmt.Errorf("resource %.80q: %w", r.Name, err)
		}
	}
	return nil
}

// span splits the name of a shard into path and bytes; of a file the end is −1.
func (st Statement) span(r Resource) (name string, begin, end int64, err error) {
	if st.Method != "shards" {
		return r.Name, 0, -1, nil
	}
	j := strings.LastIndexByte(r.Name, ':')
	i := strings.LastIndexByte(r.Name[:max(0, j)], ':')
	if i < 1 {
		return "", 0, 0, fmt.Errorf("resource %.80q: no shard", r.Name)
	}
	begin, e1 := strconv.ParseInt(r.Name[i+1:j], 10, 64)
	end, e2 := strconv.ParseInt(r.Name[j+1:], 10, 64)
	if e1 != nil || e2 != nil || begin < 0 || end <= begin || end-begin > st.ShardSize {
		return "", 0, 0, fmt.Errorf("resource %.80q: no shard", r.Name)
	}
	return r.Name[:i], begin, end, nil
}

// newHash returns the hash that a resource names.
func newHash(algorithm string) (hash.Hash, error) {
	base, _, _ := strings.Cut(algorithm, "-")
	switch base {
	case "sha256":
		return sha256.New(), nil
	case "blake2b":
		return blake2b.New512(nil)
	case "file", "shard": // file-sha256, as some versions write it
		_, rest, _ := strings.Cut(algorithm, "-")
		return newHash(rest)
	}
	return nil, fmt.Errorf("the hash %.40q is not known", algorithm)
}

// root is the sum over the digests of all resources, in their order.
func (st Statement) root() (string, error) {
	h := sha256.New()
	for _, r := range st.Resources {
		b, err := hex.DecodeString(r.Digest)
		if err != nil {
			return "", err
		}
		h.Write(b)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (st Statement) encode() ([]byte, error) {
	root, err := st.root()
	if err != nil {
		return nil, err
	}
	if err := st.check(); err != nil {
		return nil, err
	}
	var p predicateFile
	p.Resources = st.Resources
	p.Serialization.Method, p.Serialization.HashType, p.Serialization.Ignored = st.Method, st.HashType, st.Ignored
	return json.MarshalIndent(map[string]any{
		"_type": statementType, "predicateType": predicateType, "predicate": p,
		"subject": []any{map[string]any{"name": st.Name, "digest": map[string]string{"sha256": root}}},
	}, "", "  ")
}

// Always are left out by every signer and verifier, at the top of a model.
func Always() []string { return []string{".git", ".gitattributes", ".github", ".gitignore"} }

// files lists the regular files of a model, but for those left out. A link or
// anything else is refused.
func files(model fs.FS, skip []string) (names []string, err error) {
	err = fs.WalkDir(model, ".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case slices.Contains(skip, name):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			return nil
		case !d.Type().IsRegular():
			return fmt.Errorf("%.120q is a link, a device or a pipe", name)
		}
		names = append(names, name)
		return nil
	})
	return names, err
}

// Describe hashes every file of a model, to be signed. skip are paths that are not
// signed, such as that of the signature.
func Describe(ctx context.Context, name string, model fs.FS, skip []string) (st Statement, err error) {
	st = Statement{Name: name, Method: "files", HashType: "sha256", Ignored: append(Always(), skip...)}
	all, err := files(model, st.Ignored)
	if err != nil {
		return st, err
	}
	slices.SortFunc(all, func(a, b string) int { return slices.Compare(strings.Split(a, "/"), strings.Split(b, "/")) })
	for _, f := range all {
		sum, _, err := hashFile(ctx, model, f, "sha256", 0, -1)
		if err != nil {
			return st, err
		}
		st.Resources = append(st.Resources, Resource{f, "sha256", sum})
	}
	return st, nil
}

// Hashed is a file of a store that names what it holds by its SHA-256: it is not read
// again to be compared as a whole.
type Hashed interface {
	// SHA256 is in hex.
	SHA256() string
}

func hashFile(ctx context.Context, model fs.FS, name, algorithm string, begin, end int64) (sum string, size int64, err error) {
	h, err := newHash(algorithm)
	if err != nil {
		return "", 0, err
	}
	f, err := model.Open(name)
	if err != nil {
		return "", 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return "", 0, errors.Join(fmt.Errorf("%.120q is no regular file", name), err)
	}
	if known, ok := f.(Hashed); ok && end < 0 && algorithm == "sha256" {
		return known.SHA256(), st.Size(), nil
	}
	var r io.Reader = f
	if end >= 0 {
		s, ok := f.(io.ReaderAt)
		if !ok || end > st.Size() {
			return "", 0, fmt.Errorf("%.120q is shorter than its shards", name)
		}
		r = io.NewSectionReader(s, begin, end-begin)
	}
	for {
		if err := ctx.Err(); err != nil {
			return "", 0, err
		}
		n, err := io.CopyN(h, r, 16<<20)
		size += n
		if errors.Is(err, io.EOF) {
			return hex.EncodeToString(h.Sum(nil)), st.Size(), nil
		}
		if err != nil {
			return "", 0, err
		}
	}
}

// Checked says what of a model its signature covers.
type Checked struct {
	Signed   []string `json:"signed"`   // files whose every byte is signed
	Unsigned []string `json:"unsigned"` // files beside them that nobody signed
	Ignored  []string `json:"ignored"`  // paths that the signer left out
}

// Check compares the files of a model with a verified statement. A file that is
// signed and is missing or another is refused; what is there and not signed is
// listed, to be left out.
func (st Statement) Check(ctx context.Context, model fs.FS, signature string) (out Checked, err error) {
	out = Checked{Signed: []string{}, Unsigned: []string{}, Ignored: st.Ignored}
	covered := map[string]int64{}
	sizes := map[string]int64{}
	shards := slices.Clone(st.Resources)
	if st.Method == "shards" {
		slices.SortFunc(shards, func(a, b Resource) int {
			an, ab, _, _ := st.span(a)
			bn, bb, _, _ := st.span(b)
			return cmp.Or(cmp.Compare(an, bn), cmp.Compare(ab, bb))
		})
	}
	for _, r := range shards {
		name, begin, end, err := st.span(r)
		if err != nil {
			return out, refuse(err)
		}
		if name == "." { // the model is one file
			if name, err = single(model, signature); err != nil {
				return out, refuse(err)
			}
		}
		sum, size, err := hashFile(ctx, model, name, r.Algorithm, begin, end)
		switch {
		case errors.Is(err, context.Canceled):
			return out, err
		case err != nil:
			return out, refuse(fmt.Errorf("%.120q: %w", name, err))
		case sum != strings.ToLower(r.Digest):
			return out, refuse(fmt.Errorf("%.120q is not what was signed", r.Name))
		case end >= 0 && covered[name] != begin:
			return out, refuse(fmt.Errorf("%.120q: its shards leave a gap", name))
		}
		sizes[name], covered[name] = size, max(end, 0)
		if end < 0 {
			covered[name] = size
		}
	}
	for name, size := range sizes {
		if covered[name] != size {
			return out, refuse(fmt.Errorf("%.120q: %d of %d bytes are signed", name, covered[name], size))
		}
		out.Signed = append(out.Signed, name)
	}
	all, err := files(model, append(Always(), signature))
	if err != nil {
		return out, refuse(err)
	}
	for _, f := range all {
		if _, ok := sizes[f]; !ok {
			out.Unsigned = append(out.Unsigned, f)
		}
	}
	slices.Sort(out.Signed)
	return out, nil
}

// single returns the one file of a model that is a file.
func single(model fs.FS, signature string) (string, error) {
	all, err := files(model, append(Always(), signature))
	if err == nil && len(all) != 1 {
		err = fmt.Errorf("the signature is of one file, and there are %d", len(all))
	}
	if err != nil {
		return "", err
	}
	return path.Clean(all[0]), nil
}
