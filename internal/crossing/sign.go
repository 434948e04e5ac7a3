package crossing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"

	"enisle/internal/artifact"
	"enisle/internal/carry/shipment"
	"enisle/internal/fail"
	"enisle/internal/site"
	"enisle/internal/site/state"
	"enisle/internal/site/trust"
)

// SignOptions say what a further collector signs.
type SignOptions struct {
	To     string          // directory with the shipment, whose header is written anew; empty: none
	Expect artifact.Digest // refuse to sign anything else
}

// Cosigned says where a further signature leaves a shipment.
type Cosigned struct {
	ID     string          `json:"id"`
	Digest artifact.Digest `json:"digest"` // of what was signed: the header
	Have   int             `json:"have"`   // collectors
	Need   int             `json:"need"`
}

// SignShipment adds a collector's signature to a shipment that this site sealed,
// where the root wants several. Only collectors of the root it was sealed under
// count.
func SignShipment(ctx context.Context, s *site.Site, by site.Actor, id string, opt SignOptions) (out Cosigned, err error) {
	if err := s.Require(trust.Low); err != nil {
		return out, err
	}
	if by.Key == nil {
		return out, fail.As(fail.Usage, "give --as NAME --key FILE of a collector", errors.New("a shipment is signed by a person"))
	}
	p, h, err := packOf(ctx, s, id)
	if err != nil {
		return out, err
	}
	root, err := trust.VerifyChain(rawEnvelopes(h.Roots), s.Identity.Key)
	if err != nil {
		return out, err
	}
	e, err := trust.Parse(p.Envelope)
	if err != nil {
		return out, err
	}
	out = Cosigned{ID: id, Digest: artifact.Sum(e.Payload), Have: len(e.Signatures) - 1, Need: root.Thresholds.Collectors}
	if opt.Expect != "" && opt.Expect != out.Digest {
		return out, fail.Refuse("'enisle inspect-media' shows what it is", fmt.Errorf("what would be signed is %s, not %s", out.Digest, opt.Expect))
	}
	known := root.Holder(false, trust.Collector)
	if _, err := known(by.ID()); err != nil {
		return out, fail.Refuse("let somebody sign who was a collector when it was sealed", err)
	}
	if slices.ContainsFunc(e.Signatures, func(sig trust.Signature) bool { return sig.KeyID == by.ID() }) {
		if opt.To == "" {
			return out, fail.Refuse("ask another collector to run 'enisle sign "+id+" --as NAME --key FILE'", fmt.Errorf("%s signed shipment %s already: one person counts once", by.Name, id))
		}
		return out, writeHeaderTo(opt.To, p.Envelope)
	}
	subject := map[string]string{"shipment": id, "header": string(out.Digest)}
	err = s.Act(ctx, "sign", by, subject, func(ctx context.Context, intent int64) (map[string]string, error) {
		if p.Envelope, err = trust.Cosign(p.Envelope, by.Key); err != nil {
			return nil, err
		}
		return nil, s.State.Update(ctx, func(tx *state.Tx) error {
			return errors.Join(tx.SetPack(p), tx.SetEffect(intent, "signed by "+by.Name))
		})
	})
	if err != nil {
		return out, err
	}
	out.Have++
	if opt.To == "" {
		return out, nil
	}
	return out, writeHeaderTo(opt.To, p.Envelope)
}

func rawEnvelopes(all []json.RawMessage) (out [][]byte) {
	for _, r := range all {
		out = append(out, r)
	}
	return out
}

// packOf returns a shipment that this site sealed, by its id.
func packOf(ctx context.Context, s *site.Site, id string) (p state.Pack, h shipment.Header, err error) {
	var all []state.Pack
	if err := s.State.View(ctx, func(tx *state.Tx) (err error) { all, err = tx.Packs(); return err }); err != nil {
		return p, h, err
	}
	i := slices.IndexFunc(all, func(p state.Pack) bool { return p.ID == id && p.Envelope != nil })
	if i < 0 {
		return p, h, fail.As(fail.Usage, "'enisle pack' prints the ids of shipments", fmt.Errorf("this site sealed no shipment %.80q", id))
	}
	h, err = headerOf(all[i].Envelope)
	return all[i], h, err
}

// writeHeaderTo writes a header with more signatures over the one of the same
// shipment in a directory.
func writeHeaderTo(to string, envelope []byte) (err error) {
	dir, err := os.OpenRoot(to)
	if err != nil {
		return fail.As(fail.Usage, "name the directory with the shipment", err)
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	b, err := dir.ReadFile(shipment.HeaderName)
	if err == nil && !samePayload(b, envelope) {
		err = errors.New("another shipment stands there")
	}
	if err != nil {
		return fail.As(fail.Usage, "name the directory with the shipment", err)
	}
	return shipment.WriteFile(dir, shipment.HeaderName, envelope)
}

// samePayload reports whether two envelopes say the same, whoever signed them.
func samePayload(a, b []byte) bool {
	x, err1 := trust.Parse(a)
	y, err2 := trust.Parse(b)
	return err1 == nil && err2 == nil && string(x.Payload) == string(y.Payload)
}
