package gomod

import (
	"archive/zip"
	"bytes"
	"crypto/rand"
	"io"
	"slices"
	"strings"
	"testing"

	"golang.org/x/mod/sumdb"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/mod/sumdb/note"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/fail"
)

const modText = "module host.example/m\n"

func zipOf(t *testing.T, text string) (content, hash string) {
	t.Helper()
	const name = "host.example/m@v1.0.0/m.go"
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	w, err := z.Create(name)
	if err == nil {
		_, err = w.Write([]byte(text))
	}
	if err == nil {
		err = z.Close()
	}
	if err == nil {
		hash, err = dirhash.Hash1([]string{name}, func(string) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(text)), nil })
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String(), hash
}

// brought is what was collected of three modules of one database, among many others: all
// of one, the go.mod of another, and one that was never looked up.
type brought struct {
	*release
	key string // of the database
}

func bring(t *testing.T) brought {
	t.Helper()
	secret, public, err := note.GenerateKey(rand.Reader, "db.example")
	if err != nil {
		t.Fatal(err)
	}
	content, sum := zipOf(t, "package m\n")
	mod, err := dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(modText)), nil })
	if err != nil {
		t.Fatal(err)
	}
	low := &client{verify: public, cache: map[string][]byte{}, h: sumdb.NewServer(sumdb.NewTestServer(secret, func(path, vers string) ([]byte, error) {
		return []byte(path + " " + vers + " " + sum + "\n" + path + " " + vers + "/go.mod " + mod + "\n"), nil
	}))}
	rel := collected(t, low, 0)
	rel.add("host.example/r0m0", "v1.0.0", file{"v1.0.0.info", "{}"}, file{"v1.0.0.mod", modText}, file{"v1.0.0.zip", content})
	rel.add("host.example/r0m1", "v1.0.0", file{"v1.0.0.mod", modText})
	rel.add("own.example/secret", "v1.0.0", file{"v1.0.0.mod", modText})
	return brought{rel, public}
}

func (b brought) prove(t *testing.T) ([]ecosystem.Proof, error) {
	t.Helper()
	return prove(t.Context(), b.key, ecosystem.Found{Artifacts: b.all, Open: b.Open})
}

