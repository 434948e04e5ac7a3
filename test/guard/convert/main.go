// Command convert makes lines for 'enisle guard eval' of files as public sets have
// them: JSON lists of texts, of objects with a prompt, or of lists of texts by name, and
// lines of text.
//
//	go run ./test/guard/convert -label attack -source dan -role user FILE...
package main

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"enisle/internal/infer/guard"
)

func main() {
	s := guard.Sample{}
	flag.StringVar(&s.Label, "label", "", "attack or benign")
	flag.StringVar(&s.Source, "source", "", "name of the set")
	flag.StringVar(&s.Role, "role", "user", "user, tool or retrieved")
	flag.Parse()
	out := json.NewEncoder(os.Stdout)
	for _, name := range flag.Args() {
		texts, err := read(name)
		for i := 0; err == nil && i < len(texts); i++ {
			s.Text = texts[i]
			err = out.Encode(s)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, "convert:", err)
			os.Exit(1)
		}
	}
}

func read(name string) (out []string, err error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, err
	}
	if filepath.Ext(name) == ".txt" {
		for l := range strings.Lines(string(b)) {
			if l = strings.TrimSpace(l); l != "" {
				out = append(out, l)
			}
		}
		return out, nil
	}
	d := json.NewDecoder(strings.NewReader(string(b)))
	for d.More() { // a value, or one a line
		var v any
		if err := d.Decode(&v); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		out = append(out, texts(v)...)
	}
	return out, nil
}

// texts are those in a value; of an object with a prompt or a text, that alone.
func texts(v any) (out []string) {
	switch v := v.(type) {
	case string:
		return []string{v}
	case []any:
		for _, e := range v {
			out = append(out, texts(e)...)
		}
	case map[string]any:
		for _, key := range []string{"text", "prompt", "mutated_prompt", "context"} {
			if s, ok := v[key].(string); ok {
				return []string{s}
			}
		}
		for _, e := range v {
			out = append(out, texts(e)...)
		}
	}
	return out
}
