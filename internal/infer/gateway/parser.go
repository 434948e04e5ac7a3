package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"math"
	"net/http"
	"strings"

	"github.com/go-json-experiment/json/jsontext"

	"enisle/internal/infer/guard"
	"enisle/internal/infer/openai"
)

// parser reads one request.
type parser struct {
	dec *jsontext.Decoder
	q   *request
}

func (p *parser) whole() error {
	if p.dec.PeekKind() != '{' {
		if _, err := p.dec.ReadToken(); err != nil {
			return err
		}
		return errors.New("it is not a JSON object")
	}
	if err := p.object(p.member); err != nil {
		return err
	}
	switch _, err := p.dec.ReadToken(); {
	case err == nil:
		return errors.New("something follows the object")
	case !errors.Is(err, io.EOF):
		return err
	}
	return nil
}

// object reads an object and calls member after each name.
func (p *parser) object(member func(name string) error) error {
	if _, err := p.dec.ReadToken(); err != nil {
		return err
	}
	if p.dec.StackDepth() > maxDepth {
		return errors.New("it is nested too deeply")
	}
	for p.dec.PeekKind() != '}' {
		t, err := p.dec.ReadToken()
		if err != nil {
			return err
		}
		if err := member(t.String()); err != nil {
			return err
		}
	}
	_, err := p.dec.ReadToken()
	return err
}

// array reads an array and calls element before each one.
func (p *parser) array(element func() error) error {
	if _, err := p.dec.ReadToken(); err != nil {
		return err
	}
	if p.dec.StackDepth() > maxDepth {
		return errors.New("it is nested too deeply")
	}
	for p.dec.PeekKind() != ']' {
		if err := element(); err != nil {
			return err
		}
	}
	_, err := p.dec.ReadToken()
	return err
}

// skip reads a value of any kind and looks only at its depth.
func (p *parser) skip() error {
	switch p.dec.PeekKind() {
	case '{':
		return p.object(func(string) error { return p.skip() })
	case '[':
		return p.array(p.skip)
	}
	_, err := p.dec.ReadToken()
	return err
}

// valueStart is where the next value begins.
func (p *parser) valueStart() int {
	at := int(p.dec.InputOffset())
	for at < len(p.q.body) && strings.IndexByte(" \t\r\n:,", p.q.body[at]) >= 0 {
		at++
	}
	return at
}

// member reads one top-level field.
func (p *parser) member(name string) (err error) {
	q := p.q
	f := field{name: name, start: p.valueStart()}
	f.from = nameBefore(q.body, int(p.dec.InputOffset()))
	if err := otherCase(name, known); err != nil {
		return err
	}
	if len(q.fields) >= maxFields {
		return openai.Errorf(http.StatusBadRequest, "too_many_fields", "there are more than %d fields in the request", maxFields)
	}
	switch {
	case name == "model":
		err = p.text(name, &q.model)
	case name == "stream":
		err = p.flag(name, &q.stream)
	case name == "n" || name == "n_cmpl" || name == "best_of": // n_cmpl and n_predict are of llama.cpp's server
		err = p.most(name, &q.choices)
	case name == "max_tokens" || name == "max_completion_tokens" || name == "max_output_tokens" || name == "n_predict":
		err = p.bound(name)
	case name == "stream_options":
		err = p.streamOptions()
	case name == "background" || name == "previous_response_id" || name == "conversation" || name == "previous_input_messages":
		// The engine would answer where nobody reads it, or take as said what is not here.
		if k := p.dec.PeekKind(); k != 'n' && k != 'f' {
			return openai.Errorf(http.StatusBadRequest, "not_supported", "%s is not supported: send all of the conversation, and stay for the answer", name).On(name)
		}
		err = p.skip()
	case name == "messages" || name == "input":
		err = p.turns()
	case name == "prompt":
		err = p.prompt()
	case name == "prompt_embeds":
		q.unread = p.dec.PeekKind() != 'n'
		err = p.embeds()
	case name == "suffix" || name == "query" || name == "tool_prompt" || name == "guideline": // the last two of TGI
		err = p.texts(guard.User)
	case name == "chat_template_kwargs":
		err = p.all(guard.User)
	case name == "system" || name == "instructions":
		err = p.texts(guard.System)
	case name == "documents":
		err = p.all(guard.Retrieved)
	case name == "tools":
		err = p.toolDefs()
		q.textBytes += int(p.dec.InputOffset()) - f.start // templates write all of it
	case name == "content": // of /tokenize
		err = p.texts(guard.User)
	case name == "tokens": // of /detokenize
		err = p.skip()
		q.units += (int(p.dec.InputOffset()) - f.start) / 2
	default:
		err = p.skip()
	}
	f.end = int(p.dec.InputOffset())
	q.fields = append(q.fields, f)
	return err
}

