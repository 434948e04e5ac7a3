package vuln

import (
	"archive/zip"
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"enisle/internal/judge/vuln/vulntest"
)

func TestAffects(t *testing.T) {
	rng := func(kind string, events ...Event) Record { return Record{Ranges: []Range{{kind, events}}} }
	pypi := func(v string) Component { return Component{Ecosystem: "PyPI", Version: v} }
	npm := func(v string) Component { return Component{Ecosystem: "npm", Version: v} }
	deb := func(v string) Component { return Component{Ecosystem: "Debian:12", Version: v} }
	from0 := Event{Introduced: "0"}
	for name, tc := range map[string]struct {
		rec    Record
		c      Component
		want   bool
		fixed  string
		unsure bool
	}{
		"before the fix":               {rng("ECOSYSTEM", from0, Event{Fixed: "2.32.0"}), pypi("2.31.0"), true, "2.32.0", false},
		"the fix":                      {rng("ECOSYSTEM", from0, Event{Fixed: "2.32.0"}), pypi("2.32.0"), false, "", false},
		"a candidate of the fix":       {rng("ECOSYSTEM", from0, Event{Fixed: "2.32.0"}), pypi("2.32.0rc1"), true, "2.32.0", false},
		"numbers, not words":           {rng("ECOSYSTEM", from0, Event{Fixed: "2.10"}), pypi("2.9"), true, "2.10", false},
		"an epoch":                     {rng("ECOSYSTEM", from0, Event{Fixed: "1!0.1"}), pypi("9.0"), true, "1!0.1", false},
		"a post release":               {rng("ECOSYSTEM", from0, Event{LastAffected: "1.0"}), pypi("1.0.post1"), false, "", false},
		"the last affected":            {rng("ECOSYSTEM", from0, Event{LastAffected: "1.0"}), pypi("1.0"), true, "", false},
		"before it was introduced":     {rng("ECOSYSTEM", Event{Introduced: "1.0"}, Event{Fixed: "2.0"}), pypi("0.9"), false, "", false},
		"between two ranges":           {rng("ECOSYSTEM", from0, Event{Fixed: "1.1"}, Event{Introduced: "2.0"}, Event{Fixed: "2.3"}), pypi("1.5"), false, "", false},
		"in the second range":          {rng("ECOSYSTEM", from0, Event{Fixed: "1.1"}, Event{Introduced: "2.0"}, Event{Fixed: "2.3"}), pypi("2.1"), true, "2.3", false},
		"events out of order":          {rng("ECOSYSTEM", Event{Fixed: "2.3"}, Event{Introduced: "2.0"}, Event{Fixed: "1.1"}, from0), pypi("2.1"), true, "2.3", false},
		"fixed and introduced at once": {rng("ECOSYSTEM", from0, Event{Fixed: "1.0"}, Event{Introduced: "1.0"}), pypi("1.0"), true, "", false},
		"never mended":                 {rng("ECOSYSTEM", from0), pypi("99"), true, "", false},
		"semver before a release":      {rng("SEMVER", from0, Event{Fixed: "2.0.0"}), npm("2.0.0-beta.1"), true, "2.0.0", false},
		"semver, build is no order":    {rng("SEMVER", from0, Event{Fixed: "2.0.0"}), npm("2.0.0+build"), false, "", false},
		"below the limit":              {rng("SEMVER", from0, Event{Limit: "2.0.0"}), npm("1.9.0"), true, "", false},
		"at the limit":                 {rng("SEMVER", from0, Event{Limit: "2.0.0"}), npm("2.0.0"), false, "", false},
		"no limit":                     {rng("SEMVER", from0, Event{Limit: "*"}), npm("2.0.0"), true, "", false},
		"Debian's revisions":           {rng("ECOSYSTEM", from0, Event{Fixed: "3.0.11-1~deb12u2"}), deb("3.0.11-1~deb12u1"), true, "3.0.11-1~deb12u2", false},
		"Debian's tilde":               {rng("ECOSYSTEM", from0, Event{Fixed: "1.0"}), deb("1.0~rc1"), true, "1.0", false},
		"Debian's epoch":               {rng("ECOSYSTEM", from0, Event{Fixed: "1:1.0"}), deb("2.0"), true, "1:1.0", false},
		"listed":                       {Record{Versions: []string{"1.0", "1.1"}}, pypi("1.1"), true, "", false},
		"not listed":                   {Record{Versions: []string{"1.0", "1.1"}}, pypi("1.2"), false, "", false},
		"a build of the last affected": {rng("ECOSYSTEM", from0, Event{LastAffected: "2.5.0"}), pypi("2.5.0+cu121"), true, "", false},
		"a build of the fix":           {rng("ECOSYSTEM", from0, Event{Fixed: "2.6.0"}), pypi("2.6.0+cpu"), false, "", false},
		"a build of one listed":        {Record{Versions: []string{"2.5.0"}}, pypi("2.5.0+cu121"), true, "", false},
		"listed in another spelling":   {Record{Versions: []string{"1.0"}}, pypi("1.0.0"), true, "", false},
		"listed with its epoch":        {Record{Versions: []string{"0!1.0"}}, pypi("1.0"), true, "", false},
		"listed as a candidate":        {Record{Versions: []string{"1.0-RC1"}}, pypi("1.0rc1"), true, "", false},
		"listed, and longer":           {Record{Versions: []string{"1.0.1"}}, pypi("1.0"), false, "", false},
		"Maven's spelling":             {Record{Versions: []string{"1.0"}}, Component{Ecosystem: "Maven", Version: "1.0.0"}, true, "", false},
		"listed beside commits":        {Record{Versions: []string{"1.0"}, Ranges: []Range{{"GIT", []Event{from0}}}}, pypi("1.2"), false, "", false},
		"commits only":                 {rng("GIT", from0, Event{Fixed: "abc"}), pypi("1.2"), true, "", true},
		"nothing stated":               {Record{}, pypi("1.2"), true, "", false},
		"a border without a side":      {rng("ECOSYSTEM", Event{}), pypi("1.2"), true, "", true},
		"Maven's words": {
			rng("ECOSYSTEM", from0, Event{Fixed: "2.0"}), Component{Ecosystem: "Maven", Version: "2.0-alpha1"}, true, "2.0", false,
		},
		"Go": {rng("SEMVER", from0, Event{Fixed: "0.17.0"}), Component{Ecosystem: "Go", Version: "0.0.0-20200226121028-0de0cce0169b"}, true, "0.17.0", false},
	} {
		t.Run(name, func(t *testing.T) {
			got := tc.rec.Affects(tc.c)
			if got.Is != tc.want || got.Fixed != tc.fixed || (got.Unsure != "") != tc.unsure {
				t.Errorf("%+v", got)
			}
		})
	}
}

