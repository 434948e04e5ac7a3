package oci

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/ecosystemtest"
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/ecosystem/ocidist/ocidisttest"
)

// upstream is a registry with an image for two platforms, a signature that refers
// to it, and one under the tag that signing tools make.
func upstream() (c *ocidisttest.Content, list, amd, sig ocidisttest.Descriptor) {
	c = ocidisttest.New()
	amd = c.Image("linux", "amd64", []byte("layer one"), []byte("layer two"))
	arm := c.Image("linux", "arm64", []byte("layer of arm"))
	list = c.List(amd, arm)
	sig = c.Refer(list, "application/vnd.example.signature", []byte("signed"))
	c.Tags["1.4"] = list.Digest
	tagged := c.Image("linux", "amd64", []byte("signed by tag"))
	c.Tags["sha256-"+amd.Digest.Hex()+".sig"] = tagged.Digest
	return c, list, amd, sig
}

func collect(t *testing.T, opt fetch.Options, items ...any) ([]artifact.Artifact, string, error) {
	t.Helper()
	opt.Retries = -1
	client, err := fetch.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	work := t.TempDir()
	got, err := (&Ecosystem{Get: client}).Resolve(t.Context(), ecosystem.Want{Items: items, Target: ecosystem.Target{OS: "linux", Arch: "amd64"}, Work: work})
	return got, work, err
}

// release is a release of what was collected.
func release(t *testing.T, c *ocidisttest.Content, found []artifact.Artifact, work string) *ecosystemtest.Release {
	t.Helper()
	rel := &ecosystemtest.Release{}
	for _, a := range found {
		files, err := c.Files(a.Files, func(f artifact.File) ([]byte, error) {
			at, _, _ := ecosystem.ParseMade(f.Origin)
			return os.ReadFile(filepath.Join(work, at))
		})
		if err != nil {
			t.Fatal(err)
		}
		rel.AddAll(a.Ref, files)
	}
	return rel
}

