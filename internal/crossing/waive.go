package crossing

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/carry/shipment"
	"enisle/internal/fail"
	"enisle/internal/judge/inspect"
	"enisle/internal/judge/policy"
	"enisle/internal/site"
	"enisle/internal/site/state"
	"enisle/internal/site/trust"
)

// WaiverType is the payload type of a waiver.
const WaiverType = "application/vnd.enisle.waiver.v1+json"

const waiverFormat = "enisle-waiver/1"

// waiverSigners is how many different people a waiver takes.
const waiverSigners = 2

// Waiver lets one rule pass for exactly this content of one artifact, for a time.
type Waiver struct {
	Format     string          `json:"format"`
	Site       shipment.Party  `json:"site"`
	Shipment   string          `json:"shipment"`
	Rule       string          `json:"rule"`
	Artifact   string          `json:"artifact"`
	Manifest   artifact.Digest `json:"manifest"`
	File       string          `json:"file,omitempty"` // empty: every file of it
	Found      []string        `json:"found"`          // what the rule refused it for: scanner, rule and advisory
	Reason     string          `json:"reason"`
	Checkpoint string          `json:"checkpoint"` // the ledger's head it was made under
	Made       time.Time       `json:"made"`
	Expires    time.Time       `json:"expires"`
}

// WaiveOptions say what is waived.
type WaiveOptions struct {
	Rule, Artifact, File, Reason string
	Days                         int // 0 means as long as the policy allows
}

// Waived is a waiver and who signed it.
type Waived struct {
	Waiver
	Digest artifact.Digest `json:"digest"` // of what is signed
	By     []string        `json:"by"`
	Need   int             `json:"need"`
	Counts string          `json:"counts,omitempty"` // why it does not, empty if it does
}

// Waive begins a waiver with one person's signature. It counts when a second
// person signed the same.
func Waive(ctx context.Context, s *site.Site, by site.Actor, id string, opt WaiveOptions) (out Waived, err error) {
	row, err := findShipment(ctx, s, id)
	if err != nil {
		return out, err
	}
	if err := mayWaive(s, by, row); err != nil {
		return out, err
	}
	w, err := waiverOf(ctx, s, row, opt)
	if err != nil {
		return out, err
	}
	payload, err := json.Marshal(w)
	if err != nil {
		return out, err
	}
	env, err := trust.Sign(WaiverType, payload, by.Key)
	if err != nil {
		return out, err
	}
	out = Waived{Waiver: w, Digest: artifact.Sum(payload), By: []string{by.Name}, Need: waiverSigners}
	subject := map[string]string{"shipment": id, "rule": w.Rule, "artifact": w.Artifact, "waiver": string(out.Digest), "reason": w.Reason}
	return out, s.Act(ctx, "waive", by, subject, func(ctx context.Context, intent int64) (map[string]string, error) {
		return nil, s.State.Update(ctx, func(tx *state.Tx) error {
			return errors.Join(tx.SetWaiver(state.Waiver{Digest: out.Digest, Shipment: id, Envelope: env}), tx.SetEffect(intent, "waiver of "+by.Name))
		})
	})
}

// SignWaiver adds the second person's signature.
func SignWaiver(ctx context.Context, s *site.Site, by site.Actor, digest artifact.Digest) (out Waived, err error) {
	var kept state.Waiver
	ok := false
	if err := s.State.View(ctx, func(tx *state.Tx) (err error) { kept, ok, err = tx.Waiver(digest); return err }); err != nil {
		return out, err
	}
	if !ok {
		return out, fail.As(fail.Usage, "'enisle waive list' shows them", fmt.Errorf("there is no waiver %.80s", digest))
	}
	row, err := findShipment(ctx, s, kept.Shipment)
	if err != nil {
		return out, err
	}
	if err := mayWaive(s, by, row); err != nil {
		return out, err
	}
	before, err := readWaiver(s, row, kept)
	if err != nil {
		return out, err
	}
	if slices.Contains(before.By, by.Name) {
		return out, fail.Refuse("ask another approver or officer to run 'enisle waive sign "+string(digest)+"'", fmt.Errorf("%s signed this waiver already: one person counts once", by.Name))
	}
	env, err := trust.Cosign(kept.Envelope, by.Key)
	if err != nil {
		return out, err
	}
	kept.Envelope = env
	subject := map[string]string{"shipment": row.ID, "rule": before.Rule, "artifact": before.Artifact, "waiver": string(digest), "reason": before.Reason}
	err = s.Act(ctx, "waive", by, subject, func(ctx context.Context, intent int64) (map[string]string, error) {
		return nil, s.State.Update(ctx, func(tx *state.Tx) error {
			return errors.Join(tx.SetWaiver(kept), tx.SetEffect(intent, "waiver of "+by.Name))
		})
	})
	if err != nil {
		return out, err
	}
	return readWaiver(s, row, kept)
}

