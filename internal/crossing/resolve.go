package crossing

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/fail"
)

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
