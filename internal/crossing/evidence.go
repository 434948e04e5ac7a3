package crossing

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"html/template"
	"os"
	"path/filepath"
	"time"

	"enisle/internal/carry/shipment"
	"enisle/internal/fail"
	"enisle/internal/site"
	"enisle/internal/site/ledger"
	"enisle/internal/site/state"
	"enisle/internal/site/trust"
)

// evidencePage is constant.
//
//go:embed evidence.html
var evidencePage string

// Evidence is everything about one shipment that an approver reads and an auditor
// keeps: what came, what was found, by which scanners and data, what the policy
// said, who decided, and what the record says of it.
type Evidence struct {
	Format    string          `json:"format"`
	Made      time.Time       `json:"made"`
	Site      shipment.Party  `json:"site"`
	Review    Review          `json:"review"`
	Policy    string          `json:"policy"`
	Decisions []Decided       `json:"decisions"`
	Waivers   []Waived        `json:"waivers"`
	Records   []ledger.Record `json:"records"` // of the ledger, that name the shipment
	Head      string          `json:"head"`    // of the ledger when this was made
}

// Decided is one person's signed statement, and whether it counts now.
type Decided struct {
	Name     string          `json:"name"`
	Key      string          `json:"key"`
	Counts   string          `json:"counts,omitempty"` // why it does not; empty if it does
	Approval Approval        `json:"approval"`
	Envelope json.RawMessage `json:"envelope"` // as it was signed
}

// GatherEvidence collects it for a channel. It changes nothing.
func GatherEvidence(ctx context.Context, s *site.Site, id, channel string) (out Evidence, err error) {
	r, err := ReviewShipment(ctx, s, id, channel)
	if err != nil {
		return out, err
	}
	out = Evidence{
		Format: "enisle-evidence/1", Made: s.Now(), Site: r.Subject.Site, Review: r, Policy: string(s.Policy),
		Decisions: []Decided{}, Records: []ledger.Record{}, Head: s.Ledger.Head().Note,
	}
	var all []state.Approval
	if err := s.State.View(ctx, func(tx *state.Tx) (err error) { all, err = tx.Approvals(id); return err }); err != nil {
		return out, err
	}
	for _, a := range all {
		d := Decided{Name: a.Name, Key: a.Key, Envelope: a.Envelope}
		if e, perr := trust.Parse(a.Envelope); perr != nil || json.Unmarshal(e.Payload, &d.Approval) != nil {
			d.Counts = "it cannot be read"
		} else if _, _, verr := validApproval(s, a, r.Shipment, r.Subject); verr != nil {
			d.Counts = verr.Error()
		}
		out.Decisions = append(out.Decisions, d)
	}
	var kept []state.Waiver
	if err := s.State.View(ctx, func(tx *state.Tx) (err error) { kept, err = tx.Waivers(id); return err }); err != nil {
		return out, err
	}
	for _, k := range kept {
		w, werr := readWaiver(s, r.Shipment, k)
		if werr != nil {
			w.Counts = werr.Error()
		}
		out.Waivers = append(out.Waivers, w)
	}
	return out, out.records(s, r.Shipment)
}

// records gathers what the ledger says of the shipment: intents that name it, and
// how they ended.
func (e *Evidence) records(s *site.Site, row arrived) error {
	about := map[int64]bool{}
	return s.Ledger.Each(func(r ledger.Record) error {
		mine := r.Subject["shipment"] == row.ID || r.Subject["header"] == string(row.Header)
		if r.Phase == ledger.Intent && mine {
			about[r.Index] = true
		}
		if about[r.Index] || r.Intent != nil && about[*r.Intent] {
			e.Records = append(e.Records, r)
		}
		return nil
	})
}

// Write writes evidence.json, and for people evidence.html, into a directory.
func (e Evidence) Write(to string) (names []string, err error) {
	page, err := template.New("evidence").Parse(evidencePage)
	if err != nil {
		return nil, err
	}
	var html bytes.Buffer
	if err := page.Execute(&html, e); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(e, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return nil, fail.As(fail.Usage, "name a directory that can be written with --to", err)
	}
	dir, err := os.OpenRoot(to)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	for _, f := range []paper{{"evidence.json", append(b, '\n')}, {"evidence.html", html.Bytes()}} {
		if err := shipment.WriteFile(dir, f.name, f.content); err != nil {
			return names, err
		}
		names = append(names, filepath.Join(to, f.name))
	}
	return names, nil
}
