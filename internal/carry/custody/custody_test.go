package custody

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"enisle/internal/artifact"
)

var began = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC) // constant

// plainly takes an event as its own envelope; that signatures count is tested
// with real ones in test/crossing.
func plainly(b []byte) ([]byte, string, string, error) {
	var e Event
	err := json.Unmarshal(b, &e)
	return b, e.By, "key of " + e.By, err
}

// story makes the log of events; do may change the last before it is added.
func story(t *testing.T, events ...Event) (log []byte, all []Entry, err error) {
	t.Helper()
	for i, e := range events {
		if e.At.IsZero() {
			e.At = began.Add(time.Duration(i) * time.Hour)
		}
		e.Shipment, e.Medium, e.Header = "outside-1-0badcafe", "disc 1", artifact.Sum([]byte("header"))
		if e, err = Next(all, e); err != nil {
			return log, all, err
		}
		b, err := json.Marshal(e)
		if err != nil {
			t.Fatal(err)
		}
		log = append(append(log, b...), '\n')
		if all, err = Read(log, plainly); err != nil {
			return log, all, err
		}
	}
	return log, all, nil
}

func by(what, who string) Event { return Event{What: what, By: who, Fields: Fields{Place: "lab"}} }

func over(from, to string) Event {
	e := by(HandedOver, from)
	e.To, e.Seal = to, "S-1"
	return e
}

func sealedBy(what, who, number string) Event {
	e := by(what, who)
	e.Seal = number
	return e
}

func wiped(who string, s Sanitised) Event {
	e := by(Wiped, who)
	e.Sanitised = &s
	return e
}

func good() []Event {
	return []Event{
		by(Sealed, "carol@x"), by(Written, "carol@x"), by(ReadBack, "carol@x"), over("carol@x", "dave@x"), sealedBy(Received, "dave@x", "S-1"),
		over("dave@x", "erin@x"), sealedBy(Received, "erin@x", "S-1"), sealedBy(Opened, "erin@x", "S-1"),
		wiped("erin@x", Sanitised{Method: "destroy", Technique: "shred", Tool: "x 1", Verification: "seen", Validator: "frank@x"}),
	}
}

func TestAWholeStory(t *testing.T) {
	_, all, err := story(t, good()...)
	if err != nil || len(all) != 9 || all[8].What != Wiped || all[4].Exception != "" {
		t.Fatalf("%d events, %v", len(all), err)
	}
}

func TestWhatCannotBe(t *testing.T) {
	early := by(Opened, "dave@x")
	early.At = began.Add(-time.Hour)
	long := by(Written, "carol@x")
	long.Note = strings.Repeat("x", 2000)
	for name, c := range map[string]struct {
		events []Event
		want   string
	}{
		"no beginning":         {[]Event{by(Written, "carol@x")}, "begins with sealed"},
		"two beginnings":       {[]Event{by(Sealed, "carol@x"), by(Sealed, "carol@x")}, "begins with sealed"},
		"received from nobody": {[]Event{by(Sealed, "carol@x"), by(Received, "dave@x")}, "cannot be received next"},
		"received by another":  {append(good()[:4], sealedBy(Received, "mallory@x", "S-1")), "dave@x has it, not mallory@x"},
		"opened on the way":    {append(good()[:4], by(Opened, "dave@x")), "cannot be opened next"},
		"handed on by another": {append(good()[:5], over("carol@x", "erin@x")), "dave@x has it, not carol@x"},
		"another seal":         {append(good()[:4], sealedBy(Received, "dave@x", "S-2")), "say in a note"},
		"no seal":              {append(good()[:4], by(Received, "dave@x")), "say in a note"},
		"to oneself":           {[]Event{by(Sealed, "carol@x"), over("carol@x", "carol@x")}, "themselves"},
		"back in time":         {append(good()[:5], early), "the one before of"},
		"after it was wiped":   {append(good(), over("erin@x", "dave@x")), "cannot be handed-over next"},
		"wiped without how":    {append(good()[:8], by(Wiped, "erin@x")), "says how"},
		"purged by overwriting": {
			append(good()[:8], wiped("erin@x", Sanitised{Method: "purge", Technique: "overwritten once", Tool: "x", Verification: "v", Validator: "frank@x"})),
			"neither purges",
		},
		"validated alone": {append(good()[:8], wiped("erin@x", Sanitised{Method: "clear", Technique: "overwrite", Tool: "x", Verification: "v", Validator: "erin@x"})), "another person"},
		"too long":        {[]Event{by(Sealed, "carol@x"), long}, "too long"},
		"unknown":         {[]Event{by(Sealed, "carol@x"), by("lost", "carol@x")}, "nothing is called"},
	} {
		if _, _, err := story(t, c.events...); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	broken := sealedBy(Received, "dave@x", "S-2")
	broken.Note = "broken at the gate"
	if _, all, err := story(t, append(good()[:4], broken)...); err != nil || all[4].Exception == "" {
		t.Errorf("an explained exception: %v", err)
	}
}

// Whatever line is left out, doubled, swapped or changed: it is refused there.
func TestAChangedLogIsRefused(t *testing.T) {
	log, _, err := story(t, good()...)
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(log, []byte("\n"))
	lines = lines[:len(lines)-1]
	join := func(l ...[]byte) []byte { return bytes.Join(l, nil) }
	for i := range lines[:len(lines)-1] {
		left := append(append([][]byte{}, lines[:i]...), lines[i+1:]...)
		twice := append(append([][]byte{}, lines[:i+1]...), lines[i:]...)
		swapped := append([][]byte{}, lines...)
		swapped[i], swapped[i+1] = swapped[i+1], swapped[i]
		changed := append([][]byte{}, lines...)
		changed[i] = bytes.Replace(changed[i], []byte("lab"), []byte("bar"), 1)
		for name, l := range map[string][][]byte{"left out": left, "twice": twice, "swapped": swapped, "changed": changed} {
			if all, err := Read(join(l...), plainly); err == nil {
				t.Errorf("event %d %s: %d events were taken", i+1, name, len(all))
			}
		}
	}
}

func FuzzRead(f *testing.F) {
	e, err := Next(nil, Event{What: Sealed, By: "carol@x", At: began, Shipment: "s", Medium: "m", Header: artifact.Sum(nil)})
	if err != nil {
		f.Fatal(err)
	}
	b, err := json.Marshal(e)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, log []byte) {
		all, err := Read(log, plainly)
		for i, x := range all {
			if x.Number != i+1 {
				t.Errorf("%v: event %d is number %d", err, i+1, x.Number)
			}
		}
	})
}
