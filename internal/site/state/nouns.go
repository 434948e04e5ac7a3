package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"enisle/internal/artifact"
)

// Pack is one shipment on the low side, from the moment its number is taken.
type Pack struct {
	Stream   string
	Sequence uint64
	Set      string // hex
	Plan     string // digest of what decides the bytes: content, recipients, volume size
	ID       string
	Content  artifact.Digest
	Envelope []byte // header.json, once sealed
	Done     bool   // the header has been written to the media
}

const packColumns = "stream, sequence, setid, plan, id, content, envelope, done"

func (p *Pack) scan(scan func(...any) error) error {
	return scan(&p.Stream, &p.Sequence, &p.Set, &p.Plan, &p.ID, (*string)(&p.Content), &p.Envelope, &p.Done)
}

// LastPack returns the newest pack of a stream.
func (tx *Tx) LastPack(stream string) (p Pack, ok bool, err error) {
	err = tx.each("SELECT "+packColumns+" FROM packs WHERE stream = ? ORDER BY sequence DESC LIMIT 1", []any{stream},
		func(scan func(...any) error) error { ok = true; return p.scan(scan) })
	return p, ok, err
}

// LastSealed returns the newest pack of a stream that has a header.
func (tx *Tx) LastSealed(stream string) (p Pack, ok bool, err error) {
	err = tx.each("SELECT "+packColumns+" FROM packs WHERE stream = ? AND envelope IS NOT NULL ORDER BY sequence DESC LIMIT 1", []any{stream},
		func(scan func(...any) error) error { ok = true; return p.scan(scan) })
	return p, ok, err
}

// SetPack writes p over what is known of its stream and sequence.
func (tx *Tx) SetPack(p Pack) error {
	return tx.exec("INSERT OR REPLACE INTO packs ("+packColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
		p.Stream, p.Sequence, p.Set, p.Plan, p.ID, string(p.Content), p.Envelope, p.Done)
}

// What a shipment is on the high side.
const (
	Importing   = "importing"   // some of it is in quarantine; nothing may see it
	Quarantined = "quarantined" // whole and verified; waiting for inspection and approval
	Rejected    = "rejected"
	Released    = "released"
)

// Shipment is one shipment on the high side.
type Shipment struct {
	ID       string
	Header   artifact.Digest // digest of header.json
	Envelope []byte          // header.json
	Stream   string
	Sequence uint64
	Content  artifact.Digest
	Request  string
	Status   string
	Importer string   // key id of who imported it, empty if unproven
	Imported string   // RFC 3339
	Notes    []string // what an approver must know: gaps, unconfirmed pairing
	// Marks say, by number of volume, how many of its frames were read and are
	// durable.
	Marks map[int]int
}

const shipmentColumns = "id, header, envelope, stream, sequence, content, request, status, importer, imported, notes, marks"

func (s *Shipment) scan(scan func(...any) error) error {
	var notes, marks string
	err := scan(&s.ID, (*string)(&s.Header), &s.Envelope, &s.Stream, &s.Sequence, (*string)(&s.Content), &s.Request,
		&s.Status, &s.Importer, &s.Imported, &notes, &marks)
	if err == nil {
		err = json.Unmarshal([]byte(marks), &s.Marks)
	}
	if notes != "" {
		s.Notes = strings.Split(notes, "\n")
	}
	return err
}

// SetShipment writes s over what is known of its header.
func (tx *Tx) SetShipment(s Shipment) error {
	marks, err := json.Marshal(s.Marks)
	if err != nil {
		return err
	}
	if s.Marks == nil {
		marks = []byte("{}")
	}
	// Another shipment of the same id or number is an error, never replaced.
	return tx.exec("INSERT INTO shipments ("+shipmentColumns+") VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (header) DO UPDATE SET "+
		"request = excluded.request, status = excluded.status, importer = excluded.importer, imported = excluded.imported, "+
		"notes = excluded.notes, marks = excluded.marks",
		s.ID, string(s.Header), s.Envelope, s.Stream, s.Sequence, string(s.Content), s.Request, s.Status, s.Importer,
		s.Imported, strings.Join(s.Notes, "\n"), string(marks))
}

