package http1

import (
	"bufio"
	"bytes"
	"net/http"
	"reflect"
	"strings"
	"testing"
)

const plainRequest = "POST /v1/chat/completions HTTP/1.1\r\nHost: island.example:8443\r\nUser-Agent: x\r\nContent-Type: application/json\r\nAuthorization: Bearer k\r\nX-A: 1\r\nx-a: 2\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n{}"

// The shapes below are net/http's to rule on, whatever it makes of them.
func TestWhatIsNotPlain(t *testing.T) {
	if r, ok := read([]byte(plainRequest)); !ok || r.URL.Path != "/v1/chat/completions" || len(r.Header["X-A"]) != 2 {
		t.Fatal("the plain form is not read")
	}
	with := func(old, replaced string) string { return strings.Replace(plainRequest, old, replaced, 1) }
	for name, in := range map[string]string{
		"another method":      with("POST", "GET"),
		"a method in small":   with("POST", "post"),
		"1.0":                 with("HTTP/1.1", "HTTP/1.0"),
		"1.1 and a bit":       with("HTTP/1.1", "HTTP/1.11"),
		"two spaces":          with("POST ", "POST  "),
		"a tab":               with("POST ", "POST\t"),
		"an empty line first": "\r\n" + plainRequest,
		"a query":             with("completions", "completions?a=b"),
		"a fragment":          with("completions", "completions#a"),
		"escapes":             with("completions", "%2e%2e/x"),
		"dots":                with("completions", "../x"),
		"two slashes":         with("/v1/", "//v1/"),
		"another server":      with("/v1/", "http://a.example/v1/"),
		"no path":             with("/v1/chat/completions", ""),
		"an asterisk":         with("/v1/chat/completions", "*"),
		"LF alone":            strings.ReplaceAll(plainRequest, "\r\n", "\n"),
		"LF in the head":      with("X-A: 1\r\n", "X-A: 1\n"),
		"CR in the head":      with("X-A: 1", "X-A: 1\rX-B: 2"),
		"folded":              with("X-A: 1\r\n", "X-A: 1\r\n more\r\n"),
		"space before colon":  with("X-A: 1", "X-A : 1"),
		"space before name":   with("X-A: 1", " X-A: 1"),
		"no name":             with("X-A: 1", ": 1"),
		"no colon":            with("X-A: 1", "X-A"),
		"an odd name":         with("X-A: 1", "X_A: 1"),
		"a NUL":               with("X-A: 1", "X-A: \x00"),
		"not ASCII":           with("X-A: 1", "X-A: ä"),
		"a tab after":         with("X-A: 1", "X-A: 1\t"),
		"a space after":       with("X-A: 1", "X-A: 1 "),
		"chunked":             with("Content-Length: 2", "Transfer-Encoding: chunked"),
		"both lengths":        with("X-A: 1", "Transfer-Encoding: chunked"),
		"chunked in disguise": with("X-A: 1", "Transfer-Encoding: xchunked"),
		"two lengths":         with("X-A: 1", "Content-Length: 2"),
		"two, one empty":      with("X-A: 1", "Content-Length:"),
		"two, the last empty": with("x-a: 2\r\nConnection: keep-alive\r\nContent-Length: 2", "Content-Length: 2\r\nContent-Length: "),
		"two of them in one":  with("Content-Length: 2", "Content-Length: 2, 2"),
		"a sign":              with("Content-Length: 2", "Content-Length: +2"),
		"hexadecimal":         with("Content-Length: 2", "Content-Length: 0x2"),
		"a zero first":        with("Content-Length: 2", "Content-Length: 02"),
		"nothing of a length": with("Content-Length: 2", "Content-Length:"),
		"a giant length":      with("Content-Length: 2", "Content-Length: 99999999999999999999"),
		"no length":           with("Content-Length: 2\r\n", ""),
		"no host":             with("Host: island.example:8443\r\n", ""),
		"two hosts":           with("X-A: 1", "Host: b.example"),
		"an odd host":         with("island.example", "a@b"),
		"close":               with("keep-alive", "close"),
		"a named field":       with("keep-alive", "X-A"),
		"expect":              with("X-A: 1", "Expect: 100-continue"),
		"upgrade":             with("X-A: 1", "Upgrade: h2c"),
		"trailer":             with("X-A: 1", "Trailer: X-B"),
		"half a head":         plainRequest[:60],
		"many fields":         with("X-A: 1\r\n", strings.Repeat("X-A: 1\r\n", maxFields)),
	} {
		if _, ok := read([]byte(in)); ok {
			t.Errorf("%s is read", name)
		}
	}
}

// read is what a connection does with what it read.
func read(b []byte) (*http.Request, bool) {
	b = b[:min(len(b), maxHead)]
	n := headOf(b)
	if n < 0 {
		return nil, false
	}
	return parse(b[:n-2])
}

// Whatever is read here, net/http reads in the same way.
func FuzzPlain(f *testing.F) {
	f.Add([]byte(plainRequest))
	for _, s := range []string{
		"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
		"POST / HTTP/1.1\r\nhost:a\r\nCONTENT-LENGTH:1\r\ncookie: a=b\r\nCookie: c\r\n\r\nx",
		"POST /a_b/c-d.e/ HTTP/1.1\r\nHost: [::1]:1\r\nContent-Length: 7\r\nX:\r\nY: a  b\r\nConnection: Keep-Alive\r\nConnection: keep-alive\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: \r\nContent-Length: 1\r\n\r\nx",
		"POST /a HTTP/1.1\r\nHost: a\r\nPragma: no-cache\r\nContent-Length: 1\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		got, ok := read(b)
		if !ok {
			return
		}
		in := bufio.NewReader(bytes.NewReader(b))
		want, err := http.ReadRequest(in)
		if err != nil {
			t.Fatalf("net/http refuses %q: %v", b, err)
		}
		type request struct {
			method, path, raw, query, uri, proto, host string
			length                                     int64
			encoded, trailer                           int
			closes                                     bool
			header                                     http.Header
		}
		view := func(r *http.Request) request {
			return request{r.Method, r.URL.Path, r.URL.RawPath, r.URL.RawQuery, r.RequestURI, r.Proto, r.Host, r.ContentLength, len(r.TransferEncoding), len(r.Trailer), r.Close, r.Header}
		}
		if a, b := view(got), view(want); !reflect.DeepEqual(a, b) {
			t.Fatalf("here %+v, in net/http %+v", a, b)
		}
		if n := headOf(b); in.Buffered() != len(b)-n && len(b) < 4096 {
			t.Fatalf("the body begins at %d here, at %d in net/http", n, len(b)-in.Buffered())
		}
	})
}
