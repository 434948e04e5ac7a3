package crossing

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"enisle/internal/artifact"
	"enisle/internal/carry/shipment"
	"enisle/internal/disk"
	"enisle/internal/fail"
	"enisle/internal/judge/policy"
	"enisle/internal/site"
	"enisle/internal/site/state"
	"enisle/internal/site/trust"
)

// PackOptions say what is packed and how.
type PackOptions struct {
	To         string // directory the shipment is written to; made if it does not exist
	Request    string // name of the request; empty means the one collected last
	VolumeSize int64  // bytes of a volume at most; 0 means shipment.DefaultVolumeSize
	ClearBOM   bool   // names and versions in the clear-text bill
	DryRun     bool
	Progress   Progress
	Full       bool // carry everything, whatever the islands hold
	Parity     int  // of the frames of each volume, in thousandths; 0 to 500
	Fill       bool // give what is free on the last medium to parity, if there is any
	Spare      int  // further volumes: as many whole ones may be lost
	Compress   bool
	ISO        bool // make an image of an optical disc around each volume
	// ReadBack reads from the medium what was written to it before the header is
	// signed.
	ReadBack bool
	// Despite is why something is packed that failed its rehearsal.
	Despite string
}

// Packed says what a shipment came to.
type Packed struct {
	ID        string `json:"id"`
	Sequence  uint64 `json:"sequence"`
	Artifacts int    `json:"artifacts"`
	Volumes   int    `json:"volumes"`
	Bytes     int64  `json:"bytes"`   // written to the media
	Payload   int64  `json:"payload"` // of which content
	Content   int64  `json:"content"` // of the whole set, whether carried or held there
	Already   bool   `json:"already"` // it stood there complete
	Sealed    bool   `json:"sealed"`  // this run sealed the site's people

	Base    []string `json:"base"`    // ids of the shipments it builds on
	Missing int      `json:"missing"` // collectors who must sign it still
	Images  []string `json:"images,omitempty"`
}

// Pack seals what was collected into the next shipment for every paired island.
// A run that was interrupted is taken up: same number, same set, whole frames
// kept. The first pack seals the site's people.
func Pack(ctx context.Context, s *site.Site, by site.Actor, opt PackOptions) (Packed, error) {
	if err := s.Require(trust.Low); err != nil {
		return Packed{}, err
	}
	p, err := newPacking(ctx, s, by, opt)
	if err != nil {
		return Packed{}, err
	}
	if opt.DryRun {
		p.out.Volumes, p.out.Bytes, err = shipment.Plan(p.blobs, p.writeOptions([16]byte{}))
		return p.out, err
	}
	if err := errors.Join(p.mayPack(by), p.rehearsedWell(ctx)); err != nil {
		return Packed{}, err
	}
	subject := map[string]string{"request": p.set.request, "content": string(p.content), "to": p.to()}
	if opt.Despite != "" {
		subject["despite"] = opt.Despite
	}
	err = s.Act(ctx, "pack", by, subject, func(ctx context.Context, intent int64) (map[string]string, error) {
		var err error
		if p.out.Sealed, err = s.Roots.Seal(s.Key, s.Now()); err != nil {
			return nil, err
		}
		if err := p.run(ctx, by, intent); err != nil {
			return nil, err
		}
		return map[string]string{"shipment": p.out.ID}, nil
	})
	return p.out, err
}

// packing is one run of Pack.
type packing struct {
	site    *site.Site
	opt     PackOptions
	policy  *policy.Policy
	set     set
	content artifact.Digest
	blobs   []shipment.Blob // that are carried
	base    basis
	peers   []trust.Peer
	to256   []age.Recipient
	stream  string
	plan    string // digest of what decides the bytes
	pack    state.Pack
	sealed  shipment.Header // once the volumes are written
	out     Packed
}

