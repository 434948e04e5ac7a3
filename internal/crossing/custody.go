package crossing

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/carry/custody"
	"enisle/internal/carry/label"
	"enisle/internal/carry/shipment"
	"enisle/internal/fail"
	"enisle/internal/site"
	"enisle/internal/site/state"
	"enisle/internal/site/trust"
)

// CustodyOptions say what happened to a medium.
type CustodyOptions struct {
	Log      string // file of the medium's log; made with the first event
	What     string
	Shipment string // id; with the first event
	Medium   string // name; with the first event
	To       string
	Fields   custody.Fields
	// Sanitised is given with custody.Wiped, else nil.
	Sanitised *custody.Sanitised
}

// Custody is the story of one medium.
type Custody struct {
	Shipment string          `json:"shipment"`
	Medium   string          `json:"medium"`
	Events   []custody.Entry `json:"events"`
}

// AddCustody signs one event and puts it behind the others of a log.
func AddCustody(ctx context.Context, s *site.Site, by site.Actor, opt CustodyOptions) (out Custody, err error) {
	if by.Key == nil {
		return out, fail.As(fail.Usage, "give --as NAME --key FILE", errors.New("an event of custody is signed by a person"))
	}
	log, all, err := readLog(ctx, s, opt.Log)
	if err != nil {
		return out, err
	}
	e := custody.Event{What: opt.What, By: by.Name + "@" + s.Identity.Name, To: opt.To, At: s.Now().UTC().Truncate(time.Second), Fields: opt.Fields, Sanitised: opt.Sanitised}
	if len(all) == 0 {
		p, _, err := packOf(ctx, s, opt.Shipment)
		if err != nil {
			return out, err
		}
		env, err := trust.Parse(p.Envelope)
		if err != nil {
			return out, err
		}
		e.Shipment, e.Header, e.Medium = p.ID, artifact.Sum(env.Payload), opt.Medium
	}
	if e, err = custody.Next(all, e); err != nil {
		return out, err
	}
	payload, err := custody.Encode(e)
	if err != nil {
		return out, err
	}
	env, err := trust.Sign(custody.PayloadType, payload, by.Key)
	if err != nil {
		return out, err
	}
	subject := map[string]string{"shipment": e.Shipment, "medium": e.Medium, "event": e.What, "digest": string(artifact.Sum(payload))}
	err = s.Act(ctx, "custody", by, subject, func(context.Context, int64) (map[string]string, error) {
		return nil, writeLog(opt.Log, append(append(log, env...), '\n'))
	})
	if err != nil {
		return out, err
	}
	return ReadCustody(ctx, s, opt.Log)
}

// ReadCustody proves a log and returns its story; on error as far as it is good.
func ReadCustody(ctx context.Context, s *site.Site, log string) (out Custody, err error) {
	_, out.Events, err = readLog(ctx, s, log)
	if len(out.Events) == 0 {
		return out, errors.Join(fail.As(fail.Usage, "name the file that 'enisle custody add' wrote", fmt.Errorf("%s has no events that are good", log)), err)
	}
	out.Shipment, out.Medium = out.Events[0].Shipment, out.Events[0].Medium
	return out, err
}

// readLog returns a log as it stands there, and its events once they are proven.
func readLog(ctx context.Context, s *site.Site, name string) (log []byte, all []custody.Entry, err error) {
	if _, err := os.Lstat(name); errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	f, _, err := openLocal(name)
	if err != nil {
		return nil, nil, err
	}
	log, err = io.ReadAll(io.LimitReader(f, custody.MaxLog+1))
	if err = errors.Join(err, f.Close()); err != nil || len(log) == 0 {
		return nil, nil, err
	}
	people, err := peopleKnown(ctx, s)
	if err != nil {
		return nil, nil, err
	}
	all, err = custody.Read(log, func(envelope []byte) ([]byte, string, string, error) {
		payload, signers, err := trust.Verify(envelope, custody.PayloadType, func(id string) (trust.Public, error) {
			if p, ok := people[id]; ok {
				return p.Key, nil
			}
			return nil, fmt.Errorf("the key is of nobody who is enrolled at %s, or whose low site sent a shipment here", s.Identity.Name)
		})
		if err != nil {
			return nil, "", "", err
		}
		if len(signers) != 1 {
			return nil, "", "", errors.New("an event has one signature")
		}
		return payload, people[signers[0]].Name, signers[0], nil
	})
	return log, all, err
}

