package crossing

import (
	"context"
	"crypto/sha256"
	"crypto/sha512"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

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

// resolve asks each ecosystem's own client.
func (c *collecting) resolve(ctx context.Context) ([]artifact.Artifact, error) {
	known := map[string]bool{"files": true, vulndbKind: true}
	var all []artifact.Artifact
	for _, eco := range c.Ecosystems {
		known[eco.Name()] = true
		items := c.req.Bring[eco.Name()]
		if len(items) == 0 || eco.Name() == "files" {
			continue // files are taken from here, or out of what others bring
		}
		found, err := c.resolveIn(ctx, eco, c.want(eco.Name(), items))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", eco.Name(), err)
		}
		all = append(all, found...)
	}
	sources, err := c.resolveSources(ctx, all)
	if err != nil {
		return nil, err
	}
	for name := range c.req.Bring {
		if !known[name] {
			return nil, fail.As(fail.Usage, "'enisle help collect' lists what can be brought", fmt.Errorf("%s asks for %q, which is not known", filepath.Base(c.req.File), name))
		}
	}
	for _, list := range [][]artifact.Artifact{all, sources} {
		for i := range list {
			list[i].Name = list[i].Ref.String()
			slices.SortFunc(list[i].Files, func(a, b artifact.File) int { return compare(a.Path, b.Path) })
			if err := list[i].Check(); err != nil {
				return nil, fail.Refuse("the origin offers a name that cannot be kept; bring another version", err)
			}
		}
	}
	c.sources = sources
	return all, errors.Join(sortArtifacts(all), sortArtifacts(sources))
}

// resolveSources resolves the packages that files are taken out of and that the
// request does not bring anyway, each alone.
func (c *collecting) resolveSources(ctx context.Context, brought []artifact.Artifact) (out []artifact.Artifact, err error) {
	alone := map[string][]artifact.Ref{}
	for _, v := range c.req.Bring["files"] {
		it, err := parseFileItem(v)
		if err != nil {
			return nil, err
		}
		if it.from == "" {
			continue
		}
		ref, _, err := it.source()
		if err != nil {
			return nil, err
		}
		if find(brought, ref) < 0 && !slices.Contains(alone[ref.Kind], ref) {
			alone[ref.Kind] = append(alone[ref.Kind], ref)
		}
	}
	for _, eco := range c.Ecosystems {
		refs := alone[eco.Name()]
		delete(alone, eco.Name())
		if len(refs) == 0 {
			continue
		}
		want := c.want(eco.Name()+"-sources", nil)
		want.Alone = refs
		found, err := c.resolveIn(ctx, eco, want)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", eco.Name(), err)
		}
		out = append(out, found...)
	}
	for kind := range alone {
		return nil, fail.As(fail.Usage, "'enisle help collect' lists what can be brought", fmt.Errorf("files: from: no package world is called %q", kind))
	}
	return out, nil
}

// resolveIn asks an ecosystem, and takes the files that it or its client wrote.
func (c *collecting) resolveIn(ctx context.Context, eco ecosystem.Ecosystem, want ecosystem.Want) ([]artifact.Artifact, error) {
	found, err := eco.Resolve(ctx, want)
	if err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(want.Work)
	if err != nil {
		return nil, err
	}
	defer func() { _ = root.Close() }() // only read from
	for i := range found {
		for j := range found[i].Files {
			f := &found[i].Files[j]
			at, from, ok := ecosystem.ParseMade(f.Origin)
			if !ok {
				continue
			}
			if err := c.takeMade(ctx, root, at, f); err != nil {
				return nil, fmt.Errorf("%s: %s: %w", found[i].Ref, f.Path, err)
			}
			f.Origin = from
			if !c.dryRun {
				c.made[f.Digest] = true
			}
		}
	}
	if err := c.Site.Held.Flush(); err != nil {
		return nil, err
	}
	return found, c.prove(ctx, eco, want, found)
}

// takeMade stores a file below a directory that clients wrote to; no link leads out.
func (c *collecting) takeMade(ctx context.Context, root *os.Root, at string, f *artifact.File) (err error) {
	r, err := root.Open(at)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	st, err := r.Stat()
	if err != nil {
		return err
	}
	if !st.Mode().IsRegular() {
		return errors.New("no regular file was made")
	}
	if c.dryRun {
		f.Size = st.Size()
		return nil
	}
	got, err := c.ingest(ctx, r, st.Size(), func(int64) {})
	if err == nil && f.Digest != "" && f.Digest != got.Digest {
		err = fail.Refuse("the origin is not what it promised; do not use it", errors.New("the content is not what its digest says"))
	}
	f.Size, f.Digest = got.Size, got.Digest
	return err
}

