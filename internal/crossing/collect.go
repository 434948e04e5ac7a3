package crossing

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/fail"
	"enisle/internal/site"
	"enisle/internal/site/state"
	"enisle/internal/site/store"
	"enisle/internal/site/trust"
)

// Collector brings what requests ask for into a low site.
type Collector struct {
	Site       *site.Site
	Ecosystems []ecosystem.Ecosystem
	Fetch      Fetcher
	Advisories Advisories
	Recording  Recording
	Members    Members
	Upstream   Upstream // nil: signatures of makers are not looked at
	Progress   Progress
	// Hidden are paths besides the site that no resolver may read: keys.
	Hidden []string
}

// CollectOptions say how; the zero value uses the lock where it can.
type CollectOptions struct {
	Update bool // resolve anew although the request did not change
	DryRun bool // say what it would come to and change nothing
	// Record is a command whose fetches are recorded and brought as well.
	Record []string
}

// Collected says what a request came to.
type Collected struct {
	Lock     Lock  `json:"lock"`
	FromLock bool  `json:"fromLock"` // the request was unchanged: nothing was resolved
	Fetched  int   `json:"fetched"`  // files that came over the network
	Bytes    int64 `json:"bytes"`    // of those
	Held     int   `json:"held"`     // files that were here already
	Missing  int   `json:"missing"`  // dry run: files that would be fetched
	// Signed are artifacts whose maker's signature was verified, and by whom it is;
	// Unknown those with one by nobody whom the request names.
	Signed  []string `json:"signed,omitempty"`
	Unknown []string `json:"unknown,omitempty"`
	// Unverified are artifacts of worlds that sign what they offer which nobody signed,
	// or not well, each with why.
	Unverified []string `json:"unverified,omitempty"`
	// Unrecorded is what a recorded command sent, or got in parts, and is not brought.
	Unrecorded []string `json:"unrecorded,omitempty"`
}

// Collect resolves a request, unless its lock still says what it comes to,
// fetches what is not held, checks every hash, and writes the lock.
func (c *Collector) Collect(ctx context.Context, by site.Actor, req Request, opt CollectOptions) (Collected, error) {
	if err := c.Site.Require(trust.Low); err != nil {
		return Collected{}, err
	}
	if err := trust.CheckName(req.Name); err != nil {
		return Collected{}, fmt.Errorf("request: %w", err)
	}
	d, err := req.digest()
	if err != nil {
		return Collected{}, err
	}
	file := LockFile(req.File)
	lock, err := ReadLock(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		if !opt.Update {
			return Collected{}, err
		}
		lock = Lock{}
	}
	run := &collecting{Collector: c, req: req, dryRun: opt.DryRun, made: map[artifact.Digest]bool{}, out: Collected{FromLock: lock.Request == d && lock.Name == req.Name && !opt.Update && opt.Record == nil}, recordArgv: opt.Record}
	if !opt.Update {
		run.old = slices.Clone(lock.Artifacts)
	}
	for _, a := range lock.Artifacts {
		if a.Ref.Kind == RecordedKind {
			run.recordedBefore = append(run.recordedBefore, a)
		}
	}
	if opt.DryRun {
		return run.dry(ctx, lock)
	}
	err = c.Site.Act(ctx, "collect", by, map[string]string{"request": req.Name, "digest": string(d)},
		func(ctx context.Context, _ int64) (map[string]string, error) {
			if err := run.all(ctx, lock, d); err != nil {
				return nil, err
			}
			if err := run.remember(ctx); err != nil {
				return nil, err
			}
			if !run.out.FromLock {
				if err := run.out.Lock.write(file); err != nil {
					return nil, fmt.Errorf("lock: %w", err)
				}
			}
			outcome := map[string]string{"content": string(run.out.Lock.Content)}
			if len(run.out.Unknown) > 0 {
				outcome["signed by nobody known"] = strings.Join(run.out.Unknown, ", ")
			}
			if n := len(run.out.Unverified); n > 0 {
				outcome["not verified by its world"] = fmt.Sprintf("%d artifacts, the first %s", n, run.out.Unverified[0])
			}
			return outcome, nil
		})
	return run.out, err
}

// collecting is one run of Collect.
type collecting struct {
	*Collector
	req    Request
	work   string
	dryRun bool
	out    Collected
	// sources are fetched like artifacts and not shipped.
	sources []artifact.Artifact
	old     []artifact.Artifact // of the lock; attestations are kept from there
	proofs  []worldProof        // what ecosystems proved of what they resolved
	// made are the files that clients brought while resolving.
	made       map[artifact.Digest]bool
	recordArgv []string
	// recordedBefore stays until it is recorded again.
	recordedBefore []artifact.Artifact
}

