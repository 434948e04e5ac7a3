package ocidist

import (
	"testing"

	"enisle/internal/artifact"
)

func FuzzManifests(f *testing.F) {
	f.Add([]byte(`{"mediaType":"`+typeManifest+`","config":{"digest":"sha256:x","size":1}}`), typeManifest)
	f.Add([]byte(`{"manifests":[{"platform":null}]}`), typeIndex)
	f.Add([]byte(`null`), "")
	f.Fuzz(func(t *testing.T, b []byte, said string) {
		m, err := readManifest(b, said)
		if err != nil {
			return
		}
		for _, d := range append(m.blobs(), m.Manifests...) {
			if _, err := artifact.ParseDigest(string(d.Digest)); err != nil || d.Size < 0 {
				t.Errorf("let %+v pass", d)
			}
		}
	})
}

func FuzzReferences(f *testing.F) {
	for _, s := range []string{"registry.example/app:1", "localhost:5000/a/b@sha256:", "a.example/../x:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReference(s)
		if err != nil {
			return
		}
		if err := (artifact.Ref{Kind: "oci", Name: r.Name(), Version: r.Version()}).Check(); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	})
}
