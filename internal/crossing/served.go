package crossing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"enisle/internal/artifact"
	"enisle/internal/carry/shipment"
	"enisle/internal/ecosystem"
	"enisle/internal/fail"
	"enisle/internal/judge/release"
	"enisle/internal/site"
	"enisle/internal/site/state"
	"enisle/internal/site/store"
	"enisle/internal/site/trust"
)

// Served is one release as the mirrors and engines see it: immutable, with the
// artifacts of all its requests. It opens nothing that is not part of it.
type Served struct {
	release   release.Release
	digest    artifact.Digest
	artifacts []artifact.Artifact
	byRequest map[string][]artifact.Artifact
	blobs     map[artifact.Digest]bool
	held      *store.Blobs
	recalls   int64 // how many contents were recalled when it was read
	indexes   signedIndexes
	loose     map[string]map[string][]byte // signed texts that are kept nowhere: for rehearsing
	looseKey  []byte
	absent    *absences // nil for what was collected
}

// View names what a channel serves: a release, less what was recalled. When it
// changes, so does what is served.
type View struct{ Release, Recalls int64 }

var _ ecosystem.Release = (*Served)(nil)

// ServedBy returns the release a channel points at; ErrNoRelease if none.
func ServedBy(ctx context.Context, s *site.Site, channel string) (Served, error) {
	var row state.Release
	var recalled []state.Recall
	var indexes signedIndexes
	ok := false
	err := s.State.View(ctx, func(tx *state.Tx) (err error) {
		if row, ok, err = tx.Channel(channel); err == nil {
			recalled, err = tx.Recalls()
		}
		if err == nil && ok {
			indexes, err = readIndexes(tx, View{row.Number, int64(len(recalled))})
		}
		return err
	})
	if err != nil {
		return Served{}, err
	}
	if !ok {
		return Served{}, noRelease(channel)
	}
	v, err := served(s, row, recalled, indexes)
	v.absent = &absences{site: s, channel: channel}
	return v, err
}

func servedNumber(ctx context.Context, s *site.Site, number int64) (Served, error) {
	var row state.Release
	ok := false
	err := s.State.View(ctx, func(tx *state.Tx) (err error) { row, ok, err = tx.Release(number); return err })
	if err == nil && !ok {
		err = fail.As(fail.Usage, "'enisle channel' shows what was released", fmt.Errorf("there is no release %d", number))
	}
	if err != nil {
		return Served{}, err
	}
	return served(s, row, nil, signedIndexes{})
}

// served reads a release, and leaves out what was recalled.
func served(s *site.Site, row state.Release, recalled []state.Recall, indexes signedIndexes) (Served, error) {
	out := Served{indexes: indexes, recalls: int64(len(recalled)), digest: row.Digest, byRequest: map[string][]artifact.Artifact{}, blobs: map[artifact.Digest]bool{}, held: s.Held}
	doc, err := s.Held.ReadSmall(row.Digest, release.MaxSize)
	if err == nil {
		out.release, err = release.Decode(doc)
	}
	if err == nil && out.release.Number != row.Number {
		err = errors.New("has another number")
	}
	if err != nil {
		return out, fail.Refuse("run 'enisle check --read-data'", fmt.Errorf("release %d: %w", row.Number, err))
	}
	if err := out.fill(recalled); err != nil {
		return out, fmt.Errorf("release %d: %w", row.Number, err)
	}
	return out, nil
}

// fill reads what the release consists of, without what was recalled.
func (v *Served) fill(recalled []state.Recall) error {
	gone := map[state.Recall]bool{}
	for _, r := range recalled {
		gone[state.Recall{Ref: r.Ref, Manifest: r.Manifest}] = true
	}
	for _, q := range v.release.Requests {
		got, err := readSet(v.held.Open, q.Content)
		if err != nil {
			return err
		}
		kept := slices.DeleteFunc(got.artifacts, func(a artifact.Artifact) bool {
			return gone[state.Recall{Ref: a.Ref.String(), Manifest: a.Manifest}]
		})
		v.byRequest[q.Name] = kept
		for _, a := range kept {
			if slices.ContainsFunc(v.artifacts, func(b artifact.Artifact) bool { return a.Ref == b.Ref }) {
				continue
			}
			v.artifacts = append(v.artifacts, a)
			for _, f := range a.Files {
				v.blobs[f.Digest] = true
			}
		}
	}
	return sortArtifacts(v.artifacts)
}

