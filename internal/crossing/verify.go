package crossing

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"enisle/internal/carry/shipment"
	"enisle/internal/fail"
)

// Damage is one thing on the media that is not what was signed.
type Damage = shipment.Damage

// Checked says what stands on media.
type Checked struct {
	Frames   int      `json:"frames,omitempty"`   // frames that are what was signed
	Damage   []Damage `json:"damage,omitempty"`   // all that is not
	Repaired []int    `json:"repaired,omitempty"` // volumes that were written anew
}

// Check reads everything on the media and compares it with a verified header. It
// refuses if anything is not what was signed, after it has named all of it. With
// a directory, it writes there the volumes that are damaged or missing, as they
// were signed, beside header and bill: if that is all, nothing is refused.
func Check(ctx context.Context, m *shipment.Media, h shipment.Header, repairTo string, progress Progress) (out Checked, err error) {
	if err := m.CheckSet(h); err != nil {
		return out, err
	}
	var total int64
	for _, v := range h.Volumes {
		total += v.Size
	}
	err = m.Read(ctx, h, shipment.ReadOptions{
		Progress: progress.start("verifying", total),
		Mark:     func(int, int) error { out.Frames++; return nil },
		Damage:   func(d shipment.Damage) error { out.Damage = append(out.Damage, d); return nil },
	})
	if err != nil || len(out.Damage) == 0 {
		return out, err
	}
	var numbers []int
	var lost []Damage
	for _, d := range out.Damage {
		if !d.Mended {
			lost = append(lost, d)
		}
		if !slices.Contains(numbers, d.Volume) {
			numbers = append(numbers, d.Volume)
		}
	}
	switch {
	case len(lost) > 0:
		return out, fail.Refuse("copy these volumes again from the low side, or ask for a new shipment", fmt.Errorf("%d of %d damages are beyond repair: %s", len(lost), len(out.Damage), texts(lost)))
	case repairTo == "":
		return out, fail.Refuse("'enisle import' repairs while it reads; 'enisle verify --repair-to DIR' writes good volumes",
			fmt.Errorf("%d damages, all of which can be repaired: %s", len(out.Damage), texts(out.Damage)))
	}
	if err := os.MkdirAll(repairTo, 0o755); err != nil {
		return out, fail.As(fail.Usage, "give a directory that can be written with --repair-to", err)
	}
	dir, err := os.OpenRoot(repairTo)
	if err != nil {
		return out, err
	}
	if err := errors.Join(m.Repair(h, dir, numbers), dir.Close()); err != nil {
		return out, err
	}
	out.Repaired = numbers
	return out, nil
}

// texts names the first of them; --json lists all.
func texts(all []Damage) string {
	const most = 20
	var words []string
	for _, d := range all[:min(most, len(all))] {
		words = append(words, d.Err.Error())
	}
	if len(all) > most {
		words = append(words, fmt.Sprintf("and %d more", len(all)-most))
	}
	return strings.Join(words, "; ")
}
