package crossing

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/carry/shipment"
	"enisle/internal/fail"
	"enisle/internal/judge/policy"
	"enisle/internal/site"
	"enisle/internal/site/state"
	"enisle/internal/site/trust"
)

// Damage is one thing on the media that is not what was signed.
type Damage = shipment.Damage

// Checked says what stands on media.
type Checked struct {
	Frames   int      `json:"frames,omitempty"`   // frames that are what was signed
	Damage   []Damage `json:"damage,omitempty"`   // all that is not
	Repaired []int    `json:"repaired,omitempty"` // volumes that were written anew
}

// Check reads everything on the media and compares it with a verified header. It
// refuses if anything is not what was signed, after it has named all of it. With
// a directory, it writes there the volumes that are damaged or missing, as they
// were signed, beside header and bill: if that is all, nothing is refused.
func Check(ctx context.Context, m *shipment.Media, h shipment.Header, repairTo string, progress Progress) (out Checked, err error) {
	if err := m.CheckSet(h); err != nil {
		return out, err
	}
	var total int64
	for _, v := range h.Volumes {
		total += v.Size
	}
	err = m.Read(ctx, h, shipment.ReadOptions{
		Progress: progress.start("verifying", total),
		Mark:     func(int, int) error { out.Frames++; return nil },
		Damage:   func(d shipment.Damage) error { out.Damage = append(out.Damage, d); return nil },
	})
	if err != nil || len(out.Damage) == 0 {
		return out, err
	}
	var numbers []int
	var lost []Damage
	for _, d := range out.Damage {
		if !d.Mended {
			lost = append(lost, d)
		}
		if !slices.Contains(numbers, d.Volume) {
			numbers = append(numbers, d.Volume)
		}
	}
	switch {
	case len(lost) > 0:
		return out, fail.Refuse("copy these volumes again from the low side, or ask for a new shipment", fmt.Errorf("%d of %d damages are beyond repair: %s", len(lost), len(out.Damage), texts(lost)))
	case repairTo == "":
		return out, fail.Refuse("'enisle import' repairs while it reads; 'enisle verify --repair-to DIR' writes good volumes",
			fmt.Errorf("%d damages, all of which can be repaired: %s", len(out.Damage), texts(out.Damage)))
	}
	if err := os.MkdirAll(repairTo, 0o755); err != nil {
		return out, fail.As(fail.Usage, "give a directory that can be written with --repair-to", err)
	}
	dir, err := os.OpenRoot(repairTo)
	if err != nil {
		return out, err
	}
	if err := errors.Join(m.Repair(h, dir, numbers), dir.Close()); err != nil {
		return out, err
	}
	out.Repaired = numbers
	return out, nil
}

// texts names the first of them; --json lists all.
func texts(all []Damage) string {
	const most = 20
	var words []string
	for _, d := range all[:min(most, len(all))] {
		words = append(words, d.Err.Error())
	}
	if len(all) > most {
		words = append(words, fmt.Sprintf("and %d more", len(all)-most))
	}
	return strings.Join(words, "; ")
}

// Verified is a header whose signatures, sender and recipients are proven.
type Verified struct {
	Header   shipment.Header
	Digest   artifact.Digest // of the signed payload: the identity of the shipment
	Envelope []byte
	Signers  []string // key ids
	Peer     trust.Peer
	Root     trust.Root // the low root it was sealed under
}

// VerifyHeader proves who sealed the shipment on a medium and that it is for
// this site, still in time, and under a low root that is not older than one
// seen before.
func VerifyHeader(ctx context.Context, s *site.Site, m *shipment.Media) (Verified, error) {
	var v Verified
	var err error
	if v.Envelope, err = m.Envelope(); err != nil {
		return v, err
	}
	e, err := trust.Parse(v.Envelope)
	if err == nil {
		v.Header, err = shipment.DecodeHeader(e.Payload)
	}
	if err != nil {
		return v, fail.Refuse("copy header.json again from the low side", fmt.Errorf("header.json: damaged: %w", err))
	}
	v.Digest = artifact.Sum(e.Payload)
	if err := v.checkSender(s); err != nil {
		return v, fmt.Errorf("header.json: %w", err)
	}
	if err := v.checkRoot(ctx, s); err != nil {
		return v, fmt.Errorf("header.json: %w", err)
	}
	pol, err := policy.Parse(s.Policy)
	if err != nil {
		return v, err
	}
	return v, v.checkTime(s.Now(), pol)
}

