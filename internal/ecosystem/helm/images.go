package helm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/ocidist"
	"enisle/internal/fail"
)

// Which images a chart names depends on its templates and on values. So helm itself
// renders it, confined, and what containers are made of in what it writes is brought; and
// so is what the chart says it needs besides (the annotation artifacthub.io/images).

// Images resolves images, as the ecosystem of images does: items are references.
type Images interface {
	Resolve(ctx context.Context, want ecosystem.Want) ([]artifact.Artifact, error)
}

const (
	maxFetched = 64 << 20 // bytes of a chart that is rendered
	maxNamed   = 1000     // images of a chart
	annotation = "artifacthub.io/images"
)

// imageWant says that the images of a chart are wanted.
type imageWant struct {
	wanted bool
	values string // a file for helm; empty: the chart's own values
	in     string // registry, and path for names of one word, of images that name none
}

// set takes the keys of an entry that are about images, and reports whether this is one.
func (w *imageWant) set(key string, v any) bool {
	s, isString := v.(string)
	switch key {
	case "images":
		yes, isBool := v.(bool)
		w.wanted, w.in = yes || isString && s != "", s
		return isBool || isString
	case "values":
		w.values = s
		return isString
	}
	return false
}

// images returns which images a chart names when it is rendered.
func (e *Ecosystem) images(ctx context.Context, want ecosystem.Want, w imageWant, a artifact.Artifact, dir string) ([]string, error) {
	program, err := exec.LookPath("helm")
	if err != nil || e.Run == nil {
		return nil, fail.As(fail.Usage, "install helm, or name the images under oci", errors.New("helm is not installed, and finds the images of a chart"))
	}
	b, err := e.archive(ctx, want, a)
	if err != nil {
		return nil, err
	}
	at := filepath.Join(want.Work, dir+"-rendered")
	if err := os.MkdirAll(at, 0o755); err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(at, "chart.tgz"), b, 0o600); err != nil {
		return nil, err
	}
	argv := []string{program, "template", "island", filepath.Join(at, "chart.tgz")}
	if w.values != "" {
		text, err := os.ReadFile(filepath.Join(want.Dir, w.values))
		if err == nil {
			err = os.WriteFile(filepath.Join(at, "values.yaml"), text, 0o600)
		}
		if err != nil {
			return nil, fail.As(fail.Usage, "name a file beside the request", err)
		}
		argv = append(argv, "--values", filepath.Join(at, "values.yaml"))
	}
	out, stderr, err := e.Run.Run(ctx, at, want.Hidden, argv)
	if err != nil {
		return nil, fail.As(fail.Failed, "try 'helm template' yourself; give it values with {values: FILE}",
			fmt.Errorf("helm: %w: %.400s", err, strings.ReplaceAll(strings.TrimSpace(string(stderr)), "\n", "; ")))
	}
	said, err := about(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	return named(out, said, w.in)
}

// archive fetches a chart to render it: that of a repository, or the layer of an image.
func (e *Ecosystem) archive(ctx context.Context, want ecosystem.Want, a artifact.Artifact) ([]byte, error) {
	f := a.Files[0]
	if a.Ref.Kind == imageKind {
		d, err := layer(want.Work, a.Files)
		if err != nil {
			return nil, err
		}
		i := slices.IndexFunc(a.Files, func(f artifact.File) bool { return f.Digest == d })
		if i < 0 {
			return nil, fmt.Errorf("%s: its chart is not among its blobs", a.Ref)
		}
		f = a.Files[i]
	}
	b, _, err := e.Get.Document(ctx, f.Origin, http.Header{"Accept": {"*/*"}}, maxFetched)
	if err == nil && artifact.Sum(b) != f.Digest {
		err = fmt.Errorf("%s is another file than was promised", f.Path)
	}
	return b, err
}

// layer finds the chart in the manifests of an image that were written below work.
func layer(work string, files []artifact.File) (artifact.Digest, error) {
	for _, f := range files {
		at, _, made := ecosystem.ParseMade(f.Origin)
		if !made {
			continue
		}
		b, err := os.ReadFile(filepath.Join(work, at))
		if err != nil {
			return "", err
		}
		var m struct {
			Layers []ocidist.Descriptor `json:"layers"`
		}
		if json.Unmarshal(b, &m) != nil {
			continue
		}
		for _, l := range m.Layers {
			if l.MediaType == typeChart {
				return l.Digest, nil
			}
		}
	}
	return "", errors.New("it is no chart")
}

// named returns the images in what helm rendered, and those that Chart.yaml lists.
func named(rendered []byte, said map[string]any, in string) ([]string, error) {
	found := map[string]bool{}
	d := yaml.NewDecoder(bytes.NewReader(rendered))
	for {
		var doc any
		err := d.Decode(&doc)
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("what helm rendered: %w", err)
		}
		containers(doc, found)
	}
	if notes, ok := said["annotations"].(map[string]any); ok {
		var listed []struct {
			Image string `yaml:"image"`
		}
		text, _ := notes[annotation].(string)
		if err := yaml.Unmarshal([]byte(text), &listed); err != nil {
			return nil, fmt.Errorf("the annotation %s: %w", annotation, err)
		}
		for _, l := range listed {
			found[l.Image] = true
		}
	}
	delete(found, "")
	if len(found) > maxNamed {
		return nil, fail.Refuse("name those that you need under oci", fmt.Errorf("it names more than %d images", maxNamed))
	}
	var out []string
	for _, s := range slices.Sorted(maps.Keys(found)) {
		ref, err := complete(s, in)
		if err != nil {
			return nil, err
		}
		out = append(out, ref)
	}
	return out, nil
}

// containers finds the images of containers, wherever they stand: the texts under "image".
func containers(v any, found map[string]bool) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			containers(e, found)
		}
	case map[string]any:
		if s, ok := v["image"].(string); ok {
			found[s] = true
		}
		for _, e := range v {
			containers(e, found)
		}
	}
}

// complete gives an image that names no registry the one of the request, and one without
// a tag the tag that clients take.
func complete(s, in string) (string, error) {
	host, _, path := strings.Cut(s, "/")
	if !path || !strings.ContainsAny(host, ".:") && host != "localhost" {
		if in == "" {
			return "", fail.As(fail.Usage, `say where such images are: {images: "registry.example/library"}`, fmt.Errorf("the image %.120q names no registry", s))
		}
		if path { // only names of one word have the path as well
			in, _, _ = strings.Cut(in, "/")
		}
		s = strings.TrimRight(in, "/") + "/" + s
	}
	if !strings.Contains(s[strings.LastIndexByte(s, '/'):], ":") && !strings.Contains(s, "@") {
		s += ":latest"
	}
	_, err := ocidist.ParseReference(s)
	return s, err
}
