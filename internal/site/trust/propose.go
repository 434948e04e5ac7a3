package trust

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/fail"
)

// Proposal is the next version of a root while it gathers signatures.
type Proposal struct {
	Root    Root            `json:"root"`
	Digest  artifact.Digest `json:"digest"`  // of what the admins sign
	Changes []string        `json:"changes"` // against the root in force, for people
	Signers []string        `json:"signers"` // names
	Need    int             `json:"need"`    // signatures
}

func (r *Roots) pending() string { return filepath.Join(r.dir, "pending.json") }

// Propose begins the next version with an admin's signature. While another
// proposal waits it refuses: two changes at a time would undo each other.
func (r *Roots) Propose(change func(Root) (Root, error), k *Key, now time.Time) error {
	if !r.Sealed() {
		return fail.As(fail.Usage, "change it directly", errors.New("the site is not sealed yet"))
	}
	if _, err := r.root.Holder(false, Admin)(k.Public.ID()); err != nil {
		return fail.Refuse("only an admin proposes", err)
	}
	if p, err := r.Pending(); err != nil {
		return err
	} else if p != nil {
		return fail.Refuse("read it with 'enisle trust show'; then sign it with 'enisle trust sign', or take it back with 'enisle trust withdraw'",
			fmt.Errorf("another change is proposed and waits: %s", strings.Join(p.Changes, "; ")))
	}
	next, err := r.root.next()
	if err != nil {
		return err
	}
	if next, err = change(next); err != nil {
		return err
	}
	if err := r.root.enough(next); err != nil {
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

// Pending returns the version that waits for signatures, nil if there is none.
func (r *Roots) Pending() (*Proposal, error) {
	_, p, err := r.readPending()
	return p, err
}

func (r *Roots) readPending() (*Envelope, *Proposal, error) {
	b, err := os.ReadFile(r.pending())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err != nil {
		return nil, nil, fmt.Errorf("trust: %w", err)
	}
	const hint = "take it back with 'enisle trust withdraw' and propose it again"
	payload, by, err := Verify(b, RootType, r.root.Holder(false, Admin))
	if err != nil {
		return nil, nil, fail.Refuse(hint, fmt.Errorf("the proposed root: %w", err))
	}
	p := Proposal{Digest: artifact.Sum(payload), Need: r.root.Thresholds.Admins}
	if err := decode(payload, &p.Root); err != nil {
		return nil, nil, fail.Refuse(hint, fmt.Errorf("the proposed root: %w", err))
	}
	if p.Root.Version != r.root.Version+1 {
		return nil, nil, fail.Refuse(hint, fmt.Errorf("the proposed root is version %d, the one in force is %d", p.Root.Version, r.root.Version))
	}
	p.Changes = r.root.changes(p.Root)
	for _, id := range by {
		who, _ := r.root.Person(id)
		p.Signers = append(p.Signers, who.Name)
	}
	e, err := Parse(b)
	return &e, &p, err
}

// Withdraw takes the proposal back, whatever state it is in.
func (r *Roots) Withdraw(k *Key) error {
	if _, err := r.root.Holder(false, Admin)(k.Public.ID()); err != nil {
		return fail.Refuse("only an admin takes a proposal back", err)
	}
	err := os.Remove(r.pending())
	if errors.Is(err, fs.ErrNotExist) {
		return nothingProposed()
	}
	return err
}

func nothingProposed() error {
	return fail.As(fail.Usage, "an admin proposes with 'enisle person add', 'enisle trust revoke' or 'enisle policy set'", errors.New("nothing is proposed"))
}

// Tidy removes what a crash between two steps may have left. Only the process
// that may change the site calls it.
func (r *Roots) Tidy() error {
	names, err := filepath.Glob(filepath.Join(r.dir, "*.tmp"))
	if r.Sealed() {
		names = append(names, filepath.Join(r.dir, "draft.json"))
	}
	if r.adopted() {
		names = append(names, r.pending())
	}
	for _, n := range names {
		if e := os.Remove(n); e != nil && !errors.Is(e, fs.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// adopted reports whether the proposal is the root in force: a crash came
// between giving it its name and removing it.
func (r *Roots) adopted() bool {
	b, err := os.ReadFile(r.pending())
	if err != nil {
		return false
	}
	e, err := Parse(b)
	now, err2 := json.Marshal(r.root)
	return err == nil && err2 == nil && string(e.Payload) == string(now)
}

// Countersign adds an admin's signature to the proposal and, when the threshold
// is reached, makes it the newest version. expect, if not empty, is the digest
// of what the admin read. It returns the proposal as it was signed, and how many
// signatures it still needs.
func (r *Roots) Countersign(k *Key, expect artifact.Digest) (_ Proposal, missing int, err error) {
	e, p, err := r.readPending()
	if err != nil {
		return Proposal{}, 0, err
	}
	if p == nil {
		return Proposal{}, 0, nothingProposed()
	}
	who, err := r.mayCountersign(k, *p, expect)
	if err != nil {
		return *p, 0, err
	}
	if err := e.add(k); err != nil {
		return *p, 0, err
	}
	p.Signers = append(p.Signers, who)
	b, err := json.Marshal(e)
	if err != nil {
		return *p, 0, err
	}
	if _, _, err := Verify(b, RootType, r.root.Holder(false, Admin)); err != nil {
		return *p, 0, err
	}
	if missing = p.Need - len(e.Signatures); missing > 0 {
		return *p, missing, writeFile(r.pending(), b)
	}
	return *p, 0, r.adopt(b)
}

func (r *Roots) mayCountersign(k *Key, p Proposal, expect artifact.Digest) (name string, err error) {
	id := k.Public.ID()
	if _, err := r.root.Holder(false, Admin)(id); err != nil {
		return "", fail.Refuse("let an admin sign it", err)
	}
	if expect != "" && expect != p.Digest {
		return "", fail.Refuse("read 'enisle trust show' again", fmt.Errorf("what would be signed is %s, not %s", p.Digest, expect))
	}
	who, _ := r.root.Person(id)
	if slices.Contains(p.Signers, who.Name) {
		return "", fail.Refuse("ask another admin to run 'enisle trust sign --as NAME --key FILE'", fmt.Errorf("%s signed it already: one person counts once", who.Name))
	}
	return who.Name, nil
}

// adopt makes a signed proposal the root in force.
func (r *Roots) adopt(env []byte) error {
	if _, err := VerifyChain(append(r.envelopes[:len(r.envelopes):len(r.envelopes)], env), r.site); err != nil {
		return err
	}
	if err := writeFile(r.file(r.root.Version+1), env); err != nil {
		return err
	}
	again, err := OpenRoots(r.dir, r.site)
	if err != nil {
		return err
	}
	*r = *again
	return os.Remove(r.pending())
}

// enough refuses a next version that nobody could ever follow by another.
func (r Root) enough(next Root) error {
	if need := next.Thresholds.Admins; r.With(Admin) >= r.Thresholds.Admins && next.With(Admin) < need {
		return fail.Refuse("enrol another admin first, with 'enisle person add'", fmt.Errorf("%d would be left as admin, and %d are needed to change anything", next.With(Admin), need))
	}
	return nil
}

// changes says, one line each, what next would change of r.
func (r Root) changes(next Root) (out []string) {
	say := func(format string, args ...any) { out = append(out, fmt.Sprintf(format, args...)) }
	for _, p := range next.People {
		switch old, ok := r.Named(p.Name); {
		case !ok:
			say("enrol %s as %s, key %.16s", p.Name, strings.Join(p.Roles, " and "), p.Key.ID())
		case old.Key.ID() != p.Key.ID():
			say("give %s another key, %.16s instead of %.16s", p.Name, p.Key.ID(), old.Key.ID())
		case !slices.Equal(old.Roles, p.Roles):
			say("make %s %s instead of %s", p.Name, strings.Join(p.Roles, " and "), strings.Join(old.Roles, " and "))
		}
	}
	for _, p := range r.People {
		if _, ok := next.Named(p.Name); !ok {
			say("remove %s", p.Name)
		}
	}
	for _, p := range next.Revoked {
		if _, ok := r.Retired(p.Key.ID()); !ok {
			say("revoke key %.16s of %s", p.Key.ID(), p.Name)
		}
	}
	if n := next.With(Approver); n < next.Thresholds.Approvers && n < r.With(Approver) {
		say("leave %d as approver, where a release needs %d", n, next.Thresholds.Approvers)
	}
	for _, p := range next.Peers {
		switch old, ok := r.Peer(p.Key.ID()); {
		case !ok:
			say("pair with %s, %s side, fingerprint %s", p.Name, p.Side, p.Fingerprint())
		case old.Fingerprint() != p.Fingerprint():
			say("give site %s another name or recipient, fingerprint %s instead of %s", p.Name, p.Fingerprint(), old.Fingerprint())
		case old.Confirmed != p.Confirmed:
			say("confirm the fingerprint of %s, %s", p.Name, p.Fingerprint())
		}
	}
	for _, p := range r.Peers {
		if _, ok := next.Peer(p.Key.ID()); !ok {
			say("unpair %s", p.Name)
		}
	}
	if r.Policy != next.Policy {
		say("policy %s instead of %s", next.Policy.Short(), r.Policy.Short())
	}
	if !r.Clock.Equal(next.Clock) {
		say("say that the time is %s", next.Clock.Format("2006-01-02 15:04:05 MST"))
	}
	if r.Thresholds != next.Thresholds {
		t, old := next.Thresholds, r.Thresholds
		say("want %d collectors, %d approvers, %d admins instead of %d, %d, %d", t.Collectors, t.Approvers, t.Admins, old.Collectors, old.Approvers, old.Admins)
	}
	return append(out, r.engineChanges(next)...)
}
