// Package ecosystemtest says what every mirror must do, and checks it: a
// release in memory, archives made by hand, and a conformance suite for
// handlers. It is for tests only.
package ecosystemtest

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
)

// Release is a release in memory. The zero value is empty.
type Release struct {
	artifacts []artifact.Artifact
	blobs     map[artifact.Digest][]byte
}

var _ ecosystem.Release = (*Release)(nil)

// Add releases an artifact with one file; the file's size and digest are
// filled in. It returns the digest.
func (r *Release) Add(ref artifact.Ref, f artifact.File, content []byte) artifact.Digest {
	f.Digest, f.Size = artifact.Sum(content), int64(len(content))
	if r.blobs == nil {
		r.blobs = map[artifact.Digest][]byte{}
	}
	r.blobs[f.Digest] = content
	r.artifacts = append(r.artifacts, artifact.Artifact{Ref: ref, Name: ref.String(), Files: []artifact.File{f}})
	return f.Digest
}

// AddAll releases an artifact with several files, given by path.
func (r *Release) AddAll(ref artifact.Ref, files map[string][]byte) {
	if r.blobs == nil {
		r.blobs = map[artifact.Digest][]byte{}
	}
	a := artifact.Artifact{Ref: ref, Name: ref.String()}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		b := files[path]
		d := artifact.Sum(b)
		r.blobs[d] = b
		a.Files = append(a.Files, artifact.File{Path: path, Size: int64(len(b)), Digest: d})
	}
	r.artifacts = append(r.artifacts, a)
}

// Artifacts returns those of one kind, ordered by reference; an empty kind means all.
func (r *Release) Artifacts(kind string) (out []artifact.Artifact) {
	for _, a := range r.artifacts {
		if kind == "" || a.Ref.Kind == kind {
			out = append(out, a)
		}
	}
	slices.SortStableFunc(out, func(a, b artifact.Artifact) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Open returns a blob of the release.
func (r *Release) Open(d artifact.Digest) (ecosystem.Blob, error) {
	b, ok := r.blobs[d]
	if !ok {
		return nil, artifact.ErrNotHeld
	}
	return blob{bytes.NewReader(b)}, nil
}

type blob struct{ *bytes.Reader }

func (blob) Close() error { return nil }

// Member is one file of an archive.
type Member struct{ Name, Content string }

// Zip returns an archive with the members in their order.
func Zip(members ...Member) ([]byte, error) {
	var buf bytes.Buffer
	z := zip.NewWriter(&buf)
	for _, m := range members {
		w, err := z.Create(m.Name)
		if err != nil {
			return nil, err
		}
		if _, err := w.Write([]byte(m.Content)); err != nil {
			return nil, err
		}
	}
	err := z.Close()
	return buf.Bytes(), err
}

// AddFiles releases an artifact with several files, whose contents were added with other
// artifacts.
func (r *Release) AddFiles(ref artifact.Ref, files []artifact.File) {
	r.artifacts = append(r.artifacts, artifact.Artifact{Ref: ref, Name: ref.String(), Files: files})
}

// Wheel returns a wheel of a pure Python module and its file name. headers are
// further lines of METADATA, each with its line feed; more are members besides.
func Wheel(name, version, headers string, more ...Member) (file string, content []byte, err error) {
	info := name + "-" + version + ".dist-info/"
	record := info + "RECORD,,\n"
	members := []Member{
		{name + ".py", "version = '" + version + "'\n"},
		{info + "METADATA", "Metadata-Version: 2.1\nName: " + name + "\nVersion: " + version + "\n" + headers + "\n"},
		{info + "WHEEL", "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"},
	}
	members = append(members, more...)
	for _, m := range members {
		sum := sha256.Sum256([]byte(m.Content))
		record += fmt.Sprintf("%s,sha256=%s,%d\n", m.Name, base64.RawURLEncoding.EncodeToString(sum[:]), len(m.Content))
	}
	content, err = Zip(append(members, Member{info + "RECORD", record})...)
	return name + "-" + version + "-py3-none-any.whl", content, err
}

// Tarball returns a gzipped tar with the members in their order.
func Tarball(members ...Member) ([]byte, error) {
	var buf bytes.Buffer
	z := gzip.NewWriter(&buf)
	t := tar.NewWriter(z)
	for _, m := range members {
		if err := t.WriteHeader(&tar.Header{Name: m.Name, Mode: 0o644, Size: int64(len(m.Content)), Typeflag: tar.TypeReg}); err != nil {
			return nil, err
		}
		if _, err := t.Write([]byte(m.Content)); err != nil {
			return nil, err
		}
	}
	err := errors.Join(t.Close(), z.Close())
	return buf.Bytes(), err
}
