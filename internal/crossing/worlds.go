package crossing

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/fail"
	"enisle/internal/judge/upstream"
	"enisle/internal/site/store"
)

// worldProof is what an ecosystem proved, of one kind of artifacts.
type worldProof struct {
	kind string
	ecosystem.Proof
}

// prove has an ecosystem verify what its world signed of what was resolved.
func (c *collecting) prove(ctx context.Context, eco ecosystem.Ecosystem, want ecosystem.Want, found []artifact.Artifact) error {
	p, ok := eco.(ecosystem.Proving)
	if !ok || c.dryRun || len(want.Items) == 0 {
		return nil
	}
	done := c.Progress.start("verifying", -1)
	open := func(d artifact.Digest) (ecosystem.Blob, error) { return c.Site.Held.Open(d) }
	proofs, err := p.Prove(ctx, want, ecosystem.Found{Artifacts: found, Open: open, At: c.Site.Now()})
	if err != nil {
		return err
	}
	done(0)
	for _, q := range proofs {
		// What was proven stays what it was, whatever is filled in or changed later.
		q.Covers = slices.Clone(q.Covers)
		for i := range q.Covers {
			q.Covers[i].Files = slices.Clone(q.Covers[i].Files)
		}
		c.proofs = append(c.proofs, worldProof{ecosystem.KindOf(eco), q})
	}
	return nil
}

// id is by what two proofs are one statement.
func (p worldProof) id() artifact.Digest {
	return artifact.Sum(fmt.Appendf(nil, "%s %s %s %s %q", p.kind, p.Format, p.Digest, p.Trust, p.Keys))
}

// worlds adds an attestation about what each signed document of a world vouches for. One
// of the lock is kept while it says the same, and as long as nothing was resolved anew.
func (c *collecting) worlds(artifacts []artifact.Artifact) ([]artifact.Artifact, error) {
	byRef := map[artifact.Ref]artifact.Artifact{}
	for _, a := range artifacts {
		m, err := store.EncodeManifest(a)
		if err != nil {
			return nil, err
		}
		a.Manifest = artifact.Sum(m)
		byRef[a.Ref] = a
	}
	old := c.oldSets(byRef)
	covered := map[string]bool{}
	add := func(v artifact.Artifact, st upstream.Statement) {
		kind, _ := st.Set()
		for _, s := range st.Subject {
			covered[s.Name] = true
		}
		for _, s := range st.Predicate.Enisle.Signers {
			c.out.Signed = append(c.out.Signed, fmt.Sprintf("%s: %d artifacts: %s", kind, len(st.Subject), s))
		}
		artifacts = append(artifacts, v)
	}
	artifacts = slices.Clone(artifacts)
	if c.out.FromLock {
		for _, o := range old {
			add(o.artifact, o.statement)
		}
	}
	why := map[artifact.Ref]string{}
	for _, p := range c.merged(why) {
		v, st, err := c.attestSet(p, byRef, old)
		if err != nil {
			return nil, err
		}
		add(v, st)
	}
	for _, a := range artifacts {
		if !covered[a.Ref.String()] && slices.ContainsFunc(c.Ecosystems, func(e ecosystem.Ecosystem) bool {
			_, ok := e.(ecosystem.Proving)
			return ok && ecosystem.KindOf(e) == a.Ref.Kind
		}) {
			text := why[a.Ref]
			if text == "" {
				text = "the lock has no attestation of it; 'enisle collect --update' looks again"
			}
			c.out.Unverified = append(c.out.Unverified, a.Ref.String()+": "+text)
		}
	}
	return artifacts, errors.Join(sortArtifacts(artifacts), c.Site.Held.Flush())
}

// merged are the proofs, those of one document as one, and fills in why of the rest.
func (c *collecting) merged(why map[artifact.Ref]string) (out []worldProof) {
	for _, p := range c.proofs {
		i := slices.IndexFunc(out, func(o worldProof) bool { return o.id() == p.id() })
		switch {
		case p.Why != "":
			for _, a := range p.Covers {
				why[a.Ref] = p.Why
			}
		case i < 0:
			out = append(out, p)
		default:
			out[i].Covers = slices.Concat(out[i].Covers, p.Covers)
			out[i].Through = slices.Concat(out[i].Through, p.Through)
		}
	}
	return out
}

