package trust

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/fail"
)

// RootType is the payload type of a root.
const RootType = "application/vnd.enisle.root.v1+json"

const rootFormat = "enisle-root/1"

// The roles a person may have.
const (
	Collector = "collector"
	Importer  = "importer"
	Approver  = "approver"
	Officer   = "officer"
	Admin     = "admin"
)

// Roles returns all roles.
func Roles() []string { return []string{Collector, Importer, Approver, Officer, Admin} }

// Person is somebody enrolled at a site.
type Person struct {
	Name  string   `json:"name"`
	Roles []string `json:"roles"`
	Key   Public   `json:"key"`
}

// Has reports whether the person has the role.
func (p Person) Has(role string) bool { return slices.Contains(p.Roles, role) }

// Retired is a person whose key was revoked. It is kept for good, so that what
// the key signed before can still be read.
type Retired struct {
	Name string `json:"name"`
	Key  Public `json:"key"`
}

// Peer is a paired site.
type Peer struct {
	Identity
	Confirmed bool `json:"confirmed"` // its fingerprint was compared by people
}

// Thresholds say how many different keys an act needs.
type Thresholds struct {
	Collectors int `json:"collectors"` // for a header, where collectors are enrolled
	Approvers  int `json:"approvers"`
	Admins     int `json:"admins"` // for the next root
}

// Root says who may do what at one site. Version 1 is signed by the site's own
// key; every later one by the threshold of admins of the version before. The
// high root governs the island and never leaves it; the low root travels in
// every header.
type Root struct {
	Format     string          `json:"format"`
	Version    int             `json:"version"`
	Previous   artifact.Digest `json:"previous,omitempty"` // digest of the payload before
	Site       Identity        `json:"site"`
	People     []Person        `json:"people"`  // by name
	Revoked    []Retired       `json:"revoked"` // by key id
	Thresholds Thresholds      `json:"thresholds"`
	Peers      []Peer          `json:"peers"` // by name
	Policy     artifact.Digest `json:"policy"`
	Made       time.Time       `json:"made"`
	// Clock is the time that the admins last vouched for; zero if they never had to.
	Clock time.Time `json:"clock,omitzero"`
	// Engines are those outside of what serves that it may have connections to, by name.
	Engines []EngineAddress `json:"engines,omitempty"`
}

// NewRoot returns the draft of a site's first root.
func NewRoot(site Identity, policy artifact.Digest) Root {
	return Root{
		Format: rootFormat, Version: 1, Site: site, People: []Person{}, Revoked: []Retired{}, Peers: []Peer{},
		Thresholds: Thresholds{Collectors: 1, Approvers: 2, Admins: 2}, Policy: policy,
	}
}

func (r Root) check() error {
	if r.Format != rootFormat || r.Version < 1 || (r.Version == 1) != (r.Previous == "") {
		return errors.New("format, version and previous digest do not go together")
	}
	if r.Thresholds.Collectors < 1 || r.Thresholds.Approvers < 2 || r.Thresholds.Admins < 2 {
		return errors.New("a threshold is too low: two approvers and two admins are the least")
	}
	keys := map[string]string{r.Site.Key.ID(): "the site itself"}
	for i, p := range r.People {
		if i > 0 && r.People[i-1].Name >= p.Name {
			return fmt.Errorf("person %q stands twice or out of order", p.Name)
		}
		if err := r.checkPerson(p); err != nil {
			return err
		}
		if other, ok := keys[p.Key.ID()]; ok {
			return fmt.Errorf("%s and %s have the same key: one key is one person", other, p.Name)
		}
		keys[p.Key.ID()] = p.Name
	}
	for i, p := range r.Revoked {
		if i > 0 && r.Revoked[i-1].Key.ID() >= p.Key.ID() {
			return fmt.Errorf("revoked key %.12s stands twice or out of order", p.Key.ID())
		}
		if err := errors.Join(CheckName(p.Name), p.Key.Check()); err != nil {
			return err
		}
	}
	for i, p := range r.Peers {
		if i > 0 && r.Peers[i-1].Name >= p.Name || p.Name == r.Site.Name || p.Side == r.Site.Side {
			return fmt.Errorf("peer %q stands twice, out of order or on the same side", p.Name)
		}
		if err := p.check(); err != nil {
			return err
		}
	}
	return errors.Join(r.checkEngines(), r.Site.check())
}

