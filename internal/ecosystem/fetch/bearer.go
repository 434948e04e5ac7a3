package fetch

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path"
	"regexp"
	"strings"
	"time"
)

// Origins that answer 401 with "Bearer realm=…,service=…,scope=…" name a place
// that gives a token for one of them. A token is asked for once and sent to that
// origin only, for addresses that share all but the last two elements of the path.

// maxToken bounds the answer that holds a token, in bytes.
const maxToken = 1 << 20

// space is where one token is valid.
type space struct{ scheme, host, dir string }

func spaceOf(u *url.URL) space { return space{u.Scheme, u.Host, path.Dir(path.Dir(u.Path))} }

// lent is a token and when it ends.
type lent struct {
	token string
	until time.Time
}

// parameter is one of a challenge: a name and a quoted or plain value; constant.
var parameter = regexp.MustCompile(`([a-zA-Z_]+)=(?:"([^"]*)"|([^\s,"]+))`)

// challenge reads a header for a bearer's token.
func challenge(h http.Header) (realm string, query url.Values, ok bool) {
	query = url.Values{}
	for _, line := range h.Values("Www-Authenticate") {
		kind, rest, _ := strings.Cut(strings.TrimSpace(line), " ")
		if !strings.EqualFold(kind, "Bearer") {
			continue
		}
		for _, m := range parameter.FindAllStringSubmatch(rest, 32) {
			switch name, value := strings.ToLower(m[1]), m[2]+m[3]; name {
			case "realm":
				realm = value
			case "service", "scope":
				query.Set(name, value)
			}
		}
		return realm, query, realm != ""
	}
	return "", nil, false
}

// borrow gets the token that a 401 for u asks for. The credentials of u's host go
// to the realm, if it may be told them.
func (c *Client) borrow(ctx context.Context, u *url.URL, h http.Header) (err error) {
	realm, query, ok := challenge(h)
	if !ok {
		return errNoChallenge
	}
	at, err := url.Parse(realm)
	if err != nil || at.Host == "" || at.Scheme != "https" && (at.Scheme != "http" || u.Scheme == "https") {
		return permanent{fmt.Errorf("%s: asks for a token from what is no safe address", Clean(u.String()))}
	}
	q := at.Query()
	for k, v := range query {
		q[k] = v
	}
	at.RawQuery, at.User, at.Fragment = q.Encode(), nil, ""
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return permanent{fmt.Errorf("%s: asks for a token from what is no address", Clean(u.String()))}
	}
	req.Header.Set("User-Agent", c.opt.UserAgent)
	if cred, ok := c.credential(u); ok && (at.Scheme == "https" || loopback(at.Hostname())) {
		cred.set(req)
	}
	res, err := c.http.Do(req)
	if err != nil {
		var ue *url.Error
		if errors.As(err, &ue) {
			err = ue.Err // url.Error prints the query
		}
		return fmt.Errorf("%s: %w", Clean(at.String()), err)
	}
	defer func() { err = errors.Join(err, res.Body.Close()) }()
	if res.StatusCode != http.StatusOK {
		return &StatusError{Clean(at.String()), res.StatusCode}
	}
	var got struct {
		Token   string `json:"token"`
		Access  string `json:"access_token"` // its name in OAuth 2
		Expires int    `json:"expires_in"`   // seconds
	}
	if err := json.NewDecoder(io.LimitReader(res.Body, maxToken)).Decode(&got); err != nil {
		return fmt.Errorf("%s: answers with no token: %w", Clean(at.String()), err)
	}
	token := got.Token
	if token == "" {
		token = got.Access
	}
	if token == "" || strings.ContainsAny(token, " \r\n") {
		return permanent{fmt.Errorf("%s: answers with no token", Clean(at.String()))}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.lent[spaceOf(u)] = lent{token, time.Now().Add(time.Duration(max(30, min(got.Expires, 3600)-5)) * time.Second)}
	return nil
}

var errNoChallenge = errors.New("no token is asked for")

// authorise adds what is known for the address.
func (c *Client) authorise(req *http.Request, u *url.URL) {
	c.mu.Lock()
	l, ok := c.lent[spaceOf(u)]
	c.mu.Unlock()
	if ok && time.Now().Before(l.until) {
		req.Header.Set("Authorization", "Bearer "+l.token)
		return
	}
	if cred, ok := c.credential(u); ok {
		cred.set(req)
	}
}

func (c Credential) set(req *http.Request) {
	if c.Token != "" {
		req.Header.Set("Authorization", "Bearer "+c.Token)
		return
	}
	req.SetBasicAuth(c.User, c.Password)
}