// Digest names the release.
func (v *Served) Digest() artifact.Digest { return v.digest }

// View is what this is, to be compared with what the channel serves later.
func (v *Served) View() View { return View{v.release.Number, v.recalls} }

// Number is the release's number.
func (v *Served) Number() int64 { return v.release.Number }

// Artifacts returns those of one kind, ordered by reference; an empty kind
// means all.
func (v *Served) Artifacts(kind string) (out []artifact.Artifact) {
	for _, a := range v.artifacts {
		if kind == "" || a.Ref.Kind == kind {
			out = append(out, a)
		}
	}
	return out
}

// Open opens a released blob; artifact.ErrNotHeld for any other.
func (v *Served) Open(d artifact.Digest) (ecosystem.Blob, error) {
	if !v.blobs[d] {
		return nil, fmt.Errorf("blob %s: %w", d.Short(), artifact.ErrNotHeld)
	}
	return v.held.Open(d)
}

// Checkpoints returns every head of the site's own ledger that it holds outside
// the ledger: in the approvals people signed.
func Checkpoints(ctx context.Context, s *site.Site) (out []string, err error) {
	err = s.State.View(ctx, func(tx *state.Tx) error {
		all, err := tx.Shipments()
		if err != nil {
			return err
		}
		for _, row := range all {
			approvals, err := tx.Approvals(row.ID)
			if err != nil {
				return err
			}
			for _, a := range approvals {
				c, err := checkpointOf(a.Envelope)
				if err != nil {
					return err
				}
				out = append(out, c)
			}
		}
		packs, err := tx.Packs()
		if err != nil {
			return err
		}
		for _, p := range packs {
			if p.Envelope == nil {
				continue
			}
			h, err := headerOf(p.Envelope)
			if err != nil {
				return err
			}
			out = append(out, h.Checkpoint)
		}
		return nil
	})
	return out, err
}

func checkpointOf(envelope []byte) (string, error) {
	e, err := trust.Parse(envelope)
	if err != nil {
		return "", err
	}
	var st Approval
	err = json.Unmarshal(e.Payload, &st)
	return st.Checkpoint, err
}

// ClaimedHeader reads a header without verifying anything: what it says is only
// a claim.
func ClaimedHeader(m *shipment.Media) (shipment.Header, error) {
	env, err := m.Envelope()
	if err != nil {
		return shipment.Header{}, err
	}
	h, err := headerOf(env)
	if err != nil {
		err = fail.Refuse("copy header.json again from the low side", fmt.Errorf("header.json: damaged: %w", err))
	}
	return h, err
}

// OpenFile opens a released blob as a file, for what needs a descriptor.
func (v *Served) OpenFile(d artifact.Digest) (*os.File, error) {
	if !v.blobs[d] {
		return nil, fmt.Errorf("blob %s: %w", d.Short(), artifact.ErrNotHeld)
	}
	b, err := v.held.Open(d)
	if err != nil {
		return nil, err
	}
	return b.File, nil
}

// ChannelView names what a channel serves now; ErrNoRelease if nothing.
func ChannelView(ctx context.Context, s *site.Site, channel string) (v View, err error) {
	err = s.State.View(ctx, func(tx *state.Tx) error {
		row, ok, err := tx.Channel(channel)
		if err == nil && !ok {
			err = noRelease(channel)
		}
		if err != nil {
			return err
		}
		v.Release = row.Number
		v.Recalls, err = tx.CountRecalls()
		return err
	})
	return v, err
}

func noRelease(channel string) error {
	return fail.As(fail.Failed, "release something to it with 'enisle release SHIPMENT --channel "+channel+"'", fmt.Errorf("channel %s: %w", channel, ErrNoRelease))
}
