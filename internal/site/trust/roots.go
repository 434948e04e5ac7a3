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

// Ever returns the key of an id that was enrolled in any version, for checking
// what was signed in the past.
func (r *Roots) Ever(id string) (Public, error) {
	if p, ok := r.root.Person(id); ok {
		return p.Key, nil
	}
	for _, env := range r.envelopes {
		e, err := Parse(env)
		if err != nil {
			return nil, err
		}
		var old Root
		if err := decode(e.Payload, &old); err != nil {
			return nil, err
		}
		if p, ok := old.Person(id); ok {
			return p.Key, nil
		}
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
// A sealed site stays as it is.
func (r *Roots) Seal(k *Key, now time.Time) error {
	if r.Sealed() {
		return nil
	}
	root := r.root
	root.Made = now.UTC().Truncate(time.Second)
	payload, err := json.Marshal(root)
	if err != nil {
		return err
	}
	env, err := Sign(RootType, payload, k)
	if err != nil {
		return err
	}
	if err := writeFile(r.file(1), env); err != nil {
		return err
	}
	again, err := OpenRoots(r.dir, r.site)
	if err != nil {
		return err
	}
	*r = *again
	return os.Remove(filepath.Join(r.dir, "draft.json"))
}

func (r *Roots) pending() string { return filepath.Join(r.dir, "pending.json") }

// Propose begins the next version with an admin's signature. A proposal that
// is still waiting is replaced.
func (r *Roots) Propose(change func(Root) (Root, error), k *Key, now time.Time) error {
	if !r.Sealed() {
		return fail.As(fail.Usage, "change it directly", errors.New("the site is not sealed yet"))
	}
	if _, err := r.root.Holder(false, Admin)(k.Public.ID()); err != nil {
		return fail.Refuse("only an admin proposes", err)
	}
	next, err := r.root.next()
	if err != nil {
		return err
	}
	if next, err = change(next); err != nil {
		return err
	}
	next.Made = now.UTC().Truncate(time.Second)
	payload, err := json.Marshal(next)
	if err != nil {
		return err
	}
	env, err := Sign(RootType, payload, k)
	if err != nil {
		return err
	}
	return writeFile(r.pending(), env)
}

// Pending returns the version that waits for signatures and how many it has.
func (r *Roots) Pending() (next Root, have int, err error) {
	b, err := os.ReadFile(r.pending())
	if errors.Is(err, fs.ErrNotExist) {
		return next, 0, fail.As(fail.Usage, "an admin proposes with 'enisle trust revoke' or 'enisle person add'", errors.New("nothing is proposed"))
	}
	if err != nil {
		return next, 0, fmt.Errorf("trust: %w", err)
	}
	payload, by, err := Verify(b, RootType, r.root.Holder(false, Admin))
	if err != nil {
		return next, 0, err
	}
	if err := decode(payload, &next); err != nil {
		return next, 0, err
	}
	if next.Version != r.root.Version+1 {
		return next, 0, fail.As(fail.Usage, "propose it again", fmt.Errorf("the proposal is for version %d, the root is at %d", next.Version, r.root.Version))
	}
	return next, len(by), nil
}

// Tidy removes what a crash between two steps may have left. Only the process
// that may change the site calls it.
func (r *Roots) Tidy() error {
	names, err := filepath.Glob(filepath.Join(r.dir, "*.tmp"))
	if r.Sealed() {
		names = append(names, filepath.Join(r.dir, "draft.json"))
	}
	if next, _, perr := r.Pending(); perr != nil && next.Version != 0 && next.Version <= r.root.Version {
		names = append(names, r.pending())
	}
	for _, n := range names {
		if e := os.Remove(n); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// Countersign adds an admin's signature to the proposal and, when the threshold
// is reached, makes it the newest version. It returns how many more are needed.
func (r *Roots) Countersign(k *Key) (missing int, err error) {
	if _, _, err := r.Pending(); err != nil {
		return 0, err
	}
	b, err := os.ReadFile(r.pending())
	if err != nil {
		return 0, err
	}
	e, err := Parse(b)
	if err != nil {
		return 0, err
	}
	if err := e.add(k); err != nil {
		return 0, err
	}
	if b, err = json.Marshal(e); err != nil {
		return 0, err
	}
	if _, _, err := Verify(b, RootType, r.root.Holder(false, Admin)); err != nil {
		return 0, err
	}
	if missing = r.root.Thresholds.Admins - len(e.Signatures); missing > 0 {
		return missing, writeFile(r.pending(), b)
	}
	if _, err := VerifyChain(append(r.envelopes[:len(r.envelopes):len(r.envelopes)], b), r.site); err != nil {
		return 0, err
	}
	if err := writeFile(r.file(r.root.Version+1), b); err != nil {
		return 0, err
	}
	again, err := OpenRoots(r.dir, r.site)
	if err != nil {
		return 0, err
	}
	*r = *again
	return 0, os.Remove(r.pending())
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
