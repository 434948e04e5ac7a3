package trust

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"enisle/internal/artifact"
	"enisle/internal/fail"
)

func newKey(t *testing.T) *Key {
	t.Helper()
	k, err := GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func signed(t *testing.T, r Root, keys ...*Key) []byte {
	t.Helper()
	payload, err := json.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	env, err := Sign(RootType, payload, keys[0])
	for _, k := range keys[1:] {
		if err == nil {
			env, err = Cosign(env, k)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	return env
}

// edited changes the JSON of an envelope.
func edited(t *testing.T, env []byte, change func(*Envelope)) []byte {
	t.Helper()
	e, err := Parse(env)
	if err != nil {
		t.Fatal(err)
	}
	change(&e)
	b, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A root is followed by what the threshold of its admins signed, and by nothing
// else.
func TestARootIsRotatedByItsThreshold(t *testing.T) {
	site, adam, eve, carol := newKey(t), newKey(t), newKey(t), newKey(t)
	a, err := age.GenerateHybridIdentity()
	if err != nil {
		t.Fatal(err)
	}
	first := NewRoot(Identity{Name: "outside", Side: Low, Key: site.Public, Recipient: a.Recipient().String()}, artifact.Sum(nil))
	first.Version, first.Made = 1, time.Unix(1_800_000_000, 0).UTC()
	first.People = []Person{{"adam", []string{Admin}, adam.Public}, {"carol", []string{Collector}, carol.Public}, {"eve", []string{Admin}, eve.Public}}
	first.Thresholds.Admins = 2
	one := signed(t, first, site)
	if _, err := VerifyChain([][]byte{one}, site.Public); err != nil {
		t.Fatal(err)
	}
	next, err := first.next()
	if err != nil {
		t.Fatal(err)
	}
	change := func(f func(*Root)) Root {
		r := next
		f(&r)
		return r
	}
	other := newKey(t)
	good := signed(t, next, adam, eve)
	if _, err := VerifyChain([][]byte{one, good}, site.Public); err != nil {
		t.Fatal(err)
	}
	revoked, err := next.Revoke("carol")
	if err != nil {
		t.Fatal(err)
	}
	third, err := revoked.next()
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		chain [][]byte
		want  string
	}{
		"one signature of two":     {[][]byte{one, signed(t, next, adam)}, "signature 2 of 2"},
		"an admin and a collector": {[][]byte{one, signed(t, next, adam, carol)}, "not enrolled as admin"},
		"the site's own key":       {[][]byte{one, signed(t, next, site)}, "not known"},
		"an admin and a stranger":  {[][]byte{one, signed(t, next, adam, other)}, "not known"},
		"one key twice":            {[][]byte{one, edited(t, signed(t, next, adam), func(e *Envelope) { e.Signatures = append(e.Signatures, e.Signatures[0]) })}, "twice"},
		"one key under two ids": {[][]byte{one, edited(t, signed(t, next, adam), func(e *Envelope) {
			e.Signatures = append(e.Signatures, Signature{KeyID: eve.Public.ID(), Sig: e.Signatures[0].Sig})
		})}, "signature by key"},
		"an id that is no key's": {[][]byte{one, edited(t, signed(t, next, adam), func(e *Envelope) {
			e.Signatures = append(e.Signatures, Signature{KeyID: strings.ToUpper(adam.Public.ID()), Sig: e.Signatures[0].Sig})
		})}, "signature by key"},
		"one key enrolled under two names": {[][]byte{one, signed(t, change(func(r *Root) {
			r.People = []Person{{"adam", []string{Admin}, adam.Public}, {"ben", []string{Admin}, adam.Public}}
		}), adam, eve)}, "ben"},
		"a version left out":                {[][]byte{one, signed(t, change(func(r *Root) { r.Version = 3 }), adam, eve)}, "version 3"},
		"another root before it":            {[][]byte{one, signed(t, change(func(r *Root) { r.Previous = artifact.Sum([]byte("x")) }), adam, eve)}, "does not follow"},
		"another key of the site":           {[][]byte{one, signed(t, change(func(r *Root) { r.Site.Key = other.Public }), adam, eve)}, "another identity"},
		"a low site that calls itself high": {[][]byte{one, signed(t, change(func(r *Root) { r.Site.Side = High }), adam, eve)}, "another identity"},
		"a threshold of none":               {[][]byte{one, signed(t, change(func(r *Root) { r.Thresholds.Admins = 0 }), adam, eve)}, "threshold"},
		"a revoked key that is forgotten":   {[][]byte{one, signed(t, revoked, adam, eve), signed(t, func() Root { r := third; r.Revoked = []Retired{}; return r }(), adam, eve)}, "revoked"},
		"a revoked key under another name": {[][]byte{one, signed(t, revoked, adam, eve), signed(t, func() Root {
			r := third
			r.People = append([]Person{}, append(r.People, Person{"zoe", []string{Collector}, carol.Public})...)
			return r
		}(), adam, eve)}, "revoked"},
		"the first root of somebody else":   {[][]byte{signed(t, first, adam)}, "only the site itself"},
		"a statement of another kind":       {[][]byte{edited(t, one, func(e *Envelope) { e.PayloadType = "application/vnd.enisle.receipt.v1+json" })}, "want"},
		"none at all":                       {nil, "there is none"},
		"the older version after the newer": {[][]byte{good, one}, "only the site itself"},
	} {
		t.Run(name, func(t *testing.T) {
			r, err := VerifyChain(tc.chain, site.Public)
			if !fail.IsRefused(err) || !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got version %d and %v, want a refusal that says %q", r.Version, err, tc.want)
			}
		})
	}
}
