package gateway

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"github.com/go-json-experiment/json/jsontext"

	"enisle/internal/infer/openai"
)

// decoders are used again, since most of what they read is small.
type decoders struct {
	jsontext.Decoder
	buf bytes.Buffer
}

// pool keeps them; constant but for what it is for.
var pool = sync.Pool{New: func() any { return new(decoders) }}

// decoder returns one that reads b, until done is called.
func decoder(b []byte, opts ...jsontext.Options) (d *jsontext.Decoder, done func()) {
	p := pool.Get().(*decoders) //nolint:forcetypeassert // the pool holds nothing else
	p.buf = *bytes.NewBuffer(b) // a buffer is read in place
	p.Reset(&p.buf, opts...)
	return &p.Decoder, func() { p.buf = bytes.Buffer{}; pool.Put(p) }
}

// An answer is read for the guard in every shape of the API by the same rule: every
// string in it is text of the model, but for those whose names say that they are not.
// What a new API adds is read before anybody here has heard of it.

// piece is a text that was found in an answer or in one event of it.
type piece struct {
	lane       string // what it belongs to, with the indexes of choices and blocks
	text       []byte
	tool       bool // arguments of a call
	name       bool // of a tool
	start, end int  // of the string in the JSON
	plain      bool // the string stands there as it is, without escapes
}

// noText are the names of members that hold no text of the model. Constant.
var noText = map[string]bool{
	"id": true, "object": true, "model": true, "created": true, "type": true, "role": true, "finish_reason": true, "stop_reason": true,
	"system_fingerprint": true, "service_tier": true, "item_id": true, "status": true, "event": true, "call_id": true, "tool_call_id": true,
	"usage": true, "encrypted_content": true, "signature": true, "stop_sequence": true, "tools": true, "tool_choice": true,
	"instructions": true, "embedding": true, "encoding_format": true, "metadata": true, "previous_response_id": true, "prompt_token_ids": true,
	"prompt_logprobs": true,
}

// head is what an answer says of itself: by which model it is, and its counts, at the
// top or in the message or response that an event is about.
type head struct {
	models [3]string
	usage  *usage
	choice bool // it has choices
	failed bool // it is an error
}

// reader reads answers. It is used by one call at a time.
type reader struct {
	dec    *jsontext.Decoder
	head   head
	pieces []piece // texts of the model
	quiet  bool    // the answer is no text of the model: none are gathered
	data   []byte
}

// read reads one JSON value to its end. What it found is good until the next read.
func (a *reader) read(data []byte) error {
	a.head, a.pieces, a.data = head{}, a.pieces[:0], data
	d, done := decoder(data, jsontext.AllowDuplicateNames(true)) // it goes on as it is
	defer done()
	if a.dec = d; d.PeekKind() != '{' && d.PeekKind() != '[' {
		return errors.New("an answer is not a JSON object")
	}
	if err := a.value("", "", 0); err != nil {
		return err
	}
	if _, err := d.ReadToken(); !errors.Is(err, io.EOF) {
		return errors.Join(errors.New("something follows the answer"), err)
	}
	return nil
}

// levelOf says where an object stands that may say by which model it is; -1: it may not.
func levelOf(path string) int {
	switch path {
	case "":
		return 0
	case ".message":
		return 1
	case ".response":
		return 2
	}
	return -1
}

// about reads a member that says something of the answer, if it is one.
func (a *reader) about(level int, key string, kind jsontext.Kind) (is bool, err error) {
	switch {
	case level < 0:
		return false, nil
	case key == "model" && kind == '"':
		t, err := a.dec.ReadToken()
		if err == nil {
			a.head.models[level] = t.String()
		}
		return true, err
	case key == "usage" && kind == '{':
		a.head.usage = &usage{}
		return true, a.counts(a.head.usage)
	}
	return false, nil
}

// counts reads how many tokens there were, in any of the three APIs.
func (a *reader) counts(u *usage) error {
	if _, err := a.dec.ReadToken(); err != nil {
		return err
	}
	for a.dec.PeekKind() != '}' {
		t, err := a.dec.ReadToken()
		if err != nil {
			return err
		}
		into := u.field(t.String())
		if into == nil || a.dec.PeekKind() != '0' {
			if err := a.dec.SkipValue(); err != nil {
				return err
			}
			continue
		}
		if t, err = a.dec.ReadToken(); err != nil {
			return err
		}
		if n, err := t.Int(); err == nil {
			*into = int(max(min(n, maxReserved), 0))
		}
	}
	_, err := a.dec.ReadToken()
	return err
}

func (a *reader) value(path, key string, depth int) error {
	if depth > maxDepth {
		return errDeep
	}
	switch a.dec.PeekKind() {
	case '{':
		return a.object(path, depth)
	case '[':
		if _, err := a.dec.ReadToken(); err != nil {
			return err
		}
		for n := 0; a.dec.PeekKind() != ']'; n++ {
			// Elements say their index themselves, where it is not that of their place.
			if err := a.value(path+"["+strconv.Itoa(n)+"]", key, depth+1); err != nil {
				return err
			}
		}
		_, err := a.dec.ReadToken()
		return err
	case '"':
		v, err := a.dec.ReadValue()
		if err != nil {
			return err
		}
		end := int(a.dec.InputOffset())
		p := piece{lane: path, start: end - len(v), end: end, name: key == "name", tool: key == "arguments" || key == "partial_json" || key == "input"}
		if raw := v[1 : len(v)-1]; bytes.IndexByte(raw, '\\') < 0 {
			p.text, p.plain = a.data[p.start+1:p.end-1], true
		} else if p.text, err = jsontext.AppendUnquote(nil, v); err != nil {
			return err
		}
		return a.add(p)
	}
	_, err := a.dec.ReadToken()
	return err
}

