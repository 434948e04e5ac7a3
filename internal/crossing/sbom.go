package crossing

import (
	"context"
	"errors"
	"fmt"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/fail"
	"enisle/internal/judge/release"
	"enisle/internal/judge/sbom"
	"enisle/internal/site"
	"enisle/internal/site/state"
)

// SBOM says what a release consists of, in CycloneDX, from the newest reports about
// its shipments. A number of 0 means the release that the channel points at. What was
// recalled is in it: it says what was released.
func SBOM(ctx context.Context, s *site.Site, channel string, number int64) ([]byte, error) {
	if number == 0 {
		v, err := ServedBy(ctx, s, channel)
		if err != nil {
			return nil, err
		}
		number = v.Number()
	}
	v, err := servedNumber(ctx, s, number)
	if err != nil {
		return nil, err
	}
	var row state.Release
	if err := s.State.View(ctx, func(tx *state.Tx) (err error) { row, _, err = tx.Release(number); return err }); err != nil {
		return nil, err
	}
	made, err := time.Parse(time.RFC3339, row.Made)
	if err != nil {
		return nil, fmt.Errorf("release %d: %w", number, err)
	}
	return sbomOf(ctx, s, v.artifacts, v.release.Requests, sbom.Release{Number: number, Digest: row.Digest, Made: made})
}

// sbomOf gathers the reports about requests.
func sbomOf(ctx context.Context, s *site.Site, artifacts []artifact.Artifact, requests []release.Request, r sbom.Release) ([]byte, error) {
	r.Site, r.Artifacts = s.Identity.Name, artifacts
	here := map[string]bool{}
	for _, a := range artifacts {
		here[a.Ref.String()] = true
	}
	for _, q := range requests {
		brought, err := findShipment(ctx, s, q.Shipment)
		if err != nil {
			return nil, err
		}
		rep, _, err := currentReport(ctx, s, brought)
		if err != nil {
			return nil, err
		}
		for _, f := range rep.Facts {
			if here[f.Artifact] {
				r.Facts = append(r.Facts, f)
			}
		}
		for _, f := range rep.Findings {
			if here[f.Artifact] {
				r.Findings = append(r.Findings, f)
			}
		}
		r.Databases = append(r.Databases, rep.Databases...)
		r.Versions = append(r.Versions, rep.Scanners...)
	}
	b, err := sbom.Build(r)
	if err != nil {
		err = fail.As(fail.Failed, "run 'enisle inspect --all'", errors.Join(errors.New("the SBOM cannot be written"), err))
	}
	return b, err
}

// sbomDigest names the SBOM of a new release, for the record; the same release and
// reports give it again. The release stands already: without one, the record says so.
func sbomDigest(ctx context.Context, s *site.Site, number int64) artifact.Digest {
	b, err := SBOM(ctx, s, stable, number)
	if err != nil {
		s.Log().ErrorContext(ctx, "no SBOM can be made", "release", number, "err", err)
		return ""
	}
	return artifact.Sum(b)
}
