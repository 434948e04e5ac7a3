package app

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"enisle/internal/crossing"
	"enisle/internal/ecosystem"
	"enisle/internal/fail"
	"enisle/internal/sandbox"
	"enisle/internal/site"
	"enisle/internal/site/token"
)

// RehearseVerb is the hidden verb under which the isolated half of rehearse runs.
const RehearseVerb = "rehearse-inside"

// Rehearse has the stock clients install everything that was collected under a request,
// in a network namespace that has nothing but a mirror of exactly that; an empty name
// means the request that was collected last. What came of it goes on the record.
func (a *App) Rehearse(ctx context.Context, request string) (out crossing.Rehearsed, err error) {
	dir, err := filepath.Abs(a.Dir)
	if err != nil {
		return out, err
	}
	work, err := os.MkdirTemp("", "enisle-rehearse-")
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	args := []string{RehearseVerb, "-C", dir, "--request", request, "--work", work}
	if a.KeyFile != "" && !token.Is(a.KeyFile) {
		args = append(args, "--hide", a.KeyFile)
	}
	cmd, err := sandbox.Isolated(ctx, args...)
	if err != nil {
		return out, fail.As(fail.Failed, "run it as root, or where users may make network namespaces", err)
	}
	var answer bytes.Buffer
	cmd.Stdout, cmd.Stderr, cmd.Env = &answer, os.Stderr, append(os.Environ(), "TMPDIR="+work)
	if err := cmd.Run(); err != nil {
		return out, fmt.Errorf("rehearse: %w", err)
	}
	if err := json.Unmarshal(answer.Bytes(), &out); err != nil {
		return out, fmt.Errorf("rehearse: %w", err)
	}
	err = a.change(ctx, "rehearse", func(s *site.Site, by site.Actor) error { return crossing.RecordRehearsal(ctx, s, by, out) })
	return out, err
}

// RehearseInside is the isolated half: it serves what was collected and runs the clients,
// which see neither the site nor what is to be hidden besides.
func (a *App) RehearseInside(ctx context.Context, request, work string, hide []string) (out crossing.Rehearsed, err error) {
	if err := sandbox.Loopback(); err != nil {
		return out, err
	}
	secret := make([]byte, 32)
	if _, err := rand.Read(secret); err != nil {
		return out, err
	}
	s, err := site.Open(ctx, a.Dir, a.options(true))
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	v, content, name, err := crossing.CollectedView(ctx, s, request, a.indexes(), secret)
	if err != nil {
		return out, err
	}
	out = crossing.Rehearsed{Request: name, Content: content, At: s.Now(), Tried: []crossing.Tried{}, Missing: []string{}}
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return out, err
	}
	missed, err := os.Create(filepath.Join(work, "misses"))
	if err != nil {
		return out, err
	}
	m := newMirrors(s, a.ecosystems(nil, nil), &pulls{to: null, seen: map[seenPull]bool{}}, &misses{to: missed, seen: map[seenMiss]bool{}})
	h, err := m.build(v, "rehearsal")
	if err != nil {
		return out, err
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return out, err
	}
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = srv.Serve(l) }() // ends with Close
	for _, eco := range a.ecosystems(nil, nil) {
		tried, ok := a.rehearseOne(ctx, eco, v, "http://"+l.Addr().String(), filepath.Join(work, eco.Name()), append(hide, a.Dir))
		if ok {
			out.Tried = append(out.Tried, tried)
		}
	}
	out.Missing, err = missedIn(missed.Name())
	return out, errors.Join(err, srv.Close(), missed.Close(), null.Close())
}

// rehearseOne runs one ecosystem's client; false if nothing of it was collected.
func (a *App) rehearseOne(ctx context.Context, eco ecosystem.Ecosystem, v *crossing.Served, base, work string, hidden []string) (t crossing.Tried, ok bool) {
	artifacts := v.Artifacts(ecosystem.KindOf(eco))
	t = crossing.Tried{Ecosystem: eco.Name(), Artifacts: len(artifacts)}
	if len(artifacts) == 0 {
		return t, false
	}
	r, can := eco.(ecosystem.Rehearser)
	if !can {
		t.Skipped = true
		return t, true
	}
	err := os.Mkdir(work, 0o755)
	if err == nil {
		run := sandbox.Exec{
			Cache: []string{}, Spec: sandbox.Spec{Hidden: hidden},
			// Where cargo is a link to rustup, it is found by this.
			Env: []string{"PATH=" + os.Getenv("PATH"), "HOME=" + work, "LC_ALL=C.UTF-8", "RUSTUP_HOME=" + settingsOf("RUSTUP_HOME", ".rustup")},
		}
		err = r.Rehearse(ctx, ecosystem.Rehearsal{Runner: run, Base: base, Work: work, Artifacts: artifacts})
	}
	if errors.Is(err, ecosystem.ErrNoClient) {
		t.Skipped = true
		return t, true
	}
	if err != nil {
		t.Error = strings.ReplaceAll(err.Error(), "\n", "; ")
	}
	return t, true
}

// missedIn lists what stands in a record of misses, each once.
func missedIn(file string) ([]string, error) {
	b, err := os.ReadFile(file)
	out := []string{}
	for line := range bytes.Lines(b) {
		var m miss
		if json.Unmarshal(line, &m) == nil && m.Item != "" && !slices.Contains(out, m.Kind+": "+m.Item) {
			out = append(out, m.Kind+": "+m.Item)
		}
	}
	return out, err
}
