package crossing

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/fail"
	"enisle/internal/site"
	"enisle/internal/site/ledger"
	"enisle/internal/site/state"
	"enisle/internal/site/trust"
)

// arrived is a shipment that was imported whole, with what the ledger says of
// it: the state can be changed by whoever may write the file, the ledger cannot
// without showing.
type arrived struct {
	state.Shipment
	importers []ledger.Actor // everybody who began or finished the import
	rejected  bool
	report    artifact.Digest // the newest that was made
	moves     []move          // of the candidate channel
	recalls   map[string]bool // references
}

// move is one flip of a channel, as the ledger has it.
type move struct {
	at      time.Time
	release int64
	digest  artifact.Digest // of the release; empty where the process died meanwhile
}

// findShipment returns a shipment that was imported whole.
func findShipment(ctx context.Context, s *site.Site, id string) (row arrived, err error) {
	if err := s.Require(trust.High); err != nil {
		return row, err
	}
	ok := false
	err = s.State.View(ctx, func(tx *state.Tx) (err error) { row.Shipment, ok, err = tx.Shipment(id); return err })
	if err != nil {
		return row, err
	}
	if !ok || row.Status == state.Importing {
		return row, fail.As(fail.Usage, "'enisle review' lists the shipments that are here", fmt.Errorf("there is no shipment %.80q", id))
	}
	return row, row.remember(s)
}

// remember reads the ledger.
func (row *arrived) remember(s *site.Site) error {
	e, err := trust.Parse(row.Envelope)
	if err != nil || artifact.Sum(e.Payload) != row.Header {
		return tampered(row.ID, errors.Join(errors.New("its header is another"), err))
	}
	row.recalls = map[string]bool{}
	intents := map[int64]ledger.Record{}
	err = s.Ledger.Each(func(r ledger.Record) error {
		if r.Phase == ledger.Intent {
			if r.Act == "import" && r.Subject["header"] == string(row.Header) {
				row.importers = append(row.importers, r.Actor)
			}
			mine := (r.Act == Reject || r.Act == "inspect") && r.Subject["shipment"] == row.ID
			if mine || r.Act == "recall" || (r.Act == "release" || r.Act == "rollback") && r.Subject["channel"] == candidate {
				intents[r.Index] = r
			}
			return nil
		}
		if r.Intent == nil || r.Result != site.Done {
			return nil
		}
		if intent, ok := intents[*r.Intent]; ok {
			row.done(intent.Subject, r)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(row.importers) == 0 {
		return tampered(row.ID, errors.New("the ledger knows no import of it"))
	}
	return nil
}

// done takes what an act came to, that was about subject.
func (row *arrived) done(subject map[string]string, r ledger.Record) {
	// After a crash the outcome has only what was marked in the state.
	kind, effect, _ := strings.Cut(r.Subject["effect"], " ")
	switch {
	case r.Act == Reject:
		row.rejected = true
	case r.Act == "inspect":
		row.report = artifact.Digest(r.Subject["report"])
		if kind == "report" {
			row.report = artifact.Digest(effect)
		}
	case r.Act == "recall":
		row.recalls[subject["artifact"]] = true
	default: // release and rollback
		n, err := strconv.ParseInt(cmp.Or(r.Subject["release"], subject["release"], effect), 10, 64)
		if err == nil {
			row.moves = append(row.moves, move{r.Time, n, artifact.Digest(r.Subject["digest"])})
		}
	}
}

func tampered(id string, err error) error {
	return fail.Refuse("tell the security officer: the site's state was changed by something else than enisle", fmt.Errorf("shipment %s: %w", id, err))
}

// unproven reports whether somebody had a hand in the import whose key is not
// known.
func (row arrived) unproven() bool {
	return slices.ContainsFunc(row.importers, func(a ledger.Actor) bool { return a.Key == "" })
}

// importedBy names everybody who had a hand in the import.
func (row arrived) importedBy() string {
	var names []string
	for _, a := range row.importers {
		name := a.Name
		if a.Key == "" {
			name += ", unproven"
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	return strings.Join(names, " and ")
}

// separate refuses an approval by somebody who had a hand in bringing it in.
func (row arrived) separate(key, name string) error {
	h, err := trust.Parse(row.Envelope)
	if err != nil {
		return err
	}
	packed := slices.ContainsFunc(h.Signatures, func(sig trust.Signature) bool { return sig.KeyID == key })
	imported := slices.ContainsFunc(row.importers, func(a ledger.Actor) bool { return a.Key == key })
	if packed || imported {
		return fail.Refuse("let somebody else approve", fmt.Errorf("%s packed or imported shipment %s and cannot approve it", name, row.ID))
	}
	return nil
}

// wasRejected refuses a shipment that an approver rejected.
func (row arrived) wasRejected() error {
	if row.rejected || row.Status == state.Rejected {
		return fail.Refuse("ask for a new shipment", fmt.Errorf("shipment %s was rejected", row.ID))
	}
	return nil
}