func get(t *testing.T, h http.Handler, path string, header ...string) *httptest.ResponseRecorder {
	t.Helper()
	req := httptest.NewRequestWithContext(t.Context(), http.MethodGet, path, nil)
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

func TestAnImageIsCollectedForOnePlatformAndServedAsItWas(t *testing.T) {
	c, list, amd, sig := upstream()
	srv := c.Serve(t, "team/app", "secret")
	host := strings.TrimPrefix(srv.URL, "http://")
	found, work, err := collect(t, fetch.Options{Credentials: []fetch.Credential{{Host: host, User: "reader", Password: "secret"}}}, host+"/team/app:1.4")
	if err != nil {
		t.Fatal(err)
	}
	a := found[0]
	name := strings.ReplaceAll(host, ":", "_") + "/team/app"
	if a.Ref != (artifact.Ref{Kind: "oci", Name: name, Version: "1.4"}) || a.Check() != nil {
		t.Fatalf("collected %s, %v", a.Ref, a.Check())
	}
	for _, f := range a.Files {
		if f.Digest == artifact.Sum([]byte("layer of arm")) {
			t.Error("a layer for another platform was collected")
		}
	}
	h, err := (&Ecosystem{}).Handler(release(t, c, found, work))
	if err != nil {
		t.Fatal(err)
	}
	layer := artifact.Sum([]byte("layer one"))
	ecosystemtest.Check(t, ecosystemtest.Mirror{
		Handler: h,
		Files: map[string][]byte{
			"/" + name + "/manifests/1.4":                c.Manifests[list.Digest],
			"/team/app/manifests/" + string(list.Digest): c.Manifests[list.Digest],
			"/team/app/manifests/" + string(amd.Digest):  c.Manifests[amd.Digest],
			"/" + name + "/blobs/" + string(layer):       []byte("layer one"),
		},
		Pages: []string{"/", "/_catalog", "/team/app/tags/list", "/team/app/referrers/" + string(list.Digest), "/team/app/manifests/1.4?ns=" + host},
		Absent: []string{
			"/team/app/manifests/1.5", "/team/app/manifests/sha256:" + strings.Repeat("0", 64), "/other/manifests/1.4", "/team/app/blobs/1.4",
			"/team/app/blobs/" + string(artifact.Sum([]byte("layer of arm"))), "/team/app/manifests/" + string(layer), "/TEAM/app/manifests/1.4",
			"/team/app/manifests/1.4?ns=other.example", "/team/app/blobs/uploads/",
		},
	})
	w := get(t, h, "/team/app/manifests/1.4")
	if w.Header().Get("Content-Type") != ocidisttest.Index || w.Header().Get("Docker-Content-Digest") != string(list.Digest) {
		t.Errorf("a manifest comes with %v", w.Header())
	}
	var refs struct {
		Manifests []ocidisttest.Descriptor `json:"manifests"`
	}
	for kind, want := range map[string]int{"": 1, "?artifactType=application/vnd.example.signature": 1, "?artifactType=other": 0} {
		w = get(t, h, "/team/app/referrers/"+string(list.Digest)+kind)
		if err := json.Unmarshal(w.Body.Bytes(), &refs); err != nil || len(refs.Manifests) != want || (kind != "") != (w.Header().Get("OCI-Filters-Applied") == "artifactType") {
			t.Errorf("%s: got %s with %v, %v", kind, w.Body, w.Header(), err)
		}
		if want == 1 && (refs.Manifests[0].Digest != sig.Digest || refs.Manifests[0].Annotations["made"] != "by hand") {
			t.Errorf("got %+v", refs.Manifests)
		}
	}
	if w = get(t, h, "/team/app/manifests/sha256-"+amd.Digest.Hex()+".sig"); w.Code != http.StatusOK {
		t.Errorf("the signature under a tag: %d", w.Code)
	}
	w = get(t, h, "/team/app/tags/list?n=1")
	if link := w.Header().Get("Link"); link != `</team/app/tags/list?last=1.4&n=1>; rel="next"` {
		t.Errorf("the list goes on at %q", link)
	}
	if w = get(t, h, "/team/app/tags/list?n=-1"); w.Code != http.StatusBadRequest {
		t.Errorf("a page of -1: status %d", w.Code)
	}
	w = get(t, h, "/team/app/blobs/"+string(layer), "User-Agent", "ollama/0.12 (amd64 linux)")
	if at := w.Header().Get("Location"); w.Code != http.StatusOK || at != "/team/app/blobs/"+string(layer) {
		t.Errorf("status %d with Location %q", w.Code, at)
	}
}

func TestASignatureIsFoundByTagWhereThereIsNoListOfReferrers(t *testing.T) {
	c, list, _, sig := upstream()
	c.Referrers = false
	c.Tags["sha256-"+list.Digest.Hex()] = c.List(sig).Digest
	srv := c.Serve(t, "app", "")
	host := strings.TrimPrefix(srv.URL, "http://")
	found, _, err := collect(t, fetch.Options{}, map[string]any{"image": "registry.example/library/app:1.4@" + string(list.Digest), "registry": srv.URL, "platforms": []any{"all"}})
	if err == nil {
		t.Fatalf("found %v below another name", found)
	}
	found, work, err := collect(t, fetch.Options{}, map[string]any{"image": host + "/app:1.4", "registry": srv.URL, "platforms": []any{"all"}})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(found[0].Files, func(f artifact.File) bool { return f.Digest == sig.Digest }) {
		t.Error("the signature was not collected")
	}
	h, err := (&Ecosystem{}).Handler(release(t, c, found, work))
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"/library/app", "/app"} {
		if w := get(t, h, name+"/referrers/"+string(list.Digest)); !strings.Contains(w.Body.String(), string(sig.Digest)) {
			t.Errorf("%s: %s", name, w.Body)
		}
	}
}

