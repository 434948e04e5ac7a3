package http1

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"reflect"
	"strings"
	"sync"
	"testing"
	"time"
)

// cut is a connection that returns little at a time.
type cut struct {
	*net.TCPConn
	sizes []byte
}

func (c *cut) Read(b []byte) (int, error) {
	if len(c.sizes) > 0 && len(b) > 0 {
		size := int(c.sizes[0])
		c.sizes = c.sizes[1:]
		b = b[:min(len(b), max(size*size/16, 1))]
	}
	return c.TCPConn.Read(b)
}

// journal is what a handler was asked, in its order.
type journal struct {
	mu   sync.Mutex
	seen []string
	cuts []byte // of connections that come
}

func (j *journal) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	entry := fmt.Sprintf("%s %s %s %s %v %d %v %t %q %v", r.Method, r.RequestURI, r.Proto, r.Host, r.Header, r.ContentLength, r.TransferEncoding, r.Close, b, err)
	j.mu.Lock()
	j.seen = append(j.seen, entry)
	j.mu.Unlock()
	if strings.HasSuffix(r.URL.Path, "stream") {
		_, _ = io.WriteString(w, "1")
		_ = http.NewResponseController(w).Flush()
	}
	_, _ = w.Write(b)
}

// ask sends bytes over a connection of its own and returns what was asked by them and what
// was answered.
func (j *journal) ask(t *testing.T, at string, in, cuts []byte) (seen, answers []string) {
	t.Helper()
	j.mu.Lock()
	j.seen, j.cuts = nil, cuts
	j.mu.Unlock()
	nc, err := net.Dial("tcp", at)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = nc.Close() }()
	if err := nc.SetDeadline(time.Now().Add(20 * time.Second)); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, _ = nc.Write(in) // it may be closed before it took all
		_ = nc.(*net.TCPConn).CloseWrite()
	}()
	all, err := io.ReadAll(nc)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("no end of %q", in)
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	for from := bufio.NewReader(bytes.NewReader(all)); ; {
		to := &http.Request{Method: http.MethodGet}
		if i := len(answers); i < len(j.seen) && strings.HasPrefix(j.seen[i], "HEAD ") {
			to.Method = http.MethodHead
		}
		resp, err := http.ReadResponse(from, to)
		if err != nil {
			return j.seen, answers
		}
		if resp.StatusCode == http.StatusContinue {
			continue
		}
		b, err := io.ReadAll(resp.Body)
		resp.Header.Del("Date")
		answers = append(answers, fmt.Sprintf("%s %v %d %v %t %q %v", resp.Status, resp.Header, resp.ContentLength, resp.TransferEncoding, resp.Close, b, err))
	}
}

// parts are what connections are made of.
var parts = []string{
	"POST /a HTTP/1.1\r\nHost: h.example\r\nContent-Length: 3\r\n\r\nabc",
	"POST /stream HTTP/1.1\r\nHost: h.example\r\nContent-Length: 0\r\n\r\n",
	"POST /b HTTP/1.1\r\nHost: h.example\r\nContent-Length: 48\r\n\r\nPOST /inside HTTP/1.1\r\nHost: a\r\nContent-Length: 0",
	"POST /c HTTP/1.1\r\nHost: h.example\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
	"GET /d HTTP/1.1\r\nHost: h.example\r\n\r\n",
	"HEAD /e HTTP/1.1\r\nHost: h.example\r\n\r\n",
	"POST /f HTTP/1.1\r\nHost: h.example\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	"POST /g HTTP/1.1\r\nHost: h.example\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
	"POST /h HTTP/1.1\r\nHost: h.example\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n12345",
	"POST /i HTTP/1.0\r\nContent-Length: 1\r\n\r\nx",
	"POST /j HTTP/1.1\r\nHost: h.example\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx",
	"POST /k HTTP/1.1\nHost: h.example\nContent-Length: 1\n\nx",
	"POST /l?q HTTP/1.1\r\nHost: h.example\r\nContent-Length: 1\r\n\r\nx",
	"POST /m HTTP/1.1\r\nHost: h.example\r\nX: " + strings.Repeat("m", 4000) + "\r\nContent-Length: 1\r\n\r\nx",
	"POST /n HTTP/1.1\r\nHost: h.example\r\nContent-Length: 5000\r\n\r\n" + strings.Repeat("n", 5000),
	"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
	"\r\n", "\n", "\r\n\r\n", "0\r\n\r\n", "x",
}

// Whole connections are read as net/http reads them, and answered in the same way: parts in
// some order, with some bytes put or left out at one place, that come in pieces.
func FuzzConnections(f *testing.F) {
	listen := func(by *journal) (net.Listener, string) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			f.Fatal(err)
		}
		return wrapped{l, func(c net.Conn) net.Conn {
			by.mu.Lock()
			defer by.mu.Unlock()
			return &cut{c.(*net.TCPConn), by.cuts}
		}}, l.Addr().String()
	}
	ours, theirs := &journal{}, &journal{}
	first, here := listen(ours)
	s := New(&http.Server{Handler: ours}, slog.New(slog.DiscardHandler))
	go func() { _ = s.Serve(first) }() // until Close
	second, there := listen(theirs)
	srv := &http.Server{Handler: theirs}  //nolint:gosec // it is asked by this test alone
	go func() { _ = srv.Serve(second) }() // until Close
	f.Cleanup(func() { _, _ = s.Close(), srv.Close() })
	for i := range parts {
		f.Add([]byte{0, byte(i), 0, 2, byte(i), 1}, []byte{}, uint16(0), []byte{}, byte(0))
		f.Add([]byte{1, byte(i), 2}, []byte{40, 5, 1, 1, 30}, uint16(100), []byte("\r\n"), byte(1))
	}
	f.Add([]byte{0, 13, 0}, []byte{}, uint16(strings.Index(parts[0], "3\r\n")), []byte{}, byte(len(parts[0])-strings.Index(parts[0], "3\r\n")+strings.Index(parts[13], "\r\nX:"))) // two lengths, one of them empty
	f.Fuzz(func(t *testing.T, order, cuts []byte, at uint16, put []byte, without byte) {
		var in []byte
		for _, i := range order[:min(len(order), 12)] {
			in = append(in, parts[int(i)%len(parts)]...)
		}
		if len(in) > 0 {
			at := int(at) % len(in)
			in = append(append(append([]byte(nil), in[:at]...), put...), in[min(at+int(without), len(in)):]...)
		}
		seen, answers := ours.ask(t, here, in, cuts)
		want, wanted := theirs.ask(t, there, in, cuts)
		if !reflect.DeepEqual(seen, want) {
			t.Fatalf("%q in pieces %v is read as\n%s\nand by net/http as\n%s", in, cuts, strings.Join(seen, "\n"), strings.Join(want, "\n"))
		}
		// Of the last answers some may be lost, where what follows them is not read.
		n := min(len(answers), len(wanted), max(len(seen)-1, 0))
		if !reflect.DeepEqual(answers[:n], wanted[:n]) {
			t.Fatalf("%q in pieces %v is answered\n%s\nand by net/http\n%s", in, cuts, strings.Join(answers, "\n"), strings.Join(wanted, "\n"))
		}
	})
}
