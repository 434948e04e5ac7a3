package ollama

import (
	"context"
	"encoding/json"
	"errors"
	"path"
	"regexp"
	"strings"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/ocidist"
	"enisle/internal/model/gguf"
)

// Media types that Ollama knows the parts of a model by.
const (
	typeManifest = "application/vnd.docker.distribution.manifest.v2+json"
	typeConfig   = "application/vnd.docker.container.image.v1+json"
	typeModel    = "application/vnd.ollama.image.model"
	typeTemplate = "application/vnd.ollama.image.template"
	typeParams   = "application/vnd.ollama.image.params"
)

// Repositories returns the models of a release: those that came from Ollama's
// registries, and one for every GGUF file that came another way. A name that came
// from a registry is not given to another model.
func Repositories(rel ecosystem.Release) []*ocidist.Repository {
	out := ocidist.Repositories(rel, Kind)
	owner := map[string]string{} // the kind that a name belongs to
	for _, r := range out {
		owner[r.Name] = Kind
	}
	for _, kind := range []string{"model", "hf"} {
		byName := map[string]*ocidist.Repository{}
		for _, a := range rel.Artifacts(kind) {
			name := nameOf(a.Ref)
			if name == "" || owner[name] != "" && owner[name] != kind {
				continue
			}
			r := byName[name]
			if r == nil {
				r = &ocidist.Repository{
					Name: name, Tags: map[string]artifact.Digest{}, Manifests: map[artifact.Digest][]byte{}, Types: map[artifact.Digest]string{},
					Blobs: map[artifact.Digest]int64{}, Made: map[artifact.Digest][]byte{},
				}
			}
			if tag(rel, r, a); len(r.Tags) > 0 && byName[name] == nil {
				byName[name], owner[name] = r, kind
				out = append(out, r)
			}
		}
	}
	return out
}

// tag offers the files of an artifact under the artifact's version, if it is the
// only one, and its own name.
func tag(rel ecosystem.Release, r *ocidist.Repository, a artifact.Artifact) {
	files := weights(a)
	for _, f := range files {
		d, err := offer(rel, r, f)
		if err != nil {
			continue // what cannot be described is not offered
		}
		tags := []string{strings.TrimSuffix(path.Base(f.Path), suffix)}
		if len(files) == 1 {
			tags = append(tags, latest, a.Ref.Version)
		}
		for _, t := range tags {
			if tagForm.MatchString(t) {
				r.Tags[t] = d
			}
		}
	}
}

// Names that Ollama can ask for, and one of several parts of a file; constant.
var (
	tagForm  = regexp.MustCompile(`^[A-Za-z0-9_][A-Za-z0-9_.-]{0,79}$`)
	partForm = regexp.MustCompile(`-[0-9]{5}-of-[0-9]{5}\.gguf$`)
)

const suffix = ".gguf"

// nameOf is NAMESPACE/MODEL of an artifact, empty if it cannot be asked for.
func nameOf(r artifact.Ref) string {
	name := r.Name
	if !strings.Contains(name, "/") {
		name = library + "/" + name
	}
	if !modelForm.MatchString(name) {
		return ""
	}
	return name
}

// weights are the files of an artifact that are a whole model each.
func weights(a artifact.Artifact) (out []artifact.File) {
	for _, f := range a.Files {
		base := strings.ToLower(path.Base(f.Path))
		if strings.HasSuffix(base, suffix) && !partForm.MatchString(base) && !strings.HasPrefix(base, "mmproj") {
			out = append(out, f)
		}
	}
	return out
}

// descriptor points at a part of a model.
type descriptor struct {
	MediaType string          `json:"mediaType"`
	Digest    artifact.Digest `json:"digest"`
	Size      int64           `json:"size"`
}

// config describes a model, as Ollama's server writes it.
type config struct {
	Format   string   `json:"model_format"`
	Family   string   `json:"model_family"`
	Families []string `json:"model_families"`
	Arch     string   `json:"architecture"`
	OS       string   `json:"os"`
	RootFS   struct {
		Type  string            `json:"type"`
		Diffs []artifact.Digest `json:"diff_ids"`
	} `json:"rootfs"`
}

// offer puts a model together over a file as it is released.
func offer(rel ecosystem.Release, r *ocidist.Repository, f artifact.File) (_ artifact.Digest, err error) {
	b, err := rel.Open(f.Digest)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	h, _, err := gguf.Read(context.Background(), b, b.Size())
	if err != nil {
		return "", err
	}
	r.Blobs[f.Digest] = f.Size
	layers := []descriptor{{typeModel, f.Digest, b.Size()}}
	add := func(kind string, content []byte) descriptor {
		d := artifact.Sum(content)
		r.Made[d] = content
		return descriptor{kind, d, int64(len(content))}
	}
	if t, ok := translate(h.Templates["tokenizer.chat_template"]); ok {
		layers = append(layers, add(typeTemplate, []byte(t.text)))
		params, err := json.Marshal(map[string][]string{"stop": t.stop})
		if err != nil {
			return "", err
		}
		layers = append(layers, add(typeParams, params))
	}
	c := config{Format: "gguf", Family: h.Arch, Families: []string{h.Arch}, Arch: "amd64", OS: "linux"}
	c.RootFS.Type = "layers"
	for _, l := range layers {
		c.RootFS.Diffs = append(c.RootFS.Diffs, l.Digest)
	}
	said, err := json.Marshal(c)
	if err != nil {
		return "", err
	}
	m, err := json.Marshal(struct {
		Schema    int          `json:"schemaVersion"`
		MediaType string       `json:"mediaType"`
		Config    descriptor   `json:"config"`
		Layers    []descriptor `json:"layers"`
	}{2, typeManifest, add(typeConfig, said), layers})
	if err != nil {
		return "", err
	}
	d := artifact.Sum(m)
	r.Manifests[d], r.Types[d] = m, typeManifest
	return d, nil
}

// dialogue is a chat template of Ollama, and where an answer ends.
type dialogue struct {
	text string
	stop []string
}

// translate writes a chat template in Ollama's language, if it is one of the common
// forms of a dialogue. Tools and what else a template may do are not translated.
func translate(jinja string) (dialogue, bool) {
	has := func(marks ...string) bool {
		for _, m := range marks {
			if !strings.Contains(jinja, m) {
				return false
			}
		}
		return true
	}
	const each, end = "{{- range .Messages }}", "{{- end }}"
	switch {
	case has("<|im_start|>", "<|im_end|>", "message"):
		return dialogue{each + "<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n", []string{"<|im_start|>", "<|im_end|>"}}, true
	case has("<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "message"):
		return dialogue{
			each + "<|start_header_id|>{{ .Role }}<|end_header_id|>\n\n{{ .Content }}<|eot_id|>" + end + "<|start_header_id|>assistant<|end_header_id|>\n\n",
			[]string{"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>"},
		}, true
	case has("<start_of_turn>", "<end_of_turn>", "message"):
		return dialogue{
			each + "<start_of_turn>{{ if eq .Role \"assistant\" }}model{{ else }}user{{ end }}\n{{ .Content }}<end_of_turn>\n{{ end }}<start_of_turn>model\n",
			[]string{"<start_of_turn>", "<end_of_turn>"},
		}, true
	}
	return dialogue{}, false
}
