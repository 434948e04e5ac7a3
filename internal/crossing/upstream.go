package crossing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/fail"
	"enisle/internal/judge/inspect"
	"enisle/internal/judge/upstream"
	"enisle/internal/site"
	"enisle/internal/site/store"
	"enisle/internal/site/trust"
)

// Upstream verifies what people outside signed.
type Upstream interface {
	// Signed verifies the signatures that an artifact carries, and those that lie
	// beside the request and are about it. A signature that is not good, or a file
	// that it leaves out without a right to, is a refusal; one by nobody whom the
	// request names is listed as unknown.
	Signed(ctx context.Context, a artifact.Artifact, open inspect.Open, by Trusted) (upstream.Proof, error)
}

// Trust is the section 'trust' of a request: whose signatures count. Files are
// named from the directory of the request.
type Trust struct {
	Models   []ModelSigner   `yaml:"models"`
	Sigstore *SigstoreSigner `yaml:"sigstore"`
}

// ModelSigner signs models by one of a key and a certificate.
type ModelSigner struct {
	Key          string `yaml:"key"`          // PEM file: a public key
	Certificates string `yaml:"certificates"` // PEM file: roots
}

// SigstoreSigner is an identity that signs by Sigstore.
type SigstoreSigner struct {
	TrustedRoot string   `yaml:"trustedRoot"` // file: keys of the logs and authorities
	Identity    string   `yaml:"identity"`
	Issuer      string   `yaml:"issuer"`
	Files       []string `yaml:"files"` // bundles, and attestations of PyPI
}

// Trusted is Trust with the content of the files that it names.
type Trusted struct {
	Models   []TrustedFile // keys and certificates, in PEM
	Sigstore *SigstoreSigner
	Root     TrustedFile   // of Sigstore
	Files    []TrustedFile // bundles and attestations
	At       time.Time     // when certificates must be valid
}

// TrustedFile is one file that a request names.
type TrustedFile struct {
	Name    string          `json:"-"` // as the request has it
	Use     string          `json:"use"`
	Digest  artifact.Digest `json:"digest"`
	Content []byte          `json:"-"`
}

// Uses of files.
const (
	UseKey          = "key"
	UseCertificates = "certificates"
	useRoot         = "trustedRoot"
	useFile         = "file"
)

const trustHint = "trust: is {models: [ {key: FILE}, {certificates: FILE} ], sigstore: {trustedRoot: FILE, identity: NAME, issuer: URL, files: [FILE]}}"

// none reports whether nobody is named.
func (t Trust) none() bool { return len(t.Models) == 0 && t.Sigstore == nil }

// trusted reads the files and returns the digest of the whole section, which
// covers their content; empty when nobody is named.
func (r Request) trusted(at time.Time) (out Trusted, d artifact.Digest, err error) {
	out.At, out.Sigstore = at, r.Trust.Sigstore
	if r.Trust.none() {
		return out, "", nil
	}
	bad := func(what string) error { return fail.As(fail.Usage, trustHint, errors.New("trust: "+what)) }
	var all []TrustedFile
	take := func(use, name string) error {
		f := TrustedFile{Name: name, Use: use}
		if f.Content, err = readLocal(filepath.Join(r.dir(), name), upstream.MaxSize); err != nil {
			return fmt.Errorf("trust: %s: %w", name, err)
		}
		f.Digest = artifact.Sum(f.Content)
		all = append(all, f)
		return nil
	}
	for _, m := range r.Trust.Models {
		if (m.Key == "") == (m.Certificates == "") {
			return out, "", bad("an entry of models has one of key and certificates")
		}
		use, name := UseKey, m.Key
		if name == "" {
			use, name = UseCertificates, m.Certificates
		}
		if err := take(use, name); err != nil {
			return out, "", err
		}
	}
	out.Models = slices.Clone(all)
	q := struct {
		Files            []TrustedFile `json:"files"`
		Identity, Issuer string
	}{}
	if s := r.Trust.Sigstore; s != nil {
		if s.TrustedRoot == "" || s.Identity == "" || s.Issuer == "" {
			return out, "", bad("sigstore needs trustedRoot, identity and issuer")
		}
		q.Identity, q.Issuer = s.Identity, s.Issuer
		if err := take(useRoot, s.TrustedRoot); err != nil {
			return out, "", err
		}
		out.Root = all[len(all)-1]
		for _, name := range s.Files {
			if artifact.CheckPath(name) != nil {
				return out, "", bad("files lie beside the request")
			}
			if err := take(useFile, name); err != nil {
				return out, "", err
			}
			out.Files = append(out.Files, all[len(all)-1])
		}
	}
	q.Files = all
	b, err := json.Marshal(q)
	return out, artifact.Sum(b), err
}

