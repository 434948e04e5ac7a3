package debian

import (
	"context"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/ecosystemtest"
	"enisle/internal/fail"
)

const paragraph = `Package: tool
Version: 1:2.0-1
Architecture: amd64
Depends: base
Description: a tool
 with a second line
Filename: pool/main/t/tool/tool_2.0-1_amd64.deb
Size: 8
MD5sum: 0123
SHA256: ffff
`

type signed struct{ *ecosystemtest.Release }

func (signed) SignedIndex(eco, name string) ([]byte, bool) {
	return []byte("signed " + eco + " " + name), true
}
func (signed) SigningKey() ([]byte, bool) { return []byte("a key"), true }

func archive(t *testing.T) (signed, map[string][]byte) {
	t.Helper()
	rel := &ecosystemtest.Release{}
	deb := []byte("!<arch>\n")
	ref := artifact.Ref{Kind: Kind, Name: "bookworm/tool", Version: "1:2.0-1"}
	stanza := artifact.Sum([]byte(paragraph))
	d := rel.Add(artifact.Ref{Kind: "blob", Name: "x"}, artifact.File{Path: "x"}, []byte(paragraph))
	if d != stanza {
		t.Fatal(d)
	}
	rel.Add(artifact.Ref{Kind: "blob", Name: "y"}, artifact.File{Path: "y"}, deb)
	rel.AddFiles(ref, []artifact.File{
		{Path: "tool_1%3a2.0-1_amd64.deb", Size: int64(len(deb)), Digest: artifact.Sum(deb)},
		{Path: "tool_1%3a2.0-1_amd64.stanza", Size: int64(len(paragraph)), Digest: stanza},
	})
	sum := artifact.Sum(deb).Hex()
	return signed{rel}, map[string][]byte{"/pool/" + sum[:2] + "/" + sum + "/tool_1.2.0-1_amd64.deb": deb}
}

func TestTheMirrorConforms(t *testing.T) {
	rel, files := archive(t)
	h, err := (&Ecosystem{}).Handler(rel)
	if err != nil {
		t.Fatal(err)
	}
	ecosystemtest.Check(t, ecosystemtest.Mirror{
		Handler: h, Files: files,
		Pages:  []string{"/dists/bookworm/InRelease", "/dists/bookworm/main/binary-amd64/Packages", "/dists/bookworm/main/binary-amd64/Packages.gz", "/enisle.asc"},
		Absent: []string{"/", "/dists/trixie/InRelease", "/dists/bookworm/Release", "/pool/main/t/tool/tool_2.0-1_amd64.deb", "/dists/bookworm/main/binary-arm64/Packages"},
	})
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/dists/bookworm/main/binary-amd64/Packages", nil))
	text := w.Body.String()
	for _, want := range []string{"Package: tool\n", " with a second line\n", "Size: 8\n", "SHA256: " + artifact.Sum([]byte("!<arch>\n")).Hex() + "\n", "Filename: pool/"} {
		if strings.Count(text, want) != 1 {
			t.Errorf("%q stands %d times in %s", want, strings.Count(text, want), text)
		}
	}
	if strings.Contains(text, "MD5sum") || strings.Contains(text, "ffff") {
		t.Errorf("what the origin said of its own file stands in %s", text)
	}
}

func TestTheIndexDependsOnTheReleaseAlone(t *testing.T) {
	rel, _ := archive(t)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	one, err := (&Ecosystem{}).Index(rel, at)
	if err != nil {
		t.Fatal(err)
	}
	two, err := (&Ecosystem{}).Index(rel, at)
	if err != nil || string(one["bookworm"]) != string(two["bookworm"]) || len(one) != 1 || !strings.Contains(string(one["bookworm"]), "Date: Fri, 02 Jan 2026 03:04:05 UTC\n") {
		t.Errorf("%s, %v", one["bookworm"], err)
	}
}

