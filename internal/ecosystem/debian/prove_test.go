package debian

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/armor"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
	"github.com/ProtonMail/go-crypto/openpgp/packet"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/ecosystemtest"
)

// now is when the tests are; constant.
var now = time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)

// world is one archive with one package, as apt left it behind.
type world struct {
	ecosystemtest.Release
	t        *testing.T
	dir      string // with the request, the keyring and the sources
	work     string
	key      *openpgp.Entity // that signs
	packages string
	release  string
	sources  string
	oneLine  bool
	detached bool
	found    artifact.Artifact
}

func newKey(t *testing.T, life uint32) *openpgp.Entity {
	t.Helper()
	e, err := openpgp.NewEntity("archive", "", "archive@host.example", &packet.Config{
		Algorithm: packet.PubKeyAlgoEdDSA, Time: func() time.Time { return now.AddDate(-1, 0, 0) }, KeyLifetimeSecs: life,
	})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func public(t *testing.T, e *openpgp.Entity) string {
	t.Helper()
	var b bytes.Buffer
	w, err := armor.Encode(&b, openpgp.PublicKeyType, nil)
	if err == nil {
		err = errors.Join(e.Serialize(w), w.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.String() + "\n"
}

const deb = "!<arch>\n"

func newArchive(t *testing.T) *world {
	w := &world{t: t, dir: t.TempDir(), work: t.TempDir(), key: newKey(t, 0)}
	sum := artifact.Sum([]byte(deb)).Hex()
	text := strings.Replace(paragraph, "ffff", sum, 1)
	// apt-cache shows the fields in another order.
	lines := strings.SplitAfter(text, "\n")
	w.packages = "Package: other\nVersion: 1\nFilename: pool/main/o/other.deb\n\n" + lines[0] + lines[8] + strings.Join(lines[1:8], "") + strings.Join(lines[9:], "") + "\n"
	w.release = "Origin: host\nDate: Tue, 03 Feb 2026 01:00:00 UTC\nValid-Until: Tue, 10 Feb 2026 01:00:00 UTC\nSHA256:\n " + artifact.Sum([]byte(w.packages)).Hex() + " 9 main/binary-amd64/Packages\n " + sum + " 1 main/Contents\n"
	w.sources = "Types: deb\n# of host\nURIs: http://archive.example:8080/debian\nSuites: bookworm bookworm-updates\nComponents: main\nSigned-By: " + w.dir + "/archive.asc\n"
	w.write(filepath.Join(w.dir, "archive.asc"), public(t, w.key))
	w.found = artifact.Artifact{Ref: artifact.Ref{Kind: Kind, Name: "bookworm/tool", Version: "1:2.0-1"}, Index: "http://archive.example:8080/debian"}
	for name, content := range map[string]string{"tool_1%3a2.0-1_amd64.deb": deb, "tool_1%3a2.0-1_amd64.stanza": text} {
		d := w.Add(artifact.Ref{Kind: "blob", Name: name}, artifact.File{Path: name}, []byte(content))
		w.found.Files = append(w.found.Files, artifact.File{Path: name, Digest: d, Size: int64(len(content))})
	}
	return w
}

func (w *world) write(name, text string) {
	w.t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o755), os.WriteFile(name, []byte(text), 0o600)); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) entry() string {
	if w.oneLine {
		return filepath.Join(w.dir, "host.list")
	}
	return filepath.Join(w.dir, "host.sources")
}

// Run plays 'apt-get indextargets'.
func (w *world) Run(_ context.Context, dir string, _ []string, argv []string) (stdout, stderr []byte, err error) {
	if !slices.Contains(argv, "indextargets") {
		return nil, nil, fmt.Errorf("asked for %v", argv)
	}
	return []byte("MetaKey: main/binary-amd64/Packages\nFilename: " + dir + "/lists/archive.example_debian_dists_bookworm_main_binary-amd64_Packages\n" +
		"Base-URI: http://archive.example:8080/debian/dists/bookworm/\nRepo-URI: http://archive.example:8080/debian/\nTrusted: yes\nSourcesentry: " + w.entry() + ":1\n\n"), nil, nil
}

func (w *world) prove() []ecosystem.Proof {
	w.t.Helper()
	signed, name := w.signed()
	lists := filepath.Join(w.work, "apt0", "lists", "archive.example_debian_dists_bookworm_")
	w.write(lists+name, signed)
	if w.detached {
		w.write(lists+"Release", w.release)
	}
	w.write(lists+"main_binary-amd64_Packages", w.packages)
	w.write(w.entry(), w.sources)
	want := ecosystem.Want{Items: []any{map[string]any{"packages": []any{"tool"}, "sources": "host.sources"}}, Dir: w.dir, Work: w.work}
	e := &Ecosystem{Runner: w, Etc: filepath.Join(w.dir, "etc")}
	out, err := e.Prove(w.t.Context(), want, ecosystem.Found{Artifacts: []artifact.Artifact{w.found}, Open: w.Open, At: now})
	if err != nil {
		w.t.Fatal(err)
	}
	if len(out) != 1 || len(out[0].Covers) != 1 {
		w.t.Fatalf("%+v", out)
	}
	return out
}

func (w *world) signed() (text, name string) {
	var b bytes.Buffer
	conf := &packet.Config{Time: func() time.Time { return now.Add(-time.Hour) }}
	if w.detached {
		if err := openpgp.ArmoredDetachSign(&b, w.key, strings.NewReader(w.release), conf); err != nil {
			w.t.Fatal(err)
		}
		return b.String(), "Release.gpg"
	}
	s, err := clearsign.Encode(&b, w.key.PrivateKey, conf)
	if err == nil {
		_, err = s.Write([]byte(w.release))
		err = errors.Join(err, s.Close())
	}
	if err != nil {
		w.t.Fatal(err)
	}
	return b.String() + "\n", "InRelease"
}

func TestPackagesAreProvenByTheKeyOfTheirSource(t *testing.T) {
	for name, change := range map[string]func(*testing.T, *world){
		"a keyring":            func(*testing.T, *world) {},
		"a detached signature": func(_ *testing.T, w *world) { w.detached = true },
		"one line": func(_ *testing.T, w *world) {
			w.oneLine, w.sources = true, "# a comment\ndeb [arch=amd64 signed-by="+w.dir+"/archive.asc] http://archive.example:8080/debian bookworm main\n"
		},
		"a keyring in the source": func(t *testing.T, w *world) {
			key := strings.ReplaceAll(strings.ReplaceAll(strings.TrimSpace(public(t, w.key)), "\n\n", "\n.\n"), "\n", "\n ")
			w.sources = strings.Replace(w.sources, w.dir+"/archive.asc", "\n "+key, 1)
		},
		"keys that apt always trusts": func(t *testing.T, w *world) {
			w.sources = strings.Split(w.sources, "Signed-By")[0]
			w.write(filepath.Join(w.dir, "etc", "trusted.gpg.d", "a.asc"), public(t, newKey(t, 0)))
			w.write(filepath.Join(w.dir, "etc", "trusted.gpg.d", "b.asc"), public(t, w.key))
			w.write(filepath.Join(w.dir, "etc", "trusted.gpg.d", "c.gpg"), "broken")
		},
		"one of them by its fingerprint": func(t *testing.T, w *world) {
			w.sources = strings.Replace(w.sources, w.dir+"/archive.asc", strings.ToLower(fingerprint(w.key)), 1)
			w.write(filepath.Join(w.dir, "etc", "trusted.gpg"), public(t, w.key))
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := newArchive(t)
			change(t, w)
			p := w.prove()[0]
			if p.Why != "" || p.Format != "apt" || !slices.Equal(p.Keys, []string{fingerprint(w.key)}) || p.Trust == "" || len(p.Covers[0].Files) != 2 {
				t.Fatalf("%+v", p)
			}
			file := "InRelease"
			if w.detached {
				file = "Release.gpg"
			}
			signed, err := os.ReadFile(filepath.Join(w.work, "apt0", "lists", "archive.example_debian_dists_bookworm_"+file))
			if err != nil || p.Document != "archive.example_8080/debian/dists/bookworm/"+file || p.Digest != artifact.Sum(signed) {
				t.Errorf("%s %s", p.Document, p.Digest)
			}
			if len(p.Through) != 1 || p.Through[0].Path != "archive.example_8080/debian/dists/bookworm/main/binary-amd64/Packages" || p.Through[0].Digest != artifact.Sum([]byte(w.packages)) {
				t.Errorf("through %+v", p.Through)
			}
		})
	}
}

