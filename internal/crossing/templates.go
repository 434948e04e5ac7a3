package crossing

import (
	"context"
	"strings"

	"github.com/rogpeppe/go-internal/diff"

	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
	"enisle/internal/site"
)

// TemplateChange is a chat template that is not what the channel serves now.
type TemplateChange struct {
	Artifact string `json:"artifact"`
	File     string `json:"file"`
	Name     string `json:"name"` // key of the template in the file
	New      bool   `json:"new"`  // nothing of that name is served
	Diff     string `json:"diff"` // of lines, a statement each; all of it where it is new
}

// templates compares the chat templates of a report with those that the reports of
// the served release noted, by kind and name of the artifact, whatever its version.
func templates(ctx context.Context, s *site.Site, r inspect.Report, now Served) ([]TemplateChange, error) {
	type key struct{ artifact, file, name string }
	of := func(r inspect.Report) map[key]string {
		out := map[key]string{}
		for _, f := range r.Facts {
			if name, text, ok := strings.Cut(f.Value, "\n"); ok && f.Kind == inspect.Template {
				out[key{unversioned(f.Artifact), f.File, name}] = text
			}
		}
		return out
	}
	served := map[key]string{}
	for _, q := range now.release.Requests {
		row, err := findShipment(ctx, s, q.Shipment)
		if err != nil {
			return nil, err
		}
		old, _, err := currentReport(ctx, s, row)
		if err != nil {
			return nil, err
		}
		for k, text := range of(old) {
			served[k] = text
		}
	}
	var out []TemplateChange
	for _, f := range r.Facts {
		name, text, ok := strings.Cut(f.Value, "\n")
		if !ok || f.Kind != inspect.Template {
			continue
		}
		before, known := served[key{unversioned(f.Artifact), f.File, name}]
		if known && before == text {
			continue
		}
		out = append(out, TemplateChange{f.Artifact, f.File, name, !known, string(diff.Diff("served", lines(before), "arriving", lines(text)))})
	}
	return out, nil
}

func unversioned(ref string) string {
	r, err := artifact.ParseRef(ref)
	if err != nil {
		return ref
	}
	return r.Kind + "/" + r.Name
}

// lines puts each statement of a template on a line, for people to compare.
func lines(template string) []byte {
	if template == "" {
		return nil
	}
	s := strings.ReplaceAll(template, "{%", "\n{%")
	return []byte(strings.TrimPrefix(s, "\n") + "\n")
}
