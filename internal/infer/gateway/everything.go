package gateway

import (
	"net/http"
	"strings"

	"enisle/internal/infer/guard"
	"enisle/internal/infer/openai"
)

// Some values go into the prompt whatever their members are called, and some members that
// look like names do.

// all takes every text of a value, whatever it is called, and names that are more than that:
// templates write documents, and what they are given, out in full. What an engine might
// fetch is refused as elsewhere.
func (p *parser) all(from guard.Source) error {
	switch p.dec.PeekKind() {
	case '[':
		return p.array(func() error { return p.all(from) })
	case '{':
		return p.object(func(name string) error {
			if err := p.name(from, name); err != nil {
				return err
			}
			switch {
			case name == "uuid" && !p.q.route.generates: // documents of rankings have parts, with pictures
				return p.kept()
			case strings.HasSuffix(name, "_url"):
				return p.address(from, name)
			}
			return p.all(from)
		})
	}
	return p.texts(from)
}

// name takes the name of a member, if it is more than a name.
func (p *parser) name(from guard.Source, name string) error {
	if isReference(name) {
		return nil
	}
	end := int(p.dec.InputOffset())
	return p.addText(from, name, nameBefore(p.q.body, end), end)
}

// isArguments are members with what a tool was called with. Constant.
var isArguments = map[string]bool{"arguments": true, "input": true}

// written takes every text of a value that is written into the prompt as the JSON that it
// is, where no member means anything, and names as all does.
func (p *parser) written(from guard.Source) error {
	switch p.dec.PeekKind() {
	case '[':
		return p.array(func() error { return p.written(from) })
	case '{':
		return p.object(func(name string) error {
			if err := p.name(from, name); err != nil {
				return err
			}
			return p.written(from)
		})
	}
	return p.texts(from)
}

// embeds passes over what became of prompts, each of which is answered beside those that
// are text.
func (p *parser) embeds() error {
	if p.dec.PeekKind() != '[' {
		p.q.embeds = 1
		return p.skip()
	}
	return p.array(func() error { p.q.embeds++; return p.skip() })
}

// another counts a message, or a part of one.
func (p *parser) another() error {
	if p.q.parts++; p.q.parts > maxParts {
		return openai.Errorf(http.StatusBadRequest, "too_many_messages", "there are more than %d messages, and parts of them, in the request", maxParts)
	}
	return nil
}

// address takes an address in what goes into the prompt. As data it is text as well.
func (p *parser) address(from guard.Source, name string) error {
	if p.dec.PeekKind() != '"' {
		return p.data(name)
	}
	first := len(p.q.spans)
	if err := p.texts(from); err != nil {
		return err
	}
	return here(name, p.q.spans[first].Text)
}

// isCall are members that name a call of a tool. Constant.
var isCall = map[string]bool{"id": true, "tool_call_id": true, "tool_use_id": true, "call_id": true}

// reference passes over the name of a call of a tool. Some templates write it into the
// prompt: what is more than a name is text.
func (p *parser) reference(from guard.Source) error {
	if p.dec.PeekKind() != '"' {
		return p.all(from)
	}
	start, name := p.valueStart(), ""
	if err := p.text("id", &name); err != nil || isReference(name) {
		return err
	}
	return p.addText(from, name, start, int(p.dec.InputOffset()))
}

const maxReference = 64 // bytes of the name of a tool or a call that is not read

// isReference reports whether a text is no more than a name.
func isReference(s string) bool {
	return len(s) <= maxReference && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune("_-.:/|", c)
	})
}

// kept notes what the client calls a picture: the engine keeps it by that name, for all.
func (p *parser) kept() error {
	if p.dec.PeekKind() != '"' {
		return p.skip()
	}
	if err := p.another(); err != nil {
		return err
	}
	start, name := p.valueStart(), ""
	if err := p.text("uuid", &name); err != nil {
		return err
	}
	p.q.media = append(p.q.media, field{name, start, start, int(p.dec.InputOffset())})
	return nil
}
