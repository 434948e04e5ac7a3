package crossing

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/fail"
	"enisle/internal/judge/policy"
	"enisle/internal/judge/release"
	"enisle/internal/judge/upstream"
	"enisle/internal/site"
	"enisle/internal/site/state"
	"enisle/internal/site/trust"
)

// The channels: what is new is tried on the one before everybody gets it on the other.
const (
	candidate = "candidate"
	stable    = "stable"
)

// Channels are the pointers a release may go to.
func Channels() []string { return []string{candidate, stable} }

// CheckChannel refuses names that are not channels.
func CheckChannel(name string) error {
	if slices.Contains(Channels(), name) {
		return nil
	}
	return fail.As(fail.Usage, "channels are "+strings.Join(Channels(), ", "), fmt.Errorf("no channel is called %q", name))
}

// Released says where a channel points now.
type Released struct {
	Channel string          `json:"channel"`
	Number  int64           `json:"number"`
	Digest  artifact.Digest `json:"digest"`
	SBOM    artifact.Digest `json:"sbom,omitempty"`
	Already bool            `json:"already"` // nothing had to be done
}

// ErrNoRelease says that nothing was released to a channel yet.
var ErrNoRelease = errors.New("nothing was released yet")

// Release makes the approved shipment part of a new immutable release and flips
// the channel to it. Signatures, roles, revocation, report and policy are all
// checked again, now, and every blob that leaves the quarantine is hashed again.
// Run again it finds its work done.
func Release(ctx context.Context, s *site.Site, by site.Actor, id, channel string, indexes []Index, show Progress) (Released, error) {
	out := Released{Channel: channel}
	if err := CheckChannel(channel); err != nil {
		return out, err
	}
	row, err := findShipment(ctx, s, id)
	if err != nil {
		return out, err
	}
	next, now, err := nextRelease(ctx, s, row, channel)
	if err != nil {
		return out, err
	}
	if now.Number > 0 && next.Same(now) && row.Status == state.Released {
		// Nothing would change, so there is nothing to judge.
		out.Number, out.Already = now.Number, true
		out.Digest, err = digestOf(now)
		return out, err
	}
	if err := mayRelease(ctx, s, by, row, channel); err != nil {
		return out, err
	}
	subject := map[string]string{"shipment": id, "channel": channel, "content": string(row.Content)}
	err = s.Act(ctx, "release", by, subject, func(ctx context.Context, intent int64) (map[string]string, error) {
		err := doRelease(ctx, s, row, next, &out, intent, indexes, show)
		if err == nil {
			out.SBOM = sbomDigest(ctx, s, out.Number)
		}
		return map[string]string{"release": fmt.Sprint(out.Number), "digest": string(out.Digest), "sbom": string(out.SBOM)}, err
	})
	return out, err
}

// mayRelease judges everything again.
func mayRelease(ctx context.Context, s *site.Site, by site.Actor, row arrived, channel string) error {
	if err := errors.Join(row.wasRejected(), notRecalled(ctx, s, row)); err != nil {
		return err
	}
	pol, err := policy.Parse(s.Policy)
	if err != nil {
		return err
	}
	if pol.People.ProvenActors && by.Key == nil {
		return fail.Refuse("give --as NAME --key FILE", errors.New("the policy wants to know who releases"))
	}
	r, d, err := currentReport(ctx, s, row)
	if err != nil {
		return err
	}
	c, err := caseOf(ctx, s, row, r)
	if err != nil {
		return err
	}
	names, err := approvers(ctx, s, row, subjectOf(s, row, d, pol.Content(c), channel))
	if err != nil {
		return err
	}
	c.Approvers = len(names)
	if c.Soaks = channel == stable; c.Soaks {
		if c.Soaked, err = soaked(ctx, s, row); err != nil {
			return err
		}
	}
	decision := pol.Release(c)
	if decision.Allow {
		return nil
	}
	hint := refusedHint
	switch {
	case pol.Content(c).Allow && len(names) >= decision.Needed:
		hint = "release it with --channel candidate, have it tried there, and come back"
	case pol.Content(c).Allow:
		hint = "ask another approver to run 'enisle approve " + row.ID + " --as NAME --key FILE'"
	}
	return fail.Refuse(hint, fmt.Errorf("shipment %s is not released: %s", row.ID, strings.Join(decision.Reasons, "; ")))
}

