package fetch

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func newClient(t *testing.T, opt Options) *Client {
	t.Helper()
	opt.Pause = time.Millisecond
	c, err := New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestItGoesOnAtAnOffsetOrSaysThatItStartsOver(t *testing.T) {
	content := []byte("0123456789")
	for name, tc := range map[string]struct {
		handler http.HandlerFunc
		offset  int64
		start   int64
		body    string
	}{
		"a server with ranges": {func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "f", time.Time{}, bytes.NewReader(content))
		}, 4, 4, "456789"},
		"a server without": {func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write(content) }, 4, 0, "0123456789"},
		"an offset past the end starts over": {func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "f", time.Time{}, bytes.NewReader(content))
		}, 40, 0, "0123456789"},
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(tc.handler)
			defer srv.Close()
			body, start, total, err := newClient(t, Options{}).Get(t.Context(), srv.URL, tc.offset)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(body)
			if err != nil || start != tc.start || string(b) != tc.body || total != int64(len(content)) {
				t.Errorf("got %q from %d of %d, %v", b, start, total, err)
			}
			if err := body.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestAnotherRangeThanAskedForIsAnError(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Range", "bytes 2-9/10")
		w.WriteHeader(http.StatusPartialContent)
	}))
	defer srv.Close()
	if _, _, _, err := newClient(t, Options{}).Get(t.Context(), srv.URL, 4); err == nil {
		t.Error("accepted")
	}
}

func TestPassingFaultsAreTriedAgainAndFinalOnesAreNot(t *testing.T) {
	for name, tc := range map[string]struct{ status, want int }{"unavailable": {503, 5}, "not found": {404, 1}, "forbidden": {403, 1}} {
		t.Run(name, func(t *testing.T) {
			var n atomic.Int32
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { n.Add(1); w.WriteHeader(tc.status) }))
			defer srv.Close()
			_, _, _, err := newClient(t, Options{}).Get(t.Context(), srv.URL, 0)
			var status *StatusError
			if !errors.As(err, &status) || status.Code != tc.status || int(n.Load()) != tc.want {
				t.Errorf("%v after %d requests, want %d", err, n.Load(), tc.want)
			}
		})
	}
}

func TestCredentialsGoOnlyToTheirHostAndAreNotShown(t *testing.T) {
	var leaked string
	other := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { leaked = r.Header.Get("Authorization") }))
	defer other.Close()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, p, _ := r.BasicAuth(); p != "secret" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		http.Redirect(w, r, other.URL+"/x?token=abc", http.StatusFound)
	}))
	defer srv.Close()
	c := newClient(t, Options{Logins: map[string]Login{strings.TrimPrefix(srv.URL, "http://"): {"u", "secret"}}})
	body, _, _, err := c.Get(t.Context(), srv.URL, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = body.Close()
	if leaked != "" {
		t.Errorf("the other host was sent %q", leaked)
	}
	_, _, _, err = newClient(t, Options{}).Get(t.Context(), strings.Replace(srv.URL, "http://", "http://u:wrong@", 1)+"/?token=abc", 0)
	if err == nil || strings.Contains(err.Error(), "wrong") || strings.Contains(err.Error(), "abc") {
		t.Errorf("the error shows a secret: %v", err)
	}
}
