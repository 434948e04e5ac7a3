package server

import (
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"enisle/internal/fail"
)

// asked notes what is asked for, and lets in who shows a key.
type asked struct{ role, channel string }

type unknown struct{ error }

func (unknown) Unauthorized() bool { return true }
func (e unknown) Unwrap() error    { return e.error }

func (a *asked) Admit(r *http.Request, role, channel string) (*http.Request, error) {
	a.role, a.channel = role, channel
	switch r.Header.Get("Authorization") {
	case "":
		return nil, unknown{fail.Refuse("give a key", errors.New("a key is needed"))}
	case "weak":
		return nil, fail.Refuse("ask an officer", errors.New("not for you"))
	}
	return r, nil
}

// one serves every channel by the same handler.
type one struct{ http.Handler }

func (o one) Channel(_ *http.Request, name string) (http.Handler, error) {
	if name == "none" {
		return nil, fail.As(fail.Usage, "", errors.New("no such channel"))
	}
	return o, nil
}

func say(what string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, what+" "+r.URL.Path) })
}

// Whatever path leads to something, whoever asks for it is asked for the right it takes.
func TestNothingIsGivenWithoutARight(t *testing.T) {
	a := &asked{}
	h := New(Options{Mirrors: one{say("mirror")}, Access: a, Gateway: say("gateway"), Beside: []string{"/tokenize"}, Metrics: say("metrics")})
	for path, want := range map[string]struct{ role, channel, body string }{
		"/pypi/simple/":         {RoleMirror, "stable", "mirror /pypi/simple/"},
		"/c/canary/npm/x":       {RoleMirror, "canary", "mirror /npm/x"},
		"/v1/models":            {RoleInference, "", "gateway /v1/models"},
		"/tokenize":             {RoleInference, "", "gateway /tokenize"},
		"/metrics":              {RoleMonitor, "", "metrics /metrics"},
		"/c/canary/v1/models":   {RoleMirror, "canary", "mirror /v1/models"},
		"/v2/":                  {RoleMirror, "stable", "mirror /v2/"},
		"/healthz":              {"", "", `"ok"`},
		"/readyz":               {"", "", "ready"},
		"/c/canary/%2e%2e/v1/x": {RoleMirror, "canary", "mirror /../v1/x"},
	} {
		for key, status := range map[string]int{"": 401, "weak": 403, "good": 200} {
			*a = asked{}
			r := httptest.NewRequest("GET", path, nil)
			r.Header.Set("Authorization", key)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if want.role == "" {
				status = 200
			}
			if w.Code == http.StatusMovedPermanently || w.Code == http.StatusTemporaryRedirect {
				continue // to the clean path, which is asked for then
			}
			if w.Code != status || a.role != want.role || a.channel != want.channel {
				t.Errorf("%s with %q: %d, asked for %+v", path, key, w.Code, *a)
			}
			if status == 200 && !strings.Contains(w.Body.String(), want.body) {
				t.Errorf("%s: %s", path, w.Body)
			}
			if challenge := w.Header().Get("WWW-Authenticate"); (challenge != "") != (w.Code == 401) {
				t.Errorf("%s: challenge %q", path, challenge)
			}
		}
	}
}

// An error has the shape that the clients of each path read.
// A page of another origin has no browser call models, whatever that shows for its user.
func TestPagesOfOtherOrigins(t *testing.T) {
	s := httptest.NewServer(New(Options{Mirrors: one{say("mirror")}, Gateway: say("gateway"), Beside: []string{"/api/generate"}}))
	defer s.Close()
	for name, tc := range map[string]struct {
		header, value string
		status        int
	}{
		"a program":           {"User-Agent", "curl", http.StatusOK},
		"a page of this site": {"Sec-Fetch-Site", "same-origin", http.StatusOK},
		"of its own origin":   {"Origin", s.URL, http.StatusOK},
		"of another site":     {"Sec-Fetch-Site", "cross-site", http.StatusForbidden},
		"of another origin":   {"Origin", "https://evil.example", http.StatusForbidden},
		"of a file":           {"Origin", "null", http.StatusForbidden},
	} {
		for _, path := range []string{"/v1/chat/completions", "/api/generate"} {
			r, err := http.NewRequest(http.MethodPost, s.URL+path, strings.NewReader("{}"))
			if err != nil {
				t.Fatal(err)
			}
			r.Header.Set("Content-Type", "text/plain") // which a browser sends without asking first
			r.Header.Set(tc.header, tc.value)
			resp, err := http.DefaultClient.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(resp.Body)
			if err != nil || resp.Body.Close() != nil || resp.StatusCode != tc.status || (tc.status == http.StatusOK) != strings.HasPrefix(string(b), "gateway") {
				t.Errorf("%s, %s: %d %s, %v", name, path, resp.StatusCode, b, err)
			}
		}
	}
}

func TestErrorsHaveTheShapeOfTheirClients(t *testing.T) {
	h := New(Options{Mirrors: one{say("mirror")}, Access: &asked{}, Gateway: say("gateway")})
	read := func(path string) (out map[string]any) {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", path, nil))
		if err := json.Unmarshal(w.Body.Bytes(), &out); err != nil {
			t.Fatalf("%s: %v: %s", path, err, w.Body)
		}
		return out
	}
	if e, ok := read("/v1/models")["error"].(map[string]any); !ok || e["message"] != "a key is needed: give a key" || e["type"] != "authentication_error" {
		t.Errorf("openai: %v", e)
	}
	got := read("/v2/")
	list, ok := got["errors"].([]any)
	if !ok || len(list) != 1 || got["error"] != "a key is needed" || got["hint"] != "give a key" {
		t.Fatalf("registry: %v", got)
	}
	if first := list[0].(map[string]any); first["code"] != "UNAUTHORIZED" || first["detail"] != "a key is needed" {
		t.Errorf("registry: %v", first)
	}
}

func TestOnlyLoopbackGoesWithoutTLS(t *testing.T) {
	for address, fine := range map[string]bool{"127.0.0.1": true, "::1": true, "10.0.0.5": false, "0.0.0.0": false, "::": false} {
		addr := &net.TCPAddr{IP: net.ParseIP(address), Port: 1}
		if err := CheckListener(addr, false); (err == nil) != fine {
			t.Errorf("%s: %v", address, err)
		}
		if err := CheckListener(addr, true); err != nil {
			t.Errorf("%s with TLS: %v", address, err)
		}
	}
}