func newPacking(ctx context.Context, s *site.Site, by site.Actor, opt PackOptions) (*packing, error) {
	p := &packing{site: s, opt: opt}
	var err error
	if p.policy, err = policy.Parse(s.Policy); err != nil {
		return nil, err
	}
	if p.peers = s.Roots.Root().Peers; len(p.peers) == 0 {
		return nil, fail.Refuse("run 'enisle identity' on the island and 'enisle pair FILE' here", errors.New("no island is paired: nobody could open the shipment"))
	}
	for _, peer := range p.peers {
		for _, to := range peer.Recipients() {
			r, err := age.ParseHybridRecipient(to)
			if err != nil {
				return nil, fmt.Errorf("recipient of %s: %w", peer.Name, err)
			}
			p.to256 = append(p.to256, r)
		}
	}
	if err := p.readContent(ctx); err != nil {
		return nil, err
	}
	p.stream = streamOf(p.party(s.Identity), p.parties())
	b, err := json.Marshal(struct {
		Content  artifact.Digest
		Stream   string
		Volume   int64
		Clear    bool
		Base     []shipment.Base
		Parity   int
		Fill     bool
		Spare    int
		Compress bool
	}{p.content, p.stream, opt.VolumeSize, opt.ClearBOM, p.base.shipments, opt.Parity, opt.Fill, opt.Spare, opt.Compress})
	p.plan = string(artifact.Sum(b))
	return p, err
}

func (p *packing) readContent(ctx context.Context) error {
	var content string
	err := p.site.State.View(ctx, func(tx *state.Tx) (err error) {
		if p.opt.Request == "" {
			if p.opt.Request, err = tx.Meta(metaLast); err != nil {
				return err
			}
		}
		content, err = tx.Meta(metaCollected + p.opt.Request)
		return err
	})
	if err != nil {
		return err
	}
	if content == "" {
		return fail.As(fail.Usage, "run 'enisle collect' first", errors.New("nothing has been collected"))
	}
	if p.content, err = artifact.ParseDigest(content); err != nil {
		return err
	}
	if p.set, err = readSet(p.site.Held.Open, p.content); err != nil {
		return err
	}
	p.base = basis{shipments: []shipment.Base{}}
	if !p.opt.Full {
		if p.base, err = chooseBasis(ctx, p.site, p.peers, p.set.blobs); err != nil {
			return err
		}
	}
	p.out = Packed{Artifacts: len(p.set.artifacts), Content: p.set.bytes(), Base: []string{}}
	for _, b := range p.base.shipments {
		p.out.Base = append(p.out.Base, b.ID)
	}
	for i, b := range p.set.blobs {
		if i > 0 && p.base.held[b.digest] {
			continue // the content root itself always comes along
		}
		if n, err := p.site.Held.Stat(b.digest); err != nil || n != b.size {
			return fail.Refuse("run 'enisle collect' again", errors.Join(fmt.Errorf("blob %s is not held whole", b.digest.Short()), err))
		}
		p.blobs = append(p.blobs, shipment.Blob{Digest: b.digest, Size: b.size})
		p.out.Payload += b.size
	}
	return nil
}

func (p *packing) party(id trust.Identity) shipment.Party {
	return shipment.Party{Name: id.Name, Fingerprint: id.Key.ID()}
}

func (p *packing) parties() (all []shipment.Party) {
	for _, peer := range p.peers {
		all = append(all, p.party(peer.Identity))
	}
	return all
}

func (p *packing) to() string {
	var names []string
	for _, peer := range p.peers {
		names = append(names, peer.Name)
	}
	return strings.Join(names, ",")
}

// streamOf names a stream: one low site to one set of islands.
func streamOf(from shipment.Party, to []shipment.Party) string {
	ids := []string{}
	for _, p := range to {
		ids = append(ids, p.Fingerprint)
	}
	slices.Sort(ids)
	return string(artifact.Sum([]byte(from.Fingerprint + "\n" + strings.Join(ids, "\n"))))
}

// mayPack refuses whoever may not seal.
func (p *packing) mayPack(by site.Actor) error {
	r := p.site.Roots.Root()
	if p.policy.People.ProvenActors && by.Key == nil {
		return fail.Refuse("give --as NAME --key FILE", errors.New("the policy wants to know who packs"))
	}
	if p.policy.People.TwoAdmins && !p.site.Roots.Sealed() && r.With(trust.Admin) < 2 {
		return fail.Refuse("enrol two admins first: 'enisle person add NAME --role admin --key FILE.pub'", errors.New("the policy refuses to seal a site without two admins"))
	}
	if r.With(trust.Collector) == 0 {
		return nil
	}
	if by.Key == nil {
		return fail.Refuse("give --as NAME --key FILE of a collector", errors.New("this site has collectors: one of them must seal the shipment"))
	}
	if _, err := r.Holder(false, trust.Collector)(by.ID()); err != nil {
		return fail.Refuse("let a collector pack", err)
	}
	return nil
}

