package crossing

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"filippo.io/age"
	"golang.org/x/sync/errgroup"

	"enisle/internal/artifact"
	"enisle/internal/carry/shipment"
	"enisle/internal/disk"
	"enisle/internal/fail"
	"enisle/internal/judge/policy"
	"enisle/internal/site"
	"enisle/internal/site/state"
	"enisle/internal/site/trust"
)

// ImportOptions say what is imported.
type ImportOptions struct {
	From       []string // directories with the shipment; never written to
	More       bool     // other volumes come later: load what is here
	Passphrase func() (string, error)
	Identity   age.Identity // opens the frames; nil means the site's own
	Progress   Progress
	// MarkEvery is how many bytes are read between two points from which a run can
	// be taken up; 0 means 1 GiB.
	MarkEvery int64
}

// Imported says what came in.
type Imported struct {
	ID        string   `json:"id"`
	Sequence  uint64   `json:"sequence"`
	Content   string   `json:"content"`
	Artifacts int      `json:"artifacts"`
	Bytes     int64    `json:"bytes"`
	Already   bool     `json:"already"` // it was imported before: nothing was done
	Resumed   bool     `json:"resumed"`
	Sealed    bool     `json:"sealed"`            // this run sealed the site's people
	Missing   []int    `json:"missing,omitempty"` // volumes that are still to come
	Notes     []string `json:"notes"`
	Ignored   []string `json:"ignored"` // names on the medium that an operating system left
	// Repaired is what was damaged or missing on the media and given back by parity.
	Repaired []Damage `json:"repaired"`
}

// metaPeerRoot remembers, per low site, the newest root seen.
const metaPeerRoot = "peer-root."

