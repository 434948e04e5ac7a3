// Package ocidisttest makes images by hand, and a registry that has them, with
// tokens as large registries want them. It is for tests only.
package ocidisttest

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"enisle/internal/artifact"
)

// Media types of image-spec 1.1.
const (
	Index    = "application/vnd.oci.image.index.v1+json"
	Manifest = "application/vnd.oci.image.manifest.v1+json"
	Config   = "application/vnd.oci.image.config.v1+json"
	Layer    = "application/vnd.oci.image.layer.v1.tar+gzip"
)

// Descriptor points at content.
type Descriptor struct {
	MediaType    string            `json:"mediaType"`
	Digest       artifact.Digest   `json:"digest"`
	Size         int64             `json:"size"`
	ArtifactType string            `json:"artifactType,omitempty"`
	Annotations  map[string]string `json:"annotations,omitempty"`
	Platform     map[string]string `json:"platform,omitempty"`
}

// Content is what a repository holds.
type Content struct {
	Blobs     map[artifact.Digest][]byte
	Manifests map[artifact.Digest][]byte
	Types     map[artifact.Digest]string
	Tags      map[string]artifact.Digest
	// Referrers says that the registry has the list of what refers to what.
	Referrers bool
}

// New returns an empty repository.
func New() *Content {
	return &Content{map[artifact.Digest][]byte{}, map[artifact.Digest][]byte{}, map[artifact.Digest]string{}, map[string]artifact.Digest{}, true}
}

// Blob adds a blob.
func (c *Content) Blob(kind string, b []byte) Descriptor {
	d := artifact.Sum(b)
	c.Blobs[d] = b
	return Descriptor{MediaType: kind, Digest: d, Size: int64(len(b))}
}

// Put adds a manifest.
func (c *Content) Put(m map[string]any) Descriptor {
	m["schemaVersion"] = 2
	b, err := json.MarshalIndent(m, "", "   ") // spaces that no other writer would make
	if err != nil {
		panic(err) // the test's own mistake
	}
	d := artifact.Sum(b)
	c.Manifests[d], c.Types[d] = b, m["mediaType"].(string)
	return Descriptor{MediaType: c.Types[d], Digest: d, Size: int64(len(b))}
}

// Image adds an image for a platform.
func (c *Content) Image(os, arch string, layers ...[]byte) Descriptor {
	list, ids := []Descriptor{}, []string{}
	for _, l := range layers {
		list = append(list, c.Blob(Layer, l))
		ids = append(ids, string(artifact.Sum(unpacked(l))))
	}
	config := fmt.Sprintf(`{"architecture":%q,"os":%q,"config":{},"rootfs":{"type":"layers","diff_ids":["%s"]}}`, arch, os, strings.Join(ids, `","`))
	d := c.Put(map[string]any{"mediaType": Manifest, "config": c.Blob(Config, []byte(config)), "layers": list})
	d.Platform = map[string]string{"os": os, "architecture": arch}
	return d
}

// unpacked is the tar of a layer; what is no gzip stands for itself.
func unpacked(layer []byte) []byte {
	z, err := gzip.NewReader(bytes.NewReader(layer))
	if err != nil {
		return layer
	}
	b, err := io.ReadAll(z)
	if err != nil {
		return layer
	}
	return b
}

// List adds an index.
func (c *Content) List(of ...Descriptor) Descriptor {
	return c.Put(map[string]any{"mediaType": Index, "manifests": of})
}

// Refer adds what refers to a manifest, such as a signature.
func (c *Content) Refer(to Descriptor, kind string, content []byte) Descriptor {
	to = Descriptor{MediaType: to.MediaType, Digest: to.Digest, Size: to.Size}
	return c.Put(map[string]any{
		"mediaType": Manifest, "artifactType": kind, "config": c.Blob("application/vnd.oci.empty.v1+json", []byte("{}")),
		"layers": []Descriptor{c.Blob("application/octet-stream", content)}, "subject": to, "annotations": map[string]string{"made": "by hand"},
	})
}

// referrers lists what refers to a manifest.
func (c *Content) referrers(to string) []Descriptor {
	out := []Descriptor{}
	for d, b := range c.Manifests {
		var m struct {
			ArtifactType string      `json:"artifactType"`
			Subject      *Descriptor `json:"subject"`
		}
		if json.Unmarshal(b, &m) == nil && m.Subject != nil && string(m.Subject.Digest) == to {
			out = append(out, Descriptor{MediaType: c.Types[d], Digest: d, Size: int64(len(b)), ArtifactType: m.ArtifactType})
		}
	}
	return out
}

