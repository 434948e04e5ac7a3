package debian

import (
	"bufio"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/ecosystem/fetch"
)

var _ ecosystem.Proving = (*Ecosystem)(nil)

// maxRelease is the largest InRelease, keyring or sources file that is read, in bytes.
const maxRelease = 16 << 20

// Prove verifies again what apt kept while it resolved: the signature on each archive's
// Release by the keys that its source names, its dates, the hash of Packages in it, and
// that a package and the paragraph about it are what Packages says.
func (e *Ecosystem) Prove(ctx context.Context, want ecosystem.Want, found ecosystem.Found) (out []ecosystem.Proof, err error) {
	all, err := readWants(want)
	if err != nil {
		return nil, err
	}
	left, err := wanted(found)
	if err != nil {
		return nil, err
	}
	why := map[string]string{} // by address of the archive
	for i, w := range all {
		r := e.run(want, i, w)
		archives, err := r.archives(ctx)
		if err != nil {
			return nil, err
		}
		for _, a := range archives {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			p, err := r.prove(a, left, found.At)
			if err != nil {
				why[a.repo] = err.Error()
				continue
			}
			if len(p.Covers) > 0 {
				out = append(out, p)
			}
		}
	}
	for _, a := range found.Artifacts {
		for key, w := range left {
			if w.artifact.Ref != a.Ref {
				continue
			}
			p := ecosystem.Proof{Why: why[a.Index], Covers: []artifact.Artifact{a}}
			if p.Why == "" {
				p.Why = "no index of its archive says the same of it"
			}
			out = append(out, p)
			delete(left, key)
		}
	}
	return out, nil
}

// claim is what is held of a package: its paragraph, field by field.
type claim struct {
	artifact artifact.Artifact
	fields   []string
}

// wanted are the claims of artifacts, by the address of the package.
func wanted(found ecosystem.Found) (map[string]claim, error) {
	out := map[string]claim{}
	for _, a := range found.Artifacts {
		i := slices.IndexFunc(a.Files, func(f artifact.File) bool { return path.Ext(f.Path) == stanzaSuffix })
		if i < 0 {
			return nil, fmt.Errorf("%s has no paragraph", a.Ref)
		}
		b, err := readAll(found.Open, a.Files[i])
		if err != nil {
			return nil, err
		}
		c := claim{a, fields(string(b))}
		out[a.Index+"/"+field(c.fields, "Filename")] = c
	}
	return out, nil
}

// fields are those of a paragraph, each with the lines that belong to it, in an order
// that does not depend on the one they were in: apt-cache has its own.
func fields(text string) (out []string) {
	for l := range strings.Lines(text) {
		l = strings.TrimRight(l, " \t\r\n")
		switch {
		case l == "":
		case l[0] != ' ' && l[0] != '\t' || len(out) == 0:
			out = append(out, l)
		default:
			out[len(out)-1] += "\n" + l
		}
	}
	slices.Sort(out)
	return out
}

// field is the value of a field; empty if there is none, or more than one.
func field(all []string, name string) (value string) {
	n := 0
	for _, f := range all {
		if key, v, _ := strings.Cut(f, ":"); strings.EqualFold(key, name) {
			value, n = strings.TrimSpace(v), n+1
		}
	}
	if n != 1 {
		return ""
	}
	return value
}

// repository is one Release and the indexes of packages below it, as apt read them.
type repository struct {
	base    string     // address of Release, with a slash at its end
	repo    string     // what the names of packages begin at, without credentials and a slash
	entry   string     // file with the source
	lists   string     // how its files in lists/ begin
	indexes [][]string // paragraphs about its indexes
}

// archives asks apt for the indexes that it read.
func (r *run) archives(ctx context.Context) (out []repository, err error) {
	shown, err := r.apt(ctx, "apt-get", "indextargets", "Created-By: Packages")
	if err != nil {
		return nil, err
	}
	targets, err := parseStanzas(shown)
	if err != nil {
		return nil, err
	}
	for _, t := range targets {
		f := t.fields
		lists, ok := strings.CutPrefix(f["Filename"], r.dir+"/lists/")
		lists, kept := strings.CutSuffix(lists, strings.ReplaceAll(f["MetaKey"], "/", "_"))
		if !ok || !kept {
			continue // compressed, or not in this run
		}
		entry := f["Sourcesentry"][:max(0, strings.LastIndex(f["Sourcesentry"], ":"))]
		a := repository{f["Base-URI"], strings.TrimSuffix(fetch.Clean(f["Repo-URI"]), "/"), entry, lists, nil}
		i := slices.IndexFunc(out, func(o repository) bool { return o.base == a.base })
		if i < 0 {
			i, out = len(out), append(out, a)
		}
		out[i].indexes = append(out[i].indexes, fields(t.text))
	}
	return out, nil
}

// document is the address of a file of an archive as a name: without scheme, credentials
// and colons.
func (a repository) document(name string) (string, error) {
	u, err := url.Parse(a.base)
	if err != nil {
		return "", errors.New("its address cannot be read")
	}
	out := strings.ReplaceAll(path.Join(u.Host, u.Path, name), ":", "_")
	return out, artifact.CheckPath(out)
}

