// Package helm brings charts: from repositories with an index, and from registries
// of images; and serves those with an index of what is released.
//
// No template of a chart is run inside. The images that a chart names are brought with
// it where that is asked for: helm renders it, on the connected side. The package knows
// nothing of sites or shipments.
package helm

import (
	"context"
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
	"time"

	"golang.org/x/mod/semver"
	"gopkg.in/yaml.v3"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/ecosystem/ocidist"
	"enisle/internal/fail"
)

// Kinds of charts: those of repositories, and those of registries, which are images.
const (
	Kind      = "helm"
	imageKind = "oci"
)

// Bounds, in bytes.
const (
	maxIndex = 128 << 20
	maxProof = 1 << 20 // of a chart's provenance file
)

// Ecosystem is the world of charts. The zero value serves.
type Ecosystem struct {
	Get    ocidist.Getter   // needed for collecting
	Run    ecosystem.Runner // runs helm, where images are wanted
	Images Images           // brings them
}

var (
	_ ecosystem.Ecosystem    = (*Ecosystem)(nil)
	_ ecosystem.Wanter       = (*Ecosystem)(nil)
	_ ecosystem.Configured   = (*Ecosystem)(nil)
	_ ecosystem.Impersonator = (*Ecosystem)(nil)
)

// Name returns "helm".
func (*Ecosystem) Name() string { return Kind }

// Origins returns the repository that a chart came from.
func (*Ecosystem) Origins(a artifact.Artifact) map[string]string {
	if a.Index == "" {
		return nil
	}
	return map[string]string{a.Index: ""}
}

// Names and versions of charts; constant.
var (
	nameForm    = regexp.MustCompile(`^[a-z0-9][a-z0-9._-]{0,249}$`)
	versionForm = regexp.MustCompile(`^v?[0-9]+(\.[0-9]+){0,2}(-[0-9A-Za-z.-]{1,100})?(\+[0-9A-Za-z.-]{1,100})?$`)
)

// order is an entry of a request.
type order struct {
	name, version string // an empty version means the newest
	repo          string // address of a repository; empty with image
	image         *ocidist.Order
	images        imageWant
}

// scheme begins a chart at a registry.
const scheme = "oci://"

// parse reads "oci://registry.example/charts/app:1.2.3" and {chart: "app@1.2.3",
// repo: URL}.
func parse(item any) (o order, err error) {
	bad := func(why string, args ...any) (order, error) {
		return o, fail.As(fail.Usage, `write {chart: "app@1.2.3", repo: "https://charts.example"} or "oci://registry.example/charts/app:1.2.3"`, fmt.Errorf(why, args...))
	}
	chart, ok := item.(string)
	if m, isMap := item.(map[string]any); isMap {
		chart, ok = m["chart"].(string)
		for key, v := range m {
			if o.images.set(key, v) {
				continue
			}
			s, isString := v.(string)
			switch {
			case !isString:
				return bad("%s is %.80v", key, v)
			case key == "chart":
			case key == "repo":
				o.repo = strings.TrimRight(s, "/")
			case key == "version":
				o.version = s
			default:
				return bad("a chart has no %.80q", key)
			}
		}
	}
	if !ok {
		return bad("%.200v names no chart", item)
	}
	if at, isImage := strings.CutPrefix(chart, scheme); isImage {
		if o.version != "" {
			at += ":" + strings.ReplaceAll(o.version, "+", "_") // as Helm writes it
		}
		ref, err := ocidist.ParseReference(at)
		if err != nil {
			return o, err
		}
		o.image = &ocidist.Order{Reference: ref}
		return o, nil
	}
	if name, version, pinned := strings.Cut(chart, "@"); pinned {
		chart, o.version = name, version
	}
	if o.name = chart; !nameForm.MatchString(chart) || strings.Contains(chart, "..") || o.version != "" && !versionForm.MatchString(o.version) {
		return bad("%.200v names no chart", item)
	}
	u, err := url.Parse(o.repo)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || u.User != nil || u.RawQuery != "" {
		return bad("%s: its repository is no address", chart)
	}
	return o, nil
}

