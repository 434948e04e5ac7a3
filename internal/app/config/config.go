// Package config decodes enisle.yaml, the one file people write.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"

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
	}
	d := yaml.NewDecoder(bytes.NewReader(b))
	d.KnownFields(true)
	if err := d.Decode(&doc); err != nil {
		return r, fail.As(fail.Usage, "'enisle help collect' shows a request", fmt.Errorf("request %s: %w", filepath.Base(file), err))
	}
	if doc.Name == "" || len(doc.Bring) == 0 {
		return r, fail.As(fail.Usage, "'enisle help collect' shows a request", fmt.Errorf("request %s: %w", filepath.Base(file), errors.New("'name' and 'bring' are needed")))
	}
	return crossing.Request{Name: doc.Name, Target: doc.Target, Bring: doc.Bring, File: file}, nil
}
