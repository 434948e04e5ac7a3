// Package record is a proxy that keeps what goes through it: whatever a client or a build
// fetches is what it needs, whichever tool it is and however it resolves.
//
// It opens TLS with an authority that it makes for one run and that only the recorded
// program is told to trust. It passes on what it does not record: what is sent, answers
// other than whole files, errors. It decides nothing about what it keeps.
package record

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Exchange is one file that was fetched whole, or an address that led to one.
type Exchange struct {
	URL  string // without credentials and fragment
	File string // with the content
	Size int64
	Type string // Content-Type
	To   string // the address that it redirected to, in place of a file
}

// Recorder is the proxy. Its methods may be called concurrently.
type Recorder struct {
	dir       string
	transport http.RoundTripper
	ca        *x509.Certificate
	key       *ecdsa.PrivateKey

	mu    sync.Mutex
	leafs map[string]*tls.Certificate // by host; under mu, like the rest
	kept  map[string]Exchange         // by URL
	other []string                    // what went through and is not kept
	files int
}

const (
	life     = 24 * time.Hour
	maxFile  = 1 << 40
	maxOther = 1000
)

// New makes a recorder that keeps files in a directory, and fetches with the settings of
// this process: proxies and authorities of its environment.
func New(dir string) (*Recorder, error) {
	t, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return nil, errors.New("record: the program's way out was replaced")
	}
	t = t.Clone()
	t.DisableCompression = true // what is kept is what was sent
	r := &Recorder{dir: dir, transport: t, leafs: map[string]*tls.Certificate{}, kept: map[string]Exchange{}}
	var err error
	if r.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	template, err := certificate("recorder of one run")
	if err != nil {
		return nil, err
	}
	template.IsCA, template.KeyUsage = true, x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, r.key.Public(), r.key)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	if r.ca, err = x509.ParseCertificate(der); err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	return r, os.WriteFile(r.authority(), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o644)
}

func (r *Recorder) authority() string { return filepath.Join(r.dir, "ca.pem") }

func certificate(name string) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	now := time.Now()
	return &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name}, NotBefore: now.Add(-time.Hour), NotAfter: now.Add(life), BasicConstraintsValid: true,
	}, nil
}

// Env is the environment that makes a program use the proxy at an address, added to that
// of this process.
func (r *Recorder) Env(address string) []string {
	own := map[string]string{}
	for _, name := range []string{"http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"} {
		own[name] = "http://" + address
	}
	own["no_proxy"], own["NO_PROXY"] = "", ""
	for _, name := range []string{
		"SSL_CERT_FILE", "NODE_EXTRA_CA_CERTS", "REQUESTS_CA_BUNDLE", "PIP_CERT", "CURL_CA_BUNDLE", "GIT_SSL_CAINFO", "CARGO_HTTP_CAINFO", "npm_config_cafile",
	} {
		own[name] = r.authority()
	}
	var env []string
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if _, ours := own[name]; !ours && !strings.HasPrefix(name, "ENISLE_") {
			env = append(env, v)
		}
	}
	for name, value := range own {
		env = append(env, name+"="+value)
	}
	slices.Sort(env)
	return env
}

// Serve answers the recorded program until the listener is closed.
func (r *Recorder) Serve(l net.Listener) error {
	srv := &http.Server{Handler: http.HandlerFunc(r.handle), ReadHeaderTimeout: time.Minute}
	if err := srv.Serve(l); !errors.Is(err, net.ErrClosed) {
		return fmt.Errorf("record: %w", err)
	}
	return nil
}

func (r *Recorder) handle(w http.ResponseWriter, req *http.Request) {
	if req.Method != http.MethodConnect {
		r.pass(w, req, "http", req.Host)
		return
	}
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, "no tunnel", http.StatusInternalServerError)
		return
	}
	defer func() { _ = conn.Close() }() // the program may be gone
	if _, err := io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n"); err != nil {
		return
	}
	host := req.Host
	secured := tls.Server(conn, &tls.Config{MinVersion: tls.VersionTLS12, NextProtos: []string{"http/1.1"}, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		return r.leaf(strings.TrimSuffix(host, ":443"))
	}})
	one := &single{conn: secured, done: make(chan struct{})}
	srv := &http.Server{
		ReadHeaderTimeout: time.Minute, Handler: http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) { r.pass(w, req, "https", host) }),
		ConnState: func(_ net.Conn, s http.ConnState) {
			if s == http.StateClosed {
				one.end()
			}
		},
	}
	_ = srv.Serve(one) // ends with the connection
}

// single is a listener of one connection.
type single struct {
	conn net.Conn
	once sync.Once
	stop sync.Once
	done chan struct{}
}

func (s *single) Accept() (c net.Conn, err error) {
	first := false
	s.once.Do(func() { first = true })
	if first {
		return s.conn, nil
	}
	<-s.done
	return nil, net.ErrClosed
}
func (s *single) end()           { s.stop.Do(func() { close(s.done) }) }
func (s *single) Close() error   { s.end(); return nil }
func (s *single) Addr() net.Addr { return s.conn.LocalAddr() }

