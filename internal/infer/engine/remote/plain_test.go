package remote

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/iotest"
)

var heads = []string{
	"HTTP/1.1 200 OK\r\ndate: Fri, 27 Nov 2026 06:00:00 GMT\r\nserver: uvicorn\r\ncontent-length: 5\r\ncontent-type: application/json\r\n\r\nhello",
	"HTTP/1.1 200 OK\r\nServer: llama.cpp\r\nConnection: Keep-Alive\r\nContent-Length:0\r\n\r\n",
	"HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello",
}

// What is read here is what net/http reads.
func compare(t *testing.T, b []byte) (plain bool) {
	t.Helper()
	n, length := plainHead(b)
	if n == 0 {
		return false
	}
	under := bufio.NewReader(bytes.NewReader(b))
	r, err := http.NewRequest(http.MethodPost, "http://engine/", nil)
	if err != nil {
		t.Fatal(err)
	}
	want, err := http.ReadResponse(under, r)
	if err != nil {
		t.Fatalf("%q: net/http does not read it: %v", b, err)
	}
	if want.StatusCode != http.StatusOK || want.ContentLength != length || want.TransferEncoding != nil || want.Close || want.Trailer != nil || want.Uncompressed {
		t.Fatalf("%q: %d bytes, but %+v", b, length, want)
	}
	body, err := io.ReadAll(want.Body)
	c := &conn{r: bufio.NewReader(iotest.OneByteReader(bytes.NewReader(b[n:])))}
	got, goterr := io.ReadAll(&sized{c.r, length})
	if length == 0 {
		got, goterr = nil, nil
	}
	if !bytes.Equal(got, body) || (err == nil) != (goterr == nil) || err != nil && !errors.Is(goterr, io.ErrUnexpectedEOF) {
		t.Fatalf("%q: the body is %q, %v, want %q, %v", b, got, goterr, body, err)
	}
	rest, _ := io.ReadAll(under)
	if left := b[n+len(got):]; !bytes.Equal(left, rest) {
		t.Fatalf("%q: %q is left, want %q", b, left, rest)
	}
	return true
}

func TestPlainHeads(t *testing.T) {
	for _, h := range heads[:2] {
		if !compare(t, []byte(h)) || !compare(t, []byte(h+"HTTP/1.1 200 OK\r\n\r\n")) {
			t.Errorf("%q is not of the plain form", h)
		}
	}
	const ok = "HTTP/1.1 200 OK\r\n"
	for _, h := range []string{
		"", heads[2], "HTTP/1.1 200 OK\r\n\r\n", "HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", "HTTP/1.1 400 Bad Request\r\nContent-Length: 1\r\n\r\nx", "HTTP/1.1 2000 OK\r\nContent-Length: 1\r\n\r\nx",
		ok + "Content-Length: 1\r\n", ok + "Content-Length: 1\r\nContent-Length: 1\r\n\r\nx", ok + "Content-Length: +1\r\n\r\nx", ok + "Content-Length: 01\r\n\r\nx", ok + "Content-Length:  1\r\n\r\nx",
		ok + "Content-Length: 1, 1\r\n\r\nx", ok + "Content-Length: \r\n\r\nx", ok + "Content-Length : 1\r\n\r\nx", ok + "Content-Length: 1\r\n a: b\r\n\r\nx", ok + "Content-Length: 99999999999999999999\r\n\r\nx",
		ok + "Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n\r\n", ok + "transfer-encoding: chunked\r\nContent-Length: 1\r\n\r\nx", ok + "Content-Length: 1\r\nConnection: close\r\n\r\nx",
		ok + "Content-Length: 1\r\nA: b\nTransfer-Encoding: chunked\r\n\r\nx", ok + "Content-Length: 1\r\nA\r\n\r\nx", ok + "Content-Length: 1\r\n: x\r\n\r\nx", ok + "Content-Length: 1\r\nA: \x80\r\n\r\nx",
	} {
		if compare(t, []byte(h)) {
			t.Errorf("%q is of the plain form", h)
		}
	}
}

func FuzzPlainHead(f *testing.F) {
	for _, h := range heads {
		f.Add([]byte(h))
		f.Add([]byte(strings.ReplaceAll(h, "\r\n", "\n")))
	}
	f.Fuzz(func(t *testing.T, b []byte) { compare(t, b) })
}
