// Package crossing holds the use cases that tie the wings: collect, pack,
// import, inspect, approve, release. One file a use case; read in that order it
// is the way of one artifact from a connected site to the island.
//
// It knows nothing of the command line, of HTTP or of how the parts are built:
// each use case takes the open site and the parts it needs.
package crossing

import (
	"context"
	"errors"
	"io"
	"slices"

	"enisle/internal/artifact"
	"enisle/internal/fail"
	"enisle/internal/site"
	"enisle/internal/site/store"
)

// Progress is told what is being done and of how many bytes, and returns what
// is then told of every n bytes done. Nil means nobody watches.
type Progress func(label string, total int64) (done func(n int64))

func (p Progress) start(label string, total int64) func(int64) {
	if p == nil {
		return func(int64) {}
	}
	return p(label, total)
}

// Fetcher gets the body of a URL from an offset. start is where the body
// begins, which may be before the offset; total is the whole size, -1 if the
// origin does not say.
type Fetcher interface {
	Get(ctx context.Context, url string, offset int64) (body io.ReadCloser, start, total int64, err error)
}

// set is the artifacts of one content root, read from a store.
type set struct {
	request   string
	artifacts []artifact.Artifact // with their manifests' digests, by reference
	blobs     []blob              // index, manifests, config, files: each once, in shipping order
}

type blob struct {
	digest artifact.Digest
	size   int64
}

// opener opens a blob wherever it lies.
type opener func(artifact.Digest) (*store.Blob, error)

// openAny looks in quarantine first, then among what is released.
func openAny(s *site.Site) opener {
	return func(d artifact.Digest) (*store.Blob, error) {
		if s.Quarantine != nil {
			if b, err := s.Quarantine.Open(d); !errors.Is(err, artifact.ErrNotHeld) {
				return b, err
			}
		}
		return s.Held.Open(d)
	}
}

func readSmall(open opener, d artifact.Digest, limit int64) (_ []byte, err error) {
	b, err := open(d)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if b.Size() > limit {
		return nil, errors.New("blob " + d.Short() + ": larger than it may be")
	}
	buf := make([]byte, b.Size())
	if _, err := io.ReadFull(b, buf); err != nil {
		return nil, err
	}
	if artifact.Sum(buf) != d {
		return nil, fail.Refuse("run 'enisle check --read-data'", errors.New("blob "+d.Short()+": damaged on disk"))
	}
	return buf, nil
}

// readSet reads index and manifests of a content root.
func readSet(open opener, content artifact.Digest) (set, error) {
	var out set
	ix, err := readSmall(open, content, store.MaxManifest)
	if err != nil {
		return out, err
	}
	request, entries, err := store.DecodeIndex(ix)
	if err != nil {
		return out, err
	}
	out.request = request
	seen := map[artifact.Digest]bool{}
	add := func(d artifact.Digest, size int64) {
		if !seen[d] {
			seen[d] = true
			out.blobs = append(out.blobs, blob{d, size})
		}
	}
	add(content, int64(len(ix)))
	for _, e := range entries {
		add(e.Manifest, e.Size)
		m, err := readSmall(open, e.Manifest, store.MaxManifest)
		if err != nil {
			return out, err
		}
		a, err := manifestOf(e, m)
		if err != nil {
			return out, err
		}
		out.artifacts = append(out.artifacts, a)
	}
	empty := store.EmptyConfig()
	add(artifact.Sum(empty), int64(len(empty)))
	for _, a := range out.artifacts {
		for _, f := range a.Files {
			add(f.Digest, f.Size)
		}
	}
	return out, nil
}

// manifestOf decodes a manifest and checks that it is the one of its entry.
func manifestOf(e store.Entry, m []byte) (artifact.Artifact, error) {
	a, err := store.DecodeManifest(m)
	if err == nil && (a.Ref != e.Ref || int64(len(m)) != e.Size) {
		err = errors.New("manifest of " + a.Ref.String() + " stands in the index as " + e.Ref.String())
	}
	return a, err
}

func (s set) bytes() (n int64) {
	for _, b := range s.blobs {
		n += b.size
	}
	return n
}

// sortArtifacts orders by reference and refuses two of one reference.
func sortArtifacts(all []artifact.Artifact) error {
	slices.SortFunc(all, func(a, b artifact.Artifact) int {
		switch x, y := a.Ref.String(), b.Ref.String(); {
		case x < y:
			return -1
		case x > y:
			return 1
		}
		return 0
	})
	for i := 1; i < len(all); i++ {
		if all[i].Ref == all[i-1].Ref {
			return fail.Refuse("bring it in one way only", errors.New(all[i].Ref.String()+": is brought twice with different files"))
		}
	}
	return nil
}
