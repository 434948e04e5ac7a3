package ocidist

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/fail"
)

// Getter fetches small documents of a registry.
type Getter interface {
	Document(ctx context.Context, url string, header http.Header, limit int64) ([]byte, http.Header, error)
}

// Order is an image that is wanted.
type Order struct {
	Reference
	// Registry is where it is asked for, such as https://registry.example; empty
	// means Reference.Base.
	Registry string
	// Platforms of an index that are wanted; empty means all.
	Platforms []Platform
	// Bare leaves out what refers to the image, for registries without such.
	Bare bool
}

// Address is the address of the repository.
func (o Order) Address() string {
	at := o.Registry
	if at == "" {
		at = o.Base()
	}
	return strings.TrimRight(at, "/") + "/v2/" + o.Path
}

// Origins says, of an artifact whose Index is an Address, which address is answered
// by which path of a Registry.
func Origins(a artifact.Artifact) map[string]string {
	registry, _, ok := strings.Cut(a.Index, "/v2/")
	if !ok {
		return nil
	}
	return map[string]string{a.Index: "/" + a.Ref.Name, registry + "/v2": ""}
}

// Bounds of one image.
const (
	maxDepth     = 4     // of indexes in indexes, and of what refers to what refers
	maxManifests = 5_000 // all together
	maxPages     = 100   // of referrers to one manifest
)

// ImageFile is the name of the file that holds the Image.
const ImageFile = "image.json"

// accepted is what may come as a manifest; constant.
var accepted = []string{typeIndex, typeManifest, typeDockerList, typeDocker}

// Pull asks a registry what an image consists of, and writes the manifests below
// work/dir. The files are those manifests, every blob that they name (to be
// fetched) and image.json.
func Pull(ctx context.Context, get Getter, o Order, work, dir string) ([]artifact.File, error) {
	p := &puller{
		Getter: get, order: o, base: o.Address(), work: work, dir: dir, files: map[string]artifact.File{},
		image: Image{Repository: o.Host + "/" + o.Path, Tags: map[string]artifact.Digest{}, Types: map[artifact.Digest]string{}, Partial: []artifact.Digest{}},
	}
	if err := os.MkdirAll(filepath.Join(work, dir), 0o755); err != nil {
		return nil, err
	}
	reference := string(o.Digest)
	if reference == "" {
		reference = o.Tag
	}
	d, err := p.tree(ctx, reference, "", 0)
	if err != nil {
		return nil, err
	}
	if o.Tag != "" {
		p.image.Tags[o.Tag] = d
	}
	b, err := json.MarshalIndent(p.image, "", " ")
	if err != nil {
		return nil, err
	}
	if err := p.write(ImageFile, ImageFile, b, p.base+"/manifests/"+reference+"#"+ImageFile); err != nil {
		return nil, err
	}
	return slices.SortedFunc(maps.Values(p.files), func(a, b artifact.File) int { return strings.Compare(a.Path, b.Path) }), nil
}

// puller is one run of Pull.
type puller struct {
	Getter
	order     Order
	base      string // address of the repository
	work, dir string
	files     map[string]artifact.File // by path
	image     Image
}

// write keeps a file of the artifact.
func (p *puller) write(path, name string, b []byte, from string) error {
	at := filepath.Join(p.dir, name)
	if err := os.WriteFile(filepath.Join(p.work, at), b, 0o600); err != nil {
		return err
	}
	p.files[path] = artifact.File{Path: path, Size: int64(len(b)), Digest: artifact.Sum(b), Origin: ecosystem.Made(at, fetch.Clean(from))}
	return nil
}

// tree keeps a manifest and what belongs to it: the images of an index that are
// wanted, the blobs of an image, what refers to it.
func (p *puller) tree(ctx context.Context, reference, said string, depth int) (artifact.Digest, error) {
	d, m, err := p.manifest(ctx, reference, said)
	if err != nil {
		return "", err
	}
	if _, seen := p.image.Types[d]; seen {
		return d, nil
	}
	if p.image.Types[d] = m.MediaType; len(p.image.Types) > maxManifests || depth > maxDepth {
		return "", fail.Refuse("bring single images of it, by digest", fmt.Errorf("it has more than %d manifests, or more than %d levels", maxManifests, maxDepth))
	}
	children, err := p.wanted(m)
	if err != nil {
		return "", err
	}
	if len(children) < len(m.Manifests) {
		p.image.Partial = append(p.image.Partial, d)
	}
	for _, c := range children {
		if _, err := p.tree(ctx, string(c.Digest), c.MediaType, depth+1); err != nil {
			return "", fmt.Errorf("%s: %w", c.Digest.Short(), err)
		}
	}
	for _, b := range m.blobs() {
		path := "blobs/" + b.Digest.Hex()
		if f, ok := p.files[path]; ok && f.Size != b.Size {
			return "", fail.Refuse("do not use this image", fmt.Errorf("its manifests give the blob %s two sizes", b.Digest.Short()))
		}
		p.files[path] = artifact.File{Path: path, Size: b.Size, Digest: b.Digest, Origin: fetch.Clean(p.base + "/blobs/" + string(b.Digest))}
	}
	if !p.order.Bare {
		if err := p.referrers(ctx, d, depth); err != nil {
			return "", fmt.Errorf("what refers to %s: %w", d.Short(), err)
		}
	}
	return d, nil
}

