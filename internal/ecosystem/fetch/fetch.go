// Package fetch is the one way out: the HTTP client that brings what resolvers
// named into a connected site.
//
// It knows nothing of ecosystems, hashes or stores. It resumes by Range, takes
// its proxies from the environment, and gives credentials to the host they are
// for and to no other; neither they nor the query of a URL appear in an error.
// Whoever reads a body checks what it says.
package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"enisle/internal/fail"
)

// Options say how; the zero value works.
type Options struct {
	// CAFiles are PEM files with authorities trusted besides the system's.
	CAFiles []string
	// Credentials are asked for by host; the first that fits is used.
	Credentials []Credential
	// UserAgent is what the client calls itself; empty means "enisle".
	UserAgent string
	// Connect, Header and Idle bound connecting (TLS included), waiting for
	// the answer to begin, and every pause in it; 0 means 30 s, 60 s, 60 s.
	// The whole has no limit: what moves may take its time.
	Connect, Header, Idle time.Duration
	// Retries is how often a request is made again; 0 means 4, less than 0
	// never. The pauses are Pause (0 means 500 ms), doubled each time.
	Retries int
	Pause   time.Duration
	Log     *slog.Logger // nil means discard
}

// Credential is user and password for one host.
type Credential struct {
	Host     string // name with port ("a.example:443"), or without: any port
	User     string
	Password string
	Token    string // sent in place of user and password, as a bearer's
	Plain    bool   // may be sent unencrypted; to loopback addresses always
}

// String keeps the password out of logs.
func (c Credential) String() string { return "credential for " + c.Host }

// GoString is String, for %#v.
func (c Credential) GoString() string { return c.String() }

// Client fetches. It is safe for concurrent use.
type Client struct {
	opt  Options
	http *http.Client

	mu   sync.Mutex
	lent map[space]lent // guarded by mu
}

// StatusError says that the origin answered with a status other than success.
type StatusError struct {
	URL    string // without userinfo and query
	Status int
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s: status %d %s", e.URL, e.Status, http.StatusText(e.Status))
}