// soaked returns for how long the candidate channel has served exactly the content of
// a shipment without a break, until now; -1 if it does not. The state can be changed by
// whoever may write it; so where the channel pointed is read in the record.
func soaked(ctx context.Context, s *site.Site, row arrived) (time.Duration, error) {
	now := int64(0)
	err := s.State.View(ctx, func(tx *state.Tx) error {
		at, _, err := tx.Channel(candidate)
		now = at.Number
		return err
	})
	if err != nil {
		return 0, err
	}
	since := time.Time{}
	for i, m := range slices.Backward(row.moves) {
		if i == len(row.moves)-1 && m.release != now {
			break
		}
		v, err := servedNumber(ctx, s, m.release)
		if err != nil {
			return 0, err
		}
		if m.digest != "" && m.digest != v.digest || !slices.ContainsFunc(v.release.Requests, func(q release.Request) bool { return q.Header == row.Header && q.Content == row.Content }) {
			break
		}
		since = m.at
	}
	if since.IsZero() {
		return -1, nil
	}
	return s.Now().Sub(since), nil
}

// nextRelease returns what the channel would serve with the shipment, and what
// it serves now. Its number is not given yet.
func nextRelease(ctx context.Context, s *site.Site, row arrived, channel string) (next, now release.Release, err error) {
	served, err := ServedBy(ctx, s, channel)
	if err != nil && !errors.Is(err, ErrNoRelease) {
		return next, now, err
	}
	now = served.release
	next = now.With(release.Request{Name: row.Request, Shipment: row.ID, Header: row.Header, Content: row.Content})
	var all []artifact.Artifact
	for _, q := range next.Requests {
		got, err := readSet(openAny(s), q.Content)
		if err != nil {
			return next, now, err
		}
		all = append(all, got.artifacts...)
	}
	return next, now, conflicts(all)
}

// conflicts refuses two requests that bring the same reference with different
// content: clients would see one or the other by chance; and names that could be taken
// for one another. Attestations are asked for by
// nobody, and two of them about one model may both be true.
func conflicts(all []artifact.Artifact) error {
	seen := map[artifact.Ref]artifact.Digest{}
	for _, a := range all {
		if d, ok := seen[a.Ref]; ok && d != a.Manifest && a.Ref.Kind != upstream.Kind {
			return fail.Refuse("bring the same version in both requests", fmt.Errorf("%s differs between two requests of the release", a.Ref))
		}
		seen[a.Ref] = a.Manifest
	}
	refs := slices.SortedFunc(maps.Keys(seen), func(a, b artifact.Ref) int { return strings.Compare(a.String(), b.String()) })
	if alike := artifact.Lookalikes(refs); len(alike) > 0 {
		return fail.Refuse("leave one of them out", fmt.Errorf("%s: %s", alike[0].Ref, alike[0].Why))
	}
	return nil
}

func doRelease(ctx context.Context, s *site.Site, row arrived, next release.Release, out *Released, intent int64, indexes []Index, show Progress) error {
	got, err := readSet(openAny(s), row.Content)
	if err != nil {
		return err
	}
	var total int64
	for _, b := range got.blobs {
		total += b.size
	}
	done := show.start("releasing", total)
	for _, b := range got.blobs {
		if err := ctx.Err(); err != nil {
			return fail.As(fail.Partial, "run the same command again", err)
		}
		// This is the gate: what lay in quarantine is hashed once more.
		if s.Quarantine.Has(b.digest) {
			if err := s.Quarantine.Check(ctx, b.digest); err != nil {
				return fmt.Errorf("quarantine: %w", err)
			}
		}
		if err := s.Quarantine.MoveTo(s.Held, b.digest); err != nil {
			return err
		}
		done(b.size)
	}
	if err := s.Held.Flush(); err != nil {
		return err
	}
	signed, err := indexesOfNext(ctx, s, next, indexes)
	if err != nil {
		return err
	}
	err = s.State.Update(ctx, func(tx *state.Tx) error {
		last, err := tx.LastRelease()
		if err != nil {
			return err
		}
		next.Number = last + 1
		if err := signed.keep(tx, next.Number); err != nil {
			return err
		}
		doc, err := next.Encode()
		if err != nil {
			return err
		}
		if out.Digest, err = s.Held.Put(doc); err != nil {
			return err
		}
		out.Number = next.Number
		row.Status = state.Released
		return errors.Join(
			tx.AddRelease(state.Release{Number: next.Number, Digest: out.Digest, Shipment: row.ID, Made: s.Now().Format("2006-01-02T15:04:05Z07:00")}),
			tx.PointChannel(out.Channel, next.Number, s.Now()), tx.SetShipment(row.Shipment),
			tx.SetArrivals(row.ID, got.refs()), // of a site that is older than this
			tx.SetEffect(intent, fmt.Sprintf("release %d", next.Number)))
	})
	return err
}

func digestOf(r release.Release) (artifact.Digest, error) {
	b, err := r.Encode()
	return artifact.Sum(b), err
}

