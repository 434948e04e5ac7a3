// Package app builds every part and is the only place that names
// implementations. Terminal and browser call the same functions here.
//
// One method a verb: it opens the site, proves the actor, calls the use case in
// package crossing, and closes the site again.
package app

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"enisle/internal/artifact"
	"enisle/internal/crossing"
	"enisle/internal/fail"
	"enisle/internal/judge/policy"
	"enisle/internal/site"
	"enisle/internal/site/state"
	"enisle/internal/site/store"
	"enisle/internal/site/token"
	"enisle/internal/site/trust"
)

// App is the program for one site.
type App struct {
	Dir      string // of the site
	As       string // name of the actor; empty means unproven
	KeyFile  string // of the actor's key
	Now      func() time.Time
	Log      *slog.Logger
	Progress crossing.Progress
	// Passphrase is asked for when the actor's key is protected, SitePassphrase
	// when the site's keys are; each is told which. Nil means nobody can answer.
	Passphrase, SitePassphrase func(what string) (string, error)
}

func ask(f func(string) (string, error), what string) func() (string, error) {
	if f == nil {
		return nil
	}
	return func() (string, error) { return f(what) }
}

// askSite returns how the passphrase of the site's keys is had: a person knows it,
// or the PIN of the token that does.
func (a *App) askSite() func() (string, error) {
	b, err := os.ReadFile(filepath.Join(a.Dir, site.WrappedFile))
	if errors.Is(err, fs.ErrNotExist) {
		return ask(a.SitePassphrase, "the keys of "+a.Dir)
	}
	return func() (string, error) {
		if err != nil {
			return "", err
		}
		secret, err := token.Unwrap(b, ask(a.SitePassphrase, "the token of "+a.Dir+" (PIN)"))
		return string(secret), err
	}
}

// Secrets say how the keys of a new site are protected.
type Secrets = site.Secrets

// WrappedSecrets are those of a site whose keys are opened by a token.
func (a *App) WrappedSecrets(uri string) (out Secrets, err error) {
	out.Passphrase = rand.Text()
	out.Wrapped, err = token.Wrap(uri, ask(a.SitePassphrase, uri), []byte(out.Passphrase))
	return out, err
}

func (a *App) options(readOnly bool) site.Options {
	return site.Options{ReadOnly: readOnly, Now: a.Now, Log: a.Log, Passphrase: a.askSite()}
}

// actorKey loads the key of whoever acts, from a file or a token; nil if none is
// named.
func (a *App) actorKey() (key *trust.Key, done func() error, err error) {
	pass := ask(a.Passphrase, a.KeyFile)
	if token.Is(a.KeyFile) {
		return token.Load(a.KeyFile, pass)
	}
	if a.KeyFile != "" {
		key, err = trust.LoadKey(a.KeyFile, pass)
	}
	return key, func() error { return nil }, err
}

// read runs do with the site open for reading.
func (a *App) read(ctx context.Context, do func(*site.Site) error) (err error) {
	s, err := site.Open(ctx, a.Dir, a.options(true))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	return do(s)
}

// maxJump is how far ahead of the newest record the clock may stand for an
// attempt that was refused to be recorded.
const maxJump = 31 * 24 * time.Hour

// change runs do with the site open for changes and the actor proven. A refusal
// that came before the act itself was recorded is recorded as well.
func (a *App) change(ctx context.Context, act string, do func(*site.Site, site.Actor) error) (err error) {
	key, done, err := a.actorKey()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, done()) }()
	s, err := site.Open(ctx, a.Dir, a.options(false))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	by, err := s.Actor(a.As, key)
	if err != nil {
		return err
	}
	before := s.Ledger.Head()
	err = do(s, by)
	// A clock that jumped is likely the reason of the refusal: its time must not
	// become the newest in the ledger.
	jumped := s.Now().Sub(before.Last) > maxJump
	if !fail.IsRefused(err) || s.Ledger.Head().Size != before.Size || jumped {
		return err
	}
	refusal := err
	recorded := s.Act(ctx, act, by, map[string]string{"attempt": "refused before it began"},
		func(context.Context, int64) (map[string]string, error) { return nil, refusal })
	if !errors.Is(recorded, refusal) {
		// Nothing was done that would need a record: the refusal stands.
		a.log().WarnContext(ctx, "a refused attempt could not be recorded", "act", act, "err", recorded)
	}
	return refusal
}

