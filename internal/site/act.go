package site

import (
	"context"
	"crypto/ed25519"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"enisle/internal/fail"
	"enisle/internal/site/ledger"
	"enisle/internal/site/state"
	"enisle/internal/site/trust"
)

const (
	metaHead = "ledger.head"
	metaRoot = "root.version"
	actType  = "application/vnd.enisle.act.v1+json"
)

// Outcomes of acts.
const (
	Done        = "done"
	Refused     = "refused"
	Failed      = "failed"
	Interrupted = "interrupted"
)

// Actor is who acts: a name and, where it is proven, the key.
type Actor struct {
	Name string
	Key  *trust.Key
}

// ID returns the id of the actor's key, empty if it is unproven.
func (a Actor) ID() string {
	if a.Key == nil {
		return ""
	}
	return a.Key.Public.ID()
}

// Actor proves that key belongs to the person called name; without both the
// actor is the unproven user of this process.
func (s *Site) Actor(name string, key *trust.Key) (Actor, error) {
	switch {
	case name == "" && key == nil:
		return Actor{Name: "uid:" + strconv.Itoa(os.Getuid())}, nil
	case name == "" || key == nil:
		return Actor{}, fail.As(fail.Usage, "give both --as NAME and --key FILE", errors.New("an actor needs a name and a key"))
	}
	p, ok := s.Roots.Root().Named(name)
	if !ok {
		hint := "'enisle trust show' lists who is enrolled"
		if s.Roots.Sealed() {
			hint += "; after sealing only two admins enrol anybody"
		}
		return Actor{}, fail.Refuse(hint, fmt.Errorf("nobody called %q is enrolled at %s", name, s.Identity.Name))
	}
	if p.Key.ID() != key.Public.ID() {
		return Actor{}, fail.Refuse("use the key that was enrolled", fmt.Errorf("the key is not the one %s enrolled", name))
	}
	return Actor{name, key}, nil
}

// Act does one act. The intent is recorded first, with whether the actor is
// proven; when that fails nothing is done. do returns what else the outcome
// should say. An effect that do commits to the state must be marked there with
// SetEffect, so that after a crash the outcome can be told.
func (s *Site) Act(ctx context.Context, act string, by Actor, subject map[string]string,
	do func(ctx context.Context, intent int64) (map[string]string, error),
) error {
	if err := s.checkClock(); err != nil {
		return err
	}
	who := ledger.Actor{Name: by.Name, Key: by.ID()}
	var sign func([]byte) ([]byte, error)
	if by.Key != nil {
		sign = func(b []byte) ([]byte, error) { return trust.SignDetached(actType, b, by.Key) }
	}
	intent, err := s.Ledger.Begin(act, who, subject, s.now(), sign)
	if err != nil {
		return full(fmt.Errorf("%s is not done, because it could not be recorded: %w", act, err))
	}
	if err := s.rememberHead(ctx); err != nil {
		return full(err)
	}
	said, err := do(ctx, intent)
	err = full(err)
	result := Done
	switch {
	case err == nil:
	case errors.Is(err, context.Canceled) || fail.KindOf(err) == fail.Partial:
		result = Interrupted
	case fail.IsRefused(err):
		result = Refused
	default:
		result = Failed
	}
	if err != nil {
		said = map[string]string{"error": clip(err.Error())}
	}
	if e := s.Ledger.End(intent, act, result, who, said, s.now()); e != nil {
		// The intent stays open and is settled when the site is opened next.
		return errors.Join(err, full(e))
	}
	return errors.Join(err, s.rememberHead(context.WithoutCancel(ctx)))
}

func clip(s string) string {
	if len(s) > 500 {
		s = s[:500] + "…"
	}
	return strings.ToValidUTF8(s, "?")
}

// full marks an error of a full disk as one after which to go on.
func full(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) || err != nil && strings.Contains(err.Error(), "database or disk is full") {
		return fail.As(fail.Partial, "free some space and run the same command again: it takes up where it stopped", err)
	}
	return err
}

func (s *Site) checkClock() error {
	if last := s.Ledger.Head().Last; s.now().Before(last.Add(-MaxClockBack)) {
		return fail.Refuse("set the clock of this machine; nothing is done until it is right",
			fmt.Errorf("the clock says %s, but the newest record is of %s", s.Now().Format("2006-01-02 15:04"), last.Format("2006-01-02 15:04")))
	}
	return nil
}

func (s *Site) rememberHead(ctx context.Context) error {
	return s.State.Update(ctx, func(tx *state.Tx) error {
		return errors.Join(tx.SetMeta(metaHead, s.Ledger.Head().Note), tx.SetMeta(metaRoot, strconv.Itoa(s.version())))
	})
}

