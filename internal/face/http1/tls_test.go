package http1

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"
)

// What TLS has to answer while it is read is not held to the deadline of an answer that
// is over.
func TestReadingOfTLSMayWrite(t *testing.T) {
	one, other := net.Pipe()
	_ = other.Close()
	old := time.Unix(1, 0)
	c := &conn{Conn: one, tls: &tls.ConnectionState{}}
	c.toRead.apply = one.SetReadDeadline
	c.toWrite.apply = func(at time.Time) error { old = at; return nil }
	c.toWrite.set = old
	if _, err := c.read(make([]byte, 1)); !errors.Is(err, io.EOF) || !old.IsZero() {
		t.Error(err, old)
	}
}

// Who a client is by its certificate is known in requests of all forms.
func TestCertificatesOfClients(t *testing.T) {
	own := httptest.NewUnstartedServer(nil)
	own.StartTLS() // for its certificate
	own.Close()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	cert := &x509.Certificate{SerialNumber: big.NewInt(7), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	conf := &tls.Config{Certificates: own.TLS.Certificates, MinVersion: tls.VersionTLS12, ClientAuth: tls.RequireAnyClientCert}
	s, at := serveWrapped(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && len(r.TLS.PeerCertificates) == 1 {
			fmt.Fprint(w, r.TLS.PeerCertificates[0].SerialNumber)
		}
	}), ReadHeaderTimeout: time.Second}, func(c net.Conn) net.Conn { return tls.Server(c, conf) })
	client := &tls.Config{InsecureSkipVerify: true, Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}} //nolint:gosec // it is about the other side
	nc := tls.Client(dial(t, at), client)
	in := bufio.NewReader(nc)
	for _, r := range []string{post("/", ""), "GET / HTTP/1.1\r\nHost: h.example\r\n\r\n", post("/", "")} {
		if got := answerOf(t, nc, in, r); got != "7" {
			t.Errorf("%q: %q", r, got)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	for name, what := range map[string]string{"noise": strings.Repeat("\x00\xff", 100), "the preface of HTTP/2": "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"} {
		s, at := serveWrapped(t, &http.Server{Handler: http.HandlerFunc(handler), ReadHeaderTimeout: time.Second}, func(c net.Conn) net.Conn { return tls.Server(c, conf) })
		nc := dial(t, at)
		_, _ = io.WriteString(nc, what)
		if _, err := io.ReadAll(nc); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error(name, err)
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}
