package crossing

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/carry/label"
	"enisle/internal/carry/shipment"
	"enisle/internal/fail"
	"enisle/internal/site"
	"enisle/internal/site/state"
	"enisle/internal/site/trust"
)

// ReceiptType is the payload type of a receipt.
const ReceiptType = "application/vnd.enisle.receipt.v1+json"

const (
	receiptFormat = "enisle-receipt/1"
	maxReceipt    = 4 << 20 // bytes of a receipt that is read
	maxHeldListed = 1000    // shipments in a receipt, the newest
)

// Receipt is what an island tells a low site of what arrived from it. Signed by
// the island; docs/spec/receipt.md.
type Receipt struct {
	Format     string          `json:"format"`
	Site       shipment.Party  `json:"site"`
	From       shipment.Party  `json:"from"`
	Marks      []Mark          `json:"marks"`     // per stream, by stream
	Held       []shipment.Base `json:"held"`      // whole shipments, newest first
	Inventory  artifact.Digest `json:"inventory"` // of Held as JSON
	Checkpoint string          `json:"checkpoint"`
	Made       time.Time       `json:"made"`
}

// Mark is the highest number that arrived in one stream.
type Mark struct {
	Stream   string `json:"stream"`
	Sequence uint64 `json:"sequence"`
}

// Received is a receipt in all its forms.
type Received struct {
	Receipt  Receipt `json:"receipt"`
	Envelope []byte  `json:"envelope"` // the file
	Code     string  `json:"code"`     // for typing
}

// MakeReceipt says what arrived from a low site; name may be empty if there is
// only one. What was rejected or is not whole is left out.
func MakeReceipt(ctx context.Context, s *site.Site, by site.Actor, name string) (out Received, err error) {
	if err := s.Require(trust.High); err != nil {
		return out, err
	}
	peer, err := onePeer(s, name)
	if err != nil {
		return out, err
	}
	from := shipment.Party{Name: peer.Name, Fingerprint: peer.Key.ID()}
	err = s.Act(ctx, "receipt", by, map[string]string{"for": peer.Name}, func(ctx context.Context, _ int64) (map[string]string, error) {
		rows, err := Shipments(ctx, s)
		if err != nil {
			return nil, err
		}
		out.Receipt = Receipt{
			Format: receiptFormat, Site: shipment.Party{Name: s.Identity.Name, Fingerprint: s.Identity.Key.ID()}, From: from,
			Marks: []Mark{}, Held: []shipment.Base{}, Checkpoint: s.Ledger.Head().Note, Made: s.Now(),
		}
		mine := slices.DeleteFunc(rows, func(row state.Shipment) bool {
			h, err := headerOf(row.Envelope)
			return err != nil || h.From != from
		})
		if err := out.Receipt.fill(s, mine); err != nil {
			return nil, err
		}
		payload, err := json.Marshal(out.Receipt)
		if err != nil {
			return nil, err
		}
		out.Envelope, err = trust.Sign(ReceiptType, payload, s.Key)
		out.Code = codeOf(s, mine)
		return map[string]string{"inventory": string(out.Receipt.Inventory)}, err
	})
	return out, err
}

// Print writes the code of a receipt as a page to print, with a QR code that says
// the same: receipt.svg and receipt.png in a directory.
func (r Received) Print(to string) (names []string, err error) {
	if r.Code == "" {
		return nil, fail.As(fail.Usage, "import a shipment first", fmt.Errorf("nothing arrived from %s yet", r.Receipt.From.Name))
	}
	l := label.Label{
		Title: r.Code,
		Lines: []string{
			"receipt of " + r.Receipt.Site.Name + " for " + r.Receipt.From.Name, r.Receipt.Made.Format(time.DateTime) + " UTC",
			fmt.Sprintf("%d shipments held", len(r.Receipt.Held)), "outside: enisle receipt add CODE",
		},
		Code: r.Code,
	}
	return writeLabel(l, to, "receipt")
}

func onePeer(s *site.Site, name string) (trust.Peer, error) {
	peers := s.Roots.Root().Peers
	if name == "" && len(peers) == 1 {
		return peers[0], nil
	}
	i := slices.IndexFunc(peers, func(p trust.Peer) bool { return p.Name == name })
	if i < 0 {
		var names []string
		for _, p := range peers {
			names = append(names, p.Name)
		}
		return trust.Peer{}, fail.As(fail.Usage, "name one with --for: "+strings.Join(names, ", "), errors.New("which low site is the receipt for?"))
	}
	return peers[i], nil
}

