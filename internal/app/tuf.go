package app

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"

	"enisle/internal/ecosystem/fetch"
	"enisle/internal/fail"
	"enisle/internal/site/token"
	"enisle/internal/site/trust"
	"enisle/internal/site/tuf"
)

// TUF returns a client of a repository of The Update Framework; dir holds what it
// trusts.
func TUF(ctx context.Context, dir string) (tuf.Client, error) {
	c := tuf.Client{Dir: dir}
	remote, err := fetch.New(fetch.Options{})
	if err != nil {
		return c, err
	}
	c.Get = func(address string, limit int64) ([]byte, error) {
		body, _, _, err := remote.Get(ctx, address, 0)
		var status *fetch.StatusError
		if errors.As(err, &status) && (status.Status == http.StatusNotFound || status.Status == http.StatusForbidden) {
			return nil, fs.ErrNotExist
		}
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(io.LimitReader(body, limit+1))
		if err == nil && int64(len(b)) > limit {
			err = fmt.Errorf("%s has more than %d bytes", fetch.Clean(address), limit)
		}
		return b, errors.Join(err, body.Close())
	}
	return c, nil
}

// PublishTUF writes the next version of a repository, signed with keys in files or
// tokens.
func (a *App) PublishTUF(ctx context.Context, p tuf.Publication, keys, old []string) (out tuf.Published, err error) {
	var sessions []func() error
	defer func() {
		for _, done := range sessions {
			err = errors.Join(err, done())
		}
	}()
	load := func(names []string) (all []crypto.Signer) {
		for _, name := range names {
			var k *trust.Key
			switch {
			case err != nil:
			case token.Is(name):
				var done func() error
				if k, done, err = token.Load(name, ask(a.Passphrase, name)); err == nil {
					sessions = append(sessions, done)
				}
			default:
				k, err = trust.LoadKey(name, ask(a.Passphrase, name))
			}
			if err == nil {
				all = append(all, k.Signer())
			}
		}
		return all
	}
	p.Keys, p.Old = load(keys), load(old)
	if err == nil && len(p.Keys) == 0 {
		err = fail.As(fail.Usage, "give --sign-key FILE, once for each key", errors.New("tuf: nobody signs"))
	}
	if err != nil {
		return out, err
	}
	return tuf.Publish(ctx, p)
}