// find returns the index of the artifact that a reference means, with any
// version if it names none; -1 if there is none.
func find(all []artifact.Artifact, ref artifact.Ref) int {
	return slices.IndexFunc(all, func(a artifact.Artifact) bool {
		return a.Ref.Kind == ref.Kind && a.Ref.Name == ref.Name && (ref.Version == "" || ref.Version == a.Ref.Version)
	})
}

// sourcesFor returns the sources, or nothing when every file taken out of them
// is held already.
func (c *collecting) sourcesFor(artifacts []artifact.Artifact) []artifact.Artifact {
	if !c.out.FromLock {
		return c.sources
	}
	for _, a := range artifacts {
		if a.From != "" && slices.ContainsFunc(a.Files, func(f artifact.File) bool { return !c.held(f) }) {
			return c.sources
		}
	}
	return nil
}

func (c *collecting) want(kind string, items []any) ecosystem.Want {
	work := filepath.Join(c.work, kind)
	// Its absence shows when the client is started there.
	_ = os.MkdirAll(work, 0o755)
	dir, err := filepath.Abs(c.req.dir())
	if err != nil {
		dir = c.req.dir()
	}
	return ecosystem.Want{Items: items, Target: c.req.Target, Dir: dir, Work: work, Hidden: append([]string{c.Site.Dir}, c.Hidden...)}
}

func compare(a, b string) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

// fetchAll brings every file of the artifacts into the store, a few at a time,
// and fills in what only the content tells: size and digest.
func (c *collecting) fetchAll(ctx context.Context, lists ...[]artifact.Artifact) error {
	artifacts := slices.Concat(lists...) // shares the files, which are filled in
	var total int64
	for _, a := range artifacts {
		for _, f := range a.Files {
			if f.Origin != "" && !c.held(f) {
				total += max(0, f.Size)
			}
		}
	}
	show := c.Progress.start("fetching", total)
	var got atomic.Int64
	done := func(n int64) { got.Add(n); show(n) }
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i := range artifacts {
		for j := range artifacts[i].Files {
			a, f := artifacts[i], &artifacts[i].Files[j]
			switch {
			case c.made[f.Digest] && c.held(*f):
				c.out.Fetched++
				done(f.Size)
			case c.held(*f):
				c.out.Held++
			case a.From != "" || f.Origin == "" || strings.HasPrefix(f.Origin, localOrigin):
				// Taken out of another artifact, or local: files does it.
			default:
				c.out.Fetched++
				g.Go(func() error {
					if err := c.fetch(ctx, a, f, done); err != nil {
						return fmt.Errorf("%s: %s: %w", a.Ref, f.Path, err)
					}
					return nil
				})
			}
		}
	}
	err := g.Wait()
	c.out.Bytes = got.Load()
	return err
}

func (c *collecting) held(f artifact.File) bool {
	if f.Digest == "" {
		return false
	}
	size, err := c.Site.Held.Stat(f.Digest)
	return err == nil && (f.Size < 0 || size == f.Size)
}

// fetch downloads one file, going on where an earlier run stopped.
func (c *collecting) fetch(ctx context.Context, a artifact.Artifact, f *artifact.File, done func(int64)) error {
	w, err := c.Site.Held.Resume(ctx, site.FetchKey+fetchName(*f), max(f.Size, 1<<40))
	if err != nil {
		return err
	}
	resumed := w.Size() > 0
	if w, err = c.download(ctx, w, a, f, done); err != nil {
		return err
	}
	err = c.settle(w, f)
	if fail.IsRefused(err) && resumed {
		// What was left of the earlier run may have been the damage.
		if w, err = c.Site.Held.Begin(site.FetchKey + fetchName(*f)); err != nil {
			return err
		}
		if w, err = c.download(ctx, w, a, f, done); err != nil {
			return err
		}
		err = c.settle(w, f)
	}
	return err
}

