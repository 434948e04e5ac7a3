package gateway

import (
	"net/http"
	"strings"

	"enisle/internal/infer/guard"
	"enisle/internal/infer/openai"
)

// data passes over a picture, or the like. One that is elsewhere is refused: the engine
// would fetch what a client names, from where the engine is.
func (p *parser) data(name string) error {
	switch p.dec.PeekKind() {
	case '"':
		url := ""
		if err := p.text(name, &url); err != nil {
			return err
		}
		p.q.units += mediaTokens
		return here(name, url)
	case '{':
		return p.object(func(member string) error {
			if member == "url" {
				return p.data(name)
			}
			return p.skip()
		})
	}
	return p.skip()
}

// here refuses the address of what is not in the request.
func here(name, url string) error {
	if scheme, _, _ := strings.Cut(url, ":"); !strings.EqualFold(scheme, "data") {
		return openai.Errorf(http.StatusBadRequest, "not_supported", "nothing is fetched here: send it in the request, as data:…").On(name)
	}
	return nil
}

// source takes the text of a document that stands in the request, in the shape of
// /v1/messages; pictures and the like are data.
func (p *parser) source(from guard.Source) error {
	first, kind := len(p.q.spans), ""
	err := p.object(func(name string) error {
		switch {
		case name == "type" && p.dec.PeekKind() == '"':
			return p.text(name, &kind)
		case name == "url":
			return p.data(name)
		case name == "media_type":
			return p.skip()
		}
		return p.texts(from)
	})
	if kind == "base64" || kind == "url" || kind == "file" {
		for _, s := range p.q.spans[first:] {
			p.q.textBytes -= len(s.Text)
		}
		p.q.spans = p.q.spans[:first]
	}
	return err
}
