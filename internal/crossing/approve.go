package crossing

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/fail"
	"enisle/internal/judge/policy"
	"enisle/internal/site"
	"enisle/internal/site/state"
	"enisle/internal/site/trust"
)

// ApproveOptions say what is signed.
type ApproveOptions struct {
	Channel string          // the release goes to
	Expect  artifact.Digest // refuse to sign anything else; empty means whatever review shows
	Reason  string          // for a rejection
}

// Approved says where an approval leaves a shipment.
type Approved struct {
	ID     string          `json:"id"`
	By     string          `json:"by"`
	Signed artifact.Digest `json:"signed"` // digest of what was signed
	Have   int             `json:"have"`   // different people whose approvals count
	Need   int             `json:"need"`
}

// Decide signs one person's approval or rejection of a shipment, over exactly
// what review shows. Nobody approves what they packed or imported.
func Decide(ctx context.Context, s *site.Site, by site.Actor, id, decision string, opt ApproveOptions) (Approved, error) {
	var out Approved
	r, err := ReviewShipment(ctx, s, id, opt.Channel)
	if err != nil {
		return out, err
	}
	row := r.Shipment
	if err := mayDecide(s, by, row, decision); err != nil {
		return out, err
	}
	if opt.Expect != "" && opt.Expect != r.Sign {
		return out, fail.Refuse("read 'enisle review "+id+"' again", fmt.Errorf("what would be signed is %s, not %s", r.Sign, opt.Expect))
	}
	if decision == Approve && !r.Judged.Decision.Allow {
		return out, fail.Refuse(refusedHint, fmt.Errorf("the policy refuses it: %s", r.Judged.Decision.Reasons[0]))
	}
	if err := alreadyDecided(by, r, decision); err != nil {
		return out, err
	}
	subject := map[string]string{"shipment": id, "channel": opt.Channel, "signed": string(r.Sign), "report": string(r.Judged.Digest)}
	err = s.Act(ctx, decision, by, subject, func(ctx context.Context, intent int64) (map[string]string, error) {
		return nil, sign(ctx, s, by, r, decision, opt.Reason, intent)
	})
	if err != nil {
		return out, err
	}
	valid, err := approvers(ctx, s, row, r.Subject)
	return Approved{ID: id, By: by.Name, Signed: r.Sign, Have: len(valid), Need: r.Judged.Decision.Needed}, err
}

// refusedHint is what can be done about what the policy refuses.
const refusedHint = "bring another version, let two people waive it ('enisle waive'), or let two admins change the policy ('enisle policy set')"

// mayDecide checks role and separation of duty, by key.
func mayDecide(s *site.Site, by site.Actor, row arrived, decision string) error {
	if by.Key == nil {
		return fail.As(fail.Usage, "give --as NAME --key FILE", errors.New("an approval is signed by a person"))
	}
	if _, err := s.Roots.Root().Holder(false, trust.Approver)(by.ID()); err != nil {
		return fail.Refuse("let an approver decide; after sealing only two admins enrol anybody", err)
	}
	if err := row.wasRejected(); err != nil {
		return err
	}
	if decision == Reject {
		return nil
	}
	return row.separate(by.ID(), by.Name)
}

// alreadyDecided refuses a second approval by the same key: it would look like
// progress and is none.
func alreadyDecided(by site.Actor, r Review, decision string) error {
	if decision != Approve {
		return nil
	}
	if !slices.Contains(r.Approvals, by.Name) {
		return nil
	}
	return fail.Refuse("ask a second approver to run 'enisle approve "+r.ID+" --as NAME --key FILE'",
		fmt.Errorf("%s approved shipment %s already: one person counts once", by.Name, r.ID))
}

