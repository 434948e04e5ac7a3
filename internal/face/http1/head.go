package http1

import (
	"bytes"
	"net/http"
	"net/textproto"
	"net/url"
	"strconv"
	"strings"
)

const (
	maxHead   = 4 << 10 // bytes
	maxFields = 64
	maxDigits = 12 // of a length
)

// parse reads the head of a request of the plain form:
//
//   - POST, of a path that begins with a slash, in letters, digits and "/._-", no part of
//     it empty or beginning with a dot, without a query; HTTP/1.1;
//   - lines that end with CRLF, and no CR or LF besides; at most maxFields fields;
//   - names in letters, digits and "-"; after the colon one space or none; values in
//     visible ASCII with single spaces or more inside;
//   - one Host, one Content-Length in digits, no zero before them, and none of the fields
//     that say in what form a body, a connection or an answer is, but for
//     "Connection: keep-alive".
//
// Everything else is not of that form, whatever else it may be.
func parse(head []byte) (r *http.Request, ok bool) {
	text := string(head)
	line, text, ok := strings.Cut(text, "\r\n")
	path, isPost := strings.CutPrefix(line, "POST ")
	path, is11 := strings.CutSuffix(path, " HTTP/1.1")
	if !ok || !isPost || !is11 || !plainPath(path) {
		return nil, false
	}
	h := make(http.Header, 12)
	values := make([]string, 0, 12)
	var host string
	size := int64(-1)
	for n := 0; text != ""; n++ {
		if line, text, ok = strings.Cut(text, "\r\n"); !ok || n == maxFields {
			return nil, false
		}
		name, value, ok := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		if !ok || !plainName(name) || !plainValue(value) {
			return nil, false
		}
		if !canonical(name) {
			name = textproto.CanonicalMIMEHeaderKey(name)
		}
		switch name {
		case "Host":
			if host != "" || !plainHost(value) {
				return nil, false
			}
			host = value
			continue
		case "Content-Length":
			if size >= 0 {
				return nil, false
			}
			if size, ok = plainLength(value); !ok {
				return nil, false
			}
		case "Connection":
			if !strings.EqualFold(value, "keep-alive") {
				return nil, false
			}
		case "Transfer-Encoding", "Te", "Trailer", "Expect", "Upgrade", "Http2-Settings", "Keep-Alive", "Proxy-Connection", "Pragma":
			return nil, false
		}
		if all := h[name]; all != nil {
			h[name] = append(all, value)
			continue
		}
		values = append(values, value)
		h[name] = values[len(values)-1 : len(values) : len(values)]
	}
	if size < 0 || host == "" {
		return nil, false
	}
	return &http.Request{
		Method: http.MethodPost, URL: &url.URL{Path: path}, RequestURI: path, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: h, Host: host, ContentLength: size,
	}, true
}

// headOf returns the length of the head of a request, with the empty line behind it, or
// -1 if its end is not there.
func headOf(b []byte) int {
	i := bytes.Index(b, []byte("\r\n\r\n"))
	if i < 0 {
		return -1
	}
	return i + len("\r\n\r\n")
}

func alphanumeric(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9'
}

func plainPath(s string) bool {
	if s == "" || s[0] != '/' {
		return false
	}
	before := byte(0)
	for i := range len(s) {
		c := s[i]
		if before == '/' && (c == '/' || c == '.') || !alphanumeric(c) && c != '/' && c != '.' && c != '_' && c != '-' {
			return false
		}
		before = c
	}
	return true
}

func plainName(s string) bool {
	for i := range len(s) {
		if !alphanumeric(s[i]) && s[i] != '-' {
			return false
		}
	}
	return s != ""
}

// canonical reports whether a plain name is written as net/http writes it.
func canonical(s string) bool {
	first := true
	for i := range len(s) {
		if c := s[i]; first && c >= 'a' && c <= 'z' || !first && c >= 'A' && c <= 'Z' {
			return false
		}
		first = s[i] == '-'
	}
	return true
}

func plainValue(s string) bool {
	for i := range len(s) {
		if s[i] < ' ' || s[i] > '~' {
			return false
		}
	}
	return s == "" || s[0] != ' ' && s[len(s)-1] != ' '
}

func plainHost(s string) bool {
	for i := range len(s) {
		if !alphanumeric(s[i]) && !strings.ContainsRune(".-:[]", rune(s[i])) {
			return false
		}
	}
	return s != ""
}

func plainLength(s string) (int64, bool) {
	if s == "" || len(s) > maxDigits || len(s) > 1 && s[0] == '0' {
		return 0, false
	}
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return 0, false
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil
}
