package app

import (
	"context"
	"time"

	"enisle/internal/crossing"
	"enisle/internal/site"
	"enisle/internal/site/access"
)

// SetUser enrols a user of what is served, or changes what one may do.
func (a *App) SetUser(ctx context.Context, u access.User) error {
	return a.change(ctx, "set user", func(s *site.Site, by site.Actor) error { return crossing.SetUser(ctx, s, by, u) })
}

// NewKey is a key that was just made; Key is told this once.
type NewKey struct {
	User    string    `json:"user"`
	ID      string    `json:"id"`
	Key     string    `json:"key"`
	Expires time.Time `json:"expires,omitzero"`
}

// AddUserKey gives a user one more key, which counts for some time; zero: always.
func (a *App) AddUserKey(ctx context.Context, name string, lasts time.Duration) (out NewKey, err error) {
	err = a.change(ctx, "add user key", func(s *site.Site, by site.Actor) error {
		var expires time.Time
		if lasts > 0 {
			expires = s.Now().Add(lasts).UTC().Truncate(time.Second)
		}
		k, text, err := crossing.AddUserKey(ctx, s, by, name, expires)
		out = NewKey{name, k.ID, text, k.Expires}
		return err
	})
	return out, err
}

// RevokeUserKey makes a key count no more.
func (a *App) RevokeUserKey(ctx context.Context, name, id string) error {
	return a.change(ctx, "revoke user key", func(s *site.Site, by site.Actor) error { return crossing.RevokeUserKey(ctx, s, by, name, id) })
}

// RemoveUser forgets a user.
func (a *App) RemoveUser(ctx context.Context, name string) error {
	return a.change(ctx, "remove user", func(s *site.Site, by site.Actor) error { return crossing.RemoveUser(ctx, s, by, name) })
}

// Users returns who may use what is served.
func (a *App) Users(ctx context.Context) (out []access.User, err error) {
	err = a.read(ctx, func(s *site.Site) error {
		out, err = crossing.Users(ctx, s)
		return err
	})
	return out, err
}