func TestRegistriesThatLieAreRefused(t *testing.T) {
	for name, tc := range map[string]struct {
		change func(c *ocidisttest.Content, list, amd ocidisttest.Descriptor)
		item   string
		want   string
	}{
		"a manifest that is not its digest": {func(c *ocidisttest.Content, _, amd ocidisttest.Descriptor) { c.Manifests[amd.Digest] = []byte("{}") }, "1.4", "is not what its digest"},
		"a type that is not what was said": {func(c *ocidisttest.Content, list, _ ocidisttest.Descriptor) {
			c.Types[list.Digest] = ocidisttest.Manifest
		}, "1.4", "calls itself"},
		"an image of another platform alone": {func(c *ocidisttest.Content, list, _ ocidisttest.Descriptor) {
			c.Tags["1.4"] = c.List(c.Image("linux", "s390x")).Digest
		}, "1.4", "linux/s390x"},
		"a path for a digest": {func(c *ocidisttest.Content, _, _ ocidisttest.Descriptor) {
			c.Tags["1.4"] = c.Put(map[string]any{"mediaType": ocidisttest.Manifest, "config": ocidisttest.Descriptor{MediaType: "x", Digest: "sha256:../../../etc/passwd"}}).Digest
		}, "1.4", "names a digest"},
		"a negative size": {func(c *ocidisttest.Content, _, _ ocidisttest.Descriptor) {
			c.Tags["1.4"] = c.Put(map[string]any{"mediaType": ocidisttest.Manifest, "config": ocidisttest.Descriptor{MediaType: "x", Digest: artifact.Sum(nil), Size: -5}}).Digest
		}, "1.4", "size of -5"},
		"an old manifest": {func(c *ocidisttest.Content, _, _ ocidisttest.Descriptor) {
			c.Tags["1.4"] = c.Put(map[string]any{"mediaType": "application/vnd.docker.distribution.manifest.v1+json"}).Digest
		}, "1.4", "not known"},
		"a tag that is not there": {func(*ocidisttest.Content, ocidisttest.Descriptor, ocidisttest.Descriptor) {}, "2", "404"},
	} {
		t.Run(name, func(t *testing.T) {
			c, list, amd, _ := upstream()
			tc.change(c, list, amd)
			srv := c.Serve(t, "app", "")
			if _, _, err := collect(t, fetch.Options{}, strings.TrimPrefix(srv.URL, "http://")+"/app:"+tc.item); err == nil || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestEntriesThatAreNoImagesAreRefused(t *testing.T) {
	for _, item := range []any{
		"app:1", "registry.example/app", "registry.example/App:1", "registry.example/../app:1", "registry.example/app:../1", "registry.example/app@sha256:1", "https://registry.example/app:1",
		7,
		map[string]any{"image": "registry.example/app:1", "other": 1},
		map[string]any{"image": "registry.example/app:1", "platforms": []any{"linux"}},
		map[string]any{"image": "registry.example/app:1", "registry": "https://user:password@registry.example"},
	} {
		if o, err := order(item, ecosystem.Target{}); err == nil {
			t.Errorf("%v was read as %+v", item, o)
		}
	}
}

func TestAnImageFileThatClaimsWhatIsNotItsOwnIsNotShown(t *testing.T) {
	c, list, _, _ := upstream()
	other := c.Image("linux", "amd64", []byte("other"))
	for name, image := range map[string]string{
		"another's tag":      `{"tags":{"latest":"` + string(other.Digest) + `"},"types":{"` + string(other.Digest) + `":"` + ocidisttest.Manifest + `"}}`,
		"a manifest not its": `{"tags":{"1":"` + string(list.Digest) + `"},"types":{"` + string(list.Digest) + `":"` + ocidisttest.Index + `"}}`,
		"no JSON":            `{`,
	} {
		t.Run(name, func(t *testing.T) {
			rel := &ecosystemtest.Release{}
			rel.AddAll(artifact.Ref{Kind: "oci", Name: "registry.example/app", Version: "1"},
				map[string][]byte{"image.json": []byte(image), "manifests/" + other.Digest.Hex(): c.Manifests[other.Digest]})
			h, err := (&Ecosystem{}).Handler(rel)
			if err != nil {
				t.Fatal(err)
			}
			for _, tag := range []string{"latest", "1"} {
				if w := get(t, h, "/registry.example/app/manifests/"+tag); w.Code != http.StatusNotFound {
					t.Errorf("%s: status %d", tag, w.Code)
				}
			}
		})
	}
}

func TestWhatIsMissedIsNamedAsAnEntry(t *testing.T) {
	e := &Ecosystem{}
	for path, want := range map[string]string{
		"/registry.example/team/app/manifests/1.4":                                   "registry.example/team/app:1.4",
		"/registry.example_5000/app/manifests/sha256:" + strings.Repeat("a", 64):     "registry.example:5000/app@sha256:" + strings.Repeat("a", 64),
		"/team/app/manifests/1.4":                                                    "",
		"/registry.example/team/app/blobs/1.4":                                       "",
		"/registry.example/app/manifests/sha256-" + strings.Repeat("a", 64) + ".sig": "",
		"/registry.example/app/../x/manifests/1":                                     "",
	} {
		if got, _ := e.Wanted(path); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

func TestLoginsOfClientsAreRead(t *testing.T) {
	got := parseSettings([]byte(`{"auths":{"https://registry.example/v1/":{"auth":"dXNlcjpwYXNzOndvcmQ="},"bad.example":{"auth":"%"},"t.example":{"registrytoken":"abc"}},"credsStore":"x"}`))
	slices.SortFunc(got, func(a, b fetch.Credential) int { return strings.Compare(a.Host, b.Host) })
	want := []fetch.Credential{{Host: "registry.example", User: "user", Password: "pass:word"}, {Host: "t.example", Token: "abc"}}
	if !slices.Equal(got, want) {
		t.Errorf("got %#v", got)
	}
}
