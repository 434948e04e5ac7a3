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
	"enisle/internal/judge/upstream"
)

// makers verifies what the makers of artifacts signed.
type makers struct{}

var _ crossing.Upstream = makers{}

const signersHint = "name the signer's key or certificate under 'trust:' in the request, after its owner confirmed it; or take the model from whoever signed it"

// Signed verifies signatures of models, and what was signed by Sigstore.
func (m makers) Signed(ctx context.Context, a artifact.Artifact, open inspect.Open, by crossing.Trusted) (p upstream.Proof, err error) {
	if slices.Contains([]string{"model", "hf", "huggingface"}, a.Ref.Kind) {
		if err := m.model(ctx, a, open, by, &p); err != nil {
			return p, err
		}
	}
	return p, nil
}

// model verifies every signature in a model, each of which must be good; a file that
// none of them lists is refused.
func (m makers) model(ctx context.Context, a artifact.Artifact, open inspect.Open, by crossing.Trusted, p *upstream.Proof) error {
	all := tree{a: a, open: open}
	var names []string
	for _, f := range a.Files {
		if !strings.HasSuffix(f.Path, oms.Suffix) || f.Size > oms.MaxSize {
			continue
		}
		b, err := fs.ReadFile(all, f.Path)
		if err != nil {
			return err
		}
		if oms.Is(path.Base(f.Path), b) {
			names = append(names, f.Path)
		}
	}
	if len(by.Models) == 0 && by.Sigstore == nil {
		p.Unknown = append(p.Unknown, names...)
		return nil
	}
	signed := map[string]bool{}
	for _, name := range names {
		s, covered, err := m.signature(ctx, all, name, by)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		i := slices.IndexFunc(a.Files, func(f artifact.File) bool { return f.Path == name })
		s.Signature, s.Digest = name, a.Files[i].Digest
		p.Signers = append(p.Signers, s)
		signed[name] = true
		for _, f := range covered {
			signed[f] = true
		}
	}
	if len(names) == 0 {
		return nil
	}
	for _, f := range a.Files {
		top, _, _ := strings.Cut(f.Path, "/")
		switch {
		case signed[f.Path]:
		case slices.Contains(oms.Always(), top):
			p.Unsigned = append(p.Unsigned, f.Path)
		default:
			return fail.Refuse("leave the file out of the request, or ask for a signature that covers it", fmt.Errorf("%s: nobody signed it: %s does not list it", f.Path, strings.Join(names, ", ")))
		}
	}
	return nil
}

// signature verifies one signature of a model and returns the files it covers.
func (m makers) signature(ctx context.Context, all tree, name string, by crossing.Trusted) (s upstream.Signer, covered []string, err error) {
	raw, err := fs.ReadFile(all, name)
	if err != nil {
		return s, nil, err
	}
	b, err := oms.Parse(raw)
	if err != nil {
		return s, nil, err
	}
	switch b.Method {
	case oms.Sigstore:
		s, err = m.identity(raw, by)
	default:
		s, err = byNamed(b, by)
	}
	if err != nil {
		return s, nil, err
	}
	checked, err := b.Statement.Check(ctx, all, name)
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

// identity verifies a signature by an identity of Sigstore.
func (makers) identity(_ []byte, by crossing.Trusted) (upstream.Signer, error) {
	if by.Sigstore == nil {
		return upstream.Signer{}, fail.Refuse("name the identity and its issuer under 'trust: sigstore:' in the request", errors.New("it is by an identity of Sigstore, and the request names none"))
	}
	return upstream.Signer{}, errors.New("built without sigstore")
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

// Open opens a file or a directory.
func (t tree) Open(name string) (fs.File, error) {
	if i := slices.IndexFunc(t.a.Files, func(f artifact.File) bool { return f.Path == name }); i >= 0 {
		b, err := t.open(t.a.Files[i].Digest)
		if err != nil {
			return nil, err
		}
		return &treeFile{io.NewSectionReader(b, 0, b.Size()), b, node{name, b.Size()}}, nil
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
