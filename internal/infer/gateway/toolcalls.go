package gateway

import (
	"bytes"
	"strings"

	"enisle/internal/infer/guard"
)

// toolCalls gathers the calls of tools in an answer, by where they stand.
type toolCalls map[string]*toolCall

type toolCall struct {
	name      string
	arguments bytes.Buffer
}

func (t toolCalls) add(p piece) {
	if !p.tool && !p.name {
		return
	}
	at := p.lane
	if i := strings.LastIndexByte(at, '.'); i >= 0 {
		at = at[:i]
	}
	// Names and arguments of streamed calls come in events of their own.
	for _, wrap := range []string{".content_block", ".delta", ".item", ".function"} {
		at = strings.TrimSuffix(at, wrap)
	}
	k := t[at]
	if k == nil {
		k = &toolCall{}
		t[at] = k
	}
	// The last events of a call say again what was streamed.
	switch {
	case p.name && k.name != string(p.text):
		k.name += string(p.text)
	case p.tool && !bytes.Equal(k.arguments.Bytes(), p.text):
		k.arguments.Write(p.text)
	}
}

func (t toolCalls) rule(a guard.Answer) string {
	for _, k := range t {
		if why := a.Call(k.name, k.arguments.String()); why != "" {
			return why
		}
	}
	return ""
}
