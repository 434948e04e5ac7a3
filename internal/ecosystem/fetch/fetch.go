// Package fetch is the outbound HTTP client, the only one there is. It exists
// on low sites.
//
// It uses the proxies of the environment, the certificates and credentials it
// is given, goes on where an earlier download stopped, and trusts nothing it
// receives: hashes are for the caller to check.
package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"enisle/internal/fail"
)

// Login is a user and a password for one host.
type Login struct{ User, Password string }

// Options are the settings of this machine; the zero value uses the system's
// certificates and no credentials.
type Options struct {
	CAFiles []string         // further PEM bundles; those that do not exist are an error
	Logins  map[string]Login // by host, with its port if the URL has one
	Retries int              // of one request; 0 means 4
	Pause   time.Duration    // before the first retry, doubling; 0 means 500 ms
}

// Client fetches. It is safe for concurrent use.
type Client struct {
	http *http.Client
	opt  Options
}

// idle is how long a body may give nothing before the connection is dropped.
const idle = 60 * time.Second

// New returns a client.
func New(opt Options) (*Client, error) {
	if opt.Retries == 0 {
		opt.Retries = 4
	}
	if opt.Pause == 0 {
		opt.Pause = 500 * time.Millisecond
	}
	pool, err := x509.SystemCertPool()
	if err != nil {
		pool = x509.NewCertPool()
	}
	for _, name := range opt.CAFiles {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, fail.As(fail.Usage, "mend the setting that names it", fmt.Errorf("certificates: %w", err))
		}
		pool.AppendCertsFromPEM(b)
	}
	c := &Client{opt: opt}
	c.http = &http.Client{
		Transport: &http.Transport{
			Proxy: http.ProxyFromEnvironment, TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12},
			DialContext:         (&net.Dialer{Timeout: 30 * time.Second}).DialContext,
			TLSHandshakeTimeout: 30 * time.Second, ResponseHeaderTimeout: idle, ForceAttemptHTTP2: true,
			DisableCompression: true, MaxIdleConnsPerHost: 4,
		},
		CheckRedirect: c.redirect,
	}
	return c, nil
}

// redirect follows at most ten redirects, never from HTTPS to HTTP, and gives
// credentials only to the host they belong to.
func (c *Client) redirect(req *http.Request, via []*http.Request) error {
	if len(via) >= 10 {
		return errors.New("more than ten redirects")
	}
	if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
		return errors.New("redirected away from HTTPS")
	}
	req.Header.Del("Authorization")
	c.login(req)
	return nil
}

func (c *Client) login(req *http.Request) {
	if l, ok := c.opt.Logins[req.URL.Host]; ok {
		req.SetBasicAuth(l.User, l.Password)
	}
}

// StatusError is an answer other than the one asked for.
type StatusError struct {
	Code int
	URL  string // without credentials and query
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("%s answered %d %s", e.URL, e.Code, http.StatusText(e.Code))
}

// Get gets the body of a URL from an offset. start is where the body begins: a
// server that cannot resume begins at 0. total is the size of the whole, -1 if
// the server does not say. The caller closes the body.
func (c *Client) Get(ctx context.Context, rawURL string, offset int64) (body io.ReadCloser, start, total int64, err error) {
	resp, err := c.request(ctx, rawURL, "*/*", offset)
	var status *StatusError
	if errors.As(err, &status) && status.Code == http.StatusRequestedRangeNotSatisfiable && offset > 0 {
		resp, err = c.request(ctx, rawURL, "*/*", 0)
	}
	if err != nil {
		return nil, 0, 0, err
	}
	start, total = 0, resp.ContentLength
	if resp.StatusCode == http.StatusPartialContent {
		start, total, err = contentRange(resp.Header.Get("Content-Range"))
		if err != nil || start != offset {
			return nil, 0, 0, errors.Join(fmt.Errorf("%s: answered another range than asked for", Public(rawURL)), err, resp.Body.Close())
		}
	}
	return &idleBody{resp.Body, time.AfterFunc(idle, func() { _ = resp.Body.Close() })}, start, total, nil
}

// idleBody drops a connection that gives nothing for too long.
type idleBody struct {
	io.ReadCloser
	timer *time.Timer
}

func (b *idleBody) Read(p []byte) (int, error) {
	b.timer.Reset(idle)
	return b.ReadCloser.Read(p)
}

func (b *idleBody) Close() error {
	b.timer.Stop()
	return b.ReadCloser.Close()
}

// GetSmall returns a whole body of at most limit bytes and its content type.
func (c *Client) GetSmall(ctx context.Context, rawURL, accept string, limit int64) ([]byte, string, error) {
	resp, err := c.request(ctx, rawURL, accept, 0)
	if err != nil {
		return nil, "", err
	}
	b, err := io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("%s: answer larger than %d bytes", Public(rawURL), limit)
	}
	return b, resp.Header.Get("Content-Type"), errors.Join(err, resp.Body.Close())
}

// request sends until it gets an answer that trying again would not change.
func (c *Client) request(ctx context.Context, rawURL, accept string, offset int64) (*http.Response, error) {
	pause := c.opt.Pause
	for try := 1; ; try++ {
		resp, err := c.once(ctx, rawURL, accept, offset)
		var status *StatusError
		final := errors.As(err, &status) && status.Code < 500 && status.Code != http.StatusTooManyRequests
		if err == nil || final || try > c.opt.Retries || ctx.Err() != nil {
			return resp, err
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
		pause *= 2
	}
}

func (c *Client) once(ctx context.Context, rawURL, accept string, offset int64) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, rawURL, nil)
	if err != nil || req.URL.Scheme != "https" && req.URL.Scheme != "http" {
		return nil, fail.As(fail.Usage, "only http and https are fetched", fmt.Errorf("%s: not a web address", Public(rawURL)))
	}
	if u := req.URL.User; u != nil {
		req.URL.User = nil // net/http would repeat it to every host it is redirected to
		p, _ := u.Password()
		req.SetBasicAuth(u.Username(), p)
	}
	c.login(req)
	req.Header.Set("Accept", accept)
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", "enisle")
	if offset > 0 {
		req.Header.Set("Range", "bytes="+strconv.FormatInt(offset, 10)+"-")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // ue repeats the whole URL, query included
		}
		return nil, fmt.Errorf("%s: %w", Public(rawURL), err)
	}
	if resp.StatusCode == http.StatusOK || offset > 0 && resp.StatusCode == http.StatusPartialContent {
		return resp, nil
	}
	return nil, errors.Join(&StatusError{resp.StatusCode, Public(rawURL)}, resp.Body.Close())
}

// contentRange reads "bytes 5-9/10".
func contentRange(s string) (start, total int64, err error) {
	rest, ok := strings.CutPrefix(s, "bytes ")
	span, size, ok2 := strings.Cut(rest, "/")
	first, _, ok3 := strings.Cut(span, "-")
	if !ok || !ok2 || !ok3 {
		return 0, 0, fmt.Errorf("content range %.60q", s)
	}
	if start, err = strconv.ParseInt(first, 10, 64); err != nil || start < 0 {
		return 0, 0, fmt.Errorf("content range %.60q", s)
	}
	if size == "*" {
		return start, -1, nil
	}
	total, err = strconv.ParseInt(size, 10, 64)
	return start, total, err
}


// Public strips user, query and fragment from a URL, so that it can be kept as
// provenance and shown.
func Public(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return "an address that does not parse"
	}
	u.User, u.RawQuery, u.Fragment = nil, "", ""
	return u.String()
}
