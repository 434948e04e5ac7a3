package pypi

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem/ecosystemtest"
)

const dummyHeaders = "Requires-Python: >=3.8,<4\n"

func wheel(t *testing.T, name, version, headers string) (string, []byte) {
	t.Helper()
	file, content, err := ecosystemtest.Wheel(name, version, headers)
	if err != nil {
		t.Fatal(err)
	}
	return file, content
}

// mirror returns the handler of a release with one wheel in two versions, and
// the paths of its contents.
func mirror(t *testing.T) (http.Handler, map[string][]byte) {
	t.Helper()
	rel, files := &ecosystemtest.Release{}, map[string][]byte{}
	for _, version := range []string{"1.0", "1.1"} {
		file, content := wheel(t, "so_so", version, dummyHeaders)
		ref := artifact.Ref{Kind: Kind, Name: "so-so", Version: version}
		d := rel.Add(ref, artifact.File{Path: file, Published: time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)}, content)
		files["/files/"+d.Hex()+"/"+file] = content
		files["/files/"+d.Hex()+"/"+file+".metadata"] = []byte("Metadata-Version: 2.1\nName: so_so\nVersion: " + version + "\n" + dummyHeaders + "\n")
	}
	rel.Add(artifact.Ref{Kind: "npm", Name: "other", Version: "1.0"}, artifact.File{Path: "other-1.0.tgz"}, []byte("not a wheel"))
	h, err := New(Options{}).Handler(rel)
	if err != nil {
		t.Fatal(err)
	}
	return h, files
}

func TestTheMirrorConforms(t *testing.T) {
	h, files := mirror(t)
	foreign := artifact.Sum([]byte("not a wheel")).Hex()
	ecosystemtest.Check(t, ecosystemtest.Mirror{
		Handler: h, Files: files, Pages: []string{"/simple/", "/simple/so-so/"},
		Absent: []string{
			"/simple/other/", "/simple/none/", "/simple/none", "/simple/No_Ne/", "/files/" + foreign + "/other-1.0.tgz", "/files/", "/x",
			"/files/" + foreign + "/so_so-1.0-py3-none-any.whl", "/simple/so-so/json", "/simple/%2f%2fother.example",
		},
	})
}

func get(h http.Handler, path, accept string) *httptest.ResponseRecorder {
	req := httptest.NewRequest(http.MethodGet, path, nil)
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, req)
	return w
}

func TestClientsGetTheFormatTheyPrefer(t *testing.T) {
	h, _ := mirror(t)
	for name, tc := range map[string]struct{ accept, want string }{
		"a browser":               {"text/html,application/xhtml+xml,*/*;q=0.8", "text/html"},
		"nothing said":            {"", "text/html"},
		"anything":                {"*/*", "text/html"},
		"pip":                     {"application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01", jsonType},
		"HTML above JSON":         {"application/vnd.pypi.simple.v1+json;q=0.2, application/vnd.pypi.simple.v1+html", htmlType},
		"the latest JSON":         {"application/vnd.pypi.simple.latest+json", jsonType},
		"JSON ruled out":          {"application/vnd.pypi.simple.v1+json;q=0, text/html;q=0.1", "text/html"},
		"something not on offer":  {"image/png", ""},
		"a quality that is wrong": {"application/vnd.pypi.simple.v1+json;q=9, text/html;q=0.1", jsonType},
	} {
		t.Run(name, func(t *testing.T) {
			w := get(h, "/simple/so-so/", tc.accept)
			if tc.want == "" {
				if w.Code != http.StatusNotAcceptable {
					t.Errorf("status %d, want 406", w.Code)
				}
				return
			}
			if got := w.Header().Get("Content-Type"); w.Code != http.StatusOK || got != tc.want || w.Header().Get("Vary") != "Accept" {
				t.Errorf("status %d with %q, want %q", w.Code, got, tc.want)
			}
		})
	}
}

