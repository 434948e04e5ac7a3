package main

import (
	"fmt"
	"slices"
	"time"

	"enisle/test/bench/rig"
)

// figures are those of one server.
type figures struct {
	latency       []time.Duration // one a turn, as added is
	added         []time.Duration // to that of the engine
	cpu, rate     []float64       // µs and calls a second, one a round
	chunk, spaced []float64       // µs of CPU a chunk: as fast as they come, and 5 ms apart
}

const itself = "engine itself"

const (
	calls  = 4000 // of a round, many at a time
	turns  = 10   // of a round, of calls one after the other
	turn   = 40   // calls to each server
	chunks = 200  // of a stream
)

// share is the part of calls that a server is asked: LiteLLM takes long.
func (s *server) share(n int) int {
	if s.name == "LiteLLM" {
		return n / 20
	}
	return n
}

func measure(all []*server, rounds, open int) error {
	got := map[string]*figures{}
	for round := range rounds {
		if round <= 1 { // the first warms up
			for _, s := range all {
				got[s.name] = &figures{}
			}
		}
		for n := range turns {
			if err := alone(slices.Concat(all[n%len(all):], all[:n%len(all)]), got); err != nil {
				return err
			}
		}
		for _, s := range all {
			if err := s.loaded(got[s.name]); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	report(all, got, rounds)
	return openStreams(all[slices.IndexFunc(all, func(s *server) bool { return s.name == "enisle" })], open)
}

// alone measures a turn of calls, one after the other.
func alone(all []*server, got map[string]*figures) error {
	body := prompt(false, 0, 0)
	medians := map[string]time.Duration{}
	for _, s := range all {
		cl := client()
		var took []time.Duration
		for range s.share(turn) {
			began := time.Now()
			if err := s.call(cl, body); err != nil {
				return fmt.Errorf("%s: %w", s.name, err)
			}
			took = append(took, time.Since(began))
		}
		cl.CloseIdleConnections()
		medians[s.name] = rig.Median(took)
	}
	for name, m := range medians {
		f := got[name]
		f.latency, f.added = append(f.latency, m), append(f.added, m-medians[itself])
	}
	return nil
}

// loaded measures calls many at a time.
func (s *server) loaded(f *figures) error {
	n, streams := s.share(calls), s.share(160)
	wall, cpu, err := s.load(n, 16, prompt(false, 0, 0))
	if err != nil {
		return err
	}
	_, fast, err := s.load(streams, 16, prompt(true, chunks, 0))
	if err != nil {
		return fmt.Errorf("streams: %w", err)
	}
	_, slow, err := s.load(streams/2, 64, prompt(true, chunks, 5))
	if err != nil {
		return fmt.Errorf("streams: %w", err)
	}
	f.cpu = append(f.cpu, float64(cpu.Microseconds())/float64(n))
	f.rate = append(f.rate, float64(n)/wall.Seconds())
	f.chunk = append(f.chunk, float64(fast.Microseconds())/float64(streams*chunks))
	f.spaced = append(f.spaced, float64(slow.Microseconds())/float64(streams/2*chunks))
	return nil
}

func report(all []*server, got map[string]*figures, rounds int) {
	fmt.Printf("prompt and answer of 1,000 characters, %d rounds, medians\n\n%-14s %10s %14s %12s %10s %13s %13s\n", rounds, "", "p50 µs", "added p50 µs", "CPU µs/call", "calls/s", "CPU µs/chunk", "5 ms apart")
	for _, s := range all {
		f := got[s.name]
		fmt.Printf("%-14s %9d %13d %12.0f %10.0f %13.2f %13.2f\n", s.name, rig.Median(f.latency).Microseconds(), rig.Median(f.added).Microseconds(),
			rig.Median(f.cpu), rig.Median(f.rate), rig.Median(f.chunk), rig.Median(f.spaced))
	}
	p := got["ReverseProxy"]
	fmt.Printf("\nadded latency p50: bytes copied %d µs, ReverseProxy %d µs\n", rig.Median(got["bytes copied"].added).Microseconds(), rig.Median(p.added).Microseconds())
	for _, name := range []string{"enisle", "and classifier"} {
		e := got[name]
		fmt.Printf("%s: added latency p50 %d µs, %.2f of ReverseProxy; CPU of a call %.2f of ReverseProxy, of a chunk %.2f, %.2f where they are 5 ms apart\n",
			name, rig.Median(e.added).Microseconds(), float64(rig.Median(e.added))/float64(rig.Median(p.added)),
			rig.Median(e.cpu)/rig.Median(p.cpu), rig.Median(e.chunk)/rig.Median(p.chunk), rig.Median(e.spaced)/rig.Median(p.spaced))
	}
	if l := got["LiteLLM"]; l != nil {
		fmt.Printf("calls a second: %.1f of LiteLLM\n", rig.Median(got["enisle"].rate)/rig.Median(l.rate))
	}
}
