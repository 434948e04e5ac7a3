package crossing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"enisle/internal/fail"
	"enisle/internal/judge/policy"
	"enisle/internal/site"
	"enisle/internal/site/access"
	"enisle/internal/site/state"
	"enisle/internal/site/trust"
)

// SetUser enrols a user, or changes what one may do; keys stay as they are.
func SetUser(ctx context.Context, s *site.Site, by site.Actor, u access.User) error {
	if err := u.Check(); err != nil {
		return fail.As(fail.Usage, "'enisle help user add' shows an example", fmt.Errorf("user: %w", err))
	}
	subject := map[string]string{"user": u.Name, "roles": strings.Join(u.Roles, ","), "channels": strings.Join(u.Channels, ","), "models": strings.Join(u.Models, ",")}
	return changeUser(ctx, s, by, "set user", u.Name, subject, func(old access.User, known bool) (access.User, error) {
		if u.Keys = []access.Key{}; known {
			u.Keys = old.Keys
		}
		return u, nil
	})
}

// AddUserKey gives a user one more key and returns its text, which is told once.
func AddUserKey(ctx context.Context, s *site.Site, by site.Actor, name string, expires time.Time) (k access.Key, text string, err error) {
	k, text = access.NewKey(s.Now(), expires)
	subject := map[string]string{"user": name, "key": k.ID}
	err = changeUser(ctx, s, by, "add user key", name, subject, func(u access.User, known bool) (access.User, error) {
		switch {
		case !known:
			return u, noUser(name)
		case name == access.Anonymous:
			return u, fail.As(fail.Usage, "give a key to a user with a name", errors.New("user: who shows no key needs none"))
		}
		u.Keys = append(u.Keys, k)
		return u, u.Check()
	})
	return k, text, err
}

// RevokeUserKey makes a key count no more, by its id or its whole text.
func RevokeUserKey(ctx context.Context, s *site.Site, by site.Actor, name, id string) error {
	if rest, ok := strings.CutPrefix(id, "enisle_"); ok {
		id, _, _ = strings.Cut(rest, "_")
	}
	return changeUser(ctx, s, by, "revoke user key", name, map[string]string{"user": name, "key": id}, func(u access.User, _ bool) (access.User, error) {
		i := slices.IndexFunc(u.Keys, func(k access.Key) bool { return k.ID == id })
		if i < 0 {
			return u, fail.As(fail.Usage, "'enisle user list' shows the keys", fmt.Errorf("user: %s has no key %.20q", name, id))
		}
		u.Keys = slices.Delete(u.Keys, i, i+1)
		return u, nil
	})
}

// RemoveUser forgets a user with all its keys.
func RemoveUser(ctx context.Context, s *site.Site, by site.Actor, name string) error {
	return changeUser(ctx, s, by, "remove user", name, map[string]string{"user": name}, func(_ access.User, known bool) (access.User, error) {
		if !known {
			return access.User{}, noUser(name)
		}
		return access.User{}, nil
	})
}

func noUser(name string) error {
	return fail.As(fail.Usage, "'enisle user list' lists them; 'enisle user add NAME' adds one", fmt.Errorf("user: nobody is called %.80q", name))
}

// Users returns who may use what the site serves, by name.
func Users(ctx context.Context, s *site.Site) (out []access.User, err error) {
	err = s.State.View(ctx, func(tx *state.Tx) (err error) { out, err = users(tx); return err })
	return out, err
}

func users(tx *state.Tx) ([]access.User, error) {
	docs, err := tx.Users()
	if err != nil {
		return nil, err
	}
	out := make([]access.User, len(docs))
	for i, d := range docs {
		if err := json.Unmarshal(d, &out[i]); err != nil {
			return nil, fail.Refuse("restore the site from its backup", fmt.Errorf("user %d cannot be read: %w", i+1, err))
		}
	}
	return out, nil
}

// changeUser changes one user by an act; a user without a name is one removed.
func changeUser(ctx context.Context, s *site.Site, by site.Actor, act, name string, subject map[string]string, change func(access.User, bool) (access.User, error)) error {
	if err := s.Require(trust.High); err != nil {
		return err
	}
	if err := mayChangeUsers(s, by); err != nil {
		return err
	}
	return s.Act(ctx, act, by, subject, func(ctx context.Context, intent int64) (map[string]string, error) {
		return nil, s.State.Update(ctx, func(tx *state.Tx) error {
			all, err := users(tx)
			if err != nil {
				return err
			}
			var old access.User
			i := slices.IndexFunc(all, func(u access.User) bool { return u.Name == name })
			if i >= 0 {
				old = all[i]
			}
			next, err := change(old, i >= 0)
			if err != nil {
				return err
			}
			if next.Name == "" {
				err = tx.RemoveUser(name)
			} else if doc, jerr := json.Marshal(next); jerr != nil {
				err = jerr
			} else {
				err = tx.SetUser(name, doc)
			}
			return errors.Join(err, tx.SetEffect(intent, act))
		})
	})
}

// mayChangeUsers lets officers and admins do it. Where there are none, whoever has
// the shell may, unless the policy wants everybody proven: users decide nothing of
// what enters.
func mayChangeUsers(s *site.Site, by site.Actor) error {
	r := s.Roots.Root()
	if by.Key == nil {
		pol, err := policy.Parse(s.Policy)
		if err != nil {
			return err
		}
		if r.With(trust.Officer)+r.With(trust.Admin) == 0 && !pol.People.ProvenActors {
			return nil
		}
		return fail.Refuse("give --as NAME --key FILE of an officer or an admin", errors.New("who may use the site is for an officer or an admin to say"))
	}
	if _, err := r.Holder(false, trust.Officer, trust.Admin)(by.ID()); err != nil {
		return fail.Refuse("let an officer or an admin do it", err)
	}
	return nil
}
