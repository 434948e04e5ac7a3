package store

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"enisle/internal/artifact"
)

// Media types and annotations of the native format: every artifact is an OCI
// image manifest, a set of artifacts an OCI image index.
const (
	artifactTypePrefix = "application/vnd.enisle.artifact.v1+"
	layerType          = "application/octet-stream"
	noteRef            = "dev.enisle.ref"
	noteBy             = "dev.enisle.by"
	noteFrom           = "dev.enisle.from"
	noteIndex          = "dev.enisle.index"
	noteOrigin         = "dev.enisle.origin"
	notePublished      = "dev.enisle.published"
	noteHash           = "dev.enisle.hash." // followed by the algorithm
)

// MaxManifest is the largest manifest or index that is read, in bytes.
const MaxManifest = 256 << 20

// EmptyConfig is the content of the config blob that every manifest names.
func EmptyConfig() []byte { return []byte("{}") }

// EncodeManifest returns the OCI manifest of a. The bytes depend on nothing but
// the artifact.
func EncodeManifest(a artifact.Artifact) ([]byte, error) {
	if err := a.Check(); err != nil {
		return nil, err
	}
	m := ocispec.Manifest{
		Versioned:    specs.Versioned{SchemaVersion: 2},
		MediaType:    ocispec.MediaTypeImageManifest,
		ArtifactType: artifactTypePrefix + a.Ref.Kind,
		Config:       ocispec.DescriptorEmptyJSON,
		Layers:       []ocispec.Descriptor{},
		Annotations:  map[string]string{noteRef: a.Ref.String()},
	}
	m.Config.Data = nil
	setNote(m.Annotations, noteBy, a.By)
	setNote(m.Annotations, noteFrom, a.From)
	setNote(m.Annotations, noteIndex, a.Index)
	for _, f := range a.Files {
		if f.Size < 0 || f.Digest == "" {
			return nil, fmt.Errorf("%s: file %s was not fetched", a.Ref, f.Path)
		}
		notes := map[string]string{ocispec.AnnotationTitle: f.Path}
		setNote(notes, noteOrigin, f.Origin)
		if !f.Published.IsZero() {
			notes[notePublished] = f.Published.UTC().Format(time.RFC3339)
		}
		for alg, sum := range f.Hashes {
			notes[noteHash+alg] = sum
		}
		m.Layers = append(m.Layers, descriptor(layerType, f.Digest, f.Size, notes))
	}
	return json.Marshal(m)
}

func setNote(notes map[string]string, key, value string) {
	if value != "" {
		notes[key] = value
	}
}

func descriptor(mediaType string, d artifact.Digest, size int64, notes map[string]string) ocispec.Descriptor {
	return ocispec.Descriptor{MediaType: mediaType, Digest: digest.Digest(d), Size: size, Annotations: notes}
}

// DecodeManifest reads what EncodeManifest wrote and accepts nothing else.
func DecodeManifest(b []byte) (artifact.Artifact, error) {
	var m ocispec.Manifest
	var a artifact.Artifact
	if err := json.Unmarshal(b, &m); err != nil {
		return a, fmt.Errorf("manifest: %w", err)
	}
	ref, err := artifact.ParseRef(m.Annotations[noteRef])
	if err != nil {
		return a, fmt.Errorf("manifest: %w", err)
	}
	a = artifact.Artifact{Ref: ref, Name: ref.String(), By: m.Annotations[noteBy], From: m.Annotations[noteFrom], Index: m.Annotations[noteIndex], Manifest: artifact.Sum(b)}
	for _, l := range m.Layers {
		f, err := fileOf(l)
		if err != nil {
			return a, fmt.Errorf("manifest of %s: %w", ref, err)
		}
		a.Files = append(a.Files, f)
	}
	again, err := EncodeManifest(a)
	if err != nil {
		return a, fmt.Errorf("manifest: %w", err)
	}
	if !bytes.Equal(again, b) {
		return a, fmt.Errorf("manifest of %s: not in canonical form", ref)
	}
	return a, nil
}

func fileOf(l ocispec.Descriptor) (artifact.File, error) {
	d, err := artifact.ParseDigest(string(l.Digest))
	if err != nil {
		return artifact.File{}, err
	}
	f := artifact.File{Path: l.Annotations[ocispec.AnnotationTitle], Size: l.Size, Digest: d, Origin: l.Annotations[noteOrigin]}
	if p := l.Annotations[notePublished]; p != "" {
		if f.Published, err = time.Parse(time.RFC3339, p); err != nil {
			return f, err
		}
	}
	for k, v := range l.Annotations {
		if alg, ok := strings.CutPrefix(k, noteHash); ok {
			if f.Hashes == nil {
				f.Hashes = map[string]string{}
			}
			f.Hashes[alg] = v
		}
	}
	return f, nil
}

// Entry is one artifact of a set: its reference and its manifest.
type Entry struct {
	Ref      artifact.Ref
	Manifest artifact.Digest
	Size     int64 // bytes of the manifest
}

// EncodeIndex returns the OCI index of a set; its digest is the content root.
// Entries must be ordered by reference and differ.
func EncodeIndex(request string, entries []Entry) ([]byte, error) {
	ix := ocispec.Index{
		Versioned:   specs.Versioned{SchemaVersion: 2},
		MediaType:   ocispec.MediaTypeImageIndex,
		Manifests:   []ocispec.Descriptor{},
		Annotations: map[string]string{noteRef: request},
	}
	for i, e := range entries {
		if i > 0 && entries[i-1].Ref.String() >= e.Ref.String() {
			return nil, fmt.Errorf("index: %s and %s are out of order or the same", entries[i-1].Ref, e.Ref)
		}
		d := descriptor(ocispec.MediaTypeImageManifest, e.Manifest, e.Size, map[string]string{noteRef: e.Ref.String()})
		ix.Manifests = append(ix.Manifests, d)
	}
	return json.Marshal(ix)
}

// DecodeIndex reads what EncodeIndex wrote and accepts nothing else.
func DecodeIndex(b []byte) (request string, entries []Entry, err error) {
	var ix ocispec.Index
	if err := json.Unmarshal(b, &ix); err != nil {
		return "", nil, fmt.Errorf("index: %w", err)
	}
	for _, m := range ix.Manifests {
		ref, err := artifact.ParseRef(m.Annotations[noteRef])
		if err != nil {
			return "", nil, fmt.Errorf("index: %w", err)
		}
		d, err := artifact.ParseDigest(string(m.Digest))
		if err != nil {
			return "", nil, fmt.Errorf("index: %w", err)
		}
		if m.Size < 0 || m.Size > MaxManifest {
			return "", nil, fmt.Errorf("index: manifest of %s claims %d bytes", ref, m.Size)
		}
		entries = append(entries, Entry{ref, d, m.Size})
	}
	again, err := EncodeIndex(ix.Annotations[noteRef], entries)
	if err != nil {
		return "", nil, err
	}
	if !bytes.Equal(again, b) {
		return "", nil, errors.New("index: not in canonical form")
	}
	return ix.Annotations[noteRef], entries, nil
}