// Shipment returns a shipment by its id.
func (tx *Tx) Shipment(id string) (s Shipment, ok bool, err error) {
	return tx.oneShipment("WHERE id = ?", id)
}

// ShipmentByHeader returns a shipment by the digest of its header.
func (tx *Tx) ShipmentByHeader(d artifact.Digest) (s Shipment, ok bool, err error) {
	return tx.oneShipment("WHERE header = ?", string(d))
}

// LastImported returns the shipment with the highest sequence of a stream that
// was imported whole.
func (tx *Tx) LastImported(stream string) (s Shipment, ok bool, err error) {
	return tx.oneShipment("WHERE stream = ? AND status != '"+Importing+"' ORDER BY sequence DESC LIMIT 1", stream)
}

func (tx *Tx) oneShipment(where string, args ...any) (s Shipment, ok bool, err error) {
	err = tx.each("SELECT "+shipmentColumns+" FROM shipments "+where, args,
		func(scan func(...any) error) error { ok = true; return s.scan(scan) })
	return s, ok, err
}

// Shipments returns all shipments, oldest first.
func (tx *Tx) Shipments() (all []Shipment, err error) {
	err = tx.each("SELECT "+shipmentColumns+" FROM shipments ORDER BY stream, sequence", nil,
		func(scan func(...any) error) error {
			var s Shipment
			err := s.scan(scan)
			all = append(all, s)
			return err
		})
	return all, err
}

// RemoveShipment forgets a shipment whose import was given up.
func (tx *Tx) RemoveShipment(header artifact.Digest) error {
	return tx.exec("DELETE FROM shipments WHERE header = ? AND status = '"+Importing+"'", string(header))
}

// AddReport makes d the current report of a shipment.
func (tx *Tx) AddReport(shipment string, d artifact.Digest, made time.Time) error {
	return tx.exec("INSERT INTO reports (shipment, digest, made) VALUES (?, ?, ?)", shipment, string(d), made.UTC().Format(time.RFC3339))
}

// Report returns the current report of a shipment: the blob with its envelope.
func (tx *Tx) Report(shipment string) (d artifact.Digest, ok bool, err error) {
	ok, err = tx.scan("SELECT digest FROM reports WHERE shipment = ? ORDER BY id DESC LIMIT 1", []any{shipment}, (*string)(&d))
	return d, ok, err
}

// Reports returns every report there is, of all shipments.
func (tx *Tx) Reports() (all []artifact.Digest, err error) {
	err = tx.each("SELECT digest FROM reports ORDER BY id", nil, func(scan func(...any) error) error {
		var d artifact.Digest
		err := scan((*string)(&d))
		all = append(all, d)
		return err
	})
	return all, err
}

// Approval is one signed statement about a shipment for a channel.
type Approval struct {
	Shipment string
	Key      string // id of the key that signed
	Name     string
	Channel  string
	Report   artifact.Digest
	Envelope []byte
}

// AddApproval keeps a statement; a second one by the same key replaces the
// first and never counts twice.
func (tx *Tx) AddApproval(a Approval) error {
	return tx.exec("INSERT OR REPLACE INTO approvals VALUES (?, ?, ?, ?, ?, ?)",
		a.Shipment, a.Key, a.Name, a.Channel, string(a.Report), a.Envelope)
}

// Approvals returns the statements about a shipment, in order of names.
func (tx *Tx) Approvals(shipment string) (all []Approval, err error) {
	err = tx.each("SELECT shipment, key, name, channel, report, envelope FROM approvals WHERE shipment = ? ORDER BY name", []any{shipment},
		func(scan func(...any) error) error {
			var a Approval
			err := scan(&a.Shipment, &a.Key, &a.Name, &a.Channel, (*string)(&a.Report), &a.Envelope)
			all = append(all, a)
			return err
		})
	return all, err
}

// Waiver is a signed statement that lets one rule pass.
type Waiver struct {
	Digest   artifact.Digest // of its payload
	Shipment string
	Envelope []byte
}

