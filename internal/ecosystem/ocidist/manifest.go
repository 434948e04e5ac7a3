package ocidist

import (
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"strings"

	"enisle/internal/artifact"
	"enisle/internal/fail"
)

// Media types of image-spec 1.1 and of what came before it.
const (
	typeIndex      = "application/vnd.oci.image.index.v1+json"
	typeManifest   = "application/vnd.oci.image.manifest.v1+json"
	typeDockerList = "application/vnd.docker.distribution.manifest.list.v2+json"
	typeDocker     = "application/vnd.docker.distribution.manifest.v2+json"
)

const (
	maxManifest = 4 << 20 // bytes; distribution-spec 1.1, "Pushing manifests"
	maxChildren = 10_000  // of one manifest
	maxBlob     = 1 << 40 // bytes
)

// Descriptor points at content; image-spec 1.1, "OCI Content Descriptors".
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       artifact.Digest   `json:"digest"`
	Size         int64             `json:"size"` // bytes
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Platform     *Platform         `json:"platform,omitempty"`
}

// Platform is what an image runs on.
type Platform struct {
	OS      string `json:"os"`
	Arch    string `json:"architecture"`
	Variant string `json:"variant,omitempty"`
}

func (p Platform) String() string {
	return strings.TrimSuffix(p.OS+"/"+p.Arch+"/"+p.Variant, "/")
}

// covers reports whether an image for q is wanted by p, which names a variant or
// takes any.
func (p Platform) covers(q Platform) bool {
	return p.OS == q.OS && p.Arch == q.Arch && (p.Variant == "" || p.Variant == q.Variant)
}

// ParsePlatform reads OS/ARCH or OS/ARCH/VARIANT.
func ParsePlatform(s string) (Platform, error) {
	parts := strings.Split(s, "/")
	if len(parts) < 2 || len(parts) > 3 || strings.Contains("/"+s+"/", "//") {
		return Platform{}, fail.As(fail.Usage, `write "linux/amd64" or "linux/arm/v7"`, fmt.Errorf("%.80q is no platform", s))
	}
	return Platform{parts[0], parts[1], strings.Join(parts[2:], "")}, nil
}

// manifest is an image's or an index.
type manifest struct {
	MediaType    string            `json:"mediaType"`
	ArtifactType string            `json:"artifactType"`
	Config       *Descriptor       `json:"config"`
	Layers       []Descriptor      `json:"layers"`
	Manifests    []Descriptor      `json:"manifests"`
	Subject      *Descriptor       `json:"subject"`
	Annotations  map[string]string `json:"annotations"`
}

func (m manifest) index() bool { return m.MediaType == typeIndex || m.MediaType == typeDockerList }

// blobs are the contents that an image's manifest points at.
func (m manifest) blobs() (out []Descriptor) {
	if m.index() {
		return nil
	}
	if m.Config != nil {
		out = append(out, *m.Config)
	}
	return append(out, m.Layers...)
}

// kind is what referrers are filtered by.
func (m manifest) kind() string {
	if m.ArtifactType == "" && m.Config != nil && !m.index() {
		return m.Config.MediaType
	}
	return m.ArtifactType
}

// readManifest reads one strictly. said is the media type that came with it; what
// the manifest says of itself must not differ.
func readManifest(b []byte, said string) (manifest, error) {
	var m manifest
	if len(b) > maxManifest {
		return m, fmt.Errorf("a manifest is longer than %d bytes", maxManifest)
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return m, fmt.Errorf("a manifest is no JSON: %w", err)
	}
	if base, _, err := mime.ParseMediaType(said); err == nil {
		said = base
	}
	switch {
	case m.MediaType == "":
		m.MediaType = said
	case said != "" && said != m.MediaType && strings.Contains(said, "vnd."):
		return m, fmt.Errorf("a manifest calls itself %.80q and comes as %.80q", m.MediaType, said)
	}
	switch m.MediaType {
	case typeIndex, typeDockerList:
		if m.Config != nil || len(m.Layers) > 0 {
			return m, errors.New("a manifest is an index and an image at once")
		}
	case typeManifest, typeDocker:
		if m.Config == nil || len(m.Manifests) > 0 {
			return m, errors.New("a manifest of an image names no config, or other manifests")
		}
	default:
		return m, fmt.Errorf("manifests of the type %.80q are not known", m.MediaType)
	}
	all := append(m.blobs(), m.Manifests...)
	if m.Subject != nil {
		all = append(all, *m.Subject)
	}
	if len(all) > maxChildren {
		return m, fmt.Errorf("a manifest names more than %d others", maxChildren)
	}
	for _, d := range all {
		if _, err := artifact.ParseDigest(string(d.Digest)); err != nil {
			return m, fmt.Errorf("a manifest names a %w", err)
		}
		if d.Size < 0 || d.Size > maxBlob {
			return m, fmt.Errorf("a manifest gives %s a size of %d bytes", d.Digest.Short(), d.Size)
		}
	}
	return m, nil
}

// Image is what image.json holds: what the manifests do not say of themselves.
type Image struct {
	Repository string                     `json:"repository"` // at its registry
	Tags       map[string]artifact.Digest `json:"tags"`
	Types      map[artifact.Digest]string `json:"types"`   // media type of each manifest
	Partial    []artifact.Digest          `json:"partial"` // indexes of which some images were left out
}
