// Package custody keeps the story of one medium: who sealed it, wrote it, handed
// it over, received it, opened it and wiped it. Each event is signed by the person
// who says so, and names the one before it, so that none can be left out, moved or
// changed. The bytes are specified in docs/spec/custody.md. It knows no keys: who
// signed is what the caller's function says.
package custody

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/fail"
)

// PayloadType is the type under which an event is signed.
const PayloadType = "application/vnd.enisle.custody.v1+json"

// MaxLog is how many bytes of a log are read.
const MaxLog = 16 << 20

const (
	format    = "enisle-custody/1"
	maxEvents = 10_000
	maxText   = 1024 // bytes of a field
)

// What can happen to a medium, in the order in which it may.
const (
	Sealed     = "sealed"
	Written    = "written"
	ReadBack   = "read-back"
	HandedOver = "handed-over"
	Received   = "received"
	Opened     = "opened"
	Wiped      = "wiped"
)

// Kinds returns all events.
func Kinds() []string {
	return []string{Sealed, Written, ReadBack, HandedOver, Received, Opened, Wiped}
}

// Event is what one person says of a medium.
type Event struct {
	Format   string          `json:"format"`
	Shipment string          `json:"shipment"` // id, for people
	Header   artifact.Digest `json:"header"`   // of the signed header of the shipment
	Medium   string          `json:"medium"`   // name of the medium, as on its label
	Number   int             `json:"number"`   // from 1
	Previous artifact.Digest `json:"previous,omitempty"`
	What     string          `json:"what"`
	By       string          `json:"by"`           // who says so, and signs: NAME@SITE
	To       string          `json:"to,omitempty"` // who is to receive it
	At       time.Time       `json:"at"`
	Fields
	Sanitised *Sanitised `json:"sanitised,omitempty"`
}

// Fields are what a form for the custody of evidence asks for besides.
type Fields struct {
	Place     string `json:"place,omitempty"`
	Seal      string `json:"seal,omitempty"`      // number of the tamper-evident seal
	Serial    string `json:"serial,omitempty"`    // of the medium
	Kind      string `json:"kind,omitempty"`      // of the medium: maker, model, capacity
	Marking   string `json:"marking,omitempty"`   // classification or handling
	Transport string `json:"transport,omitempty"` // how it travels
	Authority string `json:"authority,omitempty"` // ticket, order
	Note      string `json:"note,omitempty"`      // condition, exception and its reason
}

// Sanitised records how a medium was wiped: what a certificate of NIST SP 800-88
// asks for.
type Sanitised struct {
	Method       string `json:"method"`    // clear, purge or destroy
	Technique    string `json:"technique"` // such as overwrite, block erase, cryptographic erase, shred
	Tool         string `json:"tool"`      // and its version
	Verification string `json:"verification"`
	Validator    string `json:"validator"` // another person who looked
	Destination  string `json:"destination,omitempty"`
}

// Entry is an event and whose key signed it.
type Entry struct {
	Event
	Digest    artifact.Digest `json:"digest"`              // of the event as it was signed
	Signer    string          `json:"signer"`              // id of the key
	Exception string          `json:"exception,omitempty"` // what is not as it should be, and was explained
}

// Verifier proves an envelope and returns its payload, the name of who signed it,
// and the id of the key.
type Verifier func(envelope []byte) (payload []byte, name, key string, err error)

// Read proves a log, one envelope a line, and returns its events in order. What
// does not follow from what stands before it is refused.
func Read(log []byte, verify Verifier) (all []Entry, err error) {
	if len(log) > MaxLog {
		return nil, fail.Refuse("look at the file", fmt.Errorf("the log has more than %d bytes", MaxLog))
	}
	for i, line := range bytes.Split(bytes.TrimSuffix(log, []byte("\n")), []byte("\n")) {
		if i == maxEvents {
			return all, fail.Refuse("look at the file", errors.New("the log has too many events"))
		}
		e, err := read(line, verify)
		if err == nil {
			e.Exception, err = follows(all, e.Event)
		}
		if err != nil {
			return all, fail.Refuse("find out what happened to the medium; the log up to here is good", fmt.Errorf("custody: event %d: %w", i+1, err))
		}
		all = append(all, e)
	}
	return all, nil
}

func read(line []byte, verify Verifier) (e Entry, err error) {
	payload, name, key, err := verify(line)
	if err != nil {
		return e, err
	}
	d := json.NewDecoder(bytes.NewReader(payload))
	d.DisallowUnknownFields()
	if err := d.Decode(&e.Event); err != nil {
		return e, err
	}
	again, err := json.Marshal(e.Event)
	if err != nil || !bytes.Equal(again, payload) {
		return e, errors.Join(errors.New("it is not in its form"), err)
	}
	if e.By != name {
		return e, fmt.Errorf("%s says that it is %s", name, e.By)
	}
	e.Digest, e.Signer = artifact.Sum(payload), key
	return e, nil
}

// Next completes an event that is to stand behind all others, and refuses one
// that cannot.
func Next(all []Entry, e Event) (Event, error) {
	e.Format, e.Number = format, len(all)+1
	if n := len(all); n > 0 {
		last := all[n-1]
		e.Shipment, e.Header, e.Medium, e.Previous = last.Shipment, last.Header, last.Medium, last.Digest
	}
	_, err := follows(all, e)
	if err != nil {
		err = fail.Refuse("'enisle custody show' tells the story so far", fmt.Errorf("custody: %w", err))
	}
	return e, err
}

