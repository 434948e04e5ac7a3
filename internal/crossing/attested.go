package crossing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/carry/shipment"
	"enisle/internal/judge/inspect"
	"enisle/internal/judge/upstream"
	"enisle/internal/site"
	"enisle/internal/site/trust"
)

// upstreamScanner is the name under which findings about signatures of makers stand.
const upstreamScanner = "upstream"

// seal is who sealed a shipment, as of then.
type seal struct {
	header shipment.Header
	root   trust.Root // of the low site
	sealed int64      // records in its ledger
}

// sealOf proves again who sealed a shipment: by the key that the island pinned.
func sealOf(s *site.Site, envelope []byte) (q seal, err error) {
	if q.header, err = headerOf(envelope); err != nil {
		return q, err
	}
	peer, ok := s.Roots.Root().Peer(q.header.From.Fingerprint)
	if !ok {
		return q, fmt.Errorf("%s is not paired any more", q.header.From.Name)
	}
	var chain [][]byte
	for _, r := range q.header.Roots {
		chain = append(chain, r)
	}
	if q.root, err = trust.VerifyChain(chain, peer.Key); err != nil {
		return q, err
	}
	head, err := s.CheckpointOf(q.root.Site, q.header.Checkpoint)
	q.sealed = head.Size
	return q, err
}

// attesting judges the attestations of one shipment.
type attesting struct {
	site   *site.Site
	report *inspect.Report
	known  map[string]bool // artifacts whose signature was verified
	proven map[string]bool // artifacts that a document of their world vouches for
	byRef  map[artifact.Ref]artifact.Artifact
}

// attest notes in a report who signed the artifacts of a shipment outside, as the
// low site attested it: in the shipment itself, or in what is released. An
// attestation that is not good, or about what is not here, refuses.
func attest(ctx context.Context, s *site.Site, row arrived, got set, r *inspect.Report) error {
	q := attesting{s, r, map[string]bool{}, map[string]bool{}, map[artifact.Ref]artifact.Artifact{}}
	for _, a := range got.artifacts {
		q.byRef[a.Ref] = a
	}
	r.Scanners = append(r.Scanners, inspect.ScannerInfo{Name: upstreamScanner, Version: "2"})
	var by *seal
	for _, v := range got.artifacts {
		if v.Ref.Kind != upstream.Kind {
			continue
		}
		if by == nil {
			b, err := sealOf(s, row.Envelope)
			if err != nil {
				q.add("attestation", inspect.Refuse, v.Ref.String(), upstream.File, "who sealed it is not known: "+oneLine(err))
				continue
			}
			by = &b
		}
		st, err := by.attestedBy(s, v)
		if err == nil {
			err = q.note(v, st)
		}
		if err != nil {
			q.add("attestation", inspect.Refuse, v.Ref.String(), upstream.File, oneLine(err))
		}
	}
	if err := q.released(ctx); err != nil {
		return err
	}
	for _, f := range r.Facts {
		if f.Kind == inspect.Label && f.Value == inspect.SignedUpstream && !q.known[f.Artifact] {
			q.add("unverified-signature", inspect.Warn, f.Artifact, f.File, "it is a signature by nobody known: nobody outside verified it")
		}
	}
	q.order()
	return nil
}

func (q attesting) add(rule string, sev inspect.Severity, ref, file, detail string) {
	q.report.Findings = append(q.report.Findings, inspect.Finding{Scanner: upstreamScanner, Rule: rule, Severity: sev, Artifact: ref, File: file, Detail: detail})
}

