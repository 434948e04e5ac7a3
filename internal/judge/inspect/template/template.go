// Package template inspects chat templates: those in the files of a tokenizer, and
// for other scanners any that they find.
//
// What reaches beyond the conversation is refused, what people should read is
// shown, and the text is noted, so that an approver sees what changed. Nothing is
// rendered.
package template

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"enisle/internal/judge/inspect"
	"enisle/internal/model/jinja"
	"enisle/internal/model/tree"
)

// Scanner inspects the files that hold chat templates; the zero value works.
type Scanner struct{}

var _ inspect.Scanner = Scanner{}

// New returns the scanner.
func New() Scanner { return Scanner{} }

// Name returns "template".
func (Scanner) Name() string { return "template" }

// Version changes when verdicts may.
func (Scanner) Version() string { return "2" }

const maxFile = 64 << 20 // bytes; a tokenizer's configuration

func base(s inspect.Subject) string { return s.Path[strings.LastIndexAny(s.Path, "/!")+1:] }

// Wants takes files by the names that tokenizers read.
func (Scanner) Wants(s inspect.Subject) bool {
	return slices.Contains([]string{"tokenizer_config.json", "chat_template.json", "chat_template.jinja", "processor_config.json"}, strings.ToLower(base(s))) || isJinja(s) && s.Ref.Kind != "pypi" && s.Ref.Kind != "npm"
}

func isJinja(s inspect.Subject) bool {
	return slices.Contains([]string{".jinja", ".jinja2", ".j2"}, strings.ToLower(path.Ext(s.Path)))
}

// Scan judges every template in the file.
func (Scanner) Scan(_ context.Context, s inspect.Subject, run inspect.Run) error {
	if s.Size > maxFile {
		run.Report("template-syntax", inspect.Refuse, fmt.Sprintf("it has %d bytes", s.Size))
		return nil
	}
	b := make([]byte, s.Size)
	if _, err := io.ReadFull(io.NewSectionReader(s, 0, s.Size), b); err != nil {
		return err
	}
	if isJinja(s) {
		Judge(run, "chat_template", string(b))
		return nil
	}
	doc, err := tree.JSON(bytes.TrimPrefix(b, []byte("\xef\xbb\xbf")))
	if err != nil {
		run.Report("template-syntax", inspect.Refuse, "it is no JSON that all readers read alike: "+err.Error())
		return nil
	}
	if m, ok := doc.(tree.Map); ok {
		judgeJSON(run, m["chat_template"])
	}
	return nil
}

// judgeJSON judges one template, or several with their names.
func judgeJSON(run inspect.Run, v any) {
	bad := func() {
		run.Report("template-syntax", inspect.Refuse, "its chat_template is neither a text nor several with names")
	}
	switch v := v.(type) {
	case nil:
	case string:
		Judge(run, "chat_template", v)
	case []any:
		for _, e := range v {
			m, _ := e.(tree.Map)
			name, _ := m["name"].(string)
			text, ok := m["template"].(string)
			if !ok {
				bad()
				return
			}
			Judge(run, "chat_template."+name, text)
		}
	case tree.Map:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			text, ok := v[name].(string)
			if !ok {
				bad()
				return
			}
			Judge(run, "chat_template."+name, text)
		}
	default:
		bad()
	}
}

// Judge reports what is to be known of one template, and notes its text.
func Judge(run inspect.Run, name, text string) {
	run.Note(inspect.Template, name+"\n"+text)
	for _, c := range jinja.Check(text) {
		sev := inspect.Warn
		if c.Refuse {
			sev = inspect.Refuse
		}
		run.Report(c.Rule, sev, name+": "+c.Detail)
	}
}
