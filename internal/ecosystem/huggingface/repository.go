package huggingface

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
)

// repository is what a release holds of one: commits, and the names that mean one.
type repository struct {
	id
	commits map[string]*commit
	names   map[string]*commit // branches and tags
}

// commit is a repository at one commit.
type commit struct {
	Hub
	files map[string]file // by path
}

// file is an entry that is here.
type file struct {
	Entry
	digest artifact.Digest
}

// read returns the repositories of a release, ordered by name. What contradicts
// itself is left out.
func read(rel ecosystem.Release) (out []*repository, byID map[id]*repository) {
	byID = map[id]*repository{}
	for _, a := range rel.Artifacts(Kind) {
		i, ok := parseID(a.Ref.Name)
		c, err := readCommit(rel, a)
		if !ok || err != nil {
			continue // what cannot be described is not offered
		}
		r := byID[i]
		if r == nil {
			r = &repository{i, map[string]*commit{}, map[string]*commit{}}
			byID[i] = r
			out = append(out, r)
		}
		r.commits[c.Commit] = c
		for name := range c.Revisions {
			// Of two that were main when they were asked for, the newer one is.
			if other := r.names[name]; other == nil || c.Modified.After(other.Modified) {
				r.names[name] = c
			}
		}
	}
	for _, r := range out {
		if len(r.commits) == 1 && r.names["main"] == nil {
			for _, c := range r.commits {
				r.names["main"] = c // what clients ask for when they are told nothing
			}
		}
	}
	return out, byID
}

func readCommit(rel ecosystem.Release, a artifact.Artifact) (_ *commit, err error) {
	files := map[string]artifact.File{}
	for _, f := range a.Files {
		files[f.Path] = f
	}
	b, err := rel.Open(files[HubFile].Digest)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if b.Size() > maxInfo {
		return nil, fmt.Errorf("%s: is too long", HubFile)
	}
	c := &commit{files: map[string]file{}}
	if err := json.NewDecoder(io.NewSectionReader(b, 0, b.Size())).Decode(&c.Hub); err != nil {
		return nil, err
	}
	if c.Commit != a.Ref.Version || !commitForm.MatchString(c.Commit) {
		return nil, fmt.Errorf("%s: is of another commit", HubFile)
	}
	for name, at := range c.Revisions {
		if at != c.Commit || !revForm.MatchString(name) || commitForm.MatchString(name) {
			delete(c.Revisions, name)
		}
	}
	var kept []Entry
	for _, e := range c.Entries {
		f, here := files[e.Path]
		switch {
		case e.Path == HubFile || !commitForm.MatchString(e.OID):
			continue
		case e.Type == "directory":
			kept = append(kept, Entry{Type: e.Type, Path: e.Path, OID: e.OID})
			continue
		case e.Type != "file" || !here || e.LFS != nil && (e.LFS.OID != f.Digest.Hex() || e.LFS.Size != f.Size):
			continue
		}
		e.Size = f.Size
		kept = append(kept, e)
		c.files[e.Path] = file{e, f.Digest}
	}
	c.Entries = kept
	if c.Tags == nil {
		c.Tags = []string{}
	}
	slices.SortFunc(c.Entries, func(a, b Entry) int { return strings.Compare(a.Path, b.Path) })
	return c, nil
}

// at returns the commit that a revision means.
func (r *repository) at(revision string) *commit {
	if c := r.commits[revision]; c != nil {
		return c
	}
	for _, prefix := range []string{"refs/heads/", "refs/tags/"} {
		revision = strings.TrimPrefix(revision, prefix)
	}
	return r.names[revision]
}