func (c *collecting) dry(ctx context.Context, lock Lock) (Collected, error) {
	artifacts := lock.Artifacts
	c.sources = lock.Sources
	if !c.out.FromLock {
		err := c.withWork(func() (err error) { artifacts, err = c.resolve(ctx); return err })
		if err != nil {
			return c.out, err
		}
	}
	for _, a := range slices.Concat(artifacts, c.sources) {
		for _, f := range a.Files {
			if f.Digest != "" && c.Site.Held.Has(f.Digest) {
				c.out.Held++
				continue
			}
			c.out.Missing++
			c.out.Bytes += max(0, f.Size)
		}
	}
	c.out.Lock = Lock{Format: LockFormat, Name: c.req.Name, Target: c.req.Target, Artifacts: artifacts}
	return c.out, nil
}

func (c *collecting) withWork(do func() error) (err error) {
	if c.work, err = os.MkdirTemp("", "enisle-collect-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(c.work)) }()
	return do()
}

func (c *collecting) all(ctx context.Context, lock Lock, d artifact.Digest) error {
	return c.withWork(func() error {
		artifacts := lock.Artifacts
		c.sources = lock.Sources
		if !c.out.FromLock {
			done := c.Progress.start("resolving", -1)
			var err error
			if artifacts, err = c.resolve(ctx); err != nil {
				return err
			}
			done(0)
		}
		if err := c.fetchAll(ctx, artifacts, c.sourcesFor(artifacts)); err != nil {
			return err
		}
		artifacts, err := c.withRecorded(ctx, artifacts)
		if err != nil {
			return err
		}
		artifacts, err = c.vulndb(ctx, artifacts)
		if err == nil {
			artifacts, err = c.files(ctx, artifacts)
		}
		if err == nil {
			artifacts, err = c.upstream(ctx, artifacts)
		}
		if err == nil {
			artifacts, err = c.worlds(artifacts)
		}
		if err != nil {
			return err
		}
		content, err := c.store(artifacts)
		if err != nil {
			return err
		}
		if c.out.FromLock {
			c.out.Lock = lock
			if content != lock.Content {
				return fail.Refuse("run 'enisle collect --update' to make the lock anew",
					errors.New("what is held is not what the lock says"))
			}
			return nil
		}
		c.out.Lock = Lock{LockFormat, c.req.Name, d, c.req.Target, content, c.Site.Now(), artifacts, c.sources}
		return nil
	})
}

// withRecorded adds what a command fetches, or keeps what one fetched before.
func (c *collecting) withRecorded(ctx context.Context, artifacts []artifact.Artifact) ([]artifact.Artifact, error) {
	if c.recordArgv == nil {
		for _, a := range c.recordedBefore {
			if find(artifacts, a.Ref) < 0 {
				artifacts = append(artifacts, a)
			}
		}
		return artifacts, nil
	}
	found, err := c.record(ctx, c.recordArgv)
	if err != nil {
		return nil, err
	}
	artifacts = slices.DeleteFunc(slices.Clone(artifacts), func(a artifact.Artifact) bool { return a.Ref.Kind == RecordedKind })
	return append(artifacts, found...), c.Site.Held.Flush()
}

// store writes manifests and index and returns the content root.
func (c *collecting) store(artifacts []artifact.Artifact) (artifact.Digest, error) {
	if len(artifacts) == 0 {
		return "", fail.As(fail.Usage, "name something under 'bring:'", errors.New("the request asks for nothing"))
	}
	if _, err := c.Site.Held.Put(store.EmptyConfig()); err != nil {
		return "", err
	}
	entries := make([]store.Entry, len(artifacts))
	for i := range artifacts {
		m, err := store.EncodeManifest(artifacts[i])
		if err != nil {
			return "", err
		}
		d, err := c.Site.Held.Put(m)
		if err != nil {
			return "", err
		}
		artifacts[i].Manifest = d
		entries[i] = store.Entry{Ref: artifacts[i].Ref, Manifest: d, Size: int64(len(m))}
	}
	ix, err := store.EncodeIndex(c.req.Name, entries)
	if err != nil {
		return "", err
	}
	return c.Site.Held.Put(ix)
}

// remember says in the state what pack will take.
func (c *collecting) remember(ctx context.Context) error {
	return c.Site.State.Update(ctx, func(tx *state.Tx) error {
		return errors.Join(tx.SetMeta(metaCollected+c.req.Name, string(c.out.Lock.Content)), tx.SetMeta(metaLast, c.req.Name))
	})
}

const (
	metaCollected = "collected."
	metaLast      = "collected-last"
)
