package crossing

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/ecosystem"
	"enisle/internal/fail"
)

// LockFormat is the format a lock names.
const LockFormat = "enisle-lock/1"

// Lock is exactly what a request came to: every artifact, file, size and hash,
// where each came from and when it was published there.
type Lock struct {
	Format    string              `json:"format"`
	Name      string              `json:"name"`
	Request   artifact.Digest     `json:"request"` // over the request and the files it names
	Target    ecosystem.Target    `json:"target"`
	Content   artifact.Digest     `json:"content"` // content root
	Collected time.Time           `json:"collected"`
	Artifacts []artifact.Artifact `json:"artifacts"`
	// Sources are packages that were fetched only for files taken out of them;
	// they are not shipped.
	Sources []artifact.Artifact `json:"sources,omitempty"`
}

// LockFile is the name of the lock beside a request: enisle.yaml → enisle.lock.
func LockFile(request string) string {
	return strings.TrimSuffix(request, filepath.Ext(request)) + ".lock"
}

// ReadLock reads a lock; fs.ErrNotExist if there is none.
func ReadLock(file string) (Lock, error) {
	var l Lock
	b, err := os.ReadFile(file)
	if err != nil {
		return l, err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	err = d.Decode(&l)
	if err == nil && l.Format != LockFormat {
		err = fmt.Errorf("format %.40q is not known", l.Format)
	}
	for i := range len(l.Artifacts) + len(l.Sources) {
		a := l.at(i)
		if err == nil {
			a.Ref, err = artifact.ParseRef(a.Name)
		}
		if err == nil {
			err = a.Check()
		}
		for _, f := range a.Files {
			if err == nil {
				_, err = artifact.ParseDigest(string(f.Digest))
			}
		}
	}
	if err != nil {
		return l, fail.Refuse("put the lock back, or make it anew with 'enisle collect --update'", fmt.Errorf("%s: %w", filepath.Base(file), err))
	}
	return l, nil
}

// at returns artifact i, counting the sources after the others.
func (l *Lock) at(i int) *artifact.Artifact {
	if i < len(l.Artifacts) {
		return &l.Artifacts[i]
	}
	return &l.Sources[i-len(l.Artifacts)]
}

// write replaces the lock at once.
func (l Lock) write(file string) error {
	b, err := json.MarshalIndent(l, "", " ")
	if err != nil {
		return err
	}
	tmp, err := os.CreateTemp(filepath.Dir(file), ".enisle.lock-*")
	if err != nil {
		return err
	}
	_, err = tmp.Write(append(b, '\n'))
	err = errors.Join(err, tmp.Chmod(0o644), tmp.Sync(), tmp.Close())
	if err == nil {
		err = os.Rename(tmp.Name(), file)
	}
	if err != nil {
		return errors.Join(err, os.Remove(tmp.Name()))
	}
	return nil
}

// Request is a decoded enisle.yaml.
type Request struct {
	Name   string
	Target ecosystem.Target
	Bring  map[string][]any // ecosystem → items; "files" is read by collect itself
	Trust  Trust            // whose signatures count
	File   string           // path of enisle.yaml
}

// Outside reports whether anything in the request comes over the network.
func (r Request) Outside() bool {
	for kind, items := range r.Bring {
		if kind != "files" && len(items) > 0 {
			return true
		}
		for _, v := range items {
			if it, err := parseFileItem(v); err == nil && it.from != "" {
				return true
			}
		}
	}
	return false
}

func (r Request) dir() string { return filepath.Dir(r.File) }

// digest covers the request and the content of every file it names, so that a
// changed requirements.txt is a changed request.
func (r Request) digest() (artifact.Digest, error) {
	named := map[string]artifact.Digest{}
	add := func(v any) error {
		m, ok := v.(map[string]any)
		if !ok {
			return nil
		}
		for _, key := range []string{"requirements", "path", "lockfile", "modfile", "pom"} {
			name, ok := m[key].(string)
			if !ok {
				continue
			}
			d, err := hashLocal(filepath.Join(r.dir(), name))
			if errors.Is(err, fs.ErrNotExist) {
				return fail.As(fail.Usage, "paths in a request start where it lies", fmt.Errorf("%s names %s, which does not exist", filepath.Base(r.File), name))
			}
			if err != nil {
				return err
			}
			named[name] = d
			if key != "modfile" {
				continue
			}
			sums := strings.TrimSuffix(name, filepath.Ext(name)) + ".sum"
			if d, err := hashLocal(filepath.Join(r.dir(), sums)); err == nil {
				named[sums] = d
			} else if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		return nil
	}
	for kind, items := range r.Bring {
		for _, it := range items {
			if name, ok := it.(string); ok && kind == "files" {
				it = map[string]any{"path": name}
			}
			if err := add(it); err != nil {
				return "", err
			}
		}
	}
	_, signers, err := r.trusted(time.Time{})
	if err != nil {
		return "", err
	}
	b, err := json.Marshal(struct {
		Name   string
		Target ecosystem.Target
		Bring  map[string][]any
		Named  map[string]artifact.Digest
		Trust  artifact.Digest `json:",omitempty"`
	}{r.Name, r.Target, r.Bring, named, signers})
	return artifact.Sum(b), err
}