// download copies the rest of a file into w. On failure w is suspended.
func (c *collecting) download(ctx context.Context, w *store.Writer, a artifact.Artifact, f *artifact.File, done func(int64)) (*store.Writer, error) {
	if w.Size() > 0 && w.Size() == f.Size {
		return w, nil
	}
	stop := func(err error) (*store.Writer, error) {
		err = errors.Join(err, w.Suspend())
		return nil, fail.As(fail.Partial, "run 'enisle collect' again: it goes on where it stopped", err)
	}
	body, start, total, err := c.Fetch.Get(ctx, f.Origin, w.Size())
	if err != nil {
		if b, ok := c.byClient(ctx, a, *f); ok {
			body, start, total, err = b, 0, -1, nil
		}
	}
	if err != nil {
		return stop(err)
	}
	defer func() { _ = body.Close() }() // only read from
	if f.Size < 0 && total >= 0 {
		f.Size = total
	}
	if start != w.Size() {
		if err := w.Abort(); err != nil {
			return nil, err
		}
		if w, err = c.Site.Held.Begin(site.FetchKey + fetchName(*f)); err != nil {
			return nil, err
		}
	}
	limit := int64(1) << 40
	if f.Size >= 0 {
		limit = f.Size - w.Size()
	}
	if _, err := io.Copy(w, io.LimitReader(&counting{body, done}, limit+1)); err != nil {
		return stop(err)
	}
	if f.Size >= 0 && w.Size() < f.Size {
		return stop(fmt.Errorf("the origin ended after %d of %d bytes", w.Size(), f.Size))
	}
	return w, nil
}

// byClient lets the ecosystem's own client download, for origins that ask for
// credentials which only it has.
func (c *collecting) byClient(ctx context.Context, a artifact.Artifact, f artifact.File) (io.ReadCloser, bool) {
	for _, eco := range c.Ecosystems {
		d, ok := eco.(ecosystem.Downloader)
		if !ok || eco.Name() != a.Ref.Kind {
			continue
		}
		file, err := d.Download(ctx, c.want(eco.Name(), nil), a, f)
		if err != nil {
			c.Site.Log().WarnContext(ctx, "client download", "artifact", a.Ref.String(), "err", err)
			return nil, false
		}
		body, err := os.Open(file)
		return body, err == nil
	}
	return nil, false
}

// settle checks a downloaded file against every hash that was promised and
// commits it.
func (c *collecting) settle(w *store.Writer, f *artifact.File) error {
	if want, ok := f.Hashes["sha512"]; ok {
		h := sha512.New()
		if _, err := io.Copy(h, w.Reader()); err != nil {
			return errors.Join(err, w.Suspend())
		}
		if hex.EncodeToString(h.Sum(nil)) != want {
			return errors.Join(fail.Refuse("the origin is not what it promised; do not use it", errors.New("the content is not what its sha512 says")), w.Abort())
		}
	} else if f.Digest == "" {
		return errors.Join(fail.Refuse("bring it from an origin that states hashes", errors.New("the origin states no hash")), w.Abort())
	}
	if f.Digest == "" {
		f.Digest = w.Digest()
	}
	if f.Size < 0 {
		f.Size = w.Size()
	}
	return w.Commit(f.Digest, f.Size)
}

// fetchName names the blob under construction of a file that may not have a
// digest yet.
func fetchName(f artifact.File) string {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s %s", f.Digest, f.Hashes["sha512"], f.Origin)
	return hex.EncodeToString(h.Sum(nil))
}

type counting struct {
	r    io.Reader
	done func(int64)
}

func (c *counting) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.done(int64(n))
	return n, err
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

// hashLocal is the digest of a local file, or of all paths and files below a
// directory.
func hashLocal(name string) (artifact.Digest, error) {
	st, err := os.Stat(name)
	if err != nil || !st.IsDir() {
		return hashFile(name)
	}
	h := sha256.New()
	err = filepath.WalkDir(name, func(at string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		sum, err := hashFile(at)
		fmt.Fprintf(h, "%q %s\n", at[len(name):], sum)
		return err
	})
	return sumOf(h), err
}

func hashFile(name string) (artifact.Digest, error) {
	f, _, err := openLocal(name)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	_, err = io.Copy(h, f)
	if err = errors.Join(err, f.Close()); err != nil {
		return "", err
	}
	return sumOf(h), nil
}

func sumOf(h hash.Hash) artifact.Digest { return artifact.FromSum([32]byte(h.Sum(nil))) }