func TestParse(t *testing.T) {
	for purl, want := range map[string]Component{
		"pkg:pypi/Ruamel_Yaml@1.0":                                          {Ecosystem: "PyPI", Name: "ruamel-yaml", Version: "1.0"},
		"pkg:npm/%40babel/traverse@7.0.0":                                   {Ecosystem: "npm", Name: "@babel/traverse", Version: "7.0.0"},
		"pkg:golang/golang.org/x/net@v0.1.0":                                {Ecosystem: "Go", Name: "golang.org/x/net", Version: "0.1.0"},
		"pkg:maven/org.yaml/snakeyaml@1.30":                                 {Ecosystem: "Maven", Name: "org.yaml:snakeyaml", Version: "1.30"},
		"pkg:deb/debian/libssl3@3.0.11-1?distro=debian-12&upstream=openssl": {Ecosystem: "Debian:12", Name: "openssl", Version: "3.0.11-1"},
		"pkg:deb/debian/libc-bin@2.36?upstream=glibc%402.36-9":              {Ecosystem: "Debian", Name: "glibc", Version: "2.36-9"},
		"pkg:deb/ubuntu/bash@5.1?distro=ubuntu-22.04":                       {Ecosystem: "Ubuntu:22.04", Name: "bash", Version: "5.1"},
		"pkg:apk/alpine/busybox@1.36.1-r0?distro=alpine-3.19":               {Ecosystem: "Alpine:v3.19", Name: "busybox", Version: "1.36.1-r0"},
	} {
		c, ok, err := Parse(purl)
		want.PURL = purl
		if err != nil || !ok || c != want {
			t.Errorf("%s: %+v %v %v", purl, c, ok, err)
		}
	}
	for _, bad := range []string{"pypi/x@1", "pkg:pypi/x", ""} {
		if _, ok, err := Parse(bad); ok || err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if _, ok, err := Parse("pkg:huggingface/a/b@1"); ok || err != nil {
		t.Error("a model has advisories")
	}
}

func TestScore(t *testing.T) {
	for _, tc := range []struct {
		rec    Record
		want   float64
		stated bool
	}{
		{Record{Severity: []Severity{{"CVSS_V3", "CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}}}, 9.8, true},
		{Record{Severity: []Severity{{"CVSS_V3", "CVSS:3.0/AV:L/AC:L/PR:L/UI:N/S:U/C:N/I:N/A:H"}}}, 5.5, true},
		{Record{Severity: []Severity{{"CVSS_V2", "AV:N/AC:M/Au:N/C:P/I:P/A:P"}}}, 6.8, true},
		{Record{Severity: []Severity{{"CVSS_V4", "CVSS:4.0/AV:N/AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H/SC:N/SI:N/SA:N"}}}, 9.3, true},
		{Record{Severity: []Severity{{"CVSS_V3", "CVSS:3.1/AV:?"}}, Level: "CRITICAL"}, 9, true},
		{Record{Level: "MODERATE"}, 4, true},
		{Record{}, 0, false},
	} {
		if got, stated := tc.rec.Score(); got != tc.want || stated != tc.stated {
			t.Errorf("%+v: %v %v", tc.rec, got, stated)
		}
	}
}

// built makes a sorted file out of files of OSV, by name.
func built(t *testing.T, ecosystem string, files map[string]string) ([]byte, error) {
	t.Helper()
	var in, out bytes.Buffer
	z := zip.NewWriter(&in)
	for name, content := range files {
		w, err := z.Create(name)
		if err == nil {
			_, err = io.WriteString(w, content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := Build(context.Background(), ecosystem, bytes.NewReader(in.Bytes()), int64(in.Len()), &out)
	return out.Bytes(), err
}

const honest = `{"id":"PYSEC-1","modified":"2026-01-02T03:04:05Z","aliases":["CVE-1"],"summary":"a  flaw","severity":[{"type":"CVSS_V3","score":"CVSS:3.1/AV:N/AC:L/PR:N/UI:N/S:U/C:H/I:H/A:H"}],
"affected":[{"package":{"ecosystem":"PyPI","name":"Some_Thing"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"2.0"}]}]},
{"package":{"ecosystem":"PyPI","name":"other"},"versions":["1.0"]},{"package":{"ecosystem":"npm","name":"other"}}]}`

func TestBuildAndLookup(t *testing.T) {
	files := map[string]string{
		"PYSEC-1.json": honest,
		"GHSA-1.json":  `{"id":"GHSA-1","modified":"2026-02-02T03:04:05Z","aliases":["CVE-1"],"database_specific":{"severity":"HIGH"},"affected":[{"package":{"ecosystem":"PyPI","name":"some-thing"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":"2.0"}]}]}]}`,
		"MAL-1.json":   `{"id":"MAL-1","modified":"2026-02-02T03:04:05Z","affected":[{"package":{"ecosystem":"PyPI","name":"some-thing-else"}}]}`,
		"OLD-1.json":   `{"id":"OLD-1","modified":"2027-02-02T03:04:05Z","withdrawn":"2027-01-01T00:00:00Z","affected":[{"package":{"ecosystem":"PyPI","name":"some-thing"}}]}`,
	}
	b, err := built(t, "PyPI", files)
	if err != nil {
		t.Fatal(err)
	}
	d, err := Open(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	if d.Head.Advisories != 3 || d.Head.Entries != 4 || d.Head.Newest.Year() != 2026 {
		t.Errorf("%+v", d.Head)
	}
	if err := d.Verify(context.Background()); err != nil {
		t.Error(err)
	}
	look := func(purl string) []Found {
		c, ok, err := Parse(purl)
		if err != nil || !ok {
			t.Fatal(err)
		}
		found, err := d.Lookup(c)
		if err != nil {
			t.Fatal(err)
		}
		return Group(found)
	}
	got := look("pkg:pypi/some.thing@1.5")
	if len(got) != 1 || got[0].Record.ID != "PYSEC-1" || got[0].Affected.Fixed != "2.0" || !slices.Contains(got[0].Record.Aliases, "GHSA-1") {
		t.Errorf("%+v", got)
	}
	if got := look("pkg:pypi/some-thing-else@1"); len(got) != 1 || !got[0].Record.Malicious() {
		t.Errorf("%+v", got)
	}
	for _, clean := range []string{"pkg:pypi/some-thing@2.0", "pkg:pypi/some@1", "pkg:pypi/aaa@1", "pkg:pypi/zzz@1", "pkg:pypi/other@1.1", "pkg:pypi/some-thing-els@1"} {
		if got := look(clean); len(got) != 0 {
			t.Errorf("%s: %+v", clean, got)
		}
	}
	if _, err := d.Lookup(Component{Ecosystem: "npm", Name: "x", Version: "1"}); err == nil {
		t.Error("data of PyPI was asked about npm")
	}
}

func TestBuildRefuses(t *testing.T) {
	for name, files := range map[string]map[string]string{
		"nothing":               {},
		"no JSON":               {"a.json": "{"},
		"no id":                 {"a.json": `{"modified":"2026-01-02T03:04:05Z"}`},
		"no time":               {"a.json": `{"id":"A"}`},
		"another file":          {"a.json": honest, "a.txt": "hello"},
		"other ecosystems only": {"a.json": `{"id":"A","modified":"2026-01-02T03:04:05Z","affected":[{"package":{"ecosystem":"npm","name":"x"}}]}`},
		"a name with a tab":     {"a.json": `{"id":"A","modified":"2026-01-02T03:04:05Z","affected":[{"package":{"ecosystem":"PyPI","name":"x\ty"}}]}`},
		"no name":               {"a.json": `{"id":"A","modified":"2026-01-02T03:04:05Z","affected":[{"package":{"ecosystem":"PyPI"}}]}`},
		"one twice":             {"a.json": honest, "b.json": honest},
	} {
		if _, err := built(t, "PyPI", files); err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
}

func TestDamagedDataIsRefused(t *testing.T) {
	b, err := built(t, "PyPI", map[string]string{"a.json": honest, "b.json": strings.ReplaceAll(honest, "PYSEC-1", "PYSEC-2")})
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(string(b), "\n")
	for name, text := range map[string]string{
		"empty":                "",
		"no head":              strings.Join(lines[1:], ""),
		"another format":       strings.Replace(string(b), Format, "enisle-osv/9", 1),
		"a head of nothing":    `{"format":"enisle-osv/1","ecosystem":"PyPI","advisories":0,"entries":0,"newest":"2026-01-02T03:04:05Z"}` + "\n",
		"a line is missing":    strings.Join(append(slices.Clone(lines[:2]), lines[3:]...), ""),
		"lines out of order":   lines[0] + lines[2] + lines[1] + strings.Join(lines[3:], ""),
		"a line twice":         lines[0] + lines[1] + lines[1] + strings.Join(lines[2:], ""),
		"cut off":              string(b[:len(b)-10]),
		"a record of another":  strings.Replace(string(b), `"id":"PYSEC-1"`, `"id":"PYSEC-9"`, 1),
		"an unknown key":       strings.Replace(string(b), `"id":"PYSEC-1"`, `"idx":"PYSEC-1"`, 1),
		"a younger head":       strings.Replace(string(b), "2026-01-02", "2026-09-02", 1),
		"of another ecosystem": strings.Replace(string(b), "\tPyPI\t", "\tnpm\t", 1),
	} {
		d, err := Open(strings.NewReader(text), int64(len(text)))
		if err == nil {
			err = d.Verify(context.Background())
		}
		if err == nil {
			t.Errorf("%s: was taken", name)
		}
	}
}

// TestLookupFindsEveryLine looks every component of a generated database up, and
// compares with reading all of it.
func TestLookupFindsEveryLine(t *testing.T) {
	all, err := vulntest.Ecosystems()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range all {
		t.Run(Base(e.Name), func(t *testing.T) {
			if !slices.Contains(Ecosystems(), e.Name) {
				t.Fatalf("%s is not known", e.Name)
			}
			var in, out bytes.Buffer
			if err := vulntest.Export(&in, e, 1500, time.Now(), rand.New(rand.NewPCG(1, 2))); err != nil {
				t.Fatal(err)
			}
			head, err := Build(context.Background(), e.Name, bytes.NewReader(in.Bytes()), int64(in.Len()), &out)
			if err != nil {
				t.Fatal(err)
			}
			d, err := Open(bytes.NewReader(out.Bytes()), int64(out.Len()))
			if err != nil {
				t.Fatal(err)
			}
			if err := d.Verify(context.Background()); err != nil {
				t.Fatal(err)
			}
			want := map[string]int{}
			rows := strings.Split(strings.TrimSpace(out.String()), "\n")[1:]
			for _, row := range rows {
				l, rec, err := parseLine([]byte(row))
				if err != nil {
					t.Fatal(err)
				}
				for _, v := range []string{"0.0.1", "1.2.3", "2.5.0", "99"} {
					if rec.Affects(Component{Ecosystem: e.Name, Name: l.name, Version: v}).Is {
						want[l.name+" "+v]++
					}
				}
			}
			if len(want) < 100 || head.Entries != len(rows) {
				t.Fatalf("%d of %d lines say something", len(want), head.Entries)
			}
			for key, n := range want {
				name, v, _ := strings.Cut(key, " ")
				found, err := d.Lookup(Component{Ecosystem: e.Name, Name: name, Version: v})
				if err != nil || len(found) != n {
					t.Fatalf("%s: %d found, %d are there: %v", key, len(found), n, err)
				}
			}
		})
	}
}

// An image may say of itself that it is of a release that does not exist: then the
// advisories about every release count.
func TestAnUnknownReleaseHidesNothing(t *testing.T) {
	advisory := func(id, eco, fixed string) string {
		return fmt.Sprintf(`{"id":%q,"modified":"2026-01-02T03:04:05Z","affected":[{"package":{"ecosystem":%q,"name":"openssl"},"ranges":[{"type":"ECOSYSTEM","events":[{"introduced":"0"},{"fixed":%q}]}]}]}`, id, eco, fixed)
	}
	for _, tc := range []struct {
		base, of string
		want     int
	}{
		{"Debian", "Debian:12", 1},
		{"Debian", "Debian:13", 1},
		{"Debian", "Debian:99", 2},
		{"Debian", "Debian", 2},
		{"Ubuntu", "Ubuntu:22.04", 1},
		{"Ubuntu", "Ubuntu:22", 2},
		{"Ubuntu", "Ubuntu:", 2},
	} {
		releases := []string{"Debian:12", "Debian:13"}
		if tc.base == "Ubuntu" {
			releases = []string{"Ubuntu:22.04:LTS", "Ubuntu:24.04:LTS"}
		}
		b, err := built(t, tc.base, map[string]string{"a.json": advisory("A-1", releases[0], "3.0"), "b.json": advisory("A-2", releases[1], "3.0")})
		if err != nil {
			t.Fatal(err)
		}
		d, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			found, err := d.Lookup(Component{Ecosystem: tc.of, Name: "openssl", Version: "2.0"})
			if err != nil || len(found) != tc.want {
				t.Errorf("%s: %d found, want %d: %v", tc.of, len(found), tc.want, err)
			}
		}
	}
}

// Many advisories about many components are joined in little time.
func TestGroupIsQuick(t *testing.T) {
	var found []Found
	for i := range 200_000 {
		found = append(found, Found{Component: Component{PURL: fmt.Sprintf("pkg:pypi/p%d@1", i/2)}, Record: Record{ID: fmt.Sprintf("A-%d", i), Aliases: []string{fmt.Sprintf("CVE-%d", i/2)}}})
	}
	begin := time.Now()
	if out := Group(found); len(out) != 100_000 || time.Since(begin) > 20*time.Second {
		t.Errorf("%d in %s", len(out), time.Since(begin))
	}
}

func FuzzData(f *testing.F) {
	for _, s := range []string{"", "{}\n", `{"format":"enisle-osv/1","ecosystem":"PyPI","advisories":1,"entries":1,"newest":"2026-01-02T03:04:05Z"}` + "\nx\tPyPI\tA\t" + `{"id":"A","modified":"2026-01-02T03:04:05Z"}` + "\n"} {
		f.Add([]byte(s), "x", "1.0")
	}
	f.Fuzz(func(t *testing.T, b []byte, name, version string) {
		d, err := Open(bytes.NewReader(b), int64(len(b)))
		if err != nil {
			return
		}
		found, err := d.Lookup(Component{PURL: "p", Ecosystem: d.Head.Ecosystem, Name: name, Version: version})
		if err == nil {
			Group(found)
		}
		if err := d.Verify(context.Background()); err == nil && d.Head.Entries < 1 {
			t.Error("verified without a line")
		}
	})
}

func BenchmarkLookup(b *testing.B) {
	all, err := vulntest.Ecosystems()
	if err != nil {
		b.Fatal(err)
	}
	var in, out bytes.Buffer
	if err := vulntest.Export(&in, all[0], 20_000, time.Now(), rand.New(rand.NewPCG(1, 2))); err != nil {
		b.Fatal(err)
	}
	if _, err := Build(context.Background(), all[0].Name, bytes.NewReader(in.Bytes()), int64(in.Len()), &out); err != nil {
		b.Fatal(err)
	}
	d, err := Open(bytes.NewReader(out.Bytes()), int64(out.Len()))
	if err != nil {
		b.Fatal(err)
	}
	i := 0
	for b.Loop() {
		i++
		if _, err := d.Lookup(Component{Ecosystem: "PyPI", Name: fmt.Sprintf("requests-utils%d", i%4000), Version: "1.0"}); err != nil {
			b.Fatal(err)
		}
	}
}