func (r *Receipt) fill(s *site.Site, rows []state.Shipment) error {
	marks := map[string]uint64{}
	for _, row := range slices.Backward(rows) {
		marks[row.Stream] = max(marks[row.Stream], row.Sequence)
		if len(r.Held) < maxHeldListed && row.Status != state.Rejected && whole(s, row) {
			r.Held = append(r.Held, shipment.Base{ID: row.ID, Header: row.Header, Content: row.Content})
		}
	}
	for stream, n := range marks {
		r.Marks = append(r.Marks, Mark{stream, n})
	}
	slices.SortFunc(r.Marks, func(a, b Mark) int { return strings.Compare(a.Stream, b.Stream) })
	var err error
	r.Inventory, err = inventory(r.Held)
	return err
}

func inventory(held []shipment.Base) (artifact.Digest, error) {
	b, err := json.Marshal(held)
	return artifact.Sum(b), err
}

// told is what a low site remembers of what an island told it.
type told struct {
	Held []shipment.Base `json:"held"`
	Size int64           `json:"size"` // records in the island's ledger; 0 for a typed code
	Made time.Time       `json:"made"`
}

const metaTold = "told."

// Told says what a receipt came to.
type Told struct {
	Site string `json:"site"` // the island
	Held int    `json:"held"` // shipments that a next one may build on
}

// AddReceipt takes an island's receipt: the bytes of its file. What it lists and
// this site never sealed is left out.
func AddReceipt(ctx context.Context, s *site.Site, by site.Actor, file []byte) (out Told, err error) {
	peer, r, err := openReceipt(s, file)
	if err != nil {
		return out, err
	}
	head, err := s.CheckpointOf(peer.Identity, r.Checkpoint)
	if err != nil {
		return out, err
	}
	if age := s.Now().Sub(r.Made); age < -site.MaxClockBack {
		return out, fail.Refuse("set the clock of this machine, or of the island", fmt.Errorf("receipt: was made on %s, which is in the future", r.Made.Format(time.DateTime)))
	}
	return tell(ctx, s, by, peer, told{r.Held, head.Size, r.Made})
}

func openReceipt(s *site.Site, file []byte) (peer trust.Peer, r Receipt, err error) {
	refuse := func(err error) (trust.Peer, Receipt, error) {
		return peer, r, fail.Refuse("have the island write it again with 'enisle receipt --to FILE'", fmt.Errorf("receipt: %w", err))
	}
	if err := s.Require(trust.Low); err != nil {
		return peer, r, err
	}
	if r, err = decodeReceipt(file); err != nil {
		return refuse(err)
	}
	peer, ok := s.Roots.Root().Peer(r.Site.Fingerprint)
	if !ok || peer.Name != r.Site.Name {
		return refuse(fmt.Errorf("is of %.60q, which is not paired with %s", r.Site.Name, s.Identity.Name))
	}
	_, _, err = trust.Verify(bytes.TrimSpace(file), ReceiptType, func(id string) (trust.Public, error) {
		if id == peer.Key.ID() {
			return peer.Key, nil
		}
		return nil, errors.New("only the island itself signs its receipts")
	})
	if err != nil {
		return peer, r, fmt.Errorf("receipt: %w", err)
	}
	if r.From.Fingerprint != s.Identity.Key.ID() || r.From.Name != s.Identity.Name {
		return refuse(fmt.Errorf("is for %.60q, not for %s", r.From.Name, s.Identity.Name))
	}
	if sum, err := inventory(r.Held); err != nil || sum != r.Inventory {
		return refuse(errors.New("its list is not the one it was made over"))
	}
	return peer, r, nil
}

// decodeReceipt reads a receipt without verifying who signed it. It accepts only
// what MakeReceipt would have written.
func decodeReceipt(file []byte) (r Receipt, err error) {
	if len(file) > maxReceipt {
		return r, fmt.Errorf("larger than %d bytes", maxReceipt)
	}
	e, err := trust.Parse(bytes.TrimSpace(file))
	if err != nil {
		return r, err
	}
	d := json.NewDecoder(bytes.NewReader(e.Payload))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		return r, err
	}
	if again, err := json.Marshal(r); err != nil || !bytes.Equal(again, e.Payload) || r.Format != receiptFormat {
		return r, errors.New("is not in its form")
	}
	return r, nil
}