// SetWaiver writes w over what is known of its digest.
func (tx *Tx) SetWaiver(w Waiver) error {
	return tx.exec("INSERT OR REPLACE INTO waivers (digest, shipment, envelope) VALUES (?, ?, ?)", string(w.Digest), w.Shipment, w.Envelope)
}

// Waiver returns a waiver by the digest of its payload.
func (tx *Tx) Waiver(d artifact.Digest) (w Waiver, ok bool, err error) {
	ok, err = tx.scan("SELECT digest, shipment, envelope FROM waivers WHERE digest = ?", []any{string(d)}, (*string)(&w.Digest), &w.Shipment, &w.Envelope)
	return w, ok, err
}

// Waivers returns the waivers of a shipment, in order; of all for an empty id.
func (tx *Tx) Waivers(shipment string) (all []Waiver, err error) {
	err = tx.each("SELECT digest, shipment, envelope FROM waivers WHERE ? IN ('', shipment) ORDER BY shipment, digest", []any{shipment},
		func(scan func(...any) error) error {
			var w Waiver
			err := scan((*string)(&w.Digest), &w.Shipment, &w.Envelope)
			all = append(all, w)
			return err
		})
	return all, err
}

// Recall is one content that is not served any more, whatever release holds it.
type Recall struct {
	Ref      string          `json:"ref"`
	Manifest artifact.Digest `json:"manifest"`
	Reason   string          `json:"reason"`
	By       string          `json:"by"`
	At       string          `json:"at"` // RFC 3339
}

// AddRecall keeps a recall; the first of a content stands.
func (tx *Tx) AddRecall(r Recall) error {
	return tx.exec("INSERT OR IGNORE INTO recalls (ref, manifest, reason, by, at) VALUES (?, ?, ?, ?, ?)", r.Ref, string(r.Manifest), r.Reason, r.By, r.At)
}

// Recalls returns every recall, oldest first.
func (tx *Tx) Recalls() (all []Recall, err error) {
	err = tx.each("SELECT ref, manifest, reason, by, at FROM recalls ORDER BY id", nil, func(scan func(...any) error) error {
		var r Recall
		err := scan(&r.Ref, (*string)(&r.Manifest), &r.Reason, &r.By, &r.At)
		all = append(all, r)
		return err
	})
	return all, err
}

// CountRecalls returns how many contents were recalled.
func (tx *Tx) CountRecalls() (n int64, err error) {
	_, err = tx.scan("SELECT count(*) FROM recalls", nil, &n)
	return n, err
}

// Release is one immutable release; the blob Digest lists what is in it.
type Release struct {
	Number   int64
	Digest   artifact.Digest
	Shipment string // the one whose approval made it
	Made     string // RFC 3339
}

// AddRelease numbers and keeps a release.
func (tx *Tx) AddRelease(r Release) error {
	return tx.exec("INSERT INTO releases (number, digest, shipment, made) VALUES (?, ?, ?, ?)", r.Number, string(r.Digest), r.Shipment, r.Made)
}

// Release returns a release by number.
func (tx *Tx) Release(number int64) (r Release, ok bool, err error) {
	ok, err = tx.scan("SELECT number, digest, shipment, made FROM releases WHERE number = ?", []any{number},
		&r.Number, (*string)(&r.Digest), &r.Shipment, &r.Made)
	return r, ok, err
}

// LastRelease returns the highest number given so far, 0 if none.
func (tx *Tx) LastRelease() (n int64, err error) {
	_, err = tx.scan("SELECT coalesce(max(number), 0) FROM releases", nil, &n)
	return n, err
}

// Channel returns the release that a channel points at.
func (tx *Tx) Channel(name string) (r Release, ok bool, err error) {
	ok, err = tx.scan("SELECT r.number, r.digest, r.shipment, r.made FROM channels c JOIN releases r ON r.number = c.release WHERE c.name = ?",
		[]any{name}, &r.Number, (*string)(&r.Digest), &r.Shipment, &r.Made)
	return r, ok, err
}