func (p *packing) writeOptions(set [16]byte) shipment.WriteOptions {
	return shipment.WriteOptions{
		Set: set, VolumeSize: p.opt.VolumeSize, Recipients: p.to256,
		Parity: p.opt.Parity, Fill: p.opt.Fill, Spare: p.opt.Spare, Compress: p.opt.Compress,
		Copies: func(b shipment.Blob) []shipment.Copy { return p.base.copies[b.Digest] },
		Open:   func(b shipment.Blob) (io.ReadCloser, error) { return p.site.Held.Open(b.Digest) },
	}
}

func (p *packing) run(ctx context.Context, by site.Actor, intent int64) (err error) {
	if err := os.MkdirAll(p.opt.To, 0o755); err != nil {
		return fail.As(fail.Usage, "give a directory that can be written with --to", err)
	}
	dir, err := os.OpenRoot(p.opt.To)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	resuming, err := p.number(ctx)
	if err != nil {
		return err
	}
	set, err := hex.DecodeString(p.pack.Set)
	if err != nil {
		return err
	}
	stands, err := shipment.Prepare(dir, [16]byte(set), resuming)
	if err != nil {
		return err
	}
	switch {
	case stands != nil:
		err = p.already(ctx, dir, stands, intent)
	case p.pack.Envelope != nil:
		err = p.writeHeader(ctx, dir, intent)
	default:
		err = p.fresh(ctx, dir, [16]byte(set), by, intent)
	}
	if err != nil || !p.opt.ISO {
		return err
	}
	return p.images(dir)
}

// fresh writes and seals what was not sealed yet.
func (p *packing) fresh(ctx context.Context, dir *os.Root, set [16]byte, by site.Actor, intent int64) error {
	if err := p.preflight(dir); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	if err := p.write(ctx, dir, set); err != nil {
		return fmt.Errorf("pack: %w", err)
	}
	return p.seal(ctx, dir, by, intent)
}

// number decides which sequence number this run is for: that of an unfinished
// run with the same plan, or the next.
func (p *packing) number(ctx context.Context) (resuming bool, err error) {
	last, ok := state.Pack{}, false
	err = p.site.State.View(ctx, func(tx *state.Tx) (err error) { last, ok, err = tx.LastPack(p.stream); return err })
	switch {
	case err != nil:
		return false, err
	case !ok:
		return false, p.take(ctx, 1)
	case last.Plan == p.plan && !last.Done && (last.Envelope == nil || p.volumesStand(last)):
		p.pack = last
		return true, nil
	case last.Envelope == nil:
		// Nothing of it can have been accepted anywhere: the number is free.
		return false, p.take(ctx, last.Sequence)
	case last.Plan == p.plan && p.sameMedia(last):
		p.pack = last
		return true, nil
	}
	return false, p.take(ctx, last.Sequence+1)
}

// sameMedia reports whether the finished shipment stands at opt.To already.
func (p *packing) sameMedia(last state.Pack) bool {
	b, err := os.ReadFile(filepath.Join(p.opt.To, shipment.HeaderName))
	return err == nil && samePayload(b, last.Envelope)
}

// volumesStand reports whether a shipment that was sealed just before a crash
// lacks nothing at opt.To but its header.
func (p *packing) volumesStand(last state.Pack) bool {
	h, err := headerOf(last.Envelope)
	for _, v := range h.Volumes {
		st, e := os.Lstat(filepath.Join(p.opt.To, shipment.VolumeName(v.Number)))
		if err != nil || e != nil || st.Size() != v.Size {
			return false
		}
	}
	return err == nil
}

func headerOf(envelope []byte) (shipment.Header, error) {
	e, err := trust.Parse(envelope)
	if err != nil {
		return shipment.Header{}, err
	}
	return shipment.DecodeHeader(e.Payload)
}

// take begins a new set under a sequence number, durably, before anything of it
// is written.
func (p *packing) take(ctx context.Context, sequence uint64) error {
	var set [16]byte
	if _, err := rand.Read(set[:]); err != nil {
		return err
	}
	name := hex.EncodeToString(set[:])
	p.pack = state.Pack{
		Stream: p.stream, Sequence: sequence, Set: name, Plan: p.plan, Content: p.content,
		ID: shipment.ID(p.site.Identity.Name, sequence, name),
	}
	return p.site.State.Update(ctx, func(tx *state.Tx) error { return tx.SetPack(p.pack) })
}

