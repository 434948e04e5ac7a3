package crossing

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"

	"enisle/internal/artifact"
	"enisle/internal/fail"
)

// What a build fetched is brought as it was fetched: one artifact for each host, whose
// files stand under what they were fetched by. Inside, the mirror answers for these hosts
// at these very addresses, so that the same build finds the same.

// RecordedKind is the kind of what was recorded: web/REQUEST/HOST.
const RecordedKind = "web"

// RecordedTypes is the file of such an artifact that says of what type each file is.
const RecordedTypes = "types.json"

// Recorded is one file that a program fetched.
type Recorded struct {
	URL  string
	File string // with the content
	Size int64
	Type string
}

// Recording runs a program whose way out is recorded.
type Recording interface {
	// Run runs argv in a directory, with a directory for what is recorded, without sight
	// of the hidden paths. others is what went through and is not kept.
	Run(ctx context.Context, work, dir string, hidden, argv []string) (all []Recorded, others []string, err error)
}

// record runs the command and returns what it fetched, as artifacts.
func (c *collecting) record(ctx context.Context, argv []string) ([]artifact.Artifact, error) {
	work := filepath.Join(c.work, "record")
	if err := os.MkdirAll(work, 0o755); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(c.req.dir())
	if err != nil {
		return nil, err
	}
	done := c.Progress.start("recording "+argv[0], -1)
	all, others, err := c.Recording.Run(ctx, work, dir, append([]string{c.Site.Dir}, c.Hidden...), argv)
	if err != nil {
		return nil, fail.As(fail.Failed, "the command must succeed outside before it can inside", fmt.Errorf("recording: %w", err))
	}
	done(0)
	if len(all) == 0 {
		return nil, fail.As(fail.Usage, "clear its caches, so that it fetches what it needs", errors.New("recording: the command fetched nothing"))
	}
	c.out.Unrecorded = others
	byHost := map[string][]Recorded{}
	for _, r := range all {
		u, err := url.Parse(r.URL)
		if err != nil || u.Hostname() == "" {
			return nil, fmt.Errorf("recording: address %.100q", r.URL)
		}
		byHost[u.Hostname()] = append(byHost[u.Hostname()], r)
	}
	var out []artifact.Artifact
	for host, list := range byHost {
		a, err := c.recorded(ctx, host, list)
		if err != nil {
			return nil, fmt.Errorf("recording %s: %w", host, err)
		}
		out = append(out, a)
	}
	return out, nil
}

// unclean is what does not stand in the name of a recorded file; constant.
var unclean = regexp.MustCompile(`[^A-Za-z0-9._+-]+`)

// recorded makes the artifact of one host.
func (c *collecting) recorded(ctx context.Context, host string, list []Recorded) (a artifact.Artifact, err error) {
	a = artifact.Artifact{Ref: artifact.Ref{Kind: RecordedKind, Name: c.req.Name + "/" + host}, By: "recorded"}
	a.Name = a.Ref.String()
	types := map[string]string{}
	for _, r := range list {
		f, err := os.Open(r.File)
		if err != nil {
			return a, err
		}
		got, err := c.ingest(ctx, f, r.Size, func(int64) {})
		if err = errors.Join(err, f.Close()); err != nil {
			return a, err
		}
		sum := sha256.Sum256([]byte(r.URL))
		u, err := url.Parse(r.URL)
		if err != nil {
			return a, err
		}
		name := unclean.ReplaceAllString(path.Base(u.Path), "-")
		if len(name) > 80 {
			name = name[len(name)-80:]
		}
		got.Path, got.Origin = hex.EncodeToString(sum[:12])+"/x"+name, r.URL
		types[got.Path] = r.Type
		a.Files = append(a.Files, got)
	}
	b, err := json.Marshal(types)
	if err != nil {
		return a, err
	}
	f, err := c.ingest(ctx, bytes.NewReader(b), int64(len(b)), func(int64) {})
	if err != nil {
		return a, err
	}
	f.Path = RecordedTypes
	a.Files = append(a.Files, f)
	slices.SortFunc(a.Files, func(x, y artifact.File) int { return cmp.Compare(x.Path, y.Path) })
	return a, a.Check()
}