func (r Root) checkPerson(p Person) error {
	if err := CheckName(p.Name); err != nil {
		return err
	}
	if err := p.Key.Check(); err != nil {
		return fmt.Errorf("person %s: %w", p.Name, err)
	}
	if len(p.Roles) == 0 || !slices.IsSorted(p.Roles) || len(slices.Compact(slices.Clone(p.Roles))) != len(p.Roles) {
		return fmt.Errorf("person %s: has no role, or one twice", p.Name)
	}
	for _, role := range p.Roles {
		if !slices.Contains(Roles(), role) {
			return fail.As(fail.Usage, "roles are "+strings.Join(Roles(), ", "), fmt.Errorf("person %s: no role is called %q", p.Name, role))
		}
	}
	if _, ok := r.Retired(p.Key.ID()); ok {
		return fmt.Errorf("person %s: the key was revoked", p.Name)
	}
	return nil
}

// Retired returns the person whose key has the id and was revoked.
func (r Root) Retired(keyID string) (Retired, bool) {
	i := slices.IndexFunc(r.Revoked, func(p Retired) bool { return p.Key.ID() == keyID })
	if i < 0 {
		return Retired{}, false
	}
	return r.Revoked[i], true
}

// Person returns the person whose key has the id.
func (r Root) Person(keyID string) (Person, bool) {
	for _, p := range r.People {
		if p.Key.ID() == keyID {
			return p, true
		}
	}
	return Person{}, false
}

// Named returns the person of that name.
func (r Root) Named(name string) (Person, bool) {
	i := slices.IndexFunc(r.People, func(p Person) bool { return p.Name == name })
	if i < 0 {
		return Person{}, false
	}
	return r.People[i], true
}

// Peer returns the paired site whose key has the id.
func (r Root) Peer(keyID string) (Peer, bool) {
	for _, p := range r.Peers {
		if p.Key.ID() == keyID {
			return p, true
		}
	}
	return Peer{}, false
}

// With returns how many people have the role.
func (r Root) With(role string) (n int) {
	for _, p := range r.People {
		if p.Has(role) {
			n++
		}
	}
	return n
}

// Holder returns a KeyFunc that knows the keys of people with one of the roles
// and, with site, the site's own.
func (r Root) Holder(site bool, roles ...string) KeyFunc {
	return func(id string) (Public, error) {
		if site && id == r.Site.Key.ID() {
			return r.Site.Key, nil
		}
		if old, ok := r.Retired(id); ok {
			return nil, fmt.Errorf("the key of %s was revoked", old.Name)
		}
		p, ok := r.Person(id)
		if !ok {
			return nil, fmt.Errorf("the key is not known at %s", r.Site.Name)
		}
		for _, role := range roles {
			if p.Has(role) {
				return p.Key, nil
			}
		}
		return nil, fmt.Errorf("%s is not enrolled as %s", p.Name, strings.Join(roles, " or "))
	}
}

// Enrol adds a person to a draft.
func (r Root) Enrol(p Person) (Root, error) {
	if _, ok := r.Named(p.Name); ok {
		return r, fail.Refuse("'enisle trust show' lists who is enrolled; give people different names", fmt.Errorf("somebody called %q is enrolled already", p.Name))
	}
	p.Roles = slices.Clone(p.Roles)
	slices.Sort(p.Roles)
	p.Roles = slices.Compact(p.Roles)
	r.People = append(slices.Clone(r.People), p)
	slices.SortFunc(r.People, func(a, b Person) int { return strings.Compare(a.Name, b.Name) })
	return r, r.refusal()
}

// Pair adds or confirms a peer in a draft.
func (r Root) Pair(id Identity, confirmed bool) (Root, error) {
	if id.Name == r.Site.Name || id.Side == r.Site.Side {
		return r, fail.Refuse("pair a low site with a high one, under different names", fmt.Errorf("%s and %s cannot be paired: they have the same name or are on the same side", r.Site.Name, id.Name))
	}
	r.Peers = slices.Clone(r.Peers)
	i := slices.IndexFunc(r.Peers, func(p Peer) bool { return p.Name == id.Name })
	switch {
	case i < 0:
		r.Peers = append(r.Peers, Peer{id, confirmed})
	case r.Peers[i].Fingerprint() != id.Fingerprint():
		return r, fail.Refuse("find out which of the two is real; give sites different names",
			fmt.Errorf("a site %q with another identity is paired already", id.Name))
	default:
		r.Peers[i].Confirmed = r.Peers[i].Confirmed || confirmed
	}
	slices.SortFunc(r.Peers, func(a, b Peer) int { return strings.Compare(a.Name, b.Name) })
	return r, r.refusal()
}

