package fetch

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

func TestATokenIsAskedForOnceAndSentToItsOriginOnly(t *testing.T) {
	var asked atomic.Int32
	var leaked string
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		leaked += r.Header.Get("Authorization")
		_, _ = io.WriteString(w, "blob")
	}))
	defer other.Close()
	var srv *httptest.Server
	srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/token":
			asked.Add(1)
			if user, password, _ := r.BasicAuth(); user != "u" || password != "p" || r.URL.Query().Get("scope") != "a:b,c" {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			_, _ = io.WriteString(w, `{"access_token":"abc"}`)
		case r.Header.Get("Authorization") != "Bearer abc":
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="s",scope="a:b,c"`, srv.URL))
			w.WriteHeader(http.StatusUnauthorized)
		default:
			http.Redirect(w, r, other.URL, http.StatusTemporaryRedirect)
		}
	}))
	defer srv.Close()
	c := newClient(t, Options{Credentials: []Credential{{Host: strings.TrimPrefix(srv.URL, "http://"), User: "u", Password: "p"}}})
	for range 3 {
		b, _, err := c.Document(t.Context(), srv.URL+"/v2/x/blobs/1", nil, 100)
		if string(b) != "blob" || err != nil {
			t.Fatalf("got %q, %v", b, err)
		}
	}
	if asked.Load() != 1 || leaked != "" {
		t.Errorf("asked %d times; the other host was sent %q", asked.Load(), leaked)
	}
}

func TestATokenIsNotTakenFromJustAnywhere(t *testing.T) {
	for name, realm := range map[string]string{"no address": "x", "a file": "file:///etc/passwd", "nothing": ""} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("WWW-Authenticate", `Bearer realm="`+realm+`"`)
				w.WriteHeader(http.StatusUnauthorized)
			}))
			defer srv.Close()
			_, _, err := newClient(t, Options{}).Document(t.Context(), srv.URL, nil, 100)
			var status *StatusError
			if err == nil || (realm == "") != errors.As(err, &status) {
				t.Errorf("got %v", err)
			}
		})
	}
}

func TestABearersTokenOfTheOptionsIsSent(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, r.Header.Get("Authorization")) }))
	defer srv.Close()
	c := newClient(t, Options{Credentials: []Credential{{Host: strings.TrimPrefix(srv.URL, "http://"), Token: "abc"}}})
	if b, _, err := c.Document(t.Context(), srv.URL, nil, 100); string(b) != "Bearer abc" || err != nil {
		t.Errorf("sent %q, %v", b, err)
	}
}
