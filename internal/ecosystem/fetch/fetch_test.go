package fetch

import (
	"bytes"
	"encoding/pem"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
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

func TestAnotherRangeThanAskedForStartsOver(t *testing.T) {
	for name, contentRange := range map[string]string{
		"from elsewhere":        "bytes 2-9/10",
		"ending before the end": "bytes 4-6/10",
		"without any":           "",
	} {
		t.Run(name, func(t *testing.T) {
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") == "" {
					_, _ = w.Write([]byte("0123456789"))
					return
				}
				w.Header().Set("Content-Range", contentRange)
				w.WriteHeader(http.StatusPartialContent)
			}))
			defer srv.Close()
			body, start, total, err := newClient(t, Options{}).Get(t.Context(), srv.URL, 4)
			if err != nil || start != 0 || total != 10 {
				t.Fatalf("starts at %d of %d, %v", start, total, err)
			}
			_ = body.Close()
		})
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
			if !errors.As(err, &status) || status.Status != tc.status || int(n.Load()) != tc.want {
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
	c := newClient(t, Options{Credentials: []Credential{{Host: strings.TrimPrefix(srv.URL, "http://"), User: "u", Password: "secret"}}})
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

func TestRedirectsAreBoundedAndStayOnHTTPS(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("x")) }))
	defer plain.Close()
	secure := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	defer secure.Close()
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	round := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/again", http.StatusFound)
	}))
	defer round.Close()
	for name, tc := range map[string]struct{ url, want string }{
		"from https to http": {secure.URL, "from https to http"},
		"for ever":           {round.URL, "more than 10"},
	} {
		t.Run(name, func(t *testing.T) {
			_, _, _, err := newClient(t, Options{CAFiles: []string{ca}}).Get(t.Context(), tc.url, 0)
			if err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestAnUnknownAuthorityIsNotTriedAgain(t *testing.T) {
	srv := httptest.NewTLSServer(http.NotFoundHandler())
	defer srv.Close()
	srv.Config.ErrorLog = log.New(io.Discard, "", 0)
	begin := time.Now()
	c, err := New(Options{Pause: time.Minute})
	if err != nil {
		t.Fatal(err)
	}
	if _, _, _, err = c.Get(t.Context(), srv.URL, 0); err == nil || time.Since(begin) > 50*time.Second {
		t.Errorf("got %v after %s", err, time.Since(begin))
	}
}

func TestABodyThatFallsSilentEnds(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = w.Write([]byte("begin"))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	defer srv.Close()
	body, _, total, err := newClient(t, Options{Idle: 50 * time.Millisecond}).Get(t.Context(), srv.URL, 0)
	if err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(body)
	if string(b) != "begin" || total != -1 || err == nil || !strings.Contains(err.Error(), "silent") {
		t.Errorf("got %q of %d, %v", b, total, err)
	}
	if err := body.Close(); err != nil {
		t.Error(err)
	}
}

func TestSmallDocumentsAreBoundedAndReadAgainWhenTheyBreakOff(t *testing.T) {
	var n atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if n.Add(1) == 1 {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("half"))
			return
		}
		_, _ = io.WriteString(w, "whole "+r.Header.Get("Accept"))
	}))
	defer srv.Close()
	b, err := newClient(t, Options{}).GetJSON(t.Context(), srv.URL, "a/b", 9)
	if string(b) != "whole a/b" || err != nil {
		t.Errorf("got %q, %v", b, err)
	}
	if _, err := newClient(t, Options{}).GetJSON(t.Context(), srv.URL, "a/b", 8); err == nil {
		t.Error("a longer document than allowed was accepted")
	}
}

func TestCredentialsAreForOneHostAndNotSentInTheClear(t *testing.T) {
	for name, tc := range map[string]struct {
		cred Credential
		url  string
		want bool
	}{
		"the host":                     {Credential{Host: "a.example:443"}, "https://a.example/x", true},
		"any port":                     {Credential{Host: "a.example"}, "https://a.example:8443/x", true},
		"another port":                 {Credential{Host: "a.example:443"}, "https://a.example:8443/x", false},
		"a host below":                 {Credential{Host: "a.example"}, "https://b.a.example/x", false},
		"in the clear":                 {Credential{Host: "a.example"}, "http://a.example/x", false},
		"in the clear where told so":   {Credential{Host: "a.example:80", Plain: true}, "http://a.example/x", true},
		"in the clear on this machine": {Credential{Host: "127.0.0.1"}, "http://127.0.0.1:8000/x", true},
	} {
		t.Run(name, func(t *testing.T) {
			u, err := url.Parse(tc.url)
			if err != nil {
				t.Fatal(err)
			}
			c := newClient(t, Options{Credentials: []Credential{tc.cred}})
			if _, got := c.credential(u); got != tc.want {
				t.Errorf("sent: %t, want %t", got, tc.want)
			}
		})
	}
}

func FuzzContentRange(f *testing.F) {
	f.Add("bytes 5-9/10")
	f.Fuzz(func(t *testing.T, s string) {
		if start, total, ok := contentRange(s); ok && (start < 0 || total >= 0 && total <= start) {
			t.Errorf("%q: %d of %d", s, start, total)
		}
	})
}
