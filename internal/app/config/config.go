// Package config decodes enisle.yaml, the one file people write.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"gopkg.in/yaml.v3"

	"enisle/internal/crossing"
	"enisle/internal/ecosystem"
	"enisle/internal/fail"
)

// maxRequest is the largest request that is read, in bytes.
const maxRequest = 4 << 20

// Read decodes a request. Unknown keys are refused, so that a misspelt one is
// not silently ignored.
func Read(file string) (crossing.Request, error) {
	var r crossing.Request
	b, err := os.ReadFile(file)
	if err != nil {
		return r, fail.As(fail.Usage, "name the request with -f; 'enisle help collect' shows one", fmt.Errorf("request: %w", err))
	}
	if len(b) > maxRequest {
		return r, fail.As(fail.Usage, "split it", fmt.Errorf("request %s: larger than %d bytes", file, maxRequest))
	}
	var doc struct {
		Name   string           `yaml:"name"`
		Target ecosystem.Target `yaml:"target"`
		Bring  map[string][]any `yaml:"bring"`
		Trust  crossing.Trust   `yaml:"trust"`
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&doc); err != nil {
		return r, fail.As(fail.Usage, "'enisle help collect' shows a request", fmt.Errorf("request %s: %w", filepath.Base(file), readable(err)))
	}
	if doc.Name == "" || doc.Bring == nil {
		return r, fail.As(fail.Usage, "'enisle help collect' shows a request", fmt.Errorf("request %s: %w", filepath.Base(file), errors.New("'name' and 'bring' are needed")))
	}
	return crossing.Request{Name: doc.Name, Target: doc.Target, Bring: doc.Bring, Trust: doc.Trust, File: file}, nil
}

var (
	unknownField = regexp.MustCompile(`field (\S+) not found in type .*`)
	wrongType    = regexp.MustCompile(`cannot unmarshal !!(\w+)( .*?)? into (.*)`)
)

// readable says in the words of YAML what the decoder says in those of Go.
func readable(err error) error {
	var te *yaml.TypeError
	if !errors.As(err, &te) {
		return errors.New(strings.TrimPrefix(err.Error(), "yaml: "))
	}
	var lines []string
	for _, l := range te.Errors {
		l = unknownField.ReplaceAllString(l, "'$1' is not known here")
		if m := wrongType.FindStringSubmatch(l); m != nil {
			l = l[:strings.Index(l, m[0])] + "here stands " + kinds[m[1]] + m[2] + ", want " + wanted(m[3])
		}
		lines = append(lines, l)
	}
	return errors.New(strings.Join(lines, "; "))
}

// kinds are YAML's tags in words; constant.
var kinds = map[string]string{"str": "text", "seq": "a list", "map": "a mapping", "int": "a number", "float": "a number", "bool": "true or false", "null": "nothing"}

func wanted(goType string) string {
	switch {
	case strings.HasPrefix(goType, "[]"):
		return "a list"
	case goType == "string":
		return "text"
	}
	return "a mapping"
}