func readLocal(name string, limit int64) (_ []byte, err error) {
	f, _, err := openLocal(name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fail.As(fail.Usage, trustHint, fmt.Errorf("larger than %d bytes", limit))
	}
	return b, err
}

// upstream verifies what the artifacts carry of their makers' signatures, and adds
// an attestation about each that is good. One that was made before, of the same
// content and under the same trust, is kept: it does not expire.
func (c *collecting) upstream(ctx context.Context, artifacts []artifact.Artifact) ([]artifact.Artifact, error) {
	artifacts = slices.DeleteFunc(slices.Clone(artifacts), func(a artifact.Artifact) bool { return a.Ref.Kind == upstream.Kind })
	by, policy, err := c.req.trusted(c.Site.Now())
	switch {
	case err != nil:
		return nil, err
	case c.Upstream == nil && policy != "":
		return nil, errors.New("trust: nothing here verifies signatures")
	case c.Upstream == nil:
		return artifacts, nil
	}
	open := func(d artifact.Digest) (inspect.Blob, error) { return c.Site.Held.Open(d) }
	used := map[string]bool{}
	out := slices.Clone(artifacts)
	for _, a := range artifacts {
		m, err := store.EncodeManifest(a)
		if err != nil {
			return nil, err
		}
		a.Manifest = artifact.Sum(m)
		v, signers, ok := c.frozen(a, policy)
		if !ok {
			p, err := c.Upstream.Signed(ctx, a, open, by)
			if err != nil {
				return nil, fmt.Errorf("%s: %w", a.Ref, err)
			}
			for _, name := range p.Unknown {
				c.out.Unknown = append(c.out.Unknown, a.Ref.String()+": "+name)
			}
			if len(p.Signers) == 0 {
				continue
			}
			if v, err = c.attest(a, p, policy, by.At); err != nil {
				return nil, err
			}
			signers = p.Signers
		}
		for _, s := range signers {
			used[s.Signature] = true
			c.out.Signed = append(c.out.Signed, a.Ref.String()+": "+s.String())
		}
		out = append(out, v)
	}
	for _, f := range by.Files {
		if !used[f.Name] {
			return nil, fail.Refuse("take it out of the request, or bring what it is about", fmt.Errorf("trust: %s is about nothing that the request brings", f.Name))
		}
	}
	return out, errors.Join(sortArtifacts(out), c.Site.Held.Flush())
}

// attest freezes what was verified.
func (c *collecting) attest(a artifact.Artifact, p upstream.Proof, policy artifact.Digest, at time.Time) (artifact.Artifact, error) {
	payload, err := upstream.Make(a, p, c.about("trust", policy, at))
	return c.sealed(upstream.Ref(a.Ref), payload, err)
}

// about says that this site verifies, now, by something that the request has.
func (c *collecting) about(by string, policy artifact.Digest, at time.Time) upstream.About {
	return upstream.About{
		Verifier: siteURI(c.Site.Identity), At: at, Checkpoint: c.Site.Ledger.Head().Note,
		Policy: upstream.Resource{URI: "enisle:request/" + c.req.Name + "/" + by, Digest: upstream.DigestsOf(policy)},
	}
}