// Encode returns what is signed of an event.
func Encode(e Event) ([]byte, error) { return json.Marshal(e) }

// follows refuses an event that cannot come after others. The exception is what
// may be, but must be explained.
func follows(all []Entry, e Event) (exception string, err error) {
	if err := e.check(len(all)); err != nil {
		return "", err
	}
	if len(all) == 0 {
		return "", nil
	}
	last := all[len(all)-1]
	switch {
	case e.Previous != last.Digest:
		return "", errors.New("it does not follow the one before: one is missing, or was changed")
	case e.Shipment != last.Shipment || e.Header != last.Header || e.Medium != last.Medium:
		return "", errors.New("it is about another medium or shipment")
	case e.At.Before(last.At):
		return "", fmt.Errorf("it is of %s, and the one before of %s", e.At.Format(time.RFC3339), last.At.Format(time.RFC3339))
	case !slices.Contains(after()[last.What], e.What):
		return "", fmt.Errorf("a medium that was %s cannot be %s next", last.What, e.What)
	}
	if err := held(all, e); err != nil {
		return "", err
	}
	if was := seal(all); was != "" && (e.What == Received || e.What == Opened) && e.Seal != was {
		if e.Note == "" {
			return "", fmt.Errorf("the seal was %s and is %q: say in a note what happened", was, e.Seal)
		}
		exception = fmt.Sprintf("the seal was %s and is %q", was, e.Seal)
	}
	return exception, nil
}

// after says what may come next.
func after() map[string][]string {
	travels := []string{HandedOver, Opened, Wiped}
	return map[string][]string{
		Sealed: {Written, HandedOver, Wiped}, Written: append([]string{ReadBack}, travels...), ReadBack: travels,
		HandedOver: {Received}, Received: travels, Opened: {HandedOver, Wiped}, Wiped: {},
	}
}

// held refuses an event by somebody who does not hold the medium: there is no gap
// and no overlap.
func held(all []Entry, e Event) error {
	holder := ""
	for _, x := range all {
		switch x.What {
		case Sealed, Written, Received:
			holder = x.By
		case HandedOver:
			holder = x.To
		}
	}
	if e.What == Written || e.What == ReadBack {
		return nil // by whoever has the drive
	}
	if e.By != holder {
		return fmt.Errorf("%s has it, not %s", holder, e.By)
	}
	return nil
}

// seal is the number of the seal that was put on last.
func seal(all []Entry) (number string) {
	for _, x := range all {
		if x.Seal != "" {
			number = x.Seal
		}
		if x.What == Opened {
			number = x.Seal // a new one, if any
		}
	}
	return number
}

func (e Event) check(before int) error {
	texts := []string{e.Shipment, e.Medium, e.By, e.To, e.Place, e.Seal, e.Serial, e.Kind, e.Marking, e.Transport, e.Authority, e.Note}
	for _, s := range texts {
		if len(s) > maxText || strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return errors.New("a field is too long, or not plain text")
		}
	}
	_, err := artifact.ParseDigest(string(e.Header))
	switch {
	case err != nil:
		return err
	case e.Format != format || e.Number != before+1 || (e.Number == 1) != (e.Previous == ""):
		return errors.New("format, number and previous event do not go together")
	case (e.What == Sealed) != (e.Number == 1):
		return fmt.Errorf("the story begins with %s, once", Sealed)
	case !slices.Contains(Kinds(), e.What):
		return fmt.Errorf("nothing is called %q: say %s", e.What, strings.Join(Kinds(), ", "))
	case e.Shipment == "" || e.Medium == "" || e.By == "" || e.At.IsZero() || !e.At.Equal(e.At.Truncate(time.Second)):
		return errors.New("shipment, medium, person and time in whole seconds are needed")
	case (e.What == HandedOver) != (e.To != ""):
		return errors.New("only what is handed over has a receiver, and it has one")
	case e.To != "" && !strings.Contains(e.To, "@"):
		return fail.As(fail.Usage, "write NAME@SITE", fmt.Errorf("%q is nobody at a site", e.To))
	case e.To == e.By:
		return errors.New("nobody hands over to themselves")
	case (e.What == HandedOver || e.What == Received) && e.Place == "":
		return errors.New("where?")
	case (e.What == Wiped) != (e.Sanitised != nil):
		return errors.New("what was wiped, and only that, says how")
	}
	if e.Sanitised != nil {
		return e.Sanitised.check(e.By)
	}
	return nil
}

// person is the name without the site: one who is enrolled at two is one.
func person(s string) string {
	name, _, _ := strings.Cut(s, "@")
	return name
}

// check refuses a record that claims more than was done (SP 800-88: overwriting
// clears; it does not purge).
func (s Sanitised) check(by string) error {
	switch {
	case s.Technique == "" || s.Tool == "" || s.Verification == "" || s.Validator == "":
		return errors.New("a record of wiping has technique, tool, verification and validator")
	case person(s.Validator) == person(by):
		return errors.New("another person looks whether it is wiped")
	case !slices.Contains([]string{"clear", "purge", "destroy"}, s.Method):
		return fmt.Errorf("a method is clear, purge or destroy, not %q", s.Method)
	case s.Method != "clear" && strings.Contains(strings.ToLower(s.Technique), "overwrit"):
		return errors.New("overwriting clears a medium; it neither purges nor destroys it")
	}
	return nil
}
