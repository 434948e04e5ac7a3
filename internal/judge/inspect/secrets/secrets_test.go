package secrets

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"io"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
)

type run struct{ found []string }

func (r *run) Report(rule string, sev inspect.Severity, detail string) {
	r.found = append(r.found, string(sev)+" "+rule+" "+detail)
}
func (r *run) Note(string, string)                                       {}
func (r *run) Descend(context.Context, string, io.ReaderAt, int64) error { return nil }

// made puts a token together that nobody was ever given.
func made(prefix, letters string, n int) string {
	return prefix + strings.Repeat(letters, n)[:n]
}

func TestSecrets(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	block := string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
	for name, tc := range map[string]struct{ text, want string }{
		"a key":               {"\n\n" + block, "warn secret a private key stands in line 3"},
		"AWS":                 {"key = " + made("AKIA", "ABCDEFGH", 16), "warn secret an access key of AWS stands in line 1"},
		"GitHub":              {"x\n" + made("ghp_", "abcDEF123", 36), "warn secret a token of GitHub stands in line 2"},
		"Hugging Face":        {"token: " + made("hf_", "abcDEFghi", 34), "warn secret a token of Hugging Face stands in line 1"},
		"npm":                 {"_authToken=" + made("npm_", "abcDEF123", 36), "warn secret a token of npm stands in line 1"},
		"OpenAI":              {made("sk-", "abcdef", 24) + made("T3BlbkFJ", "abcdef", 24), "warn secret a key of OpenAI stands in line 1"},
		"a word":              {"the prefix ghp_ is what GitHub uses, and AKIA that of AWS", ""},
		"a header alone":      {"it begins with -----BEGIN PRIVATE KEY-----, see the manual", ""},
		"a token too short":   {made("ghp_", "abc", 20) + " and more", ""},
		"a token in a binary": {"\x00\x01 " + made("ghp_", "abcDEF123", 36), ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := []byte(tc.text)
			s := inspect.Subject{Ref: artifact.Ref{Kind: "pypi", Name: "x"}, Path: "x", Size: int64(len(b)), ReaderAt: bytes.NewReader(b), Head: b[:min(4096, len(b))]}
			var r run
			if New().Wants(s) {
				if err := New().Scan(context.Background(), s, &r); err != nil {
					t.Fatal(err)
				}
			}
			if got := strings.Join(r.found, "; "); got != tc.want {
				t.Errorf("%q, want %q", got, tc.want)
			}
			for _, f := range r.found {
				if strings.Contains(f, "abcDEF") {
					t.Errorf("it shows the secret: %s", f)
				}
			}
		})
	}
}