// nameBefore is where the string begins that ends at an offset.
func nameBefore(b []byte, end int) int {
	for i := end - 2; i >= 0; i-- {
		if b[i] != '"' {
			continue
		}
		n := 0
		for j := i - 1; j >= 0 && b[j] == '\\'; j-- {
			n++
		}
		if n%2 == 0 {
			return i
		}
	}
	return 0
}

func wrongType(name string) error {
	return openai.Errorf(http.StatusBadRequest, "invalid_type", "%s has the wrong type", name).On(name)
}

func (p *parser) text(name string, into *string) error {
	t, err := p.dec.ReadToken()
	if err == nil && t.Kind() != '"' {
		return wrongType(name)
	}
	if err == nil {
		*into = t.String()
	}
	return err
}

func (p *parser) flag(name string, into *bool) error {
	t, err := p.dec.ReadToken()
	if err != nil {
		return err
	}
	switch t.Kind() {
	case 't', 'f':
		*into = t.Bool()
	case 'n':
	default:
		return wrongType(name)
	}
	return nil
}

func (p *parser) number(name string, into *int) error {
	t, err := p.dec.ReadToken()
	if err != nil {
		return err
	}
	switch t.Kind() {
	case '0':
		*into = math.MaxInt32
		if f, err := t.Float(); err == nil && f >= 0 && f < math.MaxInt32 {
			*into = int(f)
		}
	case 'n':
	default:
		return wrongType(name)
	}
	return nil
}

// most takes a number that has several names: the greatest counts.
func (p *parser) most(name string, into *int) error {
	n := 0
	err := p.number(name, &n)
	*into = max(*into, n)
	return err
}

// bound takes a bound of the answer. That of nothing, in the field that every engine takes,
// is none to some.
func (p *parser) bound(name string) error {
	n, is := 0, p.dec.PeekKind() == '0'
	err := p.number(name, &n)
	if name == p.q.route.limit && is {
		p.q.limited, p.q.nothing = n > 0, n == 0
	}
	p.q.limit = max(p.q.limit, n)
	return err
}

func (p *parser) streamOptions() error {
	v, err := p.dec.ReadValue()
	if err != nil {
		return err
	}
	if v.Kind() == 'n' {
		return nil
	}
	var o map[string]json.RawMessage // a struct would take names in other capitals
	if len(v) > maxOptions || v.Kind() != '{' || json.Unmarshal(v, &o) != nil {
		return wrongType("stream_options")
	}
	switch string(o["include_usage"]) {
	case "", "null", "false":
	case "true":
		p.q.wantUsage = true
	default:
		return wrongType("stream_options")
	}
	p.q.options = bytes.Clone(v)
	return nil
}

// add takes the string that was just read.
func (p *parser) add(from guard.Source, t jsontext.Token, start int) error {
	return p.addText(from, t.String(), start, int(p.dec.InputOffset()))
}

func (p *parser) addText(from guard.Source, text string, start, end int) error {
	if len(p.q.spans) >= maxSpans {
		return openai.Errorf(http.StatusBadRequest, "too_many_messages", "there are more than %d texts in the request", maxSpans)
	}
	p.q.textBytes += len(text)
	p.q.spans = append(p.q.spans, span{guard.Span{Source: from, Text: text}, start, end})
	return nil
}

// texts takes every text of a value: a string, or what is in parts of it.
func (p *parser) texts(from guard.Source) error {
	switch p.dec.PeekKind() {
	case '"':
		start := p.valueStart()
		t, err := p.dec.ReadToken()
		if err != nil {
			return err
		}
		return p.add(from, t, start)
	case '[':
		return p.array(func() error { return p.texts(from) })
	case '{':
		return p.part(from)
	}
	return p.skip()
}

// prompt takes the prompt of a completion: a text, texts that are answered one by one,
// or tokens, which nobody here can read.
func (p *parser) prompt() error {
	if p.dec.PeekKind() != '[' {
		return p.texts(guard.User)
	}
	return p.array(func() error {
		switch p.dec.PeekKind() {
		case '0':
			return p.token()
		case '[':
			p.q.prompts++
			return p.prompt()
		}
		p.q.prompts++
		return p.texts(guard.User)
	})
}

// known are the names that mean something here. Constant.
var known = []string{
	"model", "stream", "n", "n_cmpl", "best_of", "n_predict", "max_tokens", "max_completion_tokens", "max_output_tokens", "stream_options", "background", "previous_response_id",
	"conversation", "previous_input_messages", "messages", "input", "prompt", "prompt_embeds", "suffix", "query", "system", "instructions", "documents", "tools", "chat_template_kwargs", "tool_prompt", "guideline", "content", "tokens", "cache_salt", "cache_prompt",
}