// oldSet is an attestation of the lock about many artifacts.
type oldSet struct {
	artifact  artifact.Artifact
	statement upstream.Statement
}

// oldSets are those that this site made and that still hold.
func (c *collecting) oldSets(byRef map[artifact.Ref]artifact.Artifact) (out []oldSet) {
	for _, v := range c.old {
		if v.Ref.Kind != upstream.Kind {
			continue
		}
		st, err := c.ours(v)
		if err != nil {
			continue
		}
		if _, ok := st.Set(); ok && aboutHeld(st, byRef) == nil {
			out = append(out, oldSet{v, st})
		}
	}
	return out
}

// aboutHeld refuses a statement about artifacts that are not exactly among those given.
func aboutHeld(st upstream.Statement, byRef map[artifact.Ref]artifact.Artifact) error {
	for _, s := range st.Subject {
		ref, err := artifact.ParseRef(s.Name)
		if err != nil {
			return err
		}
		a, ok := byRef[ref]
		switch {
		case !ok:
			return fmt.Errorf("it is about %s, which is not in the shipment", ref)
		case upstream.DigestsOf(a.Manifest) != s.Digest:
			return fmt.Errorf("it is about another %.120q than what is here", s.Name)
		}
	}
	return nil
}

// attestSet freezes one proof, or keeps what the lock has of it.
func (c *collecting) attestSet(p worldProof, byRef map[artifact.Ref]artifact.Artifact, old []oldSet) (v artifact.Artifact, st upstream.Statement, err error) {
	proof := upstream.Proof{Signers: []upstream.Signer{}}
	for _, key := range p.Keys {
		proof.Signers = append(proof.Signers, upstream.Signer{
			Format: p.Format, Method: upstream.Key, Name: key, Signature: p.Document, Digest: p.Digest, Ignored: []string{},
		})
	}
	for _, f := range p.Through {
		r := upstream.Resource{URI: f.Path, Digest: upstream.DigestsOf(f.Digest)}
		if !slices.Contains(proof.Through, r) {
			proof.Through = append(proof.Through, r)
		}
	}
	var all []artifact.Artifact
	for _, q := range p.Covers {
		a, ok := byRef[q.Ref]
		if !ok || ok && slices.ContainsFunc(q.Files, func(f artifact.File) bool { return !holds(a.Files, f) }) {
			return v, st, fail.Refuse("find out who changed it", fmt.Errorf("%s is not what was verified", q.Ref))
		}
		all = append(all, a)
		for _, f := range a.Files {
			if !holds(q.Files, f) {
				proof.Unsigned = append(proof.Unsigned, a.Ref.String()+"!"+f.Path)
			}
		}
	}
	ref := upstream.SetRef(p.kind, p.id())
	at := c.Site.Now()
	payload, err := upstream.MakeSet(ref, all, proof, c.about(p.kind, p.Trust, at))
	if err == nil {
		st, err = upstream.Decode(payload)
	}
	if err == nil {
		for _, o := range old {
			if o.statement.Same(st) {
				return o.artifact, o.statement, nil
			}
		}
	}
	v, err = c.sealed(ref, payload, err)
	return v, st, err
}

// holds reports whether a file is among others, by path and content. What was proven
// before it was fetched is known by the sha512 that it was held against.
func holds(all []artifact.File, f artifact.File) bool {
	return slices.ContainsFunc(all, func(o artifact.File) bool {
		if f.Digest == "" || o.Digest == "" {
			return o.Path == f.Path && o.Hashes["sha512"] == f.Hashes["sha512"] && f.Hashes["sha512"] != ""
		}
		return o.Path == f.Path && o.Digest == f.Digest
	})
}