// tell remembers what an island holds, unless something newer is known.
func tell(ctx context.Context, s *site.Site, by site.Actor, peer trust.Peer, t told) (out Told, err error) {
	sealed, err := sealedHeaders(ctx, s)
	if err != nil {
		return out, err
	}
	t.Held = slices.DeleteFunc(t.Held, func(b shipment.Base) bool { return sealed[b.Header] != b })
	out = Told{peer.Name, len(t.Held)}
	before, err := toldBy(ctx, s, peer)
	if err != nil {
		return out, err
	}
	if t.Size > 0 && t.Size < before.Size {
		return out, fail.Refuse("use the newest receipt", fmt.Errorf("receipt: of %s was made before one that is known already", peer.Name))
	}
	t.Size = max(t.Size, before.Size)
	b, err := json.Marshal(t)
	if err != nil {
		return out, err
	}
	err = s.Act(ctx, "receipt add", by, map[string]string{"of": peer.Name, "held": fmt.Sprint(len(t.Held))}, func(ctx context.Context, intent int64) (map[string]string, error) {
		return nil, s.State.Update(ctx, func(tx *state.Tx) error {
			return errors.Join(tx.SetMeta(metaTold+peer.Key.ID(), string(b)), tx.SetEffect(intent, "receipt of "+peer.Name))
		})
	})
	return out, err
}

func toldBy(ctx context.Context, s *site.Site, peer trust.Peer) (t told, err error) {
	var b string
	err = s.State.View(ctx, func(tx *state.Tx) (err error) { b, err = tx.Meta(metaTold + peer.Key.ID()); return err })
	if err != nil || b == "" {
		return t, err
	}
	return t, json.Unmarshal([]byte(b), &t)
}

// sealedHeaders returns every shipment that this site sealed.
func sealedHeaders(ctx context.Context, s *site.Site) (map[artifact.Digest]shipment.Base, error) {
	packs, err := sealedPacks(ctx, s)
	out := map[artifact.Digest]shipment.Base{}
	for _, p := range packs {
		out[p.base.Header] = p.base
	}
	return out, err
}

type sealedPack struct {
	base     shipment.Base
	stream   string
	sequence uint64
	to       []shipment.Party
}

func sealedPacks(ctx context.Context, s *site.Site) (out []sealedPack, err error) {
	var packs []state.Pack
	if err := s.State.View(ctx, func(tx *state.Tx) (err error) { packs, err = tx.Packs(); return err }); err != nil {
		return nil, err
	}
	for _, p := range packs {
		if p.Envelope == nil {
			continue
		}
		e, err := trust.Parse(p.Envelope)
		if err != nil {
			return nil, err
		}
		h, err := shipment.DecodeHeader(e.Payload)
		if err != nil {
			return nil, err
		}
		out = append(out, sealedPack{shipment.Base{ID: h.ID, Header: artifact.Sum(e.Payload), Content: h.Content}, p.Stream, p.Sequence, h.To})
	}
	return out, nil
}

// The short code of a receipt: version, number of the newest shipment, which of
// the 16 up to it are held, and the first bytes of a sum over their headers.
const (
	codeVersion = 1
	codeSum     = 5
	codeBytes   = 1 + 4 + 2 + codeSum
	codeRecent  = 16
)

// codeOf returns the code for the stream whose shipment was imported last, empty
// if nothing was.
func codeOf(s *site.Site, rows []state.Shipment) string {
	if len(rows) == 0 {
		return ""
	}
	newest := slices.MaxFunc(rows, func(a, b state.Shipment) int { return strings.Compare(a.Imported, b.Imported) })
	last, held := newest.Sequence, map[uint64]artifact.Digest{}
	for _, row := range rows {
		if row.Stream == newest.Stream {
			last = max(last, row.Sequence)
			if row.Status != state.Rejected && whole(s, row) {
				held[row.Sequence] = row.Header
			}
		}
	}
	if last > 1<<32-1 {
		return ""
	}
	return encodeCode(s.Identity.Key.ID(), newest.Stream, uint32(last), held)
}

func encodeCode(island, stream string, last uint32, held map[uint64]artifact.Digest) string {
	var bits uint16
	sum := sha256.New()
	fmt.Fprintf(sum, "enisle receipt\n%s\n%s\n%d\n", island, stream, last)
	for i := range min(codeRecent, last) {
		if d, ok := held[uint64(last-i)]; ok {
			bits |= 1 << i
			fmt.Fprintf(sum, "%d %s\n", last-i, d)
		}
	}
	b := []byte{codeVersion}
	b = binary.BigEndian.AppendUint32(b, last)
	b = binary.BigEndian.AppendUint16(b, bits)
	b = append(b, sum.Sum(nil)[:codeSum]...)
	text := base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(b)
	var groups []string
	for part := range slices.Chunk([]byte(text), 4) {
		groups = append(groups, string(part))
	}
	return strings.Join(groups, "-")
}