// peopleKnown are those enrolled here, and under the newest root of each low site
// whose shipments are here, by the ids of their keys and called NAME@SITE: two
// sites may have people of one name.
func peopleKnown(ctx context.Context, s *site.Site) (map[string]trust.Person, error) {
	var rows []state.Shipment
	if err := s.State.View(ctx, func(tx *state.Tx) (err error) { rows, err = tx.Shipments(); return err }); err != nil {
		return nil, err
	}
	here := s.Roots.Root()
	newest := map[string]trust.Root{here.Site.Key.ID(): here}
	for _, row := range rows {
		h, err := headerOf(row.Envelope)
		if err != nil {
			return nil, fmt.Errorf("shipment %s: %w", row.ID, err)
		}
		peer, ok := here.Peer(h.From.Fingerprint)
		if !ok {
			continue // no longer paired
		}
		root, err := trust.VerifyChain(rawEnvelopes(h.Roots), peer.Key)
		if err != nil {
			return nil, fmt.Errorf("shipment %s: %w", row.ID, err)
		}
		if root.Version > newest[h.From.Fingerprint].Version {
			newest[h.From.Fingerprint] = root
		}
	}
	known := map[string]trust.Person{}
	for _, r := range newest {
		for _, p := range r.People {
			p.Name += "@" + r.Site.Name
			known[p.Key.ID()] = p
		}
	}
	return known, nil
}

// writeLog writes a log, durably and whole.
func writeLog(name string, log []byte) error {
	dir, err := os.OpenRoot(filepath.Dir(name))
	if err != nil {
		return fail.As(fail.Usage, "name a file in a directory that is there", err)
	}
	return errors.Join(shipment.WriteFile(dir, filepath.Base(name), log), dir.Close())
}

// Labels writes the label of a medium as SVG and PNG, and a paper manifest, into
// a directory, and returns their names.
func Labels(ctx context.Context, s *site.Site, log, to string) (names []string, err error) {
	story, err := ReadCustody(ctx, s, log)
	if err != nil {
		return nil, err
	}
	return writeLabel(labelOf(story), to, "label", paper{"manifest.txt", []byte(Story(story))})
}

// paper is a file that somebody prints.
type paper struct {
	name    string
	content []byte
}

// writeLabel writes a label as name.svg and name.png into a directory, and what
// else goes with it.
func writeLabel(l label.Label, to, name string, more ...paper) (names []string, err error) {
	svg, err := l.SVG()
	if err != nil {
		return nil, err
	}
	img, err := l.PNG()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(to, 0o755); err != nil {
		return nil, fail.As(fail.Usage, "name a directory that can be written", err)
	}
	dir, err := os.OpenRoot(to)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, dir.Close()) }()
	for _, f := range append([]paper{{name + ".svg", svg}, {name + ".png", img}}, more...) {
		if err := shipment.WriteFile(dir, f.name, f.content); err != nil {
			return names, err
		}
		names = append(names, filepath.Join(to, f.name))
	}
	return names, nil
}

func labelOf(c Custody) label.Label {
	first, last := c.Events[0], c.Events[len(c.Events)-1]
	l := label.Label{Title: c.Shipment, Lines: []string{c.Medium}}
	marking, seal := "", ""
	for _, e := range c.Events {
		if e.Marking != "" {
			marking = e.Marking
		}
		if e.Seal != "" {
			seal = e.Seal
		}
	}
	for _, s := range [][2]string{{"", marking}, {"seal ", seal}, {"sealed ", first.At.Format(time.DateOnly) + " by " + first.By}, {"sha256 ", first.Header.Hex()[:32]}} {
		if s[1] != "" {
			l.Lines = append(l.Lines, s[0]+s[1])
		}
	}
	l.Code = strings.Join([]string{"EN1", c.Shipment, c.Medium, first.Header.Hex()[:32], last.Digest.Hex()[:16]}, ":")
	return l
}

// Story tells what happened to a medium, for paper.
func Story(c Custody) string {
	var b strings.Builder
	fmt.Fprintf(&b, "custody of %q, shipment %s\nheader %s\n", c.Medium, c.Shipment, c.Events[0].Header)
	for _, e := range c.Events {
		fmt.Fprintf(&b, "\n%3d  %s  %s by %s", e.Number, e.At.Format(time.RFC3339), e.What, e.By)
		if e.To != "" {
			fmt.Fprintf(&b, " to %s", e.To)
		}
		fmt.Fprintln(&b)
		rows := [][2]string{
			{"place", e.Place},
			{"seal", e.Seal},
			{"serial", e.Serial},
			{"kind", e.Kind},
			{"marking", e.Marking},
			{"transport", e.Transport},
			{"authority", e.Authority},
			{"note", e.Note},
			{"EXCEPTION", e.Exception},
		}
		if w := e.Sanitised; w != nil {
			rows = append(rows, [][2]string{
				{"method", w.Method},
				{"technique", w.Technique},
				{"tool", w.Tool},
				{"verification", w.Verification},
				{"validator", w.Validator},
				{"destination", w.Destination},
			}...)
		}
		for _, r := range append(rows, [2]string{"event", string(e.Digest)}, [2]string{"key", e.Signer[:16]}) {
			if r[1] != "" {
				fmt.Fprintf(&b, "     %-12s %s\n", r[0], r[1])
			}
		}
	}
	return b.String()
}