func TestParagraphsOfOtherPackagesAreRefused(t *testing.T) {
	for name, text := range map[string]string{
		"another name":    strings.Replace(paragraph, "Package: tool", "Package: other", 1),
		"another version": strings.Replace(paragraph, "1:2.0-1", "3", 1),
		"two":             paragraph + "\n" + paragraph,
		"a path":          strings.Replace(paragraph, "Architecture: amd64", "Architecture: ../x", 1),
		"nothing":         "",
	} {
		rel := &ecosystemtest.Release{}
		deb := []byte("!<arch>\n")
		rel.Add(artifact.Ref{Kind: "blob", Name: "x"}, artifact.File{Path: "x"}, []byte(text))
		rel.Add(artifact.Ref{Kind: "blob", Name: "y"}, artifact.File{Path: "y"}, deb)
		rel.AddFiles(artifact.Ref{Kind: Kind, Name: "bookworm/tool", Version: "1:2.0-1"}, []artifact.File{
			{Path: "tool.deb", Size: int64(len(deb)), Digest: artifact.Sum(deb)}, {Path: "tool.stanza", Size: int64(len(text)), Digest: artifact.Sum([]byte(text))},
		})
		if _, err := (&Ecosystem{}).Handler(rel); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
}

// apt plays apt-get and apt-cache.
type apt struct{ uris, shown string }

func (a apt) Run(_ context.Context, _ string, _ []string, argv []string) (stdout, stderr []byte, err error) {
	switch {
	case slices.Contains(argv, "--version"):
		return []byte("apt 2.6.1 (amd64)\n"), nil, nil
	case slices.Contains(argv, "--print-uris"):
		return []byte(a.uris), nil, nil
	case argv[0] == "apt-cache":
		return []byte(a.shown), nil, nil
	}
	return nil, nil, nil
}

func TestWhatAptSaysBecomesArtifactsOrIsRefused(t *testing.T) {
	sum := strings.Repeat("a", 64)
	shown := strings.Replace(paragraph, "ffff", sum, 1)
	const uri = "'http://archive.example/debian/pool/main/t/tool/tool_2.0-1_amd64.deb' tool_1%3a2.0-1_amd64.deb 8 SHA256:x\n"
	for name, tc := range map[string]struct {
		item        any
		uris, shown string
		want        string
	}{
		"a package":      {"tool", uri, shown, ""},
		"an option":      {"--allow-unauthenticated", uri, shown, "is no package"},
		"a file":         {"./tool.deb", uri, shown, "is no package"},
		"nothing":        {"tool", "", "", "fetch nothing"},
		"a local file":   {"tool", "'file:/var/tool_2.0-1_amd64.deb' tool_1%3a2.0-1_amd64.deb 8\n", shown, "is local"},
		"no hash":        {"tool", uri, paragraph, "states SHA-256"},
		"another file":   {"tool", strings.Replace(uri, "tool_2.0-1_amd64.deb'", "tool_9_amd64.deb'", 1), shown, "knows nothing"},
		"no sources":     {map[string]any{"packages": []any{"tool"}}, uri, shown, "packages and sources"},
		"other sources":  {map[string]any{"packages": []any{"tool"}, "sources": "x.sources"}, uri, shown, ""},
		"an unknown key": {map[string]any{"packages": []any{"tool"}, "keys": "x"}, uri, shown, "unknown key"},
	} {
		t.Run(name, func(t *testing.T) {
			work := t.TempDir()
			want := ecosystem.Want{Items: []any{tc.item}, Work: work, Dir: work, Target: ecosystem.Target{Debian: "bookworm", Arch: "amd64"}}
			got, err := (&Ecosystem{Runner: apt{tc.uris, tc.shown}}).Resolve(t.Context(), want)
			if tc.want != "" {
				if err == nil || !strings.Contains(err.Error()+fail.HintOf(err), tc.want) {
					t.Errorf("%v, want %q", err, tc.want)
				}
				return
			}
			if err != nil || len(got) != 1 || got[0].Ref.String() != "debian/bookworm/tool@1:2.0-1" || got[0].Index != "http://archive.example/debian" {
				t.Fatalf("%+v, %v", got, err)
			}
			at, _, ok := ecosystem.ParseMade(got[0].Files[1].Origin)
			if b, err := os.ReadFile(filepath.Join(work, at)); !ok || err != nil || !strings.Contains(string(b), "Package: tool") {
				t.Errorf("%q, %v", at, err)
			}
		})
	}
}