// note takes a good attestation, if what it is about is here.
func (q attesting) note(v artifact.Artifact, st upstream.Statement) error {
	p, ref := st.Predicate, st.Predicate.ResourceURI
	if kind, ok := st.Set(); ok {
		if err := aboutHeld(st, q.byRef); err != nil {
			return err
		}
		for _, s := range p.Enisle.Signers {
			q.add("verified", inspect.Info, v.Ref.String(), upstream.File, fmt.Sprintf("%d artifacts of %s are signed by %s, verified outside on %s", len(st.Subject), kind, s, p.TimeVerified.Format(time.DateOnly)))
		}
		for _, s := range st.Subject {
			q.signed(s.Name, st, st.UnsignedOf(s.Name))
			q.proven[s.Name] = true
		}
		return nil
	}
	of, err := artifact.ParseRef(ref)
	if err != nil {
		return err
	}
	a, ok := q.byRef[of]
	if !ok {
		return fmt.Errorf("it is about %s, which is not in the shipment", ref)
	}
	if err := st.Covers(a); err != nil {
		return err
	}
	q.known[ref] = true
	q.signed(ref, st, p.Enisle.Unsigned)
	for _, s := range p.Enisle.Signers {
		q.add("verified", inspect.Info, ref, s.Signature, fmt.Sprintf("signed by %s, verified outside on %s", s, p.TimeVerified.Format(time.DateOnly)))
		if len(s.Ignored) > 0 {
			q.add("ignored-paths", inspect.Warn, ref, s.Signature, "its signer left out: "+strings.Join(s.Ignored, ", "))
		}
	}
	if len(p.Enisle.Unsigned) > 0 {
		q.add("unsigned", inspect.Info, ref, "", "no signature covers: "+strings.Join(p.Enisle.Unsigned, ", "))
	}
	return nil
}

// signed notes the signers of an artifact.
func (q attesting) signed(ref string, st upstream.Statement, unsigned []string) {
	p := st.Predicate
	for _, s := range p.Enisle.Signers {
		q.report.Facts = append(q.report.Facts, inspect.Fact{Kind: inspect.Signer, Artifact: ref, File: s.Signature, Value: s.String()})
		q.report.Verified = append(q.report.Verified, inspect.Verified{
			Artifact: ref, Signer: s.String(), At: p.TimeVerified, By: siteName(p.Verifier.ID), Ignored: append([]string{}, s.Ignored...), Unsigned: unsigned,
		})
	}
}

// siteName is the name in what siteURI makes.
func siteName(uri string) string {
	name, _, _ := strings.Cut(strings.TrimPrefix(uri, "enisle:site/"), "/")
	return name
}

// released looks among what is released for attestations about what the shipment
// brings without one. One that does not hold any more counts for nothing here.
func (q attesting) released(ctx context.Context) error {
	for _, channel := range Channels() {
		served, err := ServedBy(ctx, q.site, channel)
		if errors.Is(err, ErrNoRelease) {
			continue
		}
		if err != nil {
			return err
		}
		for _, r := range served.release.Requests {
			var by *seal
			for _, v := range served.byRequest[r.Name] {
				if v.Ref.Kind != upstream.Kind {
					continue
				}
				if by == nil {
					brought, err := findShipment(ctx, q.site, r.Shipment)
					if err != nil {
						return err
					}
					b, err := sealOf(q.site, brought.Envelope)
					if err != nil {
						break
					}
					by = &b
				}
				if st, err := by.attestedBy(q.site, v); err == nil {
					q.again(v, st)
				}
			}
		}
	}
	return nil
}

// again takes what a good attestation of what is released says of what is here, and
// that nothing in the shipment is about. Of a set each artifact counts by itself.
func (q attesting) again(v artifact.Artifact, st upstream.Statement) {
	if _, ok := st.Set(); !ok {
		if !q.known[st.Predicate.ResourceURI] {
			_ = q.note(v, st) // about another version than the one that is here
		}
		return
	}
	for _, s := range st.Subject {
		one := st
		one.Subject = []upstream.Subject{s}
		if !q.proven[s.Name] && aboutHeld(one, q.byRef) == nil {
			q.signed(s.Name, st, st.UnsignedOf(s.Name))
			q.proven[s.Name] = true
		}
	}
}

// order sorts what was added among what was there.
func (q attesting) order() {
	r := q.report
	slices.SortStableFunc(r.Findings, func(a, b inspect.Finding) int {
		return cmp.Or(cmp.Compare(a.Artifact, b.Artifact), cmp.Compare(a.File, b.File), cmp.Compare(a.Scanner, b.Scanner), cmp.Compare(a.Rule, b.Rule), cmp.Compare(a.Detail, b.Detail))
	})
	slices.SortStableFunc(r.Facts, func(a, b inspect.Fact) int {
		return cmp.Or(cmp.Compare(a.Artifact, b.Artifact), cmp.Compare(a.File, b.File), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Value, b.Value))
	})
	slices.SortStableFunc(r.Verified, func(a, b inspect.Verified) int {
		return cmp.Or(cmp.Compare(a.Artifact, b.Artifact), cmp.Compare(a.Signer, b.Signer))
	})
}