func (v *Verified) checkSender(s *site.Site) error {
	h := v.Header
	if h.From.Fingerprint == s.Identity.Key.ID() {
		return v.checkOwn(s)
	}
	peer, ok := s.Roots.Root().Peer(h.From.Fingerprint)
	if !ok || peer.Name != h.From.Name {
		return fail.Refuse("pair the site first: 'enisle identity' there, 'enisle pair FILE' here",
			fmt.Errorf("the shipment is from %s (key %.16s), which is not paired with %s", h.From.Name, h.From.Fingerprint, s.Identity.Name))
	}
	v.Peer = peer
	me := slices.IndexFunc(h.To, func(p shipment.Party) bool { return p.Fingerprint == s.Identity.Key.ID() })
	if me < 0 || h.To[me].Name != s.Identity.Name {
		return fail.Refuse("take it to the site it is for", fmt.Errorf("the shipment is for %s, not for %s", h.To[0].Name, s.Identity.Name))
	}
	return v.checkSignatures(peer.Key)
}

// checkOwn lets a low site verify what it packed itself.
func (v *Verified) checkOwn(s *site.Site) error {
	v.Peer = trust.Peer{Identity: s.Identity, Confirmed: true}
	return v.checkSignatures(s.Identity.Key)
}

func (v *Verified) checkSignatures(key trust.Public) error {
	var chain [][]byte
	for _, r := range v.Header.Roots {
		chain = append(chain, r)
	}
	root, err := trust.VerifyChain(chain, key)
	if err != nil {
		return err
	}
	v.Root = root
	_, v.Signers, err = trust.Verify(v.Envelope, shipment.PayloadType, root.Holder(true, trust.Collector))
	if err != nil {
		return err
	}
	collectors := 0
	for _, id := range v.Signers {
		if id != root.Site.Key.ID() {
			collectors++
		}
	}
	if collectors == len(v.Signers) {
		return fail.Refuse("take the shipment again from the low side", errors.New("the site's own signature is missing"))
	}
	if need := root.Thresholds.Collectors; root.With(trust.Collector) > 0 && collectors < need {
		return fail.Refuse("let another collector seal it", fmt.Errorf("signature %d of %d required is missing", collectors+1, need))
	}
	return nil
}

// checkRoot refuses a low root older than, or different from, one seen before.
func (v *Verified) checkRoot(ctx context.Context, s *site.Site) error {
	var seen string
	err := s.State.View(ctx, func(tx *state.Tx) (err error) {
		seen, err = tx.Meta(metaPeerRoot + v.Peer.Key.ID())
		return err
	})
	if err != nil || seen == "" {
		return err
	}
	var version int
	var digest string
	if _, err := fmt.Sscanf(seen, "%d %s", &version, &digest); err != nil {
		return fmt.Errorf("state: remembered root: %w", err)
	}
	if v.Root.Version < version {
		return fail.Refuse("ask the low side for a shipment under its present root",
			fmt.Errorf("it was sealed under version %d of the root of %s; version %d was seen already", v.Root.Version, v.Peer.Name, version))
	}
	if string(artifact.Sum(v.Header.Roots[version-1])) != digest {
		return fail.Refuse("find out which of the two is real", fmt.Errorf("version %d of the root of %s is not the one seen before", version, v.Peer.Name))
	}
	return nil
}

func (v *Verified) checkTime(now time.Time, pol *policy.Policy) error {
	h := v.Header
	if late := h.Created.AddDate(0, 0, pol.Days.Shipment); now.After(late) && !now.After(h.Expires) {
		return fail.Refuse("ask for a new shipment, or check this machine's clock",
			fmt.Errorf("shipment %s was sealed on %s; this site's policy takes shipments for %d days", h.ID, h.Created.Format(time.DateOnly), pol.Days.Shipment))
	}
	if now.After(h.Expires) {
		return fail.Refuse("ask for a new shipment, or check this machine's clock", fmt.Errorf("shipment %s expired on %s", h.ID, h.Expires.Format(time.DateOnly)))
	}
	if now.Before(h.Created.Add(-site.MaxClockBack)) {
		return fail.Refuse("set the clock of this machine, or of the one that sealed it",
			fmt.Errorf("shipment %s was sealed on %s, which by this machine's clock is in the future", h.ID, h.Created.Format(time.RFC3339)))
	}
	return nil
}