// Waivers returns every waiver, with who signed it and whether it counts now.
func Waivers(ctx context.Context, s *site.Site) (out []Waived, err error) {
	if err := s.Require(trust.High); err != nil {
		return nil, err
	}
	var kept []state.Waiver
	if err := s.State.View(ctx, func(tx *state.Tx) (err error) { kept, err = tx.Waivers(""); return err }); err != nil {
		return nil, err
	}
	for _, k := range kept {
		row, err := findShipment(ctx, s, k.Shipment)
		if err != nil {
			return nil, err
		}
		w, err := readWaiver(s, row, k)
		if err != nil {
			w.Counts = err.Error()
		}
		out = append(out, w)
	}
	return out, nil
}

// mayWaive checks role and separation of duty, by key.
func mayWaive(s *site.Site, by site.Actor, row arrived) error {
	if by.Key == nil {
		return fail.As(fail.Usage, "give --as NAME --key FILE", errors.New("a waiver is signed by two people"))
	}
	if _, err := s.Roots.Root().Holder(false, trust.Approver, trust.Officer)(by.ID()); err != nil {
		return fail.Refuse("let an approver or an officer sign", err)
	}
	if err := row.wasRejected(); err != nil {
		return err
	}
	return row.separate(by.ID(), by.Name)
}

// waiverOf makes the statement, about something that is refused now.
func waiverOf(ctx context.Context, s *site.Site, row arrived, opt WaiveOptions) (w Waiver, err error) {
	pol, err := policy.Parse(s.Policy)
	if err != nil {
		return w, err
	}
	if len(strings.TrimSpace(opt.Reason)) < 10 || len(opt.Reason) > 2000 {
		return w, fail.As(fail.Usage, "say in a sentence why the risk is taken, with --reason", errors.New("waive: the reason is too short, or longer than a page"))
	}
	if opt.Days == 0 {
		opt.Days = pol.Days.Waiver
	}
	if opt.Days < 1 || opt.Days > pol.Days.Waiver {
		return w, fail.Refuse(fmt.Sprintf("give --days from 1 to %d", pol.Days.Waiver), fmt.Errorf("waive: the policy allows no more than %d days", pol.Days.Waiver))
	}
	i := slices.IndexFunc(pol.Rules, func(r policy.Rule) bool { return r.Name == opt.Rule })
	if i < 0 || pol.Rules[i].Final {
		return w, fail.Refuse("'enisle policy show' prints the rules", fmt.Errorf("waive: rule %.80q is none that can be waived", opt.Rule))
	}
	r, _, err := currentReport(ctx, s, row)
	if err != nil {
		return w, err
	}
	c, err := caseOf(ctx, s, row, r)
	if err != nil {
		return w, err
	}
	broken, found := false, []string{}
	for _, v := range pol.Content(c).Violations {
		if v.Rule != opt.Rule || v.Artifact != opt.Artifact || opt.File != "" && v.File != opt.File {
			continue
		}
		if broken = true; v.Found != "" && !slices.Contains(found, v.Found) {
			found = append(found, v.Found)
		}
	}
	slices.Sort(found)
	at := slices.IndexFunc(r.Contents, func(c inspect.Content) bool { return c.Ref == opt.Artifact })
	if !broken || at < 0 {
		return w, fail.As(fail.Usage, "'enisle review "+row.ID+"' shows what is refused, by which rule", fmt.Errorf("waive: rule %s does not refuse %.120s %.120s", opt.Rule, opt.Artifact, opt.File))
	}
	now := s.Now()
	return Waiver{
		Format: waiverFormat, Site: shipment.Party{Name: s.Identity.Name, Fingerprint: s.Identity.Key.ID()}, Shipment: row.ID, Rule: opt.Rule,
		Artifact: opt.Artifact, Manifest: r.Contents[at].Manifest, File: opt.File, Found: found, Reason: opt.Reason,
		Checkpoint: s.Ledger.Head().Note, Made: now, Expires: now.AddDate(0, 0, opt.Days),
	}, nil
}