// prove verifies one archive and takes the packages that follow from it out of left.
func (r *run) prove(a repository, left map[string]claim, at time.Time) (p ecosystem.Proof, err error) {
	s, err := r.source(a)
	if err != nil {
		return p, err
	}
	ring, trust, err := r.keyring(s)
	if err != nil {
		return p, err
	}
	lists, err := os.OpenRoot(filepath.Join(r.dir, "lists"))
	if err != nil {
		return p, err
	}
	defer func() { err = errors.Join(err, lists.Close()) }()
	name, raw, text, keys, err := signedRelease(lists, a.lists, ring, at)
	if err != nil {
		return p, err
	}
	sums, err := readRelease(text, at)
	if err != nil {
		return p, fmt.Errorf("%s: %w", name, err)
	}
	p = ecosystem.Proof{Format: "apt", Keys: keys, Digest: artifact.Sum(raw), Trust: trust}
	if p.Document, err = a.document(name); err != nil {
		return p, err
	}
	for _, index := range a.indexes {
		key := field(index, "MetaKey")
		want, ok := sums[key]
		if !ok {
			continue // nothing is known of it
		}
		found, err := a.index(lists, key, want, left)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return p, err
		}
		if len(found) == 0 {
			continue
		}
		through := artifact.File{Digest: want}
		if through.Path, err = a.document(key); err != nil {
			return p, err
		}
		p.Through = append(p.Through, through)
		for _, f := range found {
			p.Covers = append(p.Covers, left[f].artifact)
			delete(left, f)
		}
	}
	return p, nil
}

// index reads one Packages, which must be what Release says, and returns the addresses
// of those packages of which it says exactly what is held.
func (a repository) index(lists *os.Root, key string, want artifact.Digest, left map[string]claim) (found []string, err error) {
	f, err := lists.Open(a.lists + strings.ReplaceAll(key, "/", "_"))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	h := sha256.New()
	seen := map[string]bool{}
	err = paragraphs(io.TeeReader(f, h), func(text string) {
		i := strings.Index("\n"+text, "\nFilename:")
		if i < 0 {
			return
		}
		name, _, _ := strings.Cut(text[i+len("Filename:"):], "\n")
		at := a.repo + "/" + strings.TrimSpace(name)
		c, ok := left[at]
		if !ok || seen[at] {
			return
		}
		all := fields(text)
		if slices.Equal(all, c.fields) && c.holds(all) {
			seen[at] = true
			found = append(found, at)
		}
	})
	if err == nil && digestOf(h) != want {
		err = fmt.Errorf("%s is not what is signed", key)
	}
	return found, err
}

// holds reports whether the files of an artifact are the package that a paragraph is
// about, and nothing else but the paragraph.
func (c claim) holds(all []string) bool {
	for _, f := range c.artifact.Files {
		if path.Ext(f.Path) != stanzaSuffix && string(f.Digest) != "sha256:"+field(all, "SHA256") {
			return false
		}
	}
	return c.artifact.Ref.Version == field(all, "Version") && path.Base(c.artifact.Ref.Name) == field(all, "Package")
}

func digestOf(h hash.Hash) artifact.Digest { return artifact.FromSum([32]byte(h.Sum(nil))) }

// paragraphs reads an index to its end, one paragraph at a time.
func paragraphs(r io.Reader, each func(text string)) error {
	var now strings.Builder
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, maxStanza)
	for lines.Scan() {
		if l := lines.Bytes(); len(l) > 0 {
			now.Write(l)
			now.WriteByte('\n')
			if now.Len() > maxStanza {
				return errors.New("a paragraph larger than it may be")
			}
			continue
		}
		each(now.String())
		now.Reset()
	}
	each(now.String())
	return lines.Err()
}

// readRelease checks the dates of a Release and returns the hashes in it, by name.
func readRelease(text []byte, at time.Time) (map[string]artifact.Digest, error) {
	all := fields(string(text))
	made, err := date(field(all, "Date"))
	switch {
	case err != nil:
		return nil, err
	case made.After(at.Add(clockSkew)):
		return nil, fmt.Errorf("it is of %s, which is not yet", made.Format(time.DateTime))
	}
	if slices.ContainsFunc(all, func(f string) bool { key, _, _ := strings.Cut(f, ":"); return strings.EqualFold(key, "Valid-Until") }) {
		until, err := date(field(all, "Valid-Until"))
		if err != nil {
			return nil, err
		}
		if until.Before(at) {
			return nil, fmt.Errorf("it was valid until %s", until.Format(time.DateTime))
		}
	}
	out := map[string]artifact.Digest{}
	for l := range strings.Lines(field(all, "SHA256")) {
		f := strings.Fields(l)
		if len(f) != 3 {
			continue
		}
		d, err := artifact.ParseDigest("sha256:" + f[0])
		if was, ok := out[f[2]]; err != nil || ok && was != d {
			return nil, fmt.Errorf("it says nothing clear of %.80q", f[2])
		}
		out[f[2]] = d
	}
	return out, nil
}

// clockSkew is by how much the clock of an archive may be before ours.
const clockSkew = 5 * time.Minute

// date reads one as it is written in a Release.
func date(s string) (time.Time, error) {
	for _, form := range []string{"Mon, 2 Jan 2006 15:04:05 UTC", "Mon, 2 Jan 2006 15:04:05 GMT", "Mon, 2 Jan 2006 15:04:05 Z", "Mon, 2 Jan 2006 15:04:05 -0700"} {
		if t, err := time.Parse(form, s); err == nil {
			return t, nil
		}
	}
	return time.Time{}, fmt.Errorf("its date %.40q cannot be read", s)
}
