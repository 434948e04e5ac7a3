// Package template inspects chat templates: those in the files of a tokenizer, and
// for other scanners any that they find.
//
// What reaches beyond the conversation is refused, what people should read is
// shown, and the text is noted, so that an approver sees what changed. Nothing is
// rendered.
package template

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"enisle/internal/judge/inspect"
	"enisle/internal/model/jinja"
)

// Scanner inspects the files that hold chat templates; the zero value works.
type Scanner struct{}

var _ inspect.Scanner = Scanner{}

// New returns the scanner.
func New() Scanner { return Scanner{} }

// Name returns "template".
func (Scanner) Name() string { return "template" }

// Version changes when verdicts may.
func (Scanner) Version() string { return "1" }

const maxFile = 64 << 20 // bytes; a tokenizer's configuration

func base(s inspect.Subject) string { return s.Path[strings.LastIndexAny(s.Path, "/!")+1:] }

// Wants takes files by the names that tokenizers read.
func (Scanner) Wants(s inspect.Subject) bool {
	return slices.Contains([]string{"tokenizer_config.json", "chat_template.json", "chat_template.jinja"}, base(s)) || path.Ext(s.Path) == ".jinja" && s.Ref.Kind != "pypi" && s.Ref.Kind != "npm"
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
	if path.Ext(s.Path) == ".jinja" {
		Judge(run, "chat_template", string(b))
		return nil
	}
	var f struct {
		Template json.RawMessage `json:"chat_template"`
	}
	if err := json.Unmarshal(b, &f); err != nil {
		run.Report("template-syntax", inspect.Refuse, "it is no JSON: "+err.Error())
		return nil
	}
	judgeJSON(run, f.Template)
	return nil
}

// judgeJSON judges one template, or several with their names.
func judgeJSON(run inspect.Run, raw json.RawMessage) {
	if len(raw) == 0 || string(raw) == "null" {
		return
	}
	var one string
	if json.Unmarshal(raw, &one) == nil {
		Judge(run, "chat_template", one)
		return
	}
	var named []struct{ Name, Template string }
	if err := json.Unmarshal(raw, &named); err == nil {
		for _, n := range named {
			Judge(run, "chat_template."+n.Name, n.Template)
		}
		return
	}
	var byName map[string]string
	if err := json.Unmarshal(raw, &byName); err != nil {
		run.Report("template-syntax", inspect.Refuse, "its chat_template is neither a text nor several with names")
		return
	}
	for n, t := range byName {
		Judge(run, "chat_template."+n, t)
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