// readWaiver verifies a waiver against the root of now: every signature is of an
// approver or officer who had no hand in bringing the shipment in.
func readWaiver(s *site.Site, row arrived, kept state.Waiver) (out Waived, err error) {
	out = Waived{Digest: kept.Digest, Need: waiverSigners}
	root := s.Roots.Root()
	payload, by, err := trust.Verify(kept.Envelope, WaiverType, root.Holder(false, trust.Approver, trust.Officer))
	if err != nil {
		return out, fmt.Errorf("waiver %s: %w", kept.Digest.Short(), err)
	}
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(&out.Waiver); err != nil {
		return out, fmt.Errorf("waiver %s: %w", kept.Digest.Short(), err)
	}
	switch {
	case artifact.Sum(payload) != kept.Digest || out.Format != waiverFormat:
		err = errors.New("is not what it was kept as")
	case out.Site.Fingerprint != s.Identity.Key.ID() || out.Shipment != row.ID:
		err = errors.New("is for another site or shipment")
	}
	for _, id := range by {
		p, _ := root.Person(id)
		err = errors.Join(err, row.separate(id, p.Name))
		out.By = append(out.By, p.Name)
	}
	if err == nil {
		head, herr := s.Checkpoint(out.Checkpoint)
		if err = herr; err == nil {
			err = s.Ledger.Extends(head)
		}
	}
	now := s.Now()
	switch {
	case err != nil:
		return out, fmt.Errorf("waiver %s: %w", kept.Digest.Short(), err)
	case len(by) < waiverSigners:
		out.Counts = fmt.Sprintf("signature %d of %d required is missing", len(by)+1, waiverSigners)
	case now.After(out.Expires) || now.Before(out.Made.Add(-site.MaxClockBack)):
		out.Counts = fmt.Sprintf("it counts from %s to %s", out.Made.Format(time.RFC3339), out.Expires.Format(time.RFC3339))
	}
	return out, nil
}

// waiversFor returns the waivers of a shipment that count now, as rules see them.
func waiversFor(ctx context.Context, s *site.Site, row arrived) (out []policy.Waiver, err error) {
	var kept []state.Waiver
	if err := s.State.View(ctx, func(tx *state.Tx) (err error) { kept, err = tx.Waivers(row.ID); return err }); err != nil {
		return nil, err
	}
	for _, k := range kept {
		w, err := readWaiver(s, row, k)
		if err != nil || w.Counts != "" {
			s.Log().InfoContext(ctx, "waiver does not count", "waiver", k.Digest, "why", fmt.Sprint(w.Counts, err))
			continue
		}
		out = append(out, policy.Waiver{Rule: w.Rule, Artifact: w.Artifact, Manifest: string(w.Manifest), File: w.File, Found: w.Found, Expires: w.Expires, ID: string(w.Digest)})
	}
	return out, nil
}

// waiversIn returns the waivers that a decision leans on, in order.
func waiversIn(d policy.Decision) []string {
	ids := []string{}
	for _, v := range d.Violations {
		if v.Waiver != "" && !slices.Contains(ids, v.Waiver) {
			ids = append(ids, v.Waiver)
		}
	}
	slices.Sort(ids)
	return ids
}
