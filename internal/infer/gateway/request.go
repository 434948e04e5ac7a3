package gateway

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"

	"enisle/internal/infer/openai"
)

// request is what the gateway needs to know of a chat request, and what of it
// goes on to an engine.
type request struct {
	model     string
	stream    bool
	wantUsage bool
	body      []byte
}

const maxModelName = 256 // bytes

// read decodes a chat request; its errors are *openai.Error. What goes on is
// written anew from what was read, so that the engine can not read it in
// another way.
func (g *gateway) read(w http.ResponseWriter, r *http.Request) (*request, error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, openai.Errorf(http.StatusUnsupportedMediaType, "unsupported_media_type", "send JSON, as application/json")
	}
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, g.opt.MaxBody))
	if err != nil {
		var tooLong *http.MaxBytesError
		if errors.As(err, &tooLong) {
			return nil, openai.Errorf(http.StatusRequestEntityTooLarge, "request_too_large", "the request is longer than %d bytes", tooLong.Limit)
		}
		return nil, openai.Errorf(http.StatusBadRequest, "incomplete_request", "the request was not sent to its end")
	}
	fields, err := object(b)
	if err != nil {
		return nil, openai.Errorf(http.StatusBadRequest, "invalid_json", "the request can not be read: %v", err)
	}
	req := &request{}
	var options struct {
		IncludeUsage bool `json:"include_usage"`
	}
	for name, into := range map[string]any{"model": &req.model, "stream": &req.stream, "stream_options": &options} {
		if raw, ok := fields[name]; ok && json.Unmarshal(raw, into) != nil {
			return nil, openai.Errorf(http.StatusBadRequest, "invalid_type", "%s has the wrong type", name).On(name)
		}
	}
	if req.model == "" || len(req.model) > maxModelName {
		return nil, openai.Errorf(http.StatusBadRequest, "invalid_value", "name a model").On("model")
	}
	if _, ok := fields["messages"]; !ok {
		return nil, openai.Errorf(http.StatusBadRequest, "invalid_value", "there is no message").On("messages")
	}
	req.wantUsage = options.IncludeUsage
	req.body, err = g.onward(fields, req)
	return req, err
}

// onward writes what the engine is given.
func (g *gateway) onward(fields map[string]json.RawMessage, req *request) ([]byte, error) {
	out := map[string]any{"model": req.model}
	for name, raw := range fields {
		if g.forward[name] && !bytes.Equal(raw, []byte("null")) {
			out[name] = raw
		}
	}
	if req.stream { // the counts are always wanted here
		out["stream"], out["stream_options"] = true, map[string]bool{"include_usage": true}
	}
	return json.Marshal(out)
}

// object reads one JSON object and nothing after it, and refuses a name that
// is there twice, since readers differ in which of the two they take.
func object(b []byte) (map[string]json.RawMessage, error) {
	d := json.NewDecoder(bytes.NewReader(b))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return nil, errors.New("it is not a JSON object")
	}
	fields := map[string]json.RawMessage{}
	for d.More() {
		t, err := d.Token()
		if err != nil {
			return nil, err
		}
		name, ok := t.(string)
		if !ok {
			return nil, errors.New("it is not a JSON object")
		}
		if _, twice := fields[name]; twice {
			return nil, errors.New("a field is there twice")
		}
		var raw json.RawMessage
		if err := d.Decode(&raw); err != nil {
			return nil, err
		}
		fields[name] = raw
	}
	if _, err := d.Token(); err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("something follows the object")
	}
	return fields, nil
}
