// Package access is who may use what a site serves: users, what each may do, and
// the keys by which they are known.
//
// Users are not people of the trust root: they sign nothing and decide nothing.
// A key is a random secret of 256 bits; only its SHA-256 is kept.
package access

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
)

// What users may do.
const (
	Mirror    = "mirror"    // pull what a channel serves
	Inference = "inference" // ask models
	Monitor   = "monitor"   // read metrics
)

// Anonymous is the user that requests without a credential are by, if there is one.
const Anonymous = "anonymous"

// Default is the channel that users may pull from when none is named.
const Default = "stable"

const (
	prefix    = "enisle"
	idBytes   = 6  // of a key's id
	secretLen = 43 // base64url of 32 bytes, without padding
	// MaxKeys is how many keys a user may have.
	MaxKeys = 100
)

// User is one user. Zero limits mean none.
type User struct {
	Name     string    `json:"name"`
	Project  string    `json:"project,omitempty"`
	Roles    []string  `json:"roles"`
	Channels []string  `json:"channels"`         // that it may pull from
	Models   []string  `json:"models,omitempty"` // that it may ask; none named: all
	Weight   int       `json:"weight,omitempty"` // share of an engine beside others; 0 means 1
	Tokens   int64     `json:"tokens,omitempty"` // a day
	Expires  time.Time `json:"expires,omitzero"` // after which it may do nothing
	Keys     []Key     `json:"keys"`
}

// Key is a key as the site keeps it.
type Key struct {
	ID      string    `json:"id"`   // 12 hex digits, part of the key
	Hash    string    `json:"hash"` // SHA-256 of the whole key, in hex
	Made    time.Time `json:"made"`
	Expires time.Time `json:"expires,omitzero"`
}

var nameForm = regexp.MustCompile(`^[a-z0-9][a-z0-9._@-]{0,63}$`) // constant

// Check says what is wrong with a user.
func (u User) Check() error {
	bad := func(what string, all []string, ok func(string) bool) error {
		if i := slices.IndexFunc(all, func(s string) bool { return !ok(s) }); i >= 0 {
			return fmt.Errorf("%s %.80q", what, all[i])
		}
		return nil
	}
	switch {
	case !nameForm.MatchString(u.Name):
		return fmt.Errorf("name %.80q: at most 64 small letters, digits, . _ @ and -", u.Name)
	case u.Project != "" && !nameForm.MatchString(u.Project):
		return fmt.Errorf("project %.80q: at most 64 small letters, digits, . _ @ and -", u.Project)
	case len(u.Roles) == 0:
		return errors.New("no role")
	case u.Weight < 0 || u.Weight > 1000:
		return fmt.Errorf("weight %d: 1 to 1000", u.Weight)
	case u.Tokens < 0:
		return fmt.Errorf("%d tokens a day", u.Tokens)
	case len(u.Keys) > MaxKeys:
		return fmt.Errorf("more than %d keys", MaxKeys)
	}
	return errors.Join(
		bad("role", u.Roles, func(s string) bool { return s == Mirror || s == Inference || s == Monitor }),
		bad("channel", u.Channels, nameForm.MatchString),
		bad("model", u.Models, func(s string) bool { return s != "" && len(s) <= 200 && !strings.ContainsAny(s, "\x00\n\r") }))
}

// May reports whether the user has a role; for Mirror on a channel.
func (u User) May(role, channel string) bool {
	return slices.Contains(u.Roles, role) && (role != Mirror || slices.Contains(u.Channels, channel))
}

// MayAsk reports whether the user may ask a model.
func (u User) MayAsk(model string) bool {
	return len(u.Models) == 0 || slices.Contains(u.Models, model)
}

// NewKey makes a key. The text is told once and kept nowhere.
func NewKey(made, expires time.Time) (k Key, text string) {
	var id [idBytes]byte
	var secret [32]byte
	_, _ = rand.Read(id[:]) // never fails, see crypto/rand
	_, _ = rand.Read(secret[:])
	k = Key{ID: hex.EncodeToString(id[:]), Made: made.UTC().Truncate(time.Second), Expires: expires}
	text = prefix + "_" + k.ID + "_" + base64.RawURLEncoding.EncodeToString(secret[:])
	k.Hash = hash(text)
	return k, text
}

func hash(text string) string {
	h := sha256.Sum256([]byte(text))
	return hex.EncodeToString(h[:])
}

// idOf returns the id that a key's text names.
func idOf(text string) (id string, ok bool) {
	rest, ok := strings.CutPrefix(text, prefix+"_")
	id, secret, two := strings.Cut(rest, "_")
	return id, ok && two && len(id) == 2*idBytes && len(secret) == secretLen
}

// Table finds users; it does not change. The zero value has none.
type Table struct {
	users map[string]User // by name
	keys  map[string]held // by id
}

type held struct {
	user string
	key  Key
}

// NewTable returns the table of users.
func NewTable(users []User) Table {
	t := Table{users: map[string]User{}, keys: map[string]held{}}
	for _, u := range users {
		t.users[u.Name] = u
		for _, k := range u.Keys {
			t.keys[k.ID] = held{u.Name, k}
		}
	}
	return t
}

// Empty reports whether nobody is enrolled.
func (t Table) Empty() bool { return len(t.users) == 0 }

// ErrUnknown is a credential that names nobody; what is wrong with it is not told.
var ErrUnknown = errors.New("the key is not one of this site's, or does not count any more") // constant

// ByKey returns whose key a text is. It takes as long for a key that is nobody's.
func (t Table) ByKey(text string, now time.Time) (User, error) {
	id, formed := idOf(text)
	h := t.keys[id] // the zero hash equals none
	same := subtle.ConstantTimeCompare([]byte(hash(text)), []byte(h.key.Hash)) == 1
	if !formed || !same || over(h.key.Expires, now) {
		return User{}, ErrUnknown
	}
	return t.Named(h.user, now)
}

// Named returns a user whose name was proven otherwise.
func (t Table) Named(name string, now time.Time) (User, error) {
	u, ok := t.users[name]
	if !ok || over(u.Expires, now) {
		return User{}, ErrUnknown
	}
	return u, nil
}

func over(end, now time.Time) bool { return !end.IsZero() && !now.Before(end) }