// IsCode reports whether somebody typed a code rather than a file's name.
func IsCode(s string) bool {
	_, err := decodeCode(s)
	return err == nil
}

func decodeCode(s string) (b []byte, err error) {
	s = strings.ToUpper(strings.NewReplacer("-", "", " ", "", "0", "O", "1", "I", "8", "B").Replace(s))
	b, err = base32.StdEncoding.WithPadding(base32.NoPadding).DecodeString(s)
	if err == nil && (len(b) != codeBytes || b[0] != codeVersion) {
		err = errors.New("not a code of this version")
	}
	return b, err
}

// AddReceiptCode takes a code that somebody typed. It is only a hint for the next
// pack: the island checks by itself whether it holds what a shipment builds on.
func AddReceiptCode(ctx context.Context, s *site.Site, by site.Actor, code string) (out Told, err error) {
	if err := s.Require(trust.Low); err != nil {
		return out, err
	}
	b, err := decodeCode(code)
	if err != nil {
		return out, fail.As(fail.Usage, "type it as 'enisle receipt' printed it", fmt.Errorf("receipt code: %w", err))
	}
	last, bits := binary.BigEndian.Uint32(b[1:]), binary.BigEndian.Uint16(b[5:])
	packs, err := sealedPacks(ctx, s)
	if err != nil {
		return out, err
	}
	for _, peer := range s.Roots.Root().Peers {
		for _, stream := range streamsTo(packs, peer) {
			held, bases := map[uint64]artifact.Digest{}, []shipment.Base{}
			for _, p := range slices.Backward(packs) {
				back := uint64(last) - p.sequence
				if p.stream == stream && p.sequence <= uint64(last) && back < codeRecent && bits&(1<<back) != 0 {
					held[p.sequence], bases = p.base.Header, append(bases, p.base)
				}
			}
			if encoded, err := decodeCode(encodeCode(peer.Key.ID(), stream, last, held)); err == nil && bytes.Equal(encoded, b) {
				return tell(ctx, s, by, peer, told{Held: bases, Made: s.Now()})
			}
		}
	}
	return out, fail.Refuse("look for a typing error; else carry the receipt as a file", errors.New("receipt code: it fits nothing that this site sealed"))
}

func streamsTo(packs []sealedPack, peer trust.Peer) (streams []string) {
	for _, p := range packs {
		if !slices.Contains(streams, p.stream) && slices.ContainsFunc(p.to, func(q shipment.Party) bool { return q.Fingerprint == peer.Key.ID() }) {
			streams = append(streams, p.stream)
		}
	}
	return streams
}

// basis is what a shipment may leave out, and the shipments that brought it.
type basis struct {
	shipments []shipment.Base
	held      map[artifact.Digest]bool
	copies    map[artifact.Digest][]shipment.Copy // runs of what is carried that they hold elsewhere
}

// chooseBasis returns the fewest shipments, newest first, that all islands hold
// and that bring anything of what is needed: whole blobs, or tensors of new model
// files. Islands that told nothing hold
// nothing.
func chooseBasis(ctx context.Context, s *site.Site, peers []trust.Peer, need []blob) (b basis, err error) {
	b = basis{shipments: []shipment.Base{}, held: map[artifact.Digest]bool{}}
	var common []shipment.Base
	for i, peer := range peers {
		t, err := toldBy(ctx, s, peer)
		if err != nil {
			return b, err
		}
		if i == 0 {
			common = t.Held
		}
		common = slices.DeleteFunc(slices.Clone(common), func(c shipment.Base) bool { return !slices.Contains(t.Held, c) })
	}
	missing := map[artifact.Digest]bool{}
	for _, n := range need {
		missing[n.digest] = true
	}
	for _, c := range common {
		if len(missing) == 0 {
			return b, nil
		}
		old, err := readSet(s.Held.Open, c.Content)
		if err != nil {
			continue // what this site no longer knows cannot be built on
		}
		useful := false
		for _, o := range old.blobs {
			if missing[o.digest] {
				delete(missing, o.digest)
				b.held[o.digest], useful = true, true
			}
		}
		if useful {
			b.shipments = append(b.shipments, c)
		}
	}
	r := reuse{site: s, old: common}
	if err := r.look(ctx, slices.DeleteFunc(slices.Clone(need), func(n blob) bool { return !missing[n.digest] })); err != nil {
		return b, err
	}
	b.copies = r.copies
	for _, c := range common {
		if r.used[c.Content] && !slices.Contains(b.shipments, c) {
			b.shipments = append(b.shipments, c)
		}
	}
	return b, nil
}