// PointChannel flips a channel to a release and remembers the move.
func (tx *Tx) PointChannel(name string, number int64, at time.Time) error {
	if err := tx.exec("INSERT INTO channels VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET release = excluded.release", name, number); err != nil {
		return err
	}
	return tx.exec("INSERT INTO moves (channel, release, at) VALUES (?, ?, ?)", name, number, at.UTC().Format(time.RFC3339))
}

// Move is one flip of a channel.
type Move struct {
	Channel string `json:"channel"`
	Release int64  `json:"release"`
	At      string `json:"at"` // RFC 3339
}

// Moves returns every flip of a channel, oldest first; an empty name means all.
func (tx *Tx) Moves(channel string) (all []Move, err error) {
	err = tx.each("SELECT channel, release, at FROM moves WHERE ? IN ('', channel) ORDER BY id", []any{channel},
		func(scan func(...any) error) error {
			var m Move
			err := scan(&m.Channel, &m.Release, &m.At)
			all = append(all, m)
			return err
		})
	return all, err
}

// Packs returns every pack, in order of stream and sequence.
func (tx *Tx) Packs() (all []Pack, err error) {
	err = tx.each("SELECT "+packColumns+" FROM packs ORDER BY stream, sequence", nil,
		func(scan func(...any) error) error {
			var p Pack
			err := p.scan(scan)
			all = append(all, p)
			return err
		})
	return all, err
}

// SetUser writes the document of a user over what is known of the name.
func (tx *Tx) SetUser(name string, document []byte) error {
	return tx.exec("INSERT OR REPLACE INTO users (name, document) VALUES (?, ?)", name, string(document))
}

// RemoveUser forgets a user.
func (tx *Tx) RemoveUser(name string) error { return tx.exec("DELETE FROM users WHERE name = ?", name) }

// Users returns the documents of all users, by name.
func (tx *Tx) Users() (all [][]byte, err error) {
	err = tx.each("SELECT document FROM users ORDER BY name", nil, func(scan func(...any) error) error {
		var d string
		err := scan(&d)
		all = append(all, []byte(d))
		return err
	})
	return all, err
}

// Arrival is one artifact of a shipment that was imported whole and not rejected.
type Arrival struct {
	Ref      artifact.Ref
	Shipment string
	Status   string // of the shipment
}

// SetArrivals writes what a shipment brought over what is known of it; without
// references it is forgotten.
func (tx *Tx) SetArrivals(shipment string, refs []artifact.Ref) error {
	if err := tx.exec("DELETE FROM arrivals WHERE shipment = ?", shipment); err != nil || len(refs) == 0 {
		return err
	}
	add, err := tx.tx.PrepareContext(tx.ctx, "INSERT OR IGNORE INTO arrivals (kind, name, version, shipment) VALUES (?, ?, ?, ?)")
	if err != nil {
		return fmt.Errorf("state: %w", err)
	}
	for _, r := range refs {
		if _, err := add.ExecContext(tx.ctx, r.Kind, r.Name, r.Version, shipment); err != nil {
			return fmt.Errorf("state: %w", errors.Join(err, add.Close()))
		}
	}
	return add.Close()
}

// Arrivals returns at most limit of what arrived under a name, in whatever case; a name
// that begins with "*/" means every name that ends with the rest of it. The newest
// shipments come first.
func (tx *Tx) Arrivals(kind, name string, limit int) (all []Arrival, err error) {
	where := "a.name = ?"
	if rest, any := strings.CutPrefix(name, "*"); any {
		where, name = "substr(a.name, -length(?2)) = ?2 COLLATE NOCASE", rest
	}
	err = tx.each("SELECT a.kind, a.name, a.version, a.shipment, s.status FROM arrivals a JOIN shipments s ON s.id = a.shipment WHERE a.kind = ? AND "+where+
		" ORDER BY s.rowid DESC LIMIT ?", []any{kind, name, limit}, func(scan func(...any) error) error {
		var a Arrival
		err := scan(&a.Ref.Kind, &a.Ref.Name, &a.Ref.Version, &a.Shipment, &a.Status)
		all = append(all, a)
		return err
	})
	return all, err
}
