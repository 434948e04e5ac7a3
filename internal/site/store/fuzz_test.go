package store

import (
	"testing"

	"enisle/internal/artifact"
)

// FuzzDecode reads indexes and manifests: what is accepted is what encoding gives,
// and every path and reference in it is clean.
func FuzzDecode(f *testing.F) {
	a := artifact.Artifact{Ref: artifact.Ref{Kind: "files", Name: "a.txt"}, Files: []artifact.File{{Path: "a.txt", Size: 6, Digest: artifact.Sum([]byte("hello\n"))}}}
	m, err := EncodeManifest(a)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(m)
	ix, err := EncodeIndex("try", []Entry{{Ref: a.Ref, Manifest: artifact.Sum(m), Size: int64(len(m))}})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(ix)
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := DecodeManifest(b); err == nil && a.Check() != nil {
			t.Errorf("accepted %v", a.Check())
		}
		if _, entries, err := DecodeIndex(b); err == nil {
			for _, e := range entries {
				if e.Ref.Check() != nil || e.Size < 0 {
					t.Errorf("accepted %+v", e)
				}
			}
		}
	})
}
