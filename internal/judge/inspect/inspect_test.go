package inspect_test

import (
	"archive/tar"
	"archive/zip"
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/judge/inspect"
	"enisle/internal/judge/inspect/archive"
	"enisle/internal/judge/inspect/gguf"
	"enisle/internal/judge/inspect/pickle"
	"enisle/internal/judge/inspect/wheel"
)

type blob struct{ *bytes.Reader }

func (b blob) Close() error { return nil }
func (b blob) Size() int64  { return b.Reader.Size() }

var errRead = errors.New("read error")

// judge runs all scanners over one file of an artifact of a kind.
func judge(t *testing.T, ref artifact.Ref, name string, content []byte, more ...inspect.Scanner) inspect.Report {
	t.Helper()
	r := inspect.Runner{Scanners: append([]inspect.Scanner{archive.New(), wheel.New(), pickle.New(), gguf.New()}, more...), Limits: inspect.Limits{Time: 20 * time.Second}}
	a := artifact.Artifact{Ref: ref, Files: []artifact.File{{Path: name, Size: int64(len(content)), Digest: artifact.Sum(content)}}}
	rep, err := r.Inspect(context.Background(), []artifact.Artifact{a}, func(artifact.Digest) (inspect.Blob, error) {
		return blob{bytes.NewReader(content)}, nil
	}, func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// want checks that a rule refuses, or with an empty rule that nothing does.
func want(t *testing.T, rep inspect.Report, rule string) {
	t.Helper()
	found := rep.Of(inspect.Refuse)
	if rule == "" {
		if len(found) > 0 {
			t.Errorf("refused: %+v", found)
		}
		return
	}
	for _, f := range found {
		if f.Rule == rule {
			return
		}
	}
	t.Errorf("got %+v, want a refusal by rule %q", found, rule)
}

type member struct {
	name, body string
	method     uint16
	mode       uint32
	extra      string
}

func zipped(t *testing.T, members ...member) []byte {
	t.Helper()
	var b bytes.Buffer
	w := zip.NewWriter(&b)
	for _, m := range members {
		h := &zip.FileHeader{Name: m.name, Method: m.method, Extra: []byte(m.extra)}
		if m.mode != 0 {
			h.CreatorVersion = 3 << 8
			h.ExternalAttrs = m.mode << 16
		}
		f, err := w.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(f, m.body); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// between puts the members of another archive before the directory of one, which does
// not name them.
func between(b, other []byte) []byte {
	at, end := bytes.Index(b, []byte("PK\x01\x02")), bytes.Index(other, []byte("PK\x01\x02"))
	out := slices.Concat(b[:at], other[:end], b[at:])
	binary.LittleEndian.PutUint32(out[len(out)-6:], uint32(at+end))
	return out
}

// edit changes n bytes found after the first occurrence of a signature.
func edit(b []byte, sig string, offset int, with ...byte) []byte {
	c := bytes.Clone(b)
	i := bytes.Index(c, []byte(sig))
	copy(c[i+offset:], with)
	return c
}

func TestArchives(t *testing.T) {
	const local, central = "PK\x03\x04", "PK\x01\x02"
	plain := zipped(t, member{name: "a.txt", body: "hello", method: zip.Store}, member{name: "d/b.txt", body: strings.Repeat("x", 5000), method: zip.Deflate})
	one := zipped(t, member{name: "a.txt", body: "hello hello hello", method: zip.Deflate})
	bomb := zipped(t, member{name: "a", body: strings.Repeat("\x00", 80<<20), method: zip.Deflate})
	nested := plain
	for range 10 {
		nested = zipped(t, member{name: "n.zip", body: string(nested), method: zip.Store})
	}
	for name, tc := range map[string]struct {
		content []byte
		rule    string
	}{
		"a plain zip":                        {plain, ""},
		"an empty zip":                       {zipped(t), ""},
		"a name that leaves its directory":   {zipped(t, member{name: "../a", body: "x"}), "name"},
		"an absolute name":                   {zipped(t, member{name: "/etc/a", body: "x"}), "name"},
		"a name with a backslash":            {zipped(t, member{name: `a\b`, body: "x"}), "name"},
		"a name with a drive":                {zipped(t, member{name: "c:a", body: "x"}), "name"},
		"the same name twice":                {zipped(t, member{name: "a", body: "1"}, member{name: "a", body: "2"}), "duplicate"},
		"names that differ in case":          {zipped(t, member{name: "a", body: "1"}, member{name: "A", body: "2"}), "case"},
		"a link":                             {zipped(t, member{name: "a", body: "/etc/passwd", mode: 0o120777}), "special"},
		"a device":                           {zipped(t, member{name: "a", mode: 0o020666}), "special"},
		"a directory with a mode of ones":    {zipped(t, member{name: "META-INF/maven/", mode: 0xffff}, member{name: "META-INF/maven/x", body: "x", mode: 0o100644}), ""},
		"a file with a mode of ones":         {zipped(t, member{name: "a", body: "x", mode: 0xffff}), "special"},
		"a bomb":                             {bomb, "bomb"},
		"containers nested too deep":         {nested, "limit"},
		"another name in the local header":   {edit(one, local, 30, 'b'), "mismatch"},
		"another method in the local header": {edit(one, local, 8, 0), "mismatch"},
		"an encrypted member":                {edit(edit(one, local, 6, 9), central, 8, 9), "encrypted"},
		"masked headers":                     {edit(one, central, 9, 0x20), "encrypted"},
		"patched data":                       {edit(edit(one, local, 6, 0x28), central, 8, 0x28), "mismatch"},
		"a wrong checksum":                   {edit(one, central, 16, 1, 2, 3, 4), "checksum"},
		"bytes before it":                    {append([]byte("#!/bin/sh\n"), plain...), "broken"},
		"bytes behind it":                    {append(bytes.Clone(plain), "junk"...), "junk"},
		"cut short":                          {plain[:len(plain)-10], "broken"},
		"a 7z":                               {[]byte("7z\xbc\xaf\x27\x1c" + strings.Repeat("x", 50)), "closed-container"},
		"a size that lies":                   {edit(one, central, 24, 0xff, 0xff), "bomb"},
		"a member between others":            {between(zipped(t, member{name: "a", body: "1"}), zipped(t, member{name: "b", body: "2"})), "mismatch"},
		"a link, made by a Mac":              {edit(zipped(t, member{name: "a", body: "/etc/passwd", mode: 0o120777}), central, 5, 19), "special"},
		"another name in an extra field":     {zipped(t, member{name: "a", body: "x", extra: "\x75\x70\x0c\x00\x01crc_../evil"}), "mismatch"},
		"a pickle in a zip":                  {zipped(t, member{name: "x/y.dat", body: "cos\nsystem\n(S'id'\ntR."}), "global"},
	} {
		t.Run(name, func(t *testing.T) {
			file := "f.zip"
			if tc.rule == "closed-container" {
				file = "f.7z"
			}
			want(t, judge(t, artifact.Ref{Kind: "files", Name: "f"}, file, tc.content), tc.rule)
		})
	}
}

func TestTilesOfAChecksumDatabaseAreHashesAndNothingElse(t *testing.T) {
	tile := []byte(strings.Repeat("\xff\x00\x01 hash", 7)[:32] + strings.Repeat("\x00", 32))
	for name, tc := range map[string]struct {
		kind, artifact, path string
		content              []byte
		rule                 string
	}{
		"a tile":                 {"gomod", "sumdb/0123456789ab", "db.example/tile/8/0/x001/234.p/2", tile, ""},
		"one like a gzip":        {"gomod", "sumdb/0123456789ab", "db.example/tile/8/0/001", append([]byte("\x1f\x8b\x46"), tile[3:]...), ""},
		"half a hash":            {"gomod", "sumdb/0123456789ab", "db.example/tile/8/0/001", tile[:40], "unknown-package"},
		"more than a tile":       {"gomod", "sumdb/0123456789ab", "db.example/tile/8/0/001", bytes.Repeat(tile, 129), "unknown-package"},
		"another place":          {"gomod", "sumdb/0123456789ab", "db.example/lookup/x", tile, "unknown-package"},
		"a module":               {"gomod", "host.example/m", "db.example/tile/8/0/001", tile, "unknown-package"},
		"another kind":           {"cargo", "sumdb/0123456789ab", "db.example/tile/8/0/001", tile, "unknown-package"},
		"a pickle as a tile":     {"gomod", "sumdb/0123456789ab", "db.example/tile/8/0/001", []byte("cos\nsystem\n(S'id'\ntR." + strings.Repeat(" ", 9)), "global"},
		"a program of that size": {"gomod", "sumdb/0123456789ab", "db.example/tile/8/0/../../001", tile, "unknown-package"},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, judge(t, artifact.Ref{Kind: tc.kind, Name: tc.artifact}, tc.path, tc.content), tc.rule)
		})
	}
}

func TestTestDataOfSourceIsShownAndDoesNotRefuseIt(t *testing.T) {
	for name, tc := range map[string]struct {
		member member
		rule   string // where it is for Python
		always bool
	}{
		"a pickle":           {member{name: "m@v1/testdata/code.p", body: "cos\nsystem\n(S'id'\ntR."}, "global", false},
		"a broken gzip":      {member{name: "m@v1/testdata/corrupt.gz", body: "\x1f\x8b\x08" + strings.Repeat("x", 40)}, "broken", false},
		"an archive of junk": {member{name: "m@v1/testdata/junk.zip", body: string(zipped(t, member{name: "a", body: "x"})) + "junk"}, "junk", false},
		"a bomb":             {member{name: "m@v1/testdata/bomb.zip", body: string(zipped(t, member{name: "a", body: strings.Repeat("\x00", 80<<20), method: zip.Deflate}))}, "bomb", true},
	} {
		t.Run(name, func(t *testing.T) {
			content := zipped(t, tc.member)
			for kind, file := range map[string]string{"gomod": "v1.0.0.zip", "maven": "m-1.0.jar", "files": "m.zip"} {
				rep, rule := judge(t, artifact.Ref{Kind: kind, Name: "host.example/m", Version: "v1.0.0"}, file, content), tc.rule
				if kind != "files" && !tc.always {
					rule = ""
				}
				want(t, rep, rule)
				if !slices.ContainsFunc(rep.Findings, func(f inspect.Finding) bool { return f.Rule == tc.rule }) {
					t.Errorf("%s: %q is not shown: %+v", kind, tc.rule, rep.Findings)
				}
			}
		})
	}
	// The archive that is the package is judged as everywhere.
	broken := zipped(t, member{name: "../a", body: "x"})
	for kind, file := range map[string]string{"gomod": "v1.0.0.zip", "cargo": "m-1.0.0.crate", "maven": "m-1.0.jar"} {
		want(t, judge(t, artifact.Ref{Kind: kind, Name: "m", Version: "v1.0.0"}, file, broken), "name")
	}
}

func TestTarballs(t *testing.T) {
	pack := func(hs ...tar.Header) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		w := tar.NewWriter(z)
		for _, h := range hs {
			body := ""
			if h.Typeflag == tar.TypeReg {
				body = "body"
			}
			h.Size = int64(len(body))
			if err := errors.Join(w.WriteHeader(&h), func() error { _, err := io.WriteString(w, body); return err }()); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(w.Close(), z.Close()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	reg := func(n string) tar.Header { return tar.Header{Name: n, Typeflag: tar.TypeReg, Mode: 0o644} }
	soft := func(n, to string) tar.Header { return tar.Header{Name: n, Typeflag: tar.TypeSymlink, Linkname: to} }
	var huge bytes.Buffer
	z, _ := gzip.NewWriterLevel(&huge, flate.BestCompression)
	_, _ = z.Write(make([]byte, 200<<20))
	_ = z.Close()
	for name, tc := range map[string]struct {
		file    string
		content []byte
		rule    string
	}{
		"a plain one":              {"f.tar.gz", pack(reg("a"), reg("b/c")), ""},
		"a name that leaves":       {"f.tar.gz", pack(reg("../a")), "name"},
		"a symbolic link":          {"f.tgz", pack(tar.Header{Name: "l", Typeflag: tar.TypeSymlink, Linkname: "/etc/passwd"}), "special"},
		"a hard link":              {"f.tgz", pack(tar.Header{Name: "l", Typeflag: tar.TypeLink, Linkname: "/etc/passwd"}), "special"},
		"a link up and out":        {"f.tgz", pack(reg("d/a"), soft("d/l", "../../a")), "special"},
		"one that goes through":    {"f.tgz", pack(reg("d/e/a"), soft("x", "d/e"), soft("l", "x/../../a")), "special"},
		"a member below a link":    {"f.tgz", pack(reg("d/a"), soft("l", "d"), reg("l/b")), "special"},
		"the same in capitals":     {"f.tgz", pack(reg("d/a"), soft("l", "d"), reg("L/b")), "special"},
		"a link over a file":       {"f.tgz", pack(soft("l", "d/a"), reg("l")), "duplicate"},
		"a link to a drive":        {"f.tgz", pack(soft("l", "c:/a")), "special"},
		"a hard link up":           {"f.tgz", pack(tar.Header{Name: "d/l", Typeflag: tar.TypeLink, Linkname: "../a"}), "special"},
		"a link inside":            {"f.tgz", pack(reg("d/a"), soft("d/e/l", "../a"), soft("m", "./d/a")), ""},
		"a hard link inside":       {"f.tgz", pack(reg("d/a"), tar.Header{Name: "d/l", Typeflag: tar.TypeLink, Linkname: "d/a"}), ""},
		"a device":                 {"f.tgz", pack(tar.Header{Name: "l", Typeflag: tar.TypeChar}), "special"},
		"a pipe":                   {"f.tgz", pack(tar.Header{Name: "l", Typeflag: tar.TypeFifo}), "special"},
		"twice the same":           {"f.tgz", pack(reg("a"), reg("a")), "duplicate"},
		"twice, written otherwise": {"f.tgz", pack(reg("a"), reg("./a")), "duplicate"},
		"cut short":                {"f.tgz", pack(reg("a"))[:40], "broken"},
		"a bomb that is no tar":    {"f.gz", huge.Bytes(), "broken"},
		"called .whl, is no zip":   {"f.whl", pack(reg("a")), "broken"},
		"an empty file called tar": {"f.tar", nil, "broken"},
	} {
		t.Run(name, func(t *testing.T) {
			want(t, judge(t, artifact.Ref{Kind: "files", Name: "f"}, tc.file, tc.content), tc.rule)
		})
	}
}

// npm takes the first directory off every name, whatever it is called: two members
// with one name below it are one file to npm, and two to everybody else.
func TestNamesAsNpmReadsThem(t *testing.T) {
	ref := artifact.Ref{Kind: "npm", Name: "so-so", Version: "1.0.0"}
	pack := func(names ...string) []byte {
		var b bytes.Buffer
		z := gzip.NewWriter(&b)
		w := tar.NewWriter(z)
		for _, n := range names {
			if err := errors.Join(w.WriteHeader(&tar.Header{Name: n, Typeflag: tar.TypeReg, Mode: 0o644, Size: 2}), func() error { _, err := io.WriteString(w, "{}"); return err }()); err != nil {
				t.Fatal(err)
			}
		}
		if err := errors.Join(w.Close(), z.Close()); err != nil {
			t.Fatal(err)
		}
		return b.Bytes()
	}
	want(t, judge(t, ref, "so-so-1.0.0.tgz", pack("package/a.js", "node/b.js")), "")
	want(t, judge(t, ref, "so-so-1.0.0.tgz", pack("package/a.js", "other/a.js")), "duplicate")
	want(t, judge(t, ref, "so-so-1.0.0.tgz", pack("package/a.js", "./package/a.js")), "duplicate")
}

// What no scanner knows in a model is refused, if it is no text that people write, in
// archives as well: numbers of torch stand in places of their own.
func TestWhatNobodyKnowsInAModel(t *testing.T) {
	model := artifact.Ref{Kind: "model", Name: "m"}
	for name, tc := range map[string]struct {
		content []byte
		rule    string
	}{
		"card.md":      {[]byte("caf\xe9\n"), ""},
		"vocab.txt":    {[]byte("\x01\n\x02\n"), ""},
		"NOTICE":       {[]byte("Größe\n\tx\r\n"), ""},
		"NOTE":         {[]byte("caf\xe9\n"), "unknown-model"},
		"w.msgpack":    {[]byte("\x81\xa1w\xc4\x10AAAA"), "unknown-model"},
		"a.txt":        {[]byte("!<arch>\nfile"), "unknown-model"},
		"a":            {[]byte("bell\x07"), "unknown-model"},
		"numbers.zip":  {zipped(t, member{name: "m/data/0", body: "\x00\x01"}), ""},
		"weights.zip":  {zipped(t, member{name: "m/weights", body: "\x00\x01"}), "unknown-model"},
		"inner.txt.gz": {gzipped(t, "X\n\x00\x00\x00\x02"), "unknown-model"},
	} {
		t.Run(name, func(t *testing.T) { want(t, judge(t, model, name, tc.content), tc.rule) })
	}
}

// Where a Python file was built is said beside it, in JSON and in nothing else.
func TestProvenanceIsJSON(t *testing.T) {
	ref := artifact.Ref{Kind: "pypi", Name: "so", Version: "1"}
	want(t, judge(t, ref, "so-1-py3-none-any.whl.provenance", []byte(`{"version": 1}`)), "")
	want(t, judge(t, ref, "so-1-py3-none-any.whl.provenance", []byte("#!/bin/sh\n")), "unknown-package")
	want(t, judge(t, ref, "so-1.proof", []byte(`{"version": 1}`)), "unknown-package")
}

func gzipped(t *testing.T, s string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write([]byte(s)); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A file of one format that is a zip to who looks at its end.
func TestArchivesBehindOtherFormats(t *testing.T) {
	z := zipped(t, member{name: "archive/data.pkl", body: "cos\nsystem\n(S'id'\ntR."})
	head := fmt.Sprintf(`{"a":{"dtype":"U8","shape":[%d],"data_offsets":[0,%d]}}`, len(z), len(z))
	for name, content := range map[string]string{
		"m.safetensors": string(binary.LittleEndian.AppendUint64(nil, uint64(len(head)))) + head + string(z),
		"m.txt":         "a text, and then\n" + string(z),
		"m.gif":         "GIF89a" + string(z),
	} {
		if rep := judge(t, artifact.Ref{Kind: "model", Name: "m"}, name, []byte(content)); len(rep.Of(inspect.Refuse)) == 0 {
			t.Errorf("%s passes", name)
		}
	}
}

// row is a line of RECORD.
func row(name, body string) string {
	sum := sha256.Sum256([]byte(body))
	return fmt.Sprintf("%s,sha256=%s,%d\n", name, base64.RawURLEncoding.EncodeToString(sum[:]), len(body))
}

func TestWheels(t *testing.T) {
	const meta = "Metadata-Version: 2.1\nName: So_So\nVersion: 1.0\n\n"
	build := func(record string, more ...member) []byte {
		all := append([]member{{name: "soso.py", body: "x = 1\n"}, {name: "so_so-1.0.dist-info/METADATA", body: meta}, {name: "so_so-1.0.dist-info/WHEEL", body: "Wheel-Version: 1.0\n"}}, more...)
		return zipped(t, append(all, member{name: "so_so-1.0.dist-info/RECORD", body: record})...)
	}
	good := row("soso.py", "x = 1\n") + row("so_so-1.0.dist-info/METADATA", meta) + row("so_so-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\n") + "so_so-1.0.dist-info/RECORD,,\n"
	ref := artifact.Ref{Kind: "pypi", Name: "so-so", Version: "1.0"}
	for name, tc := range map[string]struct {
		ref     artifact.Ref
		file    string
		content []byte
		rule    string
	}{
		"a good one":                   {ref, "so_so-1.0-py3-none-any.whl", build(good), ""},
		"RECORD states another hash":   {ref, "so_so-1.0-py3-none-any.whl", build(strings.Replace(good, "sha256=", "sha256=A", 1)), "record"},
		"RECORD states another size":   {ref, "so_so-1.0-py3-none-any.whl", build(strings.Replace(good, ",6\n", ",7\n", 1)), "record"},
		"RECORD states no hash":        {ref, "so_so-1.0-py3-none-any.whl", build("soso.py,,\n" + good[strings.Index(good, "\n")+1:]), "record"},
		"RECORD lacks a member":        {ref, "so_so-1.0-py3-none-any.whl", build(good[strings.Index(good, "\n")+1:]), "record"},
		"RECORD lists what is missing": {ref, "so_so-1.0-py3-none-any.whl", build(good + row("gone.py", "x")), "record"},
		"RECORD lists one twice":       {ref, "so_so-1.0-py3-none-any.whl", build(good + row("soso.py", "x = 1\n")), "record"},
		"another project":              {artifact.Ref{Kind: "pypi", Name: "other", Version: "1.0"}, "so_so-1.0-py3-none-any.whl", build(good), "identity"},
		"another version":              {artifact.Ref{Kind: "pypi", Name: "so-so", Version: "2.0"}, "so_so-2.0-py3-none-any.whl", build(good), "identity"},
		"two descriptions":             {ref, "so_so-1.0-py3-none-any.whl", build(good, member{name: "x-1.dist-info/METADATA", body: meta}), "structure"},
		"not a wheel at all":           {ref, "so_so-1.0.exe", []byte("MZ"), "unknown-package"},
	} {
		t.Run(name, func(t *testing.T) { want(t, judge(t, tc.ref, tc.file, tc.content), tc.rule) })
	}
	rep := judge(t, ref, "so_so-1.0-py3-none-any.whl", build(good+row("evil.pth", "import os\n"), member{name: "evil.pth", body: "import os\n"}))
	if warn := rep.Of(inspect.Warn); len(warn) != 1 || warn[0].Rule != "startup-code" {
		t.Errorf("a .pth: %+v", warn)
	}
	for name, sev := range map[string]inspect.Severity{
		"evil.pth": inspect.Warn, "so_so-1.0.data/purelib/evil.pth": inspect.Warn, "sitecustomize.py": inspect.Refuse, "usercustomize/__init__.py": inspect.Refuse,
		"so_so-1.0.data/platlib/sitecustomize.so": inspect.Refuse, "so_so-1.0.data/data/lib/python3.11/site-packages/usercustomize.py": inspect.Refuse,
		"so_so-1.0.data/scripts/python3": inspect.Refuse, "so_so-1.0.data/data/bin/pip": inspect.Refuse, "so_so-1.0.data/data/etc/cron.d/x": inspect.Refuse,
		"pip/_internal/x.py": inspect.Refuse, "so_so-1.0.data/purelib/setuptools/x.py": inspect.Refuse,
	} {
		rep := judge(t, ref, "so_so-1.0-py3-none-any.whl", build(good+row(name, "import os\n"), member{name: name, body: "import os\n"}))
		if of := rep.Of(sev); len(of) != 1 || of[0].Rule != "startup-code" {
			t.Errorf("%s: %+v", name, rep.Findings)
		}
	}
}

// Lines of path files as honest packages have them are shown; those that decode,
// fetch or start something are refused.
func TestPathFiles(t *testing.T) {
	const meta = "Metadata-Version: 2.1\nName: so-so\nVersion: 1.0\n"
	ref := artifact.Ref{Kind: "pypi", Name: "so-so", Version: "1.0"}
	for line, sev := range map[string]inspect.Severity{
		"import so_so_hook\n": inspect.Warn, "/opt/so-so\n": inspect.Warn,
		"import os; enabled = os.environ.get('SO_SO', 'local') == 'local'; enabled and __import__('_so_so').add()\n": inspect.Warn,
		"import sys; exec('try: import so_so\\nexcept ImportError: pass')\n":                                         inspect.Warn,
		"import os;os.system('id')\n":                                              inspect.Refuse,
		"import\tos;os.system('id')\n":                                             inspect.Refuse,
		"import base64;exec(base64.b64decode('aWQ='))\n":                           inspect.Refuse,
		"import subprocess,sys;subprocess.Popen([sys.executable])\n":               inspect.Refuse,
		"import os; getattr(os, 'sys'+'tem')('id')\n":                              inspect.Refuse,
		"# a note\nimport urllib.request as u; u.urlopen('http://host.example')\n": inspect.Refuse,
		"import os; exec('\\x69\\x64')\n":                                          inspect.Refuse,
	} {
		record := row("so_so-1.0.dist-info/METADATA", meta) + row("so_so-1.0.dist-info/WHEEL", "") + row("a.pth", line) + "so_so-1.0.dist-info/RECORD,,\n"
		rep := judge(t, ref, "so_so-1.0-py3-none-any.whl", zipped(t, member{name: "so_so-1.0.dist-info/METADATA", body: meta}, member{name: "so_so-1.0.dist-info/WHEEL"},
			member{name: "so_so-1.0.dist-info/RECORD", body: record}, member{name: "a.pth", body: line}))
		if of := rep.Of(sev); len(of) != 1 || of[0].Rule != "startup-code" {
			t.Errorf("%q: %+v", line, rep.Findings)
		}
	}
}

// Popular packages carry pickles as test data. What imports only from its own
// package is shown; what reaches outside it, or stands alone, is refused.
func TestPicklesInsidePackages(t *testing.T) {
	importing := func(module, name string) string { return "c" + module + "\n" + name + "\n)R." }
	ref := artifact.Ref{Kind: "pypi", Name: "so-so", Version: "1.0"}
	for name, tc := range map[string]struct {
		ref  artifact.Ref
		path string
		body string
		rule string
		warn bool
	}{
		"its own class":                {ref, "soso/tests/data.pkl", importing("soso.thing", "Thing"), "", true},
		"its own package's prefix":     {ref, "soso/tests/data.pkl", importing("sosoevil", "Thing"), "global", false},
		"a module of Python":           {ref, "soso/tests/data.pkl", importing("os", "system"), "global", false},
		"a directory named like one":   {ref, "os/tests/data.pkl", importing("os", "system"), "global", false},
		"another one of Python":        {ref, "builtins/data.pkl", importing("builtins", "eval"), "global", false},
		"outside of any directory":     {ref, "data.pkl", importing("data", "x"), "global", false},
		"cut short":                    {ref, "soso/data.pkl", "(lp0\n", "", true},
		"names that leave":             {ref, "soso/data.zip", string(zipped(t, member{name: "../a", body: "x"})), "", true},
		"closed":                       {ref, "soso/data.7z", "7z\xbc\xaf\x27\x1c and so on", "", true},
		"a path file":                  {ref, "soso-startup.pth", "import os; os.x = 1\n", "", false},
		"a path file of a system":      {artifact.Ref{Kind: "oci", Name: "app"}, "dist-packages/x.pth", "import os; os.x = 1\n", "", false},
		"a pickle in a system":         {artifact.Ref{Kind: "oci", Name: "app"}, "dist-packages/x.pth", importing("os", "system"), "global", false},
		"a checkpoint named like it":   {ref, "soso-model.pth", "\x80\x02" + importing("os", "system"), "global", false},
		"its own class, but a model":   {artifact.Ref{Kind: "model", Name: "m"}, "soso/data.pkl", importing("soso.thing", "Thing"), "global", false},
		"closed, as a model":           {artifact.Ref{Kind: "files", Name: "m"}, "soso/data.7z", "7z\xbc\xaf\x27\x1c and so on", "closed-container", false},
		"cut short, outside a package": {artifact.Ref{Kind: "files", Name: "m"}, "soso/data.pkl", "(lp0\n", "broken", false},
	} {
		t.Run(name, func(t *testing.T) {
			rep := judge(t, tc.ref, "so_so-1.0-py3-none-any.whl", zipped(t, member{name: tc.path, body: tc.body}))
			rep.Findings = slices.DeleteFunc(rep.Findings, func(f inspect.Finding) bool { return f.Scanner == "wheel" && f.Rule != "startup-code" })
			want(t, rep, tc.rule)
			if warned := len(rep.Of(inspect.Warn)) > 0; warned != tc.warn {
				t.Errorf("warned: %t, want %t: %+v", warned, tc.warn, rep.Findings)
			}
		})
	}
}

// model builds a GGUF file: facts, then tensors of f32 with their offsets.
type model struct {
	version, dims uint32
	facts         []func(*bytes.Buffer)
	tensors       []struct {
		name   string
		ne     uint64
		offset uint64
	}
	data int
	tail string
}

func put(b *bytes.Buffer, vs ...any) {
	for _, v := range vs {
		if s, ok := v.(string); ok {
			_ = binary.Write(b, binary.LittleEndian, uint64(len(s)))
			b.WriteString(s)
			continue
		}
		_ = binary.Write(b, binary.LittleEndian, v)
	}
}

func text(key, value string) func(*bytes.Buffer) {
	return func(b *bytes.Buffer) { put(b, key, uint32(8), value) }
}

func (m model) bytes() []byte {
	var b bytes.Buffer
	b.WriteString("GGUF")
	put(&b, m.version, uint64(len(m.tensors)), uint64(len(m.facts)))
	for _, f := range m.facts {
		f(&b)
	}
	for _, t := range m.tensors {
		put(&b, t.name, m.dims)
		for range m.dims {
			put(&b, t.ne)
		}
		put(&b, uint32(0), t.offset)
	}
	b.Write(make([]byte, (32-b.Len()%32)%32+m.data))
	return append(b.Bytes(), m.tail...)
}

func TestGGUF(t *testing.T) {
	type tensors = []struct {
		name   string
		ne     uint64
		offset uint64
	}
	arch := text("general.architecture", "llama")
	base := model{version: 3, dims: 1, facts: []func(*bytes.Buffer){arch}, tensors: tensors{{"a", 8, 0}, {"b", 8, 32}}, data: 64}
	with := func(change func(*model)) []byte {
		m := base
		change(&m)
		return m.bytes()
	}
	add := func(f func(*bytes.Buffer)) []byte {
		return with(func(m *model) { m.facts = append([]func(*bytes.Buffer){arch}, f) })
	}
	for name, tc := range map[string]struct {
		content []byte
		rule    string
	}{
		"a good one":                {base.bytes(), ""},
		"version 2":                 {with(func(m *model) { m.version = 2 }), ""},
		"version 9":                 {with(func(m *model) { m.version = 9 }), "header"},
		"big-endian":                {with(func(m *model) { m.version = 3 << 24 }), "header"},
		"no architecture":           {with(func(m *model) { m.facts = nil }), "header"},
		"a fact twice":              {add(arch), "header"},
		"a string beyond the file":  {add(func(b *bytes.Buffer) { put(b, "k", uint32(8), uint64(1<<40)) }), "header"},
		"a string of 2^64-1 bytes":  {add(func(b *bytes.Buffer) { put(b, "k", uint32(8), ^uint64(0)) }), "header"},
		"an array beyond the file":  {add(func(b *bytes.Buffer) { put(b, "k", uint32(9), uint32(4), uint64(1<<25)) }), "header"},
		"an array of 2^63 elements": {add(func(b *bytes.Buffer) { put(b, "k", uint32(9), uint32(0), uint64(1)<<63) }), "header"},
		"arrays nested without end": {add(func(b *bytes.Buffer) {
			put(b, "k", uint32(9), uint32(9), uint64(1), uint32(9), uint64(1), uint32(9), uint64(1), uint32(9), uint64(1))
		}), "header"},
		"an unknown type of fact":          {add(func(b *bytes.Buffer) { put(b, "k", uint32(77)) }), "header"},
		"an alignment of 3":                {add(func(b *bytes.Buffer) { put(b, "general.alignment", uint32(4), uint32(3)) }), "header"},
		"an alignment of 0":                {add(func(b *bytes.Buffer) { put(b, "general.alignment", uint32(4), uint32(0)) }), "header"},
		"an alignment in text":             {add(text("general.alignment", "32")), "header"},
		"a template that is no text":       {add(func(b *bytes.Buffer) { put(b, "tokenizer.chat_template", uint32(9), uint32(8), uint64(0)) }), "header"},
		"a template under another key":     {add(text("llama.chat_template", "{{ ''.__class__ }}")), "template-reach"},
		"no dimensions":                    {with(func(m *model) { m.dims = 0 }), "header"},
		"five dimensions":                  {with(func(m *model) { m.dims = 5 }), "header"},
		"dimensions that overflow":         {with(func(m *model) { m.dims, m.tensors = 3, tensors{{"a", 1 << 30, 0}} }), "header"},
		"a tensor outside of the file":     {with(func(m *model) { m.tensors = tensors{{"a", 1 << 20, 0}} }), "tensors"},
		"an offset near 2^64":              {with(func(m *model) { m.tensors = tensors{{"a", 8, ^uint64(31)}} }), "tensors"},
		"tensors that share bytes":         {with(func(m *model) { m.tensors = tensors{{"a", 16, 0}, {"b", 8, 32}} }), "tensors"},
		"a tensor twice":                   {with(func(m *model) { m.tensors = tensors{{"a", 8, 0}, {"a", 8, 32}} }), "header"},
		"a tensor that is not aligned":     {with(func(m *model) { m.tensors = tensors{{"a", 8, 8}} }), "header"},
		"a name of 65 bytes":               {with(func(m *model) { m.tensors = tensors{{strings.Repeat("n", 65), 8, 0}} }), "header"},
		"something behind the last tensor": {with(func(m *model) { m.tail = strings.Repeat("x", 100) }), "tensors"},
		"an unknown file called a model":   {[]byte("\x00\x01\x02 not a model"), "unknown-model"},
	} {
		t.Run(name, func(t *testing.T) {
			file := "m.gguf"
			if tc.rule == "unknown-model" {
				file = "m.weights"
			}
			want(t, judge(t, artifact.Ref{Kind: "model", Name: "m"}, file, tc.content), tc.rule)
		})
	}
	whole := base.bytes()
	for n := range whole {
		if rep := judge(t, artifact.Ref{Kind: "model", Name: "m"}, "m.gguf", whole[:n]); len(rep.Of(inspect.Refuse)) == 0 {
			t.Errorf("cut to %d of %d bytes it passes", n, len(whole))
		}
	}
	rep := judge(t, artifact.Ref{Kind: "model", Name: "m"}, "m.gguf", add(text("tokenizer.chat_template", "{{ ''.__class__ }}")))
	if found := rep.Of(inspect.Refuse); len(found) != 1 || found[0].Rule != "template-reach" {
		t.Errorf("a template that reaches out: %+v", found)
	}
}

// faulty is a scanner that does what it should not.
type faulty struct{ do func(context.Context) error }

func (faulty) Name() string                                                       { return "faulty" }
func (faulty) Version() string                                                    { return "0" }
func (faulty) Wants(inspect.Subject) bool                                         { return true }
func (f faulty) Scan(ctx context.Context, _ inspect.Subject, _ inspect.Run) error { return f.do(ctx) }

func TestAScannerThatFailsRefuses(t *testing.T) {
	for name, do := range map[string]func(context.Context) error{
		"by an error":           func(context.Context) error { return errRead },
		"by a panic":            func(context.Context) error { panic("broke") },
		"by reading past a end": func(context.Context) error { var b []byte; _ = b[3]; return nil }, //nolint:gosec // on purpose
	} {
		t.Run(name, func(t *testing.T) {
			want(t, judge(t, artifact.Ref{Kind: "files", Name: "f"}, "f", []byte("x"), faulty{do}), "unread")
		})
	}
}

func TestContentThatIsNotItsDigestIsRefused(t *testing.T) {
	r := inspect.Runner{Scanners: []inspect.Scanner{archive.New()}}
	a := artifact.Artifact{Ref: artifact.Ref{Kind: "files", Name: "f"}, Files: []artifact.File{{Path: "f", Size: 1, Digest: artifact.Sum([]byte("a"))}}}
	rep, err := r.Inspect(t.Context(), []artifact.Artifact{a}, func(artifact.Digest) (inspect.Blob, error) { return blob{bytes.NewReader([]byte("b"))}, nil }, func(int64) {})
	if err != nil {
		t.Fatal(err)
	}
	want(t, rep, "digest")
	if _, err := (&inspect.Runner{}).Inspect(t.Context(), nil, nil, nil); err == nil {
		t.Error("without a scanner everything would be clean")
	}
}

func FuzzScanners(f *testing.F) {
	f.Add("a.zip", []byte("PK\x03\x04"))
	f.Add("m.gguf", []byte("GGUF\x03\x00\x00\x00"))
	f.Add("a.tgz", []byte("\x1f\x8b\x08"))
	f.Fuzz(func(t *testing.T, name string, content []byte) {
		if artifact.CheckPath(name) == nil {
			judge(t, artifact.Ref{Kind: "model", Name: "m"}, name, content)
		}
	})
}
