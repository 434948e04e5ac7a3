package app

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/crossing"
	"enisle/internal/fail"
	"enisle/internal/plain"
	"enisle/internal/site"
)

// Who pulled what is a file of lines of JSON in the site's directory, so that a
// recall can name them. Only what serves appends to it, through a descriptor: it may
// write nothing else there. A client that pulls one file often stands there once a day.

const (
	pullsFile    = "access/pulls.jsonl"
	maxPullsFile = 256 << 20 // bytes; then it becomes the older one, which is kept as well
	olderPulls   = "access/pulls.old.jsonl"
	maxRecent    = 500_000 // pulls that are remembered in order to stand there once
	engineClient = "engine"
)

// pull is one line.
type pull struct {
	At      time.Time       `json:"at"`
	Client  string          `json:"client"` // address, user and address, or engine
	Ref     string          `json:"ref"`
	File    string          `json:"file"`
	Digest  artifact.Digest `json:"digest"`
	Channel string          `json:"channel"`
	Release int64           `json:"release"`
}

// openPulls opens the record for appending.
func openPulls(dir string) (*os.File, error) { return openAccess(dir, pullsFile, olderPulls) }

// openAccess opens a file for appending; when it has grown it becomes the older one.
func openAccess(dir, file, older string) (*os.File, error) {
	name := filepath.Join(dir, file)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		return nil, fmt.Errorf("serve: %w", err)
	}
	if st, err := os.Stat(name); err == nil && st.Size() > maxPullsFile {
		if err := os.Rename(name, filepath.Join(dir, older)); err != nil {
			return nil, fmt.Errorf("serve: %w", err)
		}
	}
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_APPEND|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("serve: %w", err)
	}
	return f, nil
}

// inheritedAccess are the records in the isolated half.
func inheritedAccess() (*pulls, *misses) {
	ms := &misses{to: os.NewFile(5, "misses"), seen: map[seenMiss]bool{}}
	if st, err := ms.to.Stat(); err == nil {
		ms.used = st.Size()
	}
	return &pulls{to: os.NewFile(4, "pulls"), seen: map[seenPull]bool{}}, ms
}

type seenPull struct {
	client string
	digest artifact.Digest
	day    string
}

// pulls appends to the record.
type pulls struct {
	mu   sync.Mutex
	to   *os.File
	seen map[seenPull]bool // guarded by mu
}

// add records a pull, unless it stands there today.
func (p *pulls) add(client, channel string, release int64, ref string, f artifact.File) {
	now := time.Now().UTC()
	key := seenPull{client, f.Digest, now.Format(time.DateOnly)}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.seen[key] {
		return
	}
	if len(p.seen) >= maxRecent {
		clear(p.seen)
	}
	b, err := json.Marshal(pull{now.Truncate(time.Second), client, ref, f.Path, f.Digest, channel, release})
	if err != nil {
		return // strings and numbers only; cannot fail
	}
	if _, err := p.to.Write(append(b, '\n')); err == nil {
		p.seen[key] = true
	}
}

// watch records every file that a handler gives away.
func (p *pulls) watch(next http.Handler, v *crossing.Served, channel string) http.Handler {
	type what struct {
		ref  string
		file artifact.File
	}
	known := map[artifact.Digest]what{}
	for _, a := range v.Artifacts("") {
		for _, f := range a.Files {
			known[f.Digest] = what{a.Ref.String(), f}
		}
	}
	number := v.Number()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		next.ServeHTTP(w, r)
		if k, ok := known[etagged(w.Header())]; ok && r.Method == http.MethodGet {
			p.add(clientName(r), channel, number, k.ref, k.file)
		}
	})
}

// readPulls calls do for every pull on record; a line that cannot be read is one
// that was being written when the machine stopped.
func readPulls(dir string, do func(pull)) error {
	for _, name := range []string{olderPulls, pullsFile} {
		f, err := os.Open(filepath.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		err = eachLine(f, maxAccessLine, func(line []byte) {
			var p pull
			if json.Unmarshal(line, &p) == nil && p.Digest != "" {
				do(p)
			}
		})
		if err := errors.Join(err, f.Close()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// maxAccessLine is the longest line of a record that is read, in bytes; we write none
// that is longer.
const maxAccessLine = 64 << 10

// eachLine calls do for every whole line; what is longer than limit, too long to be one of ours is passed over,
// so that it does not hide those behind it.
func eachLine(r io.Reader, limit int, do func(line []byte)) error {
	b := bufio.NewReaderSize(r, limit)
	whole := true
	for {
		line, err := b.ReadSlice('\n')
		if whole && err == nil {
			do(line)
		}
		switch {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil && !errors.Is(err, bufio.ErrBufferFull):
			return err
		}
		whole = err == nil
	}
}

// Pulled is one client that has a file of an artifact.
type Pulled struct {
	Client string    `json:"client"`
	File   string    `json:"file"`
	First  time.Time `json:"first"`
	Last   time.Time `json:"last"`
	Days   int       `json:"days"` // on which it was pulled
}

// pulledBy gathers who pulled files of these digests, by client and file.
func pulledBy(dir string, digests map[artifact.Digest]bool) (out []Pulled, err error) {
	index := map[[2]string]int{}
	out = []Pulled{}
	err = readPulls(dir, func(p pull) {
		if !digests[p.Digest] {
			return
		}
		key := [2]string{p.Client, p.File}
		i, ok := index[key]
		if !ok {
			i = len(out)
			index[key] = i
			out = append(out, Pulled{Client: plain.Line(p.Client), File: plain.Line(p.File), First: p.At, Last: p.At})
		}
		out[i].Days++
		if p.At.After(out[i].Last) {
			out[i].Last = p.At
		}
	})
	slices.SortFunc(out, func(a, b Pulled) int { return cmp.Or(cmp.Compare(a.Client, b.Client), cmp.Compare(a.File, b.File)) })
	return out, err
}

// Recalled says what a recall took away, and who has it.
type Recalled struct {
	crossing.Recalled
	Pulled []Pulled `json:"pulled"`
}

// Recall stops serving an artifact everywhere.
func (a *App) Recall(ctx context.Context, ref, reason string) (out Recalled, err error) {
	err = a.change(ctx, "recall", func(s *site.Site, by site.Actor) error {
		if out.Recalled, err = crossing.Recall(ctx, s, by, ref, reason, a.indexes()); err != nil {
			return err
		}
		out.Pulled, err = pulledBy(s.Dir, out.Digests)
		return err
	})
	return out, err
}

// Pulls says who pulled an artifact that is, or was, at the island.
func (a *App) Pulls(ctx context.Context, ref string) (out []Pulled, err error) {
	err = a.read(ctx, func(s *site.Site) error {
		digests, err := crossing.FilesOf(ctx, s, ref)
		if err != nil {
			return err
		}
		if len(digests) == 0 {
			return fail.As(fail.Usage, "'enisle review ID' lists what a shipment brought", fmt.Errorf("there is no artifact %.120q here", ref))
		}
		out, err = pulledBy(s.Dir, digests)
		return err
	})
	return out, err
}