// Resolve looks the charts up where they are.
func (e *Ecosystem) Resolve(ctx context.Context, want ecosystem.Want) ([]artifact.Artifact, error) {
	if len(want.Alone) > 0 {
		return nil, fail.As(fail.Usage, "bring the chart under helm as well", errors.New("files are only taken out of charts that are brought"))
	}
	if e.Get == nil && len(want.Items) > 0 {
		return nil, errors.New("there is no way out to ask by")
	}
	var out []artifact.Artifact
	seen := map[artifact.Ref]bool{}
	named := map[string]bool{} // images
	indexes := map[string]map[string][]entry{}
	for i, it := range want.Items {
		o, err := parse(it)
		if err != nil {
			return nil, err
		}
		var a artifact.Artifact
		dir := fmt.Sprintf("helm-%d", i)
		if o.image != nil {
			a.Ref, a.Index = artifact.Ref{Kind: imageKind, Name: o.image.Name(), Version: o.image.Version()}, o.image.Address()
			a.Files, err = ocidist.Pull(ctx, e.Get, *o.image, want.Work, dir)
		} else {
			a, err = e.chart(ctx, o, indexes, want.Work, dir)
		}
		if err != nil {
			return nil, fmt.Errorf("%v: %w", it, err)
		}
		if seen[a.Ref] {
			return nil, fail.As(fail.Usage, "bring it from one place", fmt.Errorf("%s is asked for twice", a.Ref))
		}
		if o.images.wanted {
			all, err := e.images(ctx, want, o.images, a, dir)
			if err != nil {
				return nil, fmt.Errorf("%v: %w", it, err)
			}
			for _, image := range all {
				named[image] = true
			}
		}
		a.By, seen[a.Ref] = "enisle", true
		out = append(out, a)
	}
	return e.withImages(ctx, want, out, named)
}

// withImages brings the images as well that charts name.
func (e *Ecosystem) withImages(ctx context.Context, want ecosystem.Want, charts []artifact.Artifact, named map[string]bool) ([]artifact.Artifact, error) {
	if len(named) == 0 {
		return charts, nil
	}
	if e.Images == nil {
		return nil, errors.New("there is nothing to bring images by")
	}
	w := want
	w.Items = nil
	for _, image := range slices.Sorted(maps.Keys(named)) {
		w.Items = append(w.Items, image)
	}
	found, err := e.Images.Resolve(ctx, w)
	if err != nil {
		return nil, fmt.Errorf("images of charts: %w", err)
	}
	for i := range found {
		found[i].By = "helm"
	}
	return append(charts, found...), nil
}

// entry is a chart's version in an index.
type entry struct {
	Version string   `yaml:"version"`
	URLs    []string `yaml:"urls"`
	Digest  string   `yaml:"digest"`
	Created string   `yaml:"created"`
}

// index reads a repository's, once.
func (e *Ecosystem) index(ctx context.Context, repo string, known map[string]map[string][]entry) (map[string][]entry, error) {
	if all, ok := known[repo]; ok {
		return all, nil
	}
	b, _, err := e.Get.Document(ctx, repo+"/index.yaml", http.Header{"Accept": {"*/*"}}, maxIndex)
	if err != nil {
		return nil, err
	}
	var in struct {
		Entries map[string][]entry `yaml:"entries"`
	}
	if err := yaml.Unmarshal(b, &in); err != nil {
		return nil, fmt.Errorf("its index: %w", err)
	}
	known[repo] = in.Entries
	return in.Entries, nil
}

