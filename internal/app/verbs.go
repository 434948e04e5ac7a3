package app

import (
	"context"
	"errors"
	"path/filepath"

	"enisle/internal/app/config"
	"enisle/internal/artifact"
	"enisle/internal/carry/shipment"
	"enisle/internal/crossing"
	"enisle/internal/site"
	"enisle/internal/site/ledger"
	"enisle/internal/site/state"
)

// Collect brings what a request asks for into the low site.
func (a *App) Collect(ctx context.Context, file string, opt crossing.CollectOptions) (out crossing.Collected, err error) {
	req, err := config.Read(file)
	if err != nil {
		return out, err
	}
	err = a.change(ctx, "collect", func(s *site.Site, by site.Actor) error {
		c, done, err := a.collector(ctx, s, req)
		if err != nil {
			return err
		}
		out, err = c.Collect(ctx, by, req, opt)
		return errors.Join(err, done())
	})
	return out, err
}

// Pack writes the next shipment.
func (a *App) Pack(ctx context.Context, opt crossing.PackOptions) (out crossing.Packed, err error) {
	opt.Progress = a.Progress
	err = a.change(ctx, "pack", func(s *site.Site, by site.Actor) error {
		out, err = crossing.Pack(ctx, s, by, opt)
		return err
	})
	return out, err
}

// Sign adds a collector's signature to a shipment.
func (a *App) Sign(ctx context.Context, id string, opt crossing.SignOptions) (out crossing.Cosigned, err error) {
	err = a.change(ctx, "sign", func(s *site.Site, by site.Actor) error {
		out, err = crossing.SignShipment(ctx, s, by, id, opt)
		return err
	})
	return out, err
}

// Medium says what stands on a medium, and whether this site vouches for it.
type Medium struct {
	Header   shipment.Header `json:"header"`
	Ignored  []string        `json:"ignored"`
	Verified bool            `json:"verified"`      // signatures, sender and recipient are proven
	Why      string          `json:"why,omitempty"` // why not
	crossing.Checked
	Missing []int `json:"missing,omitempty"` // volumes that are on other media
}

// InspectMedia reads the header of a medium without importing anything. Without
// a site, or one that does not know the sender, what it says is only a claim.
func (a *App) InspectMedia(ctx context.Context, dirs ...string) (out Medium, err error) {
	m, err := shipment.OpenMedia(dirs...)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	out.Ignored = m.Ignored
	verr := a.read(ctx, func(s *site.Site) error {
		v, err := crossing.VerifyHeader(ctx, s, m)
		if err == nil {
			err, out.Missing = m.CheckSet(v.Header), m.Missing(v.Header)
		}
		out.Header = v.Header
		return err
	})
	if out.Verified = verr == nil; out.Verified {
		return out, nil
	}
	out.Why = verr.Error()
	if out.Header.ID == "" {
		out.Header, err = crossing.ClaimedHeader(m)
	}
	return out, err
}

// Verify checks every frame on a medium against the roots of the site, and names
// all that is not what was signed. With a directory to repair to, it writes there
// what is damaged or missing, whole, as far as there is parity.
func (a *App) Verify(ctx context.Context, repairTo string, dirs ...string) (out Medium, err error) {
	m, err := shipment.OpenMedia(dirs...)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	out.Ignored = m.Ignored
	err = a.read(ctx, func(s *site.Site) error {
		v, err := crossing.VerifyHeader(ctx, s, m)
		if err != nil {
			return err
		}
		out.Header = v.Header
		out.Checked, err = crossing.Check(ctx, m, v.Header, repairTo, a.Progress)
		return err
	})
	out.Verified = err == nil
	return out, err
}

// Import brings a shipment into quarantine.
func (a *App) Import(ctx context.Context, dirs ...string) (out crossing.Imported, err error) {
	return a.importMedia(ctx, crossing.ImportOptions{From: dirs})
}

// ImportMore is Import of some of the volumes of a shipment: others come later.
func (a *App) ImportMore(ctx context.Context, dirs ...string) (out crossing.Imported, err error) {
	return a.importMedia(ctx, crossing.ImportOptions{From: dirs, More: true})
}