// Init makes the site.
func (a *App) Init(ctx context.Context, side, name, policyName string, secrets Secrets) (trust.Identity, error) {
	if side != trust.Low && side != trust.High {
		return trust.Identity{}, fail.As(fail.Usage, "give --side low or --side high", fmt.Errorf("side %q", side))
	}
	if name == "" {
		name = strings.ToLower(filepath.Base(filepath.Clean(a.Dir)))
	}
	b, err := policy.Named(policyName)
	if err != nil {
		return trust.Identity{}, err
	}
	return site.Init(ctx, a.Dir, side, name, b, secrets, a.options(false))
}

// Identity returns what the site tells other sites of itself.
func (a *App) Identity(ctx context.Context) (id trust.Identity, encoded []byte, err error) {
	s, err := site.Open(ctx, a.Dir, a.options(false))
	if err != nil {
		return id, nil, err
	}
	defer func() { err = errors.Join(err, s.Close()) }()
	encoded, err = s.Identity.Encode(s.Key)
	return s.Identity, encoded, err
}

// Paired says what pairing came to.
type Paired struct {
	Name        string `json:"name"`
	Side        string `json:"side"`
	Fingerprint string `json:"fingerprint"`
	Confirmed   bool   `json:"confirmed"`
	Pending     bool   `json:"pending"` // a second admin must sign
}

