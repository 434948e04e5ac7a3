// Package release defines what a release is: an immutable document that names,
// per request, the approved set of artifacts. Channels point at releases; the
// pointer is kept in the state.
package release

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"enisle/internal/artifact"
)

// Format is the format a release names.
const Format = "enisle-release/1"

// MaxSize is the largest release document that is read, in bytes.
const MaxSize = 16 << 20

// Release lists the sets that are served together. It carries no time, so that
// the same decisions give the same bytes.
type Release struct {
	Format   string    `json:"format"`
	Number   int64     `json:"number"`
	Requests []Request `json:"requests"` // by name
}

// Request is the latest approved set of one request.
type Request struct {
	Name     string          `json:"name"`
	Shipment string          `json:"shipment"` // id, for people
	Header   artifact.Digest `json:"header"`
	Content  artifact.Digest `json:"content"` // digest of the index of its artifacts
}

// With returns the sets of r with that of one request replaced or added. The
// number is the caller's to give.
func (r Release) With(q Request) Release {
	next := Release{Format: Format, Requests: slices.Clone(r.Requests)}
	next.Requests = slices.DeleteFunc(next.Requests, func(old Request) bool { return old.Name == q.Name })
	next.Requests = append(next.Requests, q)
	slices.SortFunc(next.Requests, func(a, b Request) int { return strings.Compare(a.Name, b.Name) })
	return next
}

// Same reports whether both serve the same sets.
func (r Release) Same(o Release) bool { return slices.Equal(r.Requests, o.Requests) }

// Encode returns the bytes of the document; they depend on nothing else.
func (r Release) Encode() ([]byte, error) { return json.Marshal(r) }

// Decode reads what Encode wrote and accepts nothing else.
func Decode(b []byte) (Release, error) {
	var r Release
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("release: %w", err)
	}
	again, err := r.Encode()
	if err != nil {
		return r, fmt.Errorf("release: %w", err)
	}
	if r.Format != Format || !bytes.Equal(again, b) {
		return r, errors.New("release: not in canonical form")
	}
	return r, nil
}
