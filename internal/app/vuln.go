package app

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"enisle/internal/artifact"
	"enisle/internal/crossing"
	"enisle/internal/judge/inspect"
	"enisle/internal/judge/vuln"
	"enisle/internal/plain"
)

// lookupAtOnce is how many bytes of components one order names; sandbox.Control
// takes 64 KiB.
const lookupAtOnce = 32 << 10

// vulnScanner is the name under which findings of vulnerabilities stand.
const vulnScanner = "vuln"

// Lookup matches the components that a report noted against vulnerability data. It
// says what it found, and what it looked in. Data that is empty, cannot be read or
// has nothing about an ecosystem that is asked about becomes a finding that refuses.
func (i inspector) Lookup(ctx context.Context, r inspect.Report, data artifact.Artifact, open inspect.Open) (out crossing.Looked, err error) {
	out.Database.Name, out.Database.Version = "osv", string(data.Manifest)
	wanted := components(r)
	var found []vuln.Found
	for _, f := range data.Files {
		head, got, err := i.lookupFile(ctx, f, open, func(eco string) []vuln.Component { return wanted.of[eco] })
		if err != nil {
			if ctx.Err() != nil {
				return out, ctx.Err()
			}
			out.Findings = append(out.Findings, inspect.Finding{Scanner: vulnScanner, Rule: "unread", Severity: inspect.Refuse, Artifact: data.Ref.String(), File: f.Path, Detail: err.Error()})
			continue
		}
		found = append(found, got...)
		delete(wanted.of, head.Ecosystem)
		if out.Advisories == nil {
			out.Advisories = map[string]int{}
		}
		out.Advisories[head.Ecosystem] = head.Advisories
		// The age of data is that of its oldest part.
		if out.Database.Dated.IsZero() || head.Newest.Before(out.Database.Dated) {
			out.Database.Dated = head.Newest
		}
	}
	for _, f := range vuln.Group(found) {
		for _, at := range wanted.at[f.Component.PURL] {
			out.Findings = append(out.Findings, finding(at, f))
		}
	}
	out.Missing = map[string]inspect.Finding{}
	for eco, list := range wanted.of {
		at := wanted.at[list[0].PURL][0]
		out.Missing[eco] = inspect.Finding{
			Scanner: vulnScanner, Rule: "no-data", Severity: inspect.Warn, Artifact: at.Artifact, File: at.File,
			Detail: fmt.Sprintf("the vulnerability data has nothing about %s, of which %d components are here", eco, len(list)),
		}
	}
	return out, nil
}

// place is where a component lies.
type place struct{ Artifact, File string }

type wantedComponents struct {
	of map[string][]vuln.Component // by ecosystem, without release
	at map[string][]place          // by package URL
}

// components gathers what a report noted, each once, with the places it lies in.
func components(r inspect.Report) wantedComponents {
	out := wantedComponents{map[string][]vuln.Component{}, map[string][]place{}}
	systems := map[string]string{} // artifact → release of its distribution
	for _, f := range r.Facts {
		if rest, ok := strings.CutPrefix(f.Value, "pkg:generic/os/"); ok && f.Kind == inspect.Component {
			systems[f.Artifact] = strings.Replace(rest, "@", "-", 1)
		}
	}
	for _, f := range r.Facts {
		if f.Kind != inspect.Component {
			continue
		}
		c, ok, err := vuln.Parse(f.Value)
		if err != nil || !ok {
			continue // what was noted is a package URL; those without advisories are not looked up
		}
		if id, release, known := strings.Cut(systems[f.Artifact], "-"); known && strings.EqualFold(id, c.Ecosystem) {
			if c.Ecosystem += ":"; id == "alpine" {
				release = "v" + strings.Join(strings.SplitN(release, ".", 3)[:min(2, 1+strings.Count(release, "."))], ".")
			}
			c.Ecosystem += release
			c.PURL += "#" + c.Ecosystem // one package in two releases is two
		}
		where := place{f.Artifact, f.File}
		if len(out.at[c.PURL]) == 0 {
			base := vuln.Base(c.Ecosystem)
			out.of[base] = append(out.of[base], c)
		}
		if !slices.ContainsFunc(out.at[c.PURL], func(p place) bool { return p.Artifact == where.Artifact }) {
			out.at[c.PURL] = append(out.at[c.PURL], where)
		}
	}
	return out
}