// ofTurn are those in a message. Constant.
var ofTurn = []string{"role", "type", "content"}

// otherCase refuses a name that some engines take for another one: to encoding/json of
// Go, "MODEL" is "model".
func otherCase(name string, known []string) error {
	if isLower(name) {
		return nil
	}
	for _, k := range known {
		if name != k && strings.EqualFold(name, k) {
			return openai.Errorf(http.StatusBadRequest, "invalid_value", "%.80q is not %s", name, k).On(k)
		}
	}
	return nil
}

// notText are members of parts that hold no text to read: types, references and encoded
// data, which no engine writes into a prompt. Constant.
var notText = map[string]bool{
	"type": true, "role": true, "image_url": true, "url": true,
	"data": true, "input_audio": true, "media_type": true, "source": true, "detail": true, "cache_control": true, "file_id": true, "signature": true,
}

// part takes the texts of one part of a message. What tools returned, and documents,
// say what they are by their type.
func (p *parser) part(from guard.Source) error {
	first := len(p.q.spans)
	if err := p.another(); err != nil {
		return err
	}
	err := p.object(func(name string) error {
		if name == "type" {
			kind := ""
			if p.dec.PeekKind() != '"' {
				return p.skip()
			}
			if err := p.text(name, &kind); err != nil {
				return err
			}
			switch kind {
			case "document", "search_result", "file":
				from = guard.Retrieved
			default:
				if strings.HasSuffix(kind, "tool_result") || strings.HasSuffix(kind, "_call_output") {
					from = guard.Tool
				}
			}
			return nil
		}
		switch {
		case strings.HasSuffix(name, "_url"):
			return p.data(name)
		case name == "source" && p.dec.PeekKind() == '{':
			return p.source(from)
		case name == "uuid":
			return p.kept()
		case isCall[name]:
			return p.reference(from)
		case notText[name]:
			return p.skip()
		case isArguments[name]:
			return p.written(from)
		}
		return p.texts(from)
	})
	for i := first; i < len(p.q.spans); i++ {
		p.q.spans[i].Source = max(p.q.spans[i].Source, from)
	}
	return err
}

// turns reads the messages of a conversation, or the input of the other APIs.
func (p *parser) turns() error {
	if p.dec.PeekKind() != '[' {
		return p.texts(guard.User)
	}
	return p.array(func() error {
		switch p.dec.PeekKind() {
		case '{':
			return p.turn()
		case '0':
			return p.token()
		case '[':
			return p.prompt()
		}
		return p.texts(guard.User)
	})
}

// token passes over a token, which nobody here can read.
func (p *parser) token() error {
	p.q.unread = true
	p.q.units++
	return p.skip()
}

// turn reads one message. Its role may stand behind its content.
func (p *parser) turn() error {
	first, role := len(p.q.spans), ""
	if err := p.another(); err != nil {
		return err
	}
	p.q.units += turnTokens
	if err := p.object(func(name string) error {
		if err := otherCase(name, ofTurn); err != nil {
			return err
		}
		switch {
		case name == "role" && p.dec.PeekKind() == '"':
			if err := p.text(name, &role); err != nil {
				return err
			}
			if !isRole(role) { // it is written into the prompt as it is
				return openai.Errorf(http.StatusBadRequest, "invalid_value", "%.80q is not a role", role).On(name)
			}
			return nil
		case name == "type" && p.dec.PeekKind() == '"':
			kind := ""
			err := p.text(name, &kind)
			if strings.HasSuffix(kind, "_call_output") {
				role = "tool"
			}
			return err
		case strings.HasSuffix(name, "_url"):
			return p.data(name)
		case isCall[name]:
			return p.reference(guard.System)
		case notText[name]:
			return p.skip()
		case isArguments[name]:
			return p.written(guard.System)
		}
		return p.texts(guard.System)
	}); err != nil {
		return err
	}
	from := guard.User
	switch role {
	case "system", "developer":
		from = guard.System
	case "assistant":
		from = guard.Assistant
	case "tool", "function":
		from = guard.Tool
	}
	for i := first; i < len(p.q.spans); i++ {
		p.q.spans[i].Source = max(p.q.spans[i].Source, from)
	}
	return nil
}

// isLower reports whether a name has no letters that some other case has, or that fold
// to such.
func isLower(s string) bool {
	for _, c := range []byte(s) {
		if c >= 0x80 || c >= 'A' && c <= 'Z' {
			return false
		}
	}
	return true
}

// isRole reports whether a text has the form of a role: one word.
func isRole(s string) bool {
	for _, c := range []byte(s) {
		if (c < 'a' || c > 'z') && c != '_' {
			return false
		}
	}
	return len(s) > 0 && len(s) <= 24
}