// ImportWith is Import, or with more ImportMore, with a recovery key in the place
// of the site's own.
func (a *App) ImportWith(ctx context.Context, key string, more bool, dirs ...string) (out crossing.Imported, err error) {
	id, err := a.recoveryKey(key)
	if err != nil {
		return out, err
	}
	return a.importMedia(ctx, crossing.ImportOptions{From: dirs, More: more, Identity: id})
}

func (a *App) importMedia(ctx context.Context, opt crossing.ImportOptions) (out crossing.Imported, err error) {
	opt.Progress, opt.Passphrase = a.Progress, a.askSite()
	err = a.change(ctx, "import", func(s *site.Site, by site.Actor) error {
		out, err = crossing.Import(ctx, s, by, opt)
		return err
	})
	return out, err
}

// Receipt says what arrived from a low site.
func (a *App) Receipt(ctx context.Context, peer string) (out crossing.Received, err error) {
	err = a.change(ctx, "receipt", func(s *site.Site, by site.Actor) error {
		out, err = crossing.MakeReceipt(ctx, s, by, peer)
		return err
	})
	return out, err
}

// AddReceipt takes an island's receipt, as its file holds it.
func (a *App) AddReceipt(ctx context.Context, file []byte) (out crossing.Told, err error) {
	err = a.change(ctx, "receipt add", func(s *site.Site, by site.Actor) error {
		out, err = crossing.AddReceipt(ctx, s, by, file)
		return err
	})
	return out, err
}

// AddReceiptCode takes an island's receipt as a code that somebody typed.
func (a *App) AddReceiptCode(ctx context.Context, code string) (out crossing.Told, err error) {
	err = a.change(ctx, "receipt add", func(s *site.Site, by site.Actor) error {
		out, err = crossing.AddReceiptCode(ctx, s, by, code)
		return err
	})
	return out, err
}

// Inspect runs the scanners over a shipment.
func (a *App) Inspect(ctx context.Context, id string) (out crossing.Judged, err error) {
	err = a.change(ctx, "inspect", func(s *site.Site, by site.Actor) error {
		in, done, err := a.inspector(ctx, s)
		if err != nil {
			return err
		}
		out, err = crossing.Inspect(ctx, s, by, id, in, a.Progress)
		return errors.Join(err, done())
	})
	return out, err
}

// Holding lists the shipments that hold an artifact, by its reference.
func (a *App) Holding(ctx context.Context, ref string) (ids []string, err error) {
	err = a.read(ctx, func(s *site.Site) error { ids, err = crossing.Holding(ctx, s, ref); return err })
	return ids, err
}

// Rematch holds what was inspected before against the vulnerability data of now.
func (a *App) Rematch(ctx context.Context, id string) (out crossing.Judged, err error) {
	err = a.change(ctx, "inspect", func(s *site.Site, by site.Actor) error {
		in, done, err := a.inspector(ctx, s)
		if err != nil {
			return err
		}
		out, err = crossing.Rematch(ctx, s, by, id, in)
		return errors.Join(err, done())
	})
	return out, err
}

// Shipments lists what is at the island.
func (a *App) Shipments(ctx context.Context) (out []state.Shipment, err error) {
	err = a.read(ctx, func(s *site.Site) error { out, err = crossing.Shipments(ctx, s); return err })
	return out, err
}

// Review gathers what an approver reads and signs.
func (a *App) Review(ctx context.Context, id, channel string) (out crossing.Review, err error) {
	err = a.read(ctx, func(s *site.Site) error { out, err = crossing.ReviewShipment(ctx, s, id, channel); return err })
	return out, err
}

// Evidence gathers everything about a shipment.
func (a *App) Evidence(ctx context.Context, id, channel string) (out crossing.Evidence, err error) {
	if err := crossing.CheckChannel(channel); err != nil {
		return out, err
	}
	err = a.read(ctx, func(s *site.Site) error { out, err = crossing.GatherEvidence(ctx, s, id, channel); return err })
	return out, err
}

// Decide signs one person's approval or rejection.
func (a *App) Decide(ctx context.Context, id, decision string, opt crossing.ApproveOptions) (out crossing.Approved, err error) {
	if err := crossing.CheckChannel(opt.Channel); err != nil {
		return out, err
	}
	err = a.change(ctx, decision, func(s *site.Site, by site.Actor) error {
		out, err = crossing.Decide(ctx, s, by, id, decision, opt)
		return err
	})
	return out, err
}

