package site

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"enisle/internal/fail"
	"enisle/internal/site/ledger"
	"enisle/internal/site/state"
	"enisle/internal/site/trust"
)

func newSite(t *testing.T, side string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), side)
	if _, err := Init(t.Context(), dir, side, "the-"+side, []byte("{}"), Secrets{}, Options{}); err != nil {
		t.Fatal(err)
	}
	return dir
}

func open(t *testing.T, dir string, opt Options) *Site {
	t.Helper()
	s, err := Open(t.Context(), dir, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

func act(s *Site, name string, do func(context.Context, int64) (map[string]string, error)) error {
	by, err := s.Actor("", nil)
	if err != nil {
		return err
	}
	return s.Act(context.Background(), name, by, map[string]string{"what": name}, do)
}

func nothing(context.Context, int64) (map[string]string, error) { return nil, nil }

func TestEveryActIsAnIntentAndAnOutcome(t *testing.T) {
	s := open(t, newSite(t, trust.High), Options{})
	for i, do := range []func(context.Context, int64) (map[string]string, error){
		nothing,
		func(context.Context, int64) (map[string]string, error) {
			return nil, fail.Refuse("h", errors.New("no"))
		},
		func(context.Context, int64) (map[string]string, error) { return nil, errors.New("broke") },
	} {
		_ = act(s, []string{"a", "b", "c"}[i], do)
	}
	var got []string
	if err := s.Ledger.Each(func(r ledger.Record) error { got = append(got, r.Act+" "+r.Phase+" "+r.Result); return nil }); err != nil {
		t.Fatal(err)
	}
	want := "a intent ,a outcome done,b intent ,b outcome refused,c intent ,c outcome failed"
	if strings.Join(got, ",") != want {
		t.Errorf("got %q, want %q", strings.Join(got, ","), want)
	}
	if n, err := s.VerifyLedger([]string{s.Ledger.Head().Note}); n != 6 || err != nil {
		t.Errorf("verified %d records, %v", n, err)
	}
}

func TestACrashShowsAsAnOpenIntentAndIsSettled(t *testing.T) {
	for name, tc := range map[string]struct {
		effect bool
		want   string
	}{
		"before it took effect": {false, Interrupted},
		"after it took effect":  {true, Done},
	} {
		t.Run(name, func(t *testing.T) {
			dir := newSite(t, trust.High)
			s := open(t, dir, Options{})
			n, err := s.Ledger.Begin("release", ledger.Actor{Name: "x"}, nil, time.Now(), nil)
			if err != nil {
				t.Fatal(err)
			}
			if tc.effect {
				if err := s.State.Update(t.Context(), func(tx *state.Tx) error { return tx.SetEffect(n, "release 1") }); err != nil {
					t.Fatal(err)
				}
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			s = open(t, dir, Options{})
			if open := s.Ledger.Head().Open; len(open) != 0 {
				t.Errorf("intents %v are still open", open)
			}
			var last ledger.Record
			if err := s.Ledger.Each(func(r ledger.Record) error { last = r; return nil }); err != nil {
				t.Fatal(err)
			}
			if last.Result != tc.want {
				t.Errorf("settled as %q, want %q", last.Result, tc.want)
			}
		})
	}
}

func TestALedgerCutBackIsNoticed(t *testing.T) {
	dir := newSite(t, trust.High)
	s := open(t, dir, Options{})
	_ = act(s, "first", nothing)
	_ = s.Close()
	old := t.TempDir()
	if err := os.CopyFS(old, os.DirFS(filepath.Join(dir, ledgerDir))); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	_ = act(s, "second", nothing)
	_ = s.Close()
	if err := errors.Join(os.RemoveAll(filepath.Join(dir, ledgerDir)), os.CopyFS(filepath.Join(dir, ledgerDir), os.DirFS(old))); err != nil {
		t.Fatal(err)
	}
	for _, readOnly := range []bool{true, false} {
		_, err := Open(t.Context(), dir, Options{ReadOnly: readOnly})
		if !fail.IsRefused(err) || !strings.Contains(err.Error(), "cut back") {
			t.Errorf("read only %v: got %v, want a refusal that says cut back", readOnly, err)
		}
	}
}

func TestAnyChangeOfARecordIsNoticed(t *testing.T) {
	dir := newSite(t, trust.High)
	s := open(t, dir, Options{})
	for range 5 {
		_ = act(s, "act", nothing)
	}
	_ = s.Close()
	file := filepath.Join(dir, ledgerDir, "records.jsonl")
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for at := 0; at < len(b); at += 37 {
		c := append([]byte(nil), b...)
		c[at] ^= 4
		if err := os.WriteFile(file, c, 0o600); err != nil {
			t.Fatal(err)
		}
		s := open(t, dir, Options{ReadOnly: true})
		if _, err := s.VerifyLedger(nil); !fail.IsRefused(err) {
			t.Fatalf("byte %d: got %v, want a refusal", at, err)
		}
		_ = s.Close()
	}
}

func TestLostHashesAreComputedAnew(t *testing.T) {
	dir := newSite(t, trust.High)
	s := open(t, dir, Options{})
	for range 7 {
		_ = act(s, "act", nothing)
	}
	_ = s.Close()
	if err := os.Truncate(filepath.Join(dir, ledgerDir, "hashes"), 96); err != nil {
		t.Fatal(err)
	}
	s = open(t, dir, Options{})
	if n, err := s.VerifyLedger(nil); n != 14 || err != nil {
		t.Errorf("verified %d, %v", n, err)
	}
}

func TestAWrongClockIsRefused(t *testing.T) {
	dir := newSite(t, trust.High)
	s := open(t, dir, Options{})
	_ = act(s, "act", nothing)
	_ = s.Close()
	s = open(t, dir, Options{Now: func() time.Time { return time.Now().Add(-time.Hour) }})
	if err := act(s, "late", nothing); !fail.IsRefused(err) || !strings.Contains(err.Error(), "clock") {
		t.Errorf("got %v, want a refusal that names the clock", err)
	}
}

func TestOneCommandAtATime(t *testing.T) {
	dir := newSite(t, trust.Low)
	_ = open(t, dir, Options{})
	if _, err := Open(t.Context(), dir, Options{Wait: time.Millisecond}); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("got %v, want that the site is in use", err)
	}
	if _, err := Open(t.Context(), dir, Options{ReadOnly: true}); err != nil {
		t.Errorf("reading while it is in use: %v", err)
	}
}

func TestAChangedPolicyIsRefused(t *testing.T) {
	dir := newSite(t, trust.High)
	files, err := filepath.Glob(filepath.Join(dir, policiesDir, "*.yaml"))
	if err != nil || len(files) != 1 {
		t.Fatal(files, err)
	}
	if err := os.WriteFile(files[0], []byte("{ }"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), dir, Options{}); !fail.IsRefused(err) {
		t.Errorf("got %v, want a refusal", err)
	}
}

func TestKeysAreProtectedByAPassphrase(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "s")
	if _, err := Init(t.Context(), dir, trust.High, "s", []byte("{}"), Secrets{Passphrase: "correct horse"}, Options{}); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(t.Context(), dir, Options{}); !errors.Is(err, trust.ErrPassphrase) {
		t.Errorf("without it: %v", err)
	}
	if _, err := Open(t.Context(), dir, Options{Passphrase: func() (string, error) { return "wrong", nil }}); !fail.IsRefused(err) {
		t.Errorf("with a wrong one: %v", err)
	}
	s := open(t, dir, Options{Passphrase: func() (string, error) { return "correct horse", nil }})
	if _, err := s.AgeIdentity(func() (string, error) { return "correct horse", nil }); err != nil {
		t.Error(err)
	}
}
