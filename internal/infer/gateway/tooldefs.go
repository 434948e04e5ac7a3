package gateway

import (
	"net/http"

	"enisle/internal/infer/guard"
	"enisle/internal/infer/openai"
)

// toolDefs reads which tools the model may call, in the shapes of the three APIs, and
// what it is told of them.
func (p *parser) toolDefs() error {
	if p.dec.PeekKind() != '[' {
		return p.skip()
	}
	named := func(name string) error {
		if name != "name" || p.dec.PeekKind() != '"' {
			return p.described()
		}
		tool := ""
		if err := p.text(name, &tool); err != nil {
			return err
		}
		if len(p.q.tools) >= maxTools {
			return openai.Errorf(http.StatusBadRequest, "too_many_tools", "there are more than %d tools in the request", maxTools).On("tools")
		}
		p.q.tools = append(p.q.tools, tool)
		if !isReference(tool) {
			return p.describe(tool, true)
		}
		return nil
	}
	return p.array(func() error {
		if p.dec.PeekKind() != '{' {
			return p.skip()
		}
		return p.object(func(name string) error {
			if name == "function" && p.dec.PeekKind() == '{' {
				return p.object(named)
			}
			return named(name)
		})
	})
}

// described takes every text of a value in the definition of a tool, names included:
// descriptions of the tool and of what it is given, and what stands beside them.
func (p *parser) described() error {
	switch p.dec.PeekKind() {
	case '{':
		return p.object(func(name string) error {
			if err := p.describe(name, true); err != nil {
				return err
			}
			return p.described()
		})
	case '[':
		return p.array(p.described)
	case '"':
		text := ""
		if err := p.text("tools", &text); err != nil {
			return err
		}
		return p.describe(text, false)
	}
	return p.skip()
}

// describe takes one text, or name, of the definition of a tool.
func (p *parser) describe(text string, name bool) error {
	q, most := p.q, maxSpans
	if q.descriptions = append(q.descriptions, guard.Description{Text: text, Name: name}); len(text) < shortDescription {
		q.words++
		most = maxToolWords
	}
	if n := len(q.descriptions) - q.words; n > maxSpans || q.words > maxToolWords {
		return openai.Errorf(http.StatusBadRequest, "too_many_tools", "there are more than %d texts in the tools of the request", most).On("tools")
	}
	return nil
}