func TestWhatNoKeyProves(t *testing.T) {
	replace := func(where func(*world) *string, old, text string) func(*testing.T, *world) {
		return func(t *testing.T, w *world) {
			s := where(w)
			was := *s
			if *s = strings.Replace(was, old, text, 1); *s == was {
				t.Fatalf("%q is not there", old)
			}
		}
	}
	release := func(w *world) *string { return &w.release }
	sources := func(w *world) *string { return &w.sources }
	packages := func(w *world) *string { return &w.packages }
	for name, tc := range map[string]struct {
		change func(*testing.T, *world)
		why    string
	}{
		"a key that the source does not name": {func(t *testing.T, w *world) { w.key = newKey(t, 0) }, "not signed by a key that its source names"},
		"another one of those that apt trusts": {func(t *testing.T, w *world) {
			w.sources = strings.Replace(w.sources, w.dir+"/archive.asc", fingerprint(newKey(t, 0)), 1)
			w.write(filepath.Join(w.dir, "etc", "trusted.gpg"), public(t, w.key))
		}, "no key for its source"},
		"a key that expired": {func(t *testing.T, w *world) {
			w.key = newKey(t, 3600)
			w.write(filepath.Join(w.dir, "archive.asc"), public(t, w.key))
		}, "that counts"},
		"an index that was changed":   {replace(packages, "Depends: base", "Depends: evil"), "is not what is signed"},
		"no hash of the index":        {replace(release, "main/binary-amd64/Packages", "main/binary-arm64/Packages"), "no index of its archive"},
		"two hashes of the index":     {replace(release, "main/Contents", "main/binary-amd64/Packages"), "nothing clear"},
		"a Release that has run out":  {replace(release, "10 Feb", "03 Feb"), "valid until 2026-02-03"},
		"a Release of tomorrow":       {replace(release, "03 Feb", "04 Feb"), "which is not yet"},
		"a Release without a date":    {replace(release, "Date:", "Made:"), "cannot be read"},
		"a date that is none":         {replace(release, "Valid-Until: Tue", "Valid-Until: X"), "cannot be read"},
		"two ends":                    {replace(release, "Origin: host", "Valid-Until: Tue, 10 Feb 2027 01:00:00 UTC"), "cannot be read"},
		"trusted":                     {replace(sources, "Components: main", "Components: main\nTrusted: yes"), "says Trusted"},
		"a source of another archive": {replace(sources, "archive.example:8080", "other.example"), "source is not found"},
		"two sources that disagree": {func(_ *testing.T, w *world) {
			w.sources += "\n" + strings.Replace(w.sources, "archive.asc", "other.asc", 1)
		}, "not clear"},
		"a keyring that is none": {func(_ *testing.T, w *world) { w.write(filepath.Join(w.dir, "archive.asc"), "x") }, "its keyring"},
		"a keyring that apt may write": {func(t *testing.T, w *world) {
			w.write(filepath.Join(w.work, "archive.asc"), public(t, w.key))
			w.sources = strings.Replace(w.sources, w.dir, w.work, 1)
		}, "not a file of this machine's settings"},
		"a package that was exchanged": {func(_ *testing.T, w *world) {
			i := slices.IndexFunc(w.found.Files, func(f artifact.File) bool { return strings.HasSuffix(f.Path, ".deb") })
			w.found.Files[i].Digest = w.Add(artifact.Ref{Kind: "blob", Name: "evil"}, artifact.File{Path: "evil"}, []byte("evil"))
		}, "says the same of it"},
		"a paragraph that was exchanged": {func(_ *testing.T, w *world) {
			i := slices.IndexFunc(w.found.Files, func(f artifact.File) bool { return strings.HasSuffix(f.Path, stanzaSuffix) })
			evil := strings.Replace(strings.Replace(paragraph, "ffff", artifact.Sum([]byte(deb)).Hex(), 1), "Depends: base", "Depends: evil", 1)
			w.found.Files[i].Digest = w.Add(artifact.Ref{Kind: "blob", Name: "evil"}, artifact.File{Path: "evil"}, []byte(evil))
		}, "says the same of it"},
		"another version": {func(_ *testing.T, w *world) { w.found.Ref.Version = "3" }, "says the same of it"},
		"another archive": {func(_ *testing.T, w *world) { w.found.Index = "http://other.example/debian" }, "says the same of it"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newArchive(t)
			tc.change(t, w)
			if p := w.prove()[0]; p.Keys != nil || !strings.Contains(p.Why, tc.why) {
				t.Errorf("%+v, want %q", p, tc.why)
			}
		})
	}
}