// version is that of the sealed root, 0 before.
func (s *Site) version() int {
	if !s.Roots.Sealed() {
		return 0
	}
	return s.Roots.Root().Version
}

// checkRewind compares ledger and root with what the state remembers of them:
// neither may have gone back.
func (s *Site) checkRewind(ctx context.Context) error {
	return s.State.View(ctx, func(tx *state.Tx) error {
		note, err := tx.Meta(metaHead)
		if err != nil || note == "" {
			return err
		}
		head, err := s.Checkpoint(note)
		if err != nil {
			return err
		}
		if err := s.Ledger.Extends(head); err != nil {
			return err
		}
		v, err := tx.Meta(metaRoot)
		if err != nil {
			return err
		}
		if n, err := strconv.Atoi(v); err != nil || n > s.version() {
			return fail.Refuse("restore the site's trust directory from its backup and tell the security officer",
				fmt.Errorf("the root is at version %d, but version %s was seen: it was cut back", s.version(), v))
		}
		return nil
	})
}

// Checkpoint reads a head of this site's own ledger.
func (s *Site) Checkpoint(signed string) (ledger.Head, error) {
	public, err := notePublic(s.Identity.Key)
	if err != nil {
		return ledger.Head{}, err
	}
	h, err := ledger.ParseCheckpoint(signed, origin(s.Identity.Name), public)
	if err != nil {
		err = fail.Refuse("tell the security officer", err)
	}
	return h, err
}

// VerifyLedger reads every record and proves the chain, every actor's
// signature, and that each checkpoint given is of a prefix of it.
func (s *Site) VerifyLedger(checkpoints []string) (int64, error) {
	for _, c := range checkpoints {
		h, err := s.Checkpoint(c)
		if err != nil {
			return 0, err
		}
		if err := s.Ledger.Extends(h); err != nil {
			return 0, err
		}
	}
	return s.Ledger.Verify(s.checkActor)
}

// checkActor verifies that the key named in an intent signed it. Whether it had
// the right to is judged when it acts, against the root of that moment.
func (s *Site) checkActor(r ledger.Record) error {
	if r.Phase != ledger.Intent || r.Actor.Key == "" {
		return nil
	}
	key, err := s.Roots.Ever(r.Actor.Key)
	if err == nil {
		sig := r.Actor.Sig
		r.Actor.Sig = nil
		var b []byte
		if b, err = json.Marshal(r); err == nil {
			err = trust.VerifyDetached(actType, b, sig, key)
		}
	}
	if err != nil {
		return fmt.Errorf("record %d: actor %s: %w", r.Index, r.Actor.Name, err)
	}
	return nil
}

// settle ends what a crash left open.
func (s *Site) settle(ctx context.Context) error {
	if err := errors.Join(s.Roots.Tidy(), s.Ledger.Tidy(), s.Held.CleanTemp(Resumable)); err != nil {
		return err
	}
	if s.Quarantine != nil {
		if err := s.Quarantine.CleanTemp(Resumable); err != nil {
			return err
		}
	}
	for _, intent := range s.Ledger.Head().Open {
		if err := s.settleIntent(ctx, intent); err != nil {
			return fmt.Errorf("settle intent %d: %w", intent, err)
		}
	}
	return nil
}

func (s *Site) settleIntent(ctx context.Context, intent int64) error {
	var r ledger.Record
	found := errors.New("found")
	err := s.Ledger.Each(func(rec ledger.Record) error {
		if rec.Index == intent {
			r = rec
			return found
		}
		return nil
	})
	if !errors.Is(err, found) {
		return errors.Join(err, errors.New("the intent is not in the ledger"))
	}
	result, said := Interrupted, map[string]string{"settled": "when the site was opened again"}
	err = s.State.View(ctx, func(tx *state.Tx) error {
		effect, ok, err := tx.Effect(intent)
		if ok {
			result, said["effect"] = Done, effect
		}
		return err
	})
	if err != nil {
		return err
	}
	if err := s.Ledger.End(intent, r.Act, result, r.Actor, said, s.now()); err != nil {
		return err
	}
	return s.rememberHead(ctx)
}

// Keys of blobs under construction that outlive the process that began them.
const (
	FetchKey  = "fetch-"
	ImportKey = "import-"
)

// Resumable reports whether a blob under construction is kept for a next run.
func Resumable(key string) bool {
	return strings.HasPrefix(key, FetchKey) || strings.HasPrefix(key, ImportKey)
}

func notePublic(p trust.Public) (ed25519.PublicKey, error) {
	k, err := x509.ParsePKIXPublicKey(p)
	if err != nil {
		return nil, err
	}
	pub, ok := k.(ed25519.PublicKey)
	if !ok {
		return nil, errors.New("the site's key is not Ed25519")
	}
	return pub, nil
}