// Serve starts a registry that has the content below a name. A password makes it
// ask for tokens, which it gives to the user "reader".
func (c *Content) Serve(t *testing.T, name, password string) *httptest.Server {
	t.Helper()
	token := "token-of-" + password
	var srv *httptest.Server
	srv = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/token" {
			if user, got, _ := r.BasicAuth(); user != "reader" || got != password {
				w.WriteHeader(http.StatusUnauthorized)
				return
			}
			_ = json.NewEncoder(w).Encode(map[string]any{"token": token, "expires_in": 300, "scope": r.URL.Query().Get("scope")})
			return
		}
		if password != "" && r.Header.Get("Authorization") != "Bearer "+token {
			w.Header().Set("WWW-Authenticate", fmt.Sprintf(`Bearer realm="%s/token",service="hand",scope="repository:%s:pull"`, srv.URL, name))
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		rest, ok := strings.CutPrefix(r.URL.Path, "/v2/"+name+"/")
		what, which, _ := strings.Cut(rest, "/")
		if !ok {
			what = ""
		}
		c.answer(w, r, what, which)
	}))
	t.Cleanup(srv.Close)
	return srv
}

func (c *Content) answer(w http.ResponseWriter, r *http.Request, what, which string) {
	switch what {
	case "manifests":
		d, ok := c.Tags[which]
		if !ok {
			d = artifact.Digest(which)
		}
		if b, ok := c.Manifests[d]; ok {
			w.Header().Set("Content-Type", c.Types[d])
			w.Header().Set("Docker-Content-Digest", string(d))
			_, _ = w.Write(b)
			return
		}
	case "blobs":
		if b, ok := c.Blobs[artifact.Digest(which)]; ok {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(b))
			return
		}
	case "referrers":
		if c.Referrers {
			w.Header().Set("Content-Type", Index)
			_ = json.NewEncoder(w).Encode(map[string]any{"schemaVersion": 2, "mediaType": Index, "manifests": c.referrers(which)})
			return
		}
	}
	http.NotFound(w, r)
}

// Push uploads everything to a registry that can be written to; base is the
// address of the repository.
func (c *Content) Push(ctx context.Context, base string) error {
	send := func(method, at, kind string, b []byte) (string, error) {
		req, err := http.NewRequestWithContext(ctx, method, at, bytes.NewReader(b))
		if err != nil {
			return "", err
		}
		if kind != "" {
			req.Header.Set("Content-Type", kind)
		}
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return "", err
		}
		defer func() { _ = res.Body.Close() }()
		if res.StatusCode >= 300 {
			why, _ := io.ReadAll(io.LimitReader(res.Body, 500))
			return "", fmt.Errorf("%s %s: %s: %s", method, at, res.Status, why)
		}
		return res.Header.Get("Location"), nil
	}
	for d, b := range c.Blobs {
		at, err := send(http.MethodPost, base+"/blobs/uploads/", "", nil)
		if err != nil {
			return err
		}
		sep := "?"
		if strings.Contains(at, "?") {
			sep = "&"
		}
		if _, err := send(http.MethodPut, at+sep+"digest="+string(d), "application/octet-stream", b); err != nil {
			return err
		}
	}
	// Images before the indexes that name them.
	for _, index := range []bool{false, true} {
		for d, b := range c.Manifests {
			if (c.Types[d] == Index) != index {
				continue
			}
			if _, err := send(http.MethodPut, base+"/manifests/"+string(d), c.Types[d], b); err != nil {
				return err
			}
		}
	}
	for tag, d := range c.Tags {
		if _, err := send(http.MethodPut, base+"/manifests/"+tag, c.Types[d], c.Manifests[d]); err != nil {
			return err
		}
	}
	return nil
}

// Files are the contents of an artifact's files, as collecting would store them:
// those that were written below work, and blobs.
func (c *Content) Files(files []artifact.File, made func(artifact.File) ([]byte, error)) (map[string][]byte, error) {
	out := map[string][]byte{}
	for _, f := range files {
		if b, ok := c.Blobs[f.Digest]; ok && strings.HasPrefix(f.Path, "blobs/") {
			out[f.Path] = b
			continue
		}
		b, err := made(f)
		if err != nil {
			return nil, err
		}
		if artifact.Sum(b) != f.Digest {
			return nil, fmt.Errorf("%s is not what its digest says", f.Path)
		}
		out[f.Path] = b
	}
	return out, nil
}