// New returns a client. It fails when a CA file cannot be used.
func New(opt Options) (*Client, error) {
	set := func(d *time.Duration, standard time.Duration) {
		if *d == 0 {
			*d = standard
		}
	}
	set(&opt.Connect, 30*time.Second)
	set(&opt.Header, time.Minute)
	set(&opt.Idle, time.Minute)
	set(&opt.Pause, 500*time.Millisecond)
	if opt.Retries == 0 {
		opt.Retries = 4
	}
	if opt.UserAgent == "" {
		opt.UserAgent = "enisle"
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	roots, err := authorities(opt.CAFiles)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{
		Proxy:                  proxy,
		DialContext:            (&net.Dialer{Timeout: opt.Connect, KeepAlive: 30 * time.Second}).DialContext,
		TLSClientConfig:        &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
		TLSHandshakeTimeout:    opt.Connect,
		ResponseHeaderTimeout:  opt.Header,
		IdleConnTimeout:        90 * time.Second,
		MaxIdleConnsPerHost:    8,
		MaxResponseHeaderBytes: 256 << 10,
		ForceAttemptHTTP2:      true,
	}
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{opt: opt, http: &http.Client{Transport: transport, CheckRedirect: stay}, lent: map[space]lent{}}, nil
}

// proxy is http.ProxyFromEnvironment without the proxy's password in errors.
func proxy(req *http.Request) (*url.URL, error) {
	u, err := http.ProxyFromEnvironment(req)
	if err != nil {
		return nil, errProxy
	}
	return u, nil
}

var errProxy = errors.New("the proxy named by the environment is not a URL")

func authorities(files []string) (*x509.CertPool, error) {
	if len(files) == 0 {
		return nil, nil // the system's
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, name := range files {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("certificate authorities: %w", err)
		}
		if !pool.AppendCertsFromPEM(b) {
			return nil, fail.As(fail.Usage, "name a file of PEM certificates", fmt.Errorf("certificate authorities: %s holds none", name))
		}
	}
	return pool, nil
}

// Get returns the body of a URL from offset on. start is where the body
// begins: offset, or 0 when the origin cannot resume or has less than offset
// bytes. total is the size of the whole in bytes, -1 if the origin does not
// say. The caller closes the body; reading it ends with an error when nothing
// came for Options.Idle. Any status but 200 and 206 is a *StatusError.
func (c *Client) Get(ctx context.Context, address string, offset int64) (body io.ReadCloser, start, total int64, err error) {
	header := http.Header{"Accept": {"*/*"}, "Accept-Encoding": {"identity"}}
	if offset > 0 {
		header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
	}
	res, err := c.request(ctx, address, header)
	var status *StatusError
	if offset > 0 && errors.As(err, &status) && status.Status == http.StatusRequestedRangeNotSatisfiable {
		return c.Get(ctx, address, 0)
	}
	if err != nil {
		return nil, 0, -1, err
	}
	if res.StatusCode == http.StatusOK {
		return res.Body, 0, res.ContentLength, nil
	}
	start, total, ok := contentRange(res.Header.Get("Content-Range"))
	if offset > 0 && ok && start == offset {
		return res.Body, start, total, nil
	}
	_ = res.Body.Close() // nothing of it is used
	if offset > 0 {
		return c.Get(ctx, address, 0)
	}
	return nil, 0, -1, fmt.Errorf("%s: answers with a part that was not asked for", Clean(address))
}

// contentRange reads "bytes 5-9/10" and "bytes 5-9/*"; total is -1 for the
// latter.
func contentRange(s string) (start, total int64, ok bool) {
	s, ok = strings.CutPrefix(s, "bytes ")
	span, whole, ok2 := strings.Cut(s, "/")
	first, last, ok3 := strings.Cut(span, "-")
	start, err := strconv.ParseInt(first, 10, 64)
	end, err2 := strconv.ParseInt(last, 10, 64)
	if !ok || !ok2 || !ok3 || err != nil || err2 != nil || start < 0 || end < start {
		return 0, -1, false
	}
	if whole == "*" {
		return start, -1, true
	}
	total, err = strconv.ParseInt(whole, 10, 64)
	// A part that ends before the whole does would pass for the rest.
	return start, total, err == nil && end == total-1
}

// GetJSON returns the body of a URL, at most limit bytes of it after
// decompression; more is an error, and so is a body that stays away or breaks
// off as often as Options.Retries allows. accept is the Accept header.
func (c *Client) GetJSON(ctx context.Context, address, accept string, limit int64) ([]byte, error) {
	b, _, err := c.Document(ctx, address, http.Header{"Accept": {accept}}, limit)
	return b, err
}

// Document is GetJSON with any headers for the request; it returns those of the
// answer.
func (c *Client) Document(ctx context.Context, address string, header http.Header, limit int64) ([]byte, http.Header, error) {
	for try := 0; ; try++ {
		res, err := c.request(ctx, address, header)
		if err != nil {
			return nil, nil, err
		}
		b, err := io.ReadAll(io.LimitReader(res.Body, limit+1))
		err = errors.Join(err, res.Body.Close())
		switch {
		case err == nil && int64(len(b)) > limit:
			return nil, nil, fmt.Errorf("%s: is longer than %d bytes", Clean(address), limit)
		case err == nil && res.StatusCode == http.StatusPartialContent:
			return nil, nil, fmt.Errorf("%s: answers with a part that was not asked for", Clean(address))
		case err == nil:
			return b, res.Header, nil
		case try >= c.opt.Retries || !transient(ctx, err):
			return nil, nil, fmt.Errorf("%s: %w", Clean(address), err)
		}
		if err := c.pause(ctx, try, 0); err != nil {
			return nil, nil, err
		}
	}
}
