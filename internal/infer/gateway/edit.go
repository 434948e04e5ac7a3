package gateway

import (
	"bytes"
	"encoding/json"
	"slices"
	"strings"
)

// edit is one change of the body: bytes from start to end become with.
type edit struct {
	start, end int
	with       []byte
}

// rewritten returns the body with changes made to it, in any order.
func rewritten(body []byte, edits []edit) []byte {
	if len(edits) == 0 {
		return body
	}
	slices.SortFunc(edits, func(a, b edit) int { return a.start - b.start })
	out := make([]byte, 0, len(body)+256)
	at := 0
	for _, e := range edits {
		if e.start < at {
			continue // inside what was taken out already
		}
		out = append(out, body[at:e.start]...)
		out = append(out, e.with...)
		at = e.end
	}
	return append(out, body[at:]...)
}

// set makes a top-level field have a value, whatever the client put there.
func (q *request) set(name string, value []byte) edit {
	for _, f := range q.fields {
		if f.name == name { // in another case it was refused
			return edit{f.start, f.end, value}
		}
	}
	open := bytes.IndexByte(q.body, '{') + 1 // it has members: the model at least
	return edit{open, open, slices.Concat([]byte(`"`+name+`":`), value, []byte(","))}
}

// drop takes top-level fields out, with the commas that belong to them. The model stays,
// so that the object is never empty.
func (q *request) drop(names []string) (edits []edit) {
	out := func(i int) bool {
		return q.fields[i].name != "model" && slices.ContainsFunc(names, func(n string) bool { return strings.EqualFold(n, q.fields[i].name) })
	}
	for i := 0; i < len(q.fields); i++ {
		if !out(i) {
			continue
		}
		j := i
		for j+1 < len(q.fields) && out(j+1) {
			j++
		}
		if j+1 < len(q.fields) {
			edits = append(edits, edit{q.fields[i].from, q.fields[j+1].from, nil})
		} else {
			edits = append(edits, edit{q.fields[i-1].end, q.fields[j].end, nil})
		}
		i = j
	}
	return edits
}

// countUsage makes the engine count tokens in a stream.
func (q *request) countUsage() edit {
	options := map[string]json.RawMessage{}
	if q.options != nil {
		_ = json.Unmarshal(q.options, &options) // it was read before
	}
	options["include_usage"] = json.RawMessage("true")
	b, err := json.Marshal(options)
	if err != nil {
		b = []byte(`{"include_usage":true}`)
	}
	return q.set("stream_options", b)
}