// already accepts a finished shipment that stands where this one would go, if
// it is the very one; a rerun after a crash at the last moment finds it so.
func (p *packing) already(ctx context.Context, dir *os.Root, header []byte, intent int64) error {
	if !samePayload(header, p.pack.Envelope) {
		return fail.Refuse("empty the directory, or name another one", errors.New("another shipment stands where this one is to be written"))
	}
	h, err := headerOf(header)
	if err != nil {
		return err
	}
	if p.out.Already = true; p.opt.ISO && imaged(dir, h) {
		p.describe(h)
		return p.finish(ctx, intent)
	}
	m, err := shipment.OpenMedia(p.opt.To)
	if err != nil {
		return err
	}
	if err := errors.Join(m.CheckWhole(h), m.Close()); err != nil {
		return err
	}
	if !bytes.Equal(header, p.pack.Envelope) {
		// More collectors have signed since.
		if err := writeHeaderTo(p.opt.To, p.pack.Envelope); err != nil {
			return err
		}
	}
	p.describe(h)
	return p.finish(ctx, intent)
}

func (p *packing) describe(h shipment.Header) {
	p.out.ID, p.out.Sequence, p.out.Volumes, p.out.Bytes = h.ID, h.Sequence, len(h.Volumes), 0
	if r := p.site.Roots.Root(); r.With(trust.Collector) > 0 {
		if e, err := trust.Parse(p.pack.Envelope); err == nil {
			p.out.Missing = max(0, r.Thresholds.Collectors-len(e.Signatures)+1)
		}
	}
	for _, v := range h.Volumes {
		p.out.Bytes += v.Size
	}
}

func (p *packing) finish(ctx context.Context, intent int64) error {
	p.pack.Done = true
	return p.site.State.Update(ctx, func(tx *state.Tx) error {
		return errors.Join(tx.SetPack(p.pack), tx.SetEffect(intent, "shipment "+p.pack.ID))
	})
}

func (p *packing) write(ctx context.Context, dir *os.Root, set [16]byte) error {
	opt := p.writeOptions(set)
	opt.Progress = p.opt.Progress.start("packing", p.out.Payload)
	volumes, err := shipment.Write(ctx, dir, p.blobs, opt)
	if err == nil && p.opt.ReadBack {
		err = p.prove(ctx, volumes)
	}
	if err != nil {
		if errors.Is(err, context.Canceled) {
			err = fail.As(fail.Partial, "run the same command again: it goes on where it stopped", err)
		}
		return err
	}
	return p.header(ctx, volumes)
}

// prove reads back from the medium what was written to it. Only then is a header
// signed over it.
func (p *packing) prove(ctx context.Context, volumes []shipment.Volume) (err error) {
	m, err := shipment.OpenMedia(p.opt.To)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	var total int64
	for _, v := range volumes {
		total += v.Size
	}
	err = m.Read(ctx, shipment.Header{Set: p.pack.Set, Volumes: volumes, Spare: p.opt.Spare}, shipment.ReadOptions{Fresh: true, Progress: p.opt.Progress.start("reading back", total)})
	if fail.IsRefused(err) {
		err = fail.Refuse("do not use this medium; remove what stands there and pack to another one", fmt.Errorf("the medium did not keep what was written: %w", err))
	}
	return err
}

// preflight refuses to begin what cannot end.
func (p *packing) preflight(dir *os.Root) error {
	volumes, size, err := shipment.Plan(p.blobs, p.writeOptions([16]byte{}))
	if err != nil {
		return err
	}
	free, err := disk.Free(p.opt.To)
	if err != nil {
		return err
	}
	have, err := shipment.Size(dir)
	if err != nil {
		return err
	}
	if size-have > free {
		return fail.As(fail.Partial, "use a larger medium, or --media for several", fmt.Errorf("%d volumes of together %d bytes are to be written, and %d bytes are free", volumes, size-have, free))
	}
	return nil
}

