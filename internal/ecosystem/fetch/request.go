package fetch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// maxRedirects is how many redirects are followed for one request; what
// browsers and pip allow is 20 to 30, and no origin seen needs more than 3.
const maxRedirects = 10

// maxPause bounds the pause before a request is made again, also when the
// origin asks for more.
const maxPause = 30 * time.Second

// Clean returns a URL without userinfo, query and fragment, fit for errors and
// for records. What does not parse comes to "(not a URL)".
func Clean(address string) string {
	u, err := url.Parse(address)
	if err != nil || u.Opaque != "" {
		return "(not a URL)"
	}
	return (&url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}).String()
}

// request makes a GET until it succeeds with 200 or 206, the origin says no,
// or the retries are used up. The body of the result watches for silence.
func (c *Client) request(ctx context.Context, address string, header http.Header) (*http.Response, error) {
	u, err := url.Parse(address)
	if err != nil || u.Host == "" {
		return nil, fmt.Errorf("%s: is not an address that can be fetched", Clean(address))
	}
	for try := 0; ; try++ {
		res, wait, err := c.follow(ctx, u, header)
		if err == nil {
			return res, nil
		}
		if try >= c.opt.Retries || !transient(ctx, err) {
			return nil, err
		}
		c.opt.Log.DebugContext(ctx, "fetch again", "url", Clean(address), "try", try+1, "err", err)
		if err := c.pause(ctx, try, wait); err != nil {
			return nil, err
		}
	}
}

// follow makes one request and follows its redirects. wait is how long the
// origin asked to be left alone.
func (c *Client) follow(ctx context.Context, u *url.URL, header http.Header) (_ *http.Response, wait time.Duration, err error) {
	asked := false // for a token
	for range maxRedirects + 1 {
		res, err := c.once(ctx, u, header)
		if err != nil {
			return nil, 0, err
		}
		switch res.StatusCode {
		case http.StatusOK, http.StatusPartialContent:
			return res, 0, nil
		case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
			http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
			_ = res.Body.Close() // nothing of it is used
			if u, err = next(u, res.Header.Get("Location")); err != nil {
				return nil, 0, err
			}
		default:
			_, _ = io.CopyN(io.Discard, res.Body, 4<<10) // so that the connection is kept
			_ = res.Body.Close()
			if res.StatusCode == http.StatusUnauthorized && !asked {
				asked = true
				err := c.borrow(ctx, u, res.Header)
				if err == nil {
					continue
				}
				if !errors.Is(err, errNoChallenge) {
					return nil, 0, err
				}
			}
			return nil, retryAfter(res.Header), &StatusError{Clean(u.String()), res.StatusCode}
		}
	}
	return nil, 0, permanent{fmt.Errorf("%s: redirected more than %d times", Clean(u.String()), maxRedirects)}
}

// next is where a redirect leads; never from https to http.
func next(from *url.URL, location string) (*url.URL, error) {
	to, err := from.Parse(location)
	if err != nil || location == "" || to.Host == "" {
		return nil, permanent{fmt.Errorf("%s: redirects to what is not an address", Clean(from.String()))}
	}
	if from.Scheme == "https" && to.Scheme != "https" {
		return nil, permanent{fmt.Errorf("%s: redirects from https to %s", Clean(from.String()), Clean(to.String()))}
	}
	return to, nil
}

// once makes one request, without what the URL says of a user: the credentials
// are those of the options.
func (c *Client) once(ctx context.Context, u *url.URL, header http.Header) (*http.Response, error) {
	if u.Scheme != "https" && u.Scheme != "http" {
		return nil, permanent{fmt.Errorf("%s: is neither http nor https", Clean(u.String()))}
	}
	plain := *u
	plain.User, plain.Fragment, plain.RawFragment = nil, "", ""
	ctx, cancel := context.WithCancelCause(ctx)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, plain.String(), nil)
	if err != nil {
		cancel(nil)
		return nil, permanent{fmt.Errorf("%s: is not an address that can be fetched", Clean(u.String()))}
	}
	maps.Copy(req.Header, header)
	req.Header.Set("User-Agent", c.opt.UserAgent)
	c.authorise(req, u)
	res, err := c.http.Do(req)
	if err != nil {
		cancel(nil)
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // url.Error prints the query
		}
		return nil, fmt.Errorf("%s: %w", Clean(u.String()), err)
	}
	res.Body = watch(ctx, cancel, res.Body, c.opt.Idle)
	return res, nil
}

// credential returns what the options hold for the host of u, if it may be
// sent there.
func (c *Client) credential(u *url.URL) (Credential, bool) {
	port := u.Port()
	if port == "" {
		port = map[string]string{"https": "443", "http": "80"}[u.Scheme]
	}
	for _, cred := range c.opt.Credentials {
		if cred.Host == u.Hostname() || cred.Host == net.JoinHostPort(u.Hostname(), port) {
			return cred, cred.Plain || u.Scheme == "https" || loopback(u.Hostname())
		}
	}
	return Credential{}, false
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return ip != nil && ip.IsLoopback() || host == "localhost"
}

// permanent marks an error that another try would only meet again.
type permanent struct{ error }

func (p permanent) Unwrap() error { return p.error }

// transient reports whether another try may go better.
func transient(ctx context.Context, err error) bool {
	var (
		no      permanent
		status  *StatusError
		cert    *tls.CertificateVerificationError
		unknown x509.UnknownAuthorityError
		dns     *net.DNSError
	)
	switch {
	case ctx.Err() != nil, errors.As(err, &no), errors.Is(err, errProxy):
		return false
	case errors.As(err, &status):
		return status.Status >= 500 && status.Status != http.StatusNotImplemented ||
			status.Status == http.StatusTooManyRequests || status.Status == http.StatusRequestTimeout
	case errors.As(err, &cert), errors.As(err, &unknown):
		return false
	case errors.As(err, &dns):
		return !dns.IsNotFound
	}
	return true
}

func retryAfter(h http.Header) time.Duration {
	n, err := strconv.Atoi(h.Get("Retry-After"))
	if err != nil || n < 0 {
		return 0
	}
	return min(time.Duration(min(n, 3600))*time.Second, maxPause)
}

// pause waits before another try; the caller's context ends it.
func (c *Client) pause(ctx context.Context, try int, atLeast time.Duration) error {
	t := time.NewTimer(max(atLeast, min(c.opt.Pause<<min(try, 10), maxPause)))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-t.C:
		return nil
	}
}
