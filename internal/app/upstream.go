package app

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/crossing"
	"enisle/internal/fail"
	"enisle/internal/judge/inspect"
	"enisle/internal/judge/oms"
	"enisle/internal/judge/sigstore"
	"enisle/internal/judge/upstream"
)

// makers verifies what the makers of artifacts signed, in one run of collect.
type makers struct {
	beside map[string]proven // files beside the request, by name
}

var _ crossing.Upstream = (*makers)(nil)

const signersHint = "name the signer's key or certificate under 'trust:' in the request, after its owner confirmed it; or take the model from whoever signed it"

// checking is the verification of one artifact.
type checking struct {
	*makers
	files  tree
	by     crossing.Trusted
	proof  upstream.Proof
	signed map[string]bool // files that a signature covers, or that are one
}

// Signed verifies signatures of models, and what was signed by Sigstore.
func (m *makers) Signed(ctx context.Context, a artifact.Artifact, open inspect.Open, by crossing.Trusted) (upstream.Proof, error) {
	if by.Sigstore != nil && !sigstore.Built {
		_, err := sigstore.Verify(sigstore.Signer{}, nil)
		return upstream.Proof{}, err
	}
	c := &checking{makers: m, files: tree{a, open}, by: by, signed: map[string]bool{}}
	whole := false
	err := c.sidecars()
	if err == nil {
		err = c.besides()
	}
	if err == nil && slices.Contains([]string{"model", "hf", "huggingface"}, a.Ref.Kind) {
		whole, err = c.model(ctx)
	}
	if err != nil || len(c.proof.Signers) == 0 {
		return c.proof, err
	}
	for _, f := range a.Files {
		top, _, _ := strings.Cut(f.Path, "/")
		switch {
		case c.signed[f.Path]:
		case whole && !slices.Contains(oms.Always(), top):
			return c.proof, fail.Refuse("leave the file out of the request, or ask for a signature that covers it", fmt.Errorf("%s: nobody signed it: the signature of the model does not list it", f.Path))
		default:
			c.proof.Unsigned = append(c.proof.Unsigned, f.Path)
		}
	}
	return c.proof, nil
}

// model verifies every signature in a model, each of which must be good. It reports
// whether there is one, so that every other file must be listed.
func (c *checking) model(ctx context.Context) (whole bool, err error) {
	var names []string
	for _, f := range c.files.a.Files {
		if !strings.HasSuffix(f.Path, oms.Suffix) || f.Size > oms.MaxSize {
			continue
		}
		b, err := fs.ReadFile(c.files, f.Path)
		if err != nil {
			return false, err
		}
		if oms.Is(path.Base(f.Path), b) {
			names = append(names, f.Path)
		}
	}
	if len(c.by.Models) == 0 && c.by.Sigstore == nil {
		c.proof.Unknown = append(c.proof.Unknown, names...)
		return false, nil
	}
	for _, name := range names {
		s, covered, err := c.signature(ctx, name)
		if err != nil {
			return false, fmt.Errorf("%s: %w", name, err)
		}
		c.add(s, name, c.files.digest(name), covered)
	}
	return len(names) > 0, nil
}

func (c *checking) add(s upstream.Signer, name string, d artifact.Digest, covered []string) {
	s.Signature, s.Digest = name, d
	if s.Ignored == nil {
		s.Ignored = []string{}
	}
	c.proof.Signers = append(c.proof.Signers, s)
	for _, f := range covered {
		c.signed[f] = true
	}
	if d == c.files.digest(name) {
		c.signed[name] = true
	}
}

// signature verifies one signature of a model and returns the files it covers.
func (c *checking) signature(ctx context.Context, name string) (s upstream.Signer, covered []string, err error) {
	raw, err := fs.ReadFile(c.files, name)
	if err != nil {
		return s, nil, err
	}
	b, err := oms.Parse(raw)
	if err != nil {
		return s, nil, err
	}
	switch b.Method {
	case oms.Sigstore:
		s, err = c.identity(raw)
	default:
		s, err = byNamed(b, c.by)
	}
	if err != nil {
		return s, nil, err
	}
	checked, err := b.Statement.Check(ctx, c.files, name)
	// What every signer leaves out says nothing.
	s.Ignored = slices.DeleteFunc(slices.Clone(checked.Ignored), func(p string) bool {
		return path.Clean(p) == name || slices.Contains(oms.Always(), path.Clean(p))
	})
	s.Ignored = append([]string{}, s.Ignored...)
	slices.Sort(s.Ignored)
	return s, checked.Signed, err
}

