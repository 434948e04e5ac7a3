package crossing

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"enisle/internal/artifact"
	"enisle/internal/fail"
	"enisle/internal/site"
	"enisle/internal/site/state"
	"enisle/internal/site/store"
	"enisle/internal/site/trust"
)

// Recalled says what a recall took away.
type Recalled struct {
	Ref       string   `json:"ref"`
	Reason    string   `json:"reason"`
	By        string   `json:"by"`
	At        string   `json:"at"`
	Shipments []string `json:"shipments"` // that brought it
	Releases  []int64  `json:"releases"`  // that hold it
	Channels  []string `json:"channels"`  // that served it until now
	Engines   []string `json:"engines"`   // models and engines that ran with it, and are ended
	// Digests are of its files.
	Digests map[artifact.Digest]bool `json:"-"`
}

// Recall stops serving exactly what is known here under a reference, everywhere
// and at once, and keeps it from being released again. Other content under the
// same reference, a corrected version, is not recalled. One approver, officer or
// admin is enough: it takes away, and never adds.
func Recall(ctx context.Context, s *site.Site, by site.Actor, ref, reason string, indexes []Index) (out Recalled, err error) {
	if err := s.Require(trust.High); err != nil {
		return out, err
	}
	if by.Key == nil {
		return out, fail.As(fail.Usage, "give --as NAME --key FILE", errors.New("a recall is signed by a person"))
	}
	if _, err := s.Roots.Root().Holder(false, trust.Approver, trust.Officer, trust.Admin)(by.ID()); err != nil {
		return out, fail.Refuse("let an approver, an officer or an admin recall it", err)
	}
	if len(strings.TrimSpace(reason)) < 5 || len(reason) > 2000 {
		return out, fail.As(fail.Usage, "say why in a few words with --reason", errors.New("recall: the reason is shorter than 5 bytes, or longer than 2,000"))
	}
	out = Recalled{Ref: ref, Reason: reason, By: by.Name, At: s.Now().Format("2006-01-02T15:04:05Z07:00"), Shipments: []string{}, Releases: []int64{}, Channels: []string{}, Engines: []string{}, Digests: map[artifact.Digest]bool{}}
	manifests, err := out.find(ctx, s)
	if err != nil {
		return out, err
	}
	if len(manifests) == 0 {
		return out, fail.As(fail.Usage, "'enisle review ID' lists what a shipment brought", fmt.Errorf("there is no artifact %.120q at %s", ref, s.Identity.Name))
	}
	subject := map[string]string{"artifact": ref, "reason": reason, "channels": strings.Join(out.Channels, ",")}
	more := []state.Recall{}
	for _, m := range manifests {
		more = append(more, state.Recall{Ref: ref, Manifest: m, Reason: reason, By: by.Name, At: out.At})
	}
	err = s.Act(ctx, "recall", by, subject, func(ctx context.Context, intent int64) (map[string]string, error) {
		// What cannot be signed must not keep anything from being recalled.
		unsigned := signChannels(ctx, s, more, indexes)
		err := s.State.Update(ctx, func(tx *state.Tx) error {
			for _, r := range more {
				if err := tx.AddRecall(r); err != nil {
					return err
				}
			}
			return tx.SetEffect(intent, "recall of "+ref)
		})
		return nil, errors.Join(err, unsigned)
	})
	return out, err
}

// find looks for every content that is known under the reference, and where.
func (r *Recalled) find(ctx context.Context, s *site.Site) (manifests []artifact.Digest, err error) {
	rows, err := Shipments(ctx, s)
	if err != nil {
		return nil, err
	}
	for _, row := range rows {
		if row.Status == state.Rejected {
			continue
		}
		got, err := readSet(openAny(s), row.Content)
		if err != nil {
			return nil, fmt.Errorf("shipment %s: %w", row.ID, err)
		}
		for _, a := range got.artifacts {
			if a.Ref.String() != r.Ref {
				continue
			}
			r.Shipments = append(r.Shipments, row.ID)
			for _, f := range a.Files {
				r.Digests[f.Digest] = true
			}
			if !slices.Contains(manifests, a.Manifest) {
				manifests = append(manifests, a.Manifest)
			}
		}
	}
	return manifests, r.releases(ctx, s)
}

