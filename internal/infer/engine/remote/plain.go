package remote

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"strconv"
)

// plain returns an answer of the plain form, that of most, for a fraction of what
// http.ReadResponse takes; nil: it is of another form, or not there yet, and nothing of it
// was taken. Its fields are left out: of an answer with status 200 nobody asks for them.
func (c *conn) plain(r *http.Request) *http.Response {
	if _, err := c.r.Peek(1); err != nil {
		return nil
	}
	b, err := c.r.Peek(c.r.Buffered())
	if err != nil {
		return nil // what is there is there; cannot fail
	}
	n, length := plainHead(b)
	if n == 0 {
		return nil
	}
	if _, err := c.r.Discard(n); err != nil {
		return nil // likewise
	}
	resp := &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: http.NoBody, ContentLength: length, Request: r,
	}
	if length > 0 {
		resp.Body = &sized{c.r, length}
	}
	return resp
}

// plainHead returns how long the head of an answer is and how many bytes follow it; 0: it
// is not all there, or not of the plain form: status 200, lines that end with CRLF, one
// Content-Length in digits, and no field that says in what form the body or the connection
// is, but for "Connection: keep-alive".
func plainHead(b []byte) (n int, length int64) {
	end := bytes.Index(b, []byte("\r\n\r\n"))
	if end < 0 || !bytes.HasPrefix(b, []byte("HTTP/1.1 200 ")) {
		return 0, 0
	}
	n, length = end+len("\r\n\r\n"), -1
	line, rest, _ := bytes.Cut(b[:end+len("\r\n")], []byte("\r\n"))
	if !visible(line) {
		return 0, 0
	}
	for len(rest) > 0 {
		line, rest, _ = bytes.Cut(rest, []byte("\r\n"))
		name, value, ok := bytes.Cut(line, []byte(":"))
		value = bytes.TrimPrefix(value, []byte(" "))
		if !ok || !token(name) || !visible(value) {
			return 0, 0
		}
		switch field := string(bytes.ToLower(name)); {
		case field == "content-length":
			size, err := strconv.ParseInt(string(value), 10, 64)
			if length >= 0 || err != nil || strconv.FormatInt(size, 10) != string(value) || size < 0 {
				return 0, 0
			}
			length = size
		case field == "connection" && !bytes.EqualFold(value, []byte("keep-alive")), field == "transfer-encoding", field == "trailer", field == "upgrade":
			return 0, 0
		}
	}
	if length < 0 {
		return 0, 0
	}
	return n, length
}

// token reports whether a name is in letters, digits and hyphens.
func token(name []byte) bool {
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return len(name) > 0
}

// visible reports whether a text is in visible ASCII, with spaces inside.
func visible(text []byte) bool {
	for _, c := range text {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return len(text) == 0 || text[0] != ' ' && text[len(text)-1] != ' '
}

// sized is a body of which the length is known.
type sized struct {
	from io.Reader
	left int64
}

func (s *sized) Read(p []byte) (int, error) {
	if s.left == 0 {
		return 0, io.EOF
	}
	n, err := s.from.Read(p[:min(int64(len(p)), s.left)])
	s.left -= int64(n)
	switch {
	case s.left == 0:
		return n, io.EOF
	case errors.Is(err, io.EOF):
		return n, io.ErrUnexpectedEOF
	}
	return n, err
}

func (s *sized) Close() error { return nil }
