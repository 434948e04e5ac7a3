package crossing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/fail"
	"enisle/internal/site"
	"enisle/internal/site/state"
	"enisle/internal/site/store"
	"enisle/internal/site/trust"
)

// GCOptions say what is kept.
type GCOptions struct {
	Keep   int  // releases that each channel pointed at before the present one
	DryRun bool // say what it would come to and remove nothing
}

// Collection says what a collection came to.
type Collection struct {
	Kept    []int64 `json:"kept"`    // releases that can be served and rolled back to
	Dropped []int64 `json:"dropped"` // releases of which files were removed, now or before
	Files   int     `json:"files"`   // removed
	Bytes   int64   `json:"bytes"`
}

// recently is how long a release that a channel left is kept whatever was asked for:
// clients that began with it are still reading.
const recently = time.Hour

// GC removes the files that no kept release needs: those of releases that no channel
// points at any more, beyond the last few, and of shipments that were rejected. What
// waits in quarantine is kept. Everything small stays, so that the record, reports and
// manifests of what was here can be read for ever.
func GC(ctx context.Context, s *site.Site, by site.Actor, opt GCOptions) (out Collection, err error) {
	if err := s.Require(trust.High); err != nil {
		return out, err
	}
	if opt.Keep < 0 {
		return out, fail.As(fail.Usage, "give --keep a number from 0", fmt.Errorf("keep %d", opt.Keep))
	}
	needed, candidates, err := out.sort(ctx, s, opt)
	if err != nil {
		return out, err
	}
	type at struct {
		store *store.Blobs
		file  blob
	}
	var gone []at
	for _, st := range []*store.Blobs{s.Held, s.Quarantine} {
		for _, c := range candidates {
			if !needed[c.digest] && st.Has(c.digest) {
				gone = append(gone, at{st, c})
				out.Files++
				out.Bytes += c.size
			}
		}
	}
	if opt.DryRun || len(gone) == 0 {
		return out, nil
	}
	subject := map[string]string{"kept": fmt.Sprint(out.Kept), "files": fmt.Sprint(out.Files), "bytes": fmt.Sprint(out.Bytes)}
	err = s.Act(ctx, "gc", by, subject, func(ctx context.Context, _ int64) (map[string]string, error) {
		for _, g := range gone {
			if err := errors.Join(ctx.Err(), g.store.Remove(g.file.digest)); err != nil {
				return nil, fail.As(fail.Partial, "run the same command again", err)
			}
		}
		return nil, errors.Join(s.Held.SyncNames(), s.Quarantine.SyncNames())
	})
	return out, err
}

// sort divides what is here: digests of files that are needed, and all files that
// were ever part of a release or shipment.
func (c *Collection) sort(ctx context.Context, s *site.Site, opt GCOptions) (needed map[artifact.Digest]bool, candidates []blob, err error) {
	kept, last, err := keptReleases(ctx, s, opt.Keep)
	if err != nil {
		return nil, nil, err
	}
	needed, known := map[artifact.Digest]bool{}, map[artifact.Digest]bool{}
	// A file may have the content of something small that stays: a manifest, a list, a report.
	stays := map[artifact.Digest]bool{artifact.Sum(store.EmptyConfig()): true}
	add := func(all []artifact.Artifact, need bool) {
		for _, a := range all {
			stays[a.Manifest] = true
			for _, f := range a.Files {
				if needed[f.Digest] = needed[f.Digest] || need; !known[f.Digest] {
					known[f.Digest] = true
					candidates = append(candidates, blob{f.Digest, f.Size})
				}
			}
		}
	}
	for n := int64(1); n <= last; n++ {
		v, err := servedNumber(ctx, s, n)
		if err != nil {
			return nil, nil, err
		}
		stays[v.digest] = true
		for _, q := range v.release.Requests {
			stays[q.Content] = true
		}
		add(v.artifacts, kept[n])
		if kept[n] {
			c.Kept = append(c.Kept, n)
		} else {
			c.Dropped = append(c.Dropped, n)
		}
	}
	var rows []state.Shipment
	var reports []artifact.Digest
	err = s.State.View(ctx, func(tx *state.Tx) (err error) {
		if rows, err = tx.Shipments(); err == nil {
			reports, err = tx.Reports()
		}
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	for _, d := range reports {
		stays[d] = true
	}
	for _, row := range rows {
		if row.Status == state.Importing {
			// What it needs is not known before all of it is here.
			return nil, nil, fail.As(fail.Failed, "finish it with 'enisle import', or reject it", fmt.Errorf("shipment %s is still being imported", row.ID))
		}
		got, err := readSet(openAny(s), row.Content)
		if err != nil {
			return nil, nil, fmt.Errorf("shipment %s: %w", row.ID, err)
		}
		stays[row.Content] = true
		add(got.artifacts, row.Status == state.Quarantined)
	}
	candidates = slices.DeleteFunc(candidates, func(b blob) bool { return needed[b.digest] || stays[b.digest] })
	return needed, candidates, nil
}

// keptReleases returns those that a channel points at, pointed at of late, or that
// are among the last few it pointed at; and the highest number there is.
func keptReleases(ctx context.Context, s *site.Site, keep int) (kept map[int64]bool, last int64, err error) {
	kept = map[int64]bool{}
	err = s.State.View(ctx, func(tx *state.Tx) error {
		if last, err = tx.LastRelease(); err != nil {
			return err
		}
		for _, name := range Channels() {
			now, ok, err := tx.Channel(name)
			if err != nil {
				return err
			}
			if !ok {
				continue
			}
			kept[now.Number] = true
			moves, err := tx.Moves(name)
			if err != nil {
				return err
			}
			before := map[int64]bool{}
			for i, m := range slices.Backward(moves) {
				left := s.Now()
				if i+1 < len(moves) {
					if left, err = time.Parse(time.RFC3339, moves[i+1].At); err != nil {
						return err
					}
				}
				switch {
				case m.Release == now.Number || before[m.Release]:
				case len(before) < keep:
					before[m.Release], kept[m.Release] = true, true
				case s.Now().Sub(left) < recently:
					kept[m.Release] = true
				}
			}
		}
		return nil
	})
	return kept, last, err
}
