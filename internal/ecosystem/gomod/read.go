package gomod

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	"golang.org/x/mod/sumdb/tlog"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/fetch"
	"enisle/internal/fail"
)

// databaseName begins the name of an artifact that holds a part of a checksum database;
// no module's path can, for want of a dot.
const databaseName = "sumdb/"

// maxInfo is the largest .info that is read, in bytes.
const maxInfo = 1 << 20

// read turns what go downloaded into artifacts. Modules of which only the go.mod
// was needed have no more than that.
func (r *resolving) read(sums []string) ([]artifact.Artifact, error) {
	expect, err := parseSums(sums)
	if err != nil {
		return nil, err
	}
	root := filepath.Join(r.cache, "cache", "download")
	found := map[module.Version]*artifact.Artifact{}
	err = filepath.WalkDir(root, func(at string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel := filepath.ToSlash(strings.TrimPrefix(at, root+string(filepath.Separator)))
		if d.IsDir() {
			if rel == strings.TrimSuffix(databaseName, "/") {
				return fs.SkipDir
			}
			return nil
		}
		m, ext, ok := parseFile("/" + rel)
		if !ok || !d.Type().IsRegular() {
			return nil
		}
		a := found[m]
		if a == nil {
			a = &artifact.Artifact{Ref: artifact.Ref{Kind: Kind, Name: m.Path, Version: m.Version}, By: r.by}
			found[m] = a
		}
		if err := checkSum(expect, m, at, ext); err != nil {
			return err
		}
		a.Files = append(a.Files, artifact.File{Path: path.Base(rel), Size: -1, Origin: r.made(at, r.origin(m, rel))})
		return nil
	})
	if err != nil {
		return nil, err
	}
	var out []artifact.Artifact
	for m, a := range found {
		when := published(filepath.Join(root, filepath.FromSlash(escaped(m)+".info")))
		for i := range a.Files {
			a.Files[i].Published = when
		}
		out = append(out, *a)
	}
	slices.SortFunc(out, func(a, b artifact.Artifact) int { return strings.Compare(a.Ref.String(), b.Ref.String()) })
	db, ok, err := r.database(filepath.Join(root, "sumdb"))
	if ok {
		out = append(out, db)
	}
	return out, err
}

func (r *resolving) made(at, from string) string {
	return ecosystem.Made(filepath.ToSlash(strings.TrimPrefix(at, r.want.Work+string(filepath.Separator))), from)
}

// origin is where a file came from, as far as go's settings tell: its proxy, or
// what it is called where there is none.
func (r *resolving) origin(m module.Version, rel string) string {
	proxy, _, _ := strings.Cut(strings.ReplaceAll(r.env.GOPROXY, "|", ","), ",")
	if proxy == "direct" || proxy == "off" || proxy == "" || module.MatchPrefixPatterns(r.env.GONOPROXY, m.Path) {
		return "https://" + m.Path
	}
	return fetch.Clean(strings.TrimSuffix(proxy, "/") + "/" + rel)
}

// database makes the artifact of what go learnt of checksum databases.
func (r *resolving) database(root string) (a artifact.Artifact, ok bool, err error) {
	a = artifact.Artifact{By: r.by}
	h := sha256.New()
	add := func(name, at, from string) error {
		f, err := os.Open(at)
		if err != nil {
			return err
		}
		fmt.Fprintf(h, "%q ", name)
		_, err = io.Copy(h, f)
		a.Files = append(a.Files, artifact.File{Path: name, Size: -1, Origin: r.made(at, from)})
		return errors.Join(err, f.Close())
	}
	err = filepath.WalkDir(root, func(at string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && at == root {
			return nil // nothing is looked up here
		}
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		rel := filepath.ToSlash(strings.TrimPrefix(at, root+string(filepath.Separator)))
		name, rest, _ := strings.Cut(rel, "/")
		if !strings.HasPrefix(rest, "lookup/") && !strings.HasPrefix(rest, "tile/") || strings.HasSuffix(rest, ".lock") {
			return nil
		}
		return add(rel, at, "https://"+name+"/"+rest)
	})
	if err != nil || len(a.Files) == 0 {
		return a, false, err
	}
	heads, err := filepath.Glob(filepath.Join(r.gopath, "pkg", "sumdb", "*", "latest"))
	if err != nil {
		return a, false, err
	}
	for _, at := range heads {
		name := filepath.Base(filepath.Dir(at))
		if _, err := os.Stat(filepath.Join(root, name)); err != nil {
			continue // another time's
		}
		b, err := head(at)
		if err != nil {
			return a, false, err
		}
		copied := filepath.Join(r.want.Work, "latest-"+name)
		if err := os.WriteFile(copied, b, 0o600); err != nil {
			return a, false, err
		}
		if err := add(name+"/latest", copied, "https://"+name+"/latest"); err != nil {
			return a, false, err
		}
	}
	a.Ref = artifact.Ref{Kind: Kind, Name: databaseName + hex.EncodeToString(h.Sum(nil))[:12]}
	return a, true, nil
}

