package npm

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/ecosystemtest"
	"enisle/internal/fail"
)

func tarball(t *testing.T, manifest string) []byte {
	t.Helper()
	b, err := ecosystemtest.Tarball(ecosystemtest.Member{Name: "package/index.js", Content: "module.exports = 1\n"},
		ecosystemtest.Member{Name: "package/package.json", Content: manifest})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mirror(t *testing.T) (http.Handler, map[string][]byte) {
	t.Helper()
	rel, files := &ecosystemtest.Release{}, map[string][]byte{}
	add := func(name, version, file, manifest string) {
		b := tarball(t, manifest)
		rel.Add(artifact.Ref{Kind: Kind, Name: name, Version: version}, artifact.File{Path: file, Published: time.Date(2024, 1, 2, 3, 4, 5, 0, time.UTC)}, b)
		files["/"+name+"/-/"+file] = b
	}
	add("plain", "9.0.0", "plain-9.0.0.tgz", `{"name":"lies","version":"0","_resolved":"x","dist":{"tarball":"x"},"bin":"index.js"}`)
	add("plain", "10.0.0", "plain-10.0.0.tgz", `{"name":"plain","version":"10.0.0","os":["linux"],"dependencies":{"@scope/dep":"1"}}`)
	add("plain", "11.0.0-rc.1", "plain-11.0.0-rc.1.tgz", `{"name":"plain"}`)
	add("@scope/dep", "1.0.0", "dep-1.0.0.tgz", `{"name":"@scope/dep","version":"1.0.0"}`)
	rel.Add(artifact.Ref{Kind: Kind, Name: "broken", Version: "1.0.0"}, artifact.File{Path: "broken-1.0.0.tgz"}, []byte("not a tarball"))
	rel.Add(artifact.Ref{Kind: "pypi", Name: "foreign", Version: "1.0"}, artifact.File{Path: "foreign-1.0.tgz"}, tarball(t, "{}"))
	h, err := (&Ecosystem{}).Handler(rel)
	if err != nil {
		t.Fatal(err)
	}
	return h, files
}

func TestTheMirrorConforms(t *testing.T) {
	h, files := mirror(t)
	ecosystemtest.Check(t, ecosystemtest.Mirror{
		Handler: h, Files: files, Pages: []string{"/plain", "/@scope/dep", "/@scope%2fdep"},
		Absent: []string{"/", "/foreign", "/foreign/-/foreign-1.0.tgz", "/broken", "/scope/dep", "/npm", "/plain/-/plain-8.0.0.tgz", "/@scope/dep/-/plain-9.0.0.tgz"},
	})
}

func TestThePackageDocumentIsOfTheReleaseAndForTheClient(t *testing.T) {
	h, _ := mirror(t)
	srv := httptest.NewServer(http.StripPrefix("/c/stable/npm", h))
	defer srv.Close()
	for path, latest := range map[string]string{"plain": "10.0.0", "@scope%2fdep": "1.0.0"} {
		res, err := http.Get(srv.URL + "/c/stable/npm/" + path)
		if err != nil {
			t.Fatal(err)
		}
		var doc struct {
			Name     string                    `json:"name"`
			Tags     map[string]string         `json:"dist-tags"`
			Time     map[string]string         `json:"time"`
			Versions map[string]map[string]any `json:"versions"`
		}
		if err := errors.Join(json.NewDecoder(res.Body).Decode(&doc), res.Body.Close()); err != nil {
			t.Fatal(err)
		}
		if doc.Tags["latest"] != latest || doc.Time[latest] != "2024-01-02T03:04:05.000Z" {
			t.Errorf("%s: latest %q, time %v", path, doc.Tags["latest"], doc.Time)
		}
		for number, v := range doc.Versions {
			dist, _ := v["dist"].(map[string]any)
			at, _ := dist["tarball"].(string)
			if v["name"] != doc.Name || v["version"] != number || v["_resolved"] != nil || !strings.HasPrefix(at, srv.URL+"/c/stable/npm/"+doc.Name+"/-/") {
				t.Errorf("%s %s: %v", path, number, v)
			}
		}
	}
}

type runner struct{ answer string }

func (r runner) Run(_ context.Context, _ string, _ []string, argv []string) (stdout, stderr []byte, err error) {
	if slices.Contains(argv, "--version") {
		return []byte("11.0.0\n"), nil, nil
	}
	return []byte(r.answer), nil, nil
}

func TestNpmsAnswerBecomesAnArtifactOrIsRefused(t *testing.T) {
	const integrity = "sha512-z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg=="
	answer := func(name, integrity string) string {
		return `{"name":"` + name + `","version":"1.2.3","dist":{"tarball":"https://u:p@r.example/d-1.2.3.tgz?x","integrity":"` + integrity + `"},"time":{"1.2.3":"2024-01-02T03:04:05.678Z"}}`
	}
	for name, tc := range map[string]struct {
		item   any
		answer string
		want   string // part of the error; empty means accepted
	}{
		"a scoped package":        {"@s/d@1.2.3", answer("@s/d", integrity), ""},
		"another package":         {"e@1.2.3", answer("d", integrity), "answered with the package"},
		"several versions":        {"d@1.2.3", "[" + answer("d", integrity) + "]", "one version"},
		"a weaker hash":           {"d@1.2.3", answer("d", "sha1-2jmj7l5rSw0yVb/vlWAYkK/YBwk="), "integrity"},
		"an alias":                {"d@npm:e@1", "", "names no package"},
		"an address":              {"https://x.example/d@1", "", "names no package"},
		"an option":               {"--registry@1", "", "names no package"},
		"a directory":             {"a/b/c@1", "", "names no package"},
		"a lockfile that is gone": {map[string]any{"lockfile": "package-lock.json"}, "", "no such file"},
		"another entry":           {map[string]any{"file": "x"}, "", "unknown entry"},
		"something else than all": {"d@1.2.3", "nonsense", "one version"},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := (&Ecosystem{Runner: runner{tc.answer}}).Resolve(t.Context(), ecosystem.Want{Items: []any{tc.item}})
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error(), tc.want) || fail.HintOf(err) == "" {
					t.Errorf("got %v (hint %q), want %q", err, fail.HintOf(err), tc.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			f := got[0].Files[0]
			sum, err := hex.DecodeString(f.Hashes["sha512"])
			if err != nil || len(sum) != 64 || f.Path != "d-1.2.3.tgz" || f.Origin != "https://r.example/d-1.2.3.tgz" || f.Size != -1 || f.Digest != "" || f.Published.IsZero() || got[0].By != "npm 11.0.0" {
				t.Errorf("got %+v", got[0])
			}
		})
	}
}

func FuzzManifest(f *testing.F) {
	f.Add([]byte("not a tarball"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := manifest(strings.NewReader(string(b))); err == nil && m == nil {
			t.Error("neither a manifest nor an error")
		}
	})
}
