package app

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"enisle/internal/crossing"
	"enisle/internal/fail"
	"enisle/internal/site"
	"enisle/internal/site/access"
)

// admission decides who may use what is served. Where nobody is enrolled, everybody
// on this machine may and nobody else.
type admission struct {
	site     *site.Site
	loopback bool

	mu      sync.Mutex
	known   bool         // table is that of version
	version uint32       // of the state
	table   access.Table // guarded by mu
}

type userKey struct{}

// userOf returns the user of a request; without a name where everybody may.
func userOf(ctx context.Context) access.User {
	u, _ := ctx.Value(userKey{}).(access.User)
	return u
}

// unauthorized is an error that clients see as 401.
type unauthorized struct{ error }

func (unauthorized) Unauthorized() bool { return true }
func (e unauthorized) Unwrap() error    { return e.error }

// users returns the table, which is read again when the state has changed.
func (a *admission) users(ctx context.Context) (access.Table, error) {
	version := a.site.State.Version()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known && a.version == version {
		return a.table, nil
	}
	all, err := crossing.Users(ctx, a.site)
	if err != nil {
		return access.Table{}, err
	}
	a.table, a.version, a.known = access.NewTable(all), version, true
	return a.table, nil
}

// Admit finds out who asks, by key or by certificate, and whether they may.
func (a *admission) Admit(r *http.Request, role, channel string) (*http.Request, error) {
	t, err := a.users(r.Context())
	if err != nil {
		return nil, err
	}
	if t.Empty() {
		if a.loopback {
			return r, nil
		}
		return nil, fail.Refuse("enrol users: 'enisle user add NAME'", errors.New("nobody is enrolled at this site"))
	}
	u, err := who(r, t, time.Now())
	if err != nil {
		return nil, err
	}
	if !u.May(role, channel) {
		what := role
		if role == access.Mirror {
			what = "the channel " + channel
		}
		if u.Name == access.Anonymous {
			return nil, unauthorized{fail.Refuse("give a key of this site", fmt.Errorf("a key is needed for %s", what))}
		}
		return nil, fail.Refuse("an officer gives it: 'enisle user add "+u.Name+" --role … --channel …'", fmt.Errorf("%s may not use %s", u.Name, what))
	}
	return r.WithContext(context.WithValue(r.Context(), userKey{}, u)), nil
}

// who returns the user of a request. A credential that is shown must be good, even
// where none is needed.
func who(r *http.Request, t access.Table, now time.Time) (u access.User, err error) {
	key, shown := credential(r)
	switch {
	case shown:
		u, err = t.ByKey(key, now)
	case r.TLS != nil && len(r.TLS.VerifiedChains) > 0:
		u, err = t.Named(r.TLS.VerifiedChains[0][0].Subject.CommonName, now)
	default:
		if u, err = t.Named(access.Anonymous, now); err != nil {
			err = errors.New("a key is needed")
		}
	}
	if err != nil {
		return u, unauthorized{fail.Refuse("give a key of this site as the password, or as a bearer token; an officer makes one: 'enisle user key NAME'", err)}
	}
	return u, nil
}

// credential returns what a request shows, in any of the ways of package clients and
// of those of inference: a bearer token, a password with any name, the bare key as
// cargo sends it, or a header of its own.
func credential(r *http.Request) (key string, shown bool) {
	h := r.Header.Get("Authorization")
	if h == "" {
		key = r.Header.Get("X-Api-Key")
		return key, key != ""
	}
	scheme, rest, two := strings.Cut(h, " ")
	switch {
	case !two:
		return h, true
	case strings.EqualFold(scheme, "bearer"):
		return strings.TrimSpace(rest), true
	case strings.EqualFold(scheme, "basic"):
		b, err := base64.StdEncoding.DecodeString(strings.TrimSpace(rest))
		if err != nil {
			return "", true
		}
		_, password, _ := strings.Cut(string(b), ":")
		return password, true
	}
	return "", true
}

// isLoopback reports whether only this machine reaches an address.
func isLoopback(addr net.Addr) bool {
	tcp, ok := addr.(*net.TCPAddr)
	return ok && tcp.IP.IsLoopback()
}

// clientName is who pulled something, for the record.
func clientName(r *http.Request) string {
	host, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		host = r.RemoteAddr
	}
	if u := userOf(r.Context()); u.Name != "" {
		return u.Name + "@" + host
	}
	return host
}
