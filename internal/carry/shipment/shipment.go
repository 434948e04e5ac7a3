// Package shipment writes and reads the sealed volumes that cross the gap.
//
// A shipment is one directory: header.json (signed), BILL.txt (clear text for
// people) and volume-NNNN.enisle files of frames, each frame an age file of
// its own. It turns a list of blobs into volumes and back, one pass each way,
// and verifies every byte against the signed header before it hands anything
// on. It knows nothing of sites, roles or what the blobs mean: keys come in as
// a Signer, a Verifier and age recipients and identities. The bytes are
// specified in docs/spec/shipment.md.
package shipment

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/carry/parity"
	"enisle/internal/fail"
)

// Names of the files of a shipment.
const (
	HeaderName = "header.json"
	BillName   = "BILL.txt"
	// CustodyName is the log of a medium, which may stand beside the volumes. It is
	// not part of the shipment, and not read with it.
	CustodyName   = "custody.jsonl"
	partialSuffix = ".partial"
)

// PayloadType is the type under which a header is signed.
const PayloadType = "application/vnd.enisle.shipment.v1+json"

// Format is the format a header names; another one is refused.
const Format = "enisle-shipment/1"

// Limits of what is read from media.
const (
	maxHeader  = 16 << 20 // bytes of header.json
	maxBill    = 16 << 20 // bytes of BILL.txt
	maxVolumes = 9999     // so that names sort and keep four digits
	maxBase    = 10_000   // shipments that one builds on
)

// Party is one end of a stream: a site's name and the fingerprint of its key.
type Party struct {
	Name        string `json:"name"`
	Fingerprint string `json:"fingerprint"` // hex SHA-256 of the site's public key
}

// Volume is what the header says of one volume.
type Volume struct {
	Number int             `json:"number"` // from 1
	Size   int64           `json:"size"`   // bytes of the file
	Frames int             `json:"frames"`
	Parity int             `json:"parity,omitempty"` // of which parity of the others
	Root   artifact.Digest `json:"root"`             // Merkle root over superblock, frame headers and the head of the index
}

// Base is a shipment that another one builds on: what its content has in common
// with the new one is left out.
type Base struct {
	ID      string          `json:"id"`
	Header  artifact.Digest `json:"header"` // of the signed payload
	Content artifact.Digest `json:"content"`
}

// Carried counts what is in the volumes: the content root, and of everything else
// what the content of no Base has.
type Carried struct {
	Blobs int   `json:"blobs"`
	Bytes int64 `json:"bytes"`
}

// Header is what the collectors sign.
type Header struct {
	Format     string            `json:"format"`
	ID         string            `json:"id"`       // for people: site-sequence-8 hex
	Set        string            `json:"set"`      // 32 hex digits, in every superblock and frame
	From       Party             `json:"from"`     //
	To         []Party           `json:"to"`       // with From: the stream
	Sequence   uint64            `json:"sequence"` // per stream, from 1
	Previous   artifact.Digest   `json:"previous,omitempty"`
	Base       []Base            `json:"base"`    // shipments whose content must be held; never null
	Content    artifact.Digest   `json:"content"` // content root: digest of the index of all artifacts
	Artifacts  int               `json:"artifacts"`
	Blobs      int               `json:"blobs"`
	Bytes      int64             `json:"bytes"`   // sum of the sizes of the blobs
	Carried    Carried           `json:"carried"` // what of it the volumes hold
	Created    time.Time         `json:"created"`
	Expires    time.Time         `json:"expires"`
	Roots      []json.RawMessage `json:"roots"`           // every version of the low root, oldest first
	Checkpoint string            `json:"checkpoint"`      // the low ledger's head
	Bill       artifact.Digest   `json:"bill"`            // digest of BILL.txt
	Spare      int               `json:"spare,omitempty"` // how many of the last volumes are parity of the others
	Volumes    []Volume          `json:"volumes"`
}

// Data returns the volumes that content is in.
func (h Header) Data() []Volume { return h.Volumes[:len(h.Volumes)-h.Spare] }

// mendable reports whether a volume, or parts of it, can be given back from parity.
func (h Header) mendable(v Volume) bool { return v.Parity > 0 || h.Spare > 0 }