// byNamed finds the key or certificate of the request that a signature is by.
func byNamed(b *oms.Bundle, by crossing.Trusted) (s upstream.Signer, err error) {
	s.Format = "oms"
	last := errors.New("the request names none that could have made it")
	for _, t := range by.Models {
		switch {
		case t.Use == crossing.UseKey && b.Method == oms.Key:
			key, err := parsePEM(t.Content, x509.ParsePKIXPublicKey)
			if err != nil {
				return s, fail.As(fail.Usage, "name a PEM file with a public key", fmt.Errorf("trust: %s: %w", t.Name, err))
			}
			if last = b.VerifyKey(key, false); last != nil {
				continue
			}
			hint, err := oms.Hint(key)
			s.Method, s.Name = upstream.Key, "sha256:"+hint
			return s, err
		case t.Use == crossing.UseCertificates && b.Method == oms.Certificate:
			roots, err := parsePEM(t.Content, x509.ParseCertificates)
			if err != nil {
				return s, fail.As(fail.Usage, "name a PEM file with certificates", fmt.Errorf("trust: %s: %w", t.Name, err))
			}
			who, err := b.VerifyCertificate(roots, by.At, false)
			if last = err; last != nil {
				continue
			}
			_, to := b.SignedBefore()
			s.Method, s.Name, s.Chain, s.NotAfter = upstream.Certificate, who, "sha256:"+b.Chain(), to.UTC().Format("2006-01-02T15:04:05Z")
			return s, nil
		}
	}
	return s, fail.Refuse(signersHint, fmt.Errorf("it is by none of the %d signers of the request: %w", len(by.Models), last))
}

// parsePEM reads what the blocks of a PEM file hold, one after the other.
func parsePEM[T any](b []byte, parse func([]byte) (T, error)) (out T, err error) {
	var der []byte
	for {
		var p *pem.Block
		if p, b = pem.Decode(b); p == nil {
			break
		}
		if p.Type != "EC PARAMETERS" {
			der = append(der, p.Bytes...)
		}
	}
	if len(der) == 0 {
		return out, errors.New("it holds no PEM block")
	}
	return parse(der)
}

// tree is the files of an artifact as a file system.
type tree struct {
	a    artifact.Artifact
	open inspect.Open
}

var _ fs.ReadDirFS = tree{}

// digest is that of a file; empty if there is none.
func (t tree) digest(name string) artifact.Digest {
	if i := slices.IndexFunc(t.a.Files, func(f artifact.File) bool { return f.Path == name }); i >= 0 {
		return t.a.Files[i].Digest
	}
	return ""
}

// Open opens a file or a directory.
func (t tree) Open(name string) (fs.File, error) {
	if i := slices.IndexFunc(t.a.Files, func(f artifact.File) bool { return f.Path == name }); i >= 0 {
		b, err := t.open(t.a.Files[i].Digest)
		if err != nil {
			return nil, err
		}
		return &hashedFile{treeFile{io.NewSectionReader(b, 0, b.Size()), b, node{name, b.Size()}}, t.a.Files[i].Digest}, nil
	}
	if _, err := t.ReadDir(name); err != nil {
		return nil, err
	}
	return &treeFile{SectionReader: io.NewSectionReader(strings.NewReader(""), 0, 0), node: node{name, -1}}, nil
}

// ReadDir lists a directory by name.
func (t tree) ReadDir(name string) (out []fs.DirEntry, err error) {
	seen := map[string]bool{}
	for _, f := range t.a.Files {
		below, inside := f.Path, true
		if name != "." {
			below, inside = strings.CutPrefix(f.Path, name+"/")
		}
		first, _, deeper := strings.Cut(below, "/")
		if !inside || seen[first] {
			continue
		}
		seen[first] = true
		n := node{first, f.Size}
		if deeper {
			n.size = -1
		}
		out = append(out, fs.FileInfoToDirEntry(n))
	}
	if len(out) == 0 {
		return nil, &fs.PathError{Op: "open", Path: name, Err: fs.ErrNotExist}
	}
	slices.SortFunc(out, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return out, nil
}

type treeFile struct {
	*io.SectionReader
	closer io.Closer // nil of a directory
	node
}

func (f *treeFile) Size() int64                { return f.node.Size() }
func (f *treeFile) Stat() (fs.FileInfo, error) { return f.node, nil }

func (f *treeFile) Close() error {
	if f.closer == nil {
		return nil
	}
	return f.closer.Close()
}

// hashedFile is a file of the store, which compared it with its digest when it came in.
type hashedFile struct {
	treeFile
	digest artifact.Digest
}

var _ oms.Hashed = (*hashedFile)(nil)

// SHA256 is in hex.
func (f *hashedFile) SHA256() string { return f.digest.Hex() }

// node is a file, or with a negative size a directory.
type node struct {
	name string
	size int64
}

func (n node) Name() string     { return path.Base(n.name) }
func (n node) Size() int64      { return max(0, n.size) }
func (n node) IsDir() bool      { return n.size < 0 }
func (node) ModTime() time.Time { return time.Time{} }
func (node) Sys() any           { return nil }

func (n node) Mode() fs.FileMode {
	if n.IsDir() {
		return fs.ModeDir | 0o555
	}
	return 0o444
}