func (r *Recalled) releases(ctx context.Context, s *site.Site) error {
	var last int64
	if err := s.State.View(ctx, func(tx *state.Tx) (err error) { last, err = tx.LastRelease(); return err }); err != nil {
		return err
	}
	holds := func(v Served) bool {
		return slices.ContainsFunc(v.artifacts, func(a artifact.Artifact) bool { return a.Ref.String() == r.Ref })
	}
	for n := int64(1); n <= last; n++ {
		v, err := servedNumber(ctx, s, n)
		if err != nil {
			return err
		}
		if holds(v) {
			r.Releases = append(r.Releases, n)
		}
	}
	for _, c := range Channels() {
		v, err := ServedBy(ctx, s, c)
		if err != nil && !errors.Is(err, ErrNoRelease) {
			return err
		}
		if err != nil || !holds(v) {
			continue
		}
		r.Channels = append(r.Channels, c)
		if kind, _, _ := strings.Cut(r.Ref, "/"); c == engineChannel && (kind == "engine" || kind == "model") {
			r.Engines = append(r.Engines, runsWith(v, r.Ref)...)
		}
	}
	return nil
}

// engineChannel is the channel whose models run.
const engineChannel = stable

// runsWith returns the models that run with an engine, or the model itself.
func runsWith(v Served, ref string) (out []string) {
	if strings.HasPrefix(ref, "model/") {
		return []string{ref}
	}
	for _, a := range v.Artifacts("model") {
		out = append(out, a.Ref.String())
	}
	return out
}

// FilesOf returns the digests of the files of everything that is, or was, here under
// a reference.
func FilesOf(ctx context.Context, s *site.Site, ref string) (map[artifact.Digest]bool, error) {
	r := Recalled{Ref: ref, Digests: map[artifact.Digest]bool{}}
	_, err := r.find(ctx, s)
	return r.Digests, err
}

// Recalls lists what was recalled, oldest first.
func Recalls(ctx context.Context, s *site.Site) (all []state.Recall, err error) {
	err = s.State.View(ctx, func(tx *state.Tx) (err error) { all, err = tx.Recalls(); return err })
	return all, err
}

// recalled lists what was recalled, if that is all that is on record.
func (row arrived) recalled(ctx context.Context, s *site.Site) ([]state.Recall, error) {
	all, err := Recalls(ctx, s)
	if err != nil {
		return nil, err
	}
	for ref := range row.recalls {
		if !slices.ContainsFunc(all, func(r state.Recall) bool { return r.Ref == ref }) {
			return nil, tampered(row.ID, fmt.Errorf("the recall of %s is on record, and is gone", ref))
		}
	}
	return all, nil
}

// notRecalled refuses a shipment that holds what was recalled: the same artifact, or
// the same files under whatever description or name.
func notRecalled(ctx context.Context, s *site.Site, row arrived) error {
	all, err := row.recalled(ctx, s)
	if err != nil || len(all) == 0 {
		return err
	}
	got, err := readSet(openAny(s), row.Content)
	if err != nil {
		return err
	}
	for _, r := range all {
		gone, err := readManifest(s, r.Manifest)
		if err != nil {
			return fmt.Errorf("recalled %s: %w", r.Ref, err)
		}
		for _, a := range got.artifacts {
			if r.Ref == a.Ref.String() && r.Manifest == a.Manifest || holdsAll(a, gone) {
				return fail.Refuse("bring a corrected version", fmt.Errorf("%s was recalled by %s: %s", r.Ref, r.By, r.Reason))
			}
		}
	}
	return nil
}

// readManifest reads what an artifact consisted of, that is or was here.
func readManifest(s *site.Site, d artifact.Digest) (artifact.Artifact, error) {
	b, err := readSmall(openAny(s), d, store.MaxManifest)
	if err != nil {
		return artifact.Artifact{}, err
	}
	return store.DecodeManifest(b)
}

// holdsAll reports whether an artifact has every file of another; under another name,
// whether it has exactly those.
func holdsAll(a, gone artifact.Artifact) bool {
	have, want := map[artifact.Digest]bool{}, map[artifact.Digest]bool{}
	for _, f := range a.Files {
		have[f.Digest] = true
	}
	for _, f := range gone.Files {
		if want[f.Digest] = true; !have[f.Digest] {
			return false
		}
	}
	return len(want) > 0 && (len(have) == len(want) || a.Ref.Kind == gone.Ref.Kind && a.Ref.Name == gone.Ref.Name)
}

// Holding lists the shipments that hold an artifact, by its reference; those that were
// rejected are not among them.
func Holding(ctx context.Context, s *site.Site, ref string) ([]string, error) {
	r := Recalled{Ref: ref, Digests: map[artifact.Digest]bool{}}
	_, err := r.find(ctx, s)
	return r.Shipments, err
}