// change exchanges the content of the files whose paths hold a text.
func (b brought) change(t *testing.T, path string, to func(was string) string) {
	t.Helper()
	n := 0
	for i := range b.all {
		for j := range b.all[i].Files {
			f := &b.all[i].Files[j]
			if !strings.Contains(f.Path, path) {
				continue
			}
			was, err := content(b.Open, *f, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			now := to(string(was))
			f.Digest, f.Size = b.Add(artifact.Ref{Kind: "blob", Name: "changed"}, artifact.File{Path: "changed"}, []byte(now)), int64(len(now))
			n++
		}
	}
	if n == 0 {
		t.Fatalf("nothing is called %s", path)
	}
}

func covers(p ecosystem.Proof) (out []string) {
	for _, a := range p.Covers {
		out = append(out, a.Ref.String())
	}
	slices.Sort(out)
	return out
}

func TestModulesAreProvenByTheChecksumDatabase(t *testing.T) {
	b := bring(t)
	got, err := b.prove(t)
	if err != nil || len(got) != 2 {
		t.Fatalf("%v, %+v", err, got)
	}
	if !slices.Equal(covers(got[0]), []string{"gomod/own.example/secret@v1.0.0"}) || !strings.Contains(got[0].Why, "no record") {
		t.Errorf("without: %+v", got[0])
	}
	p := got[1]
	if want := strings.Join(strings.Split(b.key, "+")[:2], "+"); p.Format != "sumdb" || !slices.Equal(p.Keys, []string{want}) || p.Document != "sumdb/abc/db.example/latest" || p.Trust == "" {
		t.Errorf("%+v, want the key %s", p, want)
	}
	if !slices.Equal(covers(p), []string{"gomod/host.example/r0m0@v1.0.0", "gomod/host.example/r0m1@v1.0.0", "gomod/sumdb/abc"}) {
		t.Errorf("covers %v", covers(p))
	}
	for _, a := range p.Covers {
		whole := b.all[slices.IndexFunc(b.all, func(o artifact.Artifact) bool { return o.Ref == a.Ref })]
		left := slices.DeleteFunc(slices.Clone(whole.Files), func(f artifact.File) bool {
			return slices.ContainsFunc(a.Files, func(o artifact.File) bool { return o.Path == f.Path && o.Digest == f.Digest })
		})
		// Nobody signs when a version was made.
		if want := a.Ref.Name == "host.example/r0m0"; want != (len(left) == 1 && left[0].Path == "v1.0.0.info") || !want && len(left) > 0 {
			t.Errorf("%s leaves out %+v", a.Ref, left)
		}
	}
}

func TestWhatTheDatabaseDoesNotProve(t *testing.T) {
	_, other, err := note.GenerateKey(rand.Reader, "db.example")
	if err != nil {
		t.Fatal(err)
	}
	_, elsewhere, err := note.GenerateKey(rand.Reader, "other.example")
	if err != nil {
		t.Fatal(err)
	}
	exchanged, _ := zipOf(t, "package m // evil\n")
	flip := func(s string) string { return s[:len(s)-1] + string(s[len(s)-1]^1) }
	for name, tc := range map[string]struct {
		change func(*testing.T, *brought)
		why    string // of everything; empty with refused
		refuse string
	}{
		"a head by another key": {func(_ *testing.T, b *brought) { b.key = other }, "the head of db.example", ""},
		"a head that was changed": {func(t *testing.T, b *brought) {
			b.change(t, "/latest", func(s string) string { return strings.Replace(s, "tree\n", "tree\n1", 1) })
		}, "invalid signature", ""},
		"no head":                {func(t *testing.T, b *brought) { b.change(t, "/latest", func(string) string { return "" }) }, "malformed note", ""},
		"another database":       {func(_ *testing.T, b *brought) { b.key = elsewhere }, "the head of other.example", ""},
		"no database":            {func(_ *testing.T, b *brought) { b.key = "off" }, "set to no checksum database", ""},
		"nothing was looked up":  {func(_ *testing.T, b *brought) { b.all = b.all[1:] }, "nothing was looked up", ""},
		"records of another key": {func(t *testing.T, b *brought) { b.release = bring(t).release }, "the head of db.example", ""},
		"a record that was changed": {func(t *testing.T, b *brought) {
			b.change(t, "/lookup/host.example/r0m0@", func(s string) string { return strings.Replace(s, " h1:", " h1:A", 1) })
		}, "", "has another record"},
		"a zip that was exchanged": {func(t *testing.T, b *brought) { b.change(t, ".zip", func(string) string { return exchanged }) }, "", "v1.0.0.zip is h1:"},
		"a go.mod that was exchanged": {func(t *testing.T, b *brought) {
			b.change(t, ".mod", func(s string) string { return s + "require x.example/y v1.0.0\n" })
		}, "", "v1.0.0.mod is h1:"},
		"tiles that were changed": {func(t *testing.T, b *brought) { b.change(t, "/tile/", flip) }, "no record", ""},
		"records without heads": {func(t *testing.T, b *brought) {
			b.change(t, "/lookup/", func(s string) string { return s[:strings.Index(s, "\n\n")+2] })
		}, "no record", ""},
	} {
		t.Run(name, func(t *testing.T) {
			b := bring(t)
			tc.change(t, &b)
			got, err := b.prove(t)
			if tc.refuse != "" {
				if !fail.IsRefused(err) || !strings.Contains(err.Error(), tc.refuse) {
					t.Errorf("%v, want a refusal: %q", err, tc.refuse)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			said := false
			for _, p := range got {
				said = said || strings.Contains(p.Why, tc.why)
				for _, a := range p.Covers {
					if p.Why == "" && !strings.HasPrefix(a.Ref.Name, databaseName) {
						t.Errorf("%s is proven by %v", a.Ref, p.Keys)
					}
				}
			}
			if !said {
				t.Errorf("%+v, want %q", got, tc.why)
			}
		})
	}
}

func TestKeysThatGoIsSetTo(t *testing.T) {
	for setting, want := range map[string]string{goDatabase: goDatabase, goDatabaseAlias: goDatabase, goDatabaseKey + " https://mirror.example/": goDatabase, "off": "", "": "", "db.example": "", "unknown+00000000+AAAA": ""} {
		v, _, err := verifierOf(setting)
		if (err == nil) != (want != "") || err == nil && v.Name() != want {
			t.Errorf("%q: %v", setting, err)
		}
	}
}

// FuzzDatabase reads heads, records and tiles of a stranger: whatever they are, nothing
// is proven by a key that did not sign them.
func FuzzDatabase(f *testing.F) {
	_, key, err := note.GenerateKey(rand.Reader, "db.example")
	if err != nil {
		f.Fatal(err)
	}
	f.Add("tile/8/0/000.p/4", []byte("h"), []byte("go.sum database tree\n1\nx\n\n— db.example sig\n"))
	f.Fuzz(func(t *testing.T, name string, b, head []byte) {
		if artifact.CheckPath("db.example/"+name) != nil {
			return
		}
		rel := &release{}
		rel.add("sumdb/abc", "", file{"db.example/latest", string(head)}, file{"db.example/" + name, string(b)})
		got, err := prove(t.Context(), key, ecosystem.Found{Artifacts: rel.all, Open: rel.Open})
		if err != nil || len(got) != 1 || got[0].Why == "" {
			t.Errorf("%+v, %v", got, err)
		}
	})
}