// Waive begins a waiver with one person's signature.
func (a *App) Waive(ctx context.Context, id string, opt crossing.WaiveOptions) (out crossing.Waived, err error) {
	err = a.change(ctx, "waive", func(s *site.Site, by site.Actor) error {
		out, err = crossing.Waive(ctx, s, by, id, opt)
		return err
	})
	return out, err
}

// SignWaiver adds the second person's signature to a waiver.
func (a *App) SignWaiver(ctx context.Context, digest artifact.Digest) (out crossing.Waived, err error) {
	err = a.change(ctx, "waive", func(s *site.Site, by site.Actor) error {
		out, err = crossing.SignWaiver(ctx, s, by, digest)
		return err
	})
	return out, err
}

// Waivers lists every waiver of the site.
func (a *App) Waivers(ctx context.Context) (out []crossing.Waived, err error) {
	err = a.read(ctx, func(s *site.Site) error { out, err = crossing.Waivers(ctx, s); return err })
	return out, err
}

// Release flips a channel to a release with the shipment.
func (a *App) Release(ctx context.Context, id, channel string) (out crossing.Released, err error) {
	err = a.change(ctx, "release", func(s *site.Site, by site.Actor) error {
		out, err = crossing.Release(ctx, s, by, id, channel, a.indexes(), a.Progress)
		return err
	})
	return out, err
}

// SBOM says what a release consists of; number 0 is that of the channel.
func (a *App) SBOM(ctx context.Context, channel string, number int64) (out []byte, err error) {
	if err := crossing.CheckChannel(channel); err != nil {
		return nil, err
	}
	err = a.read(ctx, func(s *site.Site) error { out, err = crossing.SBOM(ctx, s, channel, number); return err })
	return out, err
}

// GC removes the files that no kept release needs.
func (a *App) GC(ctx context.Context, opt crossing.GCOptions) (out crossing.Collection, err error) {
	err = a.change(ctx, "gc", func(s *site.Site, by site.Actor) error { out, err = crossing.GC(ctx, s, by, opt); return err })
	return out, err
}

// Recalls lists what was recalled.
func (a *App) Recalls(ctx context.Context) (out []state.Recall, err error) {
	err = a.read(ctx, func(s *site.Site) error { out, err = crossing.Recalls(ctx, s); return err })
	return out, err
}

// Rollback flips a channel back.
func (a *App) Rollback(ctx context.Context, channel string, to int64) (out crossing.Released, err error) {
	err = a.change(ctx, "rollback", func(s *site.Site, by site.Actor) error {
		out, err = crossing.Rollback(ctx, s, by, channel, to, a.indexes())
		return err
	})
	return out, err
}

// Records calls do for every record of the ledger, in order.
func (a *App) Records(ctx context.Context, do func(ledger.Record) error) error {
	return a.read(ctx, func(s *site.Site) error { return s.Ledger.Each(do) })
}

// Served lists what a channel serves.
func (a *App) Served(ctx context.Context, channel string) (out []artifact.Artifact, err error) {
	err = a.read(ctx, func(s *site.Site) error {
		v, err := crossing.ServedBy(ctx, s, channel)
		if err == nil {
			out = v.Artifacts("")
		}
		return err
	})
	return out, err
}

// LockFile is the lock beside a request.
func LockFile(request string) string { return filepath.Clean(crossing.LockFile(request)) }

// AddCustody signs an event of a medium.
func (a *App) AddCustody(ctx context.Context, opt crossing.CustodyOptions) (out crossing.Custody, err error) {
	err = a.change(ctx, "custody", func(s *site.Site, by site.Actor) error {
		out, err = crossing.AddCustody(ctx, s, by, opt)
		return err
	})
	return out, err
}

// Custody proves and tells the story of a medium.
func (a *App) Custody(ctx context.Context, log string) (out crossing.Custody, err error) {
	err = a.read(ctx, func(s *site.Site) error { out, err = crossing.ReadCustody(ctx, s, log); return err })
	return out, err
}

// Labels writes label and manifest of a medium.
func (a *App) Labels(ctx context.Context, log, to string) (names []string, err error) {
	err = a.read(ctx, func(s *site.Site) error { names, err = crossing.Labels(ctx, s, log, to); return err })
	return names, err
}
