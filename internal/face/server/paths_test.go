package server

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

type notYou struct{ error }

func (notYou) Unauthorized() bool { return true }

// roles lets through who names the role in a header.
type roles struct{}

func (roles) Admit(r *http.Request, role, _ string) (*http.Request, error) {
	if r.Header.Get("Role") != role {
		return nil, notYou{errors.New("not you")}
	}
	return r, nil
}

type named struct{}

func (named) Channel(_ *http.Request, name string) (http.Handler, error) {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "mirror %s %s", name, r.URL.Path) }), nil
}

// Whoever may only pull does not get to a model or the metrics, whatever way a path is
// written in.
func TestPathsOfOthers(t *testing.T) {
	say := func(what string) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, what) })
	}
	s := httptest.NewServer(New(Options{Mirrors: named{}, Access: roles{}, Gateway: say("a model"), Beside: []string{"/tokenize"}, Metrics: say("metrics")}))
	defer s.Close()
	for _, line := range []string{
		"POST /v1/chat/completions", "POST //v1/chat/completions", "POST /v1//chat/completions", "POST /c/stable/../../v1/chat/completions", "POST /%76%31/chat/completions",
		"POST /v1%2Fchat/completions", "POST http://other.example/v1/chat/completions", "CONNECT /v1/chat/completions", "CONNECT v1:443", "CONNECT //v1/x", "POST /c//v1/chat/completions", "POST /c/stable//v1/chat/completions",
		"POST /c/..%2f..%2fv1/chat/completions", "POST /./tokenize", "POST /tokenize/", "GET /metrics", "GET //metrics", "HEAD /metrics", "GET /c/x/../../metrics", "POST *", "OPTIONS *",
	} {
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(c, "%s HTTP/1.1\r\nHost: v1\r\nRole: mirror\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", line)
		r, err := http.ReadResponse(bufio.NewReader(c), nil)
		if err != nil {
			t.Errorf("%s: %v", line, err)
			continue
		}
		b := make([]byte, 200)
		n, _ := r.Body.Read(b)
		_ = r.Body.Close()
		_ = c.Close()
		if r.StatusCode >= 500 {
			t.Errorf("%s: %d", line, r.StatusCode)
		}
		if got := string(b[:n]); strings.HasPrefix(got, "a model") || strings.HasPrefix(got, "metrics") {
			t.Errorf("%s: %d %s", line, r.StatusCode, got)
		}
	}
}

// What went wrong inside is for the log.
func TestErrorsInsideAreNotTold(t *testing.T) {
	s := httptest.NewServer(New(Options{Mirrors: broken{}, Access: broken{}, Gateway: http.NotFoundHandler()}))
	defer s.Close()
	for _, path := range []string{"/v1/models", "/x", "/c/stable/x"} {
		r, err := http.Get(s.URL + path)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r.Body)
		_ = r.Body.Close()
		if err != nil || r.StatusCode != 500 || strings.Contains(string(b), "/srv") || !strings.Contains(string(b), "internal error") {
			t.Errorf("%s: %d %s, %v", path, r.StatusCode, b, err)
		}
	}
}

type broken struct{ named }

func (broken) Admit(*http.Request, string, string) (*http.Request, error) {
	return nil, errors.New("open /srv/enisle/state/db: input/output error")
}
