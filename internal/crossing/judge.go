package crossing

import (
	"cmp"
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

// Inspector runs every scanner over artifacts.
type Inspector interface {
	Inspect(ctx context.Context, artifacts []artifact.Artifact, open inspect.Open, done func(n int64)) (inspect.Report, error)
	// Lookup matches the components that a report noted against vulnerability
	// data, an artifact of the kind vulndb.
	Lookup(ctx context.Context, r inspect.Report, data artifact.Artifact, open inspect.Open) (Looked, error)
}

// Looked is what was found in one set of vulnerability data.
type Looked struct {
	Findings   []inspect.Finding
	Database   inspect.Database
	Advisories map[string]int             // by ecosystem
	Missing    map[string]inspect.Finding // ecosystems that components are of and the data has nothing about
}

// Judged is a report and what the policy says to it.
type Judged struct {
	Report   inspect.Report  `json:"report"`
	Digest   artifact.Digest `json:"digest"` // of the signed report
	Decision policy.Decision `json:"decision"`
}

// Inspect runs the scanners over a shipment and signs a report. The report is
// immutable: inspecting again makes a new one, which voids the approvals given to
// the old.
func Inspect(ctx context.Context, s *site.Site, by site.Actor, id string, in Inspector, progress Progress) (Judged, error) {
	return judgeAgain(ctx, s, by, id, func(ctx context.Context, row arrived, got set) (inspect.Report, error) {
		r, err := in.Inspect(ctx, got.artifacts, openBlob(s), progress.start("inspecting", got.bytes()))
		if err == nil {
			err = lookUp(ctx, s, in, row, got, &r)
		}
		if err == nil {
			err = attest(ctx, s, row, got, &r)
		}
		return r, err
	})
}

// Rematch makes a new report out of the newest: what the scanners found stays, and
// the components they noted are matched against the vulnerability data of now. No
// file is read.
func Rematch(ctx context.Context, s *site.Site, by site.Actor, id string, in Inspector) (Judged, error) {
	return judgeAgain(ctx, s, by, id, func(ctx context.Context, row arrived, got set) (inspect.Report, error) {
		r, _, err := currentReport(ctx, s, row)
		if err != nil {
			return r, err
		}
		r.Findings = slices.DeleteFunc(r.Findings, func(f inspect.Finding) bool {
			return f.Scanner == vulnScanner || f.Scanner == vulndbKind && f.File == ""
		})
		r.Scanned = r.Read() // looking things up makes nothing of it younger
		r.Databases = slices.DeleteFunc(r.Databases, func(d inspect.Database) bool { return d.Name == osvName })
		return r, lookUp(ctx, s, in, row, got, &r)
	})
}

// What is made anew when there is new vulnerability data: findings of this scanner,
// and databases of this name.
const (
	vulnScanner = "vuln"
	osvName     = "osv"
)

// judgeAgain makes and keeps a report.
func judgeAgain(ctx context.Context, s *site.Site, by site.Actor, id string, report func(context.Context, arrived, set) (inspect.Report, error)) (Judged, error) {
	var out Judged
	row, err := findShipment(ctx, s, id)
	if err != nil {
		return out, err
	}
	got, err := readSet(openAny(s), row.Content)
	if err != nil {
		return out, err
	}
	subject := map[string]string{"shipment": row.ID, "content": string(row.Content)}
	err = s.Act(ctx, "inspect", by, subject, func(ctx context.Context, intent int64) (map[string]string, error) {
		r, err := report(ctx, row, got)
		if err != nil {
			return nil, err
		}
		r.Format, r.Shipment, r.Content, r.Made = inspect.ReportFormat, row.ID, row.Content, s.Now()
		payload, err := json.Marshal(r)
		if err != nil {
			return nil, err
		}
		env, err := trust.Sign(inspect.ReportType, payload, s.Key)
		if err != nil {
			return nil, err
		}
		d, err := s.Held.Put(env)
		if err != nil {
			return nil, err
		}
		out.Report, out.Digest = r, d
		err = s.State.Update(ctx, func(tx *state.Tx) error {
			return errors.Join(tx.AddReport(row.ID, d, r.Made), tx.SetEffect(intent, "report "+string(d)))
		})
		return map[string]string{"report": string(d)}, err
	})
	if err != nil {
		return out, err
	}
	out.Decision, err = decideContent(ctx, s, row, out.Report)
	return out, err
}

func decideContent(ctx context.Context, s *site.Site, row arrived, r inspect.Report) (policy.Decision, error) {
	pol, err := policy.Parse(s.Policy)
	if err != nil {
		return policy.Decision{}, err
	}
	c, err := caseOf(ctx, s, row, r)
	if err != nil {
		return policy.Decision{}, err
	}
	return pol.Content(c), nil
}

// caseOf gathers everything a decision is made from, but for the approvals.
func caseOf(ctx context.Context, s *site.Site, row arrived, r inspect.Report) (policy.Case, error) {
	h, err := headerOf(row.Envelope)
	if err != nil {
		return policy.Case{}, err
	}
	waivers, err := waiversFor(ctx, s, row)
	gap := slices.ContainsFunc(row.Notes, func(n string) bool { return strings.HasPrefix(n, GapNote) })
	return policy.Case{
		Report: r, Waivers: waivers, Needed: s.Roots.Root().Thresholds.Approvers, Now: s.Now(),
		Shipment: policy.Shipment{From: h.From.Name, Request: row.Request, Sequence: int64(row.Sequence), Gap: gap, Unproven: row.unproven()},
	}, err
}

// Shipments returns what is at the island, oldest first; what is still being
// imported is not among it.
func Shipments(ctx context.Context, s *site.Site) (all []state.Shipment, err error) {
	err = s.State.View(ctx, func(tx *state.Tx) (err error) { all, err = tx.Shipments(); return err })
	return slices.DeleteFunc(all, func(row state.Shipment) bool { return row.Status == state.Importing }), err
}

// currentReport returns the newest report of a shipment, after verifying that
// the site signed it and that it is about this content.
func currentReport(ctx context.Context, s *site.Site, row arrived) (r inspect.Report, d artifact.Digest, err error) {
	ok := false
	err = s.State.View(ctx, func(tx *state.Tx) (err error) { d, ok, err = tx.Report(row.ID); return err })
	if err != nil {
		return r, d, err
	}
	if !ok {
		return r, d, fail.Refuse("run 'enisle inspect "+row.ID+"'", fmt.Errorf("shipment %s was not inspected", row.ID))
	}
	env, err := s.Held.ReadSmall(d, 1<<30)
	if err != nil {
		return r, d, fail.Refuse("run 'enisle inspect "+row.ID+"' again", fmt.Errorf("report: %w", err))
	}
	payload, _, err := trust.Verify(env, inspect.ReportType, s.Roots.Root().Holder(true))
	if err != nil {
		return r, d, fmt.Errorf("report: %w", err)
	}
	if r, err = inspect.DecodeReport(payload); err != nil {
		return r, d, err
	}
	if r.Content != row.Content || r.Shipment != row.ID {
		return r, d, fail.Refuse("run 'enisle inspect "+row.ID+"' again", errors.New("report: is about another shipment"))
	}
	if d != row.report {
		return r, d, fail.Refuse("run 'enisle inspect "+row.ID+"' again", errors.New("report: it is not the newest on record: the site's state was changed or taken back"))
	}
	return r, d, nil
}

// Subject is exactly what an approver signs: change any of it and the approval
// is void.
type Subject struct {
	Site        shipment.Party  `json:"site"`
	Shipment    string          `json:"shipment"`
	Header      artifact.Digest `json:"header"`
	Content     artifact.Digest `json:"content"`
	Report      artifact.Digest `json:"report"`
	Policy      artifact.Digest `json:"policy"`
	Waivers     []string        `json:"waivers"`
	RootVersion int             `json:"rootVersion"`
	Channel     string          `json:"channel"`
}

// Digest is what review prints and what approve --expect compares.
func (q Subject) Digest() artifact.Digest {
	b, _ := json.Marshal(q) // strings and numbers only; cannot fail
	return artifact.Sum(b)
}

// ApprovalType is the payload type of an approval.
const ApprovalType = "application/vnd.enisle.approval.v1+json"

// Decisions an approver may sign.
const (
	Approve = "approve"
	Reject  = "reject"
)

// Approval is one person's signed statement.
type Approval struct {
	Decision   string    `json:"decision"`
	Subject    Subject   `json:"subject"`
	Reason     string    `json:"reason,omitempty"`
	Checkpoint string    `json:"checkpoint"` // the ledger's head it was made under
	Made       time.Time `json:"made"`
	Expires    time.Time `json:"expires"`
}

func subjectOf(s *site.Site, row arrived, report artifact.Digest, d policy.Decision, channel string) Subject {
	return Subject{
		Site: shipment.Party{Name: s.Identity.Name, Fingerprint: s.Identity.Key.ID()}, Shipment: row.ID, Header: row.Header, Content: row.Content,
		Report: report, Policy: artifact.Sum(s.Policy), Waivers: waiversIn(d), RootVersion: s.Roots.Root().Version, Channel: channel,
	}
}

// Review is everything an approver should read before signing.
type Review struct {
	Shipment  arrived             `json:"-"`
	ID        string              `json:"id"`
	From      string              `json:"from"`
	Sequence  uint64              `json:"sequence"`
	Status    string              `json:"status"`
	Sealed    time.Time           `json:"sealed"`
	Expires   time.Time           `json:"expires"`
	Importer  string              `json:"importer"`
	Notes     []string            `json:"notes"`
	New       []artifact.Artifact `json:"new"`     // not in the channel's release
	Changed   []artifact.Artifact `json:"changed"` // in it with other content
	Same      int                 `json:"same"`
	Gone      []string            `json:"gone"`      // in the release under this request, not in this shipment
	Updates   []Update            `json:"updates"`   // of those, the ones that a new version takes the place of
	Files     []FileChange        `json:"files"`     // in changed artifacts
	Licences  []Licence           `json:"licences"`  // of everything in it, most frequent first
	Templates []TemplateChange    `json:"templates"` // chat templates that are new or changed
	Judged    Judged              `json:"judged"`
	Subject   Subject             `json:"subject"`
	Sign      artifact.Digest     `json:"sign"` // digest of Subject
	Approvals []string            `json:"approvals"`
}

// Update is an artifact that comes in another version.
type Update struct {
	Name string `json:"name"` // kind and name
	From string `json:"from"`
	To   string `json:"to"`
}

// FileChange is a file that differs between what is served and what came under the
// same reference.
type FileChange struct {
	Artifact string `json:"artifact"`
	Path     string `json:"path"`
	Change   string `json:"change"` // added, removed, changed
	From     int64  `json:"from"`   // bytes
	To       int64  `json:"to"`
}

// Licence is how many artifacts have a licence.
type Licence struct {
	Name      string `json:"name"`
	Artifacts int    `json:"artifacts"`
}

// ReviewShipment gathers what an approver signs for a channel. It changes
// nothing.
func ReviewShipment(ctx context.Context, s *site.Site, id, channel string) (Review, error) {
	row, err := findShipment(ctx, s, id)
	if err != nil {
		return Review{}, err
	}
	h, err := headerOf(row.Envelope)
	if err != nil {
		return Review{}, err
	}
	out := Review{
		Shipment: row, ID: row.ID, From: h.From.Name, Sequence: row.Sequence, Status: row.Status, Sealed: h.Created, Expires: h.Expires,
		Importer: row.importedBy(), Notes: row.Notes,
	}
	if err := out.compare(ctx, s, row, channel); err != nil {
		return out, err
	}
	if out.Judged.Report, out.Judged.Digest, err = currentReport(ctx, s, row); err != nil {
		return out, err
	}
	if out.Judged.Decision, err = decideContent(ctx, s, row, out.Judged.Report); err != nil {
		return out, err
	}
	out.Licences = licencesIn(out.Judged.Report)
	now, err := ServedBy(ctx, s, channel)
	if err != nil && !errors.Is(err, ErrNoRelease) {
		return out, err
	}
	if out.Templates, err = templates(ctx, s, out.Judged.Report, now); err != nil {
		return out, err
	}
	out.Subject = subjectOf(s, row, out.Judged.Digest, out.Judged.Decision, channel)
	out.Sign = out.Subject.Digest()
	out.Approvals, err = approvers(ctx, s, row, out.Subject)
	return out, err
}

// compare sorts the artifacts into new, changed and same, against what the
// channel serves now.
func (r *Review) compare(ctx context.Context, s *site.Site, row arrived, channel string) error {
	got, err := readSet(openAny(s), row.Content)
	if err != nil {
		return err
	}
	now, err := ServedBy(ctx, s, channel)
	if err != nil && !errors.Is(err, ErrNoRelease) {
		return err
	}
	served := map[artifact.Ref]artifact.Artifact{}
	for _, a := range now.artifacts {
		served[a.Ref] = a
	}
	for _, a := range got.artifacts {
		old, ok := served[a.Ref]
		switch {
		case !ok:
			r.New = append(r.New, a)
		case old.Manifest != a.Manifest:
			r.Changed = append(r.Changed, a)
			r.Files = append(r.Files, fileChanges(old, a)...)
		default:
			r.Same++
		}
	}
	for _, a := range now.byRequest[row.Request] {
		if !slices.ContainsFunc(got.artifacts, func(b artifact.Artifact) bool { return a.Ref == b.Ref }) {
			r.Gone = append(r.Gone, a.Ref.String())
			for _, b := range r.New {
				if b.Ref.Kind == a.Ref.Kind && b.Ref.Name == a.Ref.Name {
					r.Updates = append(r.Updates, Update{a.Ref.Kind + "/" + a.Ref.Name, a.Ref.Version, b.Ref.Version})
				}
			}
		}
	}
	return nil
}

// fileChanges lists how the files of two artifacts differ, by path.
func fileChanges(old, now artifact.Artifact) (out []FileChange) {
	had := map[string]artifact.File{}
	for _, f := range old.Files {
		had[f.Path] = f
	}
	for _, f := range now.Files {
		was, ok := had[f.Path]
		delete(had, f.Path)
		switch {
		case !ok:
			out = append(out, FileChange{now.Ref.String(), f.Path, "added", 0, f.Size})
		case was.Digest != f.Digest:
			out = append(out, FileChange{now.Ref.String(), f.Path, "changed", was.Size, f.Size})
		}
	}
	for _, f := range had {
		out = append(out, FileChange{now.Ref.String(), f.Path, "removed", f.Size, 0})
	}
	slices.SortFunc(out, func(a, b FileChange) int { return compare(a.Path, b.Path) })
	return out
}

// licencesIn counts the licences that packages state.
func licencesIn(r inspect.Report) (out []Licence) {
	seen := map[[2]string]bool{}
	index := map[string]int{}
	for _, f := range r.Facts {
		key := [2]string{f.Value, f.Artifact}
		if f.Kind != inspect.Licence || seen[key] {
			continue
		}
		seen[key] = true
		i, ok := index[f.Value]
		if !ok {
			i = len(out)
			index[f.Value] = i
			out = append(out, Licence{Name: f.Value})
		}
		out[i].Artifacts++
	}
	slices.SortFunc(out, func(a, b Licence) int { return cmp.Or(b.Artifacts-a.Artifacts, compare(a.Name, b.Name)) })
	return out
}
