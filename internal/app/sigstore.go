package app

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"

	"enisle/internal/crossing"
	"enisle/internal/fail"
	"enisle/internal/judge/sigstore"
	"enisle/internal/judge/upstream"
)

// proven is what one file with signatures by Sigstore says, verified.
type proven struct {
	signer  upstream.Signer
	digests []string // SHA-256 of what is signed, in hex
}

const identityHint = "name trustedRoot, identity and issuer under 'trust: sigstore:' in the request"

// identity verifies a signature of a model by an identity.
func (c *checking) identity(raw []byte) (upstream.Signer, error) {
	if c.by.Sigstore == nil {
		return upstream.Signer{}, fail.Refuse(identityHint, errors.New("it is by an identity of Sigstore, and the request names none"))
	}
	p, err := prove(raw, c.by)
	p.signer.Format = "oms"
	return p.signer, err
}

// prove verifies every signature in a file; all must be by the identity of the
// request.
func prove(content []byte, by crossing.Trusted) (out proven, err error) {
	format, bundles, err := sigstore.Read(content)
	if err != nil {
		return out, err
	}
	who := sigstore.Signer{TrustedRoot: by.Root.Content, Identity: by.Sigstore.Identity, Issuer: by.Sigstore.Issuer}
	out.signer = upstream.Signer{Format: format, Method: upstream.Identity, Name: who.Identity, Issuer: who.Issuer}
	for _, b := range bundles {
		p, err := sigstore.Verify(who, b)
		if err != nil {
			return out, err
		}
		out.digests = append(out.digests, p.Digests...)
		out.signer.Chain = "sha256:" + p.Chain
	}
	return out, nil
}

// sidecars verifies FILE.sigstore.json beside FILE in the artifact.
func (c *checking) sidecars() error {
	for _, f := range c.files.a.Files {
		name, is := strings.CutSuffix(f.Path, ".sigstore.json")
		if !is {
			name, is = strings.CutSuffix(f.Path, ".sigstore")
		}
		d := c.files.digest(name)
		switch {
		case !is || d == "" || f.Size > sigstore.MaxSize:
			continue
		case c.by.Sigstore == nil:
			c.proof.Unknown = append(c.proof.Unknown, f.Path)
			continue
		}
		raw, err := fs.ReadFile(c.files, f.Path)
		if err != nil {
			return err
		}
		p, err := prove(raw, c.by)
		if err == nil && !slices.Contains(p.digests, d.Hex()) {
			err = fail.Refuse("take both again from where they came from", fmt.Errorf("it is about something else than %s", name))
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
		c.add(p.signer, f.Path, f.Digest, []string{name})
	}
	return nil
}

// besides finds files of the artifact in what lies beside the request.
func (c *checking) besides() error {
	for _, f := range c.by.Files {
		p, ok := c.beside[f.Name]
		if !ok {
			var err error
			if p, err = prove(f.Content, c.by); err != nil {
				return fmt.Errorf("%s: %w", f.Name, err)
			}
			c.beside[f.Name] = p
		}
		var covered []string
		for _, g := range c.files.a.Files {
			if slices.Contains(p.digests, g.Digest.Hex()) {
				covered = append(covered, g.Path)
			}
		}
		if len(covered) > 0 {
			c.add(p.signer, f.Name, f.Digest, covered)
		}
	}
	return nil
}
