package gateway

import (
	"errors"
	"io"
	"sync/atomic"
)

// room is what all calls together may hold of requests and answers, in bytes: many large
// ones at once do not take the memory of the site.
type room struct {
	limit int64
	used  atomic.Int64
}

// copies is how often the bytes of a request or an answer are held: as they came, as the
// guard reads them, and as they go on.
const copies = 3

var errNoRoom = errors.New("calls hold as much as they may") // constant

// share is the part of one call.
type share struct {
	of *room
	n  int64
}

// take enlarges the share by n bytes that were read.
func (s *share) take(n int) error {
	more := int64(n) * copies
	if s.of.used.Add(more) > s.of.limit {
		s.of.used.Add(-more)
		return errNoRoom
	}
	s.n += more
	return nil
}

// give gives n bytes of it back.
func (s *share) give(n int) {
	s.of.used.Add(-int64(n) * copies)
	s.n -= int64(n) * copies
}

// free gives the share back.
func (s *share) free() { s.of.used.Add(-s.n) }

// counted is a reader whose bytes are part of a share.
type counted struct {
	io.Reader
	s *share
}

func (c counted) Read(b []byte) (int, error) {
	n, err := c.Reader.Read(b)
	if full := c.s.take(n); full != nil {
		return 0, full
	}
	return n, err
}