func sign(ctx context.Context, s *site.Site, by site.Actor, r Review, decision, reason string, intent int64) error {
	pol, err := policy.Parse(s.Policy)
	if err != nil {
		return err
	}
	now := s.Now()
	payload, err := json.Marshal(Approval{
		Decision: decision, Subject: r.Subject, Reason: reason, Checkpoint: s.Ledger.Head().Note,
		Made: now, Expires: now.AddDate(0, 0, pol.Days.Approval),
	})
	if err != nil {
		return err
	}
	env, err := trust.Sign(ApprovalType, payload, by.Key)
	if err != nil {
		return err
	}
	return s.State.Update(ctx, func(tx *state.Tx) error {
		row := r.Shipment
		if decision == Reject {
			row.Status = state.Rejected
			if err := errors.Join(tx.SetShipment(row.Shipment), tx.SetArrivals(row.ID, nil)); err != nil {
				return err
			}
		}
		a := state.Approval{Shipment: row.ID, Key: by.ID(), Name: by.Name, Channel: r.Subject.Channel, Report: r.Subject.Report, Envelope: env}
		return errors.Join(tx.AddApproval(a), tx.SetEffect(intent, decision+" by "+by.Name))
	})
}

// approvers returns the names of the different people whose approvals are valid
// now and bind exactly this subject.
func approvers(ctx context.Context, s *site.Site, row arrived, want Subject) (names []string, err error) {
	var all []state.Approval
	if err := s.State.View(ctx, func(tx *state.Tx) (err error) { all, err = tx.Approvals(row.ID); return err }); err != nil {
		return nil, err
	}
	keys := map[string]bool{}
	for _, a := range all {
		key, name, err := validApproval(s, a, row, want)
		if err != nil {
			s.Log().InfoContext(ctx, "approval does not count", "shipment", row.ID, "name", a.Name, "why", err.Error())
			continue
		}
		if !keys[key] {
			keys[key] = true
			names = append(names, name)
		}
	}
	return names, nil
}

// validApproval verifies one stored statement against the root of now.
func validApproval(s *site.Site, a state.Approval, row arrived, want Subject) (key, name string, err error) {
	st, p, err := readApproval(s, a, row)
	now := s.Now()
	switch {
	case err != nil:
	case st.Subject.Digest() != want.Digest():
		err = errors.New("is for another content, report, policy, root or channel")
	case now.After(st.Expires) || now.Before(st.Made.Add(-site.MaxClockBack)):
		err = fmt.Errorf("counts from %s to %s", st.Made.Format(time.RFC3339), st.Expires.Format(time.RFC3339))
	}
	return p.Key.ID(), p.Name, err
}

// readApproval verifies that a stored statement is an approval by somebody who
// is an approver now and had no hand in bringing the shipment in, made under a
// head of this ledger.
func readApproval(s *site.Site, a state.Approval, row arrived) (st Approval, p trust.Person, err error) {
	root := s.Roots.Root()
	payload, by, err := trust.Verify(a.Envelope, ApprovalType, root.Holder(false, trust.Approver))
	if err != nil {
		return st, p, err
	}
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(&st); err != nil {
		return st, p, err
	}
	p, _ = root.Person(by[0])
	switch {
	case len(by) != 1:
		err = errors.New("is signed by more than one person")
	case st.Decision != Approve:
		err = errors.New("is not an approval")
	default:
		err = row.separate(by[0], p.Name)
	}
	if err != nil {
		return st, p, err
	}
	head, err := s.Checkpoint(st.Checkpoint)
	if err == nil {
		err = s.Ledger.Extends(head)
	}
	return st, p, err
}

// approvedOnce returns the most people who approved the shipment for the channel
// over one and the same subject, whatever has changed since; only those count
// who are approvers now.
func approvedOnce(ctx context.Context, s *site.Site, row arrived, channel string) (most int, err error) {
	var all []state.Approval
	if err := s.State.View(ctx, func(tx *state.Tx) (err error) { all, err = tx.Approvals(row.ID); return err }); err != nil {
		return 0, err
	}
	keys := map[artifact.Digest]map[string]bool{}
	for _, a := range all {
		st, p, err := readApproval(s, a, row)
		if err != nil || st.Subject.Channel != channel || st.Subject.Header != row.Header || st.Subject.Content != row.Content {
			s.Log().InfoContext(ctx, "approval does not count", "shipment", row.ID, "name", a.Name, "why", fmt.Sprint(err))
			continue
		}
		d := st.Subject.Digest()
		if keys[d] == nil {
			keys[d] = map[string]bool{}
		}
		keys[d][p.Key.ID()] = true
		most = max(most, len(keys[d]))
	}
	return most, nil
}