// Pair takes another site's identity from a file. expect, if given, is the
// fingerprint that people compared.
func (a *App) Pair(ctx context.Context, file, expect string) (out Paired, err error) {
	b, err := os.ReadFile(file)
	if err != nil {
		return out, fail.As(fail.Usage, "name the file that 'enisle identity' wrote at the other site", err)
	}
	id, err := trust.DecodeIdentity(b)
	if err != nil {
		return out, fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	out = Paired{Name: id.Name, Side: id.Side, Fingerprint: id.Fingerprint(), Confirmed: expect != ""}
	if expect != "" && !trust.SameFingerprint(expect, out.Fingerprint) {
		return out, fail.Refuse("do not use the file; have the identity sent again", fmt.Errorf("the fingerprint of %s is %s, not the one expected", id.Name, out.Fingerprint))
	}
	subject := map[string]string{"site": id.Name, "fingerprint": out.Fingerprint}
	out.Pending, err = a.changeRoot(ctx, "pair", subject, func(r trust.Root) (trust.Root, error) { return r.Pair(id, out.Confirmed) })
	return out, err
}

// changeRoot changes the draft, or after sealing proposes the change. Policies
// that the change names are kept first.
func (a *App) changeRoot(ctx context.Context, act string, subject map[string]string, change func(trust.Root) (trust.Root, error), policies ...[]byte) (pending bool, err error) {
	err = a.change(ctx, act, func(s *site.Site, by site.Actor) error {
		return s.ActOnRoot(ctx, act, by, subject, func(context.Context, int64) (map[string]string, error) {
			for _, b := range policies {
				if _, err := s.KeepPolicy(b); err != nil {
					return nil, err
				}
			}
			if s.Roots.Sealed() && by.Key != nil {
				pending = true
				return map[string]string{"pending": "a second admin must sign"}, s.Roots.Propose(change, by.Key, s.Now())
			}
			return nil, s.Roots.Edit(change)
		})
	})
	return pending, err
}

// Keygen makes a signing key in file, protected by the passphrase if there is
// one, and returns its id.
func Keygen(file, passphrase string) (string, error) {
	k, err := trust.GenerateKey()
	if err != nil {
		return "", err
	}
	return k.Public.ID(), trust.SaveKey(k, file, passphrase)
}

// KeygenInToken makes a key in a token, and writes its public half to file.pub.
func (a *App) KeygenInToken(uri, file string) (string, error) {
	k, done, err := token.Generate(uri, ask(a.Passphrase, uri))
	if err != nil {
		return "", err
	}
	return k.Public.ID(), errors.Join(trust.SavePublic(k, file), done())
}

// AddPerson enrols a person with the public key in a file.
func (a *App) AddPerson(ctx context.Context, name string, roles []string, keyFile string) (pending bool, err error) {
	key, err := trust.LoadPublic(keyFile)
	if err != nil {
		return false, err
	}
	subject := map[string]string{"person": name, "roles": strings.Join(roles, ","), "enrolled-key": key.ID()}
	return a.changeRoot(ctx, "person add", subject, func(r trust.Root) (trust.Root, error) {
		return r.Enrol(trust.Person{Name: name, Roles: roles, Key: key})
	})
}

// Revoke removes a person; their key never counts again.
func (a *App) Revoke(ctx context.Context, name string) (pending bool, err error) {
	return a.changeRoot(ctx, "trust revoke", map[string]string{"person": name}, func(r trust.Root) (trust.Root, error) { return r.Revoke(name) })
}

// SetPolicy puts another policy in force: one that ships with enisle, or a file.
func (a *App) SetPolicy(ctx context.Context, nameOrFile string) (pending bool, err error) {
	b, err := policyBytes(nameOrFile)
	if err != nil {
		return false, err
	}
	d := artifact.Sum(b)
	subject := map[string]string{"policy": string(d)}
	return a.changeRoot(ctx, "policy set", subject, func(r trust.Root) (trust.Root, error) { return r.SetPolicy(d) }, b)
}

func policyBytes(nameOrFile string) ([]byte, error) {
	if b, err := policy.Named(nameOrFile); err == nil {
		return b, nil
	}
	b, rerr := os.ReadFile(nameOrFile)
	if errors.Is(rerr, fs.ErrNotExist) {
		return nil, fail.As(fail.Usage, "give standard, strict, or a file as 'enisle policy show' prints it", fmt.Errorf("there is no policy or file %q", nameOrFile))
	}
	if rerr != nil {
		return nil, rerr
	}
	p, err := policy.Parse(b)
	if err != nil {
		return nil, err
	}
	if err := p.TryAll(); err != nil {
		return nil, fail.Refuse("'enisle policy test "+nameOrFile+"' shows what each rule comes to", fmt.Errorf("policy: %w", err))
	}
	return b, nil
}

// TestPolicy runs the tests that a policy carries: of one in a file, one that
// ships with enisle, or with an empty name the one in force.
func (a *App) TestPolicy(ctx context.Context, nameOrFile string) (out []policy.Tried, err error) {
	var b []byte
	if nameOrFile == "" {
		b, err = a.ShowPolicy(ctx, false)
	} else if b, err = policy.Named(nameOrFile); err != nil {
		b, err = os.ReadFile(nameOrFile)
	}
	if err != nil {
		return nil, fail.As(fail.Usage, "give standard, strict, or a file as 'enisle policy show' prints it", err)
	}
	p, err := policy.Parse(b)
	if err != nil {
		return nil, err
	}
	return p.Try(), nil
}

// SignedRoot says what an admin signed and what is still missing.
type SignedRoot struct {
	trust.Proposal
	Missing int `json:"missing"` // signatures; 0: it is in force
}

// SignRoot adds an admin's signature to the proposed root. expect, if not empty,
// is the digest of what the admin read.
func (a *App) SignRoot(ctx context.Context, expect artifact.Digest) (out SignedRoot, err error) {
	err = a.asAdmin(ctx, "trust sign", func(s *site.Site, by site.Actor) (_ map[string]string, err error) {
		if err := errors.Join(proposedPolicy(s), proposedClock(s)); err != nil {
			return nil, err
		}
		out.Proposal, out.Missing, err = s.Roots.Countersign(by.Key, expect)
		return map[string]string{"root": fmt.Sprint(s.Roots.Root().Version), "signed": string(out.Digest)}, err
	})
	return out, err
}

// proposedPolicy makes sure that the policy which the proposed root names is
// here and can be read: without it the site could not be opened any more.
func proposedPolicy(s *site.Site) error {
	p, err := s.Roots.Pending()
	if err != nil || p == nil {
		return err
	}
	b, err := s.ReadPolicy(p.Root.Policy)
	if err == nil {
		_, err = policy.Parse(b)
	}
	return err
}

// proposedClock refuses to sign a time that is not this machine's any more.
func proposedClock(s *site.Site) error {
	p, err := s.Roots.Pending()
	if err != nil || p == nil || p.Root.Clock.Equal(s.Roots.Root().Clock) {
		return err
	}
	if d := s.Now().Sub(p.Root.Clock); d > maxVouch || d < -maxVouch {
		return fail.Refuse("take it back with 'enisle trust withdraw' and propose it again",
			fmt.Errorf("the proposed time is %s, this machine's is %s", p.Root.Clock.Format(time.DateTime), s.Now().Format(time.DateTime)))
	}
	return nil
}

// maxVouch is how long admins may take to vouch for the clock.
const maxVouch = 24 * time.Hour

// SetClock vouches for this machine's clock, where records bear a wrong time or
// none were made for long.
func (a *App) SetClock(ctx context.Context) (pending bool, err error) {
	return a.changeRoot(ctx, "trust clock", nil, func(r trust.Root) (trust.Root, error) {
		now := time.Now
		if a.Now != nil {
			now = a.Now
		}
		return r.SetClock(now())
	})
}

// SetThresholds says how many people an act needs.
func (a *App) SetThresholds(ctx context.Context, t trust.Thresholds) (pending bool, err error) {
	subject := map[string]string{"collectors": fmt.Sprint(t.Collectors), "approvers": fmt.Sprint(t.Approvers), "admins": fmt.Sprint(t.Admins)}
	return a.changeRoot(ctx, "trust thresholds", subject, func(r trust.Root) (trust.Root, error) { return r.SetThresholds(t) })
}

// WithdrawRoot takes the proposed root back.
func (a *App) WithdrawRoot(ctx context.Context) error {
	return a.asAdmin(ctx, "trust withdraw", func(s *site.Site, by site.Actor) (map[string]string, error) {
		return nil, s.Roots.Withdraw(by.Key)
	})
}

func (a *App) asAdmin(ctx context.Context, act string, do func(*site.Site, site.Actor) (map[string]string, error)) error {
	return a.change(ctx, act, func(s *site.Site, by site.Actor) error {
		if by.Key == nil {
			return fail.As(fail.Usage, "give --as NAME --key FILE", errors.New("only an admin does this"))
		}
		return s.ActOnRoot(ctx, act, by, nil, func(context.Context, int64) (map[string]string, error) { return do(s, by) })
	})
}

// Trust says who may do what at the site.
type Trust struct {
	Root        trust.Root        `json:"root"`
	Sealed      bool              `json:"sealed"`
	Fingerprint string            `json:"fingerprint"`
	Peers       map[string]string `json:"peers"`              // name → fingerprint
	Proposed    *trust.Proposal   `json:"proposed,omitempty"` // waits for admins to sign
	Damaged     string            `json:"damaged,omitempty"`  // why a proposal that stands there cannot be signed
}

// ShowTrust returns the root in force.
func (a *App) ShowTrust(ctx context.Context) (out Trust, err error) {
	err = a.read(ctx, func(s *site.Site) error {
		out = Trust{Root: s.Roots.Root(), Sealed: s.Roots.Sealed(), Fingerprint: s.Identity.Fingerprint(), Peers: map[string]string{}}
		for _, p := range out.Root.Peers {
			out.Peers[p.Name] = p.Fingerprint()
		}
		var perr error
		if out.Proposed, perr = s.Roots.Pending(); perr != nil {
			out.Damaged = perr.Error()
		}
		return nil
	})
	return out, err
}

// ShowPolicy returns the policy in force, or the one that a proposed root names.
func (a *App) ShowPolicy(ctx context.Context, proposed bool) (b []byte, err error) {
	err = a.read(ctx, func(s *site.Site) error {
		if b = s.Policy; !proposed {
			return nil
		}
		p, err := s.Roots.Pending()
		if err == nil && p == nil {
			err = fail.As(fail.Usage, "'enisle policy show' prints the one in force", errors.New("no policy is proposed"))
		}
		if err == nil {
			b, err = s.ReadPolicy(p.Root.Policy)
		}
		return err
	})
	return b, err
}

// Unchangeable warns of a site that was sealed without two admins; empty means
// all is well.
func (a *App) Unchangeable(ctx context.Context) (warning string) {
	_ = a.read(ctx, func(s *site.Site) error {
		if r := s.Roots.Root(); r.With(trust.Admin) < r.Thresholds.Admins {
			warning = fmt.Sprintf("%s is sealed without two admins: its people, peers and policy can never change", s.Identity.Name)
		}
		return nil
	}) // a site that cannot be read has its own error elsewhere
	return warning
}

// VerifyLedger proves the ledger against every checkpoint that the site holds.
func (a *App) VerifyLedger(ctx context.Context) (records int64, held int, err error) {
	err = a.read(ctx, func(s *site.Site) error {
		points, err := crossing.Checkpoints(ctx, s)
		if err != nil {
			return err
		}
		held = len(points)
		records, err = s.VerifyLedger(points)
		return err
	})
	return records, held, err
}

// CheckedStore says what check found.
type CheckedStore struct {
	Blobs int   `json:"blobs"`
	Bytes int64 `json:"bytes"`
	Bad   int   `json:"bad"`

	remove bool
}

// Check compares the store with the state and, with data, every blob with its
// name. It goes on after a bad one, to list them all.
func (a *App) Check(ctx context.Context, data bool, report func(string)) (out CheckedStore, err error) {
	err = a.read(ctx, func(s *site.Site) error { return out.checkSite(ctx, s, data, report) })
	if err == nil && out.Bad > 0 {
		err = fail.Refuse("run it again with --remove; then 'enisle collect', or import the shipments again, bring them back", fmt.Errorf("%d of %d blobs are damaged", out.Bad, out.Blobs))
	}
	return out, err
}

// CheckRemove is Check of every byte that removes what is damaged, so that it
// can be brought in again.
func (a *App) CheckRemove(ctx context.Context, report func(string)) (out CheckedStore, err error) {
	err = a.change(ctx, "check", func(s *site.Site, by site.Actor) error {
		return s.Act(ctx, "check", by, nil, func(context.Context, int64) (map[string]string, error) {
			out.remove = true
			err := out.checkSite(ctx, s, true, report)
			return map[string]string{"removed": fmt.Sprint(out.Bad)}, err
		})
	})
	return out, err
}

func (out *CheckedStore) checkSite(ctx context.Context, s *site.Site, data bool, report func(string)) error {
	err := out.check(ctx, s.Held, data, report)
	if s.Quarantine != nil {
		err = errors.Join(err, out.check(ctx, s.Quarantine, data, report))
	}
	return err
}

func (out *CheckedStore) check(ctx context.Context, blobs *store.Blobs, data bool, report func(string)) error {
	return blobs.All(func(d artifact.Digest) error {
		n, err := blobs.Stat(d)
		if err != nil {
			return err
		}
		out.Blobs, out.Bytes = out.Blobs+1, out.Bytes+n
		if !data {
			return ctx.Err()
		}
		if err := blobs.Check(ctx, d); fail.IsRefused(err) {
			out.Bad++
			report(err.Error())
			if out.remove {
				return blobs.Remove(d)
			}
		} else if err != nil {
			return err
		}
		return nil
	})
}

// ChannelState is where one channel points and where it pointed.
type ChannelState struct {
	Name    string       `json:"name"`
	Release int64        `json:"release"` // 0: nothing yet
	Moves   []state.Move `json:"moves"`
}

// Channels returns all channels.
func (a *App) Channels(ctx context.Context) (out []ChannelState, err error) {
	err = a.read(ctx, func(s *site.Site) error {
		if err := s.Require(trust.High); err != nil {
			return err
		}
		return s.State.View(ctx, func(tx *state.Tx) error {
			for _, name := range crossing.Channels() {
				r, _, err := tx.Channel(name)
				if err != nil {
					return err
				}
				moves, err := tx.Moves(name)
				if err != nil {
					return err
				}
				out = append(out, ChannelState{name, r.Number, slices.Clip(moves)})
			}
			return nil
		})
	})
	return out, err
}
