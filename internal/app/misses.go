package app

import (
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
	"strings"
	"sync"
	"time"

	"gopkg.in/yaml.v3"

	"enisle/internal/ecosystem"
	"enisle/internal/site"
)

// What was asked for and is not here is a file of lines of JSON in the site's
// directory, like who pulled what: the next request is made out of it.

const (
	missesFile  = "access/misses.jsonl"
	olderMisses = "access/misses.old.jsonl"
	maxMissPath = 2000
)

func openMisses(dir string) (*os.File, error) { return openAccess(dir, missesFile, olderMisses) }

// miss is one line.
type miss struct {
	At   time.Time `json:"at"`
	Kind string    `json:"kind"` // name of the ecosystem
	Item string    `json:"item"` // entry of a request that would bring it
}

type seenMiss struct{ kind, item, hour string }

// misses appends to the record.
type misses struct {
	mu   sync.Mutex
	to   *os.File
	seen map[seenMiss]bool // guarded by mu
	// used is how many bytes the file has, which end: clients can ask for names without end.
	used int64 // guarded by mu
}

// watch records what a mirror is asked for and has not. The first of the ecosystems
// that it shows says what is wanted, or the one that the client is called like.
func (m *misses) watch(next http.Handler, ecosystems []ecosystem.Ecosystem) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rec := &statusOf{ResponseWriter: w}
		next.ServeHTTP(rec, r)
		if rec.status != http.StatusNotFound || len(r.URL.Path) > maxMissPath {
			return
		}
		eco := ecosystems[0]
		if client, _, _ := strings.Cut(r.UserAgent(), "/"); client != "" {
			if i := slices.IndexFunc(ecosystems, func(e ecosystem.Ecosystem) bool { return e.Name() == client }); i > 0 {
				eco = ecosystems[i]
			}
		}
		if wanter, ok := eco.(ecosystem.Wanter); ok {
			if item, ok := wanter.Wanted(r.URL.Path); ok {
				m.add(eco.Name(), item)
			}
		}
	})
}

// statusOf remembers the status of an answer.
type statusOf struct {
	http.ResponseWriter
	status int
}

func (s *statusOf) WriteHeader(status int) {
	s.status = status
	s.ResponseWriter.WriteHeader(status)
}

// Unwrap lets http.ResponseController reach the real writer.
func (s *statusOf) Unwrap() http.ResponseWriter { return s.ResponseWriter }

// ReadFrom keeps the way by which files are sent without being copied.
func (s *statusOf) ReadFrom(r io.Reader) (int64, error) { return io.Copy(s.ResponseWriter, r) }

// add records a miss, once an hour.
func (m *misses) add(kind, item string) {
	now := time.Now().UTC()
	key := seenMiss{kind, item, now.Format("2006-01-02T15")}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.seen[key] {
		return
	}
	if len(m.seen) >= maxRecent {
		clear(m.seen)
	}
	b, err := json.Marshal(miss{now.Truncate(time.Second), kind, item})
	if err != nil {
		return // strings and numbers only; cannot fail
	}
	if m.used+int64(len(b)) >= maxPullsFile {
		return
	}
	m.used += int64(len(b)) + 1
	if _, err := m.to.Write(append(b, '\n')); err == nil {
		m.seen[key] = true
	}
}

// Missed is something that clients asked for and did not get.
type Missed struct {
	Kind  string    `json:"kind"`
	Item  string    `json:"item"`
	Hours int       `json:"hours"` // in which it was asked for
	Last  time.Time `json:"last"`
}

// Misses lists what was asked for since a time, most wanted first.
func (a *App) Misses(ctx context.Context, since time.Time) (out []Missed, err error) {
	out = []Missed{}
	err = a.read(ctx, func(s *site.Site) error {
		index := map[[2]string]int{}
		for _, name := range []string{olderMisses, missesFile} {
			f, err := os.Open(filepath.Join(s.Dir, name))
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			err = eachLine(f, maxAccessLine, func(line []byte) {
				var m miss
				if json.Unmarshal(line, &m) != nil || m.At.Before(since) {
					return // of a machine that stopped, or too old
				}
				key := [2]string{m.Kind, m.Item}
				i, ok := index[key]
				if !ok {
					i = len(out)
					index[key] = i
					out = append(out, Missed{Kind: m.Kind, Item: m.Item})
				}
				out[i].Hours++
				out[i].Last = m.At
			})
			if err := errors.Join(err, f.Close()); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	})
	slices.SortFunc(out, func(a, b Missed) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), b.Hours-a.Hours, cmp.Compare(a.Item, b.Item))
	})
	return out, err
}

// MissedRequest is the request that would bring what was missed, as YAML.
func MissedRequest(name string, all []Missed) ([]byte, error) {
	bring := map[string][]string{}
	for _, m := range all {
		bring[m.Kind] = append(bring[m.Kind], m.Item)
	}
	return yaml.Marshal(struct {
		Name  string              `yaml:"name"`
		Bring map[string][]string `yaml:"bring"`
	}{name, bring})
}