// chart finds one in the index of its repository.
func (e *Ecosystem) chart(ctx context.Context, o order, known map[string]map[string][]entry, work, dir string) (a artifact.Artifact, err error) {
	all, err := e.index(ctx, o.repo, known)
	if err != nil {
		return a, err
	}
	found, ok := choose(all[o.name], o.version)
	if !ok {
		return a, fail.As(fail.Usage, "try 'helm search repo'", fmt.Errorf("%s has no %s %s", o.repo, o.name, o.version))
	}
	if !versionForm.MatchString(found.Version) {
		return a, fail.Refuse("bring another version", fmt.Errorf("%.80q is no version", found.Version))
	}
	d, err := artifact.ParseDigest("sha256:" + strings.TrimPrefix(strings.ToLower(found.Digest), "sha256:"))
	if err != nil {
		return a, fail.Refuse("bring it from a repository that states digests", errors.New("the index states no SHA-256 of it"))
	}
	base, err := url.Parse(o.repo + "/")
	if err != nil {
		return a, err
	}
	if len(found.URLs) == 0 {
		return a, errors.New("the index does not say where it is")
	}
	at, err := base.Parse(found.URLs[0])
	if err != nil || at.Scheme != "https" && at.Scheme != base.Scheme || at.Host == "" {
		return a, fail.Refuse("do not use this repository", errors.New("the index says that it is where nothing is fetched from"))
	}
	at.User = nil
	published, err := time.Parse(time.RFC3339, found.Created)
	if err != nil {
		published = time.Time{} // provenance only
	}
	file := o.name + "-" + found.Version + ".tgz"
	a.Ref, a.Index = artifact.Ref{Kind: Kind, Name: o.name, Version: found.Version}, o.repo
	a.Files = []artifact.File{{Path: file, Size: -1, Digest: d, Origin: at.String(), Published: published.UTC().Truncate(time.Second)}}
	proof := *at
	proof.Path += ".prov"
	proof.RawPath = ""
	b, _, err := e.Get.Document(ctx, proof.String(), http.Header{"Accept": {"*/*"}}, maxProof)
	var status *fetch.StatusError
	switch {
	case errors.As(err, &status):
		return a, a.Ref.Check() // it is not signed
	case err != nil:
		return a, err
	}
	if err := os.MkdirAll(filepath.Join(work, dir), 0o755); err != nil {
		return a, err
	}
	if err := os.WriteFile(filepath.Join(work, dir, "prov"), b, 0o600); err != nil {
		return a, err
	}
	a.Files = append(a.Files, artifact.File{Path: file + ".prov", Size: int64(len(b)), Digest: artifact.Sum(b), Origin: ecosystem.Made(dir+"/prov", fetch.Clean(proof.String()))})
	return a, a.Ref.Check()
}

// choose finds a version, or the newest that is no prerelease.
func choose(all []entry, version string) (best entry, ok bool) {
	for _, e := range all {
		if version != "" {
			if e.Version == version || strings.TrimPrefix(e.Version, "v") == strings.TrimPrefix(version, "v") {
				return e, true
			}
			continue
		}
		v := canonical(e.Version)
		if semver.Prerelease(v) == "" && (!ok || semver.Compare(v, canonical(best.Version)) > 0) {
			best, ok = e, true
		}
	}
	return best, ok
}

func canonical(version string) string { return "v" + strings.TrimPrefix(version, "v") }

// wantedForm is a chart's archive; constant.
var wantedForm = regexp.MustCompile(`^/([a-z0-9][a-z0-9._-]*)-(v?[0-9]+\.[0-9]+\.[0-9]+[0-9A-Za-z.+-]*)\.tgz$`)

// Wanted names the chart that an archive was asked for. Where it is to be had, the
// collector has to say.
func (*Ecosystem) Wanted(path string) (item string, ok bool) {
	m := wantedForm.FindStringSubmatch(path)
	if m == nil || !nameForm.MatchString(m[1]) || !versionForm.MatchString(m[2]) {
		return "", false
	}
	return m[1] + "@" + m[2], true
}

// Clients lists helm.
func (*Ecosystem) Clients() []string { return []string{"helm"} }

// Config returns the command that makes the repository known.
func (*Ecosystem) Config(_, base string) string { return "helm repo add island " + base + "/helm\n" }
