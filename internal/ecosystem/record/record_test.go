package record

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
)

func TestWhatGoesThroughIsKept(t *testing.T) {
	mux := http.NewServeMux()
	mux.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") != "" || r.Header.Get("Accept-Encoding") != "identity" {
			t.Errorf("asked for a part: %v", r.Header)
		}
		fmt.Fprint(w, "whole content")
	})
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "/file?X-Signature=secret", http.StatusFound)
	})
	mux.HandleFunc("/query", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, "of ", r.URL.Query().Get("name")) })
	mux.HandleFunc("/post", func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		fmt.Fprint(w, "got ", string(b))
	})
	mux.HandleFunc("/short", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", "100")
		_, _ = io.WriteString(w, "short")
	})
	plain := httptest.NewServer(mux)
	defer plain.Close()
	secure := httptest.NewTLSServer(mux)
	defer secure.Close()
	r, err := New(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close(t.Context())
	trust := x509.NewCertPool()
	trust.AddCert(secure.Certificate())
	tr, ok := r.transport.(*http.Transport)
	if !ok {
		t.Fatal("no transport")
	}
	tr.TLSClientConfig = &tls.Config{RootCAs: trust, MinVersion: tls.VersionTLS12}
	tr.Proxy = nil
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- r.Serve(l) }()

	pool := x509.NewCertPool()
	pool.AddCert(r.ca)
	proxy := &url.URL{Scheme: "http", Host: l.Addr().String()}
	client := &http.Client{Transport: &http.Transport{Proxy: http.ProxyURL(proxy), TLSClientConfig: &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}}}
	get := func(at string, header ...string) (string, error) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at, nil)
		if err != nil {
			return "", err
		}
		for i := 0; i < len(header); i += 2 {
			req.Header.Set(header[i], header[i+1])
		}
		res, err := client.Do(req)
		if err != nil {
			return "", err
		}
		b, err := io.ReadAll(res.Body)
		_ = res.Body.Close()
		return string(b), err
	}
	for _, base := range []string{plain.URL, secure.URL} {
		for at, want := range map[string]string{"/moved": "whole content", "/file": "whole content", "/query?name=a": "of a", "/query?name=b": "of b"} {
			if got, err := get(base+at, "Range", "bytes=0-3"); got != want || err != nil {
				t.Errorf("%s%s: %q, %v", base, at, got, err)
			}
		}
		if got, err := get(base + "/short"); err == nil {
			t.Errorf("half of a file came as the whole: %q", got)
		}
		res, err := client.Post(base+"/post", "text/plain", strings.NewReader("x"))
		if err != nil || res.StatusCode != http.StatusOK {
			t.Errorf("post: %v", err)
		}
		_ = res.Body.Close()
	}
	all, others := r.Recorded()
	found := map[string]string{}
	for _, e := range all {
		b, err := os.ReadFile(e.File)
		if err != nil || int64(len(b)) != e.Size {
			t.Errorf("%s: %d bytes, %v", e.URL, len(b), err)
		}
		found[e.URL] = string(b)
	}
	for _, base := range []string{plain.URL, secure.URL} {
		for at, want := range map[string]string{"/moved": "whole content", "/file": "whole content", "/query?name=a": "of a", "/query?name=b": "of b"} {
			if found[base+at] != want {
				t.Errorf("%s%s is kept as %q", base, at, found[base+at])
			}
			delete(found, base+at)
		}
	}
	if len(found) != 0 {
		t.Errorf("kept besides: %v", found)
	}
	if text := strings.Join(others, "\n"); strings.Count(text, "POST ") != 2 || strings.Count(text, "broken: ") != 2 || strings.Contains(text, "secret") {
		t.Errorf("others: %v", others)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if env := strings.Join(r.Env("127.0.0.1:1"), "\n"); !strings.Contains(env, "HTTPS_PROXY=http://127.0.0.1:1") || !strings.Contains(env, "SSL_CERT_FILE=") {
		t.Error(env)
	}
}
