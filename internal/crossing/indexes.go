package crossing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/fail"
	"enisle/internal/judge/release"
	"enisle/internal/site"
	"enisle/internal/site/pgp"
	"enisle/internal/site/state"
)

// Some clients trust an index by the signature on it (apt). What serves has no key, so
// the texts are signed when a channel begins to point at a release, or when a recall
// changes what is served, and kept beside the release.

// Index is an ecosystem whose index is signed.
type Index struct {
	Name string
	ecosystem.Indexed
}

// signedIndexes are the texts of one view, by ecosystem and name.
type signedIndexes struct {
	Key   artifact.Digest                       `json:"key"` // blob of the public key
	Texts map[string]map[string]artifact.Digest `json:"texts"`
}

const metaIndexes = "indexes."

func (v View) key() string { return fmt.Sprintf("%s%d.%d", metaIndexes, v.Release, v.Recalls) }

// indexesOf signs the indexes of a view. It keeps the texts as blobs, and returns what is
// to be remembered of them; empty if there is nothing to sign.
func indexesOf(ctx context.Context, s *site.Site, v *Served, indexes []Index) (string, error) {
	at, err := sealedLast(ctx, s, v.release.Requests)
	if err != nil {
		return "", err
	}
	out := signedIndexes{Texts: map[string]map[string]artifact.Digest{}}
	var key *pgp.Key
	for _, ix := range indexes {
		texts, err := ix.Index(v, at)
		if err != nil {
			return "", fmt.Errorf("index of %s: %w", ix.Name, err)
		}
		for name, text := range texts {
			if key == nil {
				if key, err = textKey(s); err != nil {
					return "", err
				}
			}
			signed, err := key.Clearsign(text, at)
			if err != nil {
				return "", err
			}
			if out.Texts[ix.Name] == nil {
				out.Texts[ix.Name] = map[string]artifact.Digest{}
			}
			if out.Texts[ix.Name][name], err = s.Held.Put(signed); err != nil {
				return "", err
			}
		}
	}
	if key == nil {
		return "", nil
	}
	public, err := key.Public()
	if err == nil {
		out.Key, err = s.Held.Put(public)
	}
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(out)
	return string(b), err
}

// textKey is the key that the site signs texts with.
func textKey(s *site.Site) (*pgp.Key, error) {
	secret, err := s.Key.Derive("openpgp")
	if err != nil {
		return nil, fail.As(fail.Failed, "leave such packages out, or use a site whose key is a file", err)
	}
	return pgp.New(secret, s.Identity.Name)
}

// sealedLast is when the newest shipment of a release was sealed: the time of its
// indexes, whenever they are made.
func sealedLast(ctx context.Context, s *site.Site, requests []release.Request) (at time.Time, err error) {
	for _, q := range requests {
		row, err := findShipment(ctx, s, q.Shipment)
		if err != nil {
			return at, err
		}
		h, err := headerOf(row.Envelope)
		if err != nil {
			return at, err
		}
		if h.Created.After(at) {
			at = h.Created
		}
	}
	return at, nil
}

// signView signs the indexes of a view, unless that was done, and remembers them.
func signView(ctx context.Context, s *site.Site, v *Served, indexes []Index) error {
	if len(indexes) == 0 {
		return nil
	}
	have := ""
	if err := s.State.View(ctx, func(tx *state.Tx) (err error) { have, err = tx.Meta(v.View().key()); return err }); err != nil || have != "" {
		return err
	}
	text, err := indexesOf(ctx, s, v, indexes)
	if err != nil || text == "" {
		return err
	}
	return s.State.Update(ctx, func(tx *state.Tx) error { return tx.SetMeta(v.View().key(), text) })
}

// readIndexes finds the signed indexes of a view.
func readIndexes(tx *state.Tx, v View) (out signedIndexes, err error) {
	text, err := tx.Meta(v.key())
	if err != nil || text == "" {
		return out, err
	}
	return out, json.Unmarshal([]byte(text), &out)
}

// maxSigned is the largest signed text that is served, in bytes.
const maxSigned = 16 << 20

var _ ecosystem.Signed = (*Served)(nil)

// SignedIndex returns a text of an index with the site's signature.
func (v *Served) SignedIndex(ecosystem, name string) ([]byte, bool) {
	if b, ok := v.loose[ecosystem][name]; ok {
		return b, true
	}
	return v.signedBlob(v.indexes.Texts[ecosystem][name])
}

// SigningKey returns the public key that the site signs with.
func (v *Served) SigningKey() ([]byte, bool) {
	if v.looseKey != nil {
		return v.looseKey, true
	}
	return v.signedBlob(v.indexes.Key)
}

func (v *Served) signedBlob(d artifact.Digest) ([]byte, bool) {
	if d == "" {
		return nil, false
	}
	b, err := v.held.ReadSmall(d, maxSigned)
	return b, err == nil
}

// signChannels signs the indexes of what every channel will serve when some contents are
// recalled as well.
func signChannels(ctx context.Context, s *site.Site, more []state.Recall, indexes []Index) error {
	if len(indexes) == 0 {
		return nil
	}
	for _, channel := range Channels() {
		var row state.Release
		var recalled []state.Recall
		ok := false
		err := s.State.View(ctx, func(tx *state.Tx) (err error) {
			if row, ok, err = tx.Channel(channel); err == nil {
				recalled, err = tx.Recalls()
			}
			return err
		})
		if err != nil {
			return err
		}
		if !ok {
			continue
		}
		for _, r := range more {
			if !slices.ContainsFunc(recalled, func(o state.Recall) bool { return o.Ref == r.Ref && o.Manifest == r.Manifest }) {
				recalled = append(recalled, r)
			}
		}
		v, err := served(s, row, recalled, signedIndexes{})
		if err == nil {
			err = signView(ctx, s, &v, indexes)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("channel %s", channel), err)
		}
	}
	return nil
}

// nextIndexes are those of a release that has no number yet.
type nextIndexes struct {
	text    string
	recalls int64
}

func (n nextIndexes) keep(tx *state.Tx, number int64) error {
	if n.text == "" {
		return nil
	}
	return tx.SetMeta(View{number, n.recalls}.key(), n.text)
}

// indexesOfNext signs the indexes of a release before any channel points at it.
func indexesOfNext(ctx context.Context, s *site.Site, next release.Release, indexes []Index) (out nextIndexes, err error) {
	if len(indexes) == 0 {
		return out, nil
	}
	var recalled []state.Recall
	if err := s.State.View(ctx, func(tx *state.Tx) (err error) { recalled, err = tx.Recalls(); return err }); err != nil {
		return out, err
	}
	v := Served{release: next, byRequest: map[string][]artifact.Artifact{}, blobs: map[artifact.Digest]bool{}, held: s.Held}
	if err := v.fill(recalled); err != nil {
		return out, err
	}
	out.recalls = int64(len(recalled))
	out.text, err = indexesOf(ctx, s, &v, indexes)
	return out, err
}

// signNumber signs the indexes of a release that was made before.
func signNumber(ctx context.Context, s *site.Site, number int64, indexes []Index) error {
	if len(indexes) == 0 {
		return nil
	}
	var row state.Release
	var recalled []state.Recall
	err := s.State.View(ctx, func(tx *state.Tx) (err error) {
		if row, _, err = tx.Release(number); err == nil {
			recalled, err = tx.Recalls()
		}
		return err
	})
	if err != nil {
		return err
	}
	v, err := served(s, row, recalled, signedIndexes{})
	if err != nil {
		return err
	}
	return signView(ctx, s, &v, indexes)
}
