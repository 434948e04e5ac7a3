package trust

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"enisle/internal/fail"
)

// Roots is the directory with a site's own roots: draft.json until it is
// sealed, then root-NNNN.json, and pending.json while a next version gathers
// signatures. One process at a time may change it.
type Roots struct {
	dir       string
	site      Public
	envelopes [][]byte
	root      Root
}

// CreateRoots begins a site's roots with a draft.
func CreateRoots(dir string, draft Root) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	return writeJSON(filepath.Join(dir, "draft.json"), draft)
}

// OpenRoots reads and verifies all versions; site is the site's own key.
func OpenRoots(dir string, site Public) (*Roots, error) {
	r := &Roots{dir: dir, site: site}
	for n := 1; ; n++ {
		b, err := os.ReadFile(r.file(n))
		if errors.Is(err, fs.ErrNotExist) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("trust: %w", err)
		}
		r.envelopes = append(r.envelopes, b)
	}
	if len(r.envelopes) == 0 {
		return r, r.readDraft()
	}
	var err error
	r.root, err = VerifyChain(r.envelopes, site)
	return r, err
}

func (r *Roots) file(n int) string { return filepath.Join(r.dir, fmt.Sprintf("root-%04d.json", n)) }

func (r *Roots) readDraft() error {
	b, err := os.ReadFile(filepath.Join(r.dir, "draft.json"))
	if errors.Is(err, fs.ErrNotExist) {
		return fail.Refuse("restore the site's trust directory from its backup and tell the security officer", errors.New("trust: there is neither a root nor a draft of one"))
	}
	if err != nil {
		return fmt.Errorf("trust: %w", err)
	}
	if err := decode(b, &r.root); err != nil {
		return fail.Refuse("restore the site from its backup", fmt.Errorf("trust: draft: %w", err))
	}
	return r.root.refusal()
}

// Root returns the newest version, or the draft before sealing.
func (r *Roots) Root() Root { return r.root }

// Sealed reports whether the set of people is closed.
func (r *Roots) Sealed() bool { return len(r.envelopes) > 0 }

// Envelopes returns every signed version, oldest first.
func (r *Roots) Envelopes() [][]byte { return r.envelopes }

// Ever returns the key of an id that is or was enrolled, for checking what was
// signed in the past. A root never forgets a key that it revoked.
func (r *Roots) Ever(id string) (Public, error) {
	if p, ok := r.root.Person(id); ok {
		return p.Key, nil
	}
	if p, ok := r.root.Retired(id); ok {
		return p.Key, nil
	}
	return nil, fmt.Errorf("key %.12s was never enrolled", id)
}

// Edit changes the draft. After sealing it refuses: then only a version signed
// by the admins changes anything.
func (r *Roots) Edit(change func(Root) (Root, error)) error {
	if r.Sealed() {
		hint := "propose it as an admin with --as NAME --key FILE; a second admin signs it with 'enisle trust sign'"
		if r.root.With(Admin) < r.root.Thresholds.Admins {
			hint = "this site was sealed without two admins: its people can never change; make a new site"
		}
		return fail.Refuse(hint, errors.New("the site is sealed: its people and peers change only by two admins"))
	}
	next, err := change(r.root)
	if err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(r.dir, "draft.json"), next); err != nil {
		return err
	}
	r.root = next
	return nil
}

// Seal closes enrolment: the draft becomes version 1, signed by the site's key.
// A sealed site stays as it is. It reports whether the site was sealed now.
func (r *Roots) Seal(k *Key, now time.Time) (bool, error) {
	if r.Sealed() {
		return false, nil
	}
	root := r.root
	root.Made = now.UTC().Truncate(time.Second)
	payload, err := json.Marshal(root)
	if err != nil {
		return false, err
	}
	env, err := Sign(RootType, payload, k)
	if err != nil {
		return false, err
	}
	if err := writeFile(r.file(1), env); err != nil {
		return false, err
	}
	again, err := OpenRoots(r.dir, r.site)
	if err != nil {
		return true, err
	}
	*r = *again
	return true, os.Remove(filepath.Join(r.dir, "draft.json"))
}

func writeJSON(file string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return writeFile(file, b)
}

// writeFile replaces a file durably and at once.
func writeFile(file string, b []byte) (err error) {
	tmp := file + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o644)
	if err != nil {
		return err
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, file); err != nil {
		return err
	}
	d, err := os.Open(filepath.Dir(file))
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