// Import verifies a shipment frame by frame and brings its content into
// quarantine. Until all of it is verified nothing can see any of it. A run that
// was interrupted is taken up at the frame; the same shipment again is done at
// once. The first import seals the site's people.
func Import(ctx context.Context, s *site.Site, by site.Actor, opt ImportOptions) (_ Imported, err error) {
	if err := s.Require(trust.High); err != nil {
		return Imported{}, err
	}
	m, err := shipment.OpenMedia(opt.From...)
	if err != nil {
		return Imported{}, err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	v, err := VerifyHeader(ctx, s, m)
	if err != nil {
		return Imported{}, err
	}
	im := &importing{site: s, media: m, verified: v, opt: opt, by: by}
	im.out = Imported{
		ID: v.Header.ID, Sequence: v.Header.Sequence, Content: string(v.Header.Content),
		Artifacts: v.Header.Artifacts, Bytes: v.Header.Bytes, Ignored: m.Ignored, Repaired: []Damage{},
	}
	if done, err := im.admit(ctx); done || err != nil {
		return im.out, err
	}
	if err := im.findBase(ctx); err != nil {
		return im.out, err
	}
	if err := im.checkSet(); err != nil {
		return im.out, err
	}
	if err := im.preflight(); err != nil {
		return im.out, err
	}
	if im.identity = opt.Identity; im.identity == nil {
		if im.identity, err = s.AgeIdentity(opt.Passphrase); err != nil {
			return im.out, err
		}
	}
	subject := map[string]string{"shipment": v.Header.ID, "header": string(v.Digest), "content": string(v.Header.Content), "low-checkpoint": string(artifact.Sum([]byte(v.Header.Checkpoint)))}
	err = s.Act(ctx, "import", by, subject, func(ctx context.Context, intent int64) (_ map[string]string, err error) {
		if im.out.Sealed, err = s.Roots.Seal(s.Key, s.Now()); err != nil {
			return nil, err
		}
		return nil, im.run(ctx, intent)
	})
	return im.out, err
}

// importing is one run of Import.
type importing struct {
	site     *site.Site
	media    *shipment.Media
	verified Verified
	opt      ImportOptions
	by       site.Actor
	identity age.Identity
	row      state.Shipment
	base     map[artifact.Digest]bool // blobs that the volumes leave out
	mend     bool                     // it was imported before, and some of its content is gone
	sink     *sink
	out      Imported
}

// admit compares the shipment with the chain of its stream: done means that it
// was imported before.
func (im *importing) admit(ctx context.Context) (done bool, err error) {
	s, h := im.site, im.verified.Header
	pol, err := policy.Parse(s.Policy)
	if err != nil {
		return false, err
	}
	if err := im.admitActor(pol); err != nil {
		return false, err
	}
	stream := streamOf(h.From, h.To)
	err = s.State.View(ctx, func(tx *state.Tx) error {
		row, ok, err := tx.ShipmentByHeader(im.verified.Digest)
		if err != nil {
			return err
		}
		if ok && row.Status != state.Importing {
			im.row, im.out.Notes = row, row.Notes
			im.mend = !whole(im.site, row)
			done, im.out.Already = !im.mend, !im.mend
			return nil
		}
		if ok {
			im.row, im.out.Resumed = row, len(row.Marks) > 0
		}
		last, ok, err := tx.LastImported(stream)
		if err != nil {
			return err
		}
		return im.follows(last, ok)
	})
	if im.mend || done {
		return done, err
	}
	im.row.ID, im.row.Header, im.row.Envelope = h.ID, im.verified.Digest, im.verified.Envelope
	im.row.Stream, im.row.Sequence, im.row.Content = stream, h.Sequence, h.Content
	im.row.Status, im.row.Importer, im.row.Notes = state.Importing, im.by.ID(), im.out.Notes
	return done, err
}

// whole reports whether every blob of a shipment is held.
func whole(s *site.Site, row state.Shipment) bool {
	got, err := readSet(openAny(s), row.Content)
	if err != nil {
		return false
	}
	for _, b := range got.blobs {
		if row.Status != state.Rejected && !s.Held.Has(b.digest) && !s.Quarantine.Has(b.digest) {
			return false
		}
	}
	return true
}

func (im *importing) admitActor(pol *policy.Policy) error {
	r := im.site.Roots.Root()
	if pol.People.ProvenActors && im.by.Key == nil {
		return fail.Refuse("give --as NAME --key FILE", errors.New("the policy wants to know who imports"))
	}
	if im.by.Key != nil {
		if _, err := r.Holder(false, trust.Importer, trust.Officer, trust.Admin)(im.by.ID()); err != nil {
			return fail.Refuse("let an importer do it", err)
		}
	}
	if pol.People.TwoAdmins && !im.site.Roots.Sealed() && r.With(trust.Admin) < 2 {
		return fail.Refuse("enrol two admins first: 'enisle person add NAME --role admin --key FILE.pub'", errors.New("the policy refuses to seal a site without two admins"))
	}
	if !im.verified.Peer.Confirmed {
		const note = "the fingerprint of the low site was never compared; confirm it with 'enisle pair FILE --expect FINGERPRINT'"
		if pol.People.ConfirmedPeers {
			return fail.Refuse("compare it by voice or on paper: 'enisle pair FILE --expect FINGERPRINT'", errors.New("the policy refuses sites whose fingerprint was never compared"))
		}
		im.out.Notes = append(im.out.Notes, note)
	}
	return nil
}

// GapNote begins the note of a shipment before which one never arrived.
const GapNote = "gap: "

func (im *importing) follows(last state.Shipment, ok bool) error {
	h := im.verified.Header
	switch {
	case !ok && h.Sequence > 1:
		im.out.Notes = append(im.out.Notes, fmt.Sprintf("%sshipments 1 to %d of this stream never arrived", GapNote, h.Sequence-1))
	case !ok:
	case h.Sequence <= last.Sequence:
		return fail.Refuse("this is an older or a copied shipment; ask the low side for a new one",
			fmt.Errorf("shipment %s has number %d, but %s with number %d was imported already: a replay is refused", h.ID, h.Sequence, last.ID, last.Sequence))
	case h.Sequence == last.Sequence+1 && h.Previous != last.Header:
		return fail.Refuse("find out who sealed it: the low site's record and this one differ",
			fmt.Errorf("shipment %s does not follow %s, which was imported before it", h.ID, last.ID))
	case h.Sequence > last.Sequence+1:
		im.out.Notes = append(im.out.Notes, fmt.Sprintf("%sshipments %d to %d of this stream never arrived", GapNote, last.Sequence+1, h.Sequence-1))
	}
	return nil
}

// checkSet compares the media with the header. Volumes that an earlier run read to
// their end need not be here; others may be missing only if more is to come.
func (im *importing) checkSet() error {
	h := im.verified.Header
	if err := im.media.CheckSet(h); err != nil {
		return err
	}
	for _, n := range im.media.Missing(h) {
		if im.mend || im.row.Marks[n] < h.Volumes[n-1].Frames {
			im.out.Missing = append(im.out.Missing, n)
		}
	}
	if len(im.out.Missing) > 0 && (!im.opt.More || im.mend) {
		return fail.Refuse("name the directories of all media; or load one after the other, with --more", fmt.Errorf("volume %d of %d is missing", im.out.Missing[0], len(h.Volumes)))
	}
	return nil
}

// preflight refuses to begin what cannot end. What an interrupted run brought in
// already is not asked for again.
func (im *importing) preflight() error {
	if im.out.Resumed || im.mend {
		return nil
	}
	free, err := disk.Free(im.site.Dir)
	if err == nil && im.verified.Header.Carried.Bytes > free {
		err = fail.As(fail.Partial, "free some space and run the same command again",
			fmt.Errorf("shipment %s brings %d bytes, and %d bytes are free", im.verified.Header.ID, im.verified.Header.Carried.Bytes, free))
	}
	return err
}

// findBase makes sure that everything the shipment builds on is held whole.
func (im *importing) findBase(ctx context.Context) error {
	h := im.verified.Header
	im.base = map[artifact.Digest]bool{}
	var missing []string
	for _, b := range h.Base {
		var row state.Shipment
		ok := false
		err := im.site.State.View(ctx, func(tx *state.Tx) (err error) { row, ok, err = tx.ShipmentByHeader(b.Header); return err })
		if err != nil {
			return err
		}
		switch {
		case !ok || row.Status == state.Importing || row.Content != b.Content:
			missing = append(missing, b.ID)
			continue
		case row.Status == state.Rejected:
			missing = append(missing, b.ID+" (which was rejected)")
			continue
		case !im.mend && !whole(im.site, row):
			missing = append(missing, b.ID+" (which is not whole: import it again)")
			continue
		}
		got, err := readSet(openAny(im.site), b.Content)
		if err != nil {
			return err
		}
		for _, o := range got.blobs {
			im.base[o.digest] = true
		}
	}
	if len(missing) > 0 {
		return fail.Refuse("import them first; or have 'enisle receipt' tell the low side what is here, and ask for 'enisle pack' again, or with --full",
			fmt.Errorf("shipment %s builds on shipments that are not here: %s", h.ID, strings.Join(missing, ", ")))
	}
	return nil
}

// run reads the volumes into quarantine and makes the shipment visible to
// inspect, at once.
func (im *importing) run(ctx context.Context, intent int64) error {
	if err := im.begin(ctx); err != nil {
		return err
	}
	if err := im.read(ctx); err != nil {
		if errors.Is(err, context.Canceled) {
			err = fail.As(fail.Partial, "run the same command again: it goes on where it stopped", err)
		}
		return err
	}
	if len(im.out.Missing) > 0 {
		return fail.As(fail.Partial, "run the same command with the directory of the next medium", fmt.Errorf("shipment %s: volumes %s of %d are still to come",
			im.row.ID, numbers(im.out.Missing), len(im.verified.Header.Volumes)))
	}
	got, err := im.sink.complete(ctx, im.verified.Header)
	if err != nil {
		return err
	}
	if err := im.site.Quarantine.Flush(); err != nil {
		return err
	}
	if im.mend {
		return im.mended(got)
	}
	im.row.Request, im.row.Status, im.row.Imported = got.request, state.Quarantined, im.site.Now().Format(time.RFC3339)
	err = im.site.State.Update(ctx, func(tx *state.Tx) error {
		root := strconv.Itoa(im.verified.Root.Version) + " " + string(artifact.Sum(im.verified.Header.Roots[im.verified.Root.Version-1]))
		return errors.Join(tx.SetShipment(im.row), tx.SetArrivals(im.row.ID, got.refs()), tx.SetMeta(metaPeerRoot+im.verified.Peer.Key.ID(), root),
			tx.SetEffect(intent, "quarantined "+im.row.ID))
	})
	if err != nil {
		return err
	}
	// The shipment is in; what cannot be tidied is for another day.
	if err := sweep(ctx, im.site); err != nil {
		im.site.Log().WarnContext(ctx, "the quarantine was not tidied", "err", err)
	}
	return nil
}

// mended puts what was brought back where the rest of the shipment is.
func (im *importing) mended(got set) error {
	if im.row.Status != state.Released {
		return nil
	}
	for _, b := range got.blobs {
		if err := im.site.Quarantine.MoveTo(im.site.Held, b.digest); err != nil {
			return err
		}
	}
	return im.site.Held.Flush()
}

// begin remembers that this shipment is being imported, in place of one of the
// same number that was begun and is not this one.
func (im *importing) begin(ctx context.Context) error {
	im.sink = newSink(im.site, im.row.Content, im.base)
	if im.mend {
		return nil
	}
	if len(im.row.Marks) > 0 {
		im.sink.restore()
	}
	return im.site.State.Update(ctx, func(tx *state.Tx) error {
		all, err := tx.Shipments()
		if err != nil {
			return err
		}
		for _, old := range all {
			if old.Stream == im.row.Stream && old.Status == state.Importing && old.Header != im.row.Header {
				if err := tx.RemoveShipment(old.Header); err != nil {
					return err
				}
			}
		}
		return tx.SetShipment(im.row)
	})
}

// markEvery is how much is read between two points from which a run can be
// taken up, in bytes.
const markEvery = 1 << 30

// read reads every volume that is here, those of different directories at the
// same time, and remembers how far each was read.
func (im *importing) read(ctx context.Context) error {
	h := im.verified.Header
	r := &reading{importing: im, every: im.opt.MarkEvery, from: map[int]int{}}
	if r.every == 0 {
		r.every = markEvery
	}
	marks := im.row.Marks
	if im.mend {
		marks = nil
	}
	var total int64
	for _, v := range h.Data() {
		total += v.Size
		r.from[v.Number] = marks[v.Number] + 1
	}
	r.show = im.opt.Progress.start("importing", total)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(maxLanes)
	for _, volumes := range im.media.Lanes(h) {
		g.Go(func() error { return r.lane(ctx, volumes) })
	}
	return g.Wait()
}

// maxLanes is how many directories are read at the same time; each takes some
// 32 MiB of memory.
const maxLanes = 4

// reading is what the lanes of one run share.
type reading struct {
	*importing
	every int64
	from  map[int]int
	mu    sync.Mutex // of row.Marks and show
	show  func(int64)
}

func (r *reading) lane(ctx context.Context, volumes []shipment.Volume) error {
	l := &lane{sink: r.sink}
	var since int64
	opt := shipment.ReadOptions{
		Identities: []age.Identity{r.identity}, Volumes: volumes, From: r.from, Chunk: l.take,
		Damage: r.damage,
		Progress: func(n int64) {
			r.mu.Lock()
			defer r.mu.Unlock()
			since += n
			r.show(n)
		},
		Mark: func(volume, frame int) error {
			last := frame == r.verified.Header.Volumes[volume-1].Frames && len(r.out.Missing) > 0
			if r.mend || since < r.every && !last {
				return nil
			}
			since = 0
			return r.mark(ctx, volume, frame)
		},
	}
	err := r.media.Read(ctx, r.verified.Header, opt)
	return errors.Join(err, l.suspend())
}

// damage tolerates what parity gave back, and nothing else.
func (r *reading) damage(d shipment.Damage) error {
	if !d.Mended {
		return d.Err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.out.Repaired = append(r.out.Repaired, d)
	return nil
}

// mark makes durable what was written and remembers the frame.
func (r *reading) mark(ctx context.Context, volume, frame int) error {
	if err := r.site.Quarantine.Flush(); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.row.Marks == nil {
		r.row.Marks = map[int]int{}
	}
	r.row.Marks[volume] = frame
	return r.site.State.Update(ctx, func(tx *state.Tx) error { return tx.SetShipment(r.row) })
}

func numbers(all []int) string {
	var words []string
	for _, n := range all {
		words = append(words, strconv.Itoa(n))
	}
	return strings.Join(words, ", ")
}
