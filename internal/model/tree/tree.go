// Package tree reads configurations, JSON and YAML, into plain values, and walks
// them.
//
// It is strict where readers differ: a key that stands twice, text behind the end
// and values nested too deep are errors. YAML is read without its tags, and what
// aliases multiply is bounded.
package tree

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"gopkg.in/yaml.v3"
)

const (
	maxDepth  = 200       // values inside of values
	maxValues = 5_000_000 // of one document
)

// Map is an object: its values by key.
type Map = map[string]any

var (
	errDeep = fmt.Errorf("values nest deeper than %d", maxDepth)
	errMany = fmt.Errorf("it holds more than %d values", maxValues)
)

// Plain returns JSON with zeros in the place of NaN and of infinite numbers, which
// Python writes and reads and JSON does not have.
func Plain(b []byte) []byte {
	if !bytes.Contains(b, []byte("NaN")) && !bytes.Contains(b, []byte("Infinity")) {
		return b
	}
	out := bytes.Clone(b)
	for i, inside := 0, false; i < len(out); i++ {
		switch {
		case out[i] == '"':
			inside = !inside
		case inside && out[i] == '\\':
			i++
		case !inside:
			for _, word := range []string{"NaN", "Infinity"} {
				if bytes.HasPrefix(out[i:], []byte(word)) {
					copy(out[i:], "0"+strings.Repeat(" ", len(word)-1))
				}
			}
		}
	}
	return out
}

// MayHold reports whether JSON may have a key of letters: as it stands there, or with
// letters that are escaped, as honest writers never write them.
func MayHold(b []byte, key string) (plain, escaped bool) {
	for _, e := range []string{`\u004`, `\u005`, `\u006`, `\u007`} {
		escaped = escaped || bytes.Contains(b, []byte(e))
	}
	return bytes.Contains(b, []byte(`"`+key+`"`)), escaped
}

// JSON reads one document, as Python writes it: Map, []any, string, json.Number,
// bool or nil.
func JSON(b []byte) (any, error) {
	if !utf8.Valid(b) {
		return nil, errors.New("it is no UTF-8")
	}
	d := json.NewDecoder(bytes.NewReader(Plain(b)))
	d.UseNumber()
	left := maxValues
	v, err := value(d, 0, &left)
	if err != nil {
		return nil, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, errors.New("text stands behind its end")
	}
	return v, nil
}

func value(d *json.Decoder, depth int, left *int) (any, error) {
	if *left--; *left < 0 {
		return nil, errMany
	}
	if depth > maxDepth {
		return nil, errDeep
	}
	t, err := d.Token()
	if err != nil {
		return nil, err
	}
	switch t {
	case json.Delim('{'):
		m := Map{}
		for d.More() {
			k, err := d.Token()
			if err != nil {
				return nil, err
			}
			key, _ := k.(string)
			if _, ok := m[key]; ok {
				return nil, fmt.Errorf("key %.80q stands twice", key)
			}
			if m[key], err = value(d, depth+1, left); err != nil {
				return nil, err
			}
		}
		_, err = d.Token()
		return m, err
	case json.Delim('['):
		list := []any{}
		for d.More() {
			v, err := value(d, depth+1, left)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		_, err = d.Token()
		return list, err
	}
	return t, nil
}

// YAML reads every document of a stream, scalars as text but for null. tag is told of each tag
// that YAML itself does not have, such as those that make Python construct objects.
func YAML(b []byte, tag func(string)) (docs []any, err error) {
	d := yaml.NewDecoder(bytes.NewReader(b))
	left := maxValues
	for {
		var n yaml.Node
		err := d.Decode(&n)
		if errors.Is(err, io.EOF) {
			return docs, nil
		}
		if err != nil {
			return docs, err
		}
		v, err := node(&n, 0, &left, tag)
		if err != nil {
			return docs, err
		}
		docs = append(docs, v)
	}
}

func node(n *yaml.Node, depth int, left *int, tag func(string)) (any, error) {
	if *left--; *left < 0 {
		return nil, errMany
	}
	if depth > maxDepth {
		return nil, errDeep
	}
	if t := n.ShortTag(); t != "" && !slices.Contains([]string{"!!str", "!!int", "!!float", "!!bool", "!!null", "!!map", "!!seq", "!!timestamp", "!!binary", "!!merge", "!!set", "!!omap"}, t) {
		tag(n.Tag)
	}
	switch n.Kind {
	case yaml.DocumentNode:
		if len(n.Content) != 1 {
			return nil, errors.New("a document without content")
		}
		return node(n.Content[0], depth+1, left, tag)
	case yaml.AliasNode:
		return node(n.Alias, depth+1, left, tag)
	case yaml.SequenceNode:
		list := []any{}
		for _, c := range n.Content {
			v, err := node(c, depth+1, left, tag)
			if err != nil {
				return nil, err
			}
			list = append(list, v)
		}
		return list, nil
	case yaml.MappingNode:
		return mapping(n, depth, left, tag)
	}
	if n.ShortTag() == "!!null" {
		return nil, nil
	}
	return n.Value, nil
}

// mapping reads the pairs; those that are merged in are kept beside the others, as
// the values of their own keys.
func mapping(n *yaml.Node, depth int, left *int, tag func(string)) (any, error) {
	m := Map{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, err := node(n.Content[i], depth+1, left, tag)
		if err != nil {
			return nil, err
		}
		v, err := node(n.Content[i+1], depth+1, left, tag)
		if err != nil {
			return nil, err
		}
		key, ok := k.(string)
		if !ok {
			key = fmt.Sprint(k)
			if len(key) > 1<<10 {
				return nil, errors.New("a key is too long")
			}
		}
		if _, twice := m[key]; twice {
			return nil, fmt.Errorf("key %.80q stands twice", key)
		}
		m[key] = v
	}
	return m, nil
}

// Walk calls see for every object, from the outside to the inside, keys in order.
// path says where it stands, such as config.layers.3; it stops when see is false.
func Walk(v any, see func(path string, m Map) bool) bool { return walk(v, nil, see) }

func walk(v any, path []string, see func(string, Map) bool) bool {
	switch v := v.(type) {
	case Map:
		if !see(strings.Join(path, "."), v) {
			return false
		}
		keys := make([]string, 0, len(v))
		for k := range v {
			keys = append(keys, k)
		}
		slices.Sort(keys)
		for _, k := range keys {
			if !walk(v[k], append(path, k), see) {
				return false
			}
		}
	case []any:
		for i, e := range v {
			if !walk(e, append(path, fmt.Sprint(i)), see) {
				return false
			}
		}
	}
	return true
}
