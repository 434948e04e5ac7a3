package crossing

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"unicode"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/judge/release"
	"enisle/internal/site"
	"enisle/internal/site/state"
)

var _ ecosystem.Explainer = (*Served)(nil)

// absences answers why a channel does not serve something, out of the state as it is
// now: a release stays what it is while shipments arrive and other channels move.
type absences struct {
	site    *site.Site
	channel string

	mu      sync.Mutex
	version uint32 // of the state that the rest was read from
	known   map[artifact.Ref]string
	// channels are those that serve a shipment, by its id.
	channels map[string][]string
}

const (
	maxAbsences = 10_000 // answers that are kept
	maxArrivals = 1000   // of one name that are looked at
	maxReason   = 300    // letters of a recall's reason that clients are told
)

// Why says why nothing is served under a reference, in one line of ASCII; without a
// version, why nothing of the name is. It is asked with names that strangers chose.
func (v *Served) Why(ctx context.Context, ref artifact.Ref) string {
	if v.absent == nil {
		return "it was not collected"
	}
	here := slices.ContainsFunc(v.artifacts, func(a artifact.Artifact) bool { return a.Ref.Kind == ref.Kind && a.Ref.Name == ref.Name })
	why, err := v.absent.find(ctx, ref)
	switch {
	case err != nil:
		v.absent.site.Log().WarnContext(ctx, "why something is not served is not known", "err", err)
		return "it is not in this release"
	case why != "":
		return why
	case here && ref.Version != "":
		return "it is not held here in this version"
	}
	return "it is not held here; have it collected and brought"
}

// find returns what is known of a reference, empty if nothing is.
func (a *absences) find(ctx context.Context, ref artifact.Ref) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	version := a.site.State.Version()
	if a.known == nil || a.version != version || len(a.known) >= maxAbsences {
		// Read before the state is: never newer than what it says.
		a.version, a.known, a.channels = version, map[artifact.Ref]string{}, nil
	}
	why, ok := a.known[ref]
	if ok {
		return why, nil
	}
	err := a.site.State.View(ctx, func(tx *state.Tx) (err error) {
		if a.channels == nil {
			if a.channels, err = a.serving(tx); err != nil {
				return err
			}
		}
		if why, err = recallOf(tx, ref); err != nil || why != "" {
			return err
		}
		all, err := tx.Arrivals(ref.Kind, ref.Name, maxArrivals)
		why = a.arrivalOf(all, ref.Version)
		return err
	})
	if err == nil {
		a.known[ref] = why
	}
	return why, err
}

// serving reads which channels serve which shipments.
func (a *absences) serving(tx *state.Tx) (map[string][]string, error) {
	out := map[string][]string{}
	for _, channel := range Channels() {
		row, ok, err := tx.Channel(channel)
		if err != nil {
			return nil, err
		}
		if !ok {
			continue
		}
		doc, err := a.site.Held.ReadSmall(row.Digest, release.MaxSize)
		if err != nil {
			return nil, err
		}
		r, err := release.Decode(doc)
		if err != nil {
			return nil, err
		}
		for _, q := range r.Requests {
			out[q.Shipment] = append(out[q.Shipment], channel)
		}
	}
	return out, nil
}

// recallOf says that what is asked for was recalled, and why.
func recallOf(tx *state.Tx, ref artifact.Ref) (string, error) {
	all, err := tx.Recalls()
	if err != nil {
		return "", err
	}
	for _, r := range slices.Backward(all) {
		gone, err := artifact.ParseRef(r.Ref)
		if err == nil && means(ref, gone) {
			at, _, _ := strings.Cut(r.At, "T")
			return fmt.Sprintf("%s was recalled by %s on %s: %s", called(gone), line(r.By), at, line(r.Reason)), nil
		}
	}
	return "", nil
}

// means reports whether what is asked for is, or may be, an artifact.
func means(asked, ref artifact.Ref) bool {
	name := strings.EqualFold(asked.Name, ref.Name)
	if rest, any := strings.CutPrefix(asked.Name, "*"); any {
		name = strings.HasSuffix(strings.ToLower(ref.Name), strings.ToLower(rest))
	}
	return asked.Kind == ref.Kind && name && (asked.Version == "" || asked.Version == ref.Version)
}

// arrivalOf says where what is asked for is instead; the newest first.
func (a *absences) arrivalOf(all []state.Arrival, version string) string {
	elsewhere, left := "", ""
	for _, r := range all {
		serving := a.channels[r.Shipment]
		switch {
		case version != "" && r.Ref.Version != version:
		case r.Status == state.Quarantined:
			return fmt.Sprintf("%s arrived with shipment %s and waits for approval", called(r.Ref), r.Shipment)
		case slices.Contains(serving, a.channel):
			return called(r.Ref) + " is released here, but nothing of it under this name"
		case len(serving) > 0 && elsewhere == "":
			elsewhere = fmt.Sprintf("%s is released to the channel %s only", called(r.Ref), strings.Join(serving, " and "))
		case left == "":
			left = called(r.Ref) + " was released once, and this channel serves it no more"
		}
	}
	if elsewhere != "" {
		return elsewhere
	}
	return left
}

func called(r artifact.Ref) string { return line(strings.TrimSpace(r.Name + " " + r.Version)) }

// line makes one line of ASCII of what people wrote, as headers and clients take it.
func line(s string) string {
	var b strings.Builder
	for i, r := range []rune(s) {
		switch {
		case i == maxReason:
			return b.String() + "..."
		case r == '\n' || r == '\r' || r == '\t':
			b.WriteByte(' ')
		case r < ' ' || r > unicode.MaxASCII || r == 0x7f:
			b.WriteByte('?')
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}

// refs are the references of a set.
func (s set) refs() (out []artifact.Ref) {
	for _, a := range s.artifacts {
		out = append(out, a.Ref)
	}
	return out
}
