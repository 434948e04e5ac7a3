package ocidist

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"regexp"
	"slices"
	"strings"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
)

// Repository is what a registry shows under one name.
type Repository struct {
	Name string
	Tags map[string]artifact.Digest
	// Manifests, and their media types.
	Manifests map[artifact.Digest][]byte
	Types     map[artifact.Digest]string
	// Blobs are released contents and their sizes in bytes.
	Blobs map[artifact.Digest]int64
	// Made are small contents that are in no release: they were made from one.
	Made map[artifact.Digest][]byte

	referrers map[artifact.Digest][]Descriptor // by subject
}

const (
	maxImageFile = 4 << 20  // bytes
	maxHeld      = 64 << 10 // images that one release shows
)

// attached is a tag that stands for what refers to a manifest; constant.
var attached = regexp.MustCompile(`^sha256-[0-9a-f]{64}(\.[a-z]{1,10})?$`)

// Repositories returns what the artifacts of one kind come to, one repository a
// name. An artifact that is none, or contradicts itself, is left out.
func Repositories(rel ecosystem.Release, kind string) (out []*Repository) {
	byName := map[string]*Repository{}
	for i, a := range rel.Artifacts(kind) {
		if i == maxHeld {
			break
		}
		r := byName[a.Ref.Name]
		if r == nil {
			r = &Repository{Name: a.Ref.Name, Tags: map[string]artifact.Digest{}, Manifests: map[artifact.Digest][]byte{}, Types: map[artifact.Digest]string{}, Blobs: map[artifact.Digest]int64{}}
		}
		if r.add(rel, a) != nil {
			continue // what cannot be described is not offered
		}
		if byName[r.Name] == nil {
			byName[r.Name] = r
			out = append(out, r)
		}
	}
	return out
}

// add shows one artifact; nothing of it on an error.
func (r *Repository) add(rel ecosystem.Release, a artifact.Artifact) error {
	files := map[string]artifact.File{}
	for _, f := range a.Files {
		files[f.Path] = f
	}
	b, err := small(rel, files[ImageFile], maxImageFile)
	if err != nil {
		return err
	}
	var image Image
	if err := json.Unmarshal(b, &image); err != nil {
		return err
	}
	manifests := map[artifact.Digest][]byte{}
	types := map[artifact.Digest]string{}
	for d, said := range image.Types {
		f, ok := files["manifests/"+d.Hex()]
		if !ok || f.Digest != d {
			return fmt.Errorf("the manifest %.80q is not here", d)
		}
		if manifests[d], err = small(rel, f, maxManifest); err != nil {
			return err
		}
		m, err := readManifest(manifests[d], said)
		if err != nil {
			return err
		}
		types[d] = m.MediaType
	}
	maps.Copy(r.Manifests, manifests)
	maps.Copy(r.Types, types)
	for path, f := range files {
		if path == "blobs/"+f.Digest.Hex() {
			r.Blobs[f.Digest] = f.Size
		}
	}
	for tag, d := range image.Tags {
		// An artifact gives no tag but its own, and those of what is attached.
		if types[d] != "" && (tag == a.Ref.Version && tagForm.MatchString(tag) || attached.MatchString(tag)) {
			r.Tags[tag] = d
		}
	}
	return nil
}

// small reads a released file of at most limit bytes.
func small(rel ecosystem.Release, f artifact.File, limit int64) (_ []byte, err error) {
	b, err := rel.Open(f.Digest)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	if b.Size() > limit {
		return nil, fmt.Errorf("%s is longer than %d bytes", f.Path, limit)
	}
	return io.ReadAll(io.NewSectionReader(b, 0, b.Size()))
}

// refer notes which manifests refer to which.
func (r *Repository) refer() {
	r.referrers = map[artifact.Digest][]Descriptor{}
	for _, d := range slices.Sorted(maps.Keys(r.Manifests)) {
		m, err := readManifest(r.Manifests[d], r.Types[d])
		if err != nil || m.Subject == nil {
			continue
		}
		r.referrers[m.Subject.Digest] = append(r.referrers[m.Subject.Digest],
			Descriptor{MediaType: m.MediaType, Digest: d, Size: int64(len(r.Manifests[d])), ArtifactType: m.kind(), Annotations: m.Annotations})
	}
}

// shorter are the names by which clients also ask for a repository: without its
// host, and without what is put in front of names of one element.
func shorter(name string) (out []string) {
	host, rest, ok := strings.Cut(name, "/")
	if !ok || !strings.ContainsAny(host, "._") && host != "localhost" {
		return nil
	}
	out = []string{rest}
	if bare, ok := strings.CutPrefix(rest, library); ok {
		return append(out, bare)
	}
	if !strings.Contains(rest, "/") {
		out = append(out, library+rest)
	}
	return out
}

// library is what clients put in front of names of one element.
const library = "library/"