func TestTheJSONPageSaysAllThatClientsAskFor(t *testing.T) {
	h, files := mirror(t)
	var page struct {
		Meta     map[string]string `json:"meta"`
		Name     string            `json:"name"`
		Versions []string          `json:"versions"`
		Files    []struct {
			Filename string            `json:"filename"`
			URL      string            `json:"url"`
			Hashes   map[string]string `json:"hashes"`
			Python   string            `json:"requires-python"`
			Size     int64             `json:"size"`
			Uploaded string            `json:"upload-time"`
			Core     map[string]string `json:"core-metadata"`
			Alias    map[string]string `json:"dist-info-metadata"`
		} `json:"files"`
	}
	if err := json.Unmarshal(get(h, "/simple/so-so/", jsonType).Body.Bytes(), &page); err != nil {
		t.Fatal(err)
	}
	if page.Meta["api-version"] != "1.1" || page.Name != "so-so" || len(page.Versions) != 2 || len(page.Files) != 2 {
		t.Fatalf("got %+v", page)
	}
	for _, f := range page.Files {
		at, ok := strings.CutPrefix(f.URL, "../..")
		content := files[at]
		if !ok || artifact.Sum(content).Hex() != f.Hashes["sha256"] || f.Size != int64(len(content)) {
			t.Errorf("%s: url %q, hashes %v, size %d", f.Filename, f.URL, f.Hashes, f.Size)
		}
		if f.Python != ">=3.8,<4" || f.Uploaded != "2024-01-02T03:04:05Z" {
			t.Errorf("%s: for %q, uploaded %q", f.Filename, f.Python, f.Uploaded)
		}
		if sum := artifact.Sum(files[at+".metadata"]).Hex(); f.Core["sha256"] != sum || f.Alias != nil {
			t.Errorf("%s: core metadata %v, want %s, and none under the older name, on which old clients break: %v", f.Filename, f.Core, sum, f.Alias)
		}
	}
}

func TestTheHTMLPageEscapesWhatAWheelSays(t *testing.T) {
	h, _ := mirror(t)
	page := get(h, "/simple/so-so/", "text/html").Body.String()
	for _, want := range []string{`data-requires-python="&gt;=3.8,&lt;4"`, ` data-core-metadata="sha256=`, ` data-dist-info-metadata="sha256=`, `href="../../files/`, "#sha256="} {
		if !strings.Contains(page, want) {
			t.Errorf("%q is missing in\n%s", want, page)
		}
	}
}

func TestOtherFormsOfANameLeadToTheOne(t *testing.T) {
	h, _ := mirror(t)
	for path, want := range map[string]string{
		"/simple/so-so": "so-so/", "/simple/So_So": "so-so/", "/simple/SO.so/": "../so-so/", "/simple": "simple/", "/": "simple/",
	} {
		if w := get(h, path, ""); w.Code != http.StatusMovedPermanently || w.Header().Get("Location") != want {
			t.Errorf("%s: status %d to %q, want 301 to %q", path, w.Code, w.Header().Get("Location"), want)
		}
	}
}

func TestAWheelWithoutClearMetadataIsServedWithout(t *testing.T) {
	for name, members := range map[string][]ecosystemtest.Member{
		"none":      {{Name: "x.py", Content: "1"}},
		"two":       {{Name: "x-1.dist-info/METADATA", Content: "a"}, {Name: "y-1.dist-info/METADATA", Content: "b"}},
		"too large": {{Name: "x-1.dist-info/METADATA", Content: strings.Repeat("a", maxMetadata+1)}},
	} {
		t.Run(name, func(t *testing.T) {
			content, err := ecosystemtest.Zip(members...)
			if err != nil {
				t.Fatal(err)
			}
			rel := &ecosystemtest.Release{}
			d := rel.Add(artifact.Ref{Kind: Kind, Name: "x", Version: "1"}, artifact.File{Path: "x-1-py3-none-any.whl"}, content)
			h, err := New(Options{}).Handler(rel)
			if err != nil {
				t.Fatal(err)
			}
			if page := get(h, "/simple/x/", jsonType).Body.String(); !strings.Contains(page, `"core-metadata":false`) || !strings.Contains(page, "x-1-py3-none-any.whl") {
				t.Errorf("got %s", page)
			}
			if w := get(h, "/files/"+d.Hex()+"/x-1-py3-none-any.whl.metadata", ""); w.Code != http.StatusNotFound {
				t.Errorf("metadata: status %d, want 404", w.Code)
			}
		})
	}
}
