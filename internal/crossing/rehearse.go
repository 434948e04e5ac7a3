package crossing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/fail"
	"enisle/internal/judge/release"
	"enisle/internal/site"
	"enisle/internal/site/pgp"
	"enisle/internal/site/state"
	"enisle/internal/site/trust"
)

// Rehearsed says what came of installing everything that was collected from nothing but
// what was collected.
type Rehearsed struct {
	Request string          `json:"request"`
	Content artifact.Digest `json:"content"`
	At      time.Time       `json:"at"`
	Tried   []Tried         `json:"tried"`   // by ecosystem
	Missing []string        `json:"missing"` // what clients asked for and was not there, as entries of a request
}

// Tried is how one ecosystem's client fared.
type Tried struct {
	Ecosystem string `json:"ecosystem"`
	Artifacts int    `json:"artifacts"`
	Skipped   bool   `json:"skipped"` // its client cannot be rehearsed here
	Error     string `json:"error,omitempty"`
}

// Good reports whether every client that was tried got everything.
func (r Rehearsed) Good() bool {
	for _, t := range r.Tried {
		if t.Error != "" {
			return false
		}
	}
	return true
}

// Why says what went wrong first.
func (r Rehearsed) Why() string {
	for _, t := range r.Tried {
		if t.Error != "" {
			return t.Ecosystem + ": " + t.Error
		}
	}
	return ""
}

const metaRehearsed = "rehearsed."

// CollectedView is what was collected under a request, as mirrors would serve it after it
// crossed. An empty name means the request that was collected last. Its index is signed
// by a key that nobody keeps.
func CollectedView(ctx context.Context, s *site.Site, request string, indexes []Index, secret []byte) (*Served, artifact.Digest, string, error) {
	content, request, err := collectedContent(ctx, s, request)
	if err != nil {
		return nil, "", request, err
	}
	v := &Served{byRequest: map[string][]artifact.Artifact{}, blobs: map[artifact.Digest]bool{}, held: s.Held}
	v.release.Requests = []release.Request{{Name: request, Content: content}}
	if err := v.fill(nil); err != nil {
		return nil, content, request, err
	}
	v.loose = map[string]map[string][]byte{}
	key, err := pgp.New(secret, "rehearsal")
	if err != nil {
		return nil, content, request, err
	}
	for _, ix := range indexes {
		texts, err := ix.Index(v, s.Now())
		if err != nil {
			return nil, content, request, fmt.Errorf("index of %s: %w", ix.Name, err)
		}
		v.loose[ix.Name] = map[string][]byte{}
		for name, text := range texts {
			if v.loose[ix.Name][name], err = key.Clearsign(text, s.Now()); err != nil {
				return nil, content, request, err
			}
		}
	}
	v.looseKey, err = key.Public()
	return v, content, request, err
}

func collectedContent(ctx context.Context, s *site.Site, request string) (content artifact.Digest, name string, err error) {
	if err := s.Require(trust.Low); err != nil {
		return "", request, err
	}
	text := ""
	err = s.State.View(ctx, func(tx *state.Tx) (err error) {
		if request == "" {
			if request, err = tx.Meta(metaLast); err != nil {
				return err
			}
		}
		text, err = tx.Meta(metaCollected + request)
		return err
	})
	if err == nil && text == "" {
		err = fail.As(fail.Usage, "run 'enisle collect' first", errors.New("nothing has been collected"))
	}
	if err != nil {
		return "", request, err
	}
	content, err = artifact.ParseDigest(text)
	return content, request, err
}

// RecordRehearsal keeps what came of a rehearsal: until another succeeds, or something
// else is collected, what failed is packed only on the record.
func RecordRehearsal(ctx context.Context, s *site.Site, by site.Actor, r Rehearsed) error {
	subject := map[string]string{"request": r.Request, "content": string(r.Content)}
	return s.Act(ctx, "rehearse", by, subject, func(ctx context.Context, intent int64) (map[string]string, error) {
		b, err := json.Marshal(r)
		if err != nil {
			return nil, err
		}
		verdict := "good"
		if !r.Good() {
			verdict = "bad: " + r.Why()
		}
		return map[string]string{"verdict": verdict}, s.State.Update(ctx, func(tx *state.Tx) error {
			return errors.Join(tx.SetMeta(metaRehearsed+string(r.Content), string(b)), tx.SetEffect(intent, "rehearsal "+verdict))
		})
	})
}

// rehearsedWell refuses to pack what failed its rehearsal, unless somebody says why.
func (p *packing) rehearsedWell(ctx context.Context) error {
	text := ""
	err := p.site.State.View(ctx, func(tx *state.Tx) (err error) {
		text, err = tx.Meta(metaRehearsed + string(p.content))
		return err
	})
	if err != nil || text == "" {
		return err
	}
	var r Rehearsed
	if err := json.Unmarshal([]byte(text), &r); err != nil {
		return fmt.Errorf("rehearsal: %w", err)
	}
	if r.Good() || strings.TrimSpace(p.opt.Despite) != "" {
		return nil
	}
	return fail.Refuse("bring what is missing and rehearse again, or pack with --despite REASON, which goes on the record",
		fmt.Errorf("request %s failed its rehearsal on %s: %s", r.Request, r.At.Format(time.DateOnly), r.Why()))
}