// leaf is the certificate of a host.
func (r *Recorder) leaf(host string) (*tls.Certificate, error) {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if c := r.leafs[host]; c != nil {
		return c, nil
	}
	t, err := certificate(host)
	if err != nil {
		return nil, err
	}
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
	if ip := net.ParseIP(host); ip != nil {
		t.IPAddresses = []net.IP{ip}
	} else {
		t.DNSNames = []string{host}
	}
	der, err := x509.CreateCertificate(rand.Reader, t, r.ca, r.key.Public(), r.key)
	if err != nil {
		return nil, fmt.Errorf("record: %w", err)
	}
	r.leafs[host] = &tls.Certificate{Certificate: [][]byte{der, r.ca.Raw}, PrivateKey: r.key}
	return r.leafs[host], nil
}

// partly are headers that ask for less than the whole; constant.
var partly = []string{"Range", "If-Range", "If-None-Match", "If-Modified-Since"}

// pass fetches what is asked for, and keeps it if it is a whole file.
func (r *Recorder) pass(w http.ResponseWriter, req *http.Request, scheme, host string) {
	out := req.Clone(req.Context())
	out.RequestURI = ""
	out.URL.Scheme, out.URL.Host = scheme, host
	for _, h := range append([]string{"Proxy-Connection", "Proxy-Authorization", "Connection", "Te", "Upgrade"}, partly...) {
		out.Header.Del(h)
	}
	out.Header.Set("Accept-Encoding", "identity")
	res, err := r.transport.RoundTrip(out)
	if err != nil {
		http.Error(w, "record: "+err.Error(), http.StatusBadGateway)
		return
	}
	defer func() { _ = res.Body.Close() }() // only read from
	for k, v := range res.Header {
		w.Header()[k] = v
	}
	w.Header().Del("Connection")
	address := clean(out.URL)
	if to := res.Header.Get("Location"); req.Method == http.MethodGet && res.StatusCode >= 300 && res.StatusCode < 400 && to != "" {
		if u, err := out.URL.Parse(to); err == nil {
			r.keep(Exchange{URL: address, To: clean(u)})
		}
	}
	w.WriteHeader(res.StatusCode)
	if req.Method != http.MethodGet || res.StatusCode != http.StatusOK || res.Header.Get("Content-Encoding") != "" {
		if res.StatusCode < 300 && req.Method != http.MethodHead {
			r.note(req.Method + " " + address)
		}
		_, _ = io.Copy(w, res.Body) // the program may be gone
		return
	}
	if err := r.file(w, res, address); err != nil {
		r.note("broken: " + address)
		panic(http.ErrAbortHandler) // the program must not take half for the whole
	}
}

// file passes a body on and keeps it, if all of it came and went.
func (r *Recorder) file(w io.Writer, res *http.Response, address string) (err error) {
	r.mu.Lock()
	r.files++
	name := filepath.Join(r.dir, fmt.Sprintf("file-%d", r.files))
	r.mu.Unlock()
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	n, err := io.Copy(io.MultiWriter(f, w), io.LimitReader(res.Body, maxFile))
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(name))
	}
	if res.ContentLength >= 0 && n != res.ContentLength {
		return errors.Join(errors.New("it ended early"), os.Remove(name))
	}
	r.keep(Exchange{URL: address, File: name, Size: n, Type: res.Header.Get("Content-Type")})
	return nil
}

func (r *Recorder) keep(e Exchange) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept[e.URL] = e // what was fetched last stands
}

func (r *Recorder) note(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.other) < maxOther && !slices.Contains(r.other, what) {
		r.other = append(r.other, what)
	}
}

// clean is an address without credentials: a user, a fragment, and a query that signs.
func clean(u *url.URL) string {
	c := *u
	c.User, c.Fragment, c.RawFragment = nil, "", ""
	c.Host = strings.TrimSuffix(strings.ToLower(c.Host), map[string]string{"https": ":443", "http": ":80"}[c.Scheme])
	q := strings.ToLower(c.RawQuery)
	for _, word := range []string{"sign", "token", "credential", "secret", "key", "expires", "policy"} {
		if strings.Contains(q, word) {
			c.RawQuery = ""
		}
	}
	return c.String()
}

// Recorded returns every file that was fetched whole, by address; an address that led to
// one by redirections has its content as well. others are what went through and is not
// kept: what was sent, and what came in parts.
func (r *Recorder) Recorded() (all []Exchange, others []string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for at, e := range r.kept {
		for hops := 0; e.To != "" && hops < 10; hops++ {
			e = r.kept[e.To]
		}
		if e.File != "" {
			all = append(all, Exchange{URL: at, File: e.File, Size: e.Size, Type: e.Type})
		}
	}
	slices.SortFunc(all, func(a, b Exchange) int { return strings.Compare(a.URL, b.URL) })
	return all, slices.Clone(r.other)
}

// Close lets go of connections.
func (r *Recorder) Close(context.Context) {
	if t, ok := r.transport.(*http.Transport); ok {
		t.CloseIdleConnections()
	}
}
