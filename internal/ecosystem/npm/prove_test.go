package npm

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
)

// signing is a registry that signs, by its answers.
type signing struct {
	key     *ecdsa.PrivateKey
	answers map[string]any
	found   []artifact.Artifact
}

func (s *signing) GetJSON(_ context.Context, address, _ string, _ int64) ([]byte, error) {
	v, ok := s.answers[address]
	if !ok {
		return nil, errors.New("not found")
	}
	return json.Marshal(v)
}

const registryAt = "https://r.example:8443/npm"

func (s *signing) publish(t *testing.T, expires string) {
	t.Helper()
	der, err := x509.MarshalPKIXPublicKey(&s.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	k := map[string]any{"keyid": "SHA256:x", "keytype": "ecdsa-sha2-nistp256", "scheme": "ecdsa-sha2-nistp256", "key": der, "expires": nil}
	if expires != "" {
		k["expires"] = expires
	}
	s.answers[registryAt+keysPath] = map[string]any{"keys": []any{map[string]any{"keyid": "old", "keytype": "rsa", "key": "AAAA"}, k}}
}

func (s *signing) version(t *testing.T, name, address string, content byte, signed string) {
	t.Helper()
	h := sha256.Sum256([]byte(signed))
	sig, err := ecdsa.SignASN1(rand.Reader, s.key, h[:])
	if err != nil {
		t.Fatal(err)
	}
	s.answers[registryAt+address] = map[string]any{"dist": map[string]any{"signatures": []any{map[string]any{"keyid": "SHA256:x", "sig": sig}}}}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(sum(content), "sha512-"))
	if err != nil {
		t.Fatal(err)
	}
	s.found = append(s.found, artifact.Artifact{Ref: artifact.Ref{Kind: Kind, Name: name, Version: "1.0.0"}, Files: []artifact.File{{
		Path: "x-1.0.0.tgz", Size: -1, Origin: registryAt + "/" + name + "/-/x-1.0.0.tgz", Hashes: map[string]string{"sha512": hex.EncodeToString(raw)},
	}}})
}

func newSigning(t *testing.T) *signing {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	s := &signing{key: key, answers: map[string]any{}}
	s.publish(t, "")
	s.version(t, "plain", "/plain/1.0.0", 1, "plain@1.0.0:"+sum(1))
	s.version(t, "@s/dep", "/@s%2fdep/1.0.0", 2, "@s/dep@1.0.0:"+sum(2))
	return s
}

func (s *signing) prove(t *testing.T) []ecosystem.Proof {
	t.Helper()
	out, err := (&Ecosystem{Index: s}).Prove(t.Context(), ecosystem.Want{}, ecosystem.Found{Artifacts: s.found, At: time.Date(2026, 2, 3, 0, 0, 0, 0, time.UTC)})
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestPackagesAreProvenByTheKeyOfTheirRegistry(t *testing.T) {
	s := newSigning(t)
	der, err := x509.MarshalPKIXPublicKey(&s.key.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	s.publish(t, "2027-01-01T00:00:00.000Z")
	got := s.prove(t)
	if len(got) != 1 || got[0].Why != "" || got[0].Format != "npm" || !slices.Equal(got[0].Keys, []string{string(artifact.Sum(der))}) || len(got[0].Covers) != 2 {
		t.Fatalf("%+v", got)
	}
	p := got[0]
	if p.Document != "r.example_8443/npm/signatures" || len(p.Through) != 1 || p.Through[0].Path != "r.example_8443/npm/-/npm/v1/keys" || p.Through[0].Digest != p.Trust || p.Digest == "" {
		t.Errorf("%+v", p)
	}
}

func TestWhatNoRegistrySigned(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(*testing.T, *signing)
		why    string
	}{
		"no keys":            {func(_ *testing.T, s *signing) { delete(s.answers, registryAt+keysPath) }, "gives no keys"},
		"keys that are none": {func(_ *testing.T, s *signing) { s.answers[registryAt+keysPath] = []int{1} }, "can be read"},
		"a key that expired": {func(t *testing.T, s *signing) { s.publish(t, "2026-01-01T00:00:00.000Z") }, "no key that counts"},
		"another key": {func(t *testing.T, s *signing) {
			o := newSigning(t)
			s.answers[registryAt+keysPath] = o.answers[registryAt+keysPath]
		}, "no key of its registry"},
		"not signed": {func(_ *testing.T, s *signing) {
			s.answers[registryAt+"/plain/1.0.0"], s.answers[registryAt+"/@s%2fdep/1.0.0"] = map[string]any{}, map[string]any{}
		}, "no key of its registry"},
		"no answer": {func(_ *testing.T, s *signing) {
			delete(s.answers, registryAt+"/plain/1.0.0")
			delete(s.answers, registryAt+"/@s%2fdep/1.0.0")
		}, "says nothing of it"},
		"other contents": {func(_ *testing.T, s *signing) {
			for i := range s.found {
				s.found[i].Files[0].Hashes = map[string]string{"sha512": strings.Repeat("0", 128)}
			}
		}, "no key of its registry"},
		"no hash": {func(_ *testing.T, s *signing) { s.found[0].Files[0].Hashes, s.found[1].Files[0].Hashes = nil, nil }, "no sha512"},
		"signatures of another version": {func(t *testing.T, s *signing) {
			s.found = nil
			s.version(t, "plain", "/plain/1.0.0", 1, "plain@2.0.0:"+sum(1))
			s.version(t, "@s/dep", "/@s%2fdep/1.0.0", 2, "plain@1.0.0:"+sum(2))
		}, "no key of its registry"},
		"an address of no registry": {func(_ *testing.T, s *signing) {
			s.found[0].Files[0].Origin, s.found[1].Files[0].Origin = "https://x.example/a.tgz", ""
		}, "does not tell its registry"},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSigning(t)
			tc.change(t, s)
			got := s.prove(t)
			for _, p := range got {
				if p.Keys != nil || !strings.Contains(p.Why, tc.why) {
					t.Errorf("%+v, want %q", p, tc.why)
				}
			}
			if len(got) != 2 {
				t.Errorf("%d of 2 are said", len(got))
			}
		})
	}
}