// sealed signs a statement, unless it could not be made, and holds it.
func (c *collecting) sealed(ref artifact.Ref, payload []byte, err error) (v artifact.Artifact, _ error) {
	if err != nil {
		return v, fail.Refuse("ask whoever signed it for a plain name", fmt.Errorf("%s: %w", ref, err))
	}
	env, err := trust.Sign(upstream.PayloadType, payload, c.Site.Key)
	if err == nil && len(env) > upstream.MaxSize {
		err = fail.Refuse("bring it in parts", fmt.Errorf("%s is about too many files", ref))
	}
	if err != nil {
		return v, err
	}
	d, err := c.Site.Held.Put(env)
	return artifact.Artifact{Ref: ref, Name: ref.String(), Files: []artifact.File{{Path: upstream.File, Size: int64(len(env)), Digest: d}}}, err
}

// frozen returns the attestation of the lock, if it is ours, about exactly this
// artifact, and under this trust.
func (c *collecting) frozen(a artifact.Artifact, policy artifact.Digest) (v artifact.Artifact, signers []upstream.Signer, ok bool) {
	ref := upstream.Ref(a.Ref)
	i := slices.IndexFunc(c.old, func(o artifact.Artifact) bool { return o.Ref == ref })
	if i < 0 || policy == "" {
		return v, nil, false
	}
	st, err := c.ours(c.old[i])
	if err != nil || st.Covers(a) != nil || st.Predicate.Policy.Digest != upstream.DigestsOf(policy) {
		return v, nil, false
	}
	return c.old[i], st.Predicate.Enisle.Signers, true
}

// ours opens an attestation of the lock that this site made.
func (c *collecting) ours(v artifact.Artifact) (st upstream.Statement, err error) {
	if len(v.Files) != 1 {
		return st, errors.New("an attestation is one file")
	}
	env, err := readSmall(c.Site.Held.Open, v.Files[0].Digest, upstream.MaxSize)
	if err != nil {
		return st, err
	}
	return openStatement(env, c.Site.Identity)
}

// siteURI names a site in attestations.
func siteURI(id trust.Identity) string { return "enisle:site/" + id.Name + "/" + id.Key.ID() }

// openStatement opens an attestation that exactly one site must have signed.
func openStatement(envelope []byte, by trust.Identity) (upstream.Statement, error) {
	payload, _, err := trust.Verify(envelope, upstream.PayloadType, func(id string) (trust.Public, error) {
		if id == by.Key.ID() {
			return by.Key, nil
		}
		return trust.Public{}, fmt.Errorf("it is not the site's key that sealed the shipment, which is %.12s", by.Key.ID())
	})
	if err != nil {
		return upstream.Statement{}, err
	}
	st, err := upstream.Decode(payload)
	if err == nil && st.Predicate.Verifier.ID != siteURI(by) {
		err = fmt.Errorf("attestation: the verifier is %.120q, want %s", st.Predicate.Verifier.ID, siteURI(by))
	}
	return st, err
}

// attestedBy checks an artifact that is an attestation, in a shipment of the low
// site, and returns what it says and when. What it says was true when the shipment
// was sealed, whatever has expired since.
func (q seal) attestedBy(s *site.Site, v artifact.Artifact) (st upstream.Statement, err error) {
	if len(v.Files) != 1 || v.Files[0].Path != upstream.File {
		return st, errors.New("an attestation is one file, " + upstream.File)
	}
	env, err := readSmall(openAny(s), v.Files[0].Digest, upstream.MaxSize)
	if err != nil {
		return st, err
	}
	if st, err = openStatement(env, q.root.Site); err != nil {
		return st, err
	}
	p := st.Predicate
	if upstream.Kind+"/"+p.ResourceURI != v.Ref.String() {
		return st, fmt.Errorf("it is about %s, which its name does not say", p.ResourceURI)
	}
	if p.TimeVerified.After(q.header.Created.Add(site.MaxClockBack)) {
		return st, errors.New("it says that it was made after the shipment was sealed")
	}
	head, err := s.CheckpointOf(q.root.Site, p.Enisle.Checkpoint)
	if err == nil && head.Size > q.sealed {
		err = errors.New("it was made under a later record than the shipment was sealed under")
	}
	return st, err
}

// oneLine is an error's text without line ends.
func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", "; ") }