var (
	idPattern = regexp.MustCompile(`^[a-z0-9][a-z0-9-]{0,62}-[0-9]{1,19}-[0-9a-f]{8}$`)
	// The names that sites may have (docs/spec/trust.md), and ids of their keys.
	partyPattern = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$`)
	keyPattern   = regexp.MustCompile(`^[0-9a-f]{64}$`)
	setPattern   = regexp.MustCompile(`^[0-9a-f]{32}$`)
)

// named reports whether every name is plain and the id is made of them.
func (h Header) named() bool {
	for _, p := range append([]Party{h.From}, h.To...) {
		if !partyPattern.MatchString(p.Name) || !keyPattern.MatchString(p.Fingerprint) {
			return false
		}
	}
	return h.ID == ID(h.From.Name, h.Sequence, h.Set)
}

// ID is what people call a shipment; set is in hex.
func ID(from string, sequence uint64, set string) string {
	return fmt.Sprintf("%s-%d-%s", from, sequence, set[:8])
}

// SetBytes returns the 16 bytes of the set id.
func (h Header) SetBytes() (set [16]byte) {
	_, _ = hex.Decode(set[:], []byte(h.Set)) // check has matched setPattern
	return set
}

// check refuses a header whose fields could not have been written by Encode.
func (h Header) check() error {
	switch {
	case h.Format != Format:
		return fmt.Errorf("format %.40q is not %s", h.Format, Format)
	case !idPattern.MatchString(h.ID) || !setPattern.MatchString(h.Set):
		return errors.New("id or set is malformed")
	case !h.named():
		return errors.New("a name is malformed, or the id is not that of its sender, sequence and set")
	case h.Sequence == 0 || (h.Sequence == 1) != (h.Previous == ""):
		return fmt.Errorf("sequence %d does not go with its previous hash", h.Sequence)
	case len(h.To) == 0 || len(h.Roots) == 0:
		return errors.New("it names no recipient or carries no root")
	case len(h.Volumes) == 0 || len(h.Volumes) > maxVolumes:
		return fmt.Errorf("it lists %d volumes, want 1 to %d", len(h.Volumes), maxVolumes)
	case h.Artifacts < 0 || h.Blobs < 1 || h.Bytes < 0 || h.Carried.Blobs < 1 || h.Carried.Blobs > h.Blobs || h.Carried.Bytes < 0 || h.Carried.Bytes > h.Bytes:
		return errors.New("its counts cannot be")
	case h.Base == nil || len(h.Base) > maxBase || len(h.Base) == 0 && (h.Carried != Carried{h.Blobs, h.Bytes}):
		return errors.New("what it builds on does not go with what it carries")
	case h.Spare < 0 || h.Spare > parity.Spare || h.Spare >= len(h.Volumes) || h.Spare > 0 && len(h.Data()) > parity.Data:
		return errors.New("its spare volumes cannot be")
	case !h.Expires.After(h.Created):
		return errors.New("it expires before it was made")
	}
	if err := h.checkBase(); err != nil {
		return err
	}
	for i, d := range []artifact.Digest{h.Content, h.Bill, h.Previous} {
		if _, err := artifact.ParseDigest(string(d)); err != nil && (i < 2 || d != "") {
			return err
		}
	}
	for i, v := range h.Volumes {
		if v.Number != i+1 || v.Frames < 1 || v.Frames > maxFrames || v.Size < v.minSize() || v.Parity < 0 || v.Parity >= v.Frames {
			return fmt.Errorf("volume %d has impossible figures", i+1)
		}
		if _, err := artifact.ParseDigest(string(v.Root)); err != nil {
			return fmt.Errorf("volume %d: %w", i+1, err)
		}
	}
	return nil
}

func (h Header) checkBase() error {
	seen := map[artifact.Digest]bool{}
	for _, b := range h.Base {
		_, err1 := artifact.ParseDigest(string(b.Header))
		_, err2 := artifact.ParseDigest(string(b.Content))
		if err1 != nil || err2 != nil || !idPattern.MatchString(b.ID) || seen[b.Header] {
			return errors.New("what it builds on is malformed or stands twice")
		}
		seen[b.Header] = true
	}
	return nil
}

// Signer makes a signed envelope over a payload of a type.
type Signer interface {
	Sign(payloadType string, payload []byte) (envelope []byte, err error)
}

// Encode checks the header and returns it signed, as header.json holds it.
func (h Header) Encode(s Signer) ([]byte, error) {
	if err := h.check(); err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	payload, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("header: %w", err)
	}
	return s.Sign(PayloadType, payload)
}

// DecodeHeader reads the payload of a header. It accepts only the exact bytes
// that Encode would have written, so that no two byte strings are one header.
// The payload is hostile until the caller has verified who signed it.
func DecodeHeader(payload []byte) (Header, error) {
	var h Header
	if len(payload) > maxHeader {
		return h, fmt.Errorf("header: larger than %d bytes", maxHeader)
	}
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(&h); err != nil {
		return h, fmt.Errorf("header: %w", err)
	}
	if err := h.check(); err != nil {
		return h, fmt.Errorf("header: %w", err)
	}
	again, err := json.Marshal(h)
	if err != nil {
		return h, fmt.Errorf("header: %w", err)
	}
	if !bytes.Equal(again, payload) {
		return h, errors.New("header: not in canonical form")
	}
	return h, nil
}

// Blob is one blob to ship: its name and its size in bytes.
type Blob struct {
	Digest artifact.Digest
	Size   int64
}

// VolumeName is the file name of volume n, counting from 1.
func VolumeName(n int) string { return fmt.Sprintf("volume-%04d.enisle", n) }

// damaged is the refusal for a frame that is not what was signed.
func damaged(volume, frame int, why error) error {
	return fail.Refuse("copy this volume again from the low side, or ask for a new shipment",
		fmt.Errorf("volume %d, frame %d: damaged: %w", volume, frame, why))
}

// readAll reads at most limit bytes; more is an error.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("larger than %d bytes", limit)
	}
	return b, err
}