// head reads the head of a checksum database, which may lie outside of the work
// directory, where a client wrote it: nothing but a head is taken.
func head(name string) ([]byte, error) {
	st, err := os.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !st.Mode().IsRegular() || st.Size() > maxInfo {
		return nil, fail.Refuse("remove it", fmt.Errorf("%s is no head of a checksum database", name))
	}
	b, err := os.ReadFile(name)
	if err == nil {
		if _, terr := tlog.ParseTree(b); terr != nil {
			err = fail.Refuse("remove it", fmt.Errorf("%s is no head of a checksum database", name))
		}
	}
	return b, err
}

// parseFile reads the path of a module's file: /MODULE/@v/VERSION.EXT, escaped.
func parseFile(p string) (m module.Version, ext string, ok bool) {
	name, file, ok := strings.Cut(strings.TrimPrefix(p, "/"), "/@v/")
	ext = path.Ext(file)
	if !ok || ext != ".info" && ext != ".mod" && ext != ".zip" {
		return m, "", false
	}
	return unescape(name, strings.TrimSuffix(file, ext), ext)
}

func unescape(name, version, ext string) (m module.Version, _ string, ok bool) {
	p, err := module.UnescapePath(name)
	if err != nil {
		return m, "", false
	}
	v, err := module.UnescapeVersion(version)
	if err != nil || module.CanonicalVersion(v) != v {
		return m, "", false
	}
	return module.Version{Path: p, Version: v}, ext, true
}

// escaped is the path of a module's files, without an extension.
func escaped(m module.Version) string {
	p, err := module.EscapePath(m.Path)
	v, verr := module.EscapeVersion(m.Version)
	if err != nil || verr != nil {
		return ""
	}
	return p + "/@v/" + v
}

func published(info string) time.Time {
	f, err := os.Open(info)
	if err != nil {
		return time.Time{} // of a go.mod alone
	}
	defer func() { _ = f.Close() }() // only read from
	var v struct{ Time time.Time }
	if json.NewDecoder(io.LimitReader(f, maxInfo)).Decode(&v) != nil {
		return time.Time{} // provenance only
	}
	return v.Time.UTC().Truncate(time.Second)
}

// parseSums reads go.sum files: "MODULE VERSION" or "MODULE VERSION/go.mod" → hash.
func parseSums(files []string) (map[string]string, error) {
	out := map[string]string{}
	for _, text := range files {
		for line := range strings.Lines(text) {
			f := strings.Fields(line)
			if len(f) == 0 {
				continue
			}
			if len(f) != 3 {
				return nil, fail.Refuse("run 'go mod tidy' where it lies", fmt.Errorf("go.sum: %.80q is no line of it", line))
			}
			if strings.HasPrefix(f[2], "h1:") {
				out[f[0]+" "+f[1]] = f[2]
			}
		}
	}
	return out, nil
}

// checkSum compares a file with what the go.sum of the request says of it.
func checkSum(expect map[string]string, m module.Version, at, ext string) error {
	key := m.Path + " " + m.Version
	if ext == ".mod" {
		key += "/go.mod"
	}
	want, ok := expect[key]
	if !ok || ext == ".info" {
		return nil
	}
	var got string
	var err error
	if ext == ".mod" {
		got, err = dirhash.Hash1([]string{"go.mod"}, func(string) (io.ReadCloser, error) { return os.Open(at) })
	} else {
		got, err = dirhash.HashZip(at, dirhash.Hash1)
	}
	if err == nil && got != want {
		err = fail.Refuse("find out who changed it: the go.sum or the origin", fmt.Errorf("%s@%s is %s and not what go.sum says", m.Path, m.Version, got))
	}
	return err
}