// header builds the header; it is signed in seal.
func (p *packing) header(ctx context.Context, volumes []shipment.Volume) error {
	now := p.site.Now()
	h := shipment.Header{
		Format: shipment.Format, ID: p.pack.ID, Set: p.pack.Set, From: p.party(p.site.Identity), To: p.parties(),
		Sequence: p.pack.Sequence, Content: p.content,
		Base: p.base.shipments, Artifacts: len(p.set.artifacts), Blobs: len(p.set.blobs), Bytes: p.out.Content,
		Carried: shipment.Carried{Blobs: len(p.blobs), Bytes: p.out.Payload},
		Created: now, Expires: now.AddDate(0, 0, p.policy.Days.Shipment), Checkpoint: p.site.Ledger.Head().Note, Spare: p.opt.Spare, Volumes: volumes,
	}
	for _, env := range p.site.Roots.Envelopes() {
		h.Roots = append(h.Roots, env)
	}
	err := p.site.State.View(ctx, func(tx *state.Tx) error {
		last, ok, err := tx.LastSealed(p.stream)
		if err != nil || !ok {
			return err
		}
		e, err := trust.Parse(last.Envelope)
		h.Previous = artifact.Sum(e.Payload)
		return err
	})
	if err != nil {
		return err
	}
	h.Bill = artifact.Sum(p.bill(h))
	p.sealed = h
	return nil
}

// headerSigner signs with the site's key and, where one is proven, the
// collector's.
type headerSigner []*trust.Key

func (s headerSigner) Sign(payloadType string, payload []byte) ([]byte, error) {
	return trust.Sign(payloadType, payload, s...)
}

// seal signs the header, remembers it, and only then writes it: from that
// moment on the number is spent, whatever happens.
func (p *packing) seal(ctx context.Context, dir *os.Root, by site.Actor, intent int64) error {
	keys := headerSigner{p.site.Key}
	if by.Key != nil && p.site.Roots.Root().With(trust.Collector) > 0 {
		keys = append(keys, by.Key)
	}
	if err := shipment.WriteFile(dir, shipment.BillName, p.bill(p.sealed)); err != nil {
		return err
	}
	env, err := p.sealed.Encode(keys)
	if err != nil {
		return err
	}
	p.pack.Envelope = env
	if err := p.site.State.Update(ctx, func(tx *state.Tx) error { return tx.SetPack(p.pack) }); err != nil {
		return err
	}
	return p.writeHeader(ctx, dir, intent)
}

func (p *packing) writeHeader(ctx context.Context, dir *os.Root, intent int64) error {
	h, err := headerOf(p.pack.Envelope)
	if err != nil {
		return err
	}
	if err := shipment.WriteFile(dir, shipment.HeaderName, p.pack.Envelope); err != nil {
		return err
	}
	p.describe(h)
	return p.finish(ctx, intent)
}

// bill is what a person can read without enisle.
func (p *packing) bill(h shipment.Header) []byte {
	var b strings.Builder
	fmt.Fprintf(&b, "enisle shipment %s\n\n", h.ID)
	fmt.Fprintf(&b, "from        %s  (key %s)\n", h.From.Name, h.From.Fingerprint[:16])
	for _, to := range h.To {
		fmt.Fprintf(&b, "to          %s  (key %s)\n", to.Name, to.Fingerprint[:16])
	}
	fmt.Fprintf(&b, "number      %d\nsealed      %s\nexpires     %s\n", h.Sequence, h.Created.Format(time.RFC3339), h.Expires.Format(time.RFC3339))
	fmt.Fprintf(&b, "artifacts   %d\nblobs       %d\ncontent     %d bytes\n", h.Artifacts, h.Blobs, h.Bytes)
	fmt.Fprintf(&b, "carried     %d blobs, %d bytes\nvolumes     %d\n", h.Carried.Blobs, h.Carried.Bytes, len(h.Volumes))
	for _, base := range h.Base {
		fmt.Fprintf(&b, "builds on   %s\n", base.ID)
	}
	fmt.Fprintln(&b)
	for _, v := range h.Volumes {
		spare := ""
		if v.Number > len(h.Data()) {
			spare = "  spare: stands in for any one that is lost"
		}
		fmt.Fprintf(&b, "volume %4d  %15d bytes  %s%s\n", v.Number, v.Size, v.Root, spare)
	}
	if p.opt.ClearBOM {
		fmt.Fprintf(&b, "\nrequest     %s\n", p.set.request)
		for _, a := range p.set.artifacts {
			fmt.Fprintf(&b, "%12d bytes  %s\n", a.Size(), a.Ref)
		}
	}
	return []byte(b.String())
}