// manifest fetches one, keeps it and returns its digest.
func (p *puller) manifest(ctx context.Context, reference, said string) (d artifact.Digest, m manifest, err error) {
	at := p.base + "/manifests/" + reference
	b, head, err := p.Document(ctx, at, http.Header{"Accept": accepted}, maxManifest)
	if err != nil {
		return "", m, fail.As(fail.Failed, "try 'skopeo inspect' with it; what docker login or podman login wrote is used", err)
	}
	d = artifact.Sum(b)
	promised := reference
	if !strings.Contains(reference, ":") {
		promised = head.Get("Docker-Content-Digest")
	}
	if promised != "" && promised != string(d) {
		return "", m, fail.Refuse("do not use this registry", fmt.Errorf("the manifest is not what its digest %.80q says", promised))
	}
	if m, err = readManifest(b, head.Get("Content-Type")); err != nil {
		return "", m, fail.Refuse("have the image pushed again by a current client", err)
	}
	if said != "" && said != m.MediaType {
		return "", m, fail.Refuse("do not use this image", fmt.Errorf("a manifest is %.80q and was said to be %.80q", m.MediaType, said))
	}
	return d, m, p.write("manifests/"+d.Hex(), d.Hex(), b, p.base+"/manifests/"+string(d))
}

// wanted are the manifests of an index for the platforms of the order, those for
// none, and what was attached to one of either by older clients.
func (p *puller) wanted(m manifest) (out []Descriptor, err error) {
	kept := map[artifact.Digest]bool{}
	var offered []string
	for _, d := range m.Manifests {
		if d.Platform == nil || len(p.order.Platforms) == 0 ||
			slices.ContainsFunc(p.order.Platforms, func(w Platform) bool { return w.covers(*d.Platform) }) {
			kept[d.Digest] = true
			continue
		}
		if d.Platform.OS != "unknown" {
			offered = append(offered, d.Platform.String())
		}
	}
	if len(kept) == 0 && len(offered) > 0 {
		slices.Sort(offered)
		return nil, fail.As(fail.Usage, "name one with {image: …, platforms: [linux/amd64]}, or another target",
			fmt.Errorf("there is no image for %v; there is one for %.300s", p.order.Platforms, strings.Join(slices.Compact(offered), ", ")))
	}
	for _, d := range m.Manifests {
		if kept[d.Digest] || kept[artifact.Digest(d.Annotations["vnd.docker.reference.digest"])] {
			out = append(out, d)
		}
	}
	return out, nil
}

// referrers keeps what refers to a manifest: by the registry's list, by the tag
// that stands for the list, and the tags that signing tools make.
func (p *puller) referrers(ctx context.Context, d artifact.Digest, depth int) error {
	list, err := p.listed(ctx, d)
	if err != nil {
		return err
	}
	for _, r := range list {
		if _, err := p.tree(ctx, string(r.Digest), r.MediaType, depth+1); err != nil && !absent(err) {
			return err
		}
	}
	for _, suffix := range []string{"", ".sig", ".att", ".sbom"} {
		tag := "sha256-" + d.Hex() + suffix
		at, err := p.tree(ctx, tag, "", depth+1)
		if absent(err) {
			continue
		}
		if err != nil {
			return err
		}
		p.image.Tags[tag] = at
	}
	return nil
}

// absent reports whether a registry said that it has no such thing.
func absent(err error) bool {
	var status *fetch.StatusError
	return errors.As(err, &status) && status.Status >= 400 && status.Status < 500 && status.Status != http.StatusTooManyRequests
}

// nextLink is the address of another page; constant.
var nextLink = regexp.MustCompile(`<([^<>]+)>\s*;\s*rel="?next"?`)

// listed asks for the registry's own list of referrers, if it has one.
func (p *puller) listed(ctx context.Context, d artifact.Digest) (out []Descriptor, err error) {
	at := p.base + "/referrers/" + string(d)
	for range maxPages {
		b, head, err := p.Document(ctx, at, http.Header{"Accept": {typeIndex}}, maxManifest)
		if absent(err) {
			return out, nil
		}
		if err != nil {
			return nil, err
		}
		m, err := readManifest(b, head.Get("Content-Type"))
		if err != nil || !m.index() {
			return out, nil // an answer that is no list: the registry has none
		}
		out = append(out, m.Manifests...)
		if len(out) > maxManifests {
			return nil, fail.Refuse("bring the image from where less is attached to it", fmt.Errorf("more than %d manifests refer to it", maxManifests))
		}
		link := nextLink.FindStringSubmatch(head.Get("Link"))
		if link == nil {
			return out, nil
		}
		from, err := url.Parse(at)
		if err != nil {
			return nil, err
		}
		to, err := from.Parse(link[1])
		if err != nil || to.Host != from.Host || to.Scheme != from.Scheme {
			return nil, fail.Refuse("do not use this registry", errors.New("its list goes on at another host"))
		}
		at = to.String()
	}
	return nil, fmt.Errorf("the list of referrers has more than %d pages", maxPages)
}