func TestSignedTextsThatAreNotOne(t *testing.T) {
	w := newArchive(t)
	good, _ := w.signed()
	ring := openpgp.EntityList{w.key}
	for name, text := range map[string]string{
		"changed": strings.Replace(good, "Origin: host", "Origin: evil", 1), "something before": "Origin: evil\n" + good, "something behind": good + "Origin: evil\n", "twice": good + good,
		"no signature": w.release, "nothing": "", "a signature of nothing": good[:strings.Index(good, "-----BEGIN PGP SIGNATURE")],
	} {
		dir := t.TempDir()
		w.write(filepath.Join(dir, "x_InRelease"), text)
		lists, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, _, keys, err := signedRelease(lists, "x_", ring, now); err == nil || len(keys) != 0 {
			t.Errorf("%s: signed by %v", name, keys)
		}
		if err := lists.Close(); err != nil {
			t.Error(err)
		}
	}
}

// FuzzSignedRelease reads what an archive sends: a ring that did not sign it proves nothing.
func FuzzSignedRelease(f *testing.F) {
	f.Add([]byte("-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\nDate: x\n-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "InRelease"), b, 0o600); err != nil {
			t.Fatal(err)
		}
		lists, err := os.OpenRoot(dir)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, _, keys, err := signedRelease(lists, "", nil, now); err == nil {
			t.Errorf("signed by %v", keys)
		}
		_, _ = readRelease(b, now)
		if err := lists.Close(); err != nil {
			t.Error(err)
		}
	})
}