// finding says what a vulnerability is, in one line.
func finding(at place, f vuln.Found) inspect.Finding {
	score, stated := f.Record.Score()
	out := inspect.Finding{Scanner: vulnScanner, Rule: "vulnerability", Severity: inspect.Warn, Artifact: at.Artifact, File: at.File, Score: score, Advisory: plain.Line(f.Record.ID)}
	names := f.Record.ID
	if len(f.Record.Aliases) > 0 {
		names += " (" + strings.Join(f.Record.Aliases[:min(4, len(f.Record.Aliases))], ", ") + ")"
	}
	detail := fmt.Sprintf("%s %s: %s", f.Component.Name, f.Component.Version, names)
	switch {
	case f.Record.Malicious():
		out.Rule, out.Severity = "malicious-package", inspect.Refuse
	case stated:
		detail += fmt.Sprintf(", score %.1f", score)
		if score < 4 {
			out.Severity = inspect.Info
		}
	default:
		detail += ", no score is stated"
	}
	if f.Affected.Fixed != "" {
		detail += ", mended in " + f.Affected.Fixed
	}
	if f.Affected.Unsure != "" {
		detail += ", counted because " + f.Affected.Unsure
	}
	if f.Record.Summary != "" {
		detail += ": " + f.Record.Summary
	}
	if len(detail) > 400 {
		detail = strings.ToValidUTF8(detail[:400], "") + "…"
	}
	out.Detail = plain.Line(detail)
	return out
}

// lookupFile looks in one file of data for the components of its ecosystem.
func (i inspector) lookupFile(ctx context.Context, f artifact.File, open inspect.Open, of func(eco string) []vuln.Component) (head vuln.Head, found []vuln.Found, err error) {
	b, err := open(f.Digest)
	if err != nil {
		return head, nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	handle, ok := b.(syscall.Conn)
	if !ok {
		return head, nil, errors.New("it is no file that can be handed over")
	}
	eco, ok := strings.CutSuffix(f.Path, vuln.Suffix)
	if !ok {
		return head, nil, errors.New("no file of vulnerability data")
	}
	list := of(eco)
	for first := true; first || len(list) > 0; first = false {
		n := 0
		for size := 0; n < len(list) && size < lookupAtOnce; n++ {
			size += 2*len(list[n].PURL) + 2*len(list[n].Name) + len(list[n].Version) + 100
		}
		answer, err := i.child.ask(ctx, inspectOrder{Lookup: list[:n]}, handle)
		list = list[n:]
		if err != nil {
			return head, nil, err
		}
		if head = answer.Head; head.Ecosystem != eco {
			return head, nil, fmt.Errorf("it is about %q, which its name does not say", head.Ecosystem)
		}
		found = append(found, answer.Found...)
	}
	return head, found, nil
}

// lookup is what the child does with data.
func lookup(list []vuln.Component, at handed) (head vuln.Head, found []vuln.Found, err error) {
	d, err := vuln.Open(at, at.size)
	if err != nil {
		return head, nil, err
	}
	for _, c := range list {
		got, err := d.Lookup(c)
		if err != nil {
			return head, nil, err
		}
		found = append(found, got...)
	}
	return d.Head, found, nil
}

// buildData is what the child does with an export: it leaves the sorted file in its
// directory.
func buildData(ctx context.Context, ecosystem string, export handed) (head vuln.Head, err error) {
	f, err := os.Create(built)
	if err != nil {
		return head, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return vuln.Build(ctx, ecosystem, export, export.size, f)
}

// advisories makes vulnerability data on the connected side, in a child.
type advisories struct{ child *confined }

// Build makes the sorted file of an ecosystem out of an export, and hands it to
// take.
func (a advisories) Build(ctx context.Context, ecosystem string, export *os.File, take func(name string, size int64, newest time.Time, r io.Reader) error) (err error) {
	answer, err := a.child.ask(ctx, inspectOrder{Build: ecosystem}, export)
	if err != nil {
		return err
	}
	fd, err := unix.Open(filepath.Join(a.child.spool, built), unix.O_RDONLY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("vulnerability data: %w", err)
	}
	f := os.NewFile(uintptr(fd), built)
	defer func() { err = errors.Join(err, f.Close(), os.Remove(filepath.Join(a.child.spool, built))) }()
	st, err := f.Stat()
	if err != nil {
		return err
	}
	return take(cmp.Or(answer.Head.Ecosystem, ecosystem)+vuln.Suffix, st.Size(), answer.Head.Newest, f)
}
