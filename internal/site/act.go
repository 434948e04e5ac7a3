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
	"time"

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
	if err := s.CheckClock(); err != nil {
		return err
	}
	return s.act(ctx, act, by, subject, s.now, do)
}

// ActOnRoot is Act for what the admins do to the root, which goes on under a
// clock that is doubted: they may have to vouch for it. Until they have, the
// ledger's time stands still.
func (s *Site) ActOnRoot(ctx context.Context, act string, by Actor, subject map[string]string,
	do func(ctx context.Context, intent int64) (map[string]string, error),
) error {
	clock := s.now
	if s.CheckClock() != nil {
		clock = func() time.Time { return s.Ledger.Head().Last }
	}
	return s.act(ctx, act, by, subject, clock, do)
}

func (s *Site) act(ctx context.Context, act string, by Actor, subject map[string]string, clock func() time.Time,
	do func(ctx context.Context, intent int64) (map[string]string, error),
) error {
	who := ledger.Actor{Name: by.Name, Key: by.ID()}
	var sign func([]byte) ([]byte, error)
	if by.Key != nil {
		sign = func(b []byte) ([]byte, error) { return trust.SignDetached(actType, b, by.Key) }
	}
	intent, err := s.Ledger.Begin(act, who, subject, clock(), sign)
	if err != nil {
		return full(fmt.Errorf("%s is not done, because it could not be recorded: %w", act, err))
	}
	if err := s.rememberHead(ctx); err != nil {
		return full(err)
	}
	vouched := s.Roots.Root().Clock
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
	reset := !s.Roots.Root().Clock.Equal(vouched)
	if reset {
		clock = s.now
	}
	if e := s.Ledger.End(intent, act, result, who, said, clock(), reset); e != nil {
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

// CheckClock refuses a clock that stands before the newest record, or so far
// after it that it has likely jumped. Two admins may then vouch for it; where
// there are none that could, the jump ahead is let pass.
func (s *Site) CheckClock() error {
	const hint = "set the clock of this machine; if it is right, let two admins say so: 'enisle trust clock'"
	last := s.Ledger.Head().Last
	ahead, root := last.Add(MaxClockAhead), s.Roots.Root()
	switch now := s.now(); {
	case now.Before(last.Add(-MaxClockBack)):
		return fail.Refuse(hint, fmt.Errorf("the clock says %s, but the newest record is of %s", s.Now().Format("2006-01-02 15:04"), last.Format("2006-01-02 15:04")))
	case s.Ledger.Head().Size > 0 && now.After(ahead) && root.With(trust.Admin) >= root.Thresholds.Admins:
		return fail.Refuse(hint, fmt.Errorf("the clock says %s, but the newest record is of %s: nothing vouches for so long a time", s.Now().Format("2006-01-02 15:04"), last.Format("2006-01-02 15:04")))
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

// remember reads what the state remembers of ledger and root.
func (s *Site) remember(ctx context.Context) error {
	return s.State.View(ctx, func(tx *state.Tx) (err error) {
		if s.seen.head, err = tx.Meta(metaHead); err != nil {
			return err
		}
		s.seen.root, err = tx.Meta(metaRoot)
		return err
	})
}

// checkRewind compares ledger and root with what the state remembered of them:
// neither may have gone back, and the state may not have been emptied.
func (s *Site) checkRewind() error {
	if s.seen.head == "" {
		return fail.Refuse("restore the site from its backup and tell the security officer", errors.New("state: it remembers no ledger: it was replaced"))
	}
	head, err := s.Checkpoint(s.seen.head)
	if err != nil {
		return err
	}
	if err := s.Ledger.Extends(head); err != nil {
		return err
	}
	if n, err := strconv.Atoi(s.seen.root); err != nil || n > s.version() {
		return fail.Refuse("restore the site's trust directory from its backup and tell the security officer",
			fmt.Errorf("the root is at version %d, but version %s was seen: it was cut back", s.version(), s.seen.root))
	}
	return nil
}

// catchUp makes the state remember the ledger's head. A crash leaves it at most
// one record behind; a state that is further behind is an old copy, which would
// have forgotten what was imported, approved and released since.
func (s *Site) catchUp(ctx context.Context) error {
	head, err := s.Checkpoint(s.seen.head)
	if err != nil {
		return err
	}
	switch behind := s.Ledger.Head().Size - head.Size; {
	case behind > 1:
		return fail.Refuse("restore the site as a whole from its newest backup and tell the security officer",
			fmt.Errorf("state: it remembers %d records of %d: it was cut back", head.Size, s.Ledger.Head().Size))
	case behind == 1:
		return full(s.rememberHead(ctx))
	}
	return nil
}

// Checkpoint reads a head of this site's own ledger.
func (s *Site) Checkpoint(signed string) (ledger.Head, error) {
	return s.CheckpointOf(s.Identity, signed)
}

// CheckpointOf reads a head of another site's ledger.
func (s *Site) CheckpointOf(id trust.Identity, signed string) (ledger.Head, error) {
	public, err := notePublic(id.Key)
	if err != nil {
		return ledger.Head{}, err
	}
	h, err := ledger.ParseCheckpoint(signed, origin(id.Name), public)
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
	if err := s.Ledger.End(intent, r.Act, result, r.Actor, said, s.Ledger.Head().Last, false); err != nil {
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