func (a *reader) object(path string, depth int) error {
	if _, err := a.dec.ReadToken(); err != nil {
		return err
	}
	first, index, kind, level := len(a.pieces), "", "", levelOf(path)
	for a.dec.PeekKind() != '}' {
		t, err := a.dec.ReadToken()
		if err != nil {
			return err
		}
		key, k := t.String(), a.dec.PeekKind()
		if is, err := a.about(level, key, k); is || err != nil {
			if err != nil {
				return err
			}
			continue
		}
		switch {
		case k == '0' && (key == "index" || key == "output_index" || key == "content_index"):
			n, err := a.dec.ReadToken()
			if err != nil {
				return err
			}
			index += "[" + n.String() + "]" // as a place that is not said
		case k == '"' && key == "type":
			v, err := a.dec.ReadToken()
			if err != nil {
				return err
			}
			kind = v.String()
		case key == "logprobs":
			if err := a.tokens(path+".logprobs", key, depth+1); err != nil {
				return err
			}
		case noText[key]:
			if err := a.dec.SkipValue(); err != nil {
				return err
			}
		case k == '{' && (key == "input" || key == "arguments"): // of a tool, as an object
			v, err := a.dec.ReadValue()
			if err != nil {
				return err
			}
			if err := a.add(piece{lane: path + "." + key, text: bytes.Clone(v), tool: true}); err != nil {
				return err
			}
		default:
			start := int(a.dec.InputOffset())
			if err := a.value(path+"."+key, key, depth+1); err != nil {
				return err
			}
			if level == 0 {
				a.head.choice = a.head.choice || key == "choices" && k == '[' && bytes.IndexByte(a.data[start:a.dec.InputOffset()], '{') > 0
				a.head.failed = a.head.failed || key == "error" && k != 'n'
			}
		}
	}
	for i := first; i < len(a.pieces); i++ {
		p := &a.pieces[i]
		if index != "" { // the place in the list says nothing
			p.lane = strings.Replace(p.lane, path, trimPlace(path)+index, 1)
		}
		if strings.Contains(kind, "_call_arguments") || strings.Contains(kind, "_call_input") {
			p.tool = true
		}
	}
	_, err := a.dec.ReadToken()
	return err
}

// add takes a text.
func (a *reader) add(p piece) error {
	if a.quiet {
		return nil
	}
	if len(a.pieces) >= maxTexts {
		return errTexts
	}
	a.pieces = append(a.pieces, p)
	return nil
}

// tokens reads the tokens that were chosen as one text. They may run ahead of the text
// that is made of them: an engine keeps back what may begin a stop sequence.
func (a *reader) tokens(lane, key string, depth int) error {
	if depth > maxDepth {
		return errDeep
	}
	switch k := a.dec.PeekKind(); {
	case k == '[' && (key == "logprobs" || key == "content" || key == "refusal" || key == "tokens"):
		if _, err := a.dec.ReadToken(); err != nil {
			return err
		}
		for a.dec.PeekKind() != ']' {
			if err := a.tokens(lane, key, depth+1); err != nil {
				return err
			}
		}
		_, err := a.dec.ReadToken()
		return err
	case k == '{' && key != "top_logprobs":
		if _, err := a.dec.ReadToken(); err != nil {
			return err
		}
		for a.dec.PeekKind() != '}' {
			t, err := a.dec.ReadToken()
			if err != nil {
				return err
			}
			if err := a.tokens(lane, t.String(), depth+1); err != nil {
				return err
			}
		}
		_, err := a.dec.ReadToken()
		return err
	case k == '"' && (key == "token" || key == "tokens"):
		t, err := a.dec.ReadToken()
		if err == nil {
			err = a.add(piece{lane: lane, text: []byte(t.String())})
		}
		return err
	}
	return a.dec.SkipValue()
}

// trimPlace takes the place in a list off a path.
func trimPlace(path string) string {
	if i := strings.LastIndexByte(path, '['); i >= 0 && strings.HasSuffix(path, "]") {
		return path[:i]
	}
	return path
}

// template is an event that was read in full, around its one text. An event with the
// same bytes around another text without quotes and escapes is read at a glance.
type template struct {
	before, after []byte
	lane          string
}

// glance returns the text of an event that fits.
func (t *template) glance(data []byte) ([]byte, bool) {
	n := len(data) - len(t.before) - len(t.after)
	if t.before == nil || n < 0 || !bytes.HasPrefix(data, t.before) || !bytes.HasSuffix(data, t.after) {
		return nil, false
	}
	text := data[len(t.before) : len(t.before)+n]
	for _, b := range text {
		if b == '"' || b == '\\' || b < ' ' {
			return nil, false
		}
	}
	return text, true
}

// learn makes a template of an event with one plain text.
func (t *template) learn(data []byte, pieces []piece) {
	t.before = nil
	if len(pieces) != 1 || !pieces[0].plain || pieces[0].tool || pieces[0].name {
		return
	}
	p := pieces[0]
	t.before, t.after, t.lane = bytes.Clone(data[:p.start+1]), bytes.Clone(data[p.end-1:]), p.lane
}

// another refuses an answer by another model than was asked: its weights are not those
// that are on record.
func (c *call) another(models []string) error {
	for _, name := range models {
		if name != "" && name != c.request.model && name != c.as {
			c.g.opt.Log.Warn("an engine answers for another model", "asked", c.as, "answers", name[:min(len(name), maxModelName)])
			c.end.Outcome = Broken
			return openai.Errorf(http.StatusBadGateway, "engine_error", "the engine answers for another model than was asked")
		}
	}
	return nil
}
