package app

import (
	"bufio"
	"bytes"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/ecosystemtest"
)

// mirrored is every mirror over a release with something of each world.
func mirrored(t testing.TB) http.Handler {
	t.Helper()
	rel := &ecosystemtest.Release{}
	add := func(kind, name, version string, files map[string]string) {
		all := map[string][]byte{}
		for path, content := range files {
			all[path] = []byte(content)
		}
		rel.AddAll(artifact.Ref{Kind: kind, Name: name, Version: version}, all)
	}
	crate := strings.Repeat("c", 64)
	add("pypi", "some-project", "1.0", map[string]string{"some_project-1.0-py3-none-any.whl": "no archive"})
	add("npm", "@scope/name", "1.0.0", map[string]string{"name-1.0.0.tgz": "no archive"})
	add("cargo", "some_crate", "1.0.0", map[string]string{"some_crate-1.0.0.crate": crate, "index.json": `{"name":"some_crate","vers":"1.0.0","deps":[],"cksum":"` + artifact.Sum([]byte(crate)).Hex() + `","features":{}}`})
	add("gomod", "code.example/M/mod", "v1.0.0", map[string]string{"v1.0.0.info": "{}", "v1.0.0.mod": "module code.example/M/mod\n", "v1.0.0.zip": "zip"})
	add("maven", "org.example/thing", "1.0", map[string]string{"thing-1.0.jar": "no archive", "thing-1.0.pom": "<project/>"})
	add("files", "dir/file.txt", "", map[string]string{"file.txt": "text"})
	add("helm", "chart", "1.0.0", map[string]string{"chart-1.0.0.tgz": "no archive"})
	add("hf", "org/name", strings.Repeat("0", 40), map[string]string{"config.json": "{}"})
	add("oci", "registry.example/team/app", "1.0", map[string]string{"image.json": `{}`})
	ecosystems := (&App{}).ecosystems(nil, nil)
	mux := http.NewServeMux()
	handlers := map[string]http.Handler{}
	for _, e := range ecosystems {
		h, err := e.Handler(rel)
		if err != nil {
			t.Fatal(err)
		}
		if h == nil {
			continue // another one shows it
		}
		handlers[e.Name()] = h
		prefix := "/" + ecosystem.PrefixOf(e)
		mux.Handle(prefix+"/", http.StripPrefix(prefix, h))
	}
	return impersonate(mux, rel, ecosystems, handlers)
}

// FuzzMirrors asks every mirror whatever a client may send: no answer is an error of the
// mirror's own, none leads elsewhere, and none is a page of which a browser would run code.
func FuzzMirrors(f *testing.F) {
	h := mirrored(f)
	for _, path := range []string{
		"pypi/simple/some-project/", "pypi/simple/Some.Project", "pypi/simple//%2e%2e/x/", "pypi/files/" + strings.Repeat("0", 64) + "/a-1-py3-none-any.whl.metadata",
		"npm/@scope%2fname", "npm/@scope/name/-/name-1.0.0.tgz", "npm/-/package/@scope%2fname/dist-tags", "npm/-/v1/search", "npm/@", "npm/-/", "npm//",
		"cargo/config.json", "cargo/so/me/some_crate", "cargo/crates/some_crate/some_crate-1.0.0.crate", "cargo/1/", "cargo/crates//",
		"go/code.example/!m/mod/@v/v1.0.0.info", "go/code.example/!m/mod/@v/list", "go/code.example/!m/mod/@latest", "go/sumdb/sum.example/lookup/x@v1", "go/!!/@v/list", "go/sumdb/sum.example/tile/8/0/x001.p/0",
		"maven/org/example/thing/1.0/thing-1.0.jar.sha1", "maven/org/example/thing/maven-metadata.xml", "maven/org/example/maven-metadata.xml.md5", "maven/../..",
		"files/", "files/dir/file.txt", "files/%00", "helm/index.yaml", "helm/chart-1.0.0.tgz", "helm/a-b-c-1.tgz",
		"hf/api/models/org/name/tree/main?recursive=1&limit=-1&cursor=%ff", "hf/org/name/resolve/main/config.json", "hf/api/datasets?search=%00&author=", "hf/api/models/org/name/paths-info/main",
		"v2/", "v2/_catalog?n=1&last=%zz", "v2/team/app/manifests/1.0?ns=registry.example:5000", "v2/team/app/blobs/sha256:x", "v2/a/b/referrers/sha256:0?artifactType=x", "v2/library/m/manifests/latest",
		"debian/dists/bookworm/InRelease", "debian/pool/00/x/jq_1.6_amd64.deb", "debian/dists/../../etc/passwd",
	} {
		for _, more := range []string{"", "Range: bytes=0-0,2-1,-9999999999999999999", "Accept: */*;q=x,text/html;q=2\r\nIf-None-Match: \"\r\nUser-Agent: ollama/0", "If-Range: W/\"x\"\r\nRange: bytes=" + strings.Repeat("0-1,", 500) + "5-"} {
			f.Add("GET", path, more)
		}
		f.Add("POST", path, "Content-Type: application/json\r\nContent-Length: 0")
		f.Add("HEAD", path, "Host: registry.example")
	}
	f.Fuzz(func(t *testing.T, method, path, more string) {
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(method + " /" + path + " HTTP/1.1\r\n" + more + "\r\n\r\n")))
		if err != nil {
			return // it never gets here
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r.WithContext(t.Context()))
		if w.Code >= http.StatusInternalServerError {
			t.Errorf("%s /%s: %d: %.200s", method, path, w.Code, w.Body)
		}
		if to := w.Header().Get("Location"); strings.HasPrefix(to, "//") || strings.HasPrefix(to, `/\`) || strings.Contains(to, "://") {
			t.Errorf("/%s leads to %q", path, to)
		}
		if w.Code == http.StatusOK && strings.HasPrefix(w.Header().Get("Content-Type"), "text/html") && !strings.Contains(w.Header().Get("Content-Security-Policy"), "default-src 'none'") {
			t.Errorf("/%s is a page that a browser would take for the mirror's own", path)
		}
		if w.Code == http.StatusNotFound && bytes.ContainsAny(w.Body.Bytes(), "\x00\x1b") {
			t.Errorf("/%s: what is not found is told with letters of the asker's", path)
		}
	})
}
