package client

import (
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"enisle/internal/fail"
)

// A key that is set is shown, and errors of a site say what to do about keys and about
// certificates.
func TestKeysAndCertificates(t *testing.T) {
	h := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer k" {
			w.WriteHeader(http.StatusUnauthorized)
			_, _ = io.WriteString(w, `{"error":{"message":"a key is needed"}}`)
			return
		}
		_, _ = io.WriteString(w, `{"data":[{"id":"m"}]}`)
	})
	plain, tls := httptest.NewServer(h), httptest.NewTLSServer(h)
	defer plain.Close()
	defer tls.Close()
	c := New(plain.URL)
	if _, err := c.Models(t.Context()); err == nil || !strings.Contains(fail.HintOf(err), "--api-key-file") {
		t.Errorf("without a key: %v, hint %q", err, fail.HintOf(err))
	}
	c.Key = "k"
	if names, err := c.Models(t.Context()); err != nil || len(names) != 1 {
		t.Errorf("with a key: %v, %v", names, err)
	}
	if _, err := New(tls.URL).Models(t.Context()); err == nil || !strings.Contains(fail.HintOf(err), "SSL_CERT_FILE") {
		t.Errorf("another's certificate: %v, hint %q", err, fail.HintOf(err))
	}
}
