package app

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"filippo.io/age"

	"enisle/internal/fail"
	"enisle/internal/site"
	"enisle/internal/site/trust"
)

// KeygenRecovery makes a key that opens what is sealed for sites that name its
// recipient, and returns the recipient.
func KeygenRecovery(file, passphrase string) (string, error) {
	id, err := age.GenerateHybridIdentity()
	if err != nil {
		return "", err
	}
	return id.Recipient().String(), trust.SaveSecret([]byte(id.String()+"\n"), file, passphrase)
}

// recoveryKey loads a key that KeygenRecovery made.
func (a *App) recoveryKey(file string) (age.Identity, error) {
	b, err := trust.LoadSecret(file, ask(a.Passphrase, file))
	if err != nil {
		return nil, err
	}
	return age.ParseHybridIdentity(strings.TrimSpace(string(b)))
}

// Backup writes the site into a file, sealed for its recovery recipients and those
// given besides.
func (a *App) Backup(ctx context.Context, file string, recipients []string, blobs bool) (err error) {
	var to []age.Recipient
	err = a.change(ctx, "backup", func(s *site.Site, by site.Actor) error {
		for _, r := range append(s.Identity.Recovery, recipients...) {
			p, err := age.ParseHybridRecipient(r)
			if err != nil {
				return fail.As(fail.Usage, "give what 'enisle keygen --recovery' printed", fmt.Errorf("recipient: %w", err))
			}
			to = append(to, p)
		}
		if len(to) == 0 {
			return fail.Refuse("make a key with 'enisle keygen --recovery' and give --recipient", errors.New("the site has no recovery recipient: nobody could open the backup"))
		}
		return s.Act(ctx, "backup", by, map[string]string{"file": filepath.Base(file)}, func(context.Context, int64) (map[string]string, error) { return nil, nil })
	})
	if err != nil {
		return err
	}
	f, err := os.OpenFile(file+".partial", os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return fail.As(fail.Usage, "name a file that can be written with --to", err)
	}
	err = site.Backup(ctx, a.Dir, f, to, blobs)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return errors.Join(err, os.Remove(file+".partial"))
	}
	return os.Rename(file+".partial", file)
}

// Restore makes the site of a backup.
func (a *App) Restore(ctx context.Context, file, key string) (err error) {
	id, err := a.recoveryKey(key)
	if err != nil {
		return err
	}
	f, err := os.Open(file)
	if err != nil {
		return fail.As(fail.Usage, "name the file of the backup", err)
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if err := site.Restore(ctx, a.Dir, f, []age.Identity{id}, a.options(true)); err != nil {
		return err
	}
	return a.change(ctx, "restore", func(s *site.Site, by site.Actor) error {
		return s.Act(ctx, "restore", by, map[string]string{"file": filepath.Base(file)}, func(context.Context, int64) (map[string]string, error) { return nil, nil })
	})
}