// Rollback flips a channel back to a release it pointed at before: the one
// before, or the number given. Every blob of it must be there, and every shipment
// of it must stand up to the approvers and the policy of now.
func Rollback(ctx context.Context, s *site.Site, by site.Actor, channel string, to int64, indexes []Index) (Released, error) {
	out := Released{Channel: channel}
	if err := errors.Join(s.Require(trust.High), CheckChannel(channel)); err != nil {
		return out, err
	}
	var err error
	if to == 0 {
		if to, err = before(ctx, s, channel); err != nil {
			return out, err
		}
	}
	if err := mayRollback(ctx, s, by, channel, to, &out); err != nil {
		return out, err
	}
	subject := map[string]string{"channel": channel, "release": fmt.Sprint(to)}
	err = s.Act(ctx, "rollback", by, subject, func(ctx context.Context, intent int64) (map[string]string, error) {
		if err := signNumber(ctx, s, to, indexes); err != nil {
			return nil, err
		}
		return nil, s.State.Update(ctx, func(tx *state.Tx) error {
			return errors.Join(tx.PointChannel(channel, to, s.Now()), tx.SetEffect(intent, fmt.Sprintf("release %d", to)))
		})
	})
	return out, err
}

// before returns the release a channel pointed at before the present one.
func before(ctx context.Context, s *site.Site, channel string) (n int64, err error) {
	err = s.State.View(ctx, func(tx *state.Tx) error {
		moves, err := tx.Moves(channel)
		if err != nil {
			return err
		}
		now, ok, err := tx.Channel(channel)
		if err != nil || !ok {
			return err
		}
		for _, m := range slices.Backward(moves) {
			if m.Release < now.Number {
				n = m.Release
				return nil
			}
		}
		return nil
	})
	if err == nil && n == 0 {
		err = fail.As(fail.Usage, "'enisle channel' shows what was released", fmt.Errorf("channel %s has no release before this one", channel))
	}
	return n, err
}

func mayRollback(ctx context.Context, s *site.Site, by site.Actor, channel string, to int64, out *Released) error {
	pol, err := policy.Parse(s.Policy)
	if err != nil {
		return err
	}
	if err := pointedAt(ctx, s, channel, to); err != nil {
		return err
	}
	if pol.People.ProvenActors && by.Key == nil {
		return fail.Refuse("give --as NAME --key FILE", errors.New("the policy wants to know who rolls back"))
	}
	served, err := servedNumber(ctx, s, to)
	if err != nil {
		return err
	}
	for _, q := range served.release.Requests {
		row, err := findShipment(ctx, s, q.Shipment)
		if err != nil {
			return err
		}
		if err := mayServeAgain(ctx, s, by, row, channel, pol); err != nil {
			return fmt.Errorf("release %d: %w", to, err)
		}
	}
	for _, a := range served.artifacts {
		for _, f := range a.Files {
			if n, err := s.Held.Stat(f.Digest); err != nil || n != f.Size {
				return fail.Refuse("choose another release with --to", fmt.Errorf("release %d: %s: %s is not held whole", to, a.Ref, f.Path))
			}
		}
	}
	out.Number = to
	out.Digest, err = digestOf(served.release)
	return err
}

// pointedAt refuses a release that the channel never pointed at: its approvals
// are for another channel.
func pointedAt(ctx context.Context, s *site.Site, channel string, to int64) error {
	var moves []state.Move
	if err := s.State.View(ctx, func(tx *state.Tx) (err error) { moves, err = tx.Moves(channel); return err }); err != nil {
		return err
	}
	if slices.ContainsFunc(moves, func(m state.Move) bool { return m.Release == to }) {
		return nil
	}
	return fail.As(fail.Usage, "'enisle channel' shows where it pointed; what is new to it is approved for it and released",
		fmt.Errorf("channel %s never pointed at a release %d", channel, to))
}

// mayServeAgain judges a shipment of a release that was served before. What was
// approved once for the channel by people who are approvers still, and is not
// refused by its newest report under the policy of now, may be served again.
// Whatever else takes what a release takes: approvals over how things stand now.
func mayServeAgain(ctx context.Context, s *site.Site, by site.Actor, row arrived, channel string, pol *policy.Policy) error {
	if err := row.wasRejected(); err != nil {
		return err
	}
	if _, err := row.recalled(ctx, s); err != nil {
		return err
	}
	r, _, err := currentReport(ctx, s, row)
	if err != nil {
		return err
	}
	have, err := approvedOnce(ctx, s, row, channel)
	if err != nil {
		return err
	}
	c, err := caseOf(ctx, s, row, r)
	if err != nil {
		return err
	}
	c.Approvers, c.Now, c.Report.Scanned = have, r.Made, r.Made // how old the report is does not count here
	if pol.Release(c).Allow {
		return nil
	}
	return mayRelease(ctx, s, by, row, channel)
}