// Revoke removes a person and remembers the key as revoked.
func (r Root) Revoke(name string) (Root, error) {
	p, ok := r.Named(name)
	if !ok {
		return r, fail.As(fail.Usage, "'enisle trust show' lists who is enrolled", fmt.Errorf("nobody called %q is enrolled", name))
	}
	r.People = slices.DeleteFunc(slices.Clone(r.People), func(q Person) bool { return q.Name == name })
	r.Revoked = append(slices.Clone(r.Revoked), Retired{p.Name, p.Key})
	slices.SortFunc(r.Revoked, func(a, b Retired) int { return strings.Compare(a.Key.ID(), b.Key.ID()) })
	return r, r.refusal()
}

func (r Root) refusal() error {
	err := r.check()
	if err != nil && fail.KindOf(err) == fail.Failed {
		err = fail.Refuse("'enisle trust show' lists who is enrolled", err)
	}
	return err
}

// SetPolicy names another policy by its digest.
func (r Root) SetPolicy(d artifact.Digest) (Root, error) {
	if r.Policy == d {
		return r, fail.As(fail.Usage, "'enisle policy show' prints it", errors.New("that policy is in force already"))
	}
	r.Policy = d
	return r, r.refusal()
}

// SetThresholds says how many different keys an act needs; 0 leaves a number as
// it is.
func (r Root) SetThresholds(t Thresholds) (Root, error) {
	for _, n := range []struct {
		now  *int
		next int
		role string
	}{{&r.Thresholds.Collectors, t.Collectors, Collector}, {&r.Thresholds.Approvers, t.Approvers, Approver}, {&r.Thresholds.Admins, t.Admins, Admin}} {
		if n.next == 0 {
			continue
		}
		if r.With(n.role) < n.next {
			return r, fail.Refuse("enrol more first, with 'enisle person add'", fmt.Errorf("%d are enrolled as %s, and %d would be needed", r.With(n.role), n.role, n.next))
		}
		*n.now = n.next
	}
	return r, r.refusal()
}

// SetClock says what time it is.
func (r Root) SetClock(now time.Time) (Root, error) {
	r.Clock = now.UTC().Truncate(time.Second)
	return r, r.refusal()
}

// next returns the draft of the version that follows r.
func (r Root) next() (Root, error) {
	payload, err := json.Marshal(r)
	r.Version++
	r.Previous = artifact.Sum(payload)
	return r, err
}

// VerifyChain verifies every version of a root, oldest first, against the key
// of the site that it must be about, and returns the newest.
func VerifyChain(envelopes [][]byte, site Public) (Root, error) {
	var last Root
	for i, env := range envelopes {
		signers := func(id string) (Public, error) {
			if id == site.ID() {
				return site, nil
			}
			return nil, errors.New("only the site itself signs its first root")
		}
		if i > 0 {
			signers = last.Holder(false, Admin)
		}
		payload, by, err := Verify(env, RootType, signers)
		if err != nil {
			return last, fmt.Errorf("root version %d: %w", i+1, err)
		}
		var r Root
		if err := decode(payload, &r); err != nil {
			return last, fail.Refuse("take it again from its source", fmt.Errorf("root version %d: %w", i+1, err))
		}
		if err := r.follows(last, i, len(by)); err != nil {
			return last, fail.Refuse("take it again from its source", fmt.Errorf("root version %d: %w", i+1, err))
		}
		if r.Site.Key.ID() != site.ID() {
			return last, fail.Refuse("pair the sites again", fmt.Errorf("root version %d: is of site %s with another key", i+1, r.Site.Name))
		}
		last = r
	}
	if last.Version == 0 {
		return last, fail.Refuse("take the shipment again", errors.New("root: there is none"))
	}
	return last, nil
}

// follows checks what a version must be after the one before it.
func (r Root) follows(last Root, i, signatures int) error {
	if err := r.check(); err != nil {
		return err
	}
	if r.Version != i+1 {
		return fmt.Errorf("calls itself version %d", r.Version)
	}
	if i == 0 {
		return nil
	}
	before, err := json.Marshal(last)
	switch {
	case err != nil:
		return err
	case r.Previous != artifact.Sum(before):
		return errors.New("does not follow the version before it")
	case r.Site.Fingerprint() != last.Site.Fingerprint():
		return errors.New("gives the site another identity")
	case signatures < last.Thresholds.Admins:
		return fmt.Errorf("signature %d of %d required is missing", signatures+1, last.Thresholds.Admins)
	}
	for _, p := range last.Revoked {
		if _, ok := r.Retired(p.Key.ID()); !ok {
			return fmt.Errorf("forgets that the key of %s was revoked", p.Name)
		}
	}
	return nil
}
