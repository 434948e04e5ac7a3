// Package rig has what benchmarks of servers share: a site with something released,
// free ports, and what a process and its children took.
package rig

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Free returns addresses on loopback that nobody listens at.
func Free(n int) (all []string, err error) {
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer func() { _ = l.Close() }() // the port was all that was wanted
		all = append(all, l.Addr().String())
	}
	return all, nil
}

// Answers waits until an address does.
func Answers(at string) (err error) {
	for range 200 {
		req, rerr := http.NewRequest(http.MethodGet, at, nil)
		if rerr != nil {
			return rerr
		}
		req.Header.Set("Accept", "application/vnd.oci.image.manifest.v1+json, */*")
		res, gerr := http.DefaultClient.Do(req)
		if gerr == nil {
			_ = res.Body.Close() // nothing is read from it
			if res.StatusCode == http.StatusOK {
				return nil
			}
			gerr = errors.New(res.Status)
		}
		err = fmt.Errorf("%s: %w", at, gerr)
		time.Sleep(50 * time.Millisecond)
	}
	return err
}

// Cross makes two sites in a directory and brings what a request asks for to the stable
// channel of the island. more are commands that are run before anything is imported.
func Cross(dir, bin, request string, more ...string) error {
	do := func(args ...string) (string, error) {
		c := exec.Command(bin, append(args, "-q")...)
		c.Dir = dir
		out, err := c.Output()
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			err = fmt.Errorf("%v: %w: %s", args, err, exit.Stderr)
		}
		return strings.TrimSpace(string(out)), err
	}
	if err := os.WriteFile(filepath.Join(dir, "enisle.yaml"), []byte(request), 0o600); err != nil {
		return err
	}
	id := ""
	steps := []string{
		"-C low init --side low", "-C high init --side high", "-C high identity > high.id", "-C low identity > low.id", "-C low pair high.id", "-C high pair low.id",
		"keygen --no-passphrase --out a.key", "keygen --no-passphrase --out b.key",
		"-C high person add a --role approver --key a.key.pub", "-C high person add b --role approver --key b.key.pub",
	}
	steps = append(append(steps, more...),
		"-C low collect", "-C low pack --to media", "-C high import media", "-C high inspect ID", "-C high approve ID --as a --key a.key", "-C high approve ID --as b --key b.key", "-C high release ID")
	for _, step := range steps {
		step, to, _ := strings.Cut(step, " > ")
		out, err := do(strings.Fields(strings.ReplaceAll(step, "ID", id))...)
		if err != nil {
			return err
		}
		if strings.Contains(step, " pack ") {
			id = out
		}
		if to != "" {
			if err := os.WriteFile(filepath.Join(dir, to), []byte(out), 0o600); err != nil {
				return err
			}
		}
	}
	return nil
}

// CPU is the time that a process and all below it have computed for. Threads count to the
// nanosecond, where the kernel says it of them; what it adds up for a process is in ticks.
func CPU(root int) (cpu time.Duration) {
	below(root, func(pid int, stat []string) {
		if t, ok := threads(pid); ok {
			cpu += t
			return
		}
		for _, i := range []int{11, 12} {
			ticks, _ := strconv.ParseInt(stat[i], 10, 64)
			cpu += time.Duration(ticks) * 10 * time.Millisecond
		}
	})
	return cpu
}

// threads is how long the threads of a process have computed.
func threads(pid int) (cpu time.Duration, ok bool) {
	names, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		first, _, _ := strings.Cut(string(b), " ")
		ns, err := strconv.ParseInt(first, 10, 64)
		if err != nil || ns == 0 {
			continue
		}
		cpu, ok = cpu+time.Duration(ns), true
	}
	return cpu, ok
}

// Memory is what a process and all below it hold, in bytes: their proportional set size,
// in which a page that several of them map counts once.
func Memory(root int) (size int64) {
	below(root, func(pid int, _ []string) {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
		if err != nil {
			return // it has ended
		}
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) == 3 && f[0] == "Pss:" {
				kib, _ := strconv.ParseInt(f[1], 10, 64)
				size += kib << 10
			}
		}
	})
	return size
}

// below calls do for a process and all below it, with what /proc/PID/stat has behind its
// name.
func below(root int, do func(pid int, stat []string)) {
	parents, stats := map[int]int{}, map[int][]string{}
	names, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		_, rest, ok := strings.Cut(string(b), ") ")
		f := strings.Fields(rest)
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(name)))
		if !ok || len(f) < 22 {
			continue
		}
		parents[pid], _ = strconv.Atoi(f[1])
		stats[pid] = f
	}
	for pid, f := range stats {
		for at := pid; at > 1; at = parents[at] {
			if at == root {
				do(pid, f)
				break
			}
		}
	}
}

// Median returns the middle of several figures.
func Median[T int64 | float64 | time.Duration](all []T) T {
	all = slices.Clone(all)
	slices.Sort(all)
	return all[len(all)/2]
}
